"""A worker's state directory: who it is, how many lives it had, and whose leases it spooled.

Owns `lock` (held by `flock` while the worker lives, so that one identity never runs twice),
`identity`, `incarnation`, `store`, and the folder of payloads under way. Each small file is
replaced as a whole and made durable before anybody relies on it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from pathlib import Path

from holdfast.disk import fsync_directory
from holdfast.errors import ConfigurationError
from holdfast.worker.transfers import PAYLOADS

IDENTITY_BYTES = 16
_LOCK_SECONDS = 0.25
_LOCK_LOOK_SECONDS = 0.01


class FileHome:
    """`ports.WorkerHome` over a directory that this process holds alone."""

    def __init__(self, path: Path, lock: int, identity: str) -> None:
        """Wrap a directory that is already held; `open` is the way to get one."""
        self._path = path
        self._lock = lock
        self.identity = identity

    @classmethod
    def open(cls, path: Path) -> FileHome:
        """Take a state directory, making it where it does not exist.

        Raises ConfigurationError where another process holds it, or it cannot be used.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"the worker's state directory {path}: {error}") from None
        try:
            _take(lock)
            identity = _read(path / "identity") or _new_identity(path)
            _clear(path / PAYLOADS)
        except BlockingIOError:
            os.close(lock)
            raise ConfigurationError(
                f"another worker runs with the state directory {path}: give this one its own"
            ) from None
        except OSError as error:
            os.close(lock)
            raise ConfigurationError(f"the worker's state directory {path}: {error}") from None
        if len(identity) != 2 * IDENTITY_BYTES or not identity.isalnum():
            os.close(lock)
            raise ConfigurationError(f"{path / 'identity'} does not hold an identity")
        return cls(path, lock, identity)

    @property
    def path(self) -> Path:
        """The directory itself."""
        return self._path

    def next_incarnation(self) -> int:
        """Return a number above all former ones; durable before it is returned.

        Raises ConfigurationError where the counter cannot be read, because a number used before
        would be refused by every coordinator.
        """
        text = _read(self._path / "incarnation") or "0"
        if not text.isdecimal():
            raise ConfigurationError(f"{self._path / 'incarnation'} does not hold a number")
        number = int(text) + 1
        _replace(self._path / "incarnation", str(number))
        return number

    def store(self) -> tuple[str, int]:
        """Return the id and timeline of the store that gave what is spooled; ("", 0) at first."""
        store, _, timeline = _read(self._path / "store").rpartition(" ")
        return (store, int(timeline)) if store and timeline.isdecimal() else ("", 0)

    def remember_store(self, store: str, timeline: int) -> None:
        """Note whose session this is; durable on return."""
        _replace(self._path / "store", f"{store} {timeline}")

    def close(self) -> None:
        """Let the directory go."""
        os.close(self._lock)


def _clear(folder: Path) -> None:
    """Make a folder, without what a former life has left there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for left_behind in folder.iterdir():
        left_behind.unlink()


def _new_identity(path: Path) -> str:
    identity = secrets.token_hex(IDENTITY_BYTES)
    _replace(path / "identity", identity)
    return identity


def _take(lock: int) -> None:
    """Take the lock. Raises BlockingIOError where another process keeps it.

    Who only looks whether somebody lives here holds it for a moment, too.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_LOCK_LOOK_SECONDS)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def _replace(path: Path, text: str) -> None:
    """Write a small file so that a crash leaves the old one or the new one, never a half."""
    making = path.with_name(f"{path.name}.making")
    with making.open("w", encoding="ascii") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    making.replace(path)
    fsync_directory(path.parent)
