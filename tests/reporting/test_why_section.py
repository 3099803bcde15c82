"""The section on causes: a row per setting, its causes once, with the seeds in which they hold."""

from types import SimpleNamespace

from loragrid.reporting.why_section import base_fault_rows, diagnosis_rows, healthy_runs

FORGOT = {"difference": -0.14, "low": -0.2, "high": -0.08, "seeds": 2, "tasks": []}


def cause(name: str, evidence: str, measured: dict, symptom_of: str | None = None) -> dict:
    return {"cause": name, "evidence": evidence, "measured": measured, "threshold": {}, "symptom_of": symptom_of}


ENDLESS = cause("template", "answers_not_ended", {"task": "plan", "share": 0.0, "base": 1.0}, "diverged")
ENDLESS["threshold"] = {"share": 0.5}
NAN = cause("diverged", "loss_not_finite", {})
LOST = cause("diverged", "updates_lost", {"not_finite": 3, "infinite_gradient": 0})


def material(diagnoses: dict[str, list[dict]], **summary) -> SimpleNamespace:
    """Runs named by their setting and seed, such as a1 and a2."""
    known = {"diagnoses": diagnoses, "unmade_checks": {}, "base_faults": {}} | summary
    names = {run: f"setting {run[0]}" for run in diagnoses}
    compared = SimpleNamespace(
        summary=known, setting_labels=names, labels=names | {"base": "the base"}, units={"plan": "share"}
    )
    outcomes = [
        SimpleNamespace(subject=run, reason="loss is NaN at step 12" if run == "c1" else None) for run in diagnoses
    ]
    return SimpleNamespace(compared=compared, outcomes=outcomes)


def test_seeds_of_a_setting_share_a_row_and_each_cause_says_in_how_many_it_holds() -> None:
    made = material({"a1": [LOST, ENDLESS], "a2": [LOST], "b1": [], "b2": []})
    (row,) = diagnosis_rows(made)
    assert row["label"] == "setting a"
    assert [(text.cause, text.seeds, text.symptom_of) for text in row["causes"]] == [
        ("diverged", "in 2 of 2 seeds", ""),
        ("template", "in 1 of 2 seeds", "follows from: diverged"),
    ]
    assert healthy_runs(made) == ["setting b"]


def test_symptoms_of_one_seed_come_behind_the_causes_of_another() -> None:
    forgot = cause("forgot", "retention_lost", FORGOT)
    (row,) = diagnosis_rows(material({"a1": [LOST, ENDLESS], "a2": [forgot]}))
    assert [text.cause for text in row["causes"]] == ["diverged", "forgot", "template"]


def test_a_setting_of_one_seed_counts_none() -> None:
    (row,) = diagnosis_rows(material({"a1": [LOST]}))
    assert row["causes"][0].seeds == ""


def test_a_run_that_stopped_says_where() -> None:
    (row,) = diagnosis_rows(material({"c1": [NAN]}))
    assert row["causes"][0].evidence == "loss is NaN at step 12"


def test_checks_that_could_not_be_made_are_named_once() -> None:
    unmade = {"checks": ["under_trained"], "measurements": 2}
    (line,) = healthy_runs(material({"a1": [], "a2": []}, unmade_checks={"a1": unmade, "a2": unmade}))
    assert line == ("setting a (not checked for under-training: only 2 held-out measurements after training began)")


def test_faults_of_bases() -> None:
    (row,) = base_fault_rows(material({"a1": []}, base_faults={"base": [ENDLESS | {"symptom_of": None}]}))
    assert row["label"] == "the base" and row["causes"][0].name == "Template or end of text"
