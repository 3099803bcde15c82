"""The causes that compare found, as sentences: what shows them, and the threshold they passed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from loragrid.comparing.diagnosing.loss_margins import OF_NOISE, OF_SEEDS, OF_WIN
from loragrid.formatting import between, change, listed, number, plain_name, plural, score, setting, visible

# Cause → its name on the page.
CAUSE_NAMES = {
    "diverged": "Diverged",
    "rate_too_high": "Learning rate too high",
    "warmup": "Warm-up as long as the run",
    "rate_too_low": "Learning rate too low",
    "under_trained": "Under-trained",
    "overfitted": "Overfitted",
    "forgot": "Forgot",
    "collapsed": "Collapsed",
    "template": "Template or end of text",
    "precision": "Precision",
    "broken_base": "Broken base, or not made for this text",
    "at_chance": "Base at chance",
    "leak": "Leak",
}
CHECK_NAMES = {"overfitted": "overfitting", "under_trained": "under-training"}
Numbers = dict[str, Any]
Units = dict[str, str]  # task → share or plain


@dataclass(frozen=True)
class CauseText:
    """A cause as the page shows it; `cause` stays the code, for what the template does with it.

    `symptom_of` says from which other cause it follows; empty for a cause in its own right. `seeds` says
    in how many of a setting's seeds it holds; empty with one.
    """

    cause: str
    name: str
    evidence: str
    threshold: str
    symptom_of: str = ""
    seeds: str = ""


def cause_texts(causes: Iterable[dict[str, Any]], units: Units) -> list[CauseText]:
    """The causes of one run or base, as compare.json holds them, as sentences."""
    texts = []
    for found in causes:
        evidence, threshold = WORDINGS[found["evidence"]](found["measured"], found["threshold"], units)
        texts.append(CauseText(found["cause"], CAUSE_NAMES[found["cause"]], evidence, threshold, _follows_from(found)))
    return texts


def _follows_from(found: dict[str, Any]) -> str:
    root = found["symptom_of"]
    return f"follows from: {CAUSE_NAMES[root].lower()}" if root else ""


def unmade_text(unmade: dict[str, Any]) -> str:
    """Which checks of the loss path could not be made."""
    checks = listed([CHECK_NAMES[cause] for cause in unmade["checks"]])
    measurements = plural(unmade["measurements"], "held-out measurement")
    return f"not checked for {checks}: only {measurements} after training began"


def _margin(limits: Numbers) -> str:
    """The margin of held-out losses, with what it is made of."""
    return f"more than {number(limits['nats'], 2)} nats, {_made_of(limits)}"


def _made_of(limits: Numbers) -> str:
    if limits["made_of"] == OF_WIN:
        return f"{limits['share']:.0%} of the {number(limits['to_win'], 2)} that there were to win"
    if limits["made_of"] == OF_SEEDS:
        return f"what two seeds of one setting differ by (SD {number(limits['seed_sd'], 2)} each)"
    if limits["made_of"] == OF_NOISE:
        return "the noise of a measurement"
    return f"{limits['loss_share']:.0%} of the loss, or {limits['loss_nats']} if that is more"


def _difference(row: Numbers, units: Units) -> str:
    return f"{plain_name(row['task'])} {change(row['difference'], units[row['task']], words=True)}"


def _share(value: float) -> str:
    return score(value, "share")


def _beside_base(seen: Numbers) -> str:
    """The base's share in brackets; empty where the base was not measured."""
    return "" if seen["base"] is None else f" (base: {_share(seen['base'])})"


def _loss_not_finite(*_: Any) -> tuple[str, str]:
    return "the loss became NaN or infinite", "any NaN or infinite loss"


def _rate_not_reached(seen: Numbers, *_: Any) -> tuple[str, str]:
    evidence = f"{plural(seen['warmup'], 'update')} of warm-up in a run of {seen['updates']}"
    return f"{evidence}: the learning rate reached {seen['reached']:.1%} of its value", "a warm-up to the last update"


def _updates_lost(seen: Numbers, *_: Any) -> tuple[str, str]:
    lost = plural(seen["not_finite"], "update")
    skipped = f"{seen['infinite_gradient']} with an infinite gradient (skipped in fp16)"
    return f"{lost} with a NaN or infinite loss, {skipped}", "any"


def _heldout_rose(seen: Numbers, limits: Numbers, _: Units) -> tuple[str, str]:
    evidence = f"held-out loss rose from {number(seen['untrained'])} of the base to {number(seen['last'])}"
    return evidence, f"a rise of {_margin(limits)}"


def _train_rose(seen: Numbers, limits: Numbers, _: Units) -> tuple[str, str]:
    evidence = f"training loss rose from {number(seen['first'])} to {number(seen['last'])}"
    return evidence, f"a rise of {_margin(limits)}"


def _gradient_jumps(seen: Numbers, limits: Numbers, _: Units) -> tuple[str, str]:
    above = f"gradient norm above {limits['times_median']:g} times its median"
    return f"{above} in {_share(seen['share'])} of updates", f"{limits['share']:.0%} of updates"


def _loss_above_other_rate(seen: Numbers, limits: Numbers, _: Units) -> tuple[str, str]:
    own = f"held-out loss {number(seen['loss'])} at learning rate {setting(seen['learning_rate'])}"
    evidence = f"{own}, but {number(seen['best_loss'])} at {setting(seen['best_learning_rate'])}"
    if seen["times_as_far"] is not None:
        evidence += f"; the adapter moved {number(seen['times_as_far'], 2)} times as far"
    return evidence, f"above a run that differs only in the learning rate by {_margin(limits)}"


def _rose_and_fell(seen: Numbers, limits: Numbers, _: Units) -> tuple[str, str]:
    evidence = f"held-out loss first rose from {number(seen['first'])} to {number(seen['worst'])}"
    return evidence, f"a rise of {_margin(limits)}"


def _barely_fell(seen: Numbers, limits: Numbers, _: Units) -> tuple[str, str]:
    evidence = f"held-out loss fell only from {number(seen['first'])} to {number(seen['last'])}"
    return evidence, f"a fall of less than {limits['share']:.0%}"


def _barely_won(seen: Numbers, limits: Numbers, _: Units) -> tuple[str, str]:
    evidence = f"held-out loss fell only from {number(seen['first'])} to {number(seen['last'])}"
    return evidence, f"less than {limits['share']:.0%} of the {number(seen['to_win'], 2)} nats that another run won"


def _late_progress(seen: Numbers, limits: Numbers, _: Units) -> tuple[str, str]:
    late = f"in the last {limits['last_part']:.0%} of the tokens"
    amounts = f"{number(seen['late'], 2)} of {number(seen['fall'], 2)} nats"
    evidence = f"{_share(seen['share'])} of the fall in held-out loss came {late} ({amounts})"
    return evidence, f"{limits['share']:.0%} or more"


def _heldout_turned_up(seen: Numbers, limits: Numbers, _: Units) -> tuple[str, str]:
    heldout = f"held-out loss rose from its lowest, {number(seen['lowest'])}, to {number(seen['last'])}"
    train = f"training loss fell from {number(seen['train_at_lowest'])} to {number(seen['train_last'])}"
    evidence = f"{heldout} while {train}"
    if seen["epochs"] and seen["epochs"] > 1:
        evidence += f"; each row was seen {number(seen['epochs'], 2)} times"
    return evidence, f"while training loss falls, a rise of {_margin(limits)}"


def _repetition(seen: Numbers, limits: Numbers, _: Units) -> tuple[str, str]:
    repeats = f"{_share(seen['share'])} of the 4-grams in answers to {plain_name(seen['task'])} are repeats"
    threshold = f"at least {limits['share']:.0%}, and {limits['over_base'] * 100:.0f} points above the base"
    return repeats + _beside_base(seen), threshold


def _variety(seen: Numbers, limits: Numbers, _: Units) -> tuple[str, str]:
    distinct = f"{_share(seen['share'])} of the bigrams in answers to {plain_name(seen['task'])} are distinct"
    threshold = f"less than {limits['share_of_base']:.0%} of the base’s, without a better score"
    return distinct + _beside_base(seen), threshold


def _answers_not_ended(seen: Numbers, limits: Numbers, _: Units) -> tuple[str, str]:
    evidence = f"{_share(seen['share'])} of answers to {plain_name(seen['task'])} ended by themselves"
    return evidence + _beside_base(seen), f"less than {limits['share']:.0%}"


def _special_tokens(seen: Numbers, limits: Numbers, _: Units) -> tuple[str, str]:
    evidence = f"{number(seen['per_answer'], 2)} special tokens per answer to {plain_name(seen['task'])}"
    return evidence, f"more than {limits['per_answer']:g}"


def _retention_lost(seen: Numbers, _: Numbers, units: Units) -> tuple[str, str]:
    pooled = f"mean retention {change(seen['difference'], 'share', words=True)}"
    evidence = f"{pooled} ({between(seen['low'], seen['high'], 'share')}; mean of {seen['seeds']} seeds)"
    if len(seen["tasks"]) > 1:
        evidence += f": {listed([_difference(row, units) for row in seen['tasks']])}"
    return evidence, "a proved loss of the setting on mean retention"


def _base_lost(seen: Numbers, _: Numbers, units: Units) -> tuple[str, str]:
    compared = f"in {visible(seen['precision'])} compared with {visible(seen['high_precision'])}"
    return f"the base: {_difference(seen, units)} {compared}", "a proved loss of the base"


def _near_uniform(seen: Numbers, limits: Numbers, _: Units) -> tuple[str, str]:
    guessing = f"guessing evenly among {seen['vocabulary']:,} tokens gives {number(seen['uniform_loss'])}"
    threshold = f"at least {limits['share_of_uniform']:.0%} of the loss of an even guess"
    return f"held-out loss of the base {number(seen['loss'])}; {guessing}", threshold


def _near_chance(seen: Numbers, *_: Any) -> tuple[str, str]:
    tasks = [
        f"{plain_name(task['task'])} {_share(task['score'])} (guessing: {_share(task['chance'])})"
        for task in seen["tasks"]
    ]
    threshold = "the interval of the base’s score reaches down to chance"
    return f"{listed(tasks)}: nothing there can be forgotten", threshold


def _rows_shared(seen: Numbers, *_: Any) -> tuple[str, str]:
    shared, rows = seen["shared"], plural(seen["heldout_rows"], "held-out row")
    verb = "is" if shared == 1 else "are"
    evidence = f"{shared} of {rows} {verb} also among the training rows, token for token"
    return evidence, "any equal row; near-equal rows are kept on one side when the data are split"


WORDINGS: dict[str, Callable[[Numbers, Numbers, Units], tuple[str, str]]] = {
    "loss_not_finite": _loss_not_finite,
    "rate_not_reached": _rate_not_reached,
    "updates_lost": _updates_lost,
    "heldout_rose": _heldout_rose,
    "train_rose": _train_rose,
    "gradient_jumps": _gradient_jumps,
    "loss_above_other_rate": _loss_above_other_rate,
    "rose_and_fell": _rose_and_fell,
    "barely_fell": _barely_fell,
    "barely_won": _barely_won,
    "late_progress": _late_progress,
    "heldout_turned_up": _heldout_turned_up,
    "repetition": _repetition,
    "variety": _variety,
    "answers_not_ended": _answers_not_ended,
    "special_tokens": _special_tokens,
    "retention_lost": _retention_lost,
    "base_lost": _base_lost,
    "near_uniform": _near_uniform,
    "near_chance": _near_chance,
    "rows_shared": _rows_shared,
}
