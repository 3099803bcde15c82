"""The checks behind the card "can I believe it": what did not pass, as short clauses."""

from typing import Any

from loragrid.formatting import plural
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.page import Material
from loragrid.study.sections import HELDOUT_LOSS

LONG_RUN = "contaminated_13"  # items that share 13 words with a training row: rarely a common phrase


def failed_checks(material: Material, origin: dict[str, Any]) -> list[str]:
    """Checks that did not pass, the gravest first. `origin`: the section on provenance."""
    summary = material.compared.summary
    faults = len(summary["base_faults"])
    found = [f"{plural(faults, 'base')} with a fault"] if faults else []
    if searched_tasks(material.compared):
        found += _contamination(summary["contamination"])
    statuses = summary["statuses"]
    total, scored = sum(statuses.values()), statuses.get("scored", 0)
    if scored < total:
        found.append(f"{total - scored} of {plural(total, 'run')} not scored")
    alone, settings = material.compared.one_seed_settings, material.compared.of_runs["run"].nunique()
    if 0 < alone < settings:
        found.append(f"{alone} of {plural(settings, 'setting')} with one seed")
    if summary["not_comparable"]:
        found.append(f"{plural(len(summary['not_comparable']), 'comparison')} left out")
    if origin["mixed_versions"]:
        found.append(f"several versions of {origin['mixed_versions'][0]}")
    if origin["odd_code"]:
        found.append("runs trained by different code")
    return found


def searched_tasks(compared: ComparedStudy) -> list[str]:
    """Tasks whose items are searched for in the training rows: all but the held-out loss, whose rows are kept out."""
    return [name for name in compared.summary["tasks"] if name != HELDOUT_LOSS]


def _contamination(checked: dict[str, Any]) -> list[str]:
    """How many tasks have items in the training rows; that nothing was checked, if so."""
    if not checked:
        return ["task items were not searched for in the training rows"]
    tasks = {name for card in checked.values() for name, task in card["tasks"].items() if task[LONG_RUN]}
    return [f"items of {plural(len(tasks), 'task')} in the training rows"] if tasks else []
