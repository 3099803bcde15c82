"""Names that YAML reads as numbers, truth values or dates, and keys and values as other trainers write them."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from loragrid.errors import UserError
from loragrid.study.checks.usual_keys import HERE, NOT_NEEDED, USUAL, key_fix
from loragrid.study.reading.yaml_file import read_yaml
from loragrid.study.schema import read_schema
from loragrid.study.study_file import Study, load_study

STUDY = """
title: {title}
data:
  {name}: {{source: {{generator: running_plans, rows: 100, seed: 1}}}}
  all: {{mix: {{{name}: 1}}, rows: 50}}
heldout: {{set: {name}, rows: 5}}
models:
  {name}: {{path: resources/models/llama-s}}
  other: {{path: resources/models/gemma-s}}
adopt:
  {name}: {{hub: owner/adapter, revision: {name}, model: {name}}}
base_case: {{model: {name}, data: {name}}}
grid:
  axes: {{model: [{name}, other], data: [{name}, all]}}
  tied: [{{model: other, data: all}}]
  cells: {{{name}: {{rank: 8, model: {name}}}}}
  arm_seeds: [{{arm: {{model: other}}, seeds: [7]}}]
scoring: {{target: [heldout_loss, {name}], limit: {{{name}: 3, others: 5}}}}
tune: {{budget: {{steps: 2}}, space: {name}, spaces: {{{name}: {{rank: {{choices: [1, 2]}}}}}}}}
"""
SHORT = """
title: A
data: {mine: {source: {generator: running_plans, rows: 100, seed: 1}}}
models: {toy: {path: resources/models/llama-s}}
"""
# As YAML 1.1 reads them: whole numbers in four notations, floats, truth values, dates and text.
NAMES = ("8", "007", "0x10", "0b1", "1e3", "1.5", "1.0", "yes", "no", "on", "True", "2026-01-01", "plain", "'8'")
Load = Callable[[str], Study]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str) -> Study:
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        return load_study(str(file))

    return load


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_the_text_that_is_written(load: Load, name: str) -> None:
    study = load(STUDY.format(name=name, title=name))
    text = name.strip("'")
    assert set(study.models) == {text, "other"} and set(study.data) == {text, "all"}
    assert (study.title, study.heldout.set, study.tune.space) == (text, text, text)
    assert (study.adopt[text].model, study.adopt[text].revision) == (text, text)
    assert study.scoring.target == ("heldout_loss", text) and study.scoring.limit[text] == 3
    first, *_ = study.cells
    assert first.run.startswith(f"{text}_") and (first.settings.model, first.settings.data) == (text, text)
    assert {"model": "other", "seed": 7} in [cell.departs for cell in study.cells]
    assert {"cells": text} in [cell.departs for cell in study.cells]
    # The complete file, as it is written beside the results, is the same study.
    again = load(yaml.safe_dump(study.yaml, sort_keys=False))
    assert again.yaml == study.yaml and again.cells == study.cells


def test_numbers_stay_numbers_where_the_schema_takes_them(load: Load) -> None:
    text = SHORT + "base_case: {rank: 8, alpha: 16, learning_rate: 1e-3, packing: yes, target_modules: [q_proj, 8]}\n"
    base = load(text).base_case
    assert (base.rank, base.alpha, base.learning_rate, base.packing) == (8, 16, 0.001, True)
    assert base.target_modules == ("8", "q_proj")


def test_an_anchor_is_a_number_at_one_place_and_a_name_at_another(load: Load) -> None:
    text = SHORT.replace("toy", "8") + "base_case: {rank: &n 8, model: *n}\ngrid: {cells: {a: {rank: 4, model: *n}}}\n"
    study = load(text)
    assert (study.base_case.rank, study.base_case.model) == (8, "8") and len(study.cells) == 2
    merged = SHORT.replace("toy", "8") + "base_case: {<<: {rank: 8, model: 8}, seed: 1}\n"
    assert (load(merged).base_case.rank, load(merged).base_case.model) == (8, "8")


@pytest.mark.parametrize("name", ["null", "~", ""])
def test_null_is_no_name(load: Load, name: str) -> None:
    with pytest.raises(UserError, match=r"mine\.yaml: base_case\.model: not text \(null\)\. Fix: give text"):
        load(SHORT + f"base_case: {{model: {name}}}\n")


@pytest.mark.parametrize("name", ["a b", "a/b", ".hidden", "-5", "../up", "1_000", "12:30", "é", "a@0.5", "*"])
def test_a_key_that_cannot_be_in_a_file_name_is_refused(load: Load, name: str) -> None:
    with pytest.raises(UserError, match=r"mine\.yaml: (models|data|grid\.cells): not in the right form \("):
        load(SHORT.replace("toy", f"'{name}'"))
    with pytest.raises(UserError, match=r"not in the right form"):
        load(SHORT.replace("mine", f"'{name}'"))
    with pytest.raises(UserError, match=r"not in the right form"):
        load(SHORT + f"grid: {{cells: {{'{name}': {{rank: 8}}}}}}\n")


def test_aliases_that_multiply_are_read_in_no_time(load: Load) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join(['*' + old] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    with pytest.raises(UserError, match="its aliases make more than"):
        load("\n".join(lines))
    with pytest.raises(UserError, match="unconstructable recursive node"):
        load("title: &a [*a]")


@pytest.mark.parametrize("seed", range(3))
def test_any_name_is_the_same_as_key_and_as_reference(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    file = tmp_path / "names.yaml"
    for _ in range(40):
        # Digits, signs and the letters of numbers, truth values and infinity.
        name = draw.choice("0123456789yn") + "".join(draw.choices("0123456789.-+:_exbaysniftruo", k=draw.randint(0, 7)))
        file.write_text(
            f"models: {{{name} : {{}}}}\nbase_case: {{model: {name} }}\ngrid: {{axes: {{model: [{name} ]}}}}\n"
        )
        read = read_yaml(file, read_schema())
        expected = [name.rstrip(":")]
        assert list(read["models"]) == [read["base_case"]["model"]] == read["grid"]["axes"]["model"] == expected, name


@pytest.mark.parametrize(
    ("section", "line"),
    [
        (
            "base_case: {warmup_ratio: 0.03}",
            "base_case.warmup_ratio: unknown key (0.03). Fix: write warmup: {ratio: 0.03}.",
        ),
        ("base_case: {warmup_ratio: 3%}", "unknown key ('3%'). Fix: write warmup: {ratio: 0.03}."),
        ("base_case: {warmup_steps: 5}", "unknown key (5). Fix: write warmup: {steps: 5}."),
        ("base_case: {warmup: 0.1}", "base_case.warmup: not a map of keys to values (0.1). Fix: write {ratio: 0.1}."),
        ("base_case: {warmup: 10}", "Fix: write {steps: 10}."),
        ("base_case: {warmup: 3%}", "Fix: write {ratio: 0.03}."),
        ("base_case: {warmup: {ratio: 3 %}}", "base_case.warmup.ratio: not a number ('3 %'). Fix: write 0.03."),
        (
            "training: {warmup_ratio: 0.1}",
            "training.warmup_ratio: unknown key (0.1). Fix: write base_case.warmup: {ratio",
        ),
        ("grid: {axes: {warmup_ratio: [0, 0.1]}}", "Fix: write warmup: [{ratio: 0}, {ratio: 0.1}]."),
        (
            "tune: {budget: {steps: 1}, spaces: {a: {warmup_ratio: {low: 0, high: 0.1}}}}",
            'tune.spaces.a.warmup_ratio: unknown key ({"low": 0, "high": 0.1}). Fix: write warmup: {choices: [{ratio: N}]}.',
        ),
        ("lora_r: 8", "lora_r: unknown key (8). Fix: write base_case.rank."),
        ("rank: 8", "rank: unknown key (8). Fix: move it to base_case.rank."),
        ("grid: {rank: [8, 16]}", "grid.rank: unknown key ([8, 16]). Fix: move it to grid.axes.rank."),
        ("training: {alpha: 8}", "training.alpha: unknown key (8). Fix: move it to base_case.alpha."),
        ("base_case: {save_steps: 9}", "base_case.save_steps: unknown key (9). Fix: move it to training.save_steps."),
        ("base_case: {Lora-Alpha: 8}", "base_case.Lora-Alpha: unknown key (8). Fix: write alpha."),
        ("base_case: {RANK: 8}", "base_case.RANK: unknown key (8). Fix: write rank."),
        ("base_case: {per_device_train_batch_size: 4}", "unknown key (4). Fix: write batch: [4, 1]."),
        ("base_case: {load_in_4bit: true}", "unknown key (true). Fix: write precision: 4bit."),
        ("base_case: {use_dora: true}", "unknown key (true). Fix: write method: dora."),
        ("base_case: {num_train_epochs: 3}", "unknown key (3). Fix: write budget: {epochs: 3}."),
        (
            "base_case: {gradient_checkpointing: true}",
            "unknown key (true). Fix: remove it: it is always on where a GPU tra",
        ),
        ("base_case: {alpha: [8, 16]}", "base_case.alpha: not an allowed value ([8, 16]). Fix: write one value here, "),
        ("base_case: {rank: [8, 16]}", "Fix: write one value here, and list the others in grid.axes.rank."),
        ("base_case: {target_modules: 'q_proj,v_proj'}", "('q_proj,v_proj'). Fix: write [q_proj, v_proj]."),
        (
            "base_case: {target_modules: q_proj}",
            "base_case.target_modules: not an allowed value ('q_proj'). Fix: write",
        ),
        ("base_case: {target_modules: all_linear}", "('all_linear'). Fix: write all-linear."),
        ("grid: {axes: {target_modules: [q_proj]}}", "grid.axes.target_modules[0]: not an allowed value ('q_p"),
        ("base_case: {batch: 8}", "Fix: write [8, 1]: rows per device, and gradient accumulation steps."),
        ("base_case: {budget: 3}", "Fix: write {epochs: 3}, {steps: 3} or {tokens: 3}."),
        ("base_case: {dropout: 5%}", "base_case.dropout: not a number ('5%'). Fix: write 0.05."),
        ("base_case: {compute_dtype: bfloat16}", "('bfloat16'). Fix: write bf16."),
        ("base_case: {precision: bf16}", "('bf16'). Fix: write 16bit."),
        ("base_case: {precision: 4}", "base_case.precision: not an allowed value (4). Fix: write 4bit."),
        ("base_case: {method: LoRA}", "('LoRA'). Fix: write lora."),
        ("base_case: {method: QLoRA}", "('QLoRA'). Fix: write lora, and the precision 4bit."),
        ("base_case: {method: null}", "base_case.method: not an allowed value (null). Fix: use one of lora, rslora"),
        ("base_case: {optimizer: adamw}", "('adamw'). Fix: write adamw_torch."),
        ("grid: {axes: {learning_rate: [1e-3, 1.0e-3]}}", "grid.axes.learning_rate: has a value twice (0.001). Fix: "),
    ],
)
def test_what_other_trainers_write_is_refused_with_what_is_written_here(load: Load, section: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        load(f"{SHORT}{section}\n")
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_every_spelling_leads_to_a_key_of_the_schema() -> None:
    sections = read_schema()["properties"]
    assert len(HERE) == sum(len(spellings.split()) for spellings in USUAL.values())
    for key in USUAL:
        section, *names = key.partition(": ")[0].split(".")
        if section in ("data", "models"):
            assert section in sections
        else:
            assert names[0] in sections[section]["properties"], key
    for spelling in (*HERE, *NOT_NEEDED):
        known = sorted(sections["base_case"]["properties"])
        assert spelling not in known
        assert key_fix(spelling, 1, place=["base_case"], known=known).startswith(("write ", "remove it: ", "move it "))
