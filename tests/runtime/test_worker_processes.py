"""Work that never ends is ended with one line: rows in a process of their own, a chat template, a tokenizer's pattern."""

import multiprocessing
import os
import resource
import shutil
import signal
import threading
from pathlib import Path

import pytest

from loragrid.data.parallel_rows import map_batches, row_processes
from loragrid.errors import UserError
from loragrid.models.chat_templates import checked
from loragrid.models.chat_templates.checked import checked_template
from loragrid.models.chat_templates.template import ChatTemplate
from loragrid.models.loading import load_tokenizer
from loragrid.runtime.worker_processes import TimeLimit, in_own_process
from loragrid.study.sections import ModelEntry

LIMIT = TimeLimit(0.2, "the batch", fix="leave it out")


def loop(_: object) -> None:
    while True:
        pass


def hold_the_lock(_: object) -> int:
    """For hours in one call of native code, which no thread and no signal handler of Python interrupts."""
    return 10 ** (10**8)


@pytest.mark.parametrize("work", [loop, hold_the_lock])
def test_endless_work_ends_with_one_line(work) -> None:
    with pytest.raises(UserError, match=r"^the batch did not end within 0\.2 s of CPU time\. Fix: leave it out\.$"):
        in_own_process(work, None, LIMIT)


def test_ctrl_c_does_not_wait_for_endless_work() -> None:
    # Another test of this process may have left a handler of its own.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            in_own_process(hold_the_lock, None, TimeLimit(600, "the batch", fix="leave it out"))
    finally:
        interrupt.cancel()
        signal.signal(signal.SIGINT, before)
    assert not multiprocessing.active_children()


def test_work_that_ends_in_time_gives_its_result_and_leaves_no_limit_behind() -> None:
    before = resource.getrlimit(resource.RLIMIT_CPU)
    assert in_own_process(len, "result", LIMIT) == 6
    assert resource.getrlimit(resource.RLIMIT_CPU) == before


def endless_second(shared: object, batch: list[int]) -> list[int]:
    return hold_the_lock(batch) if batch == [2] else batch


@pytest.mark.parametrize("processes", [1, 2])
def test_the_rows_that_do_not_end_are_named(processes: int) -> None:
    work = [[1], [2], [3]]
    with row_processes(processes), pytest.raises(UserError, match=r"the batch on .*2.* did not end within 0\.2 s"):
        list(map_batches(endless_second, None, work, limit=LIMIT, describe=lambda waiting: f" on {waiting}"))


def template_of(folder: Path, text: str | None = None, tmp_path: Path | None = None) -> ChatTemplate:
    """The checked template of a model, with another text of its own."""
    path = None
    if text is not None:
        path = tmp_path / "template.jinja"
        path.write_text(text)
    entry = ModelEntry(path=str(folder), precision="32bit", chat_template=path and str(path))
    return checked_template(load_tokenizer(entry), model="llama")


LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
LONG_CALLS = ["{{ 10 ** (10 ** 8) }}", "{% set n = messages | length %}{{ (n * 10) ** (n * 10 ** 8) }}"]


@pytest.mark.parametrize("text", [LOOPS, *LONG_CALLS], ids=["loops", "a constant", "one call"])
def test_a_chat_template_that_does_not_end(
    text: str, toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked, "PROBE_SECONDS", 1)
    with pytest.raises(
        UserError, match=r"^model llama: its chat template did not end within 1 s of CPU time\. Fix: set another"
    ):
        template_of(toy_llama, text, tmp_path)


def test_a_loop_that_jinja_itself_refuses(toy_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not render a plain conversation \(Range too big"):
        template_of(toy_llama, "{% for a in range(10**9) %}{% endfor %}", tmp_path)


def test_a_template_that_asks_for_gigabytes(toy_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not render a plain conversation \(MemoryError"):
        template_of(toy_llama, "{% set text = 'a' * 10**11 %}{{ messages[0].content }}", tmp_path)


def test_a_tokenizer_whose_pattern_gives_up(toy_llama: Path, tmp_path: Path) -> None:
    """After ten million tries, within a second, with a panic that is no Exception."""
    from tokenizers import Regex, Tokenizer, pre_tokenizers

    folder = shutil.copytree(toy_llama, tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    split = pre_tokenizers.Split(Regex(r"(a|aa)+$"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(UserError, match=r"model llama: its tokenizer's pattern gave up \(.*retry-limit.*\)\. Fix: use"):
        template_of(folder)
