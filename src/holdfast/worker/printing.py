"""What tasks print: to the worker's own stdout and stderr, or to a log that is bounded."""

from __future__ import annotations

import sys
from pathlib import Path

LOG_BYTES_MAX = 8 * 1024 * 1024


class Printer:
    """A sink for what children write. With a path, one file and the one before it are kept."""

    def __init__(self, path: Path | None, *, bytes_max: int = LOG_BYTES_MAX) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._size = 0 if path is None or not path.exists() else path.stat().st_size

    def __call__(self, lane: int, error: bool, data: bytes) -> None:
        """Write one piece; a sink that cannot be written any more loses it, and only it."""
        try:
            if self._path is None:
                stream = sys.stderr.buffer if error else sys.stdout.buffer
                stream.write(data)
                stream.flush()
            else:
                self._append(self._path, data)
        except OSError:
            # The terminal is gone or the disk is full: the tasks go on without their words.
            return

    def _append(self, path: Path, data: bytes) -> None:
        if self._size + len(data) > self._bytes_max:
            path.replace(path.with_name(f"{path.name}.1"))
            self._size = 0
        with path.open("ab") as file:
            file.write(data)
        self._size += len(data)
