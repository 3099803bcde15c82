import pytest

from loragrid.errors import UserError
from loragrid.workflow.options import Options


@pytest.mark.parametrize(
    "given, wanted", [({}, True), ({"warm": "false"}, False), ({"warm": False}, False), ({"warm": "True"}, True)]
)
def test_true_and_false_as_snakemake_passes_them(given: dict, wanted: bool) -> None:
    assert Options.read({"study": "demo"} | given).warm is wanted


@pytest.mark.parametrize("value", ["off", 1, "", None])
def test_another_value_of_a_switch_is_refused(value: object) -> None:
    with pytest.raises(
        UserError, match=r"^--config warm=.*: not a switch value\. Fix: write warm=true or warm=false\.$"
    ):
        Options.read({"study": "demo", "warm": value})


@pytest.mark.parametrize("given, wanted", [("auto", None), ("true", True), (False, False)])
def test_the_worker_may_also_be_left_to_the_machine(given: object, wanted: bool | None) -> None:
    assert Options.read({"study": "demo", "worker": given}).worker is wanted
    assert Options.read({"study": "demo"}).worker is None
    with pytest.raises(UserError, match="Fix: write worker=true or worker=false or worker=auto"):
        Options.read({"study": "demo", "worker": "maybe"})


def test_options_that_the_command_line_gives() -> None:
    found = Options.read({"study": "demo", "session_minutes": 5, "partial": "true", "warm": False})
    assert found == Options(study="demo", session_minutes=5, partial=True, warm=False)


def test_a_misspelt_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"^--config partail=true: unknown option\. Did you mean partial\?$"):
        Options.read({"study": "demo", "partail": "true"})
    with pytest.raises(UserError, match="Fix: use study, session_minutes, partial, warm, worker, budget_hours, backup, run, dtype, gguf"):
        Options.read({"study": "demo", "x": 1})


@pytest.mark.parametrize("minutes", ["abc", 0, -5, True])
def test_a_session_has_minutes_above_zero(minutes: object) -> None:
    with pytest.raises(UserError, match="session_minutes"):
        Options.read({"study": "demo", "session_minutes": minutes})


def test_hours_for_what_next_proposes() -> None:
    assert Options.read({"study": "demo", "budget_hours": 4}).budget_hours == 4
    for hours in ("abc", 0, -1, float("inf"), True):
        with pytest.raises(UserError, match=r"^budget_hours: not a number of hours above 0 \(.*\)\. Fix: give one"):
            Options.read({"study": "demo", "budget_hours": hours})


def test_what_an_export_is_asked_for() -> None:
    given = {"run": "llama_1 2", "dtype": "float32", "gguf": "q8_0", "accept": "true", "ollama": False}
    assert Options.read({"study": "demo"} | given).export_arguments == "--run 'llama_1 2' --dtype float32 --gguf q8_0 --accept"
    assert Options.read({"study": "demo"}).export_arguments == ""
    with pytest.raises(UserError, match=r"^gguf: not a type of llama.cpp's converter \(q9\)\. Fix: use f32, f16"):
        Options.read({"study": "demo", "gguf": "q9"})
    with pytest.raises(UserError, match=r"^dtype: not a dtype of a merged model \(fp32\)\. Fix: use bfloat16, float16, f"):
        Options.read({"study": "demo", "dtype": "fp32"})
