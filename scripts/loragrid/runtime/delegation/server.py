"""What the servers of jobs share: they listen in a folder and live as long as the snakemake that owns it."""

import contextlib
import os
import select
import shutil
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.runtime.delegation.transfer import ANSWER, FORWARDED, receive_job


@dataclass(eq=False)
class Child:
    """A process that does jobs, its descriptor (pidfd), and the connection of its job's client, None between jobs."""

    process: int
    descriptor: int
    client: socket.socket | None


class JobServer:
    """Listens in `folder` for jobs until the process `owner` and the last child have exited.

    A job's own process, the client, is watched: a child whose client was killed is killed too.
    """

    def __init__(self, folder: Path, owner: int) -> None:
        self.folder = folder
        self.owner = os.pidfd_open(owner)
        self.listener = socket.socket(socket.AF_UNIX)
        # Clients connect as soon as they see the socket, so it gets its name when it listens.
        self.listener.bind(str(folder / "new"))
        self.listener.listen()
        (folder / "new").rename(folder / "socket")
        self.poll = select.poll()
        for descriptor in (self.owner, self.listener.fileno()):
            self.poll.register(descriptor, select.POLLIN)
        # By the child's process descriptor, and by its client's connection.
        self.children: dict[int, Child] = {}
        self.clients: dict[int, Child] = {}

    def serve(self) -> dict | None:
        """Serve to the end and return None; in a forked child, return its job."""
        for number in FORWARDED:
            # A signal to the whole process group is meant for the jobs.
            signal.signal(number, signal.SIG_IGN)
        while self.owner >= 0 or self.children:
            # One at a time: what is done for the first may close the descriptor of the next.
            for descriptor, _ in self.poll.poll(self.longest_wait())[:1]:
                if descriptor == self.owner:
                    self.leave()
                elif descriptor == self.listener.fileno():
                    if (job := self._accept()) is not None:
                        return job
                elif descriptor in self.children:
                    self.child_exited(self.children[descriptor])
                elif descriptor in self.clients:
                    # The job's own process was killed, so its child must not go on.
                    os.kill(self.clients[descriptor].process, signal.SIGKILL)
                    self.poll.unregister(descriptor)
                else:
                    self.heard(descriptor)
        return None

    def begin(self, job: dict[str, Any], descriptors: list[int], connection: socket.socket) -> dict | None:
        """Begin a client's job, or close its connection to decline it; returns the job in a forked child only."""
        raise NotImplementedError

    def longest_wait(self) -> int | None:
        """Milliseconds until the server has something to do that nobody tells it; None for never."""
        return None

    def heard(self, descriptor: int) -> None:
        """Handle another descriptor that the server registered."""

    def leave(self) -> None:
        """Take no more jobs: the owner has exited. Those that run continue, as they would without a server."""
        self.poll.unregister(self.owner)
        self.poll.unregister(self.listener.fileno())
        shutil.rmtree(self.folder, ignore_errors=True)
        self.owner = -1

    def watch(self, child: Child, client: socket.socket) -> None:
        """Watch the client of a child's job."""
        child.client = client
        self.clients[client.fileno()] = child
        self.poll.register(client.fileno(), select.POLLIN | select.POLLHUP)

    def add_child(self, child: Child) -> None:
        """Watch for the end of a child."""
        self.children[child.descriptor] = child
        self.poll.register(child.descriptor, select.POLLIN)

    def answer(self, child: Child, status: int) -> None:
        """Tell the client of a child's job how the job ended."""
        client = self.forget_client(child)
        if client is not None:
            with contextlib.suppress(OSError):
                client.sendall(ANSWER.pack(status))
            client.close()

    def forget_client(self, child: Child) -> socket.socket | None:
        """Stop watching the client of a child's job and return its connection; None between jobs."""
        client, child.client = child.client, None
        if client is not None:
            with contextlib.suppress(KeyError):  # removed already if the client was killed
                self.poll.unregister(client.fileno())
            del self.clients[client.fileno()]
        return client

    def child_exited(self, child: Child) -> None:
        """Pass a child's exit status on to its client."""
        del self.children[child.descriptor]
        _, status = os.waitpid(child.process, 0)
        self.answer(child, status)
        self.poll.unregister(child.descriptor)
        os.close(child.descriptor)

    def _accept(self) -> dict | None:
        connection, _ = self.listener.accept()
        received = receive_job(connection)
        if received is None:
            connection.close()  # the client died while sending
            return None
        return self.begin(*received, connection)
