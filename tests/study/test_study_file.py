import copy
from pathlib import Path

import pytest
import yaml

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.study.schema import read_schema
from loragrid.study.study_file import load_study
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
    ("key", "value", "message"),
    [
        ("trainin", {}, "trainin: unknown key. Fix: write training."),
        ("training.warmup", 5, "training.warmup: unknown key. Fix: write warmup_steps."),
        ("training", ..., ": training: missing. Fix: add it as described in config/README.md."),
        ("training.save_steps", ..., "training.save_steps: missing"),
        (
            "base_case.learning_rate",
            "2e-4",
            "base_case.learning_rate: text instead of a number ('2e-4'). Fix: write 2.0e-4 without quotes.",
        ),
        ("grid.learning_rate", ["2e-4"], "grid.learning_rate[0]: text instead of a number ('2e-4')"),
        ("base_case.learning_rate", 0, "base_case.learning_rate: not above 0 (0). Fix: give a number above 0 (Peak"),
        ("base_case.learning_rate", float("nan"), "base_case.learning_rate: not a finite number (nan)"),
        ("base_case.rank", 0, "base_case.rank: below the minimum of 1 (0). Fix: give 1 or more"),
        ("base_case.rank", 16.0, "base_case.rank: has a decimal point (16.0). Fix: write the whole number 16."),
        (
            "base_case.batch",
            [2.5, 4],
            "base_case.batch[0]: not a whole number (2.5). Fix: give a whole number (",
        ),
        ("base_case.seed", 2**32, "base_case.seed: above the maximum of 4294967295 (4294967296)"),
        ("base_case.batch", [2], "base_case.batch: too few values ([2]). Fix: give at least 2 ("),
        ("base_case.model", "llama", "base_case.model: not a key of models ('llama'). Fix: use one of llama-s"),
        ("grid.model", ["llama-s", "gpt"], "grid.model: not a key of models ('gpt')"),
        ("grid.rank", [], "grid.rank: empty. Fix: give at least one value."),
        ("models", {}, "models: empty"),
        (
            "models",
            {"a b": {}},
            "models: does not match the pattern ^[A-Za-z0-9][A-Za-z0-9.-]*$ ('a b'). Fix: follow the pattern (A key",
        ),
        ("models.llama-s.path", "config", "/config). Fix: give a model folder in Hugging Face format."),
        (
            "models.llama-s.path",
            "no/such",
            "models.llama-s.path: folder not found, neither beside the study file nor in the project (no/such)",
        ),
        (
            "models.llama-s.precision",
            "8bit",
            "models.llama-s.precision: not an allowed value ('8bit'). Fix: use one of 4bit, 16bit, 32bit",
        ),
        (
            "data.source",
            {"path": "no.jsonl"},
            "data.source.path: file not found, neither beside the study file nor in the project (no.jsonl)",
        ),
        ("data.source", {"hub": "a/b", "split": "train"}, "data.source.revision: missing"),
        ("data.heldout_rows", "many", "data.heldout_rows: not a whole number ('many')"),
        ("data.heldout_rows", None, "data.heldout_rows: not a whole number (null)"),
        ("base_case.rank", [16], "base_case.rank: not a whole number ([16])"),
        ("grid.rank", 16, "grid.rank: not a list (16). Fix: give a list, such as [1, 2] ("),
        (
            "tune.pruner",
            True,
            "tune.pruner: not a map of keys to values or null (true). Fix: give a map of keys to values or null (",
        ),
        ("data.max_rows", 100, "data.heldout_rows: more than half of max_rows ("),
        ("training.budget", {"tokens": 5, "steps": 5}, "training.budget"),
        ("training.dropout", 1.0, "training.dropout: not below 1 (1.0)"),
        (
            "training.alpha",
            "rnk",
            "training.alpha: not an allowed value ('rnk'). Fix: give an allowed value (LoRA alpha",
        ),
        (
            "training.alpha",
            "3e1",
            "training.alpha: text instead of a number ('3e1'). Fix: write 3.0e+1 without quotes.",
        ),
        ("training.alpha", 0, "training.alpha: not above 0 (0)"),
        (
            "training.target_modules",
            "all",
            "training.target_modules: not an allowed value ('all'). Fix: give an allowed value (Linear layers",
        ),
        ("training.target_modules", [], "training.target_modules: empty"),
        ("scoring.limit", "ten", "scoring.limit: not an allowed value ('ten'). Fix: give an allowed value ("),
        (
            "scoring.target",
            ["running_plan"] * 2,
            "scoring.target: has a value twice ('running_plan'). Fix: keep it once.",
        ),
        (
            "training.optimizer",
            "adam",
            "training.optimizer: not an allowed value ('adam'). Fix: use one of adamw_torch, ",
        ),
        ("scoring.retention", ["running_plan"], "scoring: task in both target and retention ('running_plan')"),
        (
            "scoring.qualitative",
            "no.jsonl",
            "scoring.qualitative: file not found, neither beside the study file nor in the project (no.jsonl)",
        ),
        ("compare.alpha", 0.7, "compare.alpha: not below 0.5 (0.7)"),
    ],
)
def test_a_bad_key_is_named_with_its_fix(load, key: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(changed(key, value))
    line = str(caught.value)
    assert message in line
    assert line.startswith("mine.yaml: ") and ". Fix: " in line and line.endswith(".") and "\n" not in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"mine\.yaml: empty\. Fix: write the keys"),
        ("- a\n- b\n", r"mine\.yaml: not a map of keys to values\. Fix: write the keys"),
        ("title: [unclosed", r"mine\.yaml: cannot be read as YAML \(line 1, column 17: expected ',' or '\]', but got"),
        ("? [a, b]\n: 1\n", r"\(line 1, column 3: a list or a map is used as a key\)\. Fix: correct the file"),
        ("title: a\ntitle: b\n", "'title' is written twice"),
        ("title: !!python/object/apply:os.system [echo]\n", "cannot be read as YAML"),
    ],
)
def test_a_file_that_is_not_a_study_is_named(load, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(text)


def test_unknown_names_and_missing_files_are_named() -> None:
    with pytest.raises(UserError, match=r"study 'dmeo': unknown\. Fix: use one of demo"):
        load_study("dmeo")
    with pytest.raises(UserError, match=r"no/such\.yaml: study file not found\. Fix: check the path"):
        load_study("no/such.yaml")
    with pytest.raises(UserError, match="unknown"):
        load_study("../../etc/passwd")


def test_a_factorial_grid_must_hold_the_base_case(load) -> None:
    settings = changed("grid.design", "factorial")
    settings["grid"]["rank"] = [4, 64]
    with pytest.raises(UserError, match=r"grid\.rank: a factorial grid without the base case's value \(16\)"):
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
