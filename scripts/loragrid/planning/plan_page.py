"""A plan for people: the table on the terminal and the HTML page."""

import base64
import hashlib
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
PARTS = ("weights", "adapters", "optimizer", "activations", "logits", "overhead")
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
UNKNOWN = "?"


def text_table(plan: dict[str, Any]) -> str:
    """The plan as text: one line per cell, its memory by part, what is wrong, what it adds up to, and where the figures come
    from."""
    heading = f"Plan of study {plan['study']}, for {device_line(plan['device'])}"
    cells = _aligned([COLUMNS, *(_cells(row) for row in plan["cells"])])
    parts = _aligned([MEMORY_COLUMNS, *(_memory_cells(row) for row in plan["cells"])])
    return "\n".join([heading, "", *cells, "", *parts, "", *problems(plan), *summary(plan), ""])


def _aligned(lines: list[tuple[str, ...]]) -> list[str]:
    """A table's lines, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    return [
        "  ".join([line[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(line[1:], widths[1:]))])
        for line in lines
    ]


def _memory_cells(row: dict[str, Any]) -> tuple[str, ...]:
    figures = [row[f"{part}_mib"] for part in (*PARTS, "total")]
    name = row["run"].rsplit("_", 1)[0]
    return (name, *(UNKNOWN if figure is None else f"{figure:,.0f}" for figure in figures))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["run"].rsplit("_", 1)[0],
        count(row["parameters"]),
        count(row["trainable"]),
        UNKNOWN if row["total_mib"] is None else f"{row['total_mib']:,} MiB",
        {True: "yes", False: "NO", None: UNKNOWN}[row["fits"]],
        UNKNOWN if row["steps"] is None else f"{row['steps']:,}",
        count(row["tokens"]),
        UNKNOWN if row["flops"] is None else f"{row['flops'] / 1e15:,.3g}",
        hours(row["train_hours"]),
        UNKNOWN if row["sessions"] is None else str(row["sessions"]),
        hours(row["score_hours"]),
    )


def device_line(device: dict[str, Any]) -> str:
    """The device, where it is and what memory is reckoned with."""
    where = "this machine's" if device["found"] else "not here; the study file's card"
    memory = f", {device['vram_mib']:,} MiB by {device['vram_from']}" if device["vram_mib"] else ""
    return f"{device['name']} ({where}{memory})"


def problems(plan: dict[str, Any]) -> list[str]:
    """One line per cell that cannot be planned or does not fit, with what would make it fit."""
    lines = []
    limit = plan["device"]["vram_mib"]
    for row in plan["cells"]:
        if row["problem"]:
            lines.append(f"{row['run']}: not planned: {row['problem']}")
        if row["fits"] is False:
            by = "; or ".join(row["fit_by"]) or "no single change of batch, length, backend, precision or known card"
            lines.append(f"{row['run']}: does not fit: {row['total_mib']:,} of {limit:,} MiB. Would fit with {by}")
        if row["score_fits"] is False:
            lines.append(
                f"{row['run']}: scoring does not fit: {row['score_mib']:,} of {limit:,} MiB. Lower scoring.batch_size"
            )
        if row["train_hours"] and row["score_hours"] and row["score_hours"] > row["train_hours"]:
            lines.append(f"{row['run']}: scoring takes longer than training: lower scoring.limit")
    return [*lines, ""] if lines else []


def _sources(what: str, cells: list[dict[str, Any]], column: str) -> list[str]:
    """Where a figure of the cells comes from, a line per source, with its models where they are not all of one source."""
    models: dict[str, list[str]] = {}
    for row in cells:
        if row[column]:
            models.setdefault(row[column], []).append(row["model"])
    several = len(models) > 1
    return [
        f"{what}{' of ' + ', '.join(dict.fromkeys(names)) if several else ''}: {source}"
        for source, names in models.items()
    ]


def summary(plan: dict[str, Any]) -> list[str]:
    """Totals, error bars of the scores, and the sources of rates and sizes."""
    total, device = plan["totals"], plan["device"]
    known = "" if total["complete"] else " (of what is known)"
    sessions = _sessions(total["sessions"], device["session_minutes"])
    lines = [
        f"Total{known}: training {hours(total['train_hours'])}, scoring {hours(total['score_hours'])}{sessions}, "
        "one job at a time",
    ]
    widths = [f"{t['task']} {t['items']} items ±{100 * t['half_width']:.1f}" for t in plan["tasks"] if t["half_width"]]
    if widths:
        lines.append("Scores, with half a 95 % interval in points, at its widest: " + ", ".join(widths))
    lines += _sources("Training rate", plan["cells"], "train_from") + _sources("Scoring", plan["cells"], "score_from")
    counted = {size["counted"] for size in plan["data"].values()}
    if False in counted:
        lines.append("Tokens per row: assumed in the study file (plan.row_tokens) until the data are prepared")
    return lines + _memory_lines(plan)


def _memory_lines(plan: dict[str, Any]) -> list[str]:
    """How good the predicted memory is, with what runs on this kind of card really took."""
    lines = ["Memory: predicted from shapes, not measured; rows as long as data.max_length_tokens allows"]
    if plan["device"]["kind"] == "cpu":
        return [lines[0] + "; Python and its libraries take some 600 MiB more"]
    for row in plan["cells"]:
        if row["measured_peak_mib"]:
            lines.append(
                f"Memory of {row['run']}: {row['measured_peak_mib']:,.0f} MiB measured (torch, without the CUDA context), "
                f"{row['total_mib']:,} predicted"
            )
    return lines


def _sessions(number: int | None, minutes: float | None) -> str:
    return "" if number is None else f", {number} session{'s' * (number != 1)} of {minutes:g} minutes"


def page(plan: dict[str, Any]) -> str:
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
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return environment.get_template("plan.html.j2").render(
        plan=plan,
        css=Markup(css),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        columns=COLUMNS,
        lines=[_cells(row) for row in plan["cells"]],
        bars=bars(plan),
        memory_columns=MEMORY_COLUMNS,
        memory_lines=[_memory_cells(row) for row in plan["cells"]],
        parts=PARTS,
        device=device_line(plan["device"]),
        problems=[line for line in problems(plan) if line],
        summary=summary(plan),
        count=count,
        hours=hours,
        sessions=_sessions(plan["totals"]["sessions"], plan["device"]["session_minutes"]),
    )


def bars(plan: dict[str, Any]) -> dict[str, Any]:
    """Stacked bars of memory in units of a drawing 600 wide: per cell (part, x, width), and where the card ends."""
    known = [row for row in plan["cells"] if row["total_mib"] is not None]
    limit = plan["device"]["vram_mib"]
    largest = max([row["total_mib"] for row in known] + [limit or 0, 1])
    drawn = []
    for row in known:
        x, pieces = 0.0, []
        for part in PARTS:
            width = 600 * row[f"{part}_mib"] / largest
            pieces.append((part, round(x, 1), round(width, 1), row[f"{part}_mib"]))
            x += width
        drawn.append({"name": row["run"].rsplit("_", 1)[0], "total_mib": row["total_mib"], "pieces": pieces})
    return {"rows": drawn, "limit": limit, "limit_x": round(600 * limit / largest, 1) if limit else None}


def count(value: float | None) -> str:
    """A count in short: 11.3 M."""
    if value is None:
        return UNKNOWN
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def hours(value: float | None) -> str:
    """Hours as people say them: 33 min, 1 h 33 min."""
    if value is None:
        return UNKNOWN
    minutes = round(value * 60)
    if minutes < 1:
        return f"{value * 3600:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
