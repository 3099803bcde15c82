"""What compare works on: a study's results from disk, and the form of the judged comparisons."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from loragrid.comparing.item_tables import LOSS_BY_BYTE, ItemTable, load_items
from loragrid.comparing.measures import Measure, Spreads
from loragrid.comparing.terms import Terms
from loragrid.records.outcomes import Outcome, collect, data_cards
from loragrid.study.study_file import Study

# Version of compare.json's layout; the report refuses another one.
SCHEMA = 4


@dataclass(frozen=True)
class StudyResults:
    """A study's results.

    `folder` is where they are, `outcomes` those of every run and base, `tables` the items by task,
    `loss_by_byte` those of the held-out loss in bits per byte, and `heldout` maps a data id to the
    fingerprint of its held-out tokens.
    """

    study: Study
    folder: Path
    outcomes: list[Outcome]
    tables: dict[str, ItemTable]
    heldout: dict[str, str]
    loss_by_byte: ItemTable | None = None

    @property
    def target(self) -> str | None:
        """The main target task: the first that is a score, else the first, else None."""
        targets = [table for table in self.tables.values() if table.group == "target"]
        scores = [table for table in targets if table.unit == "share"]
        return (scores or targets)[0].task if targets else None


@dataclass(frozen=True)
class JudgedTables:
    """All comparisons of a study with their verdicts.

    `comparisons`: settings with their bases; `axes`: axis values with the base case's; `controls`:
    bases in two precisions. `families`: level → family → number of tests that were corrected together.
    `terms` are those that the comparisons were made with.
    """

    comparisons: pd.DataFrame
    axes: pd.DataFrame
    controls: pd.DataFrame
    families: dict[str, dict[str, int]]
    measures: list[Measure]
    spreads: Spreads
    terms: Terms


def read_results(study: Study, folder: Path) -> StudyResults:
    """A study's results, as far as they exist.

    Raises `UserError` when an items file cannot be read.
    """
    outcomes = collect(study, folder)
    cards = data_cards(study, folder).items()
    heldout = {data: card["heldout_fingerprint"] for data, card in cards if card.get("heldout_fingerprint")}
    along = [part for outcome in outcomes for part in outcome.along]
    tables = load_items(folder, [*outcomes, *along])
    loss_by_byte = tables.pop(LOSS_BY_BYTE, None)
    return StudyResults(study, folder, outcomes, tables, heldout, loss_by_byte)
