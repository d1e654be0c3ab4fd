"""Hellos, silence, deaths and restarts: each lease is answered, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.coordinator import reconcile, service
from holdfast.coordinator.facts import Closed, Death, Tick
from holdfast.errors import StoreFullError
from holdfast.model.ids import Token
from holdfast.model.messages import (
    Answered,
    Assign,
    Ended,
    Goodbye,
    HeldLease,
    HelloMore,
    LeaseAnswer,
    SetWanted,
    Started,
    StopOrder,
    View,
    WishTold,
    WorkerWelcome,
)
from holdfast.model.outcome import Answer, OutcomeKind
from holdfast.model.task import Lease, Owed, Phase, State, Wanted
from tests.coordinator.stage import DONE, Client, Stage, Worker, ended, held, perform


def nobody() -> None:
    """Nobody waits to hear that a report was judged."""


def _answers(worker: Worker) -> dict[bytes, LeaseAnswer]:
    assert worker.welcome is not None
    return {answer.token: answer for answer in worker.welcome.answers}


async def _running(stage: Stage, count: int = 1) -> tuple[Worker, Client, list[Assign]]:
    worker, client = await stage.worker(slots=count), await stage.client()
    await client.keep(*(stage.spec() for _ in range(count)))
    return worker, client, [await worker.assigned() for _ in range(count)]


def test_a_hello_answers_each_lease_that_it_names() -> None:
    async def play(stage: Stage) -> None:
        old, client, orders = await _running(stage, 4)
        started, waiting, done, unnamed = orders
        await old.start(started)
        new = await stage.worker(
            slots=4,
            held=(held(started, Phase.STARTED), held(waiting)),
            outcomes=(ended(done),),
        )
        answers = _answers(new)
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
        worker, _, (order,) = await _running(stage)
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
        _, _, (order,) = await _running(stage)
        new = await stage.worker()
        second = await new.assigned()
        foreign = Ended(stage.spec().id, order.token, OutcomeKind.SUCCEEDED, DONE)
        new = await stage.worker(held=(held(second),), outcomes=(ended(order), foreign))
        answers = [answer.answer for answer in new.welcome.answers]  # type: ignore[union-attr]
        assert answers == [Answer.SUPERSEDED, Answer.SUPERSEDED, Answer.KEEP]
        new = await stage.worker(
            store="another", timeline=3, held=(held(second),), outcomes=(foreign,)
        )
        assert _answers(new)[foreign.token].answer is Answer.UNKNOWN
        assert stage.counters.get("outcomes_superseded") == 1

    perform(play)


def test_an_unknown_lease_is_stopped_or_left_to_its_store() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await _running(stage)
        strange = held(order)
        strange = type(strange)(stage.spec().id, strange.token, Phase.STARTED, 0)
        first = await stage.worker(held=(strange,))
        assert _answers(first)[strange.token].answer is Answer.STOP
        second = await stage.worker(store="x", timeline=1, held=(strange,))
        assert _answers(second)[strange.token].answer is Answer.UNKNOWN

    perform(play)


def test_a_stranger_among_our_own_leases_is_left_to_its_store() -> None:
    async def play(stage: Stage) -> None:
        old, _, (order,) = await _running(stage)
        await old.start(order)
        ours = held(order, Phase.STARTED)
        strange = HeldLease(stage.spec().id, Token(b"elsewhere-------"), Phase.STARTED, 0, True)
        facts = stage.coordinator.state.facts
        first = await stage.worker(store=facts.store, timeline=facts.timeline, held=(ours, strange))
        answers = _answers(first)
        assert answers[ours.token].answer is Answer.KEEP
        assert answers[strange.token].answer is Answer.UNKNOWN
        # It was with another store meanwhile, and names to us what we gave as a stranger's.
        ours = HeldLease(order.task, order.token, Phase.STARTED, 0, True)
        second = await stage.worker(store="another", timeline=1, held=(ours,))
        assert _answers(second)[ours.token].answer is Answer.KEEP
        life = (await stage.row(order.task)).life
        assert (life.fence, life.state, life.lease) == (1, State.RUNNING, Lease.HELD)

    perform(play)


def test_an_older_lease_is_stopped() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await _running(stage)
        second = await stage.worker()
        newer = await second.assigned()
        third = await stage.worker(held=(held(order, Phase.STARTED), held(newer)))
        answers = _answers(third)
        assert answers[order.token].answer is Answer.STOP
        assert answers[newer.token].answer is Answer.KEEP
        used = (await stage.row(order.task)).life.used
        assert (used.free_returns, used.losses) == (0, 1), "free became a loss: it had started"

    perform(play)


def test_a_hello_of_many_frames_is_one() -> None:
    async def play(stage: Stage) -> None:
        _, client, orders = await _running(stage, 3)
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
        _, client, orders = await _running(stage, 6)
        worker = await stage.worker(
            slots=6, outcomes=tuple(map(ended, orders[:5])), held=(held(orders[5]),)
        )
        assert list(_answers(worker)) == [order.token for order in (*orders[:2], orders[5])]
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
        old, client, (order,) = await _running(stage)
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
        worker, _, (order,) = await _running(stage)
        parts = {"epoch": worker.epoch, "read": worker.order, "digest": worker.view().digest}
        await worker.send(view=View(**parts | wrong))
        await worker.until_closed()
        assert stage.counters.get("views_differ") == 1
        assert (await stage.row(order.task)).life.lease is Lease.HELD
        back = await stage.worker(held=(held(order),))
        assert _answers(back)[order.token].answer is Answer.KEEP

    perform(play)


def test_silence_counts_after_the_lease_only() -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await _running(stage)
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
        worker, client, (order,) = await _running(stage)
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
        worker, _, (order,) = await _running(stage)
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


def test_a_wish_that_comes_with_the_hello_of_its_worker_is_told() -> None:
    async def play(stage: Stage) -> None:
        worker, client, (order,) = await _running(stage)
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


def test_a_worker_that_speaks_is_not_silent() -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await _running(stage)
        for _ in range(30):
            await worker.say()
            await stage.tick()
        assert (await stage.row(order.task)).life.lease is Lease.HELD

    perform(play)


def test_a_silent_worker_gets_nothing_in_the_turn_that_closes_it() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await _running(stage)
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
        _, _, (order,) = await _running(stage)
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
        _, _, (order,) = await _running(stage)
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
        _, client, (order,) = await _running(stage)
        await stage.ticks(11)
        back = await stage.worker(held=(held(order, Phase.STARTED),))
        assert _answers(back)[order.token].answer is Answer.KEEP
        assert "revived" in [event.kind for event in await stage.events(order.task)]
        await back.settle(order)
        assert (await client.settled(order.task)).state is State.SUCCEEDED

    perform(play)


def test_a_superseded_start_is_stopped() -> None:
    async def play(stage: Stage) -> None:
        _, client, (order,) = await _running(stage)
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


@pytest.mark.parametrize(
    ("named", "state", "owed"),
    [
        ("nothing", State.QUEUED, Owed.FREE),
        ("started", State.QUEUED, Owed.LOSS),
        ("spooled", State.RUNNING, Owed.NOTHING),
        ("started and spooled", State.RUNNING, Owed.NOTHING),
    ],
)
def test_a_guard_tells_of_a_death(named: str, state: State, owed: Owed) -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await _running(stage)
        await worker.leave()
        await stage.quiet()
        report = Death(
            "id-w",
            1,
            True,
            (order.token,) if "started" in named else (),
            (order.token,) if "spooled" in named else (),
        )
        assert worker.welcome is not None
        assert not stage.gateway.death(report, "wrong", nobody)
        await stage.quiet()
        assert (await stage.row(order.task)).life.state is State.RUNNING
        assert stage.gateway.death(report, worker.welcome.last_word, nobody)
        await stage.quiet()
        life = (await stage.row(order.task)).life
        assert (life.state, life.owed) == (state, owed)
        if "spooled" in named:
            await stage.ticks(11)
            life = (await stage.row(order.task)).life
            # What was handed back, and never began, has an outcome in the spool as well.
            owed_now = Owed.LOSS if "started" in named else Owed.UNHEARD
            assert (life.lease, life.owed) == (Lease.LAPSED, owed_now)

    perform(play)


@pytest.mark.parametrize("claimed_again", [False, True])
def test_a_guard_that_tells_late_puts_the_charge_right(claimed_again: bool) -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await _running(stage)
        assert worker.welcome is not None
        await worker.leave()
        await stage.ticks(11)
        assert (await stage.row(order.task)).life.owed is Owed.UNHEARD
        if claimed_again:
            second = await stage.worker(identity="id-2", name="second")
            assert (await second.assigned()).task == order.task
            assert (await stage.row(order.task)).life.used.free_returns == 1
        report = Death("id-w", 1, True, (order.token,))
        assert stage.gateway.death(report, worker.welcome.last_word, nobody)
        await stage.quiet()
        life = (await stage.row(order.task)).life
        if claimed_again:
            assert (life.used.losses, life.used.free_returns, life.freed) == (1, 0, ())
        else:
            assert life.owed is Owed.LOSS

    perform(play)


def test_what_the_kernel_tells_adds_nothing_to_what_the_guard_told() -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await _running(stage)
        assert worker.welcome is not None
        await worker.leave()
        spooled = Death("id-w", 1, True, (order.token,), (order.token,))
        assert stage.gateway.death(spooled, worker.welcome.last_word, nobody)
        await stage.quiet()
        stage.coordinator.post(None, Death("id-w", 1, certain=False))
        await stage.quiet()
        assert (await stage.row(order.task)).life.lease is Lease.HELD

    perform(play)


def test_what_the_guard_tells_counts_where_both_wait_for_one_turn() -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await _running(stage)
        assert worker.welcome is not None
        await worker.leave()
        await stage.quiet()
        spooled = Death("id-w", 1, True, (order.token,), (order.token,))
        stage.coordinator.post(None, Death("id-w", 1, certain=False))
        assert stage.gateway.death(spooled, worker.welcome.last_word, nobody)
        await stage.quiet()
        assert (await stage.row(order.task)).life.lease is Lease.HELD

    perform(play)


def test_what_the_kernel_tells_does_not_replace_the_guards_word_on_an_open_socket() -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await _running(stage)
        assert worker.welcome is not None
        spooled = Death("id-w", 1, True, (order.token,), (order.token,))
        assert stage.gateway.death(spooled, worker.welcome.last_word, nobody)
        await stage.quiet()
        stage.coordinator.post(None, Death("id-w", 1, certain=False))
        await stage.quiet()
        await worker.leave()
        await stage.quiet()
        assert (await stage.row(order.task)).life.lease is Lease.HELD

    perform(play)


@pytest.mark.parametrize("open_still", [False, True])
def test_a_hello_that_a_dead_worker_wrote_ends_with_its_socket(open_still: bool) -> None:
    async def play(stage: Stage) -> None:
        worker, client, (order,) = await _running(stage)
        assert worker.welcome is not None
        heard: list[bool] = []
        report, word = Death("id-w", 1, True, (order.token,)), worker.welcome.last_word
        if not open_still:
            await worker.leave()
            await stage.quiet()
        assert stage.gateway.death(report, word, lambda: heard.append(True))
        await stage.quiet()
        assert heard == [True] * (not open_still)
        # It had written this on another socket before it died.
        late = Worker(stage.dial())
        await late.send(stage.hello("w", slots=2, held=(held(order, Phase.STARTED),)))
        await stage.quiet()
        spec = stage.spec()
        await client.keep(spec)
        await stage.quiet()
        assert (await stage.row(spec.id)).life.state is State.QUEUED
        # The kernel tells as well, and knows less.
        stage.coordinator.post(None, Death("id-w", 1, certain=False))
        await late.leave()
        await stage.quiet()
        life = (await stage.row(order.task)).life
        assert (life.state, life.lease, life.owed) == (State.QUEUED, Lease.LAPSED, Owed.LOSS)
        assert heard == [True]
        other = await stage.worker("other", slots=2)
        assert {(await other.assigned()).task for _ in range(2)} == {order.task, spec.id}

    perform(play)


def test_a_guard_that_heard_only_the_first_welcome_of_its_life_is_believed() -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await _running(stage)
        assert worker.welcome is not None
        for _ in range(3):
            # Its welcome is lost: the guard does not hear of it.
            lost = Worker(stage.dial())
            await lost.send(stage.hello("w", held=(held(order, Phase.STARTED),)))
            await stage.quiet()
            await lost.leave()
            await stage.quiet()
        report = Death("id-w", 1, True, (order.token,))
        assert stage.gateway.death(report, worker.welcome.last_word, nobody)
        await stage.quiet()
        assert (await stage.row(order.task)).life.owed is Owed.LOSS
        # Another life has another word.
        again = await stage.worker(incarnation=2)
        assert again.welcome is not None
        assert again.welcome.last_word != worker.welcome.last_word
        assert not stage.gateway.death(Death("id-w", 2, True), worker.welcome.last_word, nobody)

    perform(play)


def test_a_death_that_only_the_kernel_tells_of_lapses_as_unheard() -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await _running(stage)
        await worker.leave()
        stage.coordinator.post(None, Death("id-w", 1, certain=False))
        await stage.quiet()
        life = (await stage.row(order.task)).life
        assert (life.lease, life.owed) == (Lease.LAPSED, Owed.UNHEARD)

    perform(play)


def test_a_death_is_judged_when_all_that_was_said_is_read() -> None:
    async def play(stage: Stage) -> None:
        worker, client, (order,) = await _running(stage)
        assert worker.welcome is not None
        heard: list[str] = []
        death, word = Death("id-w", 1, True), worker.welcome.last_word
        stage.gateway.death(death, word, lambda: heard.append("first"))
        stage.gateway.death(death, word, lambda: heard.append("again"))
        await stage.quiet()
        assert (await stage.row(order.task)).life.state is State.RUNNING
        assert heard == []
        await worker.end(order)
        await worker.leave()
        assert (await client.settled(order.task)).state is State.SUCCEEDED
        assert (await stage.row(order.task)).life.fence == 1
        assert heard == ["first", "again"]

    perform(play)


def test_a_report_is_answered_after_its_commit() -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await _running(stage)
        assert worker.welcome is not None
        await worker.leave()
        await stage.quiet()
        commits, held_now = stage.counters.get("commits"), stage.coordinator.state.held
        seen: list[tuple[int, bool]] = []

        def judged() -> None:
            seen.append((stage.counters.get("commits") - commits, "id-w" in held_now))

        assert stage.gateway.death(Death("id-w", 1, True), worker.welcome.last_word, judged)
        assert seen == []
        await stage.quiet()
        assert seen == [(1, False)]
        assert (await stage.row(order.task)).life.owed is Owed.FREE

    perform(play)


def test_a_new_life_does_not_hide_what_its_guard_told_of_the_former_one() -> None:
    async def play(stage: Stage) -> None:
        former, _, orders = await _running(stage, 2)
        assert former.welcome is not None
        begun, waiting = orders
        heard: list[bool] = []
        # Its socket is still open here, so that the report has to wait.
        report = Death("id-w", 1, True, (begun.token,))
        assert stage.gateway.death(report, former.welcome.last_word, lambda: heard.append(True))
        await stage.quiet()
        assert heard == []
        await stage.worker(incarnation=2, queues=("elsewhere",))
        await stage.quiet()
        assert heard == [True]
        assert (await stage.row(begun.task)).life.owed is Owed.LOSS
        assert (await stage.row(waiting.task)).life.owed is Owed.FREE

    perform(play)


def test_a_late_report_does_not_answer_for_the_next_life() -> None:
    async def play(stage: Stage) -> None:
        former, _, _ = await _running(stage)
        present = await stage.worker(incarnation=2)
        assert former.welcome is not None
        assert present.welcome is not None
        heard: list[str] = []
        # Its socket is still open here, so that this one has to wait.
        word = present.welcome.last_word
        assert stage.gateway.death(Death("id-w", 2, True), word, lambda: heard.append("new"))
        await stage.quiet()
        word = former.welcome.last_word
        assert stage.gateway.death(Death("id-w", 1, True), word, lambda: heard.append("late"))
        await stage.quiet()
        assert heard == ["late"]
        await present.leave()
        await stage.quiet()
        assert heard == ["late", "new"]
        assert stage.coordinator.state.reporters == {}

    perform(play)


def test_a_death_of_another_incarnation_is_late() -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await _running(stage)
        assert worker.welcome is not None
        assert not stage.gateway.death(Death("id-w", 7, True), worker.welcome.last_word, nobody)
        assert stage.gateway.death(Death("id-w", 0, True), "any", nobody)
        assert not stage.gateway.death(Death("nobody", 1, True), worker.welcome.last_word, nobody)
        await stage.quiet()
        assert (await stage.row(order.task)).life.state is State.RUNNING
        assert stage.counters.get("deaths_late") == 1
        assert stage.counters.get("deaths_refused") == 2

    perform(play)


def test_the_end_of_an_older_socket_does_not_judge_a_newer_one() -> None:
    async def play(stage: Stage) -> None:
        first, _, (order,) = await _running(stage)
        old = stage.coordinator.state.sessions["id-w"]
        second = await stage.worker(held=(held(order),))
        assert first.welcome is not None
        assert second.welcome is not None
        stage.gateway.death(Death("id-w", 1, True), second.welcome.last_word, nobody)
        await stage.quiet()
        stage.coordinator.post(old, Closed())
        await stage.quiet()
        assert (await stage.row(order.task)).life.state is State.RUNNING
        await second.leave()
        await stage.quiet()
        assert (await stage.row(order.task)).life.owed is Owed.FREE

    perform(play)


def test_a_restart_keeps_what_runs_for_a_lease() -> None:
    async def play(stage: Stage) -> None:
        worker, _, (order,) = await _running(stage)
        await worker.start(order)
        await stage.ticks(9)
        await stage.restart()
        await stage.ticks(10)
        assert (await stage.row(order.task)).life.lease is Lease.HELD
        back = await stage.worker(held=(held(order, Phase.STARTED),))
        assert _answers(back)[order.token].answer is Answer.KEEP
        assert back.epoch == 2
        await back.settle(order)
        client = await stage.client()
        assert (await stage.row(order.task)).life.state is State.SUCCEEDED
        assert (await client.ask("status", task=order.task.hex())).data["run"] == 1

    perform(play)


def test_outages_in_a_row_are_counted_and_their_credit_is_bounded() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await _running(stage)
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
        _, _, (order,) = await _running(stage)
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
        _, _, (order,) = await _running(stage)
        for _ in range(20):
            await stage.restart()
            await stage.ticks(2)
        (row,) = await stage.store.inner.worker_rows()
        assert row.outages == 0
        assert (await stage.row(order.task)).life.lease is Lease.HELD
        back = await stage.worker(held=(held(order, Phase.STARTED),))
        assert _answers(back)[order.token].answer is Answer.KEEP

    perform(play)


def test_time_in_which_a_coordinator_was_deaf_ends_no_outage() -> None:
    async def play(stage: Stage) -> None:
        await _running(stage)
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
        _, _, (order,) = await _running(stage)
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
        _, _, (order,) = await _running(stage)
        await stage.restart()
        stage.store.before += [StoreFullError("full")] * 3
        await stage.ticks(4)
        assert not stage.store.before
        (row,) = await stage.store.inner.worker_rows()
        assert row.outages == 1
        back = await stage.worker(held=(held(order),))
        assert _answers(back)[order.token].answer is Answer.KEEP

    perform(play)


def test_a_refused_hello_keeps_no_lease_alive() -> None:
    async def play(stage: Stage) -> None:
        _, _, (order,) = await _running(stage)
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
