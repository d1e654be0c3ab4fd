"""A child knows when the user's code on disk is not what it has loaded any more."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import time
from pathlib import Path

import pytest

from holdfast.engines import freshness
from holdfast.engines.freshness import Sources
from tests.engines import hostile
from tests.engines.rig import Rig


def load(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    monkeypatch.setitem(sys.modules, path.stem, importlib.util.module_from_spec(spec))


@pytest.fixture(autouse=True)
def _idle_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "IDLE_SECONDS", 0.0)


@pytest.fixture
def _written_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test writes before it notes a begin counts as written before, however fast it is."""
    monkeypatch.setattr(freshness, "STAMP_SLACK_NS", 0)


@pytest.mark.usefixtures("_written_long_ago")
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


@pytest.mark.usefixtures("_written_long_ago")
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


def touch(path: Path, *, text: str = "A = 1\n") -> None:
    """Alter a file as an editor does that keeps the time of the old one."""
    path.write_text(text)
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("more", [False, True])
def test_a_file_that_was_edited_while_its_attempt_ran_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, more: bool
) -> None:
    source = tmp_path / "edited_as_it_ran.py"
    touch(source)
    sources = Sources()
    sources.begin()
    load(source, monkeypatch)
    touch(source)
    if more:
        sources.note()  # Of another attempt, in a lane that runs many.
    sources.note()
    assert sources.changed()
    assert sources.changed(), "for good"


@pytest.mark.usefixtures("_written_long_ago")
def test_a_fresh_child_does_not_take_it_for_stale_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "edited_before.py"
    sources = Sources()
    touch(source)
    sources.begin()
    load(source, monkeypatch)
    sources.note()
    assert not sources.changed()


def test_what_a_thread_loaded_in_an_idle_child_counts_from_the_last_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "loaded_by_a_thread.py"
    touch(source)
    sources = Sources()
    sources.note()
    load(source, monkeypatch)
    touch(source)
    sources.begin()
    sources.note()
    assert sources.changed()


def test_a_stamp_of_another_clock_and_a_removed_file_are_no_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, generated = tmp_path / "of_a_server.py", tmp_path / "generated.py"
    source.write_text("")
    sources = Sources()
    sources.begin()
    load(source, monkeypatch)
    load(generated, monkeypatch)
    monkeypatch.setattr(freshness.time, "time_ns", lambda: os.stat(source).st_ctime_ns - 1)
    sources.note()
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


@pytest.mark.usefixtures("_written_long_ago")
def test_the_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "FILES_MAX", 1)
    sources = Sources()
    for name in ("first_of_two", "second_of_two"):
        (tmp_path / f"{name}.py").write_text("")
        load(tmp_path / f"{name}.py", monkeypatch)
    sources.note()
    (tmp_path / "second_of_two.py").unlink()
    assert not sources.changed()


@pytest.mark.parametrize(("lane", "suffix"), [(0, ""), (2, "_later")])
def test_a_child_whose_module_was_edited_as_it_ran_leaves_the_next_order_to_a_fresh_one(
    tmp_path: Path, lane: int, suffix: str
) -> None:
    module = tmp_path / f"edited_in_lane_{lane}.py"
    marks = (tmp_path / "mark", tmp_path / "go")
    body = f"{hostile.__name__}:read_and_hold{suffix}"
    arguments = (str(tmp_path), module.stem, *map(str, marks))

    async def idle(rig: Rig) -> None:
        end = time.monotonic() + 0.3  # IDLE_SECONDS of the child, and more.
        await rig.until("the child was idle", lambda: time.monotonic() > end)

    async def main() -> None:
        module.write_text("VALUE = 1\n")
        async with Rig(tmp_path, follow_sources=True) as rig:
            first = rig.start(body, *arguments, lane=lane)
            await rig.until("it has loaded the module", marks[0].exists)
            module.write_text("VALUE = 'edited'\n")
            marks[1].touch()
            await rig.outcome(first)
            await idle(rig)
            value, pid = await rig.value(body, *arguments, lane=lane)
            assert value == "edited"
            await idle(rig)
            assert await rig.value(body, *arguments, lane=lane) == ["edited", pid], "it stays"
            assert not rig.deaths

    asyncio.run(main())
