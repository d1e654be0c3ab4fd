"""A child knows when the user's code on disk is not what it has loaded any more."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from holdfast.engines import freshness
from holdfast.engines.freshness import Sources


def load(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    monkeypatch.setitem(sys.modules, path.stem, importlib.util.module_from_spec(spec))


@pytest.fixture(autouse=True)
def _idle_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "IDLE_SECONDS", 0.0)


def test_an_edit_and_a_deletion_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "of_the_user.py"
    source.write_text("A = 1\n")
    sources = Sources()
    assert not sources.changed()
    load(source, monkeypatch)
    sources.note()
    assert not sources.changed()
    os.utime(source, ns=(1, 1))
    assert sources.changed()
    source.unlink()
    assert sources.changed()


def test_what_was_there_before_and_what_is_installed_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tmp_path / "loaded_before.py"
    before.write_text("")
    load(before, monkeypatch)
    sources = Sources()
    monkeypatch.setattr(sources, "_installed", (f"{tmp_path}{os.sep}",))
    installed = tmp_path / "installed.py"
    installed.write_text("")
    load(installed, monkeypatch)
    sources.note()
    before.unlink()
    installed.unlink()
    assert not sources.changed()


def test_a_busy_child_does_not_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "IDLE_SECONDS", 60.0)
    source = tmp_path / "in_use.py"
    source.write_text("")
    sources = Sources()
    load(source, monkeypatch)
    sources.note()
    source.unlink()
    assert not sources.changed()


def test_the_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "FILES_MAX", 1)
    sources = Sources()
    for name in ("first_of_two", "second_of_two"):
        (tmp_path / f"{name}.py").write_text("")
        load(tmp_path / f"{name}.py", monkeypatch)
    sources.note()
    (tmp_path / "second_of_two.py").unlink()
    assert not sources.changed()
