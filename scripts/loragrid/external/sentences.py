"""What the comparisons of external runs say, what was not compared, and what the files lack, as sentences."""

from collections.abc import Sequence

from loragrid.external.base_comparison import BaseComparison, named_bases
from loragrid.external.comparability import is_folder, other_metrics
from loragrid.external.log_findings import losses_not_compared
from loragrid.external.runs import ExternalResults, ExternalRun, score_name, shortened
from loragrid.external.score_tests import ALPHA, UNPAIRED
from loragrid.formatting import between, change_beside, listed, plural
from loragrid.statistics.paired_statistics import BETTER, DIFFER, UNSURE, WORSE

LONGEST_RUN = 60
# Scores that are named in a sentence; of more the number is given.
MOST_NAMED = 3

NO_BASE = "No run is known to be the base, so the page cannot say whether training helped."
WHAT_IT_SHOWS = "It shows what the files hold."
ONE_SEED_SCOPE = (
    "For single runs this holds for these models on items like these: another training seed may give another result."
)
NOTHING_TESTABLE = (
    "The files hold no score with a standard error for both a run and the base, so no difference can be judged."
)


def answer(results: ExternalResults, rows: Sequence[BaseComparison], base: str | None) -> str:
    """What the scores say, in a few sentences."""
    if base is None:
        return " ".join([NO_BASE, *_trained_bases(results, base), *_between_settings(results, rows), WHAT_IT_SHOWS])
    first = [row for row in rows if row.against == base and not row.detail_of]
    judged = [row for row in first if row.verdict]
    trained = _trained_bases(results, base)
    if judged:
        settings = _between_settings(results, [row for row in rows if row.against != base and not row.detail_of])
        return " ".join([*trained, _count(results, judged, first, base), *settings, *_largest(rows), _scope(judged)])
    sentences = not_compared(results, base, rows)
    if sentences:
        more = len(sentences) - MOST_NAMED
        return " ".join(
            ["No verdict.", *trained, *sentences[:MOST_NAMED], *([f"{more} more are below."] if more > 0 else [])]
        )
    return " ".join([*trained, NOTHING_TESTABLE, *_largest(rows)])


def _count(
    results: ExternalResults, judged: Sequence[BaseComparison], first: Sequence[BaseComparison], base: str
) -> str:
    apart = [row for row in judged if row.verdict != UNSURE]
    # Of single runs no setting is better or worse; as in the table, the models differ.
    differ = [row for row in apart if row.verdict == DIFFER]
    verb = "differs" if len(differ) == 1 else "differ"
    kinds = {
        "better": [row for row in apart if row.verdict == BETTER],
        "worse": [row for row in apart if row.verdict == WORSE],
        f"{verb} in the desired direction": [row for row in differ if row.improves],
        f"{verb} in the undesired direction": [row for row in differ if not row.improves],
        "undecided": [row for row in judged if row.verdict == UNSURE],
    }
    parts = [f"{len(rows)} {word}{_names(results, rows)}" for word, rows in kinds.items() if rows]
    text = f"{plural(len(judged), 'comparison')} with “{shortened(base, LONGEST_RUN)}”: {listed(parts)}"
    refused = sum(bool(row.refused) for row in first)
    if refused:
        text += f"; {refused} more could not be made"
    return f"{text}. Tests: {_tests_made(judged)}; corrected together by Holm’s method at {ALPHA:.0%}."


def _names(results: ExternalResults, rows: Sequence[BaseComparison]) -> str:
    if len(rows) > MOST_NAMED:
        return ""
    names = [f"{shortened(row.run, LONGEST_RUN)} on {score_name(row.key)}: {_amount(results, row)}" for row in rows]
    return f" ({'; '.join(names)})"


def _amount(results: ExternalResults, row: BaseComparison) -> str:
    """A difference with its interval."""
    unit, ends = results.unit(row.key), (row.test.low, row.test.high)
    return f"{change_beside(row.difference, *ends, unit, least=1)}, {between(*ends, unit, least=1)}"


def _between_settings(results: ExternalResults, rows: Sequence[BaseComparison]) -> list[str]:
    """Each setting against another one, as far as a sentence can hold them."""
    texts = []
    for row in [row for row in rows if row.verdict][:MOST_NAMED]:
        pair = f"{row.run} against {row.against} on {score_name(row.key)}"
        verdict = row.verdict.replace("'", "’")
        texts.append(f"Between settings, {pair}: {verdict} ({_amount(results, row)}).")
    return texts


def _largest(rows: Sequence[BaseComparison]) -> list[str]:
    marked = [row for row in rows if row.largest_of]
    if not marked:
        return []
    return ["The largest of many differences is partly luck and is marked as such: expect less of it in a repetition."]


def _scope(judged: Sequence[BaseComparison]) -> str:
    if all(row.of_setting for row in judged):
        return "The seeds of each setting are pooled, and their spread is in the intervals."
    return ONE_SEED_SCOPE


def _tests_made(judged: Sequence[BaseComparison]) -> str:
    methods = dict.fromkeys(row.test.method for row in judged)
    return listed([f"{sum(row.test.method == method for row in judged)} by {method}" for method in methods])


def not_compared(results: ExternalResults, base: str | None, rows: Sequence[BaseComparison]) -> list[str]:
    """One sentence per run and reason for which scores could not be compared, with both values."""
    grouped: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    settings = {row.run for row in rows if row.of_setting}
    for row in rows:
        # The seeds of a pooled setting are refused with it.
        if row.refused and row.detail_of not in settings:
            grouped.setdefault((row.run, row.against, row.refused), []).append(score_name(row.key))
    sentences = [
        _sentence(
            f"{shortened(run, LONGEST_RUN)} and {shortened(against, LONGEST_RUN)} are not compared on "
            f"{_some(names)}: {'; '.join(reasons)}"
        )
        for (run, against, reasons), names in grouped.items()
    ]
    if base is not None:
        for run in results.runs.values():
            for task, reason in other_metrics(results.runs[base], run).items():
                names = f"{shortened(run.name, LONGEST_RUN)} and {shortened(base, LONGEST_RUN)}"
                sentences.append(f"{names} are not compared on {shortened(task, LONGEST_RUN)}: {reason}.")
    return [*sentences, *losses_not_compared(list(results.runs.values()))]


def _sentence(text: str) -> str:
    return text if text.endswith("?") else f"{text}."


def _some(names: list[str]) -> str:
    if len(names) <= MOST_NAMED:
        return listed(names)
    return f"{len(names)} scores ({', '.join(names[:2])}, …)"


NO_BASE_NAMED = "No run is known as the base (name one with --base), so whether training helped is unknown."
NO_SCORES = "There are no scores, so what the models learned or forgot is unknown."
NO_STDERR = "Some scores have neither a standard error nor a number of items: their differences get no verdict."
NO_ITEMS = (
    "Some or all scores come without answers item by item (lm-eval’s --log_samples): their "
    "comparisons are unpaired, with wider intervals than paired ones."
)
NO_HELDOUT_LOSS = "Some trainer_state.json files hold no held-out loss, without which overfitting cannot be seen."
NO_LOSS_UNIT = "The logs do not say whether a loss is a mean over tokens or, as in a classifier, over rows."
NO_TOKENS = (
    "Tokens were not counted (include_num_input_tokens_seen): losses are drawn over steps and not "
    "compared at equal tokens."
)
LOGGED_RATES = "Learning rates from logs are the highest ones logged: a schedule may have begun above them."
ONE_SEED = "No setting has two seeds, so nothing can be said of settings, only of these models."
NO_FINGERPRINTS = "There are no data fingerprints or code versions, so the runs may have seen different data."


def missing_parts(results: ExternalResults, base: str | None, rows: Sequence[BaseComparison]) -> list[str]:
    """What the files lack, each with what cannot be said without it."""
    runs = list(results.runs.values())
    parts = [NO_BASE_NAMED] if base is None else []
    parts += _missing_scores(runs, rows)
    parts += _unsure_of_files(results, base)
    parts += _missing_losses(runs, base)
    if not any(row.of_setting for row in rows):
        parts.append(ONE_SEED)
    return [*parts, NO_FINGERPRINTS]


def _trained_bases(results: ExternalResults, base: str | None) -> list[str]:
    """A base that shows signs of training is no base, whatever it is called."""
    named = [results.runs[base]] if base is not None else named_bases(results)
    return [
        f"“{shortened(run.name, LONGEST_RUN)}” was trained itself ({run.trained_by()}), so a difference from it "
        "does not say whether training helped."
        for run in named
        if run.trained()
    ]


def _missing_scores(runs: Sequence[ExternalRun], rows: Sequence[BaseComparison]) -> list[str]:
    if not any(run.scores for run in runs):
        return [NO_SCORES]
    compared = [row for row in rows if not row.refused]
    parts = []
    if any(row.test is None and not row.detail_of for row in compared):
        parts.append(NO_STDERR)
    unknown = list(dict.fromkeys(score_name(row.key) for row in compared if row.higher_is_better is None))
    if unknown:
        parts.append(f"Whether higher is better is not known for {_some(unknown)}: no verdict there.")
    if any(row.test is not None and row.test.method == UNPAIRED for row in rows):
        parts.append(NO_ITEMS)
    return parts


def _unsure_of_files(results: ExternalResults, base: str | None) -> list[str]:
    """What the files leave open about which model was scored, and which of several scores counts."""
    parts = []
    for run in results.runs.values():
        name, model = shortened(run.name, LONGEST_RUN), run.settings.get("model")
        if run.replaced:
            parts.append(
                f"{name}: several files hold other values of {plural(len(run.replaced), 'score')}; the last counts."
            )
        if base not in (None, run.name) and model and is_folder(model) and not run.settings.get("adapter"):
            parts.append(
                f"{name} is the model in {shortened(model, LONGEST_RUN)}: from what it was trained is not stated."
            )
    return parts


def _missing_losses(runs: Sequence[ExternalRun], base: str | None) -> list[str]:
    parts = []
    without = sum(run.path is None and run.name != base for run in runs)
    if without:
        who = plural(without, "run")
        parts.append(f"{who} without losses (trainer_state.json): no cause can be found there.")
    with_path = [run for run in runs if run.path is not None]
    if with_path:
        parts.append(NO_LOSS_UNIT)
    if any(not len(run.path.heldout) for run in with_path):
        parts.append(NO_HELDOUT_LOSS)
    if any(run.path_unit != "tokens" for run in with_path):
        parts.append(NO_TOKENS)
    if any(run.rate_from_log for run in runs):
        parts.append(LOGGED_RATES)
    return parts
