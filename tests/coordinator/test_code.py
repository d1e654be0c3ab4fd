"""Functions that travel with their tasks: kept before them, known again, refused with them."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from holdfast.coordinator import gateway, state
from holdfast.errors import StoreFullError, StoreRefusedError
from holdfast.model.ids import TaskId
from holdfast.model.messages import Accepted, Code, CodeWanted, PutCode, Refused, Submit
from holdfast.model.task import State
from tests.coordinator.stage import Stage, perform


def function(name: str, size_bytes: int = 20) -> PutCode:
    """Return a function as it travels."""
    data = name.encode().ljust(size_bytes, b".")
    return PutCode(hashlib.sha256(data).digest(), data)


def test_a_task_whose_function_is_nowhere_is_not_kept_for_now() -> None:
    async def play(stage: Stage) -> None:
        client, code = await stage.client(), function("f")
        lost, plain = stage.spec(code=code.digest), stage.spec()
        await client.submit(lost, plain)
        refused = await client.next(Refused)
        assert (refused.task, refused.code) == (lost.id, "no_code")
        assert refused.retry_after_seconds > 0
        assert (await client.next(Accepted)).tasks == (plain.id,)
        await client.send(Submit((lost,)), code)
        assert (await client.next(Refused)).code == "no_code", "its function came behind it"
        assert (await client.keep(lost)).tasks == (lost.id,)

    perform(play)


def test_a_kept_task_is_answered_as_kept_whatever_became_of_its_function() -> None:
    async def play(stage: Stage) -> None:
        client, code = await stage.client(), function("f")
        await client.send(code, Submit((kept := stage.spec(code=code.digest),)))
        await client.next(Accepted)
        stage.disk.execute("DELETE FROM code")
        await stage.restart()
        back = await stage.client()
        await back.submit(kept, again=True)
        assert (await back.next(Accepted)).tasks == (kept.id,)

    perform(play)


def test_a_function_is_known_that_another_client_brought_or_a_former_life_kept() -> None:
    async def play(stage: Stage) -> None:
        one, code = await stage.client("one"), function("f")
        await one.send(code, Submit((stage.spec(code=code.digest),)))
        await one.next(Accepted)
        two = await stage.client("two")
        await two.keep(stage.spec(code=code.digest))
        commits = len(stage.store.commits)
        await two.send(code)
        await stage.quiet()
        assert len(stage.store.commits) == commits, "nothing to write"
        assert stage.store.code_asked == []
        await stage.restart()
        back = await stage.client("back")
        await back.keep(stage.spec(code=code.digest), stage.spec(code=code.digest))
        await back.keep(stage.spec(code=code.digest))
        assert stage.store.code_asked == [[code.digest]], "the store is asked once"

    perform(play)


def test_the_store_is_not_asked_for_what_comes_with_its_task_or_before() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        for code in map(function, "fgh"):
            await client.send(code, Submit((stage.spec(code=code.digest),)))
            await client.next(Accepted)
        before = function("i")
        await client.send(before)
        await stage.quiet()
        await client.keep(stage.spec(code=before.digest))
        assert stage.store.code_asked == []

    perform(play)


def test_only_so_many_functions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "CODE_KNOWN_MAX", 2)

    async def play(stage: Stage) -> None:
        client = await stage.client()
        first, *others = map(function, "fghi")
        for code in (first, *others):
            await client.send(code, Submit((stage.spec(code=code.digest),)))
            await client.next(Accepted)
        assert list(stage.coordinator.state.code) == [code.digest for code in others[1:]]
        await client.keep(stage.spec(code=first.digest))
        assert stage.store.code_asked == [[first.digest]]

    perform(play)


def stored(stage: Stage) -> int:
    """Return how many functions are on the disk."""
    (count,) = stage.disk.execute("SELECT count(*) FROM code").fetchone()
    return int(count)


def test_without_room_no_function_is_written() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        stage.room.is_short = True
        stage.coordinator.look_at_room()
        for number in range(50):
            code = function(f"f{number}", 100_000)
            await client.send(code)
            await client.submit(stage.spec(code=code.digest))
            assert (await client.next(Refused)).code == "no_room"
        assert stored(stage) == 0
        assert stage.store.commits == []

    perform(play)


def test_a_function_that_was_dropped_is_asked_for_once_there_is_room() -> None:
    async def play(stage: Stage) -> None:
        client, code = await stage.client(), function("f")
        stage.coordinator.short = True
        await client.send(code)
        await stage.quiet()
        stage.coordinator.short = False
        await client.submit(spec := stage.spec(code=code.digest))
        assert (await client.next(Refused)).code == "no_code"
        await client.send(code, Submit((spec,)))
        assert (await client.next(Accepted)).tasks == (spec.id,)
        assert stored(stage) == 1

    perform(play)


@pytest.mark.parametrize("with_its_task", [False, True])
def test_a_function_without_room_does_not_hold_up_the_outcome_beside_it(
    with_its_task: bool,
) -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(running := stage.spec())
        order = await worker.assigned()
        stage.store.gate = asyncio.Event()
        await client.submit(stage.spec(queue="other"))
        await stage.store.reached.wait()
        # These come while that is committed, and share a turn.
        code = function("f", 100_000)
        await client.send(code)
        await worker.end(order)
        if with_its_task:
            await client.submit(stage.spec(code=code.digest))
        await stage.quiet()
        stage.store.poison = lambda changes: StoreFullError("full") if changes.code else None
        stage.store.gate.set()
        assert (await client.settled(running.id)).state is State.SUCCEEDED
        assert stage.counters.get("turns_without_room") == 1
        if with_its_task:
            assert (await client.next(Refused)).code == "no_room"
        assert stored(stage) == 0

    perform(play)


def test_a_function_does_not_wait_behind_outcomes_that_find_no_room() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(running := stage.spec())
        order = await worker.assigned()
        full = [True]
        stage.store.poison = lambda changes: StoreFullError("full") if full[0] else None
        await worker.end(order)
        await stage.quiet()
        code = function("f")
        await client.send(code, Submit((late := stage.spec(code=code.digest),)))
        refused = await client.next(Refused)
        assert (refused.task, refused.code) == (late.id, "no_room")
        full[0] = False
        await client.settled(running.id)
        stage.coordinator.look_at_room()
        await stage.quiet()
        assert stored(stage) == 0, "it went with its task"
        await client.send(code, Submit((late,)))
        assert (await client.next(Accepted)).tasks == (late.id,)

    perform(play)


def test_a_turn_that_is_split_keeps_a_function_before_its_tasks() -> None:
    async def play(stage: Stage) -> None:
        client, code = await stage.client(), function("f")
        specs = [stage.spec(code=code.digest) for _ in range(5)]
        bad = specs[1].id
        stage.store.poison = lambda changes: (
            StoreRefusedError("poisoned")
            if any(task.spec.id == bad for task in changes.inserts)
            else None
        )
        await client.send(code, *(Submit((spec,)) for spec in specs))
        assert (await client.next(Refused)).code == "invalid_input"
        kept = [spec.id for spec in specs if spec.id != bad]
        accepted: list[TaskId] = []
        while len(accepted) < len(kept):
            accepted += (await client.next(Accepted)).tasks
        assert sorted(accepted) == kept

    perform(play)


def test_a_worker_that_reads_slowly_has_few_functions_waiting_for_it() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        codes = [function(f"f{number}", 100_000) for number in range(30)]
        for code in codes:
            await client.send(code)
        await client.keep(stage.spec())
        wanted = [CodeWanted(code.digest) for code in codes]
        await worker.say(*wanted)
        # It asks for each once more, as for another task of it.
        await worker.say(*wanted)
        await stage.quiet()
        (session,) = stage.coordinator.state.sessions.values()
        assert sum(isinstance(message, Code) for message in session.out) <= 1
        came: list[Code] = []
        while len(came) < len(codes):
            came.append(await worker.next(Code))
            await worker.say()
        assert [message.digest for message in came] == [code.digest for code in codes]
        assert all(message.found for message in came)
        await worker.say(CodeWanted(codes[0].digest))
        assert (await worker.next(Code)).data == codes[0].data

    perform(play)


def test_a_worker_that_asks_for_more_functions_than_it_can_hold_leases_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gateway, "_CODE_WANTED_MAX", 3)

    async def play(stage: Stage) -> None:
        worker = await stage.worker()
        await worker.say(*(CodeWanted(bytes([number]) * 32) for number in range(4)))
        await worker.until_closed()
        assert stage.counters.get("protocol_errors") == 1

    perform(play)
