"""Deaths of workers: what guard and kernel tell, when it is judged, and what it costs."""

from __future__ import annotations

import pytest

from holdfast.coordinator.facts import Closed, Death
from holdfast.model.task import Lease, Owed, Phase, State
from tests.coordinator.stage import (
    Stage,
    Worker,
    held,
    perform,
    running,
)


def nobody() -> None:
    """Nobody waits to hear that a report was judged."""


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
        worker, _, (order,) = await running(stage)
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
        worker, _, (order,) = await running(stage)
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
        worker, _, (order,) = await running(stage)
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
        worker, _, (order,) = await running(stage)
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
        worker, _, (order,) = await running(stage)
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
        worker, client, (order,) = await running(stage)
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
        worker, _, (order,) = await running(stage)
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
        worker, _, (order,) = await running(stage)
        await worker.leave()
        stage.coordinator.post(None, Death("id-w", 1, certain=False))
        await stage.quiet()
        life = (await stage.row(order.task)).life
        assert (life.lease, life.owed) == (Lease.LAPSED, Owed.UNHEARD)

    perform(play)


def test_a_death_is_judged_when_all_that_was_said_is_read() -> None:
    async def play(stage: Stage) -> None:
        worker, client, (order,) = await running(stage)
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
        worker, _, (order,) = await running(stage)
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
        former, _, orders = await running(stage, 2)
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
        former, _, _ = await running(stage)
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
        worker, _, (order,) = await running(stage)
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
        first, _, (order,) = await running(stage)
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
