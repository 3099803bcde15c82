"""The search's sentences: how trials were made, how they ended, and how far the result can be trusted."""

from typing import Any

from loragrid.formatting import duration, listed, number, plural, setting, whole
from loragrid.study.search_space import coordinate
from loragrid.study.sections import Budget

PARAMETER_NAMES = {
    "learning_rate": "learning rate",
    "warmup_steps": "warm-up steps",
    "weight_decay": "weight decay",
    "batch": "batch",
    "accumulation": "accumulation",
    "rank": "rank",
    "alpha_per_rank": "alpha per rank",
}
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


def parameter_name(parameter: str) -> str:
    """A searched parameter as words."""
    return PARAMETER_NAMES[parameter]


def parameter_value(value: float) -> str:
    """A parameter's value, short."""
    if isinstance(value, int):
        return str(value)
    if value == 0:
        return "0"
    return setting(value)


def point_text(point: dict[str, Any]) -> str:
    """A trial's settings, listed."""
    parts = [f"{parameter_name(key)} {parameter_value(value)}" for key, value in point.items()]
    return ", ".join(parts)


def search_setup(grid_budget: Budget, found: dict[str, Any]) -> str:
    """How trials train, how they are measured, and at what they are compared."""
    settings = found["settings"]
    unit, amount = next(iter(settings["budget"].items()))
    names = listed([parameter_name(name) for name in settings["parameters"]])
    rows = "all held-out rows"
    if settings["heldout_rows"] is not None:
        rows = plural(settings["heldout_rows"], "held-out row")
    equal = f"Trials have equal {unit}, not equal tokens: a trial with a larger batch has seen more text."
    if unit == "tokens":
        equal = "Trials are compared at equal tokens."
    trials, parts = plural(settings["trials"], "trial"), plural(settings["evaluations"], "equal part")
    return (
        f"{trials} over {names}. Each trains for {whole(amount)} {unit} (a run of the grid: "
        f"{whole(grid_budget.amount)} {grid_budget.unit}) with the grid’s data and code. Its "
        f"held-out loss is measured on {rows} after each of {parts}. {equal}"
    )


def search_outcome(found: dict[str, Any]) -> str:
    """How the trials ended, and what pruning saved."""
    ended = listed([f"{count} {TRIAL_OUTCOMES[name]}" for name, count in found["outcomes"].items()])
    text = f"{ended.capitalize()}, in {duration(found['trial_seconds'])} of training."
    if found["settings"]["pruner"] is None or found["steps_saved"] is None:
        return text
    made = f"{whole(found['steps'])} of {whole(found['steps_in_full'])} were made"
    saved = f"{found['steps_saved']:.0%} of the updates that these trials would have made"
    return f"{text} Pruning saved {saved} ({made})."


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
    complete = plural(found["outcomes"]["complete"], "complete trial")
    final = f"the best of {complete}"
    if found["median_complete_loss"] is not None:
        final = f"{_beside_median(found['median_complete_loss'], best['loss'])} of {complete}"
    measured = plural(best["measured"], "trial")
    return [
        drawn,
        f"At the first measurement, which {measured} reached, the later winner was {place} of "
        f"them, {first}. Its final loss was {number(best['loss'], 4)}, {final}.",
        "Short trials favour high learning rates, because their loss falls fastest at first. The "
        "winner was chosen by its loss on held-out rows, so that loss is a little too good. Its "
        "run at the full budget is the test that counts.",
    ]


def _beside_median(median: float, loss: float) -> str:
    side = "under" if loss <= median else "over"
    return f"{number(abs(median - loss), 2)} {side} the median"


def edge_remarks(found: dict[str, Any]) -> list[str]:
    """A sentence per parameter whose best value is at an end of its range."""
    if found["best"] is None:
        return []
    lines = []
    for name, values in found["settings"]["parameters"].items():
        if "choices" in values or values["low"] == values["high"]:
            continue
        place = coordinate(values, found["best"]["point"][name])
        if place < EDGE or place > 1 - EDGE:
            end = "low" if place < EDGE else "high"
            lines.append(
                f"The best {parameter_name(name)} is at the {end} end of its range: a better one may be outside it."
            )
    return lines


def importance_basis(found: dict[str, Any], evaluations: int) -> str:
    """What the shares of importance are computed from.

    `found`: as `loragrid.searching.search_result.importance` returns it.
    """
    trials = plural(found["trials"], "trial")
    if found["shares"] is None:
        return f"With {trials} to compare, nothing can be said about which setting mattered in the search."
    text = f"By fANOVA over the {found['trials']} complete trials; pruned trials have no final loss and are left out."
    if found["at"] == "first":
        measurements = plural(evaluations, "measurement")
        text = (
            f"By fANOVA over the losses of {trials} at the first of {measurements}, because "
            "pruning left too few final losses: this is what mattered early."
        )
    if found["trials"] < FEW_TRIALS:
        text += " With so few trials, take it as a hint."
    return text
