"""Batches in several processes: the same results in the same order, and no process left behind."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loragrid.data import source_scan, tokenised_rows
from loragrid.data.parallel_rows import batches, map_batches, row_processes
from loragrid.data.rendering.encoder import Encoder
from loragrid.data.source_scan import SourceScans
from loragrid.errors import Failed, UserError
from loragrid.models.chat_templates.probes import inspect_template
from loragrid.models.loading import load_tokenizer
from loragrid.runtime.worker_processes import WAITING_BATCHES
from tests.fixtures.chat_data import as_source, good_rows, prepare, study_of, study_of_sets, write_rows


def add_all(shared, batch):
    time.sleep(0.01 * (batch[0] % 3))  # the batches do not end in the order in which they begin
    return os.getpid(), [shared + number for number in batch]


def refuse(limit, batch):
    if batch[-1] >= limit:
        raise UserError(f"{batch[-1]}: too large")
    return batch


def kill_itself(_, batch):
    if batch[0] == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_results_come_in_the_order_of_the_batches(processes):
    with row_processes(processes):
        found = list(map_batches(add_all, 100, batches(range(50), 4)))
    assert [number for _, part in found for number in part] == list(range(100, 150))
    others = {pid for pid, _ in found} - {os.getpid()}
    assert len(others) == 0 if processes == 1 else 1 <= len(others) <= processes


def test_rows_are_taken_only_as_they_are_needed():
    taken = []

    def numbers():
        for number in range(1000):
            taken.append(number)
            yield number

    with row_processes(2):
        results = map_batches(add_all, 0, batches(numbers(), 5))
        next(results)
        assert len(taken) <= 5 * (2 * WAITING_BATCHES + 1)
        results.close()


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_is_raised_at_its_place(processes):
    with row_processes(processes):
        results = map_batches(refuse, 11, batches(range(50), 3))
        assert [next(results) for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
        with pytest.raises(UserError, match="11: too large"):
            next(results)


def test_a_killed_process_fails_the_stage():
    with row_processes(2), pytest.raises(Failed, match=r"was killed, .* Fix: give fewer cores"):
        list(map_batches(kill_itself, None, batches(range(50), 3)))


def test_one_batch_needs_no_process():
    with row_processes(4):
        assert list(map_batches(add_all, 1, [[0, 1]])) == [(os.getpid(), [1, 2])]
        assert list(map_batches(add_all, 1, [])) == []


ENDLESS = """
import itertools, os, sys, time
from loragrid.data.parallel_rows import map_batches, row_processes
def work(_, batch):
    return os.getpid()
with row_processes(2):
    for pid in map_batches(work, None, itertools.count()):
        print(pid, flush=True)
        time.sleep(0.01)
"""


def test_processes_end_with_a_killed_parent(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    # A module of its own name, so that a spawned process could import the function too.
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    pids = {int(parent.stdout.readline()) for _ in range(20)}
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while any(_runs(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert pids and not any(_runs(pid) for pid in pids)


def _runs(pid):
    try:
        # A process that has ended but was not waited for is a zombie.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_prepared_set_does_not_depend_on_the_number_of_processes(tmp_path, toy_llama, monkeypatch):
    monkeypatch.setattr(source_scan, "BATCH_ROWS", 7)
    monkeypatch.setattr(tokenised_rows, "BATCH_ROWS", 5)
    rows = [*good_rows(), {"conversations": []}, *good_rows(3), {"conversations": [{"from": "gpt", "value": "x"}]}]
    settings = {"bad_rows": "drop", "columns": {"messages": "conversations"}, "roles": {"seeker": "user"}}
    study = study_of(write_rows(tmp_path / "rows.jsonl", rows), toy_llama, **settings)
    with open(tmp_path / "rows.jsonl", "a") as file:
        file.write("{half\n")
    contents = []
    for processes in (1, 2):
        out = tmp_path / f"out{processes}"
        with row_processes(processes):
            card = prepare(study, out)
        assert card["rows_read"] == 46 and card["duplicates_removed"]["count"] == 3
        contents.append({path.name: path.read_bytes() for path in sorted(out.iterdir())})
    assert contents[0] == contents[1] and len(contents[0]) == 5


def test_a_bad_line_stops_all_processes(tmp_path, toy_llama, monkeypatch):
    monkeypatch.setattr(source_scan, "BATCH_ROWS", 7)
    path = write_rows(tmp_path / "rows.jsonl", good_rows())
    path.write_text(path.read_text() + "{half\n")
    with row_processes(2), pytest.raises(UserError, match=r"rows\.jsonl, line 41: not JSON"):
        prepare(study_of(path, toy_llama), tmp_path / "out")


def test_what_processes_share_can_be_pickled(toy_llama, tmp_path, monkeypatch):
    """Where processes cannot be forked, they get it so."""
    study = study_of(write_rows(tmp_path / "rows.jsonl", good_rows()), toy_llama)
    template = inspect_template(load_tokenizer(study.models["m"]), model="m")
    encoder = Encoder(template, 100, "assistant", "cut")
    copy = pickle.loads(pickle.dumps(encoder))
    assert copy.template.text == template.text and copy.max_length_tokens == 100
    shared = []
    monkeypatch.setattr(source_scan, "map_batches", lambda function, given, work: shared.append(given) or ())
    data = {"chat": {"source": as_source(tmp_path / "rows.jsonl"), "columns": {"messages": "conversations"}}}
    with pytest.raises(UserError):
        SourceScans(tmp_path).scan(study_of_sets(data, toy_llama).data["chat"])
    assert pickle.loads(pickle.dumps(shared)) == shared != []
