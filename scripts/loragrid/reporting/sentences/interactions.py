"""Sentences on two settings together: does the best value of one move with the other?"""

from typing import Any

from loragrid.formatting import between, change_beside, detectable, listed, plural
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.sentences.findings import start
from loragrid.reporting.sentences.verdicts import families_text, task_name
from loragrid.setting_texts import axis_name, axis_value
from loragrid.statistics.paired_statistics import DIFFER, UNSURE

MOST_CONTRASTS = 2  # proved interactions in one sentence


def interaction_finding(pair: dict[str, Any], compared: ComparedStudy) -> list[str]:
    """Sentences on one pair of axes: the movement on the main target, the interaction, other tasks."""
    task = compared.target if compared.target in pair["tasks"] else next(iter(pair["tasks"]), None)
    if task is None:
        return ["No task is scored at these values yet."]
    if pair["unequal_tokens"]:
        return ["Not tested: some of these runs trained on more tokens than others."]
    found = [movement_text(pair, task), interaction_text(pair, task, compared.units[task])]
    rows, columns = axis_name(pair["rows_axis"]), axis_name(pair["columns_axis"])
    ways = {"moves": f"moves with the {rows}", "stays": f"is the same at every {rows}"}
    for code, words in ways.items():
        tasks = [name for name, scores in pair["tasks"].items() if name != task and scores["movement"]["code"] == code]
        if tasks:
            found.append(f"On {listed([task_name(name) for name in tasks])} the best {columns} {words} (proved).")
    if pair["seeds"] == 1:
        found.append("Some of these values have one seed, which says nothing of their settings.")
    return [sentence for sentence in found if sentence]


def moving_pairs(compared: ComparedStudy) -> list[dict[str, Any]]:
    """The pairs of axes where the best value of one moves with the other on the main target."""
    target = compared.target
    pairs = [pair for pair in compared.summary["interactions"] if target in pair["tasks"]]
    return [pair for pair in pairs if pair["tasks"][target]["movement"]["code"] == "moves"]


def movements(compared: ComparedStudy) -> list[str]:
    """Sentences on the settings whose best value is proved to move with another setting."""
    return [movement_text(pair, compared.target) for pair in moving_pairs(compared)]


def axes_together(compared: ComparedStudy) -> list[str]:
    """Names of the axes that are proved to matter together: the best value of one moves with the other."""
    pairs = moving_pairs(compared)
    return list(dict.fromkeys(axis_name(pair[side]) for pair in pairs for side in ("columns_axis", "rows_axis")))


def movement_text(pair: dict[str, Any], task: str) -> str:
    """Whether the best column moves with the row on one task: yes, no, or can't tell."""
    rows, columns = axis_name(pair["rows_axis"]), axis_name(pair["columns_axis"])
    movement, on = pair["tasks"][task]["movement"], f"on {task_name(task)}"
    if movement["code"] == "not_tested":
        return f"Whether the best {columns} moves with the {rows} was not tested {on}: scores are missing."
    if movement["code"] == "moves":
        seen = [
            f"at {rows} {_row(pair, row)}, {_column(pair, better)} is better than {_column(pair, other)}"
            for row, better, other in movement["evidence"]
        ]
        return f"Proved: the best {columns} moves with the {rows} {on}. {start(seen[0])}; {seen[1]}."
    if movement["code"] == "stays":
        best = _column(pair, movement["best"])
        return f"Proved not to move: {columns} {best} is the best of these at every {rows} {on}."
    return f"Can’t tell whether the best {columns} moves with the {rows} {on}. {_measured(pair, task)}"


def _measured(pair: dict[str, Any], task: str) -> str:
    """The best column of each row as measured."""
    rows, best = axis_name(pair["rows_axis"]), pair["tasks"][task]["best"]
    if None in best:
        return "Scores are missing."
    where: dict[str, list[str]] = {}
    for row, column in zip(pair["rows"], best):
        where.setdefault(_column(pair, pair["columns"][column]), []).append(_row(pair, row))
    if len(where) == 1:
        return f"Measured, it is {next(iter(where))} at every {rows}, but not every difference in a row is proved."
    seen = [f"{column} at {rows} {listed(values)}" for column, values in where.items()]
    return f"Measured, it is {listed(seen)}, but the differences within the rows do not prove it."


def interaction_text(pair: dict[str, Any], task: str, unit: str) -> str:
    """Whether the effects of the two settings add up on one task."""
    contrasts = pair["tasks"][task]["contrasts"]
    if not contrasts:
        return ""
    names = listed([axis_name(pair["rows_axis"]), axis_name(pair["columns_axis"])])
    proved = [row for row in contrasts if row["verdict"] != UNSURE]
    if not proved:
        known = [row["detectable"] for row in contrasts if row["detectable"] is not None]
        least = "the tests cannot prove any difference"
        if len(known) == len(contrasts):
            least = f"the tests find {detectable(max(known), unit)} or more"
        return f"No interaction is proved: the effects of {names} may simply add up ({least})."
    proved.sort(key=lambda row: -abs(row["difference"]))
    texts = [_contrast(pair, row, unit) for row in proved[:MOST_CONTRASTS]]
    more = len(proved) - len(texts)
    also = f", and {plural(more, 'other pair')} of values" if more > 0 else ""
    if any(row["verdict"] == DIFFER for row in proved):
        return f"These adapters do not add up over {names}: {'; '.join(texts)}{also}."
    return f"An interaction is proved, so averages over {names} hide it: {'; '.join(texts)}{also}."


def _contrast(pair: dict[str, Any], row: dict[str, Any], unit: str) -> str:
    both = (
        f"{axis_name(pair['rows_axis'])} {_row(pair, row['row'])} with "
        f"{axis_name(pair['columns_axis'])} {_column(pair, row['column'])}"
    )
    amount = change_beside(row["difference"], row["low"], row["high"], unit)
    return f"{both} differs by {amount} ({between(row['low'], row['high'], unit)}) from what the two effects add up to"


def _row(pair: dict[str, Any], value: str) -> str:
    return axis_value(pair["rows_axis"], value)


def _column(pair: dict[str, Any], value: str) -> str:
    return axis_value(pair["columns_axis"], value)


def correction_text(pair: dict[str, Any]) -> str:
    """How many tests of a pair of axes are corrected together."""
    levels = {"setting": "of settings", "adapters": "of adapters"}
    found = [
        f"{families_text(pair['families'][level])}, {words}"
        for level, words in levels.items()
        if level in pair["families"]
    ]
    if not found:
        return ""
    return f"Tested beside the other comparisons: {'; '.join(found)}. Each family is corrected by itself."
