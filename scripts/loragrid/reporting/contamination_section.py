"""The page's table of items that are also in the training rows, and the scores without them."""

from typing import Any

from loragrid.formatting import change, plain_name, plural, score, visible, whole
from loragrid.reporting.page import Material


def contamination_facts(material: Material) -> dict[str, Any]:
    """`rows` of the table: one for each data set and task, with the contaminated items and two scores.

    `several_sets`: whether the rows name their data set; `shared`: whether any has scores, because
    items are contaminated.
    `not_checked` holds a sentence for each task that could not be read. `rows` is empty before the
    data sets are looked through.
    """
    found = material.compared.summary["contamination"]
    rows = [
        _row(material, name, task, facts) for name, content in found.items() for task, facts in content["tasks"].items()
    ]
    reasons = {task: reason for content in found.values() for task, reason in content["not_checked"].items()}
    return {
        "rows": rows,
        "several_sets": len(found) > 1,
        "shared": any(row["base"] or row["base_case"] for row in rows),
        "shortest": next((content["method"]["shortest_text_words"] for content in found.values()), None),
        "not_checked": [
            f"{plain_name(task)}: not checked ({visible(reason, 300)})." for task, reason in reasons.items()
        ],
    }


def _row(material: Material, name: str, task: str, facts: dict[str, Any]) -> dict[str, Any]:
    unit = material.compared.units.get(task, "plain")
    scores = {row["subject"]: row for row in facts.get("scores", [])}
    base = material.study.base_case
    bases = [o.subject for o in material.outcomes if o.kind == "base" and o.model == base.model]
    return {
        "set": visible(name, 40),
        "task": plain_name(task),
        "shared": shared_text(facts),
        "notes": [note for note in (unchecked_text(facts), example_text(facts)) if note],
        "base": next((score_text(scores[subject], unit) for subject in bases if subject in scores), ""),
        "base_case": score_text(facts["base_case"], unit) if facts.get("base_case") else "",
    }


def shared_text(facts: dict[str, Any]) -> str:
    """How many items share an n-gram with the training rows."""
    eight, thirteen = facts["contaminated_8"], facts["contaminated_13"]
    verb = "shares" if eight == 1 else "share"
    text = f"{whole(eight)} of {plural(facts['items'], 'item')} {verb} an 8-gram with training rows"
    return f"{text} ({whole(thirteen)} a 13-gram)" if eight else text


def unchecked_text(facts: dict[str, Any]) -> str:
    """How many items were too short to check, and how many were compared as a whole; empty if none was."""
    parts = []
    if facts["too_short"]:
        parts.append(f"{whole(facts['too_short'])} too short to check")
    if facts["compared_whole"]:
        parts.append(f"{whole(facts['compared_whole'])} compared as a whole")
    return ", ".join(parts)


def example_text(facts: dict[str, Any]) -> str:
    """The first shared n-gram with its item and row; empty if there is none."""
    if not facts["examples"]:
        return ""
    first = facts["examples"][0]
    return f"Item {visible(first['item'], 40)} and row {whole(first['row'])}: “{visible(first['ngram'], 200)}”"


def score_text(row: dict[str, Any], unit: str) -> str:
    """The score on all items, and on those that are not contaminated with its interval and the change."""
    everything = score(row["value"], unit)
    if row["other_value"] is None:
        return f"{everything}; no other item is left"
    moved = change(row["difference"], unit, words=True)
    # A single item has no interval.
    if row["low"] is not None:
        moved += f"; {score(row['low'], unit)} to {score(row['high'], unit)}"
    return (
        f"{everything}; {score(row['other_value'], unit)} on the {plural(row['other_items'], 'other item')} ({moved})"
    )
