"""Work that never ends is ended with one line: rows in a process of their own, a chat template, a tokenizer's pattern."""

import multiprocessing
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import prepare_data
from loragrid.data.parallel_rows import map_batches, row_processes
from loragrid.errors import EXIT_USER_ERROR, UserError
from loragrid.runtime.time_limit import time_limit
from loragrid.study.sections import ModelEntry

LINE = "error: the batch did not end within 0.2 s. Fix: leave it out."
ENDLESS_TEMPLATE = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def exit_code(work: Callable, *arguments: object) -> int | None:
    """The exit status of a forked process that does `work`."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join(60)
    process.kill()
    return process.exitcode


def endless(shared: object, batch: object) -> None:
    with time_limit(0.2, "the batch", fix="leave it out"):
        while True:
            pass


def endless_second(shared: object, batch: list[int]) -> None:
    if batch == [2]:
        endless(shared, batch)


def test_endless_work_ends_with_one_line_and_status_2(capfd: pytest.CaptureFixture) -> None:
    assert exit_code(endless, None, None) == EXIT_USER_ERROR
    assert capfd.readouterr().err.count(LINE) == 1


def test_work_that_ends_in_time_is_left_alone() -> None:
    with time_limit(0.05, "the block", fix="none"):
        pass
    time.sleep(0.1)


def test_a_row_process_that_ends_itself_ends_the_job(capfd: pytest.CaptureFixture) -> None:
    with row_processes(2), pytest.raises(SystemExit) as end:
        list(map_batches(endless_second, None, [[1], [2], [3]]))
    assert end.value.code == EXIT_USER_ERROR
    assert capfd.readouterr().err.count(LINE) == 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_data, "PROBE_SECONDS", 2)


def test_a_chat_template_that_does_not_end(
    toy_llama: Path, tmp_path: Path, quick: None, capfd: pytest.CaptureFixture
) -> None:
    (tmp_path / "endless.jinja").write_text(ENDLESS_TEMPLATE)
    entry = ModelEntry(path=str(toy_llama), precision="32bit", chat_template=str(tmp_path / "endless.jinja"))
    assert exit_code(prepare_data._template, entry, "llama") == EXIT_USER_ERROR
    last = capfd.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"error: model llama: its chat template did not end within 2 s\. Fix: .*", last)


def test_a_loop_that_jinja_itself_refuses(toy_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "long.jinja").write_text("{% for a in range(10**9) %}{% endfor %}")
    entry = ModelEntry(path=str(toy_llama), precision="32bit", chat_template=str(tmp_path / "long.jinja"))
    with pytest.raises(UserError, match=r"does not render a plain conversation \(Range too big"):
        prepare_data._template(entry, "llama")


def test_a_template_that_asks_for_gigabytes(toy_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "huge.jinja").write_text("{% set text = 'a' * 10**11 %}{{ messages[0].content }}")
    entry = ModelEntry(path=str(toy_llama), precision="32bit", chat_template=str(tmp_path / "huge.jinja"))
    with pytest.raises(UserError, match=r"does not render a plain conversation \(MemoryError"):
        prepare_data._template(entry, "llama")


def test_a_tokenizer_whose_pattern_gives_up(toy_llama: Path, tmp_path: Path) -> None:
    """After ten million tries, within a second, with a panic that is no Exception."""
    from tokenizers import Regex, Tokenizer, pre_tokenizers

    folder = shutil.copytree(toy_llama, tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    split = pre_tokenizers.Split(Regex(r"(a|aa)+$"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    entry = ModelEntry(path=str(folder), precision="32bit", chat_template=None)
    with pytest.raises(UserError, match=r"model llama: its tokenizer's pattern gave up \(.*retry-limit.*\)\. Fix: use"):
        prepare_data._template(entry, "llama")
