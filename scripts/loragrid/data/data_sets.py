"""The data sets of a study: sources, filters, mixes and sizes, without the held-out rows."""

from loragrid.data.heldout_rows import HeldoutRows, choose_heldout
from loragrid.data.row_sets import Part, RowSet, combine
from loragrid.data.source_scan import SourceScans
from loragrid.errors import UserError
from loragrid.runtime.atomic_files import sha256_json
from loragrid.study.identity import data_identity
from loragrid.study.sections import Filters
from loragrid.study.study_file import Study


class DataSets:
    """Rows of the data sets of one study, by their keys; no conversation is kept in memory."""

    def __init__(self, study: Study, scans: SourceScans) -> None:
        self.study, self.scans = study, scans
        self._filtered: dict[str, RowSet] = {}

    def heldout_rows(self) -> HeldoutRows:
        """The study's held-out rows.

        They are drawn from all rows of their set, so that sets which differ in `rows` alone share them.
        """
        heldout = self.study.heldout
        candidates = self._all_rows(heldout.set)
        return choose_heldout(candidates, rows=heldout.rows, seed=heldout.seed)

    def training_rows(self, name: str, heldout: HeldoutRows) -> RowSet:
        """The rows of a data set without those that are held out or linked to them.

        `rows` is taken of what is left. Raises `UserError` for a set without enough rows.
        """
        entry, seed = self.study.data[name], self.study.heldout.seed
        if entry.mix is None:
            rows = combine(name, [self._source_rows(name)], [1.0])
            heldout.remove_from(rows)
        else:
            names, weights = self._ingredients(name)
            rows = combine(name, [self.training_rows(part, heldout) for part in names], weights)
            _clean(rows, entry.filters)
            self._check_parts(rows)
        rows.sample(entry.rows, seed=seed)
        return rows

    def _all_rows(self, name: str) -> RowSet:
        """The rows of a data set whatever its `rows`; a mix has as many as its weights allow."""
        entry = self.study.data[name]
        if entry.mix is None:
            return combine(name, [self._source_rows(name)], [1.0])
        names, weights = self._ingredients(name)
        rows = combine(name, [self._source_rows(part) for part in names], weights)
        _clean(rows, entry.filters)
        self._check_parts(rows)
        rows.sample(None, seed=self.study.heldout.seed)
        return rows

    def _source_rows(self, name: str) -> RowSet:
        """The distinct rows of a set of one source that pass its filters."""
        if name not in self._filtered:
            entry = self.study.data[name]
            scan = self.scans.scan(entry)
            rows = RowSet(name, [Part(name, 1.0, scan, 0, scan.keys)])
            _clean(rows, entry.filters)
            if not rows.keys:
                raise UserError(
                    f"data.{name}.filters: none of the {len(scan.keys)} usable rows passes ({rows.filtered}). "
                    "Fix: loosen them."
                )
            self._filtered[name] = rows
        return self._filtered[name]

    def _ingredients(self, name: str) -> tuple[list[str], list[float]]:
        """The sets of a mix and their weights."""
        mix = self.study.data[name].mix
        # The order of identities: neither the file's order nor the names change what is trained on.
        identities = {part: sha256_json(data_identity(self.study.yaml["data"], part)) for part in mix}
        names = sorted(mix, key=lambda part: (identities[part], mix[part]))
        return names, [mix[part] for part in names]

    def _check_parts(self, rows: RowSet) -> None:
        for part in rows.parts:
            if not part.keys:
                raise UserError(
                    f"data.{rows.name}.mix.{part.name}: no row of this set is left after filters and duplicates. "
                    "Fix: remove it from the mix, or loosen the filters."
                )


def _clean(rows: RowSet, filters: Filters) -> None:
    rows.drop_unfit(filters)
    rows.drop_duplicates()
    if filters.near_duplicates == "drop":
        rows.drop_near_duplicates()
