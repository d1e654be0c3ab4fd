"""Silence and restarts: a lease ends after a whole one of listening in vain, and not before."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.coordinator import service
from holdfast.coordinator.facts import Tick
from holdfast.errors import StoreFullError
from holdfast.model.messages import (
    Answered,
    Assign,
    Goodbye,
    HeldLease,
    StopOrder,
    WorkerWelcome,
)
from holdfast.model.outcome import Answer
from holdfast.model.task import Lease, Owed, Phase, State
from tests.coordinator.stage import (
    Stage,
    Worker,
    answers_to,
    held,
    perform,
    running,
)


def test_silence_counts_after_the_lease_only() -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await running(stage)
        await stage.ticks(10)
        assert (await stage.row(order.task)).life.lease is Lease.HELD
        await stage.tick()
        life = (await stage.row(order.task)).life
        assert (life.state, life.owed) == (State.QUEUED, Owed.UNHEARD)
        await worker.until_closed()
        assert stage.coordinator.state.sessions == {}

    perform(play)


def test_a_hello_and_a_tick_of_one_turn_are_no_silence() -> None:
    async def play(stage: Stage) -> None:
        worker, client, (order,) = await running(stage)
        await worker.leave()
        await stage.ticks(10)
        stage.store.gate = asyncio.Event()
        await client.submit(stage.spec(queue="other"))
        await stage.store.reached.wait()
        back = Worker(stage.dial())
        await back.send(
            stage.hello("w", held=(HeldLease(order.task, order.token, Phase.STARTED, 0),))
        )
        await stage.quiet()
        stage.clock.pass_by(1.0)
        stage.coordinator.post(None, Tick(1.0))
        stage.store.gate.set()
        await back.next(WorkerWelcome)
        await stage.quiet()
        assert (await stage.row(order.task)).life.lease is Lease.HELD
        assert [event.kind for event in await stage.events(order.task)] == []

    perform(play)


def test_a_hello_that_waits_for_its_turn_is_no_silence() -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await running(stage)
        await worker.start(order)
        await worker.leave()
        await stage.ticks(6)
        # A slow commit: the tick that is gathered next comes before the hello, and its turn too.
        stage.store.gate = gate = asyncio.Event()
        client = await stage.client()
        await client.submit(stage.spec(queue="elsewhere"))
        await stage.store.reached.wait()
        stage.coordinator.post(None, Tick(1.0))
        again = Worker(stage.dial())
        await again.send(stage.hello(held=(held(order, Phase.STARTED),)))
        await stage.quiet()
        stage.clock.pass_by(5.5)
        stage.coordinator.state.swept = stage.clock.now - 1.0
        stage.store.gate = None
        gate.set()
        await stage.quiet()
        story = [commit.events for commit in stage.store.commits]
        assert not [e for events in story for e in events if e.kind == "worker silent"]
        assert (await stage.row(order.task)).life.lease is Lease.HELD

    perform(play)


def test_a_worker_that_speaks_is_not_silent() -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await running(stage)
        for _ in range(30):
            await worker.say()
            await stage.tick()
        assert (await stage.row(order.task)).life.lease is Lease.HELD

    perform(play)


def test_a_silent_worker_gets_nothing_in_the_turn_that_closes_it() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await running(stage)
        worker = await stage.worker(slots=3, held=(held(order),))
        await stage.ticks(11)
        life = (await stage.row(order.task)).life
        assert (life.state, life.fence) == (State.QUEUED, 1)
        assert not any(isinstance(message, Assign) for message in worker.unread)

    perform(play)


def test_a_silent_worker_that_holds_nothing_is_closed_too() -> None:
    async def play(stage: Stage) -> None:
        worker = await stage.worker()
        await stage.ticks(11)
        await worker.until_closed()
        assert stage.coordinator.state.crew.offers == {}

    perform(play)


def test_time_in_which_we_were_deaf_does_not_count() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await running(stage)
        await stage.ticks(5)
        await stage.tick(deaf=60.0)
        assert stage.counters.get("deaf_spells") == 1
        await stage.ticks(4)
        assert (await stage.row(order.task)).life.lease is Lease.HELD
        await stage.ticks(2)
        assert (await stage.row(order.task)).life.lease is Lease.LAPSED

    perform(play)


def test_who_said_hello_after_we_were_deaf_is_owed_nothing_for_it() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await running(stage)
        stage.clock.pass_by(60.0)
        await stage.worker(held=(held(order),))
        await stage.tick()
        assert stage.counters.get("deaf_spells") == 1
        await stage.ticks(9)
        assert (await stage.row(order.task)).life.lease is Lease.HELD
        await stage.ticks(2)
        assert (await stage.row(order.task)).life.lease is Lease.LAPSED

    perform(play)


def test_a_lapsed_lease_delivers_until_somebody_else_claims() -> None:
    async def play(stage: Stage) -> None:
        _, client, (order,) = await running(stage)
        await stage.ticks(11)
        back = await stage.worker(held=(held(order, Phase.STARTED),))
        assert answers_to(back)[order.token].answer is Answer.KEEP
        assert "revived" in [event.kind for event in await stage.events(order.task)]
        await back.settle(order)
        assert (await client.settled(order.task)).state is State.SUCCEEDED

    perform(play)


def test_a_superseded_start_is_stopped() -> None:
    async def play(stage: Stage) -> None:
        _, client, (order,) = await running(stage)
        second = await stage.worker("v")
        for _ in range(11):
            await second.say()
            await stage.tick()
        newer = await second.assigned()
        assert newer.task == order.task
        first = await stage.worker(draining=True)
        first.held[order.token] = order.task
        stage.coordinator.state.sessions["id-w"].ledger.keep(order.token, order.task)
        await first.start(order)
        stop = await first.next(StopOrder)
        assert stop.token == order.token
        await first.say()
        await first.end(order)
        assert (await first.next(Answered)).answer is Answer.SUPERSEDED
        await second.settle(newer)
        await client.settled(order.task)
        assert stage.counters.get("views_differ") == 0

    perform(play)


def test_a_restart_keeps_what_runs_for_a_lease() -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await running(stage)
        await worker.start(order)
        await stage.ticks(9)
        await stage.restart()
        await stage.ticks(10)
        assert (await stage.row(order.task)).life.lease is Lease.HELD
        back = await stage.worker(held=(held(order, Phase.STARTED),))
        assert answers_to(back)[order.token].answer is Answer.KEEP
        assert back.epoch == 2
        await back.settle(order)
        client = await stage.client()
        assert (await stage.row(order.task)).life.state is State.SUCCEEDED
        assert (await client.ask("status", task=order.task.hex())).data["run"] == 1

    perform(play)


def test_outages_in_a_row_are_counted_and_their_credit_is_bounded() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await running(stage)
        for outages in (0, 1, 2):
            await stage.restart()
            (row,) = await stage.store.inner.worker_rows()
            assert row.outages == outages
            await stage.ticks(3)
            (row,) = await stage.store.inner.worker_rows()
            assert row.outages == outages + 1
        await stage.ticks(4)
        assert (await stage.row(order.task)).life.lease is Lease.HELD
        await stage.ticks(1)
        assert (await stage.row(order.task)).life.lease is Lease.LAPSED
        await stage.worker()
        (row,) = await stage.store.inner.worker_rows()
        assert row.outages == 0

    perform(play)


def test_outages_without_end_keep_no_lease_alive() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await running(stage)
        for _ in range(4):
            await stage.restart()
            await stage.ticks(3)
            assert (await stage.row(order.task)).life.lease is Lease.HELD
        await stage.restart()
        await stage.ticks(2)
        assert (await stage.row(order.task)).life.lease is Lease.LAPSED

    perform(play)


def test_restarts_in_which_nobody_could_come_are_one_outage() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await running(stage)
        for _ in range(20):
            await stage.restart()
            await stage.ticks(2)
        (row,) = await stage.store.inner.worker_rows()
        assert row.outages == 0
        assert (await stage.row(order.task)).life.lease is Lease.HELD
        back = await stage.worker(held=(held(order, Phase.STARTED),))
        assert answers_to(back)[order.token].answer is Answer.KEEP

    perform(play)


def test_time_in_which_a_coordinator_was_deaf_ends_no_outage() -> None:
    async def play(stage: Stage) -> None:
        await running(stage)
        await stage.restart()
        stage.clock.pass_by(60)
        await stage.ticks(2)
        (row,) = await stage.store.inner.worker_rows()
        assert row.outages == 0
        await stage.ticks(2)
        (row,) = await stage.store.inner.worker_rows()
        assert row.outages == 1

    perform(play)


def test_who_came_back_is_not_counted_as_missed() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await running(stage)
        await stage.restart()
        await stage.ticks(2)
        await stage.worker(held=(held(order),))
        await stage.ticks(5)
        (row,) = await stage.store.inner.worker_rows()
        assert row.outages == 0

    perform(play)


def test_an_outage_that_finds_no_room_is_counted_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "NO_ROOM_SECONDS", 0.0)

    async def play(stage: Stage) -> None:
        _, _, (order,) = await running(stage)
        await stage.restart()
        stage.store.before += [StoreFullError("full")] * 3
        await stage.ticks(4)
        assert not stage.store.before
        (row,) = await stage.store.inner.worker_rows()
        assert row.outages == 1
        back = await stage.worker(held=(held(order),))
        assert answers_to(back)[order.token].answer is Answer.KEEP

    perform(play)


def test_a_refused_hello_keeps_no_lease_alive() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await running(stage)
        for incarnation in range(2, 14):
            await stage.worker("other", queues=("q",))
            thief = Worker(stage.dial())
            hello = stage.hello("other", identity="id-w", incarnation=incarnation, number=1)
            await thief.send(hello)
            assert (await thief.next(Goodbye)).code == "name_taken"
            await stage.ticks(1)
        assert (await stage.row(order.task)).life.lease is Lease.LAPSED
        assert not stage.coordinator.state.greetings

    perform(play)


def test_queued_tasks_survive_a_restart() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        specs = [stage.spec() for _ in range(3)]
        await client.keep(*specs)
        await stage.restart()
        worker = await stage.worker(slots=3)
        assert [(await worker.assigned()).task for _ in specs] == [spec.id for spec in specs]
        client = await stage.client()
        assert (await client.keep(*specs)).tasks == tuple(spec.id for spec in specs)

    perform(play)
