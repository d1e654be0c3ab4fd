"""Who finds, who starts, who waits: with processes that only pretend to be coordinators."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.client import embedded
from holdfast.client.embedded import EmbeddedCoordinator, module_path
from holdfast.coordinator import host
from holdfast.errors import ConfigurationError, NoCoordinatorError
from holdfast.transports import serving

READY = """
import fcntl, os, sys, time
lock = open("coordinator.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
with open("starts", "a") as file:
    file.write("x")
open("ready", "w").close()
os.write(int(sys.argv[1]), b"ready")
os.close(int(sys.argv[1]))
while not os.path.exists("leave"):
    time.sleep(0.01)
"""
BROKEN = "import sys; sys.exit('this cannot work')"


class Folder:
    """A state directory, and what is found in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lives(self) -> bool:
        try:
            with (self.path / "coordinator.lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except BlockingIOError:
            return True
        return False

    def find(self) -> str:
        return "unix:/there" if self.lives() and (self.path / "ready").exists() else ""

    def coordinator(self, program: str, **more: Any) -> EmbeddedCoordinator:
        prelude = f"import os; os.chdir({str(self.path)!r})\n"
        text = prelude + textwrap.dedent(program)
        return EmbeddedCoordinator(
            self.path,
            find=self.find,
            lives=more.pop("lives", self.lives),
            command=lambda fd: [sys.executable, "-I", "-c", text, str(fd)],
            **more,
        )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path / "state")
    yield made
    if made.path.is_dir():
        (made.path / "leave").touch()


def test_one_is_started_and_then_found(folder: Folder) -> None:
    first, second = folder.coordinator(READY), folder.coordinator(READY)
    assert first.ensure() == "unix:/there"
    assert second.ensure() == "unix:/there"
    second.revive()
    assert (folder.path / "starts").read_text() == "x"


def test_it_starts_while_the_client_does_something_else(folder: Folder) -> None:
    coordinator = folder.coordinator(READY)
    coordinator.begin()
    other = folder.coordinator(READY)
    other.begin()
    assert coordinator.ensure() == other.ensure() == "unix:/there"
    assert (folder.path / "starts").read_text() == "x"


def test_who_comes_second_waits_for_who_starts_one(folder: Folder) -> None:
    folder.path.mkdir()
    with (folder.path / "starting.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        waiting = folder.coordinator(READY, start_seconds=0.2)
        with pytest.raises(NoCoordinatorError, match="no coordinator came up"):
            waiting.ensure()
    assert not (folder.path / "starts").exists()
    assert folder.coordinator(READY).ensure()


LEAVING = """
import fcntl, os, sys
lock = open("coordinator.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("leaving", flush=True)
sys.stdin.read()
"""


@contextmanager
def leaving(folder: Folder) -> Iterator[subprocess.Popen[str]]:
    """One that lives and is not announced, until its input is closed."""
    folder.path.mkdir()
    with subprocess.Popen(
        [sys.executable, "-I", "-c", LEAVING],
        cwd=folder.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


def test_one_that_leaves_is_waited_for_longer_than_one_that_starts(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedded, "_TELL_SECONDS", 0.05)
    with leaving(folder) as process:
        assert process.stdin is not None
        waiting = folder.coordinator(READY, start_seconds=0.2)
        with pytest.raises(NoCoordinatorError, match=r"neither answers nor ends; .* 0.2 s"):
            waiting.revive()
        began = time.monotonic()

        def lives() -> bool:
            if time.monotonic() - began > 0.4 and not process.stdin.closed:
                process.stdin.close()
            return folder.lives()

        waiting = folder.coordinator(READY, lives=lives)
        assert waiting.ensure() == "unix:/there"
    assert (folder.path / "starts").read_text() == "x"
    said = [record.getMessage() for record in caplog.records]
    assert any(f"waiting for the coordinator of {folder.path}" in text for text in said)


def test_one_that_neither_answers_nor_ends_is_not_waited_for_for_ever(folder: Folder) -> None:
    with leaving(folder):
        waiting = folder.coordinator(READY, start_seconds=0.1, leave_seconds=0.3)
        with pytest.raises(NoCoordinatorError, match=r"neither answers nor ends; .* 0.3 s"):
            waiting.ensure()
    assert not (folder.path / "starts").exists()


def test_a_coordinator_that_leaves_is_waited_for_as_long_as_it_may_take() -> None:
    assert (
        embedded.LEAVE_SECONDS > host._STOP_SECONDS + host._HURRY_SECONDS + serving._GRACE_SECONDS
    )


def test_one_that_cannot_start_is_not_tried_for_ever_and_says_why(folder: Folder) -> None:
    folder.path.mkdir()
    (folder.path / "coordinator.log").write_text("what an older one said\n")
    with pytest.raises(NoCoordinatorError, match="this cannot work") as caught:
        folder.coordinator(BROKEN).ensure()
    assert "older" not in str(caught.value)


def test_a_log_that_has_grown_large_begins_anew(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_LOG_BYTES_MAX", 10)
    folder.path.mkdir()
    (folder.path / "coordinator.log").write_text("twenty characters!!\n")
    folder.coordinator(READY).ensure()
    assert (folder.path / "coordinator.log").read_text() == ""


def test_a_state_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="--state-dir"):
        Folder(tmp_path / "file" / "below").coordinator(READY).ensure()


def test_an_interpreter_that_cannot_be_run_is_told(folder: Folder) -> None:
    coordinator = EmbeddedCoordinator(
        folder.path,
        find=folder.find,
        lives=folder.lives,
        command=lambda _: [str(folder.path / "no-such-python")],
    )
    with pytest.raises(NoCoordinatorError, match="no coordinator can be started"):
        coordinator.ensure()
    assert folder.coordinator(READY).ensure(), "the turn was given back"


def test_the_module_path_is_what_another_process_can_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "beside", "/absolute"])
    assert module_path() == [str(tmp_path), str(tmp_path / "beside"), "/absolute"]


def test_the_module_path_of_a_directory_that_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    monkeypatch.setattr(sys, "path", ["", "/absolute"])
    assert module_path() == ["/absolute"]
