"""In how many processes a data set is prepared."""

from pathlib import Path

from loragrid.study.file_paths import visible_files
from loragrid.study.sections import DataSource
from loragrid.study.study_file import Study

# Beyond four, the process that writes the rows is the slowest one.
MOST_PROCESSES = 4
# Smaller sources take a few seconds, and the cores have other jobs to do.
LARGE_BYTES, LARGE_ROWS = 8 * 2**20, 5_000


def data_processes(study: Study, name: str) -> int:
    """Processes for the data set `name` of a study: several if one of its sources is large."""
    return MOST_PROCESSES if any(map(_is_large, _sources(study, name))) else 1


def _sources(study: Study, name: str) -> list[DataSource]:
    """The sources of a data set, through all its mixes."""
    entry = study.data[name]
    if entry.mix is None:
        return [entry.source]
    return [source for part in entry.mix for source in _sources(study, part)]


def _is_large(source: DataSource) -> bool:
    if source.path is not None:
        path = Path(source.path)
        files = visible_files(path) if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files) >= LARGE_BYTES
    # The size of a hub data set is not known before it is loaded; most are large.
    return source.hub is not None or source.rows >= LARGE_ROWS
