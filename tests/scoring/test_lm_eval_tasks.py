"""Tasks found by name and built: the project's, a user's file, lm-eval's own; and errors in task files."""

import json

import pytest

from loragrid.errors import UserError
from loragrid.scoring.lm_eval_tasks import find_tasks
from tests.fixtures.lm_eval_toys import ANSWER, CHOICE, QUESTIONS, SCORE, find


def test_a_task_file_in_any_folder_finds_the_data_beside_it(task_folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = str(task_folder / "toy_choice.yaml")
    found = find_tasks([path], limit=5)
    assert found[path].name == "toy_choice"


def test_the_digest_depends_on_items_settings_and_code_but_not_on_the_folder(task_folder, tmp_path):
    import shutil

    def digest(folder, limit=5):
        return find(["toy_answer"], folder, limit=limit)["toy_answer"].digest

    copy = tmp_path / "copy"
    shutil.copytree(task_folder, copy)
    before = digest(task_folder)
    assert digest(copy) == before
    assert digest(copy, limit=6) != before
    (copy / "score.py").write_text(SCORE.replace("isdigit", "isspace"))
    assert digest(copy) != before
    shutil.copy(task_folder / "score.py", copy)
    (copy / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS[1:]))
    assert digest(copy) != before


def test_a_name_is_looked_up_in_the_projects_tasks_first(task_folder, monkeypatch):
    monkeypatch.setattr("loragrid.study.task_names.TASKS", task_folder)
    assert list(find_tasks(["toy_choice"], limit=5)) == ["toy_choice"]


def test_an_unknown_name_is_reported_with_close_matches(task_folder, monkeypatch):
    monkeypatch.setattr("loragrid.study.task_names.TASKS", task_folder)
    with pytest.raises(UserError, match=r"unknown task \('toy_chioce'\)\. Fix: use toy_choice"):
        find_tasks(["toy_chioce"], limit=None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (": [", "cannot be read"),
        ("- a\n", "cannot be read"),
        ("output_type: multiple_choice\n", "no key 'task'"),
        (CHOICE.replace("questions.jsonl", "absent.jsonl"), "cannot be built .*absent.jsonl"),
        (CHOICE.replace("multiple_choice", "guesswork"), "cannot be built .*guesswork"),
        (CHOICE.replace("test_split: test", "test_split: exam"), "cannot be built .*exam"),
        (ANSWER, "cannot be read .*score"),
        (CHOICE.replace("metric: acc", "metric: ac_norm"), "unknown metric 'ac_norm'. Fix: did you mean acc_norm"),
    ],
)
def test_a_bad_task_file_is_named(tmp_path, text, message):
    (tmp_path / "questions.jsonl").write_text(json.dumps(QUESTIONS[0]) + "\n")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=f"mine.yaml.*{message}"):
        find_tasks([str(tmp_path / "mine.yaml")], limit=None)


def test_two_tasks_with_one_name_are_refused(tmp_path):
    (tmp_path / "questions.jsonl").write_text(json.dumps(QUESTIONS[0]) + "\n")
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(CHOICE)
    with pytest.raises(UserError, match="two task files have the name 'toy_choice'"):
        find_tasks([str(tmp_path / "one.yaml"), str(tmp_path / "two.yaml")], limit=None)


def test_a_task_of_lm_eval_without_its_data_keeps_the_reason(task_folder):
    task = find_tasks([str(task_folder / "toy_choice.yaml"), "blimp_causative"], limit=3)["blimp_causative"]
    assert task.loaded is None
    assert "cannot be built" in task.reason
