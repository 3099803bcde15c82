"""The note above all answers of a study whose settings cannot be judged, with what to do."""

from loragrid.formatting import plural
from loragrid.reporting.page import Material


def one_seed_note(material: Material) -> str:
    """What one seed leaves open, and the line of the study file that closes it; empty where no setting has one seed."""
    compared = material.compared
    alone = compared.one_seed_settings
    if not alone:
        return ""
    if compared.judges_settings:
        rows = compared.of_runs
        who = f"{alone} of {plural(rows['run'].nunique(), 'setting')} {'was' if alone == 1 else 'were'}"
        return f"{who} trained under one seed and cannot be judged as settings. {_advice(material)}"
    return (
        "Every setting was trained under one seed, so no setting can be judged: another seed of the same setting may "
        f"score otherwise. This page can only say which adapters differ. {_advice(material)}"
    )


def _advice(material: Material) -> str:
    study = material.study
    if len(study.yaml["grid"]["axes"].get("seed", [])) > 1:
        return "Their other seeds are not scored yet."
    seed = study.base_case.seed
    other = 1 if seed != 1 else 2
    return (
        f"To judge settings, set grid.axes.seed: [{seed}, {other}] in the study file and run again: about twice the "
        "hours; finished runs are kept."
    )
