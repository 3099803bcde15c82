"""Are the promises of `snakemake next` kept? Made-up studies with known effects, carried out as it says.

    python -m benchmarks.truth_next [--studies 40] [--world NAME] [--out FILE.json]

A study has a base case and seven departures, a target and two retention tasks. Its open questions get
options with chances; options are carried out by drawing the runs and items that they add, and judged by the
code that judges real studies. Compared with these outcomes: the chances, by how high they are. In worlds
without effects, the false verdicts before and after: adding seeds where an answer is open is a second look
at it. Every share is printed with its Monte-Carlo standard error; outcomes of one study count as one.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import RESULTS, write
from loragrid.deciding.compared_results import ComparedResults
from loragrid.deciding.next_steps import NextSteps, find_next_steps
from loragrid.deciding.options import Option
from loragrid.deciding.proposal import propose
from loragrid.deciding.questions import AXIS, GAIN, RETENTION
from loragrid.statistics.paired_statistics import BETTER, WORSE
from loragrid.study.study_file import Study
from tests.fixtures import synthetic
from tests.fixtures.drawn_studies import Truth, carried_out, closes, compared_results

Effect = Callable[[np.random.Generator], float]
# Options of a study that are carried out beside the proposed one, drawn at random.
OTHERS = 3
BOUNDS = (0.0, 0.25, 0.5, 0.75, 1.0)
PROMISED = 0.75


@dataclass(frozen=True)
class World:
    """Studies of one kind: how a departure's gain differs from the base case's, and their design."""

    effect: Effect
    seeds: tuple[int, ...] = (1, 2)
    case_seeds: tuple[int, ...] = (3,)
    items: int = 400
    sd: float = 0.03
    null: bool = False


WORLDS: dict[str, World] = {
    "effects of SD 5 points": World(lambda rng: rng.normal(0, 0.05)),
    "few large effects, the rest within 1 point": World(
        lambda rng: rng.normal(0, 0.01) + (rng.random() < 0.3) * rng.choice([-0.2, -0.1, 0.1])
    ),
    "every departure 8 points better": World(lambda rng: 0.08),
    "no effect": World(lambda rng: 0.0, null=True),
    "effects of SD 5 points, one seed": World(lambda rng: rng.normal(0, 0.05), seeds=(1,), case_seeds=()),
    "effects of SD 5 points, 100 items, seeds of SD 5": World(lambda rng: rng.normal(0, 0.05), items=100, sd=0.05),
    "effects of SD 3 points, 3 seeds, 1000 items": World(lambda rng: rng.normal(0, 0.03), seeds=(1, 2, 3), items=1000),
}


@dataclass
class Outcomes:
    """What was promised and what came of it, per study; and false verdicts on axes before and after."""

    promised: list[list[tuple[float, bool]]] = field(default_factory=list)
    proposed: list[list[tuple[float, bool]]] = field(default_factory=list)
    false_before: list[bool] = field(default_factory=list)
    false_after: list[bool] = field(default_factory=list)


def made_study(world: World, folder: Path) -> Study:
    """The study file of a world."""
    axes = {"learning_rate": [0.003, 0.01, 0.03], "rank": [4, 8, 16, 32, 64], "batch": [[2, 4], [4, 8]]}
    grid = {"axes": axes | {"model": None, "seed": list(world.seeds)}, "base_case_seeds": list(world.case_seeds)}
    scoring = {"target": ["running_plan"], "retention": ["world_facts", "world_sums"], "limit": world.items}
    return synthetic.make_study(folder, grid=grid, scoring=scoring)


def play(world: World, studies: int) -> Outcomes:
    """Draw studies, ask what would decide them, carry it out, and compare."""
    outcomes = Outcomes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = made_study(world, folder)
        for number in range(studies):
            _play_once(world, study, folder, number, outcomes)
    return outcomes


def _play_once(world: World, study: Study, folder: Path, number: int, outcomes: Outcomes) -> None:
    rng = np.random.default_rng(number)
    arms = compared_arms(study)
    gains = {arm: 0.15 + (world.effect(rng) if arm else 0.0) for arm in arms}
    losses = {arm: abs(rng.normal(0, 0.03)) for arm in arms}
    truth = Truth(1000 + number, gains, losses, world.sd)
    compared = compared_results(study, truth)
    steps = find_next_steps(compared)
    proposal = propose(steps.maker, steps.ways, None)
    outcomes.false_before.append(false_verdict(compared))
    others = min(OTHERS, len(steps.options))
    drawn = [steps.options[place] for place in rng.choice(len(steps.options), others, replace=False)]
    found = [
        pair for option in drawn for pair in _outcome(steps, option, carried_out(steps, option.change, truth, folder))
    ]
    after = compared
    if proposal is not None:
        after = carried_out(steps, proposal.change, truth, folder)
        outcomes.proposed.append(_outcome(steps, proposal, after))
        found += outcomes.proposed[-1]
    outcomes.promised.append(found)
    outcomes.false_after.append(false_verdict(after))


def compared_arms(study: Study) -> list[Any]:
    """What departs in each arm of a study, the base case first."""
    from loragrid.study.cell_pairs import place_of

    return list(dict.fromkeys(place_of(cell.arm) for cell in study.cells))


def _outcome(steps: NextSteps, option: Option, after: ComparedResults) -> list[tuple[float, bool]]:
    """(chance, closed) of every question that an option concerns and that is asked again afterwards."""
    questions = {question.name: question for question, _ in steps.ways}
    kinds = (AXIS, GAIN, RETENTION)
    return [
        (chance, closes(after, questions[name]))
        for name, chance in option.chances.items()
        if questions[name].kind in kinds
    ]


def false_verdict(compared: ComparedResults) -> bool:
    """Whether any value of an axis is called better or worse; false where there is no effect."""
    rows = compared.axes[compared.axes["task"] == compared.target]
    return bool(rows["verdict"].isin([BETTER, WORSE]).any())


def lines(name: str, world: World, outcomes: Outcomes) -> Iterator[dict[str, Any]]:
    """The shares of one world, each with its Monte-Carlo error."""
    for low, high in pairwise(BOUNDS):
        yield share(f"{name}: chance {100 * low:.0f} to {100 * high:.0f} %", outcomes.promised, low, high)
    yield share(f"{name}: all chances", outcomes.promised, 0, 1)
    yield share(f"{name}: promised 75 % or more, any option", outcomes.promised, PROMISED, 1)
    yield share(f"{name}: promised 75 % or more, proposed step", outcomes.proposed, PROMISED, 1)
    if world.null:
        for when, hits in (("before", outcomes.false_before), ("after the proposed step", outcomes.false_after)):
            error = float(np.std(hits) / len(hits) ** 0.5)
            yield {"what": f"{name}: a false verdict on an axis, {when}", "predicted": 0.05, "found": float(np.mean(hits)), "error": error, "count": len(hits)}  # fmt: skip


def share(what: str, studies: list[list[tuple[float, bool]]], low: float, high: float) -> dict[str, Any]:
    """Mean chance and share closed among chances from `low` to `high`; the error is that between studies."""
    kept = [[(c, hit) for c, hit in study if low <= c < high or c == high == 1] for study in studies]
    kept = [np.array(study, dtype=float) for study in kept if study]
    if not kept:
        return {"what": what, "predicted": float("nan"), "found": float("nan"), "error": float("nan"), "count": 0}
    count = sum(map(len, kept))
    predicted, found = np.concatenate(kept).mean(axis=0)
    # A ratio over studies: questions of one study share its seeds and items.
    residuals = [study[:, 1].sum() - found * len(study) for study in kept]
    return {
        "what": what,
        "predicted": float(predicted),
        "found": float(found),
        "error": float(np.sqrt(np.sum(np.square(residuals))) / count),
        "count": count,
    }


def main() -> None:
    """Print every share, and write them with the machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=40, help="made-up studies per world (default: 40)")
    parser.add_argument("--world", choices=WORLDS, action="append", help="only this world; may be repeated")
    parser.add_argument("--out", type=Path, default=RESULTS / "truth_next.json")
    options = parser.parse_args()
    found = []
    for name in options.world or WORLDS:
        for line in lines(name, WORLDS[name], play(WORLDS[name], options.studies)):
            print(
                f"{line['what']:<82} predicted {100 * line['predicted']:5.1f} %  "
                f"found {100 * line['found']:5.1f} % ± {100 * line['error']:.1f}  (n={line['count']})",
                flush=True,
            )
            found.append(line)
    write(options.out, {"benchmark": "truth_next", "studies": options.studies, "shares": found})


if __name__ == "__main__":
    main()
