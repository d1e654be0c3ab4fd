"""The end of a worker: an orderly drain, the farewell, and what the operator has to mend."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.model.messages import Draining, Ended, Goodbye, Recall, Started
from holdfast.model.outcome import Answer, Encoding, OutcomeKind, Payload
from holdfast.model.task import Wanted
from tests.core.wording import number_of, said, task, token
from tests.worker.kit import Stage, begin, cut, play


def test_a_drain_returns_what_has_not_started_and_waits_for_the_rest() -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(1, 2)
        await stage.engine.did("hand", 1)
        assert await session.hear(Started)
        stage.agent.drain(30)
        assert await session.hear(Draining)
        await session.hear_ended(2, OutcomeKind.RETURNED)
        await session.assign(3)
        await session.hear_ended(3, OutcomeKind.RETURNED)
        await session.settle(2, 3)
        assert not stage.engine.closed
        stage.engine.end(1)
        await session.hear_ended(1)
        assert stage.engine.closed
        assert stage.engine.farewell
        await session.settle(1)
        assert (await session.hear(Goodbye)).code == "drained"
        await running
        assert stage.spool.saves == 0
        assert stage.engine.runs == {1: 1}

    play(scene, slots=1)


def test_what_outlives_a_drain_is_stopped_and_what_is_unanswered_is_spooled() -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(1)
        await stage.engine.did("hand", 1)
        assert await session.hear(Started)
        stage.agent.drain(5)
        stage.agent.drain(50)
        assert await session.hear(Draining)
        before = asyncio.get_running_loop().time()
        await session.hear_ended(1, OutcomeKind.STOPPED)
        assert 4 < asyncio.get_running_loop().time() - before < 6
        assert await session.hear(Goodbye)
        await running
        assert list(stage.spool.kept) == [token(1)]
        assert stage.guard.named("spooled") == [1]

    play(scene)


def test_a_large_result_that_no_store_has_taken_yet_outlives_the_worker() -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(1)
        await stage.engine.did("hand", 1)

        async def never(path: str, encoding: Encoding) -> Payload:
            stage.agent.drain(5)
            return await asyncio.get_running_loop().create_future()

        stage.files.store = never  # type: ignore[method-assign]
        stage.files.files["out/1"] = b"large-result"
        message = Ended(task(1), token(1), OutcomeKind.SUCCEEDED, Payload(Encoding.PICKLE))
        stage.engine.report(message, "out/1")
        await running
        (kept,) = stage.spool.load()
        assert kept.kind is OutcomeKind.SUCCEEDED
        assert kept.result is not None
        assert stage.files.shelf == {kept.result.digest: b"large-result"}

    play(scene)


def test_nothing_is_asked_of_a_closed_engine_while_a_result_goes_on_the_shelf() -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(1, 2, 3, 4)
        await stage.engine.did("hand", 4)
        stage.files.gate = asyncio.Event()
        stage.files.files["out/1"] = b"large-result"
        message = Ended(task(1), token(1), OutcomeKind.SUCCEEDED, Payload(Encoding.PICKLE))
        stage.engine.report(message, "out/1")
        stage.agent.drain(0)
        await stage.engine.did("close", 0)
        await session.wish(2, Wanted.CANCEL, 1)
        await session.say(Recall(task(3), token(3)))
        await session.stop(4)
        await asyncio.sleep(1)
        assert not running.done()
        stage.files.gate.set()
        ends = {}
        while not isinstance(message := await session.hear(object), Goodbye):
            if isinstance(message, Ended):
                ends[number_of(message.token)] = message.kind
        await running
        assert ends == {
            1: OutcomeKind.SUCCEEDED,
            2: OutcomeKind.STOPPED,
            3: OutcomeKind.STOPPED,
        }
        assert [number_of(each.token) for each in stage.spool.load()] == [1, 2, 3]

    play(scene, slots=4)


def test_a_drain_without_a_coordinator_ends_too() -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(1, 2)
        await stage.engine.did("hand", 1)
        await cut(stage, session)
        stage.agent.drain(5)
        await running
        kinds = {number_of(each.token): each.kind for each in stage.spool.load()}
        assert kinds == {1: OutcomeKind.STOPPED, 2: OutcomeKind.RETURNED}

    play(scene, slots=1)


def test_a_worker_that_drains_says_so_again_in_a_new_session() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1)
        await stage.engine.did("hand", 1)
        stage.agent.drain(60)
        await cut(stage, session)
        stage.coordinator.down = False
        again = await stage.coordinator.session()
        hello, _ = await again.hello()
        assert hello.draining
        await again.welcome(said(1, Answer.KEEP), epoch=2)
        assert await again.hear(Draining)
        stage.engine.end(1)
        await again.hear_ended(1)

    play(scene)


@pytest.mark.parametrize("broken", [OSError(28, "no room"), HoldfastError("no disk")])
def test_a_spool_that_fails_at_the_end_does_not_keep_the_goodbye_back(broken: Exception) -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(1)
        await stage.engine.did("hand", 1)
        assert await session.hear(Started)
        stage.spool.broken = broken
        stage.agent.drain(0)
        assert await session.hear(Draining)
        await session.hear_ended(1, OutcomeKind.STOPPED)
        assert await session.hear(Goodbye)
        with pytest.raises(type(broken)):
            await running

    play(scene)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("code", ["name_taken", "outlived"])
def test_what_no_redial_mends_is_for_the_operator(before: bool, code: str) -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        if before:
            session = await stage.welcomed()
            await session.assign(1)
            await stage.engine.did("hand", 1)
            session.end.cut()
        session = await stage.coordinator.session()
        await session.hello()
        await session.say(Goodbye(code, "give another"))
        with pytest.raises(ConfigurationError, match="give another"):
            await running
        assert stage.engine.closed
        assert list(stage.spool.kept) == ([token(1)] if before else [])

    play(scene)
