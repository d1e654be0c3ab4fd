"""The watermark and the ballast, on a disk whose free space a test says."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.stores.ballast import Ballast
from holdfast.stores.room import DiskRoom

MANY = 1 << 40


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the disk says is free: the last of these."""
    told = [MANY]
    monkeypatch.setattr(Ballast, "free_bytes", lambda self: told[-1])
    return told


def test_submissions_are_refused_below_the_watermark(tmp_path: Path, free: list[int]) -> None:
    room = DiskRoom(tmp_path / "x.db", watermark_bytes=1000)
    assert not room.short()
    free.append(999)
    assert room.short()
    free.append(MANY)
    assert not room.short()


def test_the_ballast_is_given_up_once_and_made_again(tmp_path: Path, free: list[int]) -> None:
    room = DiskRoom(tmp_path / "x.db", watermark_bytes=1000)
    room.release()
    assert room.short(), "without its reserve it has no room, whatever the disk says"
    free.append(1000)
    room.restore()
    assert room.short(), "the reserve is not taken where it would leave less than the watermark"
    free.append(MANY)
    room.restore()
    assert not room.short()
