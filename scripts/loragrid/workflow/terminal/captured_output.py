"""A descriptor of this process whose lines go to a function, so that the display alone writes to the terminal."""

import os
import select
import threading
from collections.abc import Callable


class CapturedOutput:
    """Takes a descriptor over for this process and all that it starts, until `close`.

    `on_line` gets each line in a thread of its own; `original` is the descriptor of the terminal or file.
    """

    def __init__(self, descriptor: int, on_line: Callable[[str], None]) -> None:
        self._descriptor, self._on_line = descriptor, on_line
        self.original = os.dup(descriptor)
        self._reading, writing = os.pipe()
        self._woken, self._waking = os.pipe()
        os.set_blocking(self._reading, False)
        os.dup2(writing, descriptor)
        os.close(writing)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give the descriptor back once everything is read that was written until now."""
        os.dup2(self.original, self._descriptor)
        # Not the end of the pipe: a process that outlives this one may hold it.
        os.write(self._waking, b"x")
        self._thread.join()
        for descriptor in (self._reading, self._woken, self._waking, self.original):
            os.close(descriptor)

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._reading, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        rest = b""
        while True:
            woken = self._woken in [descriptor for descriptor, _ in poll.poll()]
            data = self._available()
            # A bar of another library rewrites its line with carriage returns.
            *lines, rest = (rest + data).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            self._pass_on(lines)
            if woken and not data:
                break
        if rest:
            self._pass_on([rest])

    def _available(self) -> bytes:
        try:
            return os.read(self._reading, 65536)
        except BlockingIOError:
            return b""

    def _pass_on(self, lines: list[bytes]) -> None:
        for line in lines:
            self._on_line(line.decode(errors="replace"))
