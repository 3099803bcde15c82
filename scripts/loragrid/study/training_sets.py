"""The data sets that a study trains on, each once, whatever the models that they are tokenised for."""

from loragrid.study.study_file import Study


def training_sets(study: Study) -> dict[str, str]:
    """Key of each data set that runs are trained on → id of the first tokenised data set of its rows."""
    found: dict[str, str] = {}
    for cell in study.cells:
        found.setdefault(cell.settings.data, cell.data)
    return found
