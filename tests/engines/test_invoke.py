"""Whatever a task's classes raise becomes its outcome, and costs no child."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from holdfast.model.outcome import OutcomeKind
from holdfast.payloads.describing import line_of
from tests.engines import hostile
from tests.engines.rig import Rig

BODIES = hostile.__name__
LANES = ((0, ""), (2, "_later"))
"""A sequential lane and the one for `async def`, with what its bodies are called."""


def play(folder: Path, scene: Callable[[Rig], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Rig(folder) as rig:
            await scene(rig)
            assert not rig.deaths, "none of it cost a child"

    asyncio.run(main())


def test_a_result_that_raises_while_it_is_pickled_is_invalid(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        for lane, suffix in LANES:
            for name, error in hostile.ERRORS.items():
                ended = await rig.run(f"{BODIES}:return_bad{suffix}", name, lane=lane)
                assert ended.kind is OutcomeKind.INVALID, name
                assert ended.failure is not None
                told = f"result: {BODIES}.BadResult: {line_of(error)}"
                assert told in ended.failure.message

    play(tmp_path, scene)


def test_a_result_that_has_no_room_is_a_fault_of_the_place(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        results = tmp_path / "state" / "engine" / "results"
        results.rmdir()
        for lane in (0, 2):
            ended = await rig.run("large_result", 3_000_000, lane=lane)
            assert ended.kind is OutcomeKind.ENVIRONMENT
            assert ended.failure is not None
            assert "cannot write the result of" in ended.failure.message

    play(tmp_path, scene)


def test_arguments_that_raise_while_they_are_unpickled_are_invalid(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        for lane in (0, 2):
            for name in ("exit", "key", "generator", "value"):
                ended = await rig.run(f"{BODIES}:take", hostile.BadValue(name), lane=lane)
                assert ended.kind is OutcomeKind.INVALID, name
                assert ended.failure is not None
                assert "cannot decode the arguments of" in ended.failure.message

    play(tmp_path, scene)


def test_an_exception_that_cannot_be_described_is_final(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        for lane, suffix in LANES:
            for name in hostile.RAISED:
                ended = await rig.run(f"{BODIES}:fail{suffix}", name, lane=lane)
                assert ended.kind is OutcomeKind.RAISED, name
                assert ended.failure is not None
                assert ended.failure.types[0] == f"{BODIES}.{name}"
                told = "raises SystemExit" if name == "Untold" else "text"
                assert told in ended.failure.message
                assert f"in fail{suffix}" in ended.failure.traceback
                for ours in ("child.py", "concurrent.py"):
                    assert ours not in ended.failure.traceback

    play(tmp_path, scene)


def test_a_task_that_is_cancelled_while_it_reads_a_result_stops(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        mark = tmp_path / "mark"
        token = rig.start(f"{BODIES}:read_slowly", str(mark), str(tmp_path))
        await rig.until("it reads", mark.exists)
        rig.engine.interrupt(0, token)
        ended = await rig.outcome(token)
        assert ended.failure is not None
        assert ended.failure.types[0] == "holdfast.engines.current.TaskCancelled"

    play(tmp_path, scene)
