"""Hellos: each lease that is named or not is answered, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.coordinator import reconcile
from holdfast.model.ids import Token
from holdfast.model.messages import (
    Answered,
    Ended,
    Goodbye,
    HeldLease,
    HelloMore,
    SetWanted,
    Started,
    View,
    WishTold,
    WorkerWelcome,
)
from holdfast.model.outcome import Answer, OutcomeKind
from holdfast.model.task import Lease, Owed, Phase, State, Wanted
from tests.coordinator.stage import (
    DONE,
    Stage,
    Worker,
    answers_to,
    ended,
    held,
    perform,
    running,
)


def test_a_hello_answers_each_lease_that_it_names() -> None:
    async def play(stage: Stage) -> None:
        old, client, orders = await running(stage, 4)
        started, waiting, done, unnamed = orders
        await old.start(started)
        new = await stage.worker(
            slots=4,
            held=(held(started, Phase.STARTED), held(waiting)),
            outcomes=(ended(done),),
        )
        answers = answers_to(new)
        assert answers[started.token].answer is Answer.KEEP
        assert answers[waiting.token].answer is Answer.KEEP
        assert answers[done.token].answer is Answer.SETTLED
        assert (await client.settled(done.task)).state is State.SUCCEEDED
        again = await new.assigned()
        assert (again.task, again.fence) == (unnamed.task, 2)
        used = (await stage.row(unnamed.task)).life.used
        assert (used.free_returns, used.losses) == (1, 0)
        await old.until_closed()

    perform(play)


def test_an_unnamed_start_is_lapsed_and_charged_at_the_next_claim() -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await running(stage)
        await worker.start(order)
        await stage.quiet()
        await stage.worker("other", slots=1, queues=("elsewhere",))
        new = await stage.worker(draining=True)
        life = (await stage.row(order.task)).life
        assert (life.state, life.lease, life.owed) == (State.QUEUED, Lease.LAPSED, Owed.LOSS)
        assert life.used.losses == 0
        new = await stage.worker()
        assert (await new.assigned()).fence == 2
        assert (await stage.row(order.task)).life.used.losses == 1
        assert [a.fence for a in await stage.attempts(order.task)] == [1]
        assert "worker came back without it" in [e.kind for e in await stage.events(order.task)]

    perform(play)


def test_superseded_and_unknown_outcomes() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await running(stage)
        new = await stage.worker()
        second = await new.assigned()
        foreign = Ended(stage.spec().id, order.token, OutcomeKind.SUCCEEDED, DONE)
        new = await stage.worker(held=(held(second),), outcomes=(ended(order), foreign))
        answers = [answer.answer for answer in new.welcome.answers]  # type: ignore[union-attr]
        assert answers == [Answer.SUPERSEDED, Answer.SUPERSEDED, Answer.KEEP]
        new = await stage.worker(
            store="another", timeline=3, held=(held(second),), outcomes=(foreign,)
        )
        assert answers_to(new)[foreign.token].answer is Answer.UNKNOWN
        assert stage.counters.get("outcomes_superseded") == 1

    perform(play)


def test_an_unknown_lease_is_stopped_or_left_to_its_store() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await running(stage)
        strange = held(order)
        strange = type(strange)(stage.spec().id, strange.token, Phase.STARTED, 0)
        first = await stage.worker(held=(strange,))
        assert answers_to(first)[strange.token].answer is Answer.STOP
        second = await stage.worker(store="x", timeline=1, held=(strange,))
        assert answers_to(second)[strange.token].answer is Answer.UNKNOWN

    perform(play)


def test_a_stranger_among_our_own_leases_is_left_to_its_store() -> None:
    async def play(stage: Stage) -> None:
        old, _, (order,) = await running(stage)
        await old.start(order)
        ours = held(order, Phase.STARTED)
        strange = HeldLease(stage.spec().id, Token(b"elsewhere-------"), Phase.STARTED, 0, True)
        facts = stage.coordinator.state.facts
        first = await stage.worker(store=facts.store, timeline=facts.timeline, held=(ours, strange))
        answers = answers_to(first)
        assert answers[ours.token].answer is Answer.KEEP
        assert answers[strange.token].answer is Answer.UNKNOWN
        # It was with another store meanwhile, and names to us what we gave as a stranger's.
        ours = HeldLease(order.task, order.token, Phase.STARTED, 0, True)
        second = await stage.worker(store="another", timeline=1, held=(ours,))
        assert answers_to(second)[ours.token].answer is Answer.KEEP
        life = (await stage.row(order.task)).life
        assert (life.fence, life.state, life.lease) == (1, State.RUNNING, Lease.HELD)

    perform(play)


def test_an_older_lease_is_stopped() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await running(stage)
        second = await stage.worker()
        newer = await second.assigned()
        third = await stage.worker(held=(held(order, Phase.STARTED), held(newer)))
        answers = answers_to(third)
        assert answers[order.token].answer is Answer.STOP
        assert answers[newer.token].answer is Answer.KEEP
        used = (await stage.row(order.task)).life.used
        assert (used.free_returns, used.losses) == (0, 1), "free became a loss: it had started"

    perform(play)


def test_a_hello_of_many_frames_is_one() -> None:
    async def play(stage: Stage) -> None:
        _, client, orders = await running(stage, 3)
        worker = Worker(stage.dial())
        await worker.send(stage.hello(slots=3, outcomes=(ended(orders[0]),), more=True))
        await worker.send(HelloMore((ended(orders[1]),), True))
        await worker.read()
        await worker.send(HelloMore((ended(orders[2]),), False))
        welcome = await worker.next(WorkerWelcome)
        assert [answer.answer for answer in welcome.answers] == [Answer.SETTLED] * 3
        for order in orders:
            await client.settled(order.task)

    perform(play)


def test_a_long_spool_is_answered_after_the_welcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "_ANSWERS_MAX", 2)

    async def play(stage: Stage) -> None:
        _, client, orders = await running(stage, 6)
        worker = await stage.worker(
            slots=6, outcomes=tuple(map(ended, orders[:5])), held=(held(orders[5]),)
        )
        assert list(answers_to(worker)) == [order.token for order in (*orders[:2], orders[5])]
        later = [(await worker.next(Answered)) for _ in range(3)]
        assert [answered.token for answered in later] == [order.token for order in orders[2:5]]
        for order in orders[:5]:
            await client.settled(order.task)

    perform(play)


@pytest.mark.parametrize("pair", [(2, 1), (2, 2), (1, 9)])
def test_a_late_hello_changes_nothing(pair: tuple[int, int]) -> None:
    async def play(stage: Stage) -> None:
        await stage.worker(incarnation=2, number=1)
        current = await stage.worker(incarnation=2, number=2)
        late = Worker(stage.dial())
        incarnation, number = pair
        await late.send(stage.hello(incarnation=incarnation, number=number))
        goodbye = await late.next(Goodbye)
        # Only a life that is over is told so: it would dial for ever.
        assert goodbye.code == ("outlived" if incarnation == 1 else "late_hello")
        assert ("remove the file 'identity'" in goodbye.text) == (incarnation == 1)
        await late.until_closed()
        await current.say()
        assert await current.hears() == []
        assert not current.channel.closed

    perform(play)


def test_a_name_is_taken_while_its_bearer_is_here() -> None:
    async def play(stage: Stage) -> None:
        first = await stage.worker("w", identity="one")
        thief = Worker(stage.dial())
        await thief.send(stage.hello("w", identity="two"))
        assert (await thief.next(Goodbye)).code == "name_taken"
        await thief.until_closed()
        await first.leave()
        await stage.quiet()
        await stage.worker("w", identity="two")

    perform(play)


def test_a_name_is_free_when_its_bearer_took_another() -> None:
    async def play(stage: Stage) -> None:
        await stage.worker("w", identity="one")
        await stage.worker("v", identity="one")
        await stage.worker("w", identity="two")

    perform(play)


def test_two_hellos_with_one_name_in_one_turn() -> None:
    async def play(stage: Stage) -> None:
        one, two = Worker(stage.dial()), Worker(stage.dial())
        await one.send(stage.hello("w", identity="one"))
        await two.send(stage.hello("w", identity="two"))
        heard = [*await one.hears(), *await two.hears()]
        assert sorted(type(message).__name__ for message in heard) == ["Goodbye", "WorkerWelcome"]

    perform(play)


def test_a_replaced_session_changes_nothing() -> None:
    async def play(stage: Stage) -> None:
        old, client, (order,) = await running(stage)
        new = await stage.worker(held=(held(order),))
        await old.until_closed()
        session = stage.coordinator.state.sessions["id-w"]
        stale = type(session)(session.channel, session.hello, now=0.0)
        stage.coordinator.post(stale, ended(order))
        stage.coordinator.post(stale, Started(order.task, order.token))
        await stage.quiet()
        assert stage.counters.get("messages_of_older_sessions") == 2
        assert (await stage.row(order.task)).life.phase is Phase.ASSIGNED
        await new.settle(order)
        await client.settled(order.task)

    perform(play)


@pytest.mark.parametrize("wrong", [{"digest": 1}, {"read": 9}, {"epoch": 9}])
def test_a_view_that_differs_closes_the_socket(wrong: dict[str, int]) -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await running(stage)
        parts = {"epoch": worker.epoch, "read": worker.order, "digest": worker.view().digest}
        await worker.send(view=View(**parts | wrong))
        await worker.until_closed()
        assert stage.counters.get("views_differ") == 1
        assert (await stage.row(order.task)).life.lease is Lease.HELD
        back = await stage.worker(held=(held(order),))
        assert answers_to(back)[order.token].answer is Answer.KEEP

    perform(play)


def test_a_wish_that_comes_with_the_hello_of_its_worker_is_told() -> None:
    async def play(stage: Stage) -> None:
        worker, client, (order,) = await running(stage)
        await worker.leave()
        stage.store.gate = asyncio.Event()
        await client.submit(stage.spec(queue="other"))
        await stage.store.reached.wait()
        back = Worker(stage.dial())
        await back.send(
            stage.hello("w", held=(HeldLease(order.task, order.token, Phase.STARTED, 0),))
        )
        await stage.quiet()
        await client.send(SetWanted(1, order.task, Wanted.CANCEL))
        await stage.quiet()
        stage.store.gate.set()
        await back.next(WorkerWelcome)
        told = await back.next(WishTold)
        assert (told.token, told.wanted, told.wish) == (order.token, Wanted.CANCEL, 1)

    perform(play)
