"""Data sets that are one source with different numbers of rows."""

from collections.abc import Mapping

from loragrid.study.sections import DataSet, DataSource, Filters

Origin = tuple[DataSource | tuple[tuple[str, float], ...] | None, frozenset[Filters]]


def origin(data: Mapping[str, DataSet], name: str) -> Origin:
    """What a data set's rows are drawn from and the filters that they passed, whatever their number."""
    entry = data[name]
    filters = frozenset({entry.filters})
    if entry.mix is None:
        return entry.source, filters
    # A mix of one set is that set itself with other rows.
    if len(entry.mix) == 1:
        source, more = origin(data, next(iter(entry.mix)))
        return source, filters | more
    return tuple(sorted(entry.mix.items())), filters


def same_but_for_rows(data: Mapping[str, DataSet], one: str, other: str) -> bool:
    """Whether two data sets, by their keys, differ in their number of rows alone."""
    return one != other and origin(data, one) == origin(data, other)
