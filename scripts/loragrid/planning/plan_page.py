"""A plan for people: the table on the terminal and the HTML page."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from loragrid.planning.design_texts import COLUMNS as DESIGN_COLUMNS
from loragrid.planning.design_texts import design_rows, design_sentences, design_warnings
from loragrid.planning.plan_texts import LIGER_LINE, UNKNOWN, count, hours, known, last_sentence, layout_lines, setting

TEMPLATES = Path(__file__).parent / "templates"
PARTS = ("weights", "adapters", "gradients", "optimizer", "activations", "logits", "overhead")
COLUMNS = (
    "run",
    "parameters",
    "trained",
    "memory",
    "fits",
    "updates",
    "tokens",
    "PFLOP",
    "training",
    "sessions",
    "scoring",
)
MEMORY_COLUMNS = ("predicted peak, MiB", *PARTS, "total")
BAR_WIDTH = 600


def format_table(plan: dict[str, Any]) -> str:
    """The plan as text: a line per cell, its memory by part, what the design can find, problems and totals."""
    heading = f"Plan of study {plan['study']}, for {device_line(plan['device'])}"
    cells = _aligned([COLUMNS, *(_cell_texts(row) for row in plan["cells"])])
    parts = _aligned([MEMORY_COLUMNS, *(_memory_texts(row) for row in plan["cells"])])
    design = [*_aligned([DESIGN_COLUMNS, *design_rows(plan["design"])]), *design_sentences(plan["design"])]
    found = problems(plan)
    separator = [""] if found else []
    head = [heading, "", *cells, "", *parts, "", *design, ""]
    lines = [*head, *found, *separator, *summary(plan), "", *_defaults(plan), ""]
    return "\n".join(lines)


def _defaults(plan: dict[str, Any]) -> list[str]:
    """The settings that the study file leaves to their defaults, each with its reason."""
    # A terminal has room for the last sentence, which is the reason; the page has all of them.
    rows = [(row["key"], setting(row["value"]), last_sentence(row["reason"])) for row in plan["defaults"]]
    if not rows:
        return []
    key_width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    heading = f"{len(rows)} settings are left to their defaults:"
    return [heading, *(f"  {key.ljust(key_width)}  {value.ljust(value_width)}  {why}" for key, value, why in rows)]


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """A table's lines, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        aligned = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *aligned]))
    return lines


def _memory_texts(row: dict[str, Any]) -> tuple[str, ...]:
    figures = [row[f"{part}_mib"] for part in (*PARTS, "total")]
    return (_short_name(row), *(known(figure, ",.0f") for figure in figures))


def _cell_texts(row: dict[str, Any]) -> tuple[str, ...]:
    petaflop = None if row["flops"] is None else row["flops"] / 1e15
    return (
        _short_name(row),
        count(row["parameters"]),
        count(row["trainable"]),
        known(row["total_mib"], ",", " MiB"),
        {True: "yes", False: "NO", None: UNKNOWN}[row["fits"]],
        known(row["steps"], ","),
        count(row["tokens"]),
        known(petaflop, ",.3g"),
        hours(row["train_hours"]),
        known(row["sessions"], ""),
        hours(row["score_hours"]),
    )


def _short_name(row: dict[str, Any]) -> str:
    """A run's name without the hash at its end."""
    return row["run"].rsplit("_", 1)[0]


def device_line(device: dict[str, Any]) -> str:
    """The device, whether it is here, and the memory that the plan assumes."""
    where = "this machine's" if device["found"] else "not here; the study file's card"
    memory = ""
    if device["vram_mib"]:
        memory = f", {device['vram_mib']:,} MiB by {device['vram_from']}"
    return f"{device['name']} ({where}{memory})"


def problems(plan: dict[str, Any]) -> list[str]:
    """A line per cell that cannot be planned or does not fit, and per question that the design cannot answer."""
    lines = []
    limit = plan["device"]["vram_mib"]
    for row in plan["cells"]:
        run = row["run"]
        if row["problem"]:
            lines.append(f"{run}: not planned: {row['problem']}")
        needed = row["total_mib"]
        if row["fits"] is False:
            changes = "; or ".join(row["fit_by"])
            if not changes:
                changes = "no single change of batch, length, backend, precision or known card"
            lines.append(f"{run}: does not fit: {needed:,} of {limit:,} MiB. Would fit with {changes}")
        if row["score_fits"] is False:
            needed = f"{row['score_mib']:,} of {limit:,} MiB"
            lines.append(f"{run}: scoring does not fit: {needed}. Fix: lower scoring.batch_size")
        if row["train_hours"] and row["score_hours"] and row["score_hours"] > row["train_hours"]:
            lines.append(f"{run}: scoring takes longer than training. Fix: lower scoring.limit")
    return lines + design_warnings(plan["design"])


def summary(plan: dict[str, Any]) -> list[str]:
    """Totals, error bars of the scores, and the sources of rates and sizes."""
    total, device = plan["totals"], plan["device"]
    known = "" if total["complete"] else " (known figures only)"
    sessions = _sessions(total["sessions"], device["session_minutes"])
    lines = [
        f"Total{known}: training {hours(total['train_hours'])}, "
        f"scoring {hours(total['score_hours'])}{start_up(total)}{sessions}, one job at a time",
    ]
    widths = []
    for task in plan["tasks"]:
        if task["half_width"]:
            widths.append(f"{task['task']} {task['items']} items ±{100 * task['half_width']:.1f}")
    if widths:
        listed = ", ".join(widths)
        lines.append(f"Scores, with half a 95 % interval in points, at its widest: {listed}")
    lines += layout_lines(plan["cells"])
    lines += _source_lines("Training rate", plan["cells"], "train_from")
    lines += _source_lines("Scoring", plan["cells"], "score_from")
    if not all(size["counted"] for size in plan["data"].values()):
        source = "assumed in the study file (plan.row_tokens) until the data are prepared"
        lines.append(f"Tokens per row: {source}")
    if plan["liger_kernels"]:
        lines.append(LIGER_LINE)
    return lines + _memory_lines(plan)


def start_up(total: dict[str, Any]) -> str:
    """Time of the totals until jobs train, as a part of a sentence."""
    return f", starting {hours(total['start_hours'])}" if total["start_hours"] else ""


def _source_lines(figure: str, cells: list[dict[str, Any]], column: str) -> list[str]:
    """A line per source of a figure; with several sources each names its models."""
    models: dict[str, list[str]] = {}
    for row in cells:
        if row[column]:
            models.setdefault(row[column], []).append(row["model"])
    lines = []
    for source, names in models.items():
        of_models = f" of {', '.join(dict.fromkeys(names))}" if len(models) > 1 else ""
        lines.append(f"{figure}{of_models}: {source}")
    return lines


def _memory_lines(plan: dict[str, Any]) -> list[str]:
    """How the memory was predicted, and measured peaks of finished runs on such a card."""
    method = "predicted from shapes, not measured; rows as long as max_length_tokens allows"
    if plan["device"]["kind"] == "cpu":
        return [f"Memory: {method}; Python and its libraries take some 600 MiB more"]
    lines = [f"Memory: {method}"]
    for row in plan["cells"]:
        if row["measured_peak_mib"]:
            lines.append(
                f"Memory of {row['run']}: {row['measured_peak_mib']:,.0f} MiB measured "
                f"(torch, without the CUDA context), {row['total_mib']:,} predicted"
            )
    return lines


def _sessions(number: int | None, minutes: float | None) -> str:
    if number is None:
        return ""
    noun = "session" if number == 1 else "sessions"
    return f", {number} {noun} of {minutes:g} minutes"


def render_page(plan: dict[str, Any]) -> str:
    """The plan as one HTML page without scripts."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = (TEMPLATES / "plan.css").read_text(encoding="utf-8")
    # Nothing but this style sheet may load: the names on the page come from the study file, which
    # may be a stranger's.
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    total = plan["totals"]
    return environment.get_template("plan.html.j2").render(
        plan=plan,
        css=Markup(css),
        policy=policy,
        columns=COLUMNS,
        lines=[_cell_texts(row) for row in plan["cells"]],
        bars=bars(plan),
        memory_columns=MEMORY_COLUMNS,
        memory_lines=[_memory_texts(row) for row in plan["cells"]],
        parts=PARTS,
        design_columns=DESIGN_COLUMNS,
        design_lines=design_rows(plan["design"]),
        design_sentences=design_sentences(plan["design"]),
        device=device_line(plan["device"]),
        problems=problems(plan),
        summary=summary(plan),
        hours=hours,
        start_up=start_up,
        setting=setting,
        sessions=_sessions(total["sessions"], plan["device"]["session_minutes"]),
    )


def bars(plan: dict[str, Any]) -> dict[str, Any]:
    """Stacked memory bars, 600 units wide: (part, x, width, MiB) per cell, and the card's limit."""
    known = [row for row in plan["cells"] if row["total_mib"] is not None]
    limit = plan["device"]["vram_mib"]
    largest = max([row["total_mib"] for row in known] + [limit or 0, 1])
    drawn = []
    for row in known:
        x, pieces = 0.0, []
        for part in PARTS:
            width = BAR_WIDTH * row[f"{part}_mib"] / largest
            pieces.append((part, round(x, 1), round(width, 1), row[f"{part}_mib"]))
            x += width
        drawn.append({"name": _short_name(row), "total_mib": row["total_mib"], "pieces": pieces})
    limit_x = round(BAR_WIDTH * limit / largest, 1) if limit else None
    return {"rows": drawn, "limit": limit, "limit_x": limit_x}
