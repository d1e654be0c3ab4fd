"""The line at the bound on submissions, for coroutines."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from holdfast.client import aio_turns
from holdfast.client.aio_turns import Turns
from holdfast.client.intake import Intake
from holdfast.errors import NotSerializableError
from tests.client import work
from tests.client.aio import cut, drive, soon, until
from tests.client.scripted import Scripted, async_client_of


class Bounded:
    """An intake as the line sees it; `large` of what is submitted fills it whatever its number."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.large: set[int] = set()
        self.kept: list[int] = []
        self.stuffed = False

    @property
    def full(self) -> bool:
        return self.places <= 0 or self.stuffed

    def keep(self, number: int) -> None:
        assert not self.full
        self.kept.append(number)
        self.places -= 1
        self.stuffed = number in self.large


class Stage:
    """A line of submitters before such an intake."""

    def __init__(self, places: int = 0) -> None:
        self.bounded = Bounded(places)
        self.intake = cast(Intake, self.bounded)
        self.turns = Turns()

    async def submit(self, number: int) -> None:
        await self.turns.take(self.intake)
        self.bounded.keep(number)

    async def has_room(self, places: int) -> None:
        """Make room, and let the loop have as many turns as it takes."""
        self.bounded.places += places
        self.bounded.stuffed = False
        self.turns.look(self.intake)
        for _ in range(10):
            await asyncio.sleep(0)

    def line(self, numbers: range) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.submit(number)) for number in numbers]


def test_turns_come_in_order_and_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio_turns, "AT_ONCE_MAX", 4)

    async def main() -> None:
        stage = Stage(places=2)
        waiting = stage.line(range(20))
        await stage.has_room(0)
        assert stage.bounded.kept == [0, 1]
        await stage.has_room(3)
        assert stage.bounded.kept == [0, 1, 2, 3, 4]
        await stage.has_room(100)
        await soon(asyncio.gather(*waiting))
        assert stage.bounded.kept == [*range(20)]

    drive(main)


def test_the_loop_has_its_turn_though_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio_turns, "AT_ONCE_MAX", 4)
    ticks: list[int] = []

    async def main() -> None:
        stage = Stage(places=1_000)

        async def one_after_another() -> None:
            for number in range(12):
                await stage.submit(number)

        async def tick() -> None:
            while len(stage.bounded.kept) < 12:
                ticks.append(len(stage.bounded.kept))
                await asyncio.sleep(0)

        await soon(asyncio.gather(one_after_another(), tick()))

    drive(main)
    assert {3, 7, 11} <= set(ticks)


def test_nobody_overtakes_who_waits() -> None:
    async def main() -> None:
        stage = Stage()
        waiting = stage.line(range(3))
        await stage.has_room(0)
        stage.bounded.places = 10
        waiting += stage.line(range(3, 6))
        stage.turns.look(stage.intake)
        await soon(asyncio.gather(*waiting))
        assert stage.bounded.kept == [*range(6)]

    drive(main)


def test_who_is_cancelled_gives_its_turn_to_the_next() -> None:
    async def main() -> None:
        stage = Stage()
        waiting = stage.line(range(4))
        await stage.has_room(0)
        waiting[0].cancel()
        stage.bounded.places = 1
        stage.turns.look(stage.intake)
        await asyncio.sleep(0)
        # It was let in by now, and has not gone on.
        waiting[1].cancel()
        await stage.has_room(0)
        assert stage.bounded.kept == [2]
        await stage.has_room(1)
        assert stage.bounded.kept == [2, 3]

    drive(main)


def test_who_was_let_in_behind_a_large_one_waits_first_again() -> None:
    async def main() -> None:
        stage = Stage()
        stage.bounded.large = {0}
        waiting = stage.line(range(4))
        await stage.has_room(2)
        assert stage.bounded.kept == [0]
        await stage.has_room(10)
        await soon(asyncio.gather(*waiting))
        assert stage.bounded.kept == [0, 1, 2, 3]

    drive(main)


def test_one_that_cannot_be_submitted_keeps_nobody_waiting(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.accepting = False

    async def main() -> None:
        async with async_client_of(scripted, tmp_path, submissions_max=1) as client:
            first = await client.submit(work.double, 1)
            bad: asyncio.Task[Any] = asyncio.create_task(
                client.submit(work.swallow_one, threading.Lock())
            )
            good = asyncio.create_task(client.run(work.double, 2))
            await until("the first is sent", lambda: scripted.specs)
            scripted.accepting = True
            await cut(scripted)
            assert await soon(first) == 2
            with pytest.raises(NotSerializableError):
                await soon(bad)
            assert await soon(good) == 4

    drive(main)


def test_the_bound_on_bytes(tmp_path: Path) -> None:
    scripted = Scripted()

    async def main() -> None:
        async with async_client_of(scripted, tmp_path, submissions_bytes_max=100_000) as client:
            given = [bytes(30_000)] * 20
            sizes = await asyncio.gather(*[client.run(work.size, each) for each in given])
            assert sizes == [30_000] * 20
            assert client._intake.held_bytes == 0

    drive(main)
