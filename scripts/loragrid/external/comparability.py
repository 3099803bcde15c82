"""Whether two results may be compared at all: what differs in how they were measured, with both values."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loragrid.external.directions import LOSS_WORDS, is_share, loss_of_unknown_rows, name_words
from loragrid.external.runs import (
    ExternalResults,
    ExternalRun,
    ScoreKey,
    as_float,
    is_absent,
    is_number,
    score_name,
    shortened,
)
from loragrid.formatting import listed

# Settings of a run → their names in sentences. Both results must agree on them to be compared.
MEASURED = {
    "model": "model",
    "revision": "revision",
    "num_fewshot": "shots",
    "chat_template": "chat template",
    "eval_data": "evaluation data",
    "split": "split",
    "limit": "limit",
    "task_version": "task version",
    "metric": "metric",
}
# Of two trained runs these must agree too.
TRAINED_ON = {"data": "data set", "steps": "steps", "tokens": "tokens", "max_tokens": "tokens", "epochs": "epochs"}
# Conditions of scores from logs: they depend on the training and not on the measurement.
OF_TRAINING = ("steps", "tokens")
# lm-eval's hash of all prompts and items of a task, as a condition of its scores.
TASK_HASH = "prompts and items (task hash)"
PROMPTS = "prompts"
LONGEST_VALUE = 60
# With fewer scores that are equal to the last digit, chance may have made them so.
FEWEST_EQUAL = 3
QUANTIZED = ("-unsloth-bnb-4bit", "-bnb-4bit", "-bnb-8bit")


def refusals(base: ExternalRun, run: ExternalRun, key: ScoreKey) -> list[str]:
    """Why two runs' scores under a key cannot be compared; empty if nothing speaks against it."""
    found = [*_of_models(base, run), *_of_measurements(base, run, key), *_of_values(base, run, key)]
    if same_model(base, run):
        arguments = shortened(run.model_arguments, LONGEST_VALUE)
        found.append(f"both are the same model (model_args {arguments}), so nothing was tuned")
    for part in _parts(run, key[0]):
        # A group states neither shots nor versions: it was measured as its parts were.
        if (part, key[1]) in base.scores and (part, key[1]) in run.scores:
            found += _of_measurements(base, run, (part, key[1]))
    # Hashes of prompts and items follow from shots, template and version, which say more.
    named = [reason for reason in found if not reason.startswith((TASK_HASH, PROMPTS))]
    return list(dict.fromkeys(named or found))


def _parts(run: ExternalRun, group: str) -> list[str]:
    """The tasks of a group, through the groups in it; empty for a task."""
    found, open_groups = [], [group]
    seen = {group}
    while open_groups:
        tasks = [task for task in run.groups.get(open_groups.pop(), []) if task not in seen]
        seen |= set(tasks)
        found += tasks
        open_groups += tasks
    return found


def other_metrics(base: ExternalRun, run: ExternalRun) -> dict[str, str]:
    """Task → how its metrics or filters differ, for tasks that both runs have and no metric of."""
    found = {}
    for task in dict.fromkeys(task for task, metric in run.scores if metric):
        ours, theirs = ([metric for name, metric in one.scores if name == task] for one in (run, base))
        if theirs and not set(ours) & set(theirs):
            found[task] = f"metric or filter {_listed(theirs)} and {_listed(ours)}"
    return found


def other_rows(results: ExternalResults, base: ExternalRun, key: ScoreKey) -> list[str]:
    """Why a held-out loss is not compared where the runs have data sets of their own and the base states none."""
    name = key[1] or key[0]
    stated = sorted({str(run.settings["data"]) for run in results.runs.values() if run.settings.get("data")})
    if not name_words(name) & LOSS_WORDS or len(stated) < 2 or base.settings.get("data"):
        return []
    shown = listed([shortened(value, LONGEST_VALUE) for value in stated[:3]])
    return [f"data set {shown}: nothing says on whose held-out rows {shortened(base.name, LONGEST_VALUE)} was measured"]


def equal_seeds(runs: Sequence[ExternalRun]) -> list[str]:
    """Runs of several seeds with the same scores are one run."""
    scores = [[(key, score.value) for key, score in sorted(run.scores.items())] for run in runs]
    if len(scores[0]) < FEWEST_EQUAL or any(own != scores[0] for own in scores):
        return []
    return [f"all {len(scores[0])} scores are equal under {len(runs)} seeds: was the seed set?"]


def same_model(base: ExternalRun, run: ExternalRun) -> bool:
    """Whether lm-eval loaded both with the same arguments, so that nothing was tuned between them."""
    return bool(base.model_arguments) and base.model_arguments == run.model_arguments


def training_differences(base: ExternalRun, run: ExternalRun) -> list[str]:
    """In what two trained runs' training differs that makes them no test of a setting."""
    return list(_differing(base.settings, run.settings, TRAINED_ON | {"model": "model", "revision": "revision"}))


def _of_models(base: ExternalRun, run: ExternalRun) -> Iterator[str]:
    yield from _differing(_loaded(base), _loaded(run), MEASURED)
    both_trained = base.trained() and run.trained()
    states_data = not is_absent(base.settings.get("data")) and not is_absent(run.settings.get("data"))
    if both_trained:
        yield from _differing(base.settings, run.settings, TRAINED_ON)
    elif states_data:
        # An untrained model has no training data, so the column names what both were measured on.
        yield from _differing(base.settings, run.settings, {"data": "data set"})


def _loaded(run: ExternalRun) -> dict[str, Any]:
    """The settings, with the revision that lm-eval loads unless another one is asked for."""
    return {"revision": "main"} | run.settings if run.model_arguments else run.settings


def _of_measurements(base: ExternalRun, run: ExternalRun, key: ScoreKey) -> Iterator[str]:
    theirs, ours = base.scores[key], run.scores[key]
    conditions = {name: name for name in [*theirs.conditions, *ours.conditions]}
    if not (base.trained() and run.trained()):
        conditions = {name: name for name in conditions if name not in OF_TRAINING}
    yield from _differing(theirs.conditions, ours.conditions, conditions)
    if theirs.items and ours.items and theirs.items != ours.items:
        yield f"items {theirs.items} and {ours.items}"
    before, after = base.items.get(key, {}), run.items.get(key, {})
    if before and after and before.keys() != after.keys():
        common = len(before.keys() & after.keys())
        yield f"items {len(before)} and {len(after)}, of which {common} are the same"
    asked = base.prompts.get(key[0], {}), run.prompts.get(key[0], {})
    other = sum(asked[1].get(item, prompt) != prompt for item, prompt in asked[0].items())
    if other:
        yield f"{PROMPTS}: {other} of {len(asked[0])} items were asked in other words or with other examples"
    tasks = set(base.groups.get(key[0], [])), set(run.groups.get(key[0], []))
    if tasks[0] and tasks[1] and tasks[0] != tasks[1]:
        yield f"parts of {shortened(key[0], LONGEST_VALUE)}: {len(tasks[0])} and {len(tasks[1])} tasks"
    if loss_of_unknown_rows(key[1] or key[0]):
        yield f"training or held-out loss: the name {score_name(key)} does not say which"


def _of_values(base: ExternalRun, run: ExternalRun, key: ScoreKey) -> Iterator[str]:
    before, after = base.items.get(key, {}), run.items.get(key, {})
    same_answers = base.answers.get(key[0]) == run.answers.get(key[0])
    if before and before == after and same_answers:
        yield f"identical answers on all {len(after)} items: was the adapter loaded?"
    shared = [one for one in run.scores if one in base.scores]
    all_equal = all(run.scores[one].value == base.scores[one].value for one in shared)
    if all_equal and len(shared) >= FEWEST_EQUAL and not same_model(base, run):
        yield f"all {len(shared)} scores are equal to the last digit: was the adapter loaded?"
    values = (base.scores[key].value, run.scores[key].value)
    if is_share(key[1] or key[0]) and min(values) <= 1 < max(values) and min(values) > 0:
        yield f"scale {values[0]:g} and {values[1]:g}: one is a share, the other a percentage"


def _differing(base: Mapping[str, Any], run: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[str]:
    """The values that both state and that differ, as “shots 0 and 5”."""
    for key, name in names.items():
        if key in base and key in run and not _alike(key, base[key], run[key]):
            yield f"{name} {_value(base[key])} and {_value(run[key])}"


def _alike(key: str, one: Any, other: Any) -> bool:
    # A value is missing where the file does not state it; conditions write out "none".
    if one is None or other is None:
        return True
    if is_number(as_float(one)) and is_number(as_float(other)):
        return as_float(one) == as_float(other)
    if key == "model":
        return is_folder(one) or is_folder(other) or _model_name(one) == _model_name(other)
    return str(one) == str(other)


def is_folder(model: Any) -> bool:
    """Whether a model is a folder on somebody's disk, which may hold any base or a merged adapter."""
    text = str(model)
    return text.startswith((".", "/", "~")) or text.count("/") > 1


def _model_name(model: Any) -> str:
    """A model's name without its owner and its quantization: a mirror holds the same weights."""
    name = str(model).rsplit("/", 1)[-1].lower()
    for ending in QUANTIZED:
        name = name.removesuffix(ending)
    return name


def _value(value: Any) -> str:
    text = f"{value:g}" if is_number(value) and float(value).is_integer() and abs(value) < 1e6 else str(value)
    return shortened(text, LONGEST_VALUE)


def _listed(metrics: list[str]) -> str:
    return listed([shortened(metric, LONGEST_VALUE) for metric in dict.fromkeys(metrics)], "or")
