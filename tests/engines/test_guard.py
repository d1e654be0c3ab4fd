"""The guard: what it remembers, what it ends, and what it tells when its supervisor is gone."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from holdfast.engines import guard, guarding, tree
from holdfast.engines.ending import descendants
from holdfast.engines.guard import Ledger, post
from tests.conftest import Eventually
from tests.engines.rig import Rig, is_alive
from tests.engines.supervisor import DONE, SPOOLED, STARTED

ROOT = Path(__file__).parents[2]


def record(kind: int, body: bytes) -> bytes:
    return guard.RECORD.pack(kind, len(body)) + body


@pytest.mark.parametrize("piece", [1, 3, 16, 1000])
def test_the_ledger_reads_records_in_any_pieces(piece: int) -> None:
    facts = {"url": "http://h:1", "identity": "w", "incarnation": 2, "last_word": "x"}
    data = b"".join(
        (
            record(guard.STARTED, STARTED + DONE),
            record(guard.SESSION, b"{}"),
            record(guard.SPOOLED, SPOOLED + DONE),
            record(99, b"of a newer supervisor"),
            record(guard.DONE, DONE),
            record(guard.SESSION, json.dumps(facts).encode()),
        )
    )
    ledger = Ledger()
    for at in range(0, len(data), piece):
        ledger.feed(data[at : at + piece])
    url, body = ledger.report()
    assert url == "http://h:1"
    assert json.loads(body) == {
        "identity": "w",
        "incarnation": 2,
        "last_word": "x",
        "started": [STARTED.hex()],
        "spooled": [SPOOLED.hex()],
    }
    assert not ledger.orderly
    assert not ledger.settled
    ledger.feed(record(guard.FAREWELL, b""))
    assert ledger.orderly
    ledger.feed(record(guard.DONE, STARTED + SPOOLED))
    assert ledger.settled


def test_without_a_session_there_is_nobody_to_tell() -> None:
    assert Ledger().report() == ("", b"")


class Coordinator:
    """Takes reports of deaths, over TCP or a Unix socket; the first answers are given."""

    def __init__(self, answers: list[int]) -> None:
        self.answers = answers
        self.reports: list[tuple[str, dict[str, Any]]] = []
        self.told = threading.Event()

    def answer(self, path: str, body: bytes) -> int:
        status = self.answers.pop(0) if self.answers else 200
        if status == 200:
            self.reports.append((path, json.loads(body)))
            self.told.set()
        return status


@contextmanager
def serving(coordinator: Coordinator, unix_path: str = "") -> Iterator[str]:
    """Serve in a thread; yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(coordinator.answer(self.path, body))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class UnixServer(socketserver.UnixStreamServer):
        def get_request(self) -> tuple[socket.socket, Any]:
            link, _ = super().get_request()
            return link, ("unix", 0)

    server: socketserver.BaseServer
    if unix_path:
        server, url = UnixServer(unix_path, Handler), f"unix:{unix_path}"
    else:
        server = HTTPServer(("127.0.0.1", 0), Handler)
        url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def supervisor(folder: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a supervisor in small; whatever is left of it is ended afterwards, by pid."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.engines.supervisor", str(folder), url], cwd=ROOT
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_end_of_a_supervisor_ends_and_tells_all(
    tmp_path: Path, kind: str, number: signal.Signals, eventually: Eventually
) -> None:
    coordinator = Coordinator([503, 429])
    with tempfile.TemporaryDirectory() as short:
        unix_path = f"{short}/s" if kind == "unix" else ""
        with serving(coordinator, unix_path) as url, supervisor(tmp_path, url) as process:
            eventually("all is up", (tmp_path / "pids").exists)
            pids = [int(pid) for pid in (tmp_path / "pids").read_text(encoding="utf-8").split()]
            child, nursery, guardian, near, far, daemon = pids
            below = (child, nursery, near, far, daemon)
            assert all(map(is_alive, pids))
            assert set(below) <= set(descendants(process.pid))
            guard_fd = os.pidfd_open(guardian)
            process.send_signal(number)
            eventually("nothing is left", lambda: not any(map(is_alive, below)), within_seconds=6)
            assert coordinator.told.wait(10)
            assert select.select([guard_fd], [], [], 10)[0], "the guard ends when all is told"
            os.close(guard_fd)
    assert coordinator.reports == [
        (
            "/v1/deaths",
            {
                "identity": "worker-1",
                "incarnation": 7,
                "last_word": "farewell",
                "started": [STARTED.hex(), SPOOLED.hex()],
                "spooled": [SPOOLED.hex()],
            },
        )
    ]


def test_what_a_killed_guard_leaves_is_ended_by_the_supervisor(
    tmp_path: Path, eventually: Eventually
) -> None:
    coordinator = Coordinator([])
    with serving(coordinator) as url, supervisor(tmp_path, url) as process:
        eventually("all is up", (tmp_path / "pids").exists)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text(encoding="utf-8").split()]
        child, nursery, guardian, near, far, daemon = pids
        below = (child, nursery, near, far, daemon)
        assert set(below) <= set(descendants(process.pid))
        os.kill(guardian, signal.SIGKILL)
        eventually("nothing is left", lambda: not any(map(is_alive, below)), within_seconds=5)
        assert is_alive(process.pid)
        eventually("a new tree stands", lambda: len(descendants(process.pid)) >= 4)
        # What the new guard has to tell, it knows without being told again.
        process.kill()
        assert coordinator.told.wait(10)
    ((_, told),) = coordinator.reports
    assert told["incarnation"] == 7
    assert told["started"] == [STARTED.hex(), SPOOLED.hex()]
    assert told["spooled"] == [SPOOLED.hex()]


def test_where_supervisor_and_guard_are_killed_together_nothing_is_left_either(
    tmp_path: Path, eventually: Eventually
) -> None:
    with supervisor(tmp_path, "http://127.0.0.1:1") as process:
        eventually("all is up", (tmp_path / "pids").exists)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text(encoding="utf-8").split()]
        child, nursery, guardian, *family = pids
        # So that neither sees the end of the other.
        for pid in (guardian, process.pid):
            os.kill(pid, signal.SIGSTOP)
        for pid in (guardian, process.pid):
            os.kill(pid, signal.SIGKILL)
        below = (child, nursery, *family)
        eventually("nothing is left", lambda: not any(map(is_alive, below)), within_seconds=5)


def test_an_orderly_end_that_leaves_nothing_is_not_told(tmp_path: Path) -> None:
    coordinator = Coordinator([])

    async def scene(url: str) -> int:
        async with Rig(tmp_path) as rig:
            rig.engine.guard.session(url=url, identity="w", incarnation=1, last_word="x")
            rig.engine.guard.started([STARTED, DONE])
            rig.engine.guard.spooled([DONE])
            await rig.run("nothing")
            pid = rig.engine.guard.pid
            await rig.engine.close()
            # The last answers come when all children have ended.
            rig.engine.guard.done([STARTED, DONE])
        assert not is_alive(pid)
        assert rig.guard_deaths == 0
        return pid

    with serving(coordinator) as url:
        asyncio.run(scene(url))
    assert not coordinator.told.is_set()


def test_what_an_orderly_end_leaves_in_the_spool_is_told_at_the_end_of_the_process(
    tmp_path: Path, eventually: Eventually
) -> None:
    coordinator = Coordinator([])
    with serving(coordinator) as url, supervisor(tmp_path, url) as process:
        eventually("all is up", (tmp_path / "pids").exists)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text(encoding="utf-8").split()]
        child, nursery, guardian, *family = pids
        process.send_signal(signal.SIGUSR2)
        eventually("it has left", (tmp_path / "closed").exists)
        assert not any(map(is_alive, (child, nursery, *family)))
        assert is_alive(guardian)
        assert not coordinator.told.is_set()
        process.kill()
        assert coordinator.told.wait(10)
    ((_, told),) = coordinator.reports
    assert told["started"] == [STARTED.hex(), SPOOLED.hex()]
    assert told["spooled"] == [SPOOLED.hex(), STARTED.hex()]


def test_an_end_without_a_farewell_is_told_at_once_whatever_is_left(tmp_path: Path) -> None:
    coordinator = Coordinator([])

    async def scene(url: str) -> None:
        async with Rig(tmp_path) as rig:
            rig.engine.guard.session(url=url, identity="w", incarnation=1, last_word="x")
            child = await rig.value("pid")
            await rig.engine._tree.close(farewell=False)
            assert not is_alive(child)
            assert not rig.falls
            assert await asyncio.to_thread(coordinator.told.wait, 10)

    with serving(coordinator) as url:
        asyncio.run(scene(url))
    ((_, told),) = coordinator.reports
    assert (told["started"], told["spooled"]) == ([], [])


def test_a_guard_outlives_its_closing_for_as_long_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "CLOSE_SECONDS", 0.05)

    async def scene() -> None:
        async with Rig(tmp_path) as rig:
            await rig.run("nothing")
            await rig.engine.close()
            # Longer than what is allowed for ending children.
            await asyncio.sleep(0.1)
            assert rig.engine.guard.lives
        assert not rig.engine.guard.lives

    asyncio.run(scene())


def test_a_guard_that_stands_still_does_not_hold_the_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "STALL_SECONDS", 0.05)

    async def scene() -> None:
        async with Rig(tmp_path) as rig:
            await rig.run("nothing")
            os.kill(rig.engine.guard.pid, signal.SIGSTOP)
            tokens = [STARTED] * 10_000
            for _ in range(20):
                rig.engine.guard.started(tokens)
            await rig.fall()
            await rig.run("nothing")

    asyncio.run(scene())


def test_an_answer_that_is_no_http_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            link, _ = server.accept()
            with link:
                link.recv(65536)
                link.sendall(b"nonsense\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert post(f"http://127.0.0.1:{server.getsockname()[1]}", "/v1/deaths", b"{}") == 0
        thread.join()
