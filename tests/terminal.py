"""A program at a terminal of its own: what is typed, what it shows, and how it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_SECONDS = 50.0


class Terminal:
    """The side of the person."""

    def __init__(self, side: int, process: subprocess.Popen[bytes]) -> None:
        self._side = side
        self._shown = b""
        self.process = process

    def type(self, text: str) -> None:
        os.write(self._side, text.encode())

    def shows(self, text: str) -> str:
        """Wait until it has shown a text since the last one that was waited for.

        Return what it has shown up to that.
        """
        deadline = time.monotonic() + _SECONDS
        while text.encode() not in self._shown:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self._side], [], [], left)[0], (text, self._shown.decode())
            self._shown += os.read(self._side, 65536)
        before, _, self._shown = self._shown.partition(text.encode())
        return before.decode(errors="replace")

    def ends(self) -> int:
        """Read what is left until the program has ended, and return its exit code."""
        while select.select([self._side], [], [], _SECONDS)[0]:
            try:
                self._shown += os.read(self._side, 65536)
            except OSError:
                # Nobody is left at the other side.
                break
        return self.process.wait(_SECONDS)

    @property
    def rest(self) -> str:
        """What was read and not waited for."""
        return self._shown.decode(errors="replace")

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def at_terminal(
    words: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    columns: int = 100,
    rows: int = 40,
) -> Iterator[Terminal]:
    """Run a program at a terminal of this size; it is killed at the end."""
    ours, theirs = pty.openpty()
    size = struct.pack("HHHH", rows, columns, 0, 0)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    process = subprocess.Popen(
        words,
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment},
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
