"""Workers that left long ago are forgotten, and nothing is accepted wrongly for it."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.coordinator import forgetting
from holdfast.coordinator.facts import Death, Tick
from holdfast.model.messages import Goodbye, Pull, WorkerWelcome
from holdfast.model.outcome import Answer
from holdfast.model.task import State
from tests.coordinator.stage import Stage, Worker, ended, held, perform

WEEK_MS = int(forgetting.KNOWN_SECONDS * 1000)


async def known(stage: Stage) -> set[str]:
    """Return who is known, in memory and in the store alike."""
    rows = {row.identity for row in await stage.store.worker_rows()}
    assert rows == set(stage.coordinator.state.workers)
    assert set(stage.coordinator.state.names.values()) <= rows
    return rows


async def later(stage: Stage, milliseconds: int) -> None:
    """Let so much time pass, in which all sessions are heard, and then the sweeper look."""
    for seconds in (milliseconds / 1000, 61.0, 61.0):
        await stage.quiet()
        stage.clock.pass_by(seconds)
        for session in stage.coordinator.state.sessions.values():
            session.heard = stage.clock.now
        stage.coordinator.post(None, Tick(seconds))
        await stage.quiet()


async def seen(stage: Stage, *names: str) -> None:
    for name in names:
        worker = await stage.worker(name)
        await worker.leave()
        await stage.quiet()


def test_who_left_a_week_ago_is_forgotten() -> None:
    async def play(stage: Stage) -> None:
        here = await stage.worker("here")
        await seen(stage, "gone", "dead")
        stage.coordinator.post(None, Death("id-dead", 1, certain=True))
        await later(stage, WEEK_MS - 1_000_000)
        assert await known(stage) == {"id-here", "id-gone", "id-dead"}
        await later(stage, 2_000_000)
        assert await known(stage) == {"id-here"}
        assert stage.coordinator.state.buried == {}
        before = len(stage.store.commits)
        await later(stage, WEEK_MS)
        assert len(stage.store.commits) == before, "nobody is left to forget"
        await here.leave()
        await stage.quiet()
        await stage.tick(61.0)
        assert await known(stage) == {"id-here"}, "it was heard just now"

    perform(play)


def test_who_holds_something_is_known() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        worker = await stage.worker()
        await client.keep(spec := stage.spec())
        order = await worker.assigned()
        await worker.start(order)
        await worker.leave()
        await stage.quiet()
        stage.clock.ms += 2 * WEEK_MS
        stage.coordinator.state.heard["id-w"] = stage.clock.now + 600
        for _ in range(3):
            await stage.tick(61.0)
        assert (await stage.row(spec.id)).life.state is State.RUNNING
        assert await known(stage) == {"id-w"}

    perform(play)


def test_above_a_number_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "WORKERS_KNOWN_MAX", 3)
    monkeypatch.setattr(forgetting, "_FORGOTTEN_MAX", 2)

    async def play(stage: Stage) -> None:
        here = await stage.worker("here")
        for number in range(8):
            stage.clock.ms += 1_000
            await seen(stage, f"w{number}")
        await stage.ticks(3)
        assert await known(stage) == {"id-here", "id-w5", "id-w6", "id-w7"}
        assert all(len(changes.forgotten) <= 2 for changes in stage.store.commits)
        await here.hears()
        assert not stage.coordinator.state.sessions["id-here"].closed
        await stage.restart()
        assert len(await known(stage)) == 4

    perform(play)


def test_who_says_hello_in_the_turn_that_would_forget_it_stays() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        await seen(stage, "w", "x")
        stage.coordinator.state.heard.clear()
        stage.store.gate = gate = asyncio.Event()
        await client.submit(stage.spec())
        await stage.store.reached.wait()
        # Behind this turn: the tick first, and the hello in the same turn.
        stage.clock.pass_by(2 * forgetting.KNOWN_SECONDS)
        stage.coordinator.post(None, Tick(1.0))
        back = Worker(stage.dial())
        await back.send(stage.hello())
        stage.coordinator.state.heard.clear()
        await stage.quiet()
        stage.coordinator.state.heard.clear()
        stage.store.gate = None
        gate.set()
        assert (await back.next(WorkerWelcome)).epoch == 2
        assert await known(stage) == {"id-w"}
        (changes,) = [changes for changes in stage.store.commits if changes.forgotten]
        assert [row.identity for row in changes.forgotten] == ["id-x"]
        assert len(changes.workers) == 1
        assert stage.coordinator.state.workers["id-w"].number == 2

    perform(play)


def test_a_forgotten_worker_brings_what_its_tokens_allow() -> None:
    async def play(stage: Stage) -> None:
        client, old = await stage.client(), await stage.worker("old", slots=2)
        await client.keep(mine := stage.spec(), theirs := stage.spec(queue="theirs"))
        orders = {order.task: order for order in (await old.assigned(), await old.assigned())}
        await stage.tick(11.0)
        await later(stage, WEEK_MS + 7_200_000)
        assert await known(stage) == set()
        taker = await stage.worker("taker", queues=("theirs",))
        taken = await taker.assigned()
        assert taken.task == theirs.id
        # A hello of the same life that was late for a week: nobody took the one task over.
        late = await stage.worker(
            "old",
            number=1,
            held=(held(orders[mine.id]),),
            outcomes=(ended(orders[theirs.id]),),
        )
        assert late.epoch == 1
        assert late.welcome is not None
        answers = {answer.task: answer.answer for answer in late.welcome.answers}
        assert answers == {mine.id: Answer.KEEP, theirs.id: Answer.SUPERSEDED}
        assert (await stage.row(theirs.id)).life.token == taken.token
        # The newer life ends it; what is late after that one is told so.
        await stage.worker("old", incarnation=2)
        await late.until_closed()
        peer = Worker(stage.dial())
        await peer.send(stage.hello("old", incarnation=1, number=9))
        assert (await peer.next(Goodbye)).code == "outlived"

    perform(play)


def test_a_socket_from_before_is_not_taken_for_the_new_one_of_its_epoch() -> None:
    async def play(stage: Stage) -> None:
        before = await stage.worker()
        (session,) = stage.coordinator.state.sessions.values()
        await before.leave()
        await stage.quiet()
        stage.coordinator.state.heard.clear()
        await later(stage, 2 * WEEK_MS)
        assert await known(stage) == set()
        stage.store.gate = gate = asyncio.Event()
        client = await stage.client()
        await client.submit(stage.spec())
        await stage.store.reached.wait()
        back = Worker(stage.dial())
        await back.send(stage.hello())
        await stage.quiet()
        stage.coordinator.post(session, Pull(1))
        stage.store.gate = None
        gate.set()
        welcome = await back.next(WorkerWelcome)
        assert welcome.epoch == before.epoch == 1
        assert stage.counters.get("messages_of_older_sessions") == 1

    perform(play)
