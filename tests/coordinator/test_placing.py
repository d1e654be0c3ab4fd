"""Which task goes where, and that the windows of waiting tasks lose nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest

from holdfast.coordinator import loading, placing, recalling, state
from holdfast.core import dispatch, siding
from holdfast.core.dispatch import BEHIND_URGENT_MAX, URGENT_SECONDS
from holdfast.errors import StoreDoubtError
from holdfast.model.messages import Accepted, Answered, Assign, Draining, Pull, Recall
from holdfast.model.outcome import Encoding, OutcomeKind, Payload
from holdfast.model.task import Spec, State, Wanted
from holdfast.ports import ReadyPage
from tests.coordinator.stage import Client, Stage, Worker, ended, perform


@pytest.fixture
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "WINDOW_TASKS_MAX", 8)
    monkeypatch.setattr(loading, "WINDOW_LOW_TASKS", 3)
    monkeypatch.setattr(loading, "_PAGE", 4)
    monkeypatch.setattr(loading, "_READS_MAX", 1)
    monkeypatch.setattr(placing, "_CLAIMS_MAX", 5)


async def _run_all(stage: Stage, workers: list[Worker], client: Client, specs: list[Spec]) -> None:
    """Let the workers run until all is settled; each task is assigned exactly once."""
    seen: list[bytes] = []
    left = {spec.id for spec in specs}
    while left:
        for worker in workers:
            for message in await worker.hears():
                if isinstance(message, Assign):
                    seen.append(message.task)
                    await worker.end(message)
        for message in await client.hears():
            left.discard(getattr(message, "task", b""))  # type: ignore[arg-type]
    assert sorted(seen) == sorted(spec.id for spec in specs)


@pytest.mark.usefixtures("_small_windows")
@pytest.mark.parametrize("before", [True, False])
def test_windows_page_through_the_store(before: bool) -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        specs = [stage.spec() for _ in range(60)]
        if before:
            await client.submit(*specs)
            await client.next(Accepted)
        workers = [await stage.worker("a", slots=2), await stage.worker("b", slots=1)]
        if not before:
            for spec in specs:
                await client.submit(spec)
        await _run_all(stage, workers, client, specs)
        kept = stage.coordinator.state
        await stage.tick()
        assert kept.tasks == {}
        assert kept.held == {}
        assert kept.lines.lines == {}

    perform(play)


@pytest.mark.usefixtures("_small_windows")
def test_windows_with_priorities_returns_and_doubt() -> None:
    async def play(stage: Stage) -> None:
        rng = random.Random(3)
        client, worker = await stage.client(), await stage.worker("a", slots=2)
        specs = [stage.spec(priority=rng.randrange(-5, 5)) for _ in range(80)]
        left, runs = {spec.id for spec in specs}, 0
        for first in range(0, 80, 7):
            await client.submit(*specs[first : first + 7])
        while left:
            for message in await worker.hears():
                if isinstance(message, Assign):
                    runs += 1
                    assert runs < 1_000
                    if rng.random() < 0.1:
                        stage.store.before.append(StoreDoubtError("before"))
                    elif rng.random() < 0.1:
                        stage.store.after.append(StoreDoubtError("after"))
                    kind = rng.choice([OutcomeKind.SUCCEEDED, OutcomeKind.RETURNED])
                    await worker.end(message, kind, run_us=20_000)
            for message in await client.hears():
                if not isinstance(message, Accepted):
                    left.discard(getattr(message, "task", b""))  # type: ignore[arg-type]
            cached = stage.coordinator.state.tasks.values()
            assert sum(task.life.state is State.QUEUED for task in cached) <= 2 * 8
        for spec in specs:
            assert (await stage.row(spec.id)).life.state is State.SUCCEEDED

    perform(play)


@pytest.mark.usefixtures("_small_windows")
def test_a_task_that_lapses_while_nobody_serves_its_class_is_found_again() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker("a", slots=6)
        specs = [stage.spec() for _ in range(30)]
        await client.keep(*specs)
        first = await worker.assigned()
        await worker.leave()
        await stage.ticks(12)
        assert (await stage.row(first.task)).life.state is State.QUEUED
        again = await stage.worker("a", slots=30)
        got = {(await again.assigned()).task for _ in specs}
        assert got == {spec.id for spec in specs}

    perform(play)


def test_priorities_go_first_and_equals_in_order() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        low, first, high, second = (stage.spec(priority=p) for p in (-1, 0, 5, 0))
        await client.keep(low, first, high, second)
        worker = await stage.worker(slots=4)
        got = [(await worker.assigned()).task for _ in range(4)]
        assert got == [high.id, first.id, second.id, low.id]

    perform(play)


def test_queues_and_tags() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        plain, mail = stage.spec(), stage.spec(queue="mail")
        gpu = stage.spec(tags=("gpu",))
        both = stage.spec(queue="mail", tags=("big", "gpu"))
        loop = stage.spec(concurrent=True)
        await client.keep(plain, mail, gpu, both, loop)
        a = await stage.worker("a", slots=5, queues=("mail",))
        assert (await a.assigned()).task == mail.id
        b = await stage.worker("b", slots=5, queues=("mail", "default"), tags=("gpu",))
        assert {(await b.assigned()).task for _ in range(2)} == {plain.id, gpu.id}
        c = await stage.worker("c", slots=1, concurrent_slots=9, tags=("gpu", "big"))
        assert {(await c.assigned()).task for _ in range(2)} == {both.id, loop.id}
        assert [*await a.hears(), *await b.hears()] == []

    perform(play)


def test_a_class_that_nobody_serves_costs_nothing() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker(queues=("default",))
        await client.keep(*(stage.spec(queue="none") for _ in range(50)))
        assert stage.coordinator.state.tasks == {}
        await client.keep(stage.spec())
        await worker.assigned()

    perform(play)


def test_no_turn_looks_at_classes_that_nobody_serves() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker(queues=("default",))
        specs = [stage.spec(queue=f"tenant-{number}") for number in range(50)]
        await client.keep(*specs)
        lines = stage.coordinator.state.lines
        assert (lines.lines, len(lines.unserved)) == ({}, 50)
        reads = _reads(stage)
        await client.keep(stage.spec())
        await worker.settle(await worker.assigned())
        assert not any(needs.startswith("tenant-") for needs in reads)
        tenants = await stage.worker("t", slots=50, queues=("tenant-7", "tenant-9"))
        assert {(await tenants.assigned()).task for _ in range(2)} == {specs[7].id, specs[9].id}
        assert len(lines.unserved) == 48
        await tenants.leave()
        await stage.ticks(2)
        assert "tenant-7" not in lines.lines, "its window was at its end"

    perform(play)


def _reads(stage: Stage) -> list[str]:
    """Return the list to which every class is added that is read from the store."""
    reads: list[str] = []
    inner = stage.store.inner.ready

    async def ready(needs: str, **parts: Any) -> ReadyPage:
        reads.append(needs)
        return await inner(needs, **parts)

    stage.store.ready = ready  # type: ignore[attr-defined]
    return reads


def test_a_line_whose_workers_left_is_read_again_for_the_next() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker("a")
        specs = [stage.spec() for _ in range(3)]
        await client.keep(*specs)
        await worker.end(await worker.assigned(), run_us=10_000_000)
        await worker.assigned()
        await worker.leave()
        await stage.quiet()
        kept = stage.coordinator.state
        assert (kept.lines.lines, list(kept.lines.unserved)) == ({}, ["default"])
        assert kept.lines.stock.bytes == 0
        assert list(kept.tasks) == [specs[1].id]
        again = await stage.worker("b")
        assert (await again.assigned()).task == specs[2].id

    perform(play)


def test_names_of_classes_without_tasks_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "UNSERVED_MIN", 4)
    monkeypatch.setattr(loading, "UNSERVED_MIN", 4)

    async def play(stage: Stage) -> None:
        client = await stage.client()
        for number in range(40):
            await client.keep(spec := stage.spec(queue=f"q{number}"))
            if number:
                await client.want(spec.id, Wanted.CANCEL)
        unserved = stage.coordinator.state.lines.unserved
        assert "q0" in unserved
        assert len(unserved) <= 2 * 4

    perform(play)


def test_windows_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "WINDOWS_BYTES_MAX", 100_000)

    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker(slots=3)
        specs = [
            stage.spec(queue=f"q{n % 2}", payload=Payload(Encoding.JSON, b"x" * 10_000))
            for n in range(80)
        ]
        for first in range(0, 80, 8):
            await client.keep(*specs[first : first + 8])
            cached = stage.coordinator.state.tasks.values()
            waiting = [task for task in cached if task.life.state is State.QUEUED]
            assert sum(len(task.spec.payload.data) for task in waiting) <= 220_000
        await _run_all(stage, [worker], client, specs)
        await stage.tick()
        assert stage.coordinator.state.lines.stock.bytes == 0

    perform(play)


def test_short_work_of_another_class_does_not_overtake_a_long_task_for_ever() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker(slots=1)
        await client.keep(*(stage.spec("short:f", queue="s") for _ in range(3)))
        await worker.end(await worker.assigned())
        ahead = [await worker.assigned() for _ in range(2)]
        await client.keep(long := stage.spec("long:f", queue="l"))
        await client.keep(*(stage.spec("short:f", queue="s") for _ in range(9)))
        assert not any(isinstance(message, Assign) for message in await worker.hears())
        await worker.say(*(ended(order) for order in ahead))
        assert (await worker.assigned()).task == long.id

    perform(play)


def test_the_least_loaded_worker_is_served_first() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        a, b = await stage.worker("a", slots=2), await stage.worker("b", slots=2)
        for _ in range(4):
            await client.keep(stage.spec())
        await stage.quiet()
        await a.hears()
        await b.hears()
        assert (len(a.held), len(b.held)) == (2, 2)

    perform(play)


def test_pull_takes_one_for_each_that_was_asked() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker(slots=3, pull=True)
        specs = [stage.spec() for _ in range(4)]
        await client.keep(*specs)
        assert await worker.hears() == []
        await worker.say(Pull(1))
        stage.store.before.append(StoreDoubtError("the credit is not lost"))
        await worker.say(Pull(2))
        assert [(await worker.assigned()).task for _ in range(2)] == [s.id for s in specs[:2]]
        assert await worker.hears() == []

    perform(play)


def test_a_draining_worker_gets_nothing_more() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker(slots=3)
        await worker.say(Draining())
        await client.keep(spec := stage.spec())
        assert await worker.hears() == []
        other = await stage.worker("other")
        assert (await other.assigned()).task == spec.id

    perform(play)


def test_what_a_worker_cannot_run_goes_to_another_at_once() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        a = await stage.worker("a", slots=2)
        await client.keep(spec := stage.spec())
        order = await a.assigned()
        b = await stage.worker("b", slots=2)
        await a.end(order, OutcomeKind.ENVIRONMENT)
        again = await b.assigned()
        assert (again.task, again.fence) == (spec.id, 2)
        assert [type(message) for message in await a.hears()] == [Answered]

    perform(play)


def test_a_lone_worker_is_tried_again_after_a_while() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker()
        await client.keep(spec := stage.spec(), other := stage.spec())
        await worker.end(await worker.assigned(), OutcomeKind.ENVIRONMENT)
        passed = await worker.assigned()
        assert passed.task == other.id
        await worker.end(passed)
        assert "cannot run it" in (await client.ask("why", task=spec.id.hex())).data["why"]
        await worker.say()
        await stage.tick(2.0)
        assert (await worker.assigned()).task == spec.id

    perform(play)


async def _fail_all(worker: Worker, count: int) -> None:
    """Have a worker say of so many tasks that it cannot run them, before time goes on."""
    while count:
        for message in await worker.hears():
            if isinstance(message, Assign):
                await worker.end(message, OutcomeKind.ENVIRONMENT)
                count -= 1


@pytest.mark.usefixtures("_small_windows")
@pytest.mark.parametrize("restarts", [False, True])
def test_what_nobody_can_run_now_keeps_nothing_waiting(restarts: bool) -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker(slots=10)
        bad = [stage.spec("bad:f", priority=1) for _ in range(200)]
        for first in range(0, 200, 50):
            await client.keep(*bad[first : first + 50])
        await _fail_all(worker, 200)
        await stage.quiet()
        kept = stage.coordinator.state
        assert len(kept.siding) == 200
        assert kept.tasks == {}, "they are known by name alone"
        if restarts:
            await stage.restart()
            client, worker = await stage.client(), await stage.worker(slots=10)
            assert await worker.hears() == []
            assert len(stage.coordinator.state.siding) == 200
        low, high = stage.spec(), stage.spec(priority=1)
        await client.keep(low, high)
        got = [await worker.assigned() for _ in range(2)]
        assert [order.task for order in got] == [high.id, low.id]
        text = (await client.ask("why", task=bad[7].id.hex())).data["why"]
        assert "worker w cannot run it: it did not work (tried 1 times" in text
        assert text.endswith("tried again in 1.0 s")
        await worker.say(*(ended(order) for order in got))
        stage.clock.pass_by(1.0)
        again = [(await worker.assigned()).task for _ in range(10)]
        assert again == [spec.id for spec in bad[:10]], "their places in line are what they were"

    perform(play)


@pytest.mark.usefixtures("_small_windows")
def test_a_worker_that_comes_gets_what_the_others_cannot_run_in_order() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker("a", slots=10)
        bad = [stage.spec("bad:f", priority=number % 3) for number in range(150)]
        await client.keep(*bad)
        await _fail_all(worker, 150)
        await stage.quiet()
        other = await stage.worker("b", slots=200)
        specs = sorted(bad, key=lambda spec: (-spec.priority, spec.id))
        assert [(await other.assigned()).task for _ in bad] == [spec.id for spec in specs]
        assert len(stage.coordinator.state.siding) == 0
        assert not any(isinstance(message, Assign) for message in await worker.hears())

    perform(play)


@pytest.mark.parametrize("concurrent", [False, True])
def test_who_avoids_much_does_not_wait_for_who_is_busy_with_it(concurrent: bool) -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        a = await stage.worker("a", slots=1, concurrent_slots=1)
        bad = [stage.spec("bad:f", concurrent=concurrent) for _ in range(100)]
        await client.keep(*bad)
        await _fail_all(a, 100)
        b = await stage.worker("b", slots=1, concurrent_slots=1)
        order = await b.assigned()
        good, low = (stage.spec(priority=each, concurrent=concurrent) for each in (0, -1))
        await client.keep(good, low)
        assert (await a.assigned()).task == good.id
        text = (await client.ask("why", task=bad[1].id.hex())).data["why"]
        assert text.startswith("queued: no free slot on another worker; worker a cannot run it")
        stage.coordinator.inbox.wake()
        await stage.quiet()
        assert not stage.coordinator._look_again, "nobody looks again and again"
        # Who has room now takes what stands first of all that it may have, in line or beside it.
        for spec in bad[1:70]:
            await b.end(order, run_us=1_000_000)
            order = await b.assigned()
            assert order.task == spec.id
        await client.keep(urgent := stage.spec(priority=1, concurrent=concurrent))
        await b.end(order, run_us=1_000_000)
        assert (await b.assigned()).task == urgent.id
        assert low.id not in [*a.held.values(), *b.held.values()]

    perform(play)


def test_a_lower_task_does_not_overtake_what_stands_beside_the_line_and_must_be_read() -> None:
    async def play(stage: Stage) -> None:
        client, a = await stage.client(), await stage.worker("a", slots=4)
        bad = [stage.spec("bad:f") for _ in range(150)]
        await client.keep(*bad)
        await _fail_all(a, 150)
        await a.say(Draining())
        await client.keep(*(low := [stage.spec(priority=-1) for _ in range(50)]))
        b = await stage.worker("b", slots=200)
        got = [(await b.assigned()).task for _ in range(200)]
        assert got == [spec.id for spec in [*bad, *low]]

    perform(play)


def test_what_one_worker_must_avoid_another_gets_in_the_same_turn_and_in_order() -> None:
    async def play(stage: Stage) -> None:
        client, a = await stage.client(), await stage.worker("a", slots=1)
        bad = [stage.spec("bad:f") for _ in range(3)]
        await client.keep(*bad)
        await _fail_all(a, 3)
        await stage.quiet()
        await stage.restart()
        client = await stage.client()
        await client.keep(good := stage.spec(), stage.spec())
        a, b = Worker(stage.dial()), Worker(stage.dial())
        await a.send(stage.hello("a", slots=1))
        await b.send(stage.hello("b", slots=3))
        assert (await a.assigned()).task == good.id
        assert [(await b.assigned()).task for _ in bad] == [spec.id for spec in bad]

    perform(play)


def test_what_stands_beside_the_line_is_found_as_it_is_now() -> None:
    async def play(stage: Stage) -> None:
        client, a = await stage.client(), await stage.worker("a", slots=4)
        specs = [stage.spec() for _ in range(4)]
        await client.keep(*specs)
        await _fail_all(a, 4)
        await stage.quiet()
        assert (await client.want(specs[0].id, Wanted.CANCEL)).data["said"] == "done"
        assert (await client.want(specs[1].id, Wanted.PAUSE)).data["said"] == "done"
        assert (await client.want(specs[2].id, Wanted.PAUSE)).data["said"] == "done"
        assert (await client.want(specs[2].id, Wanted.RUN)).data["said"] == "done"
        b = await stage.worker("b", slots=4)
        assert {(await b.assigned()).task for _ in range(2)} == {specs[2].id, specs[3].id}
        assert not any(isinstance(message, Assign) for message in await b.hears())
        await client.want(specs[1].id, Wanted.RUN)
        assert (await b.assigned()).task == specs[1].id
        stage.clock.pass_by(1.0)
        await stage.quiet()
        assert len(stage.coordinator.state.siding) == 0
        assert not any(isinstance(message, Assign) for message in await a.hears())

    perform(play)


def test_a_row_that_is_gone_leaves_its_place_beside_the_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def play(stage: Stage) -> None:
        client, a = await stage.client(), await stage.worker("a")
        await client.keep(spec := stage.spec())
        await _fail_all(a, 1)
        await stage.quiet()
        load = stage.store.inner.load

        async def fewer(tasks: list[Any]) -> list[Any]:
            return [task for task in await load(tasks) if task.spec.id != spec.id]

        monkeypatch.setattr(stage.store, "load", fewer)
        await stage.worker("b")
        assert len(stage.coordinator.state.siding) == 0

    perform(play)


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("settled", [True, False])
def test_a_turn_in_doubt_loses_nothing_that_stands_beside_the_line(
    fault: str, settled: bool
) -> None:
    async def play(stage: Stage) -> None:
        client, a = await stage.client(), await stage.worker("a", slots=2)
        specs = [stage.spec() for _ in range(20)]
        await client.keep(*specs)
        faults = getattr(stage.store, fault)
        faults.append(StoreDoubtError("the first outcome is decided again"))
        await _fail_all(a, 20)
        if settled:
            await stage.quiet()
        faults.append(StoreDoubtError("the last outcomes, or the claims, are decided again"))
        b = await stage.worker("b", slots=20)
        assert [(await b.assigned()).task for _ in specs] == [spec.id for spec in specs]

    perform(play)


def test_tasks_beside_a_line_are_forgotten_with_it_and_found_again() -> None:
    async def play(stage: Stage) -> None:
        client, a = await stage.client(), await stage.worker("a")
        await client.keep(spec := stage.spec())
        await _fail_all(a, 1)
        await stage.quiet()
        await a.leave()
        await stage.quiet()
        kept = stage.coordinator.state
        assert (len(kept.siding), list(kept.lines.unserved)) == (0, ["default"])
        b = await stage.worker("b")
        assert (await b.assigned()).task == spec.id

    perform(play)


def test_where_the_siding_is_full_the_store_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siding, "SIDING_TASKS_MAX", 3)
    monkeypatch.setattr(placing, "_SHUNTS_MAX", 2)
    monkeypatch.setattr(loading, "_DUE_MAX", 2)

    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker(slots=10)
        bad = [stage.spec(priority=1) for _ in range(10)]
        await client.keep(*bad)
        orders = [await worker.assigned() for _ in bad]
        await worker.say(*(ended(order, OutcomeKind.ENVIRONMENT) for order in orders))
        await client.keep(good := stage.spec())
        assert (await worker.assigned()).task == good.id
        assert len(stage.coordinator.state.siding) == 3
        assert sum([(await stage.row(spec.id)).life.due_ms > 0 for spec in bad]) == 7
        for spec in bad:
            text = (await client.ask("why", task=spec.id.hex())).data["why"]
            assert "and there is no other); tried again in 1.0 s" in text
        stage.clock.pass_by(1.0)
        assert {(await worker.assigned()).task for _ in range(9)} < {spec.id for spec in bad}

    perform(play)


def test_short_work_is_assigned_ahead_and_long_work_is_not() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker(slots=1)
        await client.keep(*(stage.spec("short:f") for _ in range(20)))
        await worker.end(await worker.assigned(), OutcomeKind.SUCCEEDED, run_us=10)
        ahead = [m for m in await worker.hears() if isinstance(m, Assign)]
        assert len(ahead) == 19
        await worker.say(*(ended(order) for order in ahead))
        await client.keep(*(stage.spec("long:f") for _ in range(3)))
        order = await worker.assigned()
        await worker.end(order, run_us=10_000_000)
        assert len([m for m in await worker.hears() if isinstance(m, Assign)]) == 1

    perform(play)


def test_a_third_worker_gets_what_two_others_cannot_run() -> None:
    async def play(stage: Stage) -> None:
        client, busy = await stage.client(), await stage.worker("busy")
        await client.keep(stage.spec())
        long = await busy.assigned()
        bad = [await stage.worker("a"), await stage.worker("b")]
        await client.keep(spec := stage.spec())
        tried: list[int] = []
        for _ in bad:
            for number, worker in enumerate(bad):
                for message in await worker.hears():
                    if isinstance(message, Assign):
                        tried.append(number)
                        await worker.end(message, OutcomeKind.ENVIRONMENT)
            await stage.quiet()
        assert sorted(tried) == [0, 1]
        row = await stage.row(spec.id)
        assert (row.life.state, row.life.used.environment) == (State.QUEUED, 2)
        await busy.end(long)
        assert (await busy.assigned()).task == spec.id

    perform(play)


def test_who_alone_could_not_run_it_is_asked_again_after_a_while() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker()
        await client.keep(spec := stage.spec())
        await worker.end(await worker.assigned(), OutcomeKind.ENVIRONMENT)
        await stage.quiet()
        assert not any(isinstance(message, Assign) for message in await worker.hears())
        await stage.ticks(2)
        assert (await worker.assigned()).task == spec.id

    perform(play)


def test_what_is_urgent_finds_few_others_before_it() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker(slots=1)
        await client.keep(stage.spec("short:f"))
        await worker.end(await worker.assigned(), run_us=10)
        await client.keep(stage.spec("short:f", priority=9))
        await worker.assigned()
        await client.keep(*(stage.spec("short:f") for _ in range(300)))
        ahead = [m for m in await worker.hears() if isinstance(m, Assign)]
        assert len(ahead) == BEHIND_URGENT_MAX - 1
        await client.keep(*(stage.spec("short:f", priority=9) for _ in range(20)))
        assert len([m for m in await worker.hears() if isinstance(m, Assign)]) == 20
        # Nothing urgent came for a second: the rest is assigned as far ahead as ever.
        stage.clock.pass_by(URGENT_SECONDS)
        await worker.end(ahead[0], run_us=10)
        rest = [m for m in await worker.hears() if isinstance(m, Assign)]
        assert len(rest) == 300 - len(ahead)

    perform(play)


def test_a_negative_duration_does_no_harm() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker(slots=1)
        await client.keep(*(stage.spec() for _ in range(3)))
        order = await worker.assigned()
        await worker.end(order, run_us=-1_000_000)
        for _ in range(2):
            await worker.end(await worker.assigned(), run_us=-5)
        await stage.quiet()
        (offer,) = stage.coordinator.state.crew.offers.values()
        assert (offer.backlog_us, offer.longs, offer.concurrent) == (0, 0, 0)

    perform(play)


@pytest.mark.parametrize("count", [1, 5])
def test_delayed_tasks_become_claimable_at_their_time(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_DUE_MAX", 2)

    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker(slots=count)
        due_ms = stage.clock.wall_ms() + 5_000
        specs = [stage.spec(due_ms=due_ms) for _ in range(count)]
        await client.keep(*specs)
        assert await worker.hears() == []
        assert "starts in 5.0 s" in (await client.ask("why", task=specs[0].id.hex())).data["why"]
        await worker.say()
        await stage.tick(4.9)
        assert await worker.hears() == []
        await stage.tick(0.2)
        assert {(await worker.assigned()).task for _ in specs} == {spec.id for spec in specs}

    perform(play)


def test_an_alarm_rings_when_a_task_falls_due() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker()
        await client.keep(spec := stage.spec(due_ms=stage.clock.wall_ms() + 30))
        stage.clock.pass_by(0.03)
        assert (await worker.assigned()).task == spec.id

    perform(play)


def test_delayed_tasks_survive_a_restart_and_can_be_cancelled() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        due_ms = stage.clock.wall_ms() + 5_000
        kept, gone = stage.spec(due_ms=due_ms), stage.spec(due_ms=due_ms)
        await client.keep(kept, gone)
        await stage.restart()
        client, worker = await stage.client(), await stage.worker(slots=2)
        assert (await client.want(gone.id, Wanted.CANCEL)).data["said"] == "done"
        await stage.tick(6.0)
        assert (await worker.assigned()).task == kept.id
        assert await worker.hears() == []

    perform(play)


@pytest.mark.parametrize("jump_ms", [0, -3_600_000, 3_600_000])
def test_waiting_work_is_recalled_for_an_idle_worker(jump_ms: int) -> None:
    async def play(stage: Stage) -> None:
        client, a = await stage.client(), await stage.worker("a", slots=1)
        await client.keep(*(stage.spec() for _ in range(5)))
        await a.end(await a.assigned(), run_us=10)
        orders = [await a.assigned() for _ in range(4)]
        await a.start(orders[0])
        # Ages are told by the monotonic clock alone.
        stage.clock.ms += jump_ms
        b = await stage.worker("b", slots=2)
        early = await a.hears()
        assert not any(isinstance(message, Recall) for message in early), "they are too young"
        stage.clock.pass_by(0.06)
        recalls = [await a.next(Recall) for _ in range(2)]
        assert {recall.token for recall in recalls} == {order.token for order in orders[2:]}
        stage.clock.pass_by(0.06)
        stage.coordinator.inbox.wake()
        assert await a.hears() == [], "not twice within a second"
        await a.say(*(ended(order, OutcomeKind.RETURNED) for order in orders[2:]))
        moved = [await b.assigned() for _ in range(2)]
        assert {order.task for order in moved} == {order.task for order in orders[2:]}
        assert stage.counters.get("recalls") == 2

    perform(play)


async def _behind(stage: Stage, client: Client, worker: Worker, *specs: Spec) -> list[Assign]:
    """Give a worker several tasks ahead, by having it run the first in no time."""
    await client.keep(stage.spec(specs[0].function, queue=specs[0].queue))
    await worker.settle(await worker.assigned())
    await client.keep(*specs)
    return [await worker.assigned() for _ in specs]


@pytest.mark.parametrize("concurrent", [False, True])
def test_a_slot_that_another_stores_work_takes_gets_none(concurrent: bool) -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        worker = await stage.worker(slots=1, concurrent_slots=1)
        worker.strangers = (0, 1) if concurrent else (1, 0)
        await worker.say()
        taken, free = (stage.spec(concurrent=is_taken) for is_taken in (concurrent, not concurrent))
        await client.keep(taken, free)
        assert (await worker.assigned()).task == free.id
        assert not any(isinstance(message, Assign) for message in await worker.hears())
        worker.strangers = (0, 0)
        await worker.say()
        assert (await worker.assigned()).task == taken.id

    perform(play)


def test_work_that_waits_behind_another_stores_is_recalled_for_an_idle_worker() -> None:
    async def play(stage: Stage) -> None:
        client, a = await stage.client(), await stage.worker("a", slots=1)
        await client.keep(stage.spec())
        order = await a.assigned()
        a.strangers = (1, 0)
        await a.say()
        b = await stage.worker("b", slots=1)
        await stage.tick(0.1)
        assert (await a.next(Recall)).token == order.token
        await a.say(ended(order, OutcomeKind.RETURNED))
        assert (await b.assigned()).task == order.task

    perform(play)


def test_work_is_recalled_from_whoever_holds_what_the_idle_can_run() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        a, b = await stage.worker("a", queues=("a",)), await stage.worker("b", queues=("b",))
        await _behind(stage, client, a, *(stage.spec("m:a", queue="a") for _ in range(10)))
        await _behind(stage, client, b, *(stage.spec("m:b", queue="b") for _ in range(4)))
        await stage.worker("c", slots=2, queues=("b",))
        for _ in range(5):
            stage.clock.pass_by(0.06)
            await stage.tick(0.0)
        assert sum(isinstance(message, Recall) for message in await b.hears()) == 2
        assert not any(isinstance(message, Recall) for message in await a.hears())

    perform(play)


def test_waiting_work_makes_way_for_what_is_more_urgent() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker()
        orders = await _behind(stage, client, worker, *(stage.spec() for _ in range(4)))
        await worker.start(orders[0])
        equal, urgent = stage.spec("long:f"), stage.spec("long:f", priority=5)
        await client.keep(equal)
        await stage.tick(0.1)
        assert not any(isinstance(message, Recall) for message in await worker.hears())
        await client.keep(urgent)
        await stage.tick(0.1)
        recalls = [message for message in await worker.hears() if isinstance(message, Recall)]
        assert {recall.token for recall in recalls} == {order.token for order in orders[1:]}
        await stage.tick(0.1)
        assert await worker.hears() == [], "not twice within a second"
        await worker.say(*(ended(order, OutcomeKind.RETURNED) for order in orders[1:]))
        await worker.end(orders[0])
        assert (await worker.assigned()).task == urgent.id

    perform(play)


def test_what_was_given_back_too_often_is_left_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalling, "_RETURNS_MAX", 0)

    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker()
        await _behind(stage, client, worker, *(stage.spec() for _ in range(4)))
        await stage.worker("idle")
        await stage.ticks(3)
        assert not any(isinstance(message, Recall) for message in await worker.hears())

    perform(play)


def test_nothing_is_recalled_for_a_worker_that_cannot_run_it() -> None:
    async def play(stage: Stage) -> None:
        client, a = await stage.client(), await stage.worker("a", slots=1)
        await client.keep(*(stage.spec() for _ in range(5)))
        await a.end(await a.assigned(), run_us=10)
        for _ in range(4):
            await a.assigned()
        await stage.worker("b", slots=2, queues=("other",))
        await a.say()
        await stage.tick()
        assert not any(isinstance(message, Recall) for message in await a.hears())

    perform(play)
