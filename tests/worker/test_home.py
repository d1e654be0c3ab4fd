"""A worker's state directory: one holder, one identity, incarnations that only grow."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from holdfast.errors import ConfigurationError
from holdfast.worker.home import FileHome


def test_identity_stays_and_incarnations_grow(tmp_path: Path) -> None:
    first = FileHome.open(tmp_path / "home")
    identity = first.identity
    assert len(bytes.fromhex(identity)) == 16
    assert [first.next_incarnation(), first.next_incarnation()] == [1, 2]
    assert first.store() == ("", 0)
    first.remember_store("store-a", 3)
    first.close()
    second = FileHome.open(tmp_path / "home")
    assert second.identity == identity
    assert second.next_incarnation() == 3
    assert second.store() == ("store-a", 3)
    assert second.path == tmp_path / "home"
    second.close()


def test_a_directory_is_held_by_one_worker(tmp_path: Path) -> None:
    first = FileHome.open(tmp_path)
    with pytest.raises(ConfigurationError, match="another worker"):
        FileHome.open(tmp_path)
    first.close()
    FileHome.open(tmp_path).close()


def test_who_only_looks_is_no_other_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FileHome.open(tmp_path).close()
    looking = (tmp_path / "lock").open()
    fcntl.flock(looking, fcntl.LOCK_SH)
    # It has looked by the time we try again.
    monkeypatch.setattr("holdfast.worker.home.time.sleep", lambda seconds: looking.close())
    FileHome.open(tmp_path).close()
    assert looking.closed


def test_payloads_of_a_former_life_are_removed(tmp_path: Path) -> None:
    FileHome.open(tmp_path).close()
    (tmp_path / "payloads" / "left-behind").write_text("x")
    FileHome.open(tmp_path).close()
    assert list((tmp_path / "payloads").iterdir()) == []


def test_two_directories_are_two_workers(tmp_path: Path) -> None:
    one, two = FileHome.open(tmp_path / "one"), FileHome.open(tmp_path / "two")
    assert one.identity != two.identity
    one.close()
    two.close()


@pytest.mark.parametrize("content", ["", "short", "?" * 32])
def test_an_identity_that_is_none_is_refused_unless_it_is_missing(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "identity").write_text(content)
    if not content:
        FileHome.open(tmp_path).close()
        return
    with pytest.raises(ConfigurationError, match="identity"):
        FileHome.open(tmp_path)


def test_a_counter_that_is_none_is_refused(tmp_path: Path) -> None:
    home = FileHome.open(tmp_path)
    (tmp_path / "incarnation").write_text("many")
    with pytest.raises(ConfigurationError, match="number"):
        home.next_incarnation()
    home.close()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="state directory"):
        FileHome.open(tmp_path / "file" / "home")
