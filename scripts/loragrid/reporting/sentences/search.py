"""The search's sentences: how trials were made, how they ended, and how far the result can be trusted."""

from pathlib import PurePath
from typing import Any

from loragrid.formatting import duration, listed, number, plain_name, plural, whole
from loragrid.setting_texts import axis_name, axis_value
from loragrid.study.run_names import value_text
from loragrid.study.search.search_space import coordinate
from loragrid.study.settings import Budget

TRIAL_OUTCOMES = {
    "complete": "complete",
    "pruned": "pruned",
    "diverged": "diverged",
    "out_of_memory": "out of memory",
    "failed": "failed",
    "open": "not finished",
}
EDGE = 0.05  # of a range: a winner this near to its end suggests that the range is too narrow
FEW_TRIALS = 30  # complete trials; the shares of fewer are called a hint


def setting_value(name: str, value: Any) -> str:
    """The value of a searched setting, short."""
    return axis_value(name, value_text(value))


def point_text(point: dict[str, Any]) -> str:
    """A trial's settings, listed."""
    return ", ".join(f"{axis_name(name)} {setting_value(name, value)}" for name, value in point.items())


def objective_name(found: dict[str, Any]) -> str:
    """What the search optimises, as words."""
    task, metric = found["objective"]["task"], found["objective"]["metric"]
    if task is None:
        return "validation loss"
    # A task file is named by its path.
    return f"{plain_name(PurePath(task).stem)}: {plain_name(metric)}"


def search_setup(grid_budget: Budget, found: dict[str, Any]) -> str:
    """How trials train, how they are measured, and at what they are compared."""
    settings = found["settings"]
    unit, amount = next(iter(settings["budget"].items()))
    names = listed([axis_name(name) for name in settings["parameters"]])
    chosen = found["chosen_on"]
    equal = f"Trials have equal {unit}, not equal tokens: a trial with a larger batch has seen more text."
    if unit == "tokens":
        equal = "Trials are compared at equal tokens."
    trials, parts = plural(settings["trials"], "trial"), plural(settings["evaluations"], "equal part")
    text = (
        f"{trials} over {names}. Each trains for {whole(amount)} {unit} (a run of the grid: "
        f"{whole(grid_budget.amount)} {grid_budget.unit}) with the grid’s code, on "
        f"{plural(chosen['training'], 'training row')}. Its loss is measured after each of {parts} on "
        f"{plural(chosen['validation'], 'validation row')}: training rows that are set aside for the search. "
        f"No trial sees the held-out rows. {equal}"
    )
    if found["objective"]["task"] is not None:
        side = "highest" if found["objective"]["higher_is_better"] else "lowest"
        text += (
            f" The search looks for the {side} value of “{objective_name(found)}”, which is scored at the end of "
            f"a trial on {plural(chosen['items'], 'item')} that the final scores do not use; trials are pruned by "
            "their validation loss."
        )
    if "method" in settings["parameters"]:
        text += " A setting that a trial’s method does not have is not drawn."
    return text


def search_outcome(found: dict[str, Any]) -> str:
    """How the trials ended, and what pruning saved."""
    ended = listed([f"{count} {TRIAL_OUTCOMES[name]}" for name, count in found["outcomes"].items()])
    text = f"{ended.capitalize()}, in {duration(found['trial_seconds'])} of training."
    if found["settings"]["pruner"] is None or found["steps_saved"] is None:
        return text
    made = f"{whole(found['steps'])} of {whole(found['steps_in_full'])} were made"
    saved = f"{found['steps_saved']:.0%} of the updates that these trials would have made"
    return f"{text} Pruning saved {saved} ({made})."


def search_path_text(found: dict[str, Any]) -> str:
    """What the figure of the search's path shows."""
    line = "The line is the best complete trial so far."
    if found["objective"]["task"] is None:
        return f"The search’s path. Each dot is a trial: filled if complete, hollow if it ended early. {line}"
    return f"The search’s path. Each dot is a complete trial; pruned trials were not scored. {line}"


def search_caveats(found: dict[str, Any]) -> list[str]:
    """How much of the result is due to the search itself."""
    trials, modelled = len(found["rows"]), found["modelled"]
    drawn = (
        f"The sampler had a model of the space for {modelled} of {plural(trials, 'trial')}; it "
        "drew the others at random."
    )
    if modelled < trials / 2:
        drawn += " Read this as a random search."
    best = found["best"]
    if best is None:
        return [drawn, "No trial completed, so there is no winner."]
    place = "the best" if best["place_at_first"] == 1 else f"number {best['place_at_first']}"
    first = _beside_median(found["median_first_loss"], best["first_loss"])
    measured = plural(best["measured"], "trial")
    return [
        drawn,
        f"At the first measurement, which {measured} reached, the later winner was {place} of them, {first}.",
        _best_of_many(found),
        "Short trials favour high learning rates, because their loss falls fastest at first. All trials have one seed.",
    ]


def _best_of_many(found: dict[str, Any]) -> str:
    """The winner's value as the extreme of many, and what the page claims from instead."""
    best, chosen, complete = found["best"], found["chosen_on"], found["outcomes"]["complete"]
    side, rows = "lowest", plural(chosen["validation"], "validation row")
    if found["objective"]["higher_is_better"]:
        side = "highest"
    if found["objective"]["task"] is not None:
        rows = f"{plural(chosen['items'], 'item')} that the final scores do not use"
    text = f"The winner’s {objective_name(found)} was {number(best['value'], 4)}, on {rows}."
    if complete > 1:
        text = f"{text.removesuffix('.')}: the {side} of {plural(complete, 'complete trial')}"
        if found["median_complete_value"] is not None:
            text += f", {_beside_median(found['median_complete_value'], best['value'])}"
        text += f". The {side} of several values owes part of its lead to chance."
    return (
        f"{text} No finding of this page uses it: what counts is the winner’s own run, trained on all training rows "
        "at the full budget and scored on rows and items that the search never saw."
    )


def _beside_median(median: float, loss: float) -> str:
    side = "under" if loss <= median else "over"
    return f"{number(abs(median - loss), 2)} {side} the median"


def edge_remarks(found: dict[str, Any]) -> list[str]:
    """A sentence per parameter whose best value is at an end of its range."""
    if found["best"] is None:
        return []
    lines = []
    for name, values in found["settings"]["parameters"].items():
        if "choices" in values or values["low"] == values["high"] or name not in found["best"]["point"]:
            continue
        place = coordinate(values, found["best"]["point"][name])
        if place < EDGE or place > 1 - EDGE:
            end = "low" if place < EDGE else "high"
            lines.append(
                f"The best {axis_name(name)} is at the {end} end of its range: a better one may be outside it."
            )
    return lines


def importance_basis(found: dict[str, Any], evaluations: int) -> str:
    """What the shares of importance are computed from.

    `found`: as `loragrid.searching.search_result.importance` returns it.
    """
    trials = plural(found["trials"], "trial")
    if found["shares"] is None:
        return f"With {trials} to compare, nothing can be said about which setting mattered in the search."
    text = f"By fANOVA over the {found['trials']} complete trials; pruned trials have no final value and are left out."
    if found["at"] == "first":
        measurements = plural(evaluations, "measurement")
        text = (
            f"By fANOVA over the losses of {trials} at the first of {measurements}, because "
            "pruning left too few final losses: this is what mattered early."
        )
    if found["left_out"]:
        names = listed([axis_name(name) for name in found["left_out"]])
        text += f" Without {names}, which not every trial has."
    # fANOVA knows nothing of the luck of a seed.
    text += " All trials have one seed: a share may be partly its luck."
    if found["trials"] < FEW_TRIALS:
        text += " With so few trials, take it as a hint."
    return text
