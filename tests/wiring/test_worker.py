"""When a worker that a coordinator of a folder keeps leaves, and what one says that waits."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from holdfast.cli.app import Exit
from holdfast.core.peer import PeerState
from holdfast.errors import ChannelClosedError
from holdfast.transports.address import parse_address
from holdfast.transports.endpoint import socket_path
from holdfast.transports.websocket import WebSocketDialer
from holdfast.wiring import worker


class Agent:
    """What is asked of an agent."""

    def __init__(self, *, occupied: bool = False, session: PeerState = PeerState.CLOSED) -> None:
        self.occupied = occupied
        self.session = session


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(worker, "_SOON_SECONDS", 0.001)
    monkeypatch.setattr(worker, "_ALONE_SECONDS", 0.02)


async def leaves(agent: Agent, home: Path, within_seconds: float) -> bool:
    stop = asyncio.Event()
    leaving = asyncio.ensure_future(worker._leave_when_alone(cast("Any", agent), home, stop))
    try:
        async with asyncio.timeout(within_seconds):
            await stop.wait()
    except TimeoutError:
        return False
    finally:
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    return True


def test_it_leaves_soon_when_it_has_nothing_to_do(tmp_path: Path) -> None:
    assert asyncio.run(leaves(Agent(), tmp_path, 5.0))


def test_it_stays_while_it_has_something_to_do_or_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not asyncio.run(leaves(Agent(occupied=True), tmp_path, 0.2))
    monkeypatch.setattr(worker, "_ALONE_AND_OCCUPIED_SECONDS", 0.05)
    assert asyncio.run(leaves(Agent(occupied=True), tmp_path, 5.0))


def test_it_stays_while_it_has_a_coordinator(tmp_path: Path) -> None:
    agent = Agent(session=PeerState.WELCOMED)
    assert not asyncio.run(leaves(agent, tmp_path, 0.2))


def test_it_leaves_a_folder_that_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_ALONE_SECONDS", 60.0)
    assert asyncio.run(leaves(Agent(occupied=True), tmp_path / "gone", 5.0))


def ended_without_an_engine(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a worker that has nothing to run tasks with, to its end."""
    # The interpreter of guard and nursery is that of the worker, which here is none.
    program = "import sys; sys.executable = '/bin/false'; from holdfast.cli import main; main()"
    words = ["worker", "--url", f"unix:{folder}/nobody.sock", "--home", str(folder / "home")]
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_worker_that_has_nothing_to_run_tasks_with_says_so_in_its_exit_code(
    tmp_path: Path,
) -> None:
    """For a service manager: it has to start it again, which an exit code of 0 does not tell."""
    done = ended_without_an_engine(tmp_path)
    assert done.returncode == Exit.ENGINE_LOST
    assert "holdfast: the processes that run tasks ended again and again" in done.stderr


def test_a_worker_that_starts_clears_its_shelf(tmp_path: Path) -> None:
    shelf = tmp_path / "home" / "shelf"
    shelf.mkdir(parents=True)
    (shelf / "result-of-a-killed-life.making").write_bytes(b"half")
    ended_without_an_engine(tmp_path)
    assert list(shelf.iterdir()) == []


def test_slots_that_the_limit_of_open_files_does_not_allow_are_refused(tmp_path: Path) -> None:
    limits = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)); "
    program = f"import sys; {limits}from holdfast.cli import main; main()"
    words = ["worker", "--url", f"unix:{tmp_path}/nobody.sock", "--home", str(tmp_path / "home")]
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "--slots", "300"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == Exit.USAGE
    assert "300 slots need 1870 open files, and this process may have 200" in done.stderr
    assert "give --slots 21 at most, or raise the hard limit" in done.stderr


def test_it_says_once_that_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        agent = Agent()
        dialer = WebSocketDialer(parse_address("http://127.0.0.1:1"))
        with pytest.raises(ChannelClosedError):
            await dialer.dial()
        dialers = {"http://127.0.0.1:1": dialer}
        saying = asyncio.ensure_future(worker._say_that_we_wait(cast("Any", agent), dialers))
        await asyncio.sleep(0.1)
        agent.session = PeerState.WELCOMED
        async with asyncio.timeout(5):
            await saying

    with caplog.at_level(logging.INFO, logger="holdfast.worker"):
        asyncio.run(scene())
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith("no coordinator answers at http://127.0.0.1:1 yet; waiting for it (")
    assert "127.0.0.1" in told[0].partition("(")[2]
    assert told[1:] == ["works for http://127.0.0.1:1"]


def test_the_coordinator_of_this_folder_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert worker.nearby() == f"unix:{socket_path(tmp_path / '.holdfast')}"
    monkeypatch.setenv("HOLDFAST_URL", "http://elsewhere:1")
    assert worker.nearby() == "http://elsewhere:1"
