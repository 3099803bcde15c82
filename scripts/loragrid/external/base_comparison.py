"""External runs' scores against their base's: which are compared, tested and corrected together."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loragrid.errors import UserError
from loragrid.external import seeds
from loragrid.external.comparability import equal_seeds, other_rows, refusals, training_differences
from loragrid.external.runs import ExternalResults, ExternalRun, ExternalScore, ScoreKey
from loragrid.external.score_tests import ALPHA, ScoreTest, score_test
from loragrid.external.seeds import Setting
from loragrid.statistics import paired_statistics
from loragrid.statistics.paired_statistics import UNSURE

BASE_NAME = re.compile(r"(^|[^a-z])(base|baseline|untrained|untuned|original|pretrained|vanilla)([^a-z]|$)")
# From so many differences on, the largest is named as the largest of many.
MANY_DIFFERENCES = 3


@dataclass(frozen=True)
class BaseComparison:
    """One score of a run or a setting beside its base's, or beside another setting's (`against`).

    `refused` says why the two cannot be compared. `test` is None without standard errors.
    `higher_is_better` is None if the direction is unknown; `verdict` is empty in all these cases.
    `detail_of` names the group of tasks, or the setting, that is judged in this row's place.
    `of_setting`: several seeds are pooled. `largest_of`: of how many differences this is the largest.
    """

    run: str
    key: ScoreKey
    base: ExternalScore
    score: ExternalScore
    higher_is_better: bool | None
    against: str = ""
    refused: tuple[str, ...] = ()
    test: ScoreTest | None = None
    detail_of: str = ""
    of_setting: bool = False
    p_corrected: float | None = None
    verdict: str = ""
    largest_of: int = 0

    @property
    def difference(self) -> float:
        """Score minus the base's score."""
        return self.score.value - self.base.value

    @property
    def improves(self) -> bool:
        """Whether the score moved in its better direction."""
        return (self.difference > 0) == self.higher_is_better

    @property
    def testable(self) -> bool:
        """Whether the comparison can get a verdict, and so counts as a test."""
        return self.test is not None and self.higher_is_better is not None


def find_base(results: ExternalResults, wanted: str | None) -> str | None:
    """The name of the untrained base, None if there is none.

    It is the run `wanted`, or else the only untrained run whose name says that it is a base.

    Raises `UserError` if no run is called `wanted`.
    """
    if wanted is not None:
        if wanted not in results.runs:
            names = ", ".join(sorted(results.runs))[:300]
            raise UserError(f"--base {wanted}: no run has this name. Fix: use one of {names}")
        return wanted
    # The name is not enough: a "base case" is a tuned run.
    named = [run.name for run in named_bases(results) if not run.trained()]
    return named[0] if len(named) == 1 else None


def named_bases(results: ExternalResults) -> list[ExternalRun]:
    """The runs whose names say that they are a base, trained or not."""
    return [run for name, run in results.runs.items() if BASE_NAME.search(name.lower())]


def compare_with_base(results: ExternalResults, base: str | None) -> list[BaseComparison]:
    """Every score against the base's, several seeds pooled, with p values corrected together.

    Without a base only settings with several seeds are compared, with each other.
    """
    others = [run for name, run in results.runs.items() if name != base]
    settings = seeds.settings_of(others)
    pooled = {run.name: setting.label for setting in settings for run in setting.runs}
    rows = []
    for setting in settings if base is not None else ():
        rows += _of_setting(results, setting, results.runs[base])
    rows += _between_settings(results, settings)
    for run in others if base is not None else ():
        rows += _of_run(results, run, results.runs[base], pooled.get(run.name, ""))
    return _mark_largest(_with_verdicts(rows), base)


def _of_run(results: ExternalResults, run: ExternalRun, base: ExternalRun, setting: str) -> Iterator[BaseComparison]:
    """A run's rows. One seed of a pooled `setting` is a detail and gets no test of its own."""
    parents = _parents(run, base)
    for key in run.scores:
        if key not in base.scores:
            continue
        refused = (*refusals(base, run, key), *other_rows(results, base, key))
        yield BaseComparison(
            run=run.name,
            key=key,
            base=base.scores[key],
            score=run.scores[key],
            higher_is_better=results.higher_is_better(key),
            against=base.name,
            refused=refused,
            test=None if refused or setting else score_test(base, run, key),
            detail_of=setting or parents.get(key, ""),
        )


def _of_setting(results: ExternalResults, setting: Setting, base: ExternalRun) -> Iterator[BaseComparison]:
    parents = _parents(setting.runs[0], base)
    for key in setting.runs[0].scores:
        if key not in base.scores or any(key not in run.scores for run in setting.runs):
            continue
        reasons = [reason for run in setting.runs for reason in refusals(base, run, key)]
        reasons += [*other_rows(results, base, key), *equal_seeds(setting.runs)]
        refused = tuple(dict.fromkeys(reasons))
        yield BaseComparison(
            run=setting.label,
            key=key,
            base=base.scores[key],
            score=ExternalScore(seeds.mean_score(setting.runs, key), None, setting.runs[0].scores[key].items),
            higher_is_better=results.higher_is_better(key),
            against=base.name,
            refused=refused,
            test=None if refused else seeds.against_base(setting, base, key),
            detail_of=parents.get(key, ""),
            of_setting=True,
        )


def _between_settings(results: ExternalResults, settings: Sequence[Setting]) -> Iterator[BaseComparison]:
    """Each setting against the first that differs from it in one thing only."""
    for place, setting in enumerate(settings):
        alike = [one for one in settings[:place] if len(seeds.differing_settings(one, setting)) == 1]
        for one in alike[:1]:
            first, second = one.runs[0], setting.runs[0]
            for key in second.scores:
                if any(key not in run.scores for run in (*one.runs, *setting.runs)):
                    continue
                refused = (*training_differences(first, second), *refusals(first, second, key))
                refused = tuple(dict.fromkeys(refused))
                yield BaseComparison(
                    run=setting.label,
                    key=key,
                    base=ExternalScore(seeds.mean_score(one.runs, key), None, None),
                    score=ExternalScore(seeds.mean_score(setting.runs, key), None, None),
                    higher_is_better=results.higher_is_better(key),
                    against=one.label,
                    refused=refused,
                    test=None if refused else seeds.between(one, setting, key),
                    detail_of=_parents(second, first).get(key, ""),
                    of_setting=True,
                )


def _parents(run: ExternalRun, base: ExternalRun) -> dict[ScoreKey, str]:
    """Score of a task → the topmost of the groups above it that both runs have a score of."""
    above = {task: group for group, tasks in run.groups.items() for task in tasks}
    scored = {task for task, _ in run.scores.keys() & base.scores.keys()}
    found = {}
    for task, metric in run.scores:
        group, seen = above.get(task), {task}
        while group is not None and group not in seen:
            if group in scored:
                found[task, metric] = group
            seen.add(group)
            group = above.get(group)
    return found


def _with_verdicts(rows: list[BaseComparison]) -> list[BaseComparison]:
    """The rows with verdicts by Holm's correction: groups and settings together, their parts after them."""
    judged = list(rows)
    _correct(judged, [place for place, row in enumerate(rows) if row.testable and not row.detail_of])
    families: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(rows):
        if row.testable and row.detail_of:
            families.setdefault((row.run, row.against, row.detail_of, row.key[1]), []).append(place)
    decided = {(row.run, row.against, *row.key) for row in judged if row.verdict not in ("", UNSURE)}
    for (run, against, group, metric), places in families.items():
        _correct(judged, places)
        # A part of a group without a difference has none either: the group was asked first.
        if (run, against, group, metric) not in decided:
            for place in places:
                judged[place] = replace(judged[place], verdict=UNSURE)
    return judged


def _correct(rows: list[BaseComparison], places: list[int]) -> None:
    """Set corrected p values and verdicts of one family of tests, in place."""
    if not places:
        return
    p = paired_statistics.corrected(np.array([rows[place].test.p for place in places]), method="holm")
    for place, value in zip(places, p):
        row = rows[place]
        improvement = row.difference if row.higher_is_better else -row.difference
        # A single trained model says nothing of another seed's.
        verdict = paired_statistics.verdict(improvement, float(value), ALPHA, of_setting=row.of_setting)
        rows[place] = replace(row, p_corrected=float(value), verdict=verdict)


def _mark_largest(rows: list[BaseComparison], base: str | None) -> list[BaseComparison]:
    """Mark the best difference of a score over many runs, which a repetition is likely to shrink."""
    marked = list(rows)
    # Settings and single runs, tested or not: those among which a reader picks the largest.
    settings = {row.run for row in rows if row.of_setting}
    compared = [row.against == base and not row.refused and row.detail_of not in settings for row in rows]
    ranked = [place for place, row in enumerate(rows) if compared[place] and row.higher_is_better is not None]
    for key in dict.fromkeys(rows[place].key for place in ranked):
        same = [place for place in ranked if rows[place].key == key]
        if len(same) >= MANY_DIFFERENCES:
            sign = 1 if rows[same[0]].higher_is_better else -1
            best = max(same, key=lambda place: sign * rows[place].difference)
            marked[best] = replace(rows[best], largest_of=len(same))
    return marked
