"""The result of a search: trials as rows, the best one, and the importance of parameters."""

import math
import statistics
from typing import TYPE_CHECKING, Any

from loragrid.searching.samplers import is_drawn
from loragrid.searching.search import Search
from loragrid.searching.trial_states import MAX_KILLS, is_settled, kills
from loragrid.study.search.search_space import Space, decoded, distance

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

NEIGHBOURS = 3
# With fewer trials neither a median nor a regression forest over the parameters means anything.
MIN_TRIALS = 5
FACTS = ("outcome", "reason", "bracket", "modelled", "steps", "planned_steps", "samples", "tokens", "seconds", "worker")


def trial_rows(search: Search) -> list[dict[str, Any]]:
    """One dict per slot, of its last trial: the setting (`point`), its `curve`, and `FACTS`."""
    return [_row(search, slot, trials) for slot, trials in enumerate(search.by_slot()[: search.tune.trials])]


def _row(search: Search, slot: int, trials: list["FrozenTrial"]) -> dict[str, Any]:
    row: dict[str, Any] = {"slot": slot, "number": None, "point": {}}
    facts: dict[str, Any] = {}
    if trials:
        last = trials[-1]
        facts, row["number"] = last.user_attrs, last.number
        # A worker may have been killed before Optuna had drawn all parameters.
        if is_drawn(last.params, search.space, search.method):
            row["point"] = decoded(last.params, search.space)
    row |= {key: facts.get(key) for key in FACTS}
    row |= {
        "value": facts.get("value"),
        "loss": facts.get("loss"),
        "curve": facts.get("curve", []),
        "attempts": len(trials),
    }
    if not is_settled(trials):
        row["outcome"], row["reason"] = "open", facts.get("outcome")
    elif kills(trials) >= MAX_KILLS and row["outcome"] is None:
        row["outcome"], row["reason"] = "failed", f"its worker was killed {MAX_KILLS} times"
    return row


def summarise_trials(rows: list[dict[str, Any]], space: Space, *, higher_is_better: bool = False) -> dict[str, Any]:
    """Counts of trials, the best one, medians, and the steps saved by pruning.

    `higher_is_better`: the direction of the objective, by whose value the best trial is chosen.
    """
    complete = [row for row in rows if row["outcome"] == "complete"]
    sign = -1 if higher_is_better else 1
    complete.sort(key=lambda row: (sign * row["value"], row["slot"]))
    measured = [row for row in rows if row["curve"]]
    begun = [row for row in rows if row["planned_steps"]]
    # Only these count for the steps saved: a diverged or failed trial was cut short too, but not by
    # the pruner.
    judged = [row for row in begun if row["outcome"] in ("complete", "pruned")]
    planned = sum(row["planned_steps"] for row in judged)
    outcomes = [row["outcome"] for row in rows]
    found: dict[str, Any] = {
        "outcomes": {name: outcomes.count(name) for name in sorted(set(outcomes))},
        "modelled": sum(bool(row["modelled"]) for row in rows),
        "steps": sum(row["steps"] for row in begun),
        "steps_in_full": planned,
        "steps_saved": None,
        "trial_seconds": sum(row["seconds"] for row in begun),
        "best": None,
        "median_complete_value": None,
        "median_first_loss": None,
    }
    if planned:
        found["steps_saved"] = 1 - sum(row["steps"] for row in judged) / planned
    if complete:
        found["best"] = _best(complete[0], measured, space)
    if len(complete) >= MIN_TRIALS:
        found["median_complete_value"] = statistics.median(row["value"] for row in complete)
    if measured:
        found["median_first_loss"] = statistics.median(row["curve"][0][3] for row in measured)
    return found


def _best(best: dict[str, Any], measured: list[dict[str, Any]], space: Space) -> dict[str, Any]:
    """The best trial, its rank at the first measurement, and the trials nearest to it."""
    first = best["curve"][0][3]
    others = [row for row in measured if row["slot"] != best["slot"]]
    # The slot breaks ties, so that the same search always names the same neighbours.
    near = sorted(others, key=lambda row: (distance(space, best["point"], row["point"]), row["slot"]))[:NEIGHBOURS]
    return {
        "slot": best["slot"],
        "point": best["point"],
        "value": best["value"],
        "loss": best["loss"],
        "first_loss": first,
        "place_at_first": 1 + sum(row["curve"][0][3] < first for row in others),
        "measured": len(measured),
        "neighbours": [_neighbour(best, row, space) for row in near],
    }


def _neighbour(best: dict[str, Any], row: dict[str, Any], space: Space) -> dict[str, Any]:
    """A trial near the best one, with the losses of both at the last measurement that both have."""
    at_best = {part: loss for part, _, _, loss in best["curve"]}
    part, loss = None, None
    for number, _, _, measured in row["curve"]:
        if number in at_best:
            part, loss = number, measured
    return {
        "slot": row["slot"],
        "point": row["point"],
        "distance": distance(space, best["point"], row["point"]),
        "outcome": row["outcome"],
        "part": part,
        "loss": loss,
        "best_loss_there": at_best.get(part),
    }


def importance(search: Search) -> dict[str, Any]:
    """Share of the results' variance that each setting explains (fANOVA, Hutter et al., 2014).

    Keys: `at`, "end" for the objective's values or "first" for the losses of the first measurement;
    `trials`, their number; `shares`, setting → share, or None if there are too few trials;
    `left_out`, settings that not all of these trials have.
    """
    import optuna
    from optuna.importance import FanovaImportanceEvaluator

    at, results = _comparable_results(search)
    found: dict[str, Any] = {"at": at, "trials": len(results), "shares": None, "left_out": []}
    # Equal results have no variance to explain.
    if len(results) < MIN_TRIALS or len({value for _, value in results}) < 2:
        return found
    shared = set(search.space).intersection(*(trial.params for trial, _ in results))
    found["left_out"] = [name for name in search.space if name not in shared]
    if not shared:
        return found
    # A study in memory: the evaluator takes final values only, and the search's own trials keep
    # theirs.
    study = optuna.create_study(direction="minimize")
    for trial, value in results:
        study.add_trial(optuna.create_trial(params=trial.params, distributions=trial.distributions, value=value))
    evaluator = FanovaImportanceEvaluator(seed=search.tune.seed % 2**32)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    found["shares"] = dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))
    return found


def _comparable_results(search: Search) -> tuple[str, list[tuple["FrozenTrial", float]]]:
    """The trials and their results to compare, and whether those are values or first losses.

    First losses, which all trials have, are used if pruning left too few complete trials.
    """
    from optuna.trial import TrialState

    counting = [trials[-1] for trials in search.by_slot()[: search.tune.trials] if trials]
    complete = [(trial, trial.value) for trial in counting if trial.state == TrialState.COMPLETE]
    if len(complete) >= MIN_TRIALS:
        return "end", complete
    # Part 1 is the first measurement; a trial that diverged before it has none.
    first = [(trial, trial.intermediate_values.get(1, math.nan)) for trial in counting]
    return "first", [(trial, loss) for trial, loss in first if math.isfinite(loss)]
