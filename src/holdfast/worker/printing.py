"""What tasks print: to the worker's own stdout and stderr, or to a log that is bounded.

The event loop only passes it on: a thread writes. While too much waits for that, children are read
no further: whoever prints then waits at a full pipe, and the worker goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from holdfast.outlet import Outlet, Streams

LOG_BYTES_MAX = 8 * 1024 * 1024


class Printer:
    """A sink for what children write. `read_on` says whether they are to be read further."""

    def __init__(self, streams: Streams, *, read_on: Callable[[bool], None]) -> None:
        self._streams = streams
        self._read_on = read_on
        self._crowded: dict[Outlet, None] = {}

    def __call__(self, lane: int, error: bool, data: bytes) -> None:
        """Pass on one piece. On the event loop only."""
        outlet = self._streams.err if error else self._streams.out
        outlet.put(data)
        if outlet in self._crowded:
            return
        loop = asyncio.get_running_loop()
        if outlet.is_crowded(partial(_soon, loop, self._relieved, outlet)):
            self._crowded[outlet] = None
            self._read_on(False)

    def _relieved(self, outlet: Outlet) -> None:
        del self._crowded[outlet]
        if not self._crowded:
            self._read_on(True)


class Log:
    """A bounded file: it and the one before it are kept."""

    def __init__(self, path: Path, *, bytes_max: int = LOG_BYTES_MAX) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._size = path.stat().st_size if path.exists() else 0

    def write(self, data: bytes) -> None:
        """Append one piece. Raises OSError."""
        if self._size + len(data) > self._bytes_max:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._size = 0
        with self._path.open("ab") as file:
            file.write(data)
        self._size += len(data)


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[Outlet], None], outlet: Outlet) -> None:
    """Call something on the loop, from a thread, as long as there is one."""
    try:
        loop.call_soon_threadsafe(call, outlet)
    except RuntimeError:
        return  # The worker has ended.
