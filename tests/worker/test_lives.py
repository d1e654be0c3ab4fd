"""Two lives of one worker over real files and real time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

from holdfast.model.outcome import Answer
from holdfast.worker.home import FileHome
from holdfast.worker.spool import FileSpool
from tests.core.wording import number_of, said
from tests.worker.kit import Stage

NUMBERS = range(1, 101)


async def until(what: str, condition: Callable[[], object]) -> None:
    """Poll for what only a disk can show."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"waited in vain until {what}")


def live(folder: Path, life: Callable[[Stage], Coroutine[object, object, None]]) -> None:
    """Play one life of the worker whose state is in a folder, and end it suddenly."""
    home = FileHome.open(folder)

    async def main() -> None:
        stage = Stage(concurrent_slots=100, home=home, spool=FileSpool(folder / "spool"))
        await life(stage)
        await stage.end()

    asyncio.run(main())
    home.close()


def test_outcomes_are_delivered_by_the_next_incarnation(tmp_path: Path) -> None:
    async def first_life(stage: Stage) -> None:
        stage.start()
        session = await stage.welcomed()
        await session.assign(*NUMBERS, concurrent=True)
        await stage.engine.did("hand", 100)
        stage.coordinator.down = True
        session.end.cut()
        await stage.cut_off()
        stage.engine.end(*NUMBERS)
        await until("all is spooled", lambda: len(stage.guard.named("spooled")) == 100)

    async def second_life(stage: Stage) -> None:
        stage.start()
        session = await stage.coordinator.session()
        hello, outcomes = await session.hello()
        assert stage.guard.named("spooled") == list(NUMBERS)
        assert (hello.incarnation, hello.held) == (2, ())
        assert [number_of(each.token) for each in outcomes] == list(NUMBERS)
        await session.welcome(*(said(n, Answer.SETTLED) for n in NUMBERS), epoch=2)
        await until("the spool is empty", lambda: not (tmp_path / "spool").stat().st_size)
        assert stage.engine.runs == {}

    live(tmp_path, first_life)
    live(tmp_path, second_life)
