import copy
from pathlib import Path

import pytest
import yaml

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.study.study_file import load_study
from loragrid.study.validation import read_schema
from tools.describe_keys import describe

DEMO = yaml.safe_load((ROOT / "config" / "studies" / "demo.yaml").read_text())


def changed(path: str, value: object) -> dict:
    """The demo study with one key set, or dropped where the value is `...`."""
    settings = copy.deepcopy(DEMO)
    *parents, last = path.split(".")
    node = settings
    for part in parents:
        node = node[part]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return settings


@pytest.fixture
def load(tmp_path: Path):
    def load(settings: dict | str):
        file = tmp_path / "mine.yaml"
        file.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings, sort_keys=False))
        return load_study(str(file))

    return load


def test_a_study_is_found_by_name_and_by_path(load, tmp_path: Path) -> None:
    assert load_study("demo").yaml["title"] == DEMO["title"]
    study = load(DEMO)
    assert study.name == "mine" and study.path == tmp_path / "mine.yaml"


def test_paths_are_looked_up_beside_the_study_file_before_the_project(load, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    study = load(changed("data.source", {"path": "rows.jsonl"}))
    assert study.yaml["data"]["source"]["path"] == str(tmp_path / "rows.jsonl")
    assert study.models["llama-s"].path == str(ROOT / "resources/models/llama-s")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("trainin", {}, "unknown key 'trainin': did you mean 'training'?"),
        ("training.warmup", 5, "unknown key 'training.warmup': did you mean 'warmup_steps'?"),
        ("training", ..., "key 'training' is missing"),
        ("training.save_steps", ..., "key 'training.save_steps' is missing"),
        ("base_case.learning_rate", "2e-4", "'2e-4' is text to YAML: write it as a number, 2.0e-4"),
        ("grid.learning_rate", ["2e-4"], "grid.learning_rate[0]: '2e-4' is text to YAML"),
        ("base_case.learning_rate", 0, "base_case.learning_rate: 0 is less than or equal to the minimum"),
        ("base_case.learning_rate", float("nan"), "no finite number"),
        ("base_case.rank", 0, "base_case.rank: 0 is less than the minimum of 1"),
        ("base_case.rank", 16.0, "base_case.rank: 16.0 has a decimal point where a whole number is needed: write 16"),
        (
            "base_case.batch",
            [2.5, 4],
            "base_case.batch[0]: 2.5 is not a whole number: give one (A whole number, such as [2, 4].)",
        ),
        ("base_case.seed", 2**32, "base_case.seed: 4294967296 is greater than the maximum of 4294967295"),
        ("base_case.batch", [2], "base_case.batch: [2] is too short"),
        ("base_case.model", "llama", "base_case.model: 'llama' is no key of models: take one of llama-s"),
        ("grid.model", ["llama-s", "gpt"], "grid.model: 'gpt' is no key of models"),
        ("grid.rank", [], "grid.rank: is empty: give at least one value"),
        ("models", {}, "models: is empty"),
        (
            "models",
            {"a b": {}},
            "models: 'a b' does not match '^[A-Za-z0-9][A-Za-z0-9.-]*$': mend it (A key names folders: letters",
        ),
        ("models.llama-s.path", "config", "/config has no config.json: give a model's folder in Hugging Face form"),
        ("models.llama-s.path", "no/such", "models.llama-s.path: folder no/such exists neither"),
        ("models.llama-s.precision", "8bit", "models.llama-s.precision: '8bit' is not one of"),
        ("data.source", {"path": "no.jsonl"}, "data.source.path: file no.jsonl exists neither"),
        ("data.source", {"hub": "a/b", "split": "train"}, "key 'data.source.revision' is missing"),
        ("data.heldout_rows", "many", "data.heldout_rows: 'many' is not a whole number"),
        ("data.heldout_rows", None, "data.heldout_rows: null is not a whole number"),
        ("base_case.rank", [16], "base_case.rank: [16] is not a whole number"),
        ("grid.rank", 16, "grid.rank: 16 is not a list, such as [1, 2]: give one"),
        ("tune.pruner", True, "tune.pruner: true is not a map of keys to values or null: give one"),
        ("data.max_rows", 100, "more than half of max_rows"),
        ("training.budget", {"tokens": 5, "steps": 5}, "training.budget"),
        ("training.dropout", 1.0, "training.dropout: 1.0 is greater than or equal to the maximum"),
        (
            "training.alpha",
            "rnk",
            "training.alpha: 'rnk' is none of its values: give one of them (LoRA alpha; updates are scaled",
        ),
        ("training.alpha", "3e1", "training.alpha: '3e1' is text to YAML: write it as a number, 3.0e+1"),
        ("training.alpha", 0, "training.alpha: 0 is less than or equal to the minimum of 0"),
        (
            "training.target_modules",
            "all",
            "training.target_modules: 'all' is none of its values: give one of them (Linear layers",
        ),
        ("training.target_modules", [], "training.target_modules: is empty"),
        ("scoring.limit", "ten", "scoring.limit: 'ten' is none of its values: give one of them (Most items per task"),
        ("scoring.target", ["running_plan"] * 2, "scoring.target: holds 'running_plan' twice: keep it once"),
        ("training.optimizer", "adam", "training.optimizer: 'adam' is not one of"),
        ("scoring.retention", ["running_plan"], "task 'running_plan' is both target and retention"),
        ("scoring.qualitative", "no.jsonl", "scoring.qualitative: file no.jsonl exists neither"),
        ("compare.alpha", 0.7, "compare.alpha: 0.7 is greater than or equal to the maximum"),
    ],
)
def test_a_bad_key_is_named_with_its_mend(load, key: str, value: object, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load(changed(key, value))
    assert said in str(caught.value)
    assert str(caught.value).startswith("mine.yaml: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no study"),
        ("- a\n- b\n", "holds no study"),
        ("title: [unclosed", r"mine\.yaml: cannot be read as YAML \(line 1, column 17: expected ',' or '\]', but got"),
        ("? [a, b]\n: 1\n", r"\(line 1, column 3: a list or a map stands as a key\): mend it"),
        ("title: a\ntitle: b\n", "'title' is written twice"),
        ("title: !!python/object/apply:os.system [echo]\n", "cannot be read as YAML"),
    ],
)
def test_a_file_that_is_no_study_is_named(load, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(text)


def test_unknown_names_and_missing_files_are_named() -> None:
    with pytest.raises(UserError, match="study 'dmeo' is unknown: take one of demo"):
        load_study("dmeo")
    with pytest.raises(UserError, match=r"study file no/such\.yaml does not exist"):
        load_study("no/such.yaml")
    with pytest.raises(UserError, match="unknown"):
        load_study("../../etc/passwd")


def test_a_factorial_grid_must_hold_the_base_case(load) -> None:
    settings = changed("grid.design", "factorial")
    settings["grid"]["rank"] = [4, 64]
    with pytest.raises(UserError, match=r"grid\.rank: a factorial grid must hold the base case's 16"):
        load(settings)


def test_a_task_file_has_the_limit_that_is_given_under_its_path(load, tmp_path: Path) -> None:
    (tmp_path / "mine.task.yaml").write_text("task: mine\n")
    settings = changed("scoring.retention", ["mine.task.yaml"])
    settings["scoring"]["limit"] = {"mine.task.yaml": 7, "running_plan": 5, "others": None}
    scoring = load(settings).yaml["scoring"]
    assert scoring["limit"] == {str(tmp_path / "mine.task.yaml"): 7, "running_plan": 5, "others": None}
    assert scoring["retention"] == [str(tmp_path / "mine.task.yaml")]


def test_every_key_of_the_schema_is_described_and_the_list_of_keys_is_current() -> None:
    page = describe(read_schema())
    assert (ROOT / "config" / "README.md").read_text() == page, "run python scripts/tools/describe_keys.py"
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_shipped_study_is_valid() -> None:
    files = sorted((ROOT / "config" / "studies").glob("*.yaml"))
    assert [load_study(str(file)).name for file in files] == [file.stem for file in files]
