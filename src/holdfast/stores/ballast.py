"""Room kept in reserve beside the database, to be given up when the disk is full.

Owns one file. Never decides when: the service does, at its watermark, so that outcomes can still
be committed after submissions are refused.
"""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.disk import NO_ROOM

BALLAST_BYTES = 8 * 1024 * 1024


class Ballast:
    """A file of `size_bytes` in the directory of the database."""

    def __init__(self, database: Path, *, size_bytes: int = BALLAST_BYTES) -> None:
        self.path = database.with_name(f"{database.name}-ballast")
        self._size_bytes = size_bytes

    @property
    def is_held(self) -> bool:
        """Whether the whole room is in reserve."""
        try:
            return self.path.stat().st_size >= self._size_bytes
        except FileNotFoundError:
            return False

    def take(self, *, room_bytes: int = 0) -> bool:
        """Put the room in reserve, where `room_bytes` stay free beside it; say whether it is held.

        Blocks on the disk. Raises OSError for anything but a lack of room.
        """
        if self.is_held:
            return True
        self.path.unlink(missing_ok=True)
        if self.free_bytes() < self._size_bytes + room_bytes:
            return False
        try:
            with self.path.open("wb") as file:
                # Allocated, not sparse: a hole would reserve nothing.
                os.posix_fallocate(file.fileno(), 0, self._size_bytes)
                os.fsync(file.fileno())
        except OSError as error:
            self.path.unlink(missing_ok=True)
            if error.errno not in NO_ROOM:
                raise
            return False
        return True

    def release(self) -> bool:
        """Give the room up; say whether there was any."""
        held = self.path.exists()
        self.path.unlink(missing_ok=True)
        return held

    def volume_bytes(self) -> int:
        """Return how large the file system of the database is."""
        room = os.statvfs(self.path.parent)
        return room.f_blocks * room.f_frsize

    def free_bytes(self) -> int:
        """Return how much an ordinary process may still write beside the database."""
        room = os.statvfs(self.path.parent)
        return room.f_bavail * room.f_frsize
