import pytest

from loragrid.errors import UserError
from loragrid.runtime.command_line import check_names, check_targets, switch


@pytest.mark.parametrize(
    "given, wanted", [({}, True), ({"warm": "false"}, False), ({"warm": False}, False), ({"warm": "True"}, True)]
)
def test_true_and_false_as_snakemake_passes_them(given: dict, wanted: bool) -> None:
    assert switch(given, "warm", default=True) is wanted


@pytest.mark.parametrize("value", ["off", 1, "", None])
def test_anything_else_is_one_line_that_names_it(value: object) -> None:
    with pytest.raises(UserError, match=r"^--config warm=.*: write warm=true or warm=false$"):
        switch({"warm": value}, "warm", default=True)


def test_a_misspelt_name_is_not_passed_over() -> None:
    check_names({"study": "demo", "session_minutes": 5, "partial": "true", "warm": False})
    with pytest.raises(UserError, match=r"^--config partail=true: is unknown: did you mean partial\?$"):
        check_names({"study": "demo", "partail": "true"})
    with pytest.raises(UserError, match="known are study, session_minutes"):
        check_names({"x": 1})


def test_a_file_of_a_run_that_the_study_lacks_is_one_line() -> None:
    known = {"data": {"d1"}, "train": {"llama_lr1e-3"}, "score": {"llama_lr1e-3", "base"}}
    asked = [
        "report",
        "results/s/train/llama_lr1e-3/record.json",
        "./results/s/score/base/score.json",
        "results/s/plan/x/y",
    ]
    check_targets(asked, results="results/s", known=known)
    with pytest.raises(
        UserError, match=r"^results/s/train/llama_lr1e-2/record.json: the study has no llama_lr1e-2 to train: "
    ):
        check_targets(["results/s/train/llama_lr1e-2/record.json"], results="results/s", known=known)
    with pytest.raises(UserError, match="the study has no nosuch to score: the nearest is"):
        check_targets(["results/s/score/nosuch/score.json"], results="results/s", known=known)
