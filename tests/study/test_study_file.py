import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.planning.plan_texts import last_sentence
from loragrid.study.completion import defaults_used
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
        node = node.setdefault(part, {})
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
    study = load(changed("data.plans.source", {"path": "rows.jsonl"}))
    assert study.yaml["data"]["plans"]["source"]["path"] == str(tmp_path / "rows.jsonl")
    assert study.models["llama-s"].path == str(ROOT / "resources/models/llama-s")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trainin", {}, "trainin: unknown key ({}). Fix: write training."),
        ("base_case.warmup_steps", 5, "base_case.warmup_steps: unknown key (5). Fix: write warmup: {steps: 5}."),
        ("models", ..., ": models: missing. Fix: add it as described in config/README.md."),
        ("data.plans.source", ..., "data.plans.source: missing"),
        ("base_case.learning_rate", 0, "base_case.learning_rate: not above 0 (0). Fix: give a number above 0"),
        ("base_case.learning_rate", float("nan"), "base_case.learning_rate: not a finite number (nan)"),
        (
            "base_case.learning_rate",
            "2 * alpha",
            "base_case: learning_rate: not an expression of the rank: 'alpha' is not a number, rank or sqrt(rank)",
        ),
        (
            "base_case.learning_rate",
            "rank + 1",
            "base_case: learning_rate: not an expression of the rank: 'rank + 1' is",
        ),
        ("base_case.rank", 0, "base_case.rank: below the minimum of 1 (0). Fix: give 1 or more"),
        ("base_case.rank", 16.0, "base_case.rank: has a decimal point (16.0). Fix: write the whole number 16."),
        ("base_case.rank", [16], "base_case.rank: not a whole number ([16])"),
        (
            "base_case.batch",
            [2.5, 4],
            "base_case.batch[0]: not a whole number (2.5). Fix: give a whole number (",
        ),
        ("base_case.seed", 2**32, "base_case.seed: above the maximum of 4294967295 (4294967296)"),
        ("base_case.batch", [2], "base_case.batch: too few values ([2]). Fix: give at least 2 ("),
        ("base_case.model", "llama", "base_case.model: not a key of models ('llama'). Fix: write llama-s, or"),
        ("base_case.data", "plan", "base_case.data: not a key of data ('plan'). Fix: use one of plans."),
        ("base_case.precision", "8bit", "base_case.precision: not an allowed value ('8bit'). Fix: use one of 4bit"),
        ("base_case.budget", {"tokens": 5, "steps": 5}, "base_case.budget"),
        ("base_case.warmup", {"ratio": 1.0}, "base_case.warmup.ratio: not below 1 (1.0)"),
        ("base_case.dropout", 1.0, "base_case.dropout: not below 1 (1.0)"),
        (
            "base_case.alpha",
            "rnk",
            "base_case: alpha: not an expression of the rank: 'rnk' is not a number, rank or sqrt(rank) (rnk). Fix: use num",
        ),
        ("base_case.alpha", "0 * rank", "base_case: alpha: not above 0 (0 * rank is 0). Fix: give values above 0."),
        ("base_case.alpha", 0, "base_case.alpha: not above 0 (0)"),
        (
            "base_case.alpha",
            "",
            "base_case.alpha: not in the right form (''). Fix: correct it (An expression of the rank",
        ),
        ("base_case.alpha", "16", "base_case.alpha: text instead of a number ('16'). Fix: write 16 without quotes."),
        ("base_case.alpha", "rank ** 2", "not an expression of the rank: a factor is missing (rank ** 2)"),
        ("base_case.alpha", "1e308 * rank * rank", "not an expression of the rank: too large a number (1e308 * rank"),
        (
            "base_case.learning_rate",
            "rank",
            "base_case: learning_rate: above the maximum of 10 (rank is 16). Fix: give",
        ),
        (
            "base_case.target_modules",
            "all",
            "base_case.target_modules: not an allowed value ('all'). Fix: write all-linear.",
        ),
        ("base_case.target_modules", [], "base_case.target_modules: empty"),
        ("base_case.target_modules", ["q_proj"] * 2, "base_case.target_modules: has a value twice ('q_proj')"),
        (
            "base_case.target_modules",
            ["attention"],
            "base_case.target_modules[0]: not allowed here ('attention'). Fix: ",
        ),
        ("base_case.schedule", "constant", "base_case.warmup: the schedule constant has no warm-up ({'steps': 5})"),
        ("base_case.optimizer", "adam", "base_case.optimizer: not an allowed value ('adam'). Fix: use one of adamw_t"),
        ("base_case.method", "none", "base_case.method: nothing to depart from (none). Fix: use another method."),
        (
            "base_case.learning_rate_ratio",
            4,
            "base_case.learning_rate_ratio: no method of the study has this setting (4). Fix: remove it",
        ),
        ("grid.axes.model", ["llama-s", "gpt"], "grid.axes.model: not a key of models ('gpt')"),
        ("grid.axes.rank", [], "grid.axes.rank: empty. Fix: give at least one value."),
        ("grid.axes.rank", [4, 4], "grid.axes.rank: has a value twice (4). Fix: keep it once."),
        ("grid.axes.rank", 16, "grid.axes.rank: not a list (16). Fix: give a list, such as [1, 2] ("),
        (
            "grid.axes.learning_rate_ratio",
            [4],
            "grid.axes.learning_rate_ratio: no method of the study has this setting ([4]).",
        ),
        ("grid.tied", [{"method": "full", "rank": 4}], "grid.tied[0].rank: the method full has no such setting (4)."),
        ("grid.cells", {"a": {"model": "gpt"}}, "grid.cells.a.model: not a key of models ('gpt')"),
        ("grid.cells", {"a": {"precision": "4bit", "method": "pissa"}}, "method pissa cannot train a 4bit base. Fix: "),
        ("grid.axes.method", ["lora", "loftq"], "method loftq cannot train a 32bit base. Fix: use 4bit, or another"),
        ("grid.cells", {"a": {"backend": "unsloth", "method": "dora"}}, "backend: unsloth does not train the method d"),
        (
            "grid.design",
            "cells",
            "grid.axes.learning_rate: an axis in a grid of the design cells. Fix: remove it, or use one",
        ),
        ("grid.axes.rank", [4, "x"], "grid.axes.rank[1]: not a whole number ('x')"),
        ("grid.axes.alpha", ["rank", 16], "grid: alpha 16: trains the same as base_case. Fix: remove it, or change a"),
        ("grid.axes.alpha", ["2 * rank", 32], "grid: alpha 32: trains the same as alpha 2 * rank. Fix: remove it"),
        ("grid.cells", {"a": {"rank": 16}}, "grid.cells.a: trains the same as base_case."),
        (
            "grid.cells",
            {"a": {"dropout": 0.1}, "b": {"dropout": 0.1}},
            "grid.cells.b: trains the same as grid.cells.a.",
        ),
        ("grid.tied", [{"dropout": 0.1}] * 2, "grid: dropout 0.1: trains the same as dropout 0.1."),
        (
            "grid",
            {"axes": {"rank": [8]}, "cells": {"a": {"method": "lora"}}, "tied": [{"method": "full"}]},
            "grid.cells.a: trains the same as base_case.",
        ),
        (
            "grid.cells",
            {"a": {"rank": 8, "seed": 5}},
            "grid.cells.a.seed: every arm is trained with the same seeds (5).",
        ),
        ("heldout.set", "chat", "heldout.set: not a key of data ('chat'). Fix: use one of plans."),
        ("heldout.rows", "many", "heldout.rows: not a whole number ('many')"),
        ("heldout.rows", None, "heldout.rows: not a whole number (null)"),
        ("data.chat", {"mix": {"plan": 1}}, "data.chat.mix.plan: not a key of data ('plan'). Fix: write plans, or"),
        (
            "data.chat",
            {"mix": {"plans": 0}},
            "data.chat.mix.plans: below the minimum of 1e-06 (0). Fix: give 1e-06 or mo",
        ),
        (
            "data.plans.filters",
            {"min_turns": 5, "max_turns": 2},
            "data.plans.filters: no conversation has at least 5 and at most 2 turns. Fix: lower min_turns, or raise max_t",
        ),
        (
            "data.plans.source",
            {"path": "no.jsonl"},
            "data.plans.source.path: file or folder not found, neither beside the study",
        ),
        ("data.plans.source", {"hub": "a/b", "split": "train"}, "data.plans.source.revision: missing"),
        ("adopt.mine", {"path": ".", "model": "gpt"}, "adopt.mine.model: not a key of models ('gpt'). Fix: use one of"),
        ("models", {}, "models: empty"),
        (
            "models",
            {"a b": {"path": "resources/models/llama-s"}},
            "models: not in the right form ('a b'). Fix: correct it (A key is part of folder names: letters, digits, '.'",
        ),
        (
            "data",
            {"a" * 61: DEMO["data"]["plans"]},
            f"data: longer than 60 characters ('{'a' * 61}'). Fix: shorten it (A key is part of",
        ),
        ("models.llama-s.path", "config", "/config). Fix: give a model folder in Hugging Face format."),
        (
            "models.llama-s.path",
            "no/such",
            "models.llama-s.path: folder not found, neither beside the study file nor in the project (no/such)",
        ),
        (
            "tune.pruner",
            True,
            "tune.pruner: not a map of keys to values or null (true). Fix: give a map of keys to values or null (",
        ),
        ("tune.spaces.demo.rank", {"low": 8, "high": 4}, "tune.spaces.demo.rank: low is above high (8 > 4). Fix: swap"),
        ("tune.spaces.demo.seed", {"choices": [1]}, "tune.spaces.demo.seed: unknown key"),
        ("scoring.limit", "ten", "scoring.limit: not an allowed value ('ten'). Fix: give an allowed value ("),
        ("scoring.at", [0.5, 0.50000001], "scoring.at: a share too close to another one or to the end (0.50000001)."),
        (
            "scoring.at",
            [0.99999999],
            "scoring.at: a share too close to another one or to the end (0.99999999). Fix: rem",
        ),
        ("scoring.at", [0.5, 1.5], "scoring.at[1]: above the maximum of 1 (1.5)"),
        (
            "scoring.target",
            ["running_plan"] * 2,
            "scoring.target: has a value twice ('running_plan'). Fix: keep it once.",
        ),
        ("scoring.retention", ["running_plan"], "scoring: task in both target and retention ('running_plan')"),
        (
            "scoring.qualitative",
            "no.jsonl",
            "scoring.qualitative: file not found, neither beside the study file nor in the project (no.jsonl)",
        ),
        ("models.llama-s.chat_template", "é" * 5000, "models.llama-s.chat_template: file not found, neither beside"),
        ("plan.row_tokens", 1.0e300, "plan.row_tokens: above the maximum of 10000000 (1e+300)"),
        ("base_case.threads", 10**30, "base_case.threads: above the maximum of 1024"),
        (
            "training.save_steps",
            10**30,
            "training.save_steps: too large a number (1e+30). Fix: give 9007199254740992 or",
        ),
        ("training.save_steps", 1e30, "training.save_steps: too large a number (1e+30). Fix: give 9007199254740992 or"),
        (
            "base_case.budget",
            {"epochs": 1e300},
            "base_case.budget.epochs: too large a number (1e+300). Fix: give 9007199254740992",
        ),
        ("plan.rows", 1e30, "plan.rows: too large a number (1e+30). Fix: give 9007199254740992 or less"),
        ("base_case.rank", 1e30, "base_case.rank: too large a number (1e+30). Fix: give 4096 or less"),
        ("base_case.model", "m" * 9000, "base_case.model: not a key of models ('mmm"),
        ("compare.alpha", 0.7, "compare.alpha: not below 0.5 (0.7)"),
    ],
)
def test_a_bad_key_is_named_with_its_fix(load, key: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(changed(key, value))
    line = str(caught.value)
    assert message in line
    assert line.startswith("mine.yaml: ") and ". Fix: " in line and line.endswith(".") and "\n" not in line
    assert len(line) < 1200


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
    for name in ("../../etc/passwd", "", "x" * 9000):
        with pytest.raises(UserError, match=r"unknown\. Fix: use one of demo"):
            load_study(name)


def test_a_number_with_an_exponent_needs_no_point(load) -> None:
    text = yaml.safe_dump(DEMO, sort_keys=False).replace("learning_rate: 0.01", "learning_rate: 1e-2")
    assert "learning_rate: 1e-2" in text
    assert load(text).cells == load(DEMO).cells
    quoted = r"base_case\.learning_rate: text instead of a number \('1e-2'\)\. Fix: write 1\.0e-2 without quotes\."
    with pytest.raises(UserError, match=quoted):
        load(text.replace("learning_rate: 1e-2", "learning_rate: '1e-2'"))


def test_the_base_case_s_seed_must_be_listed(load) -> None:
    settings = changed("base_case.seed", 3)
    settings["grid"]["axes"]["seed"] = [1, 2]
    with pytest.raises(UserError, match=r"grid\.axes\.seed: the base case's seed is not among them \(3\)\. Fix: add"):
        load(settings)


def test_a_factorial_grid_must_hold_the_base_case(load) -> None:
    settings = changed("grid.design", "factorial")
    settings["grid"]["axes"]["rank"] = [4, 64]
    with pytest.raises(UserError, match=r"grid\.axes\.rank: a factorial grid without the base case's value \(16\)"):
        load(settings)


def test_a_task_file_has_the_limit_that_is_given_under_its_path(load, tmp_path: Path) -> None:
    (tmp_path / "mine.task.yaml").write_text("task: mine\n")
    settings = changed("scoring.retention", ["mine.task.yaml"])
    settings["scoring"]["limit"] = {"mine.task.yaml": 7, "running_plan": 5, "others": None}
    scoring = load(settings).yaml["scoring"]
    assert scoring["limit"] == {str(tmp_path / "mine.task.yaml"): 7, "running_plan": 5, "others": None}
    assert scoring["retention"] == [str(tmp_path / "mine.task.yaml")]


def test_a_minimal_study_is_completed_from_the_schema(load) -> None:
    models = {"toy": {"path": "resources/models/llama-s"}}
    written = {"title": "A", "data": {"mine": {"source": DEMO["data"]["plans"]["source"]}}, "models": models}
    study = load(written)
    assert (study.base_case.model, study.base_case.data, study.heldout.set) == ("toy", "mine", "mine")
    assert (study.base_case.seed, study.base_case.alpha, study.scoring.target) == (3407, 16, ("heldout_loss",))
    assert study.tune is None and study.written["models"] == models
    assert load(written | {"grid": {"axes": {"seed": [5, 6]}}}).base_case.seed == 5


def test_a_complete_file_is_the_same_study(load) -> None:
    study = load(DEMO)
    again = load(study.yaml)
    assert again.yaml == study.yaml and again.cells == study.cells


def test_the_settings_that_are_left_to_their_defaults_are_listed_with_their_reasons() -> None:
    found = {key: (value, reason) for key, value, reason in defaults_used(DEMO)}
    assert found["base_case.rank"][0] == 16 and "usual start" in found["base_case.rank"][1]
    assert found["training.keep_checkpoints"][0] == 2
    assert "base_case.precision" not in found and "tune.budget" not in found


def test_what_all_entries_leave_out_is_listed_once() -> None:
    settings = changed("data.other", {"source": DEMO["data"]["plans"]["source"], "rows": 50})
    found = {key: value for key, value, _ in defaults_used(settings)}
    assert found["models.*.chat_template"] is None and found["data.*.filters"] == {} and found["adopt"] == {}
    assert found["data.plans.rows"] is None and "data.other.rows" not in found and "title" not in found
    settings["tune"]["spaces"]["demo"]["learning_rate"].pop("log")
    found = {key: value for key, value, _ in defaults_used(settings)}
    assert found["tune.spaces.demo.learning_rate.log"] is False
    assert dict(item[:2] for item in defaults_used(changed("tune", ...)))["tune"] is None
    assert list(defaults_used(load_study("demo").yaml)) == []


def test_every_default_has_a_reason() -> None:
    def nodes(node: Any, key: str) -> Iterator[tuple[str, dict]]:
        if isinstance(node, dict):
            if "default" in node and "description" in node:
                yield key, node
            for name, part in node.items():
                yield from nodes(part, name)
        elif isinstance(node, list):
            for part in node:
                yield from nodes(part, key)

    found = list(nodes(read_schema(), ""))
    assert len(found) > 50
    # Sections that may be left out as a whole have no value of their own.
    without = {
        key for key, node in found if last_sentence(" ".join(node["description"].split())) == node["description"]
    }
    assert without <= {"heldout", "grid", "training", "scoring", "compare"}


def test_names_are_read_as_they_are_written(load) -> None:
    """YAML would read some of them as truth values and numbers."""
    text = yaml.safe_dump(DEMO, sort_keys=False).replace("grid:\n", "grid:\n  cells: {on: {rank: 8}, 2: {rank: 32}}\n")
    assert set(load(text).grid.cells) == {"on", "2"}


def test_a_schedule_without_warm_up_has_one_run_whatever_the_warm_up(load) -> None:
    axes = {"schedule": [DEMO["base_case"]["schedule"], "constant"], "warmup": [{"steps": 5}, {"steps": 9}]}
    settings = changed("grid", {"axes": axes})
    study = load(settings)
    assert [cell.settings.warmup.steps for cell in study.cells] == [5, 0, 9]
    assert load(study.yaml).cells == study.cells
    settings["base_case"]["schedule"] = "constant"
    with pytest.raises(UserError, match="warmup 9steps: trains the same as base_case"):
        load(settings)
    del settings["base_case"]["warmup"], settings["grid"]["axes"]
    assert load(load(settings).yaml).base_case.warmup.steps == 0


def test_a_setting_that_the_base_case_s_method_lacks_is_no_axis_of_its_own(load) -> None:
    settings = changed("grid.axes", {"method": ["ia3", "lora"], "rank": [8]})
    settings["base_case"]["method"] = "ia3"
    del settings["tune"]
    with pytest.raises(
        UserError, match=r"grid: rank 8: trains the same as base_case, because its method ia3 has no rank"
    ):
        load(settings)
    settings["grid"] = {"cells": {"small": {"method": "lora", "rank": 8}}}
    assert len(load(settings).cells) == 2


def test_a_study_of_an_earlier_version_is_pointed_to_the_converter(load) -> None:
    with pytest.raises(UserError, match=r"mine\.yaml: written in the form of an earlier version.*convert_study\.py"):
        load(changed("training", {"alpha": "rank", "budget": {"steps": 5}, "warmup_ratio": 0.03}))


def test_every_key_of_the_schema_is_described_and_the_list_of_keys_is_current() -> None:
    page = describe(read_schema())
    assert (ROOT / "config" / "README.md").read_text() == page, "run python scripts/tools/describe_keys.py"
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_shipped_study_is_valid() -> None:
    files = sorted((ROOT / "config" / "studies").glob("*.yaml"))
    assert [load_study(str(file)).name for file in files] == [file.stem for file in files]


@pytest.mark.parametrize("config", ["[]", '"llama"', "{}", '{"model_type": 3}'])
def test_a_model_folder_whose_configuration_is_none_is_refused(tmp_path: Path, config: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(config)
    study = tmp_path / "mine.yaml"
    study.write_text(yaml.safe_dump(DEMO | {"models": DEMO["models"] | {"llama-s": {"path": "model"}}}))
    with pytest.raises(
        UserError, match=r"models\.llama-s\.path: config\.json is no model configuration.*Fix: give a model"
    ):
        load_study(str(study))
