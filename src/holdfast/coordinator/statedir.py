"""The state directory of one coordinator: whose it is, and whether it is still there."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from holdfast.errors import ConfigurationError

DATABASE = "store.db"
_LOCK_SECONDS = 0.3
_LOCK_LOOK_SECONDS = 0.02


class StateLock:
    """The lock that makes a coordinator the only one of its state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "coordinator.lock"
        self._fd = -1

    def __enter__(self) -> StateLock:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"the state directory {self._path.parent} cannot be written: {error.strerror}; "
                "give another with --state-dir"
            ) from error
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return self
            except OSError:
                # Who only looks whether one lives holds the lock for a moment, too.
                if time.monotonic() > deadline:
                    break
            time.sleep(_LOCK_LOOK_SECONDS)
        os.close(self._fd)
        raise ConfigurationError(
            f"a coordinator already runs in {self._path.parent}: speak with it, or give another "
            "--state-dir"
        )

    @property
    def lost(self) -> str:
        """What was removed or replaced since we began, "" where it is still there."""
        held = os.fstat(self._fd)
        if _inode(self._path) != (held.st_dev, held.st_ino):
            # Nobody finds the way into a deleted directory.
            return f"the state directory {self._path.parent} was removed"
        return ""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)


def _inode(path: Path) -> tuple[int, int] | None:
    """Return which file a path names, None for no file."""
    try:
        named = path.stat()
    except OSError:
        return None
    return named.st_dev, named.st_ino
