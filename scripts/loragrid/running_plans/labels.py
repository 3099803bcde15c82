"""Week and day labels in a line of a running plan: "Weeks 1-2", "Third week", "Mon and Wed", "Day 3"."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from loragrid.running_plans.vocabulary import NUMBER, ORDINAL, WEEKDAY, WEEKDAYS, to_number, weekday_index

# A larger week or day number is a model's error, and a range up to it would fill the memory.
MAX_WEEK = 104
MAX_DAY = 7 * MAX_WEEK

# Quantifiers are possessive where a run of blanks or signs could be long: with backtracking, a hostile text would take
# quadratic time.
_OPENING = r"[\W_]*+(?:\d{1,2}[.)]\s+[\W_]*+)?"
_RANGE = r"\s*(?:-|–|—|\bto\b|\bthrough\b|\bthru\b)\s*"
_LIST = r"\s*(?:,\s*(?:and\b)?|&|\+|/|\band\b)\s*"
# "Week 1 - 20 km" and "Week 2, 3 runs": the second number is an amount, not another week.
_NOT_AN_AMOUNT = (
    r"(?!\s*(?:[x×]|k\b|km|kilom|mi\b|miles?\b|min|h\b|hours?\b|\w+\s+runs?\b|runs?\b|days?\b|"
    r"sessions?\b|times?\b))"
)
_LABEL_ENDS = r"(?=\s*(?:$|[:.,;)\]|(*_–—-]))"
_WEEK = re.compile(
    rf"(?:{_OPENING}|.{{0,80}}\(\s*)(?:the\s+)?"
    rf"(?:(?P<plural>weeks\s*|wks\.?\s*)|(?:week|wk\.?)[\s#-]*|w(?=\d))(?P<first>{NUMBER})",
    re.IGNORECASE,
)
# After "Weeks" a comma may continue the label. After "Week" it starts the week's text, so only "&" and "and" continue.
_NEXT_AFTER_PLURAL = re.compile(
    rf"(?P<range>{_RANGE})?(?(range)|{_LIST})(?:weeks?\s+)?(?P<number>{NUMBER}){_NOT_AN_AMOUNT}",
    re.IGNORECASE,
)
_NEXT_AFTER_SINGULAR = re.compile(
    rf"(?P<range>{_RANGE})?(?(range)|\s*(?:&|\band\b)\s*)(?:weeks?\s+)?(?P<number>{NUMBER}){_LABEL_ENDS}",
    re.IGNORECASE,
)
_ORDINAL_WEEK = re.compile(rf"{_OPENING}(?:the\s+)?(?P<first>{ORDINAL})\s+week\b", re.IGNORECASE)
_UNNUMBERED_WEEK = re.compile(rf"{_OPENING}(?:race|taper|final|last)\s+week\b{_LABEL_ENDS}", re.IGNORECASE)
_WEEK_INSIDE_LINE = re.compile(rf"(?<=[\w.;,)])[ ]+(?=weeks?\s{NUMBER}\s?:)", re.IGNORECASE)

_NUMBERED_DAY = (
    rf"(?:days?[\s#]*{NUMBER}|d\d{{1,2}}\b|"
    rf"(?:run|session|workout)[\s#]*{NUMBER}(?=\s*(?:[:.)\]|*_–—]|-\s|$)))"
)
_DAY = rf"(?:{_NUMBERED_DAY}|{WEEKDAY})"
_DAYS = (
    rf"{_DAY}(?:\s*[(\[]\s*{_DAY}\s*[)\]]|"
    rf"(?:{_RANGE}|{_LIST})(?:{_DAY}|{NUMBER}{_NOT_AN_AMOUNT}{_LABEL_ENDS}))*"
)
_LEADING_DAYS = re.compile(rf"(?:^{_OPENING}|[,;|•.:]\s*+[*_]*+)(?P<days>{_DAYS})", re.IGNORECASE)
_TRAILING_DAYS = re.compile(rf"(?:\bon\s+|\(\s*)(?P<days>{_DAYS})", re.IGNORECASE)
_DAY_PART = re.compile(rf"(?P<weekday>{WEEKDAY})|(?P<number>{NUMBER})|d(?P<short>\d{{1,2}})\b", re.IGNORECASE)
_DAY_RANGE = re.compile(rf"{_RANGE}(?:days?\s+)?")
_BRACKETED = re.compile(r"[(\[][^)\]]*[)\]]")
_SIGNS_AROUND_TEXT = " \t:.,;|–—-*_)]•"


def split_lines(text: str) -> list[str]:
    """The lines of `text`; a week label inside a line ("… km. Week 2: …") starts a new line."""
    return _WEEK_INSIDE_LINE.sub("\n", text).splitlines()


@dataclass(frozen=True)
class WeekLabel:
    """The weeks that a line opens, () without a label, and the line without the label. `is_numbered`: whether the label
    itself names the numbers."""

    weeks: tuple[int, ...]
    text: str
    is_numbered: bool


def week_label(line: str, *, next_week: int | None) -> WeekLabel:
    """The week label of `line`, at its start or in the brackets of a heading: "Base (weeks 1-4)".

    `next_week` is the number of a "Race week:" without one; with None such a line has no label.
    """
    before = ""
    if numbered := _WEEK.match(line):
        numbers, end = _week_numbers(line, numbered)
        if "(" in numbered[0]:
            before = line[: numbered[0].rindex("(")]
    elif ordinal := _ORDINAL_WEEK.match(line):
        numbers, end = (to_number(ordinal["first"]),), ordinal.end()
    elif next_week and (unnumbered := _UNNUMBERED_WEEK.match(line)):
        return WeekLabel((next_week,), line[unnumbered.end() :], is_numbered=False)
    else:
        return WeekLabel((), line, is_numbered=False)
    weeks = tuple(number for number in numbers if 1 <= number <= MAX_WEEK)
    if not weeks:
        return WeekLabel((), line, is_numbered=False)
    return WeekLabel(weeks, f"{before} {line[end:]}", is_numbered=True)


def labelled_days(text: str, *, opens_week: bool, under_day: bool) -> Iterator[tuple[list[str], str]]:
    """(days, text) for the day labels of a line. `under_day`: whether the line belongs to a day named earlier.

    Labels after their text count only on a week's own line or in a list of days. In prose under a day, "on Monday" is
    no label.
    """
    leading, trailing = _LEADING_DAYS.search(text), _TRAILING_DAYS.search(text)
    if not trailing or (leading and leading.start() < trailing.start()):
        yield from _leading_days(text)
    elif opens_week or (leading and not under_day):
        yield from _trailing_days(text)


def _leading_days(text: str) -> Iterator[tuple[list[str], str]]:
    """(days, text) for labels before their text: "Mon and Wed: easy 4 km, Sun: long 8 km"."""
    labels = list(_LEADING_DAYS.finditer(text))
    ends = [label.start() for label in labels[1:]] + [len(text)]
    for label, end in zip(labels, ends):
        yield _day_names(label["days"]), text[label.end() : end].strip(_SIGNS_AROUND_TEXT)


def _trailing_days(text: str) -> Iterator[tuple[list[str], str]]:
    """(days, text) for labels after their text: "easy 4 km on Monday and Wednesday, long 8 km (Sunday)"."""
    start = 0
    for label in _TRAILING_DAYS.finditer(text):
        yield _day_names(label["days"]), text[start : label.start()].strip(_SIGNS_AROUND_TEXT)
        start = label.end()


def _week_numbers(line: str, label: re.Match[str]) -> tuple[tuple[int, ...], int]:
    """The numbers of a week label ("Weeks 1-3 and 5" gives 1, 2, 3, 5) and the position of its end."""
    weeks, end = [to_number(label["first"])], label.end()
    next_number = _NEXT_AFTER_PLURAL if label["plural"] else _NEXT_AFTER_SINGULAR
    while following := next_number.match(line, end):
        number = to_number(following["number"])
        first = weeks[-1] + 1 if following["range"] else number
        weeks += range(first, min(number, MAX_WEEK) + 1)
        end = following.end()
    return tuple(weeks), end


def _day_names(label: str) -> list[str]:
    """ "Mon-Wed" as Mon, Tue, Wed; "Days 1, 3 and 5" as Day 1, Day 3, Day 5; "Day 1 (Monday)" as Day 1."""
    label = _BRACKETED.sub("", label)
    names: list[str] = []
    previous: tuple[bool, int, int] | None = None
    for part in _DAY_PART.finditer(label):
        is_weekday = bool(part["weekday"])
        if is_weekday:
            value = weekday_index(part[0])
        else:
            value = to_number(part["number"] or part["short"])
        first = value
        if previous and previous[0] == is_weekday:
            _, previous_value, previous_end = previous
            if _DAY_RANGE.fullmatch(label[previous_end : part.start()]):
                first = previous_value + 1
        for number in range(first, min(value, MAX_DAY) + 1):
            names.append(WEEKDAYS[number].capitalize() if is_weekday else f"Day {number}")
        previous = (is_weekday, value, part.end())
    return list(dict.fromkeys(names))
