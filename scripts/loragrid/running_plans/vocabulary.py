"""Vocabulary of running plans: numbers, days, races, runs and rest."""

import re

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50}
_ORDINALS = "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
_VALUES = {word: i for words in (_ONES, _ORDINALS) for i, word in enumerate(words)} | _TENS
# A regex takes the first alternative that matches: "seventeen" must come before "seven".
_LONGEST_FIRST = sorted(_ONES, key=len, reverse=True)

NUMBER = (
    r"(?:\d{1,4}|(?:"
    + "|".join(_TENS)
    + r")(?:[- ](?:"
    + "|".join(_ONES[1:10])
    + r"))?|"
    + "|".join(_LONGEST_FIRST)
    + ")"
    r"(?![\w]|[.,]\d)"
)
ORDINAL = r"(?:\d{1,3}(?:st|nd|rd|th)|" + "|".join(_ORDINALS) + r")\b"
WEEKDAY = r"(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:days?)?\b"
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

# A day off opens with rest: "easy run or rest" is a run, "rest or easy run" is not.
REST = re.compile(
    r"[\W_]*+(?:(?:active|complete|full|total|optional)\s+)*"
    r"(?:rest|off|day\s+off|no\s+(?:run|train|work)\w*|recover(?:y(?:\s+day)?)?[\W_]*$|recovery\s+day)\b",
    re.IGNORECASE,
)
OTHER_EXERCISE = re.compile(
    r"\b(?:cross[-\s]?train\w*|xt|strength|core|yoga|swim\w*|cycl\w*|bik\w*|pilates|stretch\w*|mobility|gym|walk\w*|"
    r"active\s+recovery|weights|row(?:s|ing)?|elliptical)\b",
    re.IGNORECASE,
)
RUNNING = re.compile(
    r"\b(?:runs?|running|jog\w*|tempo|intervals?|hills?|fartlek|strides?|threshold|repeats?|race|races|marathon|sprints?|"
    r"speed\s?work|parkrun|shakeout)\b",
    re.IGNORECASE,
)

_DISTANCE = r"(?:[-\s]?k(?:m|s|ms|ilomet\w+)?)\b"
# "Half marathon" precedes "marathon": the first alternative that matches wins.
_RACES = (
    ("half marathon", r"\bhalf[-\s]?marathons?\b|\b21(?:[.,]\d+)?" + _DISTANCE),
    ("marathon", r"\bmarathons?\b|\b42(?:[.,]\d+)?" + _DISTANCE),
    ("10K", r"\b(?:10|ten)" + _DISTANCE),
    ("5K", r"\b(?:5|five)" + _DISTANCE),
)
_RACE_NAMES = {f"r{i}": name for i, (name, _) in enumerate(_RACES)}
_RACE = re.compile("|".join(f"(?P<r{i}>{pattern})" for i, (_, pattern) in enumerate(_RACES)), re.IGNORECASE)
_NAMED_AS_RACE = re.compile(r"\s*(?:race|plan|training|program\w*|schedule|goal)\b", re.IGNORECASE)


def to_number(word: str) -> int:
    """The value of "7", "7th", "seven", "seventh" or "twenty-one". Errors: `KeyError` on any other word."""
    digits = re.match(r"\d+", word)
    if digits:
        return int(digits[0])
    return sum(_VALUES[part] for part in re.split(r"[-\s]", word.casefold()))


def weekday_index(word: str) -> int:
    """The weekday's index: 0 for "Mon" or "mondays", 6 for Sunday."""
    return WEEKDAYS.index(word[:3].casefold())


def is_running(text: str) -> bool:
    """Whether a day with this text is a running day: not empty, not rest, not only other exercise."""
    if not any(character.isalnum() for character in text) or REST.match(text):
        return False
    return bool(RUNNING.search(text)) or not OTHER_EXERCISE.search(text)


def race_in(text: str, *, sessions: bool) -> str | None:
    """The first race that `text` names. In a text of training `sessions` "5 km" is a run's distance, so a race in
    kilometres counts only as "5K race", "10K plan" and the like."""
    for found in _RACE.finditer(text):
        is_race = "marathon" in found[0].casefold() or _NAMED_AS_RACE.match(text, found.end())
        if is_race or not sessions:
            return _RACE_NAMES[found.lastgroup]
    return None
