"""The watermark and the ballast, on a disk whose free space a test says."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.stores.ballast import BALLAST_BYTES, Ballast
from holdfast.stores.room import WATERMARK_BYTES, DiskRoom

MANY = 1 << 40
MEBIBYTE = 1 << 20


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the disk says is free: the last of these."""
    told = [MANY]
    monkeypatch.setattr(Ballast, "free_bytes", lambda self: told[-1])
    return told


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume of 40 MiB."""
    monkeypatch.setattr(Ballast, "volume_bytes", lambda self: 40 * MEBIBYTE)


@pytest.mark.usefixtures("small")
def test_submissions_are_refused_below_the_watermark(tmp_path: Path, free: list[int]) -> None:
    room = DiskRoom(tmp_path / "x.db")
    assert not room.short()
    assert room.needed_bytes() == 5 * MEBIBYTE
    free.append(5 * MEBIBYTE)
    assert not room.short()
    assert room.short(1), "with what is to come it would be below"
    free.append(5 * MEBIBYTE - 1)
    assert room.short()
    free.append(MANY)
    assert not room.short()


@pytest.mark.usefixtures("small")
def test_the_ballast_is_given_up_once_and_made_again(tmp_path: Path, free: list[int]) -> None:
    room = DiskRoom(tmp_path / "x.db")
    room.release()
    assert room.short(), "without its reserve it has no room, whatever the disk says"
    needed = room.needed_bytes()
    assert needed == 6.25 * MEBIBYTE
    free.append(needed - 1)
    room.restore()
    assert room.short(), "the reserve is not taken where it would leave less than the watermark"
    free.append(needed)
    room.restore()
    assert not room.short()


def test_a_large_volume_has_a_watermark_that_does_not_grow(
    tmp_path: Path, free: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ballast, "volume_bytes", lambda self: MANY)
    room = DiskRoom(tmp_path / "x.db")
    assert room.needed_bytes() == WATERMARK_BYTES
    room.release()
    assert room.needed_bytes() == WATERMARK_BYTES + BALLAST_BYTES
