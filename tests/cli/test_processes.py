"""From words of a command to settings of a process; the processes themselves are not run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast import config, wiring
from holdfast.cli.app import Exit
from tests.cli.conftest import CommandLine


class Ran:
    """What would have been run."""

    def __init__(self) -> None:
        self.settings: Any = None
        self.announce: Callable[[list[str]], None] | None = None

    def coordinate(self, settings: Any, announce: Callable[[list[str]], None]) -> None:
        self.settings, self.announce = settings, announce

    def work(self, settings: Any, streams: None) -> None:
        self.settings = settings


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    made = Ran()
    monkeypatch.setattr(wiring, "coordinate", made.coordinate)
    monkeypatch.setattr(wiring, "work", made.work)
    monkeypatch.setattr(wiring, "run", lambda main: None)
    monkeypatch.setattr(wiring, "log_to_stderr", lambda: None)
    return made


def test_up_runs_a_coordinator_with_workers_that_import_what_we_import(
    cli: CommandLine, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["/a", "/b"])
    cli("up", "--state-dir", "/s", "--port", "0", "--workers", "3", "--slots", "2")
    assert ran.settings == config.CoordinatorSettings(
        state_dir=Path("/s"), port=0, workers=3, slots=2, path=("/a", "/b")
    )


def test_a_coordinator_says_where_it_listens_and_how_a_worker_joins(
    cli: CommandLine, ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    cli("coordinator", "--state-dir", "/s", "--lease", "3", "--durability", "normal")
    assert ran.settings == config.CoordinatorSettings(
        state_dir=Path("/s"), port=config.PORT, lease_seconds=3.0, durability="normal"
    )
    assert ran.announce is not None
    ran.announce(["unix:/s/x.sock", "http://127.0.0.1:7700"])
    told = capsys.readouterr()
    assert told.out == ""
    assert "unix:/s/x.sock and http://127.0.0.1:7700; state in /s." in told.err
    assert "only this machine" in told.err
    assert "holdfast worker --url http://127.0.0.1:7700 --home DIRECTORY" in told.err


@pytest.mark.parametrize("command", ["up", "coordinator"])
def test_a_program_reads_where_it_listens(
    command: str, cli: CommandLine, ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    cli(command, "--state-dir", "/s", "--json")
    assert ran.announce is not None
    ran.announce(["unix:/s/x.sock", "http://127.0.0.1:7700"])
    told = capsys.readouterr()
    assert told.err == ""
    assert json.loads(told.out) == {
        "urls": ["unix:/s/x.sock", "http://127.0.0.1:7700"],
        "state_dir": "/s",
        "pid": os.getpid(),
    }


def test_a_program_reads_of_a_worker(cli: CommandLine, ran: Ran) -> None:
    said = cli("worker", "--url", "unix:/a", "--home", "/h", "--json")
    assert json.loads(said.out) == {"urls": ["unix:/a"], "home": "/h", "pid": os.getpid()}


@pytest.mark.parametrize("command", ["up", "coordinator"])
def test_a_host_beyond_loopback_is_refused(command: str, cli: CommandLine, ran: Ran) -> None:
    said = cli(command, "--host", "0.0.0.0")
    assert said.code == Exit.USAGE
    assert "no authentication" in said.err
    assert ran.settings is None


@pytest.mark.parametrize("command", ["up", "coordinator"])
@pytest.mark.parametrize("port", [-1, -2, 99_999])
def test_a_port_that_cannot_be_is_refused(
    command: str, port: int, cli: CommandLine, ran: Ran
) -> None:
    said = cli(command, "--port", str(port))
    assert (said.code, ran.settings) == (Exit.USAGE, None)
    assert said.err == f"holdfast: --port {port}: 0 (a free one) to 65535\n"


@pytest.mark.parametrize("words", [("--queues", ","), ("--tags", " , "), ("--queues", "a+b")])
def test_words_that_no_task_can_name_are_refused(
    words: tuple[str, str], cli: CommandLine, ran: Ran
) -> None:
    said = cli("worker", *words)
    assert (said.code, ran.settings) == (Exit.USAGE, None)
    assert f"{words[0]} {words[1]!r}" in said.err


def test_a_worker_with_all_its_words(cli: CommandLine, ran: Ran) -> None:
    words = ["--url", "unix:/a", "--url", "unix:/b", "--name", "n", "--mode", "pull"]
    words += ["--slots", "4", "--queues", " b,a,a", "--tags", "gpu", "--home", "/h"]
    cli("worker", *words, "--path", "/p")
    assert ran.settings == config.WorkerSettings(
        urls=("unix:/a", "unix:/b"),
        state_dir=Path("/h"),
        name="n",
        pull=True,
        slots=4,
        queues=("a", "b"),
        tags=("gpu",),
        path=("/p",),
    )


def test_a_worker_lives_beside_the_coordinator_of_its_environment(
    cli: CommandLine, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_STATE_DIR", "/there")
    cli("worker")
    assert ran.settings.state_dir == Path("/there/worker")
