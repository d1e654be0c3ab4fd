"""The way out for what is printed and logged: whoever writes never waits, a thread does.

Rules
-----
Bytes leave in the order in which they were put. A sink that takes nothing (a pager, a terminal that
was stopped, a log driver that hangs) holds up the thread of its outlet, and nobody else. What waits
is bounded: whoever can slow its source learns when much waits, and when little does again; at the
bound bytes are not taken, and their number is said in their place. What the sink refuses is lost,
and only that.

The thread is a daemon that holds no lock of Python's streams, so that a sink which stalls for ever
does not keep the process from its end.

Where a standard stream was closed before we began, its number is the lowest that is free, and would
be given to the next socket or pipe. Who opens some for long, or starts processes, fills it first.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Final

BYTES_MAX: Final = 4 * 1024 * 1024
MUCH_BYTES: Final = 1024 * 1024
LITTLE_BYTES: Final = 256 * 1024

Sink = Callable[[bytes], None]
"""Writes all of it, however long that takes. Raises OSError."""


class Outlet:
    """One sink, its queue, and its thread."""

    def __init__(self, sink: Sink, *, bytes_max: int = BYTES_MAX) -> None:
        self._sink = sink
        self._bytes_max = bytes_max
        self._changed = threading.Condition()
        self._queue: deque[bytes] = deque()
        self._waiting = 0
        """Bytes that are not written yet, with those that are being written."""
        self._missing = 0
        """Bytes that were not taken, and have not been told of."""
        self._relieved: list[Callable[[], None]] = []
        threading.Thread(target=self._serve, name="outlet", daemon=True).start()

    def put(self, data: bytes) -> None:
        """Have bytes written; returns at once. Any thread may call it."""
        with self._changed:
            if self._waiting + len(data) > self._bytes_max:
                self._missing += len(data)
                if self._waiting:
                    return  # It is told once that is out, or before what comes next.
                data = b""
            self._tell_of_missing()
            self._add(data)

    def is_crowded(self, relieved: Callable[[], None]) -> bool:
        """Return whether much waits; the thread calls `relieved` once, when little does."""
        with self._changed:
            if self._waiting <= MUCH_BYTES:
                return False
            self._relieved.append(relieved)
            return True

    def flush(self, within_seconds: float) -> bool:
        """Wait until all is written; False where it is not within this time."""
        with self._changed:
            return self._changed.wait_for(self._is_empty, within_seconds)

    def _is_empty(self) -> bool:
        return not self._waiting and not self._missing

    def _add(self, data: bytes) -> None:
        if data:
            self._queue.append(data)
            self._waiting += len(data)
            self._changed.notify_all()

    def _tell_of_missing(self) -> None:
        if self._missing:
            said, self._missing = self._missing, 0
            self._add(b"\n[holdfast: %d bytes of output are not shown here]\n" % said)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                data = self._queue.popleft()
            try:
                self._sink(data)
            except OSError:
                # The terminal is gone or the disk is full: the tasks go on without their words.
                pass
            for relieved in self._written(len(data)):
                relieved()

    def _written(self, size: int) -> list[Callable[[], None]]:
        """Note that so much is out; return who is to be told."""
        with self._changed:
            self._waiting -= size
            if not self._queue:
                self._tell_of_missing()
            self._changed.notify_all()
            if self._waiting > LITTLE_BYTES:
                return []
            told, self._relieved = self._relieved, []
            return told


@dataclass(frozen=True, slots=True)
class Streams:
    """The outlets of stdout and stderr: one and the same where both lead to one place."""

    out: Outlet
    err: Outlet

    def flush(self, within_seconds: float) -> None:
        """Wait until all is written, on each stream at most so long."""
        self.out.flush(within_seconds)
        self.err.flush(within_seconds)


def standard_streams() -> Streams:
    """Return new outlets of this process's stdout and stderr, as they are now."""
    out, err = _descriptor(sys.stdout), _descriptor(sys.stderr)
    if out >= 0 and err >= 0 and os.path.sameopenfile(out, err):
        # So that what leads to one place gets there in order.
        both = Outlet(_to(err))
        return Streams(both, both)
    return Streams(Outlet(_to(out)), Outlet(_to(err)))


def fill_standard_descriptors(*, inheritable: bool) -> None:
    """Have /dev/null stand where standard input, output or error is closed, for good.

    A loop ends the process where it finds a descriptor of its own there, and a pipe that goes to a
    child would be lost under the child's streams. With `inheritable` children get it too; else they
    find closed what we found closed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, inheritable)
    os.close(descriptor)


def _descriptor(stream: IO[str] | None) -> int:
    """Return what a stream writes to, -1 where it was closed before we began.

    Its number may be that of something else by now.
    """
    return -1 if stream is None else stream.fileno()


def _to(descriptor: int) -> Sink:
    def write(data: bytes) -> None:
        rest = memoryview(data)
        while rest and descriptor >= 0:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                # Another process that shares it has set it so.
                poll = select.poll()
                poll.register(descriptor, select.POLLOUT)
                poll.poll()

    return write
