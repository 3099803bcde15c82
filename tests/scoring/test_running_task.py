"""Answers that an interrupted job has kept."""

from pathlib import Path

from loragrid.scoring.running_task import KeptAnswers


def test_answers_are_found_by_request_and_under_their_key_only(tmp_path: Path) -> None:
    path = tmp_path / "tasks" / "plan.answers"
    kept = KeptAnswers(path, "a")
    assert kept.get([[1, 2], 5]) is None
    kept.add([[1, 2], 5], [7, 8])
    kept.add([[1, 3], 5], [])
    again = KeptAnswers(path, "a")
    assert again.get([[1, 2], 5]) == [7, 8] and again.get([[1, 3], 5]) == []
    assert again.get([[1, 2], 6]) is None
    assert KeptAnswers(path, "b").get([[1, 2], 5]) is None
    again.remove()
    assert not path.exists() and again.get([[1, 2], 5]) is None


def test_a_line_that_a_kill_cut_off_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "plan.answers"
    for request in (1, 2):
        KeptAnswers(path, "a").add(request, [4, 5])
    path.write_bytes(path.read_bytes()[:-3])
    kept = KeptAnswers(path, "a")
    assert kept.get(1) == [4, 5] and kept.get(2) is None
    kept.add(2, [6])
    assert KeptAnswers(path, "a").get(2) == [6]


def test_without_a_file_nothing_is_kept() -> None:
    kept = KeptAnswers(None)
    kept.add(1, [2])
    assert kept.get(1) is None
    kept.remove()
