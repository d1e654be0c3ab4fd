"""The file that says where a coordinator listens is a hint; the lock is the truth."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from holdfast.errors import ConfigurationError
from holdfast.transports import endpoint
from holdfast.transports.endpoint import Endpoint

HERE = Endpoint("unix:/x.sock", os.getpid(), "1", "3.11")


def test_what_is_published_is_read_and_withdrawn_by_its_owner_alone(tmp_path: Path) -> None:
    assert endpoint.read(tmp_path) is None
    endpoint.publish(tmp_path, HERE)
    assert endpoint.read(tmp_path) == HERE
    endpoint.withdraw(tmp_path, os.getpid() + 1)
    assert endpoint.read(tmp_path) == HERE
    endpoint.withdraw(tmp_path, os.getpid())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [b"", b"nonsense", b'{"url": 5}', b"\xff\xfe"])
def test_a_file_that_is_none_of_ours_says_nothing(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "endpoint.json").write_bytes(text)
    assert endpoint.read(tmp_path) is None
    endpoint.withdraw(tmp_path, os.getpid())


def test_it_lives_as_long_as_the_lock_is_held(tmp_path: Path) -> None:
    assert not endpoint.lives(tmp_path)
    with (tmp_path / "coordinator.lock").open("w") as lock:
        assert not endpoint.lives(tmp_path), "a lock file alone is no life"
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert endpoint.lives(tmp_path)
    assert not endpoint.lives(tmp_path)


@pytest.fixture
def shallow() -> Iterator[Path]:
    """A directory whose path leaves room for that of a socket."""
    with tempfile.TemporaryDirectory(prefix="h", dir="/tmp") as path:
        yield Path(path)


def test_a_socket_is_beside_the_database_where_its_path_fits(
    shallow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(shallow))
    near = Path("/s")
    assert endpoint.socket_path(near) == near / "coordinator.sock"
    far = shallow / ("ü" * 60)
    path = endpoint.socket_path(far)
    assert path.parent == shallow / f"holdfast-{os.getuid()}"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path == endpoint.socket_path(far)
    assert path != endpoint.socket_path(far / "other")


def test_a_socket_is_below_tmp_where_temporary_files_are_deep_as_well(
    shallow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = shallow / ("x" * 120)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    path = endpoint.socket_path(deep)
    assert path.parent == Path("/tmp") / f"holdfast-{os.getuid()}"
    assert len(os.fsencode(path)) <= 100


def test_a_directory_that_cannot_be_made_is_named(
    shallow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(shallow / "gone"))
    with pytest.raises(ConfigurationError, match="gone"):
        endpoint.socket_path(shallow / ("x" * 120))


def test_a_directory_of_somebody_else_is_refused(
    shallow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(shallow))
    (shallow / "theirs").mkdir()
    (shallow / f"holdfast-{os.getuid()}").symlink_to(shallow / "theirs")
    with pytest.raises(ConfigurationError, match="--state-dir"):
        endpoint.socket_path(shallow / ("x" * 120))


def test_a_path_that_is_not_utf8_arrives_as_it_was(tmp_path: Path) -> None:
    there = msgspec.structs.replace(HERE, url=os.fsdecode(b"unix:/bad\xff/s"))
    endpoint.publish(tmp_path, there)
    assert endpoint.read(tmp_path) == there
