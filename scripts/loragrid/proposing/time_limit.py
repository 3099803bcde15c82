"""A proposal cut to the hours that its user has: fewer tokens, less that is measured, and only then fewer seeds."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from loragrid.planning.plan_texts import hours
from loragrid.proposing.costs import costs_of
from loragrid.proposing.proposal import Proposal

# ASSUME: what a user waits for without asking: a first page within ten minutes on a CPU, where the plan may be wrong by
# a fifth; a working day on a GPU.
USUAL_HOURS = {"cpu": 8 / 60, "cuda": 8.0}
LONGER_HOURS = 2.0  # what the wizard offers besides a first page
FEWEST_UPDATES = 20
USUAL_EVALUATIONS = 10  # the default of the study file


def fit_hours(proposal: Proposal, limit: float, *, results: Path) -> Proposal:
    """The proposal with as much training as `limit` hours allow; as little as is useful if not even that fits."""
    found, least = None, proposal
    for least in _less_measured(proposal):
        found = _fitted(least, limit, results) or found
        if found is not None and _mostly_trains(found):
            return found
    least = _fewer_runs(least)
    found = found or _fitted(least, limit, results)
    if found is not None:
        return found
    few = _with_fewest(least)
    return replace(few, left_out=f"{_left_out(few)} It still takes longer than the {hours(limit)} asked for.")


def _fitted(proposal: Proposal, limit: float, results: Path) -> Proposal | None:
    """The proposal with the largest budget that fits; None if the fewest updates do not."""
    whole = costs_of(proposal, results).hours
    if whole <= limit:
        return proposal
    few = _with_fewest(proposal)
    few_hours = costs_of(few, results).hours
    if few_hours > limit:
        return None
    return _largest_that_fits(proposal, (few, few_hours), whole, limit)


def _with_fewest(proposal: Proposal) -> Proposal:
    fewest = FEWEST_UPDATES * proposal.rows_per_update * proposal.row_tokens
    return _with_tokens(proposal, min(fewest, _budget_tokens(proposal)))


def _mostly_trains(proposal: Proposal) -> bool:
    """Whether measuring the held-out loss takes less time than training: a token of it takes a third as long."""
    measured = (1 + proposal.run.get("evaluations", USUAL_EVALUATIONS)) * proposal.heldout_rows * proposal.row_tokens
    return measured <= 3 * _budget_tokens(proposal)


def _largest_that_fits(
    proposal: Proposal, fewest: tuple[Proposal, float], whole_hours: float, limit: float
) -> Proposal:
    """Between the fewest tokens and the whole budget hours grow with the tokens."""
    few, few_hours = fewest
    least, most = few.run["budget"]["tokens"], _budget_tokens(proposal)
    tokens = least + (most - least) * (limit - few_hours) / (whole_hours - few_hours)
    found = _with_tokens(proposal, tokens)
    return replace(found, left_out=_left_out(found))


def _less_measured(proposal: Proposal) -> Iterator[Proposal]:
    """The proposal, and with less and less that is measured."""
    yield proposal
    proposal = replace(proposal, run=dict(proposal.run) | {"evaluations": 4})
    yield proposal
    for rows in (100, 50):
        if proposal.heldout_rows > rows:
            more = proposal.train_rows + proposal.heldout_rows - rows
            notes = dict(proposal.notes) | {"heldout": f"few, to save time; {more:,} rows are left for training"}
            proposal = replace(proposal, heldout_rows=rows, train_rows=more, notes=notes)
            yield proposal
    if proposal.retention:
        notes = dict(proposal.notes) | {"retention": f"left out to save time: {', '.join(proposal.retention)}"}
        proposal = replace(proposal, retention=(), notes=notes)
        yield proposal
    yield replace(proposal, run=dict(proposal.run) | {"evaluations": 2})


def _fewer_runs(proposal: Proposal) -> Proposal:
    """One learning rate if the user named none, since two seeds find hardly any difference; else two seeds."""
    if not proposal.rates_asked:
        notes = dict(proposal.notes) | {"learning_rate": "one, to save time; set LR to compare several"}
        left_out = "Other learning rates, to save time."
        return replace(proposal, learning_rates=(proposal.base_rate,), notes=notes, left_out=left_out)
    notes = dict(proposal.notes) | {"seeds": "two, to save time: three find smaller differences"}
    return replace(proposal, seeds=proposal.seeds[:2], notes=notes)


def _with_tokens(proposal: Proposal, tokens: float) -> Proposal:
    digits = 10 ** max(0, math.floor(math.log10(tokens)) - 1)
    return replace(proposal, run=dict(proposal.run) | {"budget": {"tokens": int(tokens // digits * digits)}})


def _budget_tokens(proposal: Proposal) -> float:
    if "tokens" in proposal.run["budget"]:
        return proposal.run["budget"]["tokens"]
    return proposal.run["budget"]["epochs"] * proposal.train_rows * proposal.row_tokens


def _left_out(proposal: Proposal) -> str:
    share = proposal.run["budget"]["tokens"] / (proposal.train_rows * proposal.row_tokens)
    trained = f"{share:.0%} of the training rows" if share < 1 else f"{share:.1f} passes over the training rows"
    what = "Longer training"
    if len(proposal.learning_rates) == 1 and not proposal.rates_asked:
        what += " and other learning rates"
    return f"{what}, to save time: each run sees {trained}."
