"""What a search came to: its trials as rows, the best with its neighbours, and how much the search itself had to do with it."""

import math
import statistics
from typing import TYPE_CHECKING, Any

from loragrid.searching.search import MOST_KILLS, Search, is_settled, kills
from loragrid.study.search_space import distance, readable

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

NEIGHBOURS = 3
# Under so few trials neither a median nor a forest of regression trees over the parameters tells anything.
FEWEST_TRIALS = 5
FACTS = ("outcome", "reason", "bracket", "modelled", "steps", "planned_steps", "samples", "tokens", "seconds", "worker")


def trial_rows(search: Search) -> list[dict[str, Any]]:
    """One dict per slot: the trial that counts (the last of the slot), its parameters under `point`, and its `curve`."""
    return [_row(slot, trials, search.space) for slot, trials in enumerate(search.by_slot()[: search.tune.trials])]


def _row(slot: int, trials: list["FrozenTrial"], space: dict[str, dict[str, Any]]) -> dict[str, Any]:
    last = trials[-1] if trials else None
    told = last.user_attrs if last else {}
    row: dict[str, Any] = {"slot": slot, "number": last.number if last else None, "point": {}}
    if last and last.params.keys() == space.keys():
        row["point"] = readable(last.params, space)
    row |= {key: told.get(key) for key in FACTS}
    row |= {"loss": told.get("loss"), "curve": told.get("curve", []), "attempts": len(trials)}
    if not is_settled(trials):
        row["outcome"], row["reason"] = "open", told.get("outcome")
    elif kills(trials) >= MOST_KILLS and row["outcome"] is None:
        row["outcome"], row["reason"] = "failed", f"its worker was killed {MOST_KILLS} times"
    return row


def findings(rows: list[dict[str, Any]], space: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Counts, the best trial with its neighbours, medians (at the end only of enough trials), and the steps saved."""
    complete = sorted((row for row in rows if row["outcome"] == "complete"), key=lambda row: (row["loss"], row["slot"]))
    measured = [row for row in rows if row["curve"]]
    begun = [row for row in rows if row["planned_steps"]]
    # A trial that diverged or failed was cut short too, but not by the pruner.
    judged = [row for row in begun if row["outcome"] in ("complete", "pruned")]
    planned = sum(row["planned_steps"] for row in judged)
    outcomes = [row["outcome"] for row in rows]
    return {
        "outcomes": {name: outcomes.count(name) for name in sorted(set(outcomes))},
        "modelled": sum(bool(row["modelled"]) for row in rows),
        "steps": sum(row["steps"] for row in begun),
        "steps_in_full": planned,
        "steps_saved": 1 - sum(row["steps"] for row in judged) / planned if planned else None,
        "trial_seconds": sum(row["seconds"] for row in begun),
        "best": _best(complete[0], measured, space) if complete else None,
        "median_complete_loss": statistics.median(row["loss"] for row in complete)
        if len(complete) >= FEWEST_TRIALS
        else None,
        "median_first_loss": statistics.median(row["curve"][0][3] for row in measured) if measured else None,
    }


def _best(best: dict[str, Any], measured: list[dict[str, Any]], space: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The best trial, its place at the first measurement (which all trials have), and the trials nearest to it."""
    first = best["curve"][0][3]
    others = [row for row in measured if row["slot"] != best["slot"]]
    near = sorted(others, key=lambda row: (distance(space, best["point"], row["point"]), row["slot"]))[:NEIGHBOURS]
    return {
        "slot": best["slot"],
        "point": best["point"],
        "loss": best["loss"],
        "first_loss": first,
        "place_at_first": 1 + sum(row["curve"][0][3] < first for row in others),
        "measured": len(measured),
        "neighbours": [_neighbour(best, row, space) for row in near],
    }


def _neighbour(best: dict[str, Any], row: dict[str, Any], space: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A trial near the best, with both losses at the last measurement that both have."""
    at_best = {part: loss for part, _, _, loss in best["curve"]}
    shared = [(part, loss) for part, _, _, loss in row["curve"] if part in at_best]
    part, loss = shared[-1] if shared else (None, None)
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
    """Share of the variance of trials' losses that each parameter explains (fANOVA, Hutter et al. 2014).

    {"at", "trials", "shares"}: "end" for the final losses of complete trials or, where pruning left too few of these, "first"
    for the losses at the first measurement, which pruned trials have too; the number of trials; parameter → share, None where
    there are too few to say.
    """
    import optuna
    from optuna.importance import FanovaImportanceEvaluator

    at, losses = _losses_told(search)
    told = {"at": at, "trials": len(losses)}
    if len(losses) < FEWEST_TRIALS or len({loss for _, loss in losses}) < 2:
        return told | {"shares": None}
    study = optuna.create_study(direction="minimize")
    for trial, loss in losses:
        study.add_trial(optuna.create_trial(params=trial.params, distributions=trial.distributions, value=loss))
    evaluator = FanovaImportanceEvaluator(seed=search.tune.seed % 2**32)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return told | {"shares": dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))}


def _losses_told(search: Search) -> tuple[str, list[tuple["FrozenTrial", float]]]:
    """The trials that count with the losses to compare them by: final ones where there are enough, else the first ones."""
    from optuna.trial import TrialState

    counting = [trials[-1] for trials in search.by_slot()[: search.tune.trials] if trials]
    complete = [(trial, trial.value) for trial in counting if trial.state == TrialState.COMPLETE]
    if len(complete) >= FEWEST_TRIALS:
        return "end", complete
    first = [(trial, trial.intermediate_values.get(1, math.nan)) for trial in counting]
    return "first", [(trial, loss) for trial, loss in first if math.isfinite(loss)]
