"""A proposed study in a few lines: its runs, time and memory, the differences that it can find, and how to run it."""

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

LARGEST_USEFUL = 0.3  # a difference of a third of the loss is seen without a test
# ASSUME: standard deviations as shares of the loss: of the difference of two settings between rows, of a run between
# seeds, and of a row between seeds. Between those of two studies that compared learning rates, the demo (0.08, 0.02 and
# 0.08) and one of 300 rows of questions and answers with the demo's base (0.01 each).
ROW_SD, SEED_SD, ROW_SEED_SD = 0.05, 0.01, 0.03


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
        f"  ({costs.rows[0]['train_from']})",
        *(f"Can find: {line}" for line in _differences(costs)),
    ]
    if proposal.left_out:
        lines.append(f"Left out: {proposal.left_out}")
    return lines


def longer_line(limit: float, costs: Costs) -> str:
    """A line on the study that more hours would allow."""
    runs, updates = plural(len(costs.study.cells), "run"), plural(costs.updates, "update")
    what = f"HOURS={limit:g} proposes {runs} of {updates}, about {hours(costs.hours)}"
    found, _ = _smallest_of_loss(costs)
    return what if found is None else f"{what}, which can find {_difference(costs)}"


def _differences(costs: Costs) -> Iterator[str]:
    found, _ = _smallest_of_loss(costs)
    if found is None:
        few = f"{len(costs.study.grid.axes['seed'])} seeds a setting are"
        if costs.study.heldout.rows == 1:
            few = "one held-out row is"
        yield f"no difference of the held-out loss: {few} too few"
        return
    noise = f"assumed: another seed moves the loss of a run by {SEED_SD:.0%}"
    yield f"{_difference(costs)}, with a probability of {costs.study.compare.power:g} ({noise})"
    design = design_power(costs.study, costs.results)
    for name, _, items, _, from_base, between in design_rows(design):
        yield f"on {name} ({items} items) {between} points between two settings, {from_base} from the base"


def _difference(costs: Costs) -> str:
    found, what = _smallest_of_loss(costs)
    return f"a difference {what} of {100 * found:.2g} % of the held-out loss"


def _smallest_of_loss(costs: Costs) -> tuple[float | None, str]:
    """The smallest difference of the held-out loss that is found, as a share of the loss, and between what.

    None if none is found. A single setting is compared with its base.
    """
    study = costs.study
    contrasts = planned_contrasts(study)
    what = "between two settings" if contrasts.between_settings else "from the base"
    seeds = (contrasts.between_settings or contrasts.versus_base)[0].seeds
    others = tuple(contrasts.seeds)[len(seeds) :]
    design = Design(
        items=study.heldout.rows, seeds=seeds, other_seeds=others, level=study.compare.alpha / max(1, len(contrasts))
    )
    found = smallest_difference(design, _noise(), power=study.compare.power, largest=LARGEST_USEFUL)
    return (None if math.isnan(found) else found), what


@cache
def _noise() -> NoiseVariances:
    return NoiseVariances(ROW_SD**2, SEED_SD**2, ROW_SEED_SD**2)
