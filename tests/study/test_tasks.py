import shutil
from pathlib import Path

import pytest
import yaml

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.study.study_file import load_study
from loragrid.study.tasks import code_in_tasks, scoring_digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a study, a task file and prompts."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "task.yaml").write_text("task: mine\n")
    (folder / "prompts.jsonl").write_text("{}\n")
    write(folder)
    return folder


def write(folder: Path, **scoring: object) -> None:
    settings = yaml.safe_load((ROOT / "config/studies/demo.yaml").read_text())
    settings["scoring"] |= {"retention": ["task.yaml", "arc_easy"], "qualitative": "prompts.jsonl"} | scoring
    (folder / "mine.yaml").write_text(yaml.safe_dump(settings))


def digest(folder: Path) -> str:
    return scoring_digest(load_study(str(folder / "mine.yaml")))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"threads": 2}, True),
        ({"batch_size": 7}, False),
        ({"limit": 7}, False),
        ({"limit": {"task.yaml": 7, "others": 100}}, False),
        ({"target": ["running_plan"]}, False),
        ({"target": ["running_plan", "arc_easy"], "retention": ["task.yaml"]}, False),
        ({"qualitative": None}, False),
    ],
)
def test_the_digest_holds_exactly_what_determines_a_score(folder: Path, change: dict, same: bool) -> None:
    before = digest(folder)
    write(folder, **change)
    assert (digest(folder) == before) is same


def test_moving_a_study_changes_no_score(folder: Path, tmp_path: Path) -> None:
    write(folder, limit={"task.yaml": 7, "others": 100})
    moved = shutil.copytree(folder, tmp_path / "there")
    assert digest(moved) == digest(folder)
    (moved / "task.yaml").write_text("task: mine\nnum_fewshot: 1\n")
    assert digest(moved) != digest(folder)


def test_items_in_another_folder_count(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("{}\n")
    (folder / "task.yaml").write_text(
        "task: mine\ndataset_kwargs: {file: ../items.jsonl}\ndoc_to_text: !function m.ask\n"
    )
    before = digest(folder)
    (tmp_path / "items.jsonl").write_text("{}\n{}\n")
    assert digest(folder) != before


def test_an_unknown_task_is_named_with_its_key(folder: Path) -> None:
    write(folder, retention=["task.yaml", "arc_eazy"])
    message = r"^mine\.yaml: scoring\.retention\[1\]: unknown task \('arc_eazy'\)\. Fix: use arc_easy"
    with pytest.raises(UserError, match=message):
        digest(folder)


def test_a_task_file_beside_the_study_may_be_meant(folder: Path) -> None:
    (folder / "opposites.yaml").write_text("task: opposites\n")
    write(folder, retention=["oposites"])
    with pytest.raises(UserError, match=r"unknown task \('oposites'\)\. Fix: use .*opposites\.yaml"):
        digest(folder)


def test_task_files_that_run_code_are_named_with_what_they_name(folder: Path) -> None:
    """Beside the task and in what it includes too; the project's own tasks are not named."""
    study = load_study(str(folder / "mine.yaml"))
    assert code_in_tasks(study) == []
    (folder / "task.yaml").write_text("task: mine\ninclude: ../base.yaml\nprocess_docs: !function helpers.clean\n")
    (folder.parent / "base.yaml").write_text("doc_to_text: !function  other.text\nmetric_list: [{hf_evaluate: true}]\n")
    first, second = code_in_tasks(study)
    assert first.startswith(f"{folder.parent}/base.yaml: this task file runs code when the study is scored (")
    assert "!function  other.text, hf_evaluate: true" in first
    assert second.startswith(f"{folder}/task.yaml: ") and "(!function helpers.clean)" in second


@pytest.mark.parametrize("reach", ["{{ cycler.__init__ }}", "{{ x['__class__'] }}", "{{ x | attr(y) }}"])
def test_a_template_that_reaches_into_python_is_named(folder: Path, reach: str) -> None:
    """lm-eval renders it without a sandbox."""
    (folder / "task.yaml").write_text(f'task: my__own__task\ndoc_to_text: "{reach}"\n')
    (line,) = code_in_tasks(load_study(str(folder / "mine.yaml")))
    assert line.startswith(f"{folder}/task.yaml: this task file runs code when the study is scored (")
