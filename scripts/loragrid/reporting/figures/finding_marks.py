"""What the picture of a published finding shows: this study's numbers, and the range that the finding says for each."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from loragrid.comparing.contrasts import SETTING
from loragrid.comparing.literature.axis_rules import value_size
from loragrid.comparing.literature.findings import PublishedFinding
from loragrid.formatting import plain_name
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.sentences.scorecard import METHOD_NAMES
from loragrid.setting_texts import axis_value
from loragrid.statistics.paired_statistics import BETTER

# Around a ratio of rates that counts as the same, as in the rule.
RATIO_ROOM = 10**0.5
# Results that a study without such numbers has too: it could not test the finding.
UNTESTED = ("needs_second_seed", "not_compared", "target_not_a_share")


@dataclass(frozen=True)
class Mark:
    """A number of this study with its interval, if it has one, and the `said` range, which may be open at an end."""

    label: str
    value: float
    said: tuple[float, float]
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class FindingMarks:
    """The marks of one finding. `unit`: share or plain of a difference, ratio or rate (both on a log axis)."""

    marks: list[Mark]
    unit: str


def finding_marks(why: dict[str, Any], finding: PublishedFinding, compared: ComparedStudy) -> FindingMarks | None:
    """The marks of a finding that this grid could test, None for another; `why`: the answer's reason."""
    kind, code = finding.rule["kind"], why["code"]
    if code in UNTESTED or code.startswith(("needs_", "not_")):
        return None
    if kind in ("little_effect", "larger_is", "value_is"):
        marks, unit = list(_axis_marks(finding.rule, compared)), compared.unit
    elif kind == "precision":
        marks, unit = list(_precision_marks(finding.rule, compared)), "share"
    elif kind == "keeps_more":
        names = [METHOD_NAMES.get(method, method) for method in why["methods"]]
        interval = why["low"], why["high"]
        marks, unit = [Mark(" against ".join(names), why["difference"], (0, math.inf), interval)], "share"
    elif kind == "rate_ratio":
        one, other = (found["learning_rate"] for found in why["best"])
        ratio = finding.rule["ratio"]
        marks, unit = [Mark("ratio of the best rates", one / other, (ratio / RATIO_ROOM, ratio * RATIO_ROOM))], "ratio"
    else:
        marks, unit = list(_rate_marks(why)), "rate"
    return FindingMarks(marks, unit) if marks else None


def _axis_marks(rule: dict[str, Any], compared: ComparedStudy) -> Iterator[Mark]:
    """The differences of an axis's values on the main target, of settings with two seeds or more."""
    rows = compared.axes
    rows = rows[(rows["axis"] == rule["axis"]) & (rows["task"] == compared.target)]
    for row in rows[(rows["verdict"] != "") & (rows["level"] == SETTING)].to_dict("records"):
        value, default = row["value"], row["base_case_value"]
        if rule["kind"] == "value_is" and {value, default} != {rule["value"], rule["than"]}:
            continue
        names = [axis_value(rule["axis"], text) for text in (value, default)]
        said = _said(rule, value, default, compared.higher_is_better)
        yield Mark(" against ".join(names), row["difference"], said, (row["low"], row["high"]))


def _said(rule: dict[str, Any], value: str, default: str, higher_is_better: bool) -> tuple[float, float]:
    """The differences that a finding says for a value against the base case's."""
    if rule["kind"] == "little_effect":
        return -rule["margin"], rule["margin"]
    if rule["kind"] == "value_is":
        is_named = value == rule["value"]
    else:
        is_named = value_size(value) > value_size(default)
    # A value on the other side is said to differ the other way.
    is_better = (rule["direction"] == BETTER) == is_named
    return (0, math.inf) if is_better == higher_is_better else (-math.inf, 0)


def _precision_marks(rule: dict[str, Any], compared: ComparedStudy) -> Iterator[Mark]:
    for row in compared.summary["precision_controls"]:
        if row["unit"] == "share" and row["verdict"]:
            label = f"{plain_name(row['task'])}, {row['precision']}"
            yield Mark(label, row["difference"], (-rule["margin"], math.inf), (row["low"], row["high"]))


def _rate_marks(why: dict[str, Any]) -> Iterator[Mark]:
    """The best rate at each value; all at the most frequent one are said."""
    common, _ = Counter(found["learning_rate"] for found in why["best"]).most_common(1)[0]
    for found in why["best"]:
        yield Mark(axis_value(why["axis"], str(found["value"])), found["learning_rate"], (common, common))
