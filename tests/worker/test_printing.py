"""What tasks print goes where it was said, within a bound, and keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from holdfast import outlet as room
from holdfast.outlet import Outlet, Streams
from holdfast.worker.printing import Log, Printer

SECONDS = 10.0


class Stalling:
    """A sink that takes nothing until it is told to."""

    def __init__(self) -> None:
        self.got = b""
        self.reading = threading.Event()
        self.outlet = Outlet(self._write)

    def _write(self, data: bytes) -> None:
        assert self.reading.wait(SECONDS)
        self.got += data


def test_children_are_read_no_further_while_too_much_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "MUCH_BYTES", 100)
    monkeypatch.setattr(room, "LITTLE_BYTES", 10)
    out, err = Stalling(), Stalling()
    told: list[bool] = []

    async def scene() -> None:
        heard = asyncio.Event()

        def read_on(on: bool) -> None:
            told.append(on)
            heard.set()

        printer = Printer(Streams(out.outlet, err.outlet), read_on=read_on)
        printer(0, False, b"x" * 100)
        assert told == []
        printer(1, False, b"y")
        printer(0, True, b"z" * 101)
        printer(0, False, b"the last of a child that died")
        assert told == [False, False]
        err.reading.set()
        assert await asyncio.to_thread(err.outlet.flush, SECONDS)
        await asyncio.sleep(0)
        assert told == [False, False], "the other one is still full"
        heard.clear()
        out.reading.set()
        async with asyncio.timeout(SECONDS):
            await heard.wait()
        printer(0, False, b"more")
        assert await asyncio.to_thread(out.outlet.flush, SECONDS)

    asyncio.run(scene())
    assert told == [False, False, True]
    assert out.got == b"x" * 100 + b"y" + b"the last of a child that died" + b"more"
    assert err.got == b"z" * 101


def test_a_stream_that_is_read_again_after_the_end_of_the_worker_tells_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "MUCH_BYTES", 100)
    sink = Stalling()
    told: list[bool] = []

    async def scene() -> None:
        Printer(Streams(sink.outlet, sink.outlet), read_on=told.append)(0, False, b"x" * 101)

    asyncio.run(scene())
    sink.reading.set()
    assert sink.outlet.flush(SECONDS)
    sink.outlet.put(b"the thread lives")
    assert sink.outlet.flush(SECONDS)
    assert told == [False]


def test_a_log_and_the_one_before_it_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_bytes(b"12345")
    log = Log(path, bytes_max=8)
    log.write(b"678")
    log.write(b"9")
    assert path.read_bytes() == b"9"
    assert (tmp_path / "worker.log.1").read_bytes() == b"12345678"
    log.write(b"much more than its bound")
    log.write(b"x")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["worker.log", "worker.log.1"]


def test_a_log_that_is_gone_loses_words_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "worker.log"
    outlet = Outlet(Log(path).write)
    outlet.put(b"lost")
    assert outlet.flush(SECONDS)
    path.parent.mkdir()
    outlet.put(b"kept")
    assert outlet.flush(SECONDS)
    assert path.read_bytes() == b"kept"
