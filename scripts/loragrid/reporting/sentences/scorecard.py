"""The table of published findings, as sentences.

Claims and sources come from the literature file, results and reasons from compare.
"""

from typing import Any

from loragrid.comparing.literature.findings import LITERATURE, PublishedFinding, load_findings
from loragrid.errors import UserError
from loragrid.formatting import between, change, change_beside, listed, plain_name, plural, setting
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.sentences.limits import reason_text
from loragrid.setting_texts import axis_name, axis_value


def scorecard_rows(compared: ComparedStudy) -> list[dict[str, Any]]:
    """Per finding its claim, sources, result and reason."""
    findings, rows = load_findings(), []
    for answer in compared.summary["scorecard"]:
        finding = findings.get(answer["finding"])
        if finding is None:
            raise UserError(f"{LITERATURE}: finding {answer['finding']!r} is missing. Fix: run compare again")
        why = why_text(answer["why"], finding, compared)
        rows.append({"claim": finding.claim, "sources": finding.sources, "result": answer["result"], "why": why})
    return rows


def why_text(why: dict[str, Any], finding: PublishedFinding, compared: ComparedStudy) -> str:
    """The reason of one answer, as a clause."""
    code = why["code"]
    if code == "needs_second_seed":
        return f"each {axis_name(why['axis'])} was trained under one seed: this needs a second one"
    if code in METHOD_CODES:
        return _methods_text(why)
    if code in PRECISION_CODES:
        return _precision_text(why)
    if code in RATE_CODES:
        return _rates_text(why)
    if code == "not_varied":
        return f"no two values of {axis_name(why['axis'])} could be compared"
    if code == "not_compared":
        return reason_text(why["row"])
    if code == "target_not_a_share":
        return "the main target is not a share of right answers, and the margin is in points"
    if code in ("differences", "proved_differences"):
        remark = f" ({finding.beside})" if finding.beside and code == "proved_differences" else ""
        return listed([_difference(row, compared) for row in why["rows"]]) + remark
    return _margin_text(why, compared)


def _difference(row: dict[str, Any], compared: ComparedStudy) -> str:
    verdict = row["verdict"].replace("'", "’")
    value, default = (axis_value(row["axis"], row[key]) for key in ("value", "base_case_value"))
    amount = change_beside(row["difference"], row["low"], row["high"], compared.unit)
    return f"{axis_name(row['axis'])} {value} against {default}: {amount}, {verdict}"


def _margin_text(why: dict[str, Any], compared: ComparedStudy) -> str:
    row, margin = why["row"], f"{why['margin'] * 100:g}"
    where = f"{compared.axis(row['axis'])} {axis_value(row['axis'], row['value'])}"
    interval = f"interval {between(row['low'], row['high'], compared.unit)} at {where}"
    if why["code"] == "all_within_margin":
        return f"all differences lie within {margin} points ({interval})"
    return f"the interval reaches beyond ±{margin} points ({interval})"


# Methods as the findings call them; the others by their value.
METHOD_NAMES = {"lora": "LoRA", "full": "full fine-tuning"}
METHOD_CODES = ("needs_rates_of_methods", "needs_methods", "methods_at_best_rates")


def _methods_text(why: dict[str, Any]) -> str:
    one, other = (METHOD_NAMES.get(method, method) for method in why["methods"])
    if why["code"] == "needs_rates_of_methods":
        return f"this needs three or more learning rates of {one} and of {other}, all else equal"
    if why["code"] == "needs_methods":
        return f"this needs runs with {one} and with {other}, all else equal, scored on retention tasks"
    amount = change_beside(why["difference"], why["low"], why["high"], "share")
    rates = f"{one} at {setting(why['rates'][0])} against {other} at {setting(why['rates'][1])}"
    verdict = why["verdict"].replace("'", "’")
    return f"mean retention of {rates}: {amount} ({between(why['low'], why['high'], 'share')}), {verdict}"


RATE_CODES = ("needs_rates_at_each_value", "needs_one_alpha", "best_rates", "best_rate_at_edge")


def _rates_text(why: dict[str, Any]) -> str:
    axis = axis_name(why["axis"])
    if why["code"] == "needs_rates_at_each_value":
        return f"this needs several learning rates at several values of {axis} (a factorial grid)"
    if why["code"] == "needs_one_alpha":
        return f"this needs one alpha at every {axis}; here alpha changes with it"
    best = [f"{setting(found['learning_rate'])} at {axis} {found['value']}" for found in why["best"]]
    remark = "" if why["clear"] else "; the second best rates are too close"
    if why["code"] == "best_rate_at_edge":
        ends = listed([METHOD_NAMES.get(method, method) for method in why["methods"]])
        remark = f"; of {ends} no rate beyond it was tried"
    return f"lowest held-out loss: {listed(best)}{remark}"


PRECISION_CODES = ("needs_two_precisions", "precision_lost", "precision_kept", "precision_beyond_margin")


def _precision_text(why: dict[str, Any]) -> str:
    if why["code"] == "needs_two_precisions":
        return "this needs one model in two precisions, scored on shares of right answers"
    if why["code"] == "precision_lost":
        losses = [
            f"{plain_name(row['task'])} {change(row['difference'], 'share', words=True)}" for row in why["losses"]
        ]
        return f"in {listed(why['precisions'])}: {listed(losses)}"
    margin = f"{why['margin'] * 100:g}"
    if why["code"] == "precision_kept":
        return f"no loss of more than {margin} points on any of {plural(why['tasks'], 'task')}"
    interval = f"{plain_name(why['task'])} {between(why['low'], why['high'], 'share')}"
    return f"the interval reaches beyond −{margin} points ({interval})"
