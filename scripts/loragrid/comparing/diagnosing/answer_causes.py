"""Causes that generated answers show: loops, lost variety, answers that do not end."""

from collections.abc import Iterator

from loragrid.comparing.diagnosing.causes import STOPPED, Cause

# Task → measure of its answers' form → value.
Answers = dict[str, dict[str, float]]
# ASSUME: answers loop when half of their 4-grams repeat; below half of the base's, variety is lost.
REPETITION, REPETITION_OVER_BASE, VARIETY_SHARE = 0.5, 0.2, 0.5
# ASSUME: more than one special token in twenty answers is a fault of the template.
SPECIAL_TOKENS = 0.05


def collapsed(answers: Answers, base_answers: Answers, better: set[str]) -> Iterator[Cause]:
    """Answers that loop, or that lost the variety of the base's answers to the same prompts.

    `better`: tasks on which the run's score is proved above its base's.
    """
    for task, found in answers.items():
        base = base_answers.get(task, {})
        repeats, before = found.get("repetition"), base.get("repetition", 0.0)
        # Lists and plans repeat phrases by nature, so a loop must also exceed the base's repetition.
        if repeats is not None and repeats >= REPETITION and repeats >= before + REPETITION_OVER_BASE:
            threshold = {"share": REPETITION, "over_base": REPETITION_OVER_BASE}
            yield Cause("collapsed", "repetition", {"task": task, "share": repeats, "base": before}, threshold)
        variety, of_base = found.get("distinct_2"), base.get("distinct_2")
        # Answers in the requested form share their words, a rambling base does not: with a better
        # score that is no collapse.
        if task not in better and variety is not None and of_base and variety < VARIETY_SHARE * of_base:
            measured = {"task": task, "share": variety, "base": of_base}
            yield Cause("collapsed", "variety", measured, {"share_of_base": VARIETY_SHARE})


def never_stops(answers: Answers, base_answers: Answers) -> Iterator[Cause]:
    """Answers that run to the length limit or hold special tokens as text.

    Either the chat template or the end token does not fit the model. `base_answers` is empty for a base.
    """
    for task, found in answers.items():
        stopped, special = found.get("stopped"), found.get("special_tokens")
        base = base_answers.get(task, {})
        if stopped is not None and stopped < STOPPED:
            measured = {"task": task, "share": stopped, "base": base.get("stopped")}
            yield Cause("template", "answers_not_ended", measured, {"share": STOPPED})
        if special is not None and special > SPECIAL_TOKENS:
            measured = {"task": task, "per_answer": special, "base": base.get("stopped")}
            yield Cause("template", "special_tokens", measured, {"per_answer": SPECIAL_TOKENS})
