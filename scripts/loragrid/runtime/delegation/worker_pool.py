"""The resident workers of one local run: processes that hold a base and do its train and score jobs one by one.

On a GPU nothing can be forked, so every job would import its libraries, read its base and quantise it again. The
workflow therefore names a folder in an environment variable, and the first job starts this server there. It starts a
worker for a job, hands it later jobs of the same kind, and ends it when it was idle for a while or when the owner, the
main snakemake, has exited. A job's own process waits for its worker as for a child of the fork server, and takes the
worker with it when it is killed.

A place is a card, or a share of one, where one job runs at a time. It has at most one worker of each family: unsloth
changes the libraries of its process for good, so its jobs have workers of their own. Only the worker with the job
holds a base: the others on that card free theirs before it begins.
"""

import contextlib
import json
import os
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.runtime.delegation.pool_workers import (
    JobKind,
    Place,
    Worker,
    dismiss,
    end,
    fixed_at_start,
    release,
    start_worker,
)
from loragrid.runtime.delegation.server import Child, JobServer
from loragrid.runtime.delegation.transfer import ANSWER, receive_answer, send_job
from loragrid.runtime.delegation.worker import BEGUN, LAST
from loragrid.runtime.gpu_locks import lock_one_gpu
from loragrid.runtime.visible_gpus import VARIABLE

# A job of the search does its own work; it is asked for so that the workers free the card's memory.
STAGES = ("train", "score", "tune")
# Written by the workflow. "kinds": the fields of each `JobKind`; "names": stage → name of a job → number of its kind.
KINDS = "kinds.json"
# A worker holds a card's memory, and the jobs of a study follow each other closely.
IDLE_SECONDS = 300.0


class WorkerPool(JobServer):
    """Hands each job to a worker that fits it, or declines it."""

    def __init__(self, folder: Path, owner: int) -> None:
        super().__init__(folder, owner)
        self.kinds = self.read_kinds()
        self.places: list[Place] = []
        # By the descriptor of their channel.
        self.workers: dict[int, tuple[Place, Worker]] = {}

    def read_kinds(self) -> dict[str, Any]:
        """The kinds of jobs as the workflow named them."""
        return json.loads((self.folder / KINDS).read_text(encoding="utf-8"))

    def begin(self, job: dict[str, Any], descriptors: list[int], connection: socket.socket) -> dict | None:
        """Hand the job to a worker; a job of unknown kind is declined, and the cards' memory freed for it."""
        kind = self.kind_of(job["argv"])
        try:
            if kind is None:
                for place in list(self.places):
                    self._make_room(place.device, but=None, alone=False)
                connection.close()
            else:
                self._hand_over(job, descriptors, connection, kind)
        except (OSError, UserError):
            connection.close()  # the job then does its own work, and says itself what is wrong
        for descriptor in descriptors:
            os.close(descriptor)
        self._drop_empty_places()

    def longest_wait(self) -> int | None:
        """Milliseconds until a worker was idle for too long; ends those that were."""
        now, waits = time.monotonic(), []
        for _, worker in self.workers.values():
            if worker.client is None:
                left = worker.idle_since + IDLE_SECONDS - now
                if left <= 0:
                    dismiss(worker)
                    left = IDLE_SECONDS
                waits.append(left)
        return int(1000 * min(waits)) + 1 if waits else None

    def heard(self, descriptor: int) -> None:
        """A worker has taken its job over, has done it, or exits."""
        if descriptor not in self.workers:
            return
        _, worker = self.workers[descriptor]
        said = self._hear(worker)
        if said is None:
            self.poll.unregister(descriptor)  # its exit follows
        elif said == LAST:
            self._end(worker)
            self._drop_empty_places()
        elif worker.client is None and self.owner < 0:
            dismiss(worker)

    def leave(self) -> None:
        """Take no more jobs, and end the workers that have none."""
        super().leave()
        for _, worker in self.workers.values():
            if worker.client is None:
                dismiss(worker)

    def child_exited(self, child: Child) -> None:
        """Pass the exit status on, and give the place of the last worker back."""
        if isinstance(child, Worker):
            self._remove(child)
            self._drop_empty_places()
        else:
            super().child_exited(child)

    def new_worker(self, job: dict[str, Any], fixed: tuple) -> Worker:
        """A worker's process for a job that it has not been sent yet."""
        return start_worker(job, fixed)

    def kind_of(self, argv: list[str]) -> JobKind | None:
        """The kind of a job by its command line; None if the workflow named none."""
        names = self.kinds["names"].get(Path(argv[0]).stem, {})
        for option in ("--run", "--subject"):
            if option in argv[:-1]:
                # A subject RUN@SHARE is a run at a part of its budget.
                number = names.get(argv[argv.index(option) + 1].split("@")[0])
                return None if number is None else JobKind(*self.kinds["kinds"][number])
        return None

    def _hand_over(self, job: dict, descriptors: list[int], connection: socket.socket, kind: JobKind) -> None:
        fixed = fixed_at_start(job, kind)
        place = self._place(kind, fixed)
        if place.device is not None:
            job["environment"][VARIABLE] = place.device
        worker = place.workers.get(kind.family)
        if worker is not None and worker.fixed != fixed:
            self._end(worker)
            worker = None
        self._make_room(place.device, but=worker, alone=kind.alone)
        if worker is not None:
            try:
                send_job(worker.channel, job, descriptors)
            except OSError:  # it was killed while idle
                self._end(worker)
                worker = None
        if worker is None:
            worker = self._start(place, kind.family, job, fixed)
            send_job(worker.channel, job, descriptors)
        worker.base, worker.begun = kind.base, False
        self.watch(worker, connection)

    def _place(self, kind: JobKind, fixed: tuple) -> Place:
        """A place without a job, best one whose worker fits and holds the base; a new one if all are busy."""
        busy = {place.device for place in self.places if place.is_busy()}

        def fits(place: Place) -> tuple[bool, bool, bool]:
            worker = place.workers.get(kind.family)
            same = worker is not None and worker.fixed == fixed
            return place.device not in busy, same and worker.base == kind.base, same

        free = [place for place in self.places if not place.is_busy()]
        if free:
            return max(free, key=fits)
        device, lock = lock_one_gpu() or (None, None)
        self.places.append(Place(device, lock))
        return self.places[-1]

    def _make_room(self, device: str | None, *, but: Worker | None, alone: bool) -> None:
        """Let the idle workers of a card, `but` one, free what they hold; end them for a job that is `alone`."""
        for place, worker in list(self.workers.values()):
            if place.device != device or worker is but or worker.client is not None:
                continue
            if alone or not release(worker):
                self._end(worker)

    def _start(self, place: Place, family: str, job: dict[str, Any], fixed: tuple) -> Worker:
        worker = self.new_worker(job, fixed)
        place.workers[family] = worker
        self.workers[worker.channel.fileno()] = (place, worker)
        self.add_child(worker)
        self.poll.register(worker.channel.fileno(), select.POLLIN)
        return worker

    def _hear(self, worker: Worker) -> int | None:
        """What a worker says next, passed on to its client; None if it exits."""
        said = receive_answer(worker.channel)
        if said == BEGUN:
            worker.begun = True
            # Only now: before, a signal would meet a worker that ignores it, as it does between jobs.
            if worker.client is not None:
                with contextlib.suppress(OSError):
                    worker.client.sendall(ANSWER.pack(worker.process))
        elif said is not None:
            self.answer(worker, 0)
            worker.idle_since = time.monotonic()
        return said

    def _end(self, worker: Worker) -> None:
        """End an idle worker, so that its memory is free."""
        end(worker)
        self._remove(worker)

    def _remove(self, worker: Worker) -> None:
        """Forget a worker that has exited, and pass its exit status on."""
        # What it said before its exit comes first.
        while worker.client is not None and select.select([worker.channel], [], [], 0)[0]:
            if self._hear(worker) is None:
                break
        if worker.client is not None and not worker.begun:
            # Its client has no process to wait for yet, and does the job itself.
            self.forget_client(worker).close()
        descriptor = worker.channel.fileno()
        with contextlib.suppress(KeyError):
            self.poll.unregister(descriptor)
        place, _ = self.workers.pop(descriptor)
        place.workers = {family: other for family, other in place.workers.items() if other is not worker}
        worker.channel.close()
        super().child_exited(worker)

    def _drop_empty_places(self) -> None:
        for place in [place for place in self.places if not place.workers]:
            self.places.remove(place)
            if place.lock is not None:
                os.close(place.lock)


def main() -> None:
    """Serve in the folder that is the only argument."""
    folder = Path(sys.argv[1])
    WorkerPool(folder, int((folder / "owner").read_text())).serve()


if __name__ == "__main__":
    main()
