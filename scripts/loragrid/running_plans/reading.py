"""What a running-training plan in free text says: its weeks, its running days, its race. Works for any model's layout.

How it counts:
- A week is one that a line opens with ("Week 3:", "## Weeks 1-2", "Third week", a table's row or column) or that a
  heading holds ("Base (weeks 1-4)"). "This 8-week plan" is a claim and counts for nothing. Weeks are counted by distinct
  numbers; "Race week:" without a number counts only if it has days.
- A day is named ("Day 3", "Wed", "Monday and Friday") or is an unnamed entry of a list under a week. It is a *running*
  day unless its text opens with rest or holds other exercise only ("yoga", "cross-training", "walk"): days off do not
  count, whether they are listed or not. A day named without any text counts for nothing.
- A week without days may say how many it has ("Weeks 1-2: 3 runs of 4 km").
- Days per week is the most frequent number of running days over the weeks that have any; of equals, the earliest.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mode
from typing import Protocol

from loragrid.running_plans.tables import flatten_tables
from loragrid.running_plans.vocabulary import (
    NUMBER,
    ORDINAL,
    WEEKDAY,
    WEEKDAYS,
    is_running,
    race_in,
    to_number,
    weekday_index,
)

# A text is read up to here: ten times the longest real plan.
READ_CHARACTERS = 200_000
# A week or day beyond this is a slip of the model, not a plan.
MOST_WEEKS = 104
MOST_DAYS = 7 * MOST_WEEKS

# Quantifiers are possessive where a run of blanks or signs could be long: a hostile text must not cost quadratic time.
_OPENING = r"[\W_]*+(?:\d{1,2}[.)]\s+[\W_]*+)?"
_RANGE = r"\s*(?:-|–|—|\bto\b|\bthrough\b|\bthru\b)\s*"
_LIST = r"\s*(?:,\s*(?:and\b)?|&|\+|/|\band\b)\s*"
_NOT_AN_AMOUNT = (
    r"(?!\s*(?:[x×]|k\b|km|kilom|mi\b|miles?\b|min|h\b|hours?\b|\w+\s+runs?\b|runs?\b|days?\b|sessions?\b|times?\b))"
)
_LABEL_ENDS = r"(?=\s*(?:$|[:.,;)\]|(*_–—-]))"
_WEEK = re.compile(
    rf"(?:{_OPENING}|.{{0,80}}\(\s*)(?:the\s+)?(?:(?P<plural>weeks\s*|wks\.?\s*)|(?:week|wk\.?)[\s#-]*|w(?=\d))(?P<first>{NUMBER})",
    re.IGNORECASE,
)
_NEXT_WEEK = {
    True: re.compile(
        rf"(?P<range>{_RANGE})?(?(range)|{_LIST})(?:weeks?\s+)?(?P<number>{NUMBER}){_NOT_AN_AMOUNT}", re.IGNORECASE
    ),
    False: re.compile(
        rf"(?P<range>{_RANGE})?(?(range)|\s*(?:&|\band\b)\s*)(?:weeks?\s+)?(?P<number>{NUMBER}){_LABEL_ENDS}",
        re.IGNORECASE,
    ),
}
_ORDINAL_WEEK = re.compile(rf"{_OPENING}(?:the\s+)?(?P<first>{ORDINAL})\s+week\b", re.IGNORECASE)
_UNNUMBERED_WEEK = re.compile(rf"{_OPENING}(?:race|taper|final|last)\s+week\b{_LABEL_ENDS}", re.IGNORECASE)

_WEEK_INSIDE_LINE = re.compile(rf"(?<=[\w.;,)])[ ]+(?=weeks?\s{NUMBER}\s?:)", re.IGNORECASE)

_NUMBERED_DAY = (
    rf"(?:days?[\s#]*{NUMBER}|d\d{{1,2}}\b|(?:run|session|workout)[\s#]*{NUMBER}(?=\s*(?:[:.)\]|*_–—]|-\s|$)))"
)
_DAY = rf"(?:{_NUMBERED_DAY}|{WEEKDAY})"
_DAYS = rf"{_DAY}(?:\s*[(\[]\s*{_DAY}\s*[)\]]|(?:{_RANGE}|{_LIST})(?:{_DAY}|{NUMBER}{_NOT_AN_AMOUNT}{_LABEL_ENDS}))*"
_LEADING_DAYS = re.compile(rf"(?:^{_OPENING}|[,;|•.:]\s*+[*_]*+)(?P<days>{_DAYS})", re.IGNORECASE)
_TRAILING_DAYS = re.compile(rf"(?:\bon\s+|\(\s*)(?P<days>{_DAYS})", re.IGNORECASE)
_DAY_PART = re.compile(rf"(?P<weekday>{WEEKDAY})|(?P<number>{NUMBER})|d(?P<short>\d{{1,2}})\b", re.IGNORECASE)
_BRACKETED = re.compile(r"[(\[][^)\]]*[)\]]")

_RUNS = re.compile(
    rf"\b(?P<runs>{NUMBER})\s*(?:[x×]\s*)?(?:[a-z-]+\s+){{0,2}}(?:runs|times|days|sessions)\b", re.IGNORECASE
)
_LIST_ENTRY = re.compile(r"\s*(?:[-*•+–]|\d{1,2}[.)])\s+(?=\S)")
_HEADING = re.compile(r"\s*(?:#|\*\*[^*]*\*\*\s*:?\s*$|[^:]{1,40}:\s*$)")


@dataclass(frozen=True)
class Plan:
    """What a text says. `per_week`: running days of each week, in order; `table`: (week, day, text), days off included.

    `weeks`: None where no week is named; days that are there nevertheless stand in week 1. `days_per_week`: None where
    there is no running day. `race`: "5K", "10K", "half marathon", "marathon", or None where none is named.
    """

    weeks: int | None
    days_per_week: int | None
    race: str | None
    per_week: tuple[int, ...]
    table: tuple[tuple[int, str, str], ...]


class Request(Protocol):
    """What was asked for: any object with these."""

    race: str
    weeks: int
    days_per_week: int


def adherence(request: Request, text: str) -> dict[str, float]:
    """Of the plan in `text`, 1.0 or 0.0 each: exact (all that follows), weeks_right, days_right, race_named."""
    plan = parse_plan(text)
    asked = race_in(request.race, sessions=False) or request.race.casefold()
    right = {
        "weeks_right": plan.weeks == request.weeks,
        "days_right": plan.days_per_week == request.days_per_week,
        "race_named": asked == (plan.race or "") or (plan.race is None and asked in text[:READ_CHARACTERS].casefold()),
    }
    return {name: float(value) for name, value in ({"exact": all(right.values())} | right).items()}


def parse_plan(text: str) -> Plan:
    """Read the plan in `text` as the module's docstring says. Any text will do; one without a plan gives None and ()."""
    reader = _Reader()
    for line in flatten_tables(_WEEK_INSIDE_LINE.sub("\n", text[:READ_CHARACTERS]).splitlines()):
        reader.read(line)
    return reader.plan()


class _Reader:
    """Reads a plan line by line: knows in which weeks and days it is."""

    def __init__(self) -> None:
        self.named_weeks: set[int] = set()
        self.current: tuple[int, ...] = (1,)
        self.days: dict[int, dict[str, str]] = {}
        self.unnamed: dict[int, list[str]] = {}
        self.claims: dict[int, int] = {}
        self.open_days: list[str] = []
        self.race: str | None = None

    def read(self, line: str) -> None:
        weeks, rest = self._week_label(line)
        if weeks:
            self.current, self.open_days = weeks, []
        in_plan = bool(self.named_weeks or self.days)
        labelled = list(self._labelled_days(rest, opens_week=bool(weeks)))
        self.race = self.race or race_in(line, sessions=in_plan or bool(labelled))
        if labelled:
            for days, text in labelled:
                self._add(days, text)
        elif weeks:
            self._read_week_text(rest)
        elif self.open_days:
            self._go_on(line)
        elif self.named_weeks and (entry := _LIST_ENTRY.match(line)):
            self._add_unnamed([line[entry.end() :]])

    def _labelled_days(self, text: str, *, opens_week: bool) -> Iterator[tuple[list[str], str]]:
        """Days with their texts. Labels after the text count where a day can be: in prose under a day they do not."""
        leading, trailing = _LEADING_DAYS.search(text), _TRAILING_DAYS.search(text)
        if not trailing or (leading and leading.start() < trailing.start()):
            yield from _leading_days(text)
        elif opens_week or (leading and not self.open_days):
            yield from _trailing_days(text)

    def plan(self) -> Plan:
        weeks = sorted(self.named_weeks | self.days.keys())
        table, per_week = [], []
        for week in weeks:
            entries = self.days.get(week) or {
                f"Run {i}": text for i, text in enumerate(self.unnamed.get(week, []), start=1)
            }
            table += [(week, day, text) for day, text in entries.items()]
            per_week.append(sum(map(is_running, entries.values())) if entries else self.claims.get(week, 0))
        if not self.named_weeks and len(self.days.get(1, {})) > len(WEEKDAYS):
            per_week = []  # days numbered through without weeks: how many fall into a week is not said
        return Plan(
            weeks=len(weeks) if self.named_weeks else None,
            days_per_week=mode(filter(None, per_week)) if any(per_week) else None,
            race=self.race,
            per_week=tuple(per_week),
            table=tuple(table),
        )

    def _week_label(self, line: str) -> tuple[tuple[int, ...], str]:
        """The weeks that a line opens, and the line without their label."""
        numbered = _WEEK.match(line)
        if numbered:
            weeks, end = _week_numbers(line, numbered)
            start = numbered.end() if "(" not in numbered[0] else numbered[0].rindex("(")
            before = line[:start] if "(" in numbered[0] else ""
        elif ordinal := _ORDINAL_WEEK.match(line):
            weeks, end, before = (to_number(ordinal["first"]),), ordinal.end(), ""
        elif (unnumbered := _UNNUMBERED_WEEK.match(line)) and self.named_weeks:
            return (max(self.named_weeks | self.days.keys()) + 1,), line[unnumbered.end() :]
        else:
            return (), line
        weeks = tuple(week for week in weeks if 1 <= week <= MOST_WEEKS)
        self.named_weeks.update(weeks)
        return weeks, f"{before} {line[end:]}" if weeks else line

    def _read_week_text(self, text: str) -> None:
        """A week's own line without named days: a list of runs with their distances, or how many runs it has."""
        parts = [part for part in re.split(r"[,;]", text) if part.strip()]
        if claim := _RUNS.search(text):
            self.claims |= {week: to_number(claim["runs"]) for week in self.current}
        elif len(parts) > 1 and all(re.search(r"\d", part) and is_running(part) for part in parts):
            self._add_unnamed(parts)

    def _add(self, days: list[str], text: str) -> None:
        self.open_days = days
        for week in self.current:
            entries = self.days.setdefault(week, {})
            for day in days:
                entries[day] = f"{entries[day]} {text}".strip() if day in entries else text

    def _add_unnamed(self, texts: list[str]) -> None:
        for week in self.current:
            self.unnamed.setdefault(week, []).extend(text.strip() for text in texts)

    def _go_on(self, line: str) -> None:
        """A line under a day belongs to it, until a heading follows what the day has."""
        has_text = any(self.days[week][day] for week in self.current for day in self.open_days)
        if has_text and _HEADING.match(line):
            self.open_days = []
        elif text := line.strip(" \t-*•+#`_"):
            self._add(self.open_days, text)


def _week_numbers(line: str, label: re.Match[str]) -> tuple[tuple[int, ...], int]:
    """Numbers of a week label ("Weeks 1-3 and 5" gives 1, 2, 3, 5) and where it ends."""
    weeks, end = [to_number(label["first"])], label.end()
    while following := _NEXT_WEEK[bool(label["plural"])].match(line, end):
        number = to_number(following["number"])
        first = weeks[-1] + 1 if following["range"] else number
        weeks += range(first, min(number, MOST_WEEKS) + 1)
        end = following.end()
    return tuple(weeks), end


def _leading_days(text: str) -> Iterator[tuple[list[str], str]]:
    """(days, their text) for labels before their text: "Mon and Wed: easy 4 km, Sun: long 8 km"."""
    found = list(_LEADING_DAYS.finditer(text))
    for label, following in zip(found, [*found[1:], None]):
        end = following.start() if following else len(text)
        yield _day_names(label["days"]), text[label.end() : end].strip(" \t:.,;|–—-*_)]•")


def _trailing_days(text: str) -> Iterator[tuple[list[str], str]]:
    """(days, their text) for labels after their text: "easy 4 km on Monday and Wednesday, long 8 km (Sunday)"."""
    start = 0
    for label in _TRAILING_DAYS.finditer(text):
        yield _day_names(label["days"]), text[start : label.start()].strip(" \t:.,;|–—-*_)]•")
        start = label.end()


def _day_names(label: str) -> list[str]:
    """ "Mon-Wed" as Mon, Tue, Wed; "Days 1, 3 and 5" as Day 1, Day 3, Day 5; "Day 1 (Monday)" as Day 1."""
    label = _BRACKETED.sub("", label)
    names: list[str] = []
    previous: tuple[bool, int, int] | None = None
    for part in _DAY_PART.finditer(label):
        is_weekday = bool(part["weekday"])
        value = weekday_index(part[0]) if is_weekday else to_number(part["number"] or part["short"])
        first = value
        if (
            previous
            and previous[0] == is_weekday
            and re.fullmatch(rf"{_RANGE}(?:days?\s+)?", label[previous[2] : part.start()])
        ):
            first = previous[1] + 1
        for number in range(first, min(value, MOST_DAYS) + 1):
            names.append(WEEKDAYS[number].capitalize() if is_weekday else f"Day {number}")
        previous = (is_weekday, value, part.end())
    return list(dict.fromkeys(names))
