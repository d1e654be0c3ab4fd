"""What a full disk says, and that the names in a directory are synced."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from holdfast.disk import NO_ROOM, fsync_directory


def test_a_full_disk_is_known_by_its_error() -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError) as told:
        full.write(b"x")
    assert told.value.errno in NO_ROOM
    assert errno.EIO not in NO_ROOM


def test_it_is_the_directory_that_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    before = len(os.listdir("/proc/self/fd"))
    fsync_directory(tmp_path)
    assert synced == [str(tmp_path)]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        fsync_directory(tmp_path / "file")
