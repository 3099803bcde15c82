"""A proposed study in a few lines: what it holds, what it takes, what differences it can find, and how to run it."""

import math
from collections.abc import Iterator
from functools import cache

from loragrid.formatting import listed, plural
from loragrid.planning.design_power_rows import design_power
from loragrid.planning.design_texts import design_rows
from loragrid.planning.plan_texts import hours
from loragrid.planning.planned_comparisons import planned_contrasts, smallest_difference
from loragrid.proposing.costs import Costs
from loragrid.proposing.proposal import Proposal, rate_text
from loragrid.statistics.design_power import Design, NoiseVariances

# ASSUME: as shares of the loss, the difference of two settings varies between rows by 8 %, a run between seeds by 2 %,
# and a row between seeds by 3 % (standard deviations; about what learning rates of the demo's study do).
ROW_SD, SEED_SD, ROW_SEED_SD = 0.08, 0.02, 0.03


def plan_lines(proposal: Proposal, costs: Costs) -> list[str]:
    """What a user reads before starting the study."""
    what = "learning rate" if len(proposal.learning_rates) == 1 else "learning rates"
    rates = listed([rate_text(rate) for rate in proposal.learning_rates])
    study, device = costs.study, costs.device
    where = f"a {device.name}" if device.kind == "cuda" else f"this CPU ({device.name})"
    lines = [
        f"{plural(len(study.cells), 'run')}: {what} {rates}, "
        f"each with seeds {listed([str(seed) for seed in proposal.seeds])}; {plural(costs.updates, 'update')} a run",
        f"Takes about {hours(costs.hours)} on {where}, one job at a time, and {costs.peak_mib:,} MiB of memory",
        f"  by {costs.rows[0]['train_from']}",
        *(f"Can find: {line}" for line in _differences(costs)),
    ]
    if proposal.left_out:
        lines.append(f"Left out: {proposal.left_out}")
    return lines


def _differences(costs: Costs) -> Iterator[str]:
    found = _smallest_of_loss(costs)
    if found is None:
        yield "nothing about a setting: with one seed each a difference may be the seed's"
        return
    loss, noise = "of the held-out loss", "assumed: the loss of a row varies as in the demo"
    yield f"a difference between two settings of {found:.1%} {loss}, with a probability of 0.8 ({noise})"
    design = design_power(costs.study, costs.results)
    for name, _, items, _, from_base, between in design_rows(design):
        yield f"on {name} ({items} items) {between} points between two settings, {from_base} from the base"


def _smallest_of_loss(costs: Costs) -> float | None:
    """The smallest difference of the held-out loss between two settings that is found, as a share of the loss."""
    study = costs.study
    contrasts = planned_contrasts(study)
    between = contrasts.between_settings or contrasts.versus_base
    if not between:
        return None
    seeds = between[0].seeds
    others = tuple(contrasts.seeds)[len(seeds) :]
    design = Design(
        items=study.heldout.rows, seeds=seeds, other_seeds=others, level=study.compare.alpha / max(1, len(contrasts))
    )
    found = smallest_difference(design, _noise(), power=study.compare.power)
    return None if math.isnan(found) else found


@cache
def _noise() -> NoiseVariances:
    return NoiseVariances(ROW_SD**2, SEED_SD**2, ROW_SEED_SD**2)
