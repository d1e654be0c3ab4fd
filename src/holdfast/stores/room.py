"""Whether the store's disk has room: a watermark for submissions, the ballast for outcomes.

Owns no decision: the service refuses submissions while `short`, and gives the ballast up when a
commit found no room at all.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.stores.ballast import BALLAST_BYTES, Ballast

WATERMARK_BYTES = 4 * BALLAST_BYTES
_VOLUME_PART = 8
"""A small volume keeps at most this part of itself free: below it nothing would ever be taken."""
_BALLAST_PART = WATERMARK_BYTES // BALLAST_BYTES


class DiskRoom:
    """`ports.Room` for a database file."""

    def __init__(self, database: Path) -> None:
        volume_bytes = Ballast(database).volume_bytes()
        self._watermark_bytes = min(WATERMARK_BYTES, volume_bytes // _VOLUME_PART)
        self._ballast_bytes = self._watermark_bytes // _BALLAST_PART
        self._ballast = Ballast(database, size_bytes=self._ballast_bytes)
        self._ballast.take(room_bytes=self._watermark_bytes)

    def short(self, size_bytes: int = 0) -> bool:
        """Whether less than the watermark would be free, or the ballast was given up."""
        left = self._ballast.free_bytes() - size_bytes
        return not self._ballast.is_held or left < self._watermark_bytes

    def needed_bytes(self) -> int:
        """Return the watermark, and the ballast where that has to be made again."""
        return self._watermark_bytes + (0 if self._ballast.is_held else self._ballast_bytes)

    def release(self) -> None:
        """Give the ballast up."""
        self._ballast.release()

    def restore(self) -> None:
        """Make the ballast again, once the watermark is free beside it."""
        self._ballast.take(room_bytes=self._watermark_bytes)
