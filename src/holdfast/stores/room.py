"""Whether the store's disk has room: a watermark for submissions, the ballast for outcomes.

Owns no decision: the service refuses submissions while `short`, and gives the ballast up when a
commit found no room at all.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.stores.ballast import BALLAST_BYTES, Ballast

WATERMARK_BYTES = 4 * BALLAST_BYTES


class DiskRoom:
    """`ports.Room` for a database file."""

    def __init__(self, database: Path, *, watermark_bytes: int = WATERMARK_BYTES) -> None:
        self._ballast = Ballast(database)
        self._watermark_bytes = watermark_bytes
        self._ballast.take(room_bytes=watermark_bytes)

    def short(self) -> bool:
        """Whether less than the watermark is free, or the ballast was given up."""
        return not self._ballast.is_held or self._ballast.free_bytes() < self._watermark_bytes

    def release(self) -> None:
        """Give the ballast up."""
        self._ballast.release()

    def restore(self) -> None:
        """Make the ballast again, once the watermark is free beside it."""
        self._ballast.take(room_bytes=self._watermark_bytes)
