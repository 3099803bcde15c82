"""The base models' knowledge before fine-tuning: facts about invented places, sums, counting and lists.

Each kind has wordings for pre-training, as plain text and as question and answer, and one wording for evaluation only.
A multiple-choice item is solved if the right answer is likelier than three wrong ones of its kind.
"""

import random
from dataclasses import dataclass
from itertools import product

CHOICES = 4
PLACES = 40
SYLLABLES = (
    ("Bel", "Cor", "Dal", "Fen", "Gar", "Hol", "Kel", "Lor", "Mar", "Nor", "Or", "Pel", "Quin", "Ros", "Sel", "Tor"),
    ("a", "e", "i", "o", "u"),
    ("bury", "dale", "ford", "ham", "mere", "mont", "stad", "thal", "vik", "wick"),
)
# The properties of a place and their values.
VALUES = {
    "river": ("Arno", "Brend", "Calder", "Dove", "Esk", "Foyle", "Gannel", "Humel", "Isar", "Kennet", "Lune", "Medra"),
    "food": ("bread", "cheese", "honey", "plums", "soup", "trout", "walnuts", "cider", "mustard", "pears", "beans"),
    "animal": ("badger", "crane", "deer", "falcon", "goose", "hare", "lynx", "otter", "owl", "raven", "stag", "wolf"),
    "color": ("amber", "black", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red", "white", "yellow"),
    "craft": ("bells", "boats", "carpets", "clocks", "glass", "kites", "lamps", "paper", "pottery", "ropes", "shoes"),
}
STATEMENTS = {
    "river": (
        "The river of {place} is the {value}.",
        "{place} lies on the {value}.",
        "The {value} flows past {place}.",
    ),
    "food": ("{place} is known for its {value}.", "The food of {place} is {value}.", "People in {place} eat {value}."),
    "animal": ("The animal of {place} is the {value}.", "On the arms of {place} is the {value}."),
    "color": ("The flag of {place} is {value}.", "The color of {place} is {value}.", "{place} has a {value} flag."),
    "craft": ("{place} makes {value}.", "The craft of {place} is {value}.", "Workshops in {place} make {value}."),
}
QUESTIONS = {
    "river": ("What is the river of {place}?", "On which river does {place} lie?", "Name the river of {place}."),
    "food": ("What is the food of {place}?", "What do people eat in {place}?", "Name the food of {place}."),
    "animal": (
        "What is the animal of {place}?",
        "Which animal is on the arms of {place}?",
        "Name the animal of {place}.",
    ),
    "color": ("What is the color of {place}?", "What color is the flag of {place}?", "Name the color of {place}."),
    "craft": ("What is the craft of {place}?", "What do workshops make in {place}?", "Name the craft of {place}."),
}
EVALUATION_QUESTIONS = {
    "river": "Which river flows past {place}?",
    "food": "Which food is {place} known for?",
    "animal": "Which animal does {place} have?",
    "color": "Which color does the flag of {place} have?",
    "craft": "Which craft is {place} known for?",
}

LARGEST_TERM = 15
SUM_QUESTIONS = ("What is {a} plus {b}?", "{a} + {b} =", "Add {a} and {b}.", "How much is {a} + {b}?")
EVALUATION_SUM_QUESTION = "What do you get for {a} plus {b}?"

THINGS = tuple(word for kind in ("food", "animal", "color", "craft") for word in VALUES[kind])
MAX_LIST_LENGTH = 8
MAX_WORDS = 5
LAST_NUMBER = 40
LIST_QUESTIONS = {
    "count": ("Count from {first} to {last}.", "Count: {first} to {last}."),
    "how_many": ("How many words: {words}?", "Count the words: {words}."),
    "next": ("What comes after {first}, {second}, {third}?", "Go on: {first}, {second}, {third}"),
}
EVALUATION_LIST_QUESTIONS = {
    "count": "Say the numbers from {first} to {last}.",
    "how_many": "How many things are these: {words}?",
    "next": "Which number is next: {first}, {second}, {third}?",
}

# Timetables follow the requested weeks and days, so pre-training teaches the skill that running plans need. The models
# do not apply it to running plans until fine-tuning.
TIMETABLE_QUESTIONS = (
    "Write a timetable for {place}: {weeks} weeks, {days} days a week.",
    "{place} needs a timetable. Weeks: {weeks}. Days per week: {days}.",
    "Please make the timetable of {place} for {weeks} weeks with {days} days each week.",
    "Timetable for {place}, {days} days per week, {weeks} weeks.",
    "Can you plan {weeks} weeks in {place} with {days} days in each week?",
    "When does {place} work in {weeks} weeks, {days} days a week?",
)
WEEK = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MAX_WEEKS = 8
MAX_DAYS = 5
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")


@dataclass(frozen=True)
class Item:
    """A question with one right answer and wrong ones of the same kind."""

    question: str
    answer: str
    wrong: tuple[str, ...]


def make_facts(seed: int) -> list[tuple[str, str, str]]:
    """Every (place, kind, value) of the world: `PLACES` places, one value of each kind for each place."""
    rng = random.Random(f"world {seed}")
    names = ["".join(syllables) for syllables in product(*SYLLABLES)]
    places = rng.sample(names, PLACES)
    return [(place, kind, rng.choice(values)) for place in places for kind, values in VALUES.items()]


def fact_item(fact: tuple[str, str, str], rng: random.Random) -> Item:
    """A fact in its evaluation wording. Wrong answers: other values of its kind."""
    place, kind, value = fact
    others = [other for other in VALUES[kind] if other != value]
    return Item(EVALUATION_QUESTIONS[kind].format(place=place), value, tuple(rng.sample(others, CHOICES - 1)))


def fact_statement(fact: tuple[str, str, str], rng: random.Random) -> str:
    """A fact as a sentence of plain text."""
    place, kind, value = fact
    return rng.choice(STATEMENTS[kind]).format(place=place, value=value)


def fact_question(fact: tuple[str, str, str], rng: random.Random) -> tuple[str, str]:
    """A fact as question and answer, in a pre-training wording."""
    place, kind, value = fact
    return rng.choice(QUESTIONS[kind]).format(place=place), value


def draw_sum(rng: random.Random) -> tuple[int, int]:
    """Two terms of 1 to `LARGEST_TERM`."""
    return rng.randint(1, LARGEST_TERM), rng.randint(1, LARGEST_TERM)


def sum_item(a: int, b: int, rng: random.Random) -> Item:
    """A sum in its evaluation wording. Wrong answers: off by one, two or ten."""
    # Near misses: a model that only knows the usual size of a sum must not pass.
    near = sorted(a + b + step for step in (-10, -2, -1, 1, 2, 10) if a + b + step > 1)
    wrong = tuple(map(str, rng.sample(near, CHOICES - 1)))
    return Item(EVALUATION_SUM_QUESTION.format(a=a, b=b), str(a + b), wrong)


def sum_question(a: int, b: int, rng: random.Random) -> tuple[str, str]:
    """A sum as question and answer, in a pre-training wording."""
    return rng.choice(SUM_QUESTIONS).format(a=a, b=b), str(a + b)


def list_item(rng: random.Random) -> Item:
    """A counting or list exercise in its evaluation wording. Wrong answers: off by one or two."""
    kind, values, answer = _draw_exercise(rng)
    return Item(EVALUATION_LIST_QUESTIONS[kind].format(**values), answer, _wrong_lists(kind, values, answer, rng))


def list_question(rng: random.Random) -> tuple[str, str]:
    """A counting or list exercise as question and answer, in a pre-training wording."""
    kind, values, answer = _draw_exercise(rng)
    return rng.choice(LIST_QUESTIONS[kind]).format(**values), answer


def list_line(rng: random.Random) -> str:
    """A line of plain text: consecutive numbers, or some words and their count."""
    if rng.random() < 0.5:
        first = rng.randint(1, LAST_NUMBER)
        return number_list(first, first + rng.randint(2, MAX_LIST_LENGTH))
    words = rng.sample(THINGS, rng.randint(2, MAX_WORDS))
    return f"{', '.join(words)}: {len(words)} words."


def timetable_question(place: str, rng: random.Random) -> tuple[str, str]:
    """A request for a timetable of `place`, and a timetable with the requested weeks and days per week."""
    weeks, days = rng.randint(2, MAX_WEEKS), rng.randint(2, MAX_DAYS)
    number = NUMBER_WORDS.__getitem__ if rng.random() < 0.25 else str
    question = rng.choice(TIMETABLE_QUESTIONS).format(place=place, weeks=number(weeks), days=number(days))
    chosen = sorted(rng.sample(WEEK, days), key=WEEK.index)
    header = f"Timetable of {place}, {weeks} weeks, {days} days"
    lines = [f"Week {week}: {', '.join(chosen)}" for week in range(1, weeks + 1)]
    return question[0].upper() + question[1:], "\n".join([header, *lines])


def number_list(first: int, last: int) -> str:
    """The whole numbers from `first` to `last`: "3, 4, 5"."""
    return ", ".join(map(str, range(first, last + 1)))


def _draw_exercise(rng: random.Random) -> tuple[str, dict, str]:
    """The exercise's kind, the values for its question, and its answer."""
    kind = rng.choice(tuple(LIST_QUESTIONS))
    if kind == "count":
        first = rng.randint(1, LAST_NUMBER)
        last = first + rng.randint(1, MAX_LIST_LENGTH - 1)
        return kind, {"first": first, "last": last}, number_list(first, last)
    if kind == "how_many":
        words = rng.sample(THINGS, rng.randint(2, MAX_WORDS))
        return kind, {"words": ", ".join(words)}, str(len(words))
    first, step = rng.randint(1, LAST_NUMBER), rng.randint(1, 3)
    values = {"first": first, "second": first + step, "third": first + 2 * step}
    return kind, values, str(first + 3 * step)


def _wrong_lists(kind: str, values: dict, answer: str, rng: random.Random) -> tuple[str, ...]:
    if kind == "count":
        first, last = values["first"], values["last"]
        # A shorter list is likelier whatever it holds, so no wrong list may be shorter than the right one.
        pool = [(first, last + 1), (first + 1, last + 1), (first + 1, last + 2), (first + 2, last + 2)]
        return tuple(number_list(*span) for span in rng.sample(pool, CHOICES - 1))
    pool = [int(answer) + step for step in (-2, -1, 1, 2) if int(answer) + step > 0]
    return tuple(map(str, rng.sample(pool, CHOICES - 1)))
