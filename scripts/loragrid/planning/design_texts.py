"""What a design can find, as text: the table's cells, the warnings and the sentences under the table."""

import math
from typing import Any

from loragrid.planning.design_power_rows import EXPLORATORY, LARGEST_USEFUL
from loragrid.planning.plan_texts import UNKNOWN, known

# Keys of a row with a smallest difference.
DIFFERENCES = ("versus_base", "between_settings")
COLUMNS = (
    "smallest difference, in points",
    "family",
    "items",
    "comparisons",
    "from its untrained base",
    "from the base case",
)


def design_rows(design: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line of texts per task and for the mean of the retention tasks, as in `COLUMNS`."""
    rows = [_texts(row["task"], row, design) for row in design["tasks"]]
    retention = design["retention"]
    if retention is not None:
        rows.append(_texts(f"mean of {len(retention['tasks'])} retention tasks", retention, design))
    return rows


def _texts(name: str, row: dict[str, Any], design: dict[str, Any]) -> tuple[str, ...]:
    differences = [_difference(row, key, design["contrasts"][key]) for key in DIFFERENCES]
    items = known(row["items"], ",")
    if row["units"] != row["items"]:
        items += f" in {row['units']:,} clusters"
    return name, row["family"], items, str(row["comparisons"]), *differences


def _difference(row: dict[str, Any], key: str, contrasts: int) -> str:
    """The smallest difference in points; "none" if no difference is found, "–" without a comparison."""
    if row["items"] is None:
        return UNKNOWN
    if not contrasts:
        return "–"
    return "none" if row[key] is None else f"{100 * row[key]:.1f}"


def design_sentences(design: dict[str, Any]) -> list[str]:
    """What stands under the table: what it holds for, the margin's chance, and the sources."""
    power, retention = design["power"], design["retention"]
    lines = [f"These differences are found with a probability of {power:g}, after correction in their family"]
    if retention is not None and retention["pass_if_unchanged"] is not None:
        lines.append(
            f"A setting that forgot nothing passes retention_margin {design['margin']:g} with a probability of "
            f"{retention['pass_if_unchanged']:.2f}{_margin_needed(design)}"
        )
    if design["losses"]:
        lines.append(f"Not predicted: {', '.join(design['losses'])}, because losses differ in scale")
    sources = dict.fromkeys(row["noise_from"] for row in (*design["tasks"], retention) if row and row["noise_from"])
    return lines + [f"The noise of the scores is {source}" for source in sources]


def _margin_needed(design: dict[str, Any]) -> str:
    needed = design["retention"]["margin_needed"]
    if needed is None:
        return ""
    return f"; {design['power']:g} needs a margin of {needed:.3f}"


def design_warnings(design: dict[str, Any]) -> list[str]:
    """A line for settings with one seed, and for each question that this design can hardly answer."""
    lines = []
    if design["one_seed"]:
        number = f"{design['one_seed']} of {design['settings']} settings"
        lines.append(
            f"{number}: one seed each, from which nothing follows about a setting. "
            "Fix: list a second and a third seed in grid.axes.seed"
        )
    weak = [row for row in design["tasks"] if "seeds_needed" in row]
    lines += [_task_warning(row["task"], row, design["power"]) for row in weak if row["family"] != EXPLORATORY]
    lines += _exploratory_warning([row for row in weak if row["family"] == EXPLORATORY])
    retention = design["retention"]
    if retention is not None:
        lines += _retention_warnings(retention, design)
    return lines


def _exploratory_warning(rows: list[dict[str, Any]]) -> list[str]:
    """One line for all of them, since no verdict rests on them."""
    if not rows:
        return []
    names = ", ".join(row["task"] for row in rows)
    seeds = [row["seeds_needed"] for row in rows]
    fix = "score more items" if None in seeds else f"{max(seeds)} seeds in every arm"
    return [f"{names}: can hardly find {_useful()}. Fix: {fix}, or read the scores as examples"]


def _useful() -> str:
    return f"a difference of {100 * LARGEST_USEFUL:g} points"


def _task_warning(name: str, row: dict[str, Any], power: float) -> str:
    # Rounded down, or 0.798 would read as the 0.8 that it does not reach.
    least = math.floor(100 * row["least_power"]) / 100
    chance = f"finds {_useful()} with a probability of {least:.2f}, less than compare.power {power:g}"
    fixes = _fixes(row["seeds_needed"], row["items_needed"]) or ["compare fewer settings"]
    return f"{name}: {chance}. Fix: {' or '.join(fixes)}"


def _fixes(seeds: int | None, items: int | None) -> list[str]:
    found = []
    if seeds is not None:
        found.append(f"{seeds} seeds in every arm")
    if items is not None:
        found.append(f"{items:,} items")
    return found


def _retention_warnings(retention: dict[str, Any], design: dict[str, Any]) -> list[str]:
    lines = []
    if "seeds_needed" in retention:
        lines.append(_task_warning("mean of the retention tasks", retention, design["power"]))
    if "seeds_needed_to_pass" in retention:
        fixes = _fixes(retention["seeds_needed_to_pass"], retention["items_needed_to_pass"])
        if retention["margin_needed"] is not None:
            fixes.append(f"retention_margin {retention['margin_needed']:.3f}")
        if retention["margin_with_one_more_seed"] is not None:
            margin = f"retention_margin {retention['margin_with_one_more_seed']:.3f}"
            fixes.append(f"one more seed in every arm and {margin}")
        lines.append(
            f"retention_margin: a setting that forgot nothing passes {design['margin']:g} with a probability of "
            f"{retention['pass_if_unchanged']:.2f}. Fix: {' or '.join(fixes) or 'more seeds and more items'}"
        )
    return lines
