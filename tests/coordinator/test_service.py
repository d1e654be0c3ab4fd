"""The loop: what a turn writes, that nothing is said before, and what a failed commit does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.coordinator import inbox, service
from holdfast.coordinator.facts import Death
from holdfast.errors import (
    ChannelClosedError,
    StoreCorruptError,
    StoreDoubtError,
    StoreFullError,
    StoreRefusedError,
)
from holdfast.model.ids import TaskId
from holdfast.model.messages import (
    Accepted,
    Answered,
    Assign,
    Ended,
    Goodbye,
    Refused,
    Reply,
    SetWanted,
    Started,
    StopOrder,
    Submit,
    WorkerWelcome,
)
from holdfast.model.outcome import Answer, Encoding, OutcomeKind, Payload, Reason
from holdfast.model.task import Lease, Phase, State, Task, Wanted
from holdfast.ports import Changes, Update
from tests.coordinator.stage import DONE, Stage, Worker, ended, perform

ODD = Payload(Encoding.JSON, b"odd")


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "NO_ROOM_SECONDS", 0.0)
    monkeypatch.setattr(service, "_DOUBT_SECONDS", (0.0,))


def test_a_task_goes_its_whole_way() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        spec = stage.spec()
        assert (await client.keep(spec)).tasks == (spec.id,)
        order = await worker.assigned()
        assert (order.task, order.fence, order.number) == (spec.id, 1, 1)
        await worker.start(order)
        await stage.quiet()
        assert (await stage.row(spec.id)).life.phase is Phase.STARTED
        answered = await worker.settle(order)
        assert answered.answer is Answer.SETTLED
        settled = await client.settled(spec.id)
        assert (settled.state, settled.result) == (State.SUCCEEDED, DONE)
        assert (await stage.row(spec.id)).life.state is State.SUCCEEDED
        assert stage.coordinator.state.tasks == {}
        assert stage.coordinator.state.watchers == {}

    perform(play)


def test_the_plain_path_costs_one_insert_and_one_update() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        commits = stage.counters.get("commits")
        await client.submit(stage.spec())
        order = await worker.assigned()
        assert stage.written() == (1, 0)
        await worker.settle(order)
        assert stage.written() == (1, 1)
        assert stage.counters.get("commits") == commits + 2

    perform(play)


def test_an_idle_coordinator_commits_nothing() -> None:
    async def play(stage: Stage) -> None:
        worker = await stage.worker()
        await stage.client()
        commits = stage.counters.get("commits")
        for _ in range(20):
            await stage.tick()
            await worker.say()
        assert stage.counters.get("commits") == commits

    perform(play)


def test_everyone_who_submits_what_the_store_has_already_is_answered() -> None:
    async def play(stage: Stage) -> None:
        worker, first = await stage.worker(), await stage.client("first")
        plain, keyed = stage.spec(), stage.spec(key="k")
        await first.keep(plain, keyed)
        for _ in range(2):
            await worker.settle(await worker.assigned())
        second, third = await stage.client("b"), await stage.client("c")
        stage.store.gate = asyncio.Event()
        await first.submit(stage.spec())
        await stage.store.reached.wait()
        # All of this is decided in one turn, whose insert of `plain` is refused.
        await second.submit(plain, keyed)
        await third.submit(replace(plain, function="m:other"))
        await third.submit(plain)
        await stage.quiet()
        stage.store.gate.set()
        for client in (second, third):
            assert (await client.settled(plain.id)).result == DONE
        assert (await second.next(Accepted)).tasks
        heard = await third.hears()
        assert [m.code for m in heard if isinstance(m, Refused)] == ["key_conflict"]
        assert stage.counters.get("changes_refused") == 1

    perform(play)


def test_who_submits_a_key_again_in_a_turn_that_is_refused_is_answered() -> None:
    async def play(stage: Stage) -> None:
        first, second = await stage.client("a"), await stage.client("b")
        await first.keep(spec := stage.spec(key="k"))
        other = replace(stage.spec(key="k"), submitted_ms=spec.submitted_ms)
        # What this turn reads of the store is older than what it writes.
        stage.store.load_keys = _nothing_once(stage)  # type: ignore[attr-defined]
        stage.store.gate = asyncio.Event()
        await first.submit(stage.spec())
        await stage.store.reached.wait()
        await first.submit(spec)
        await second.submit(other)
        await stage.quiet()
        stage.store.gate.set()
        accepted = await second.next(Accepted)
        assert accepted.known == ((other.id, spec.id),)

    perform(play)


def _nothing_once(stage: Stage) -> Any:
    """Return a reader of keys that finds nothing the first time."""
    inner, calls = stage.store.inner.load_keys, 0

    async def load_keys(keys: list[str]) -> list[Task]:
        nonlocal calls
        calls += 1
        return await inner(keys) if calls > 1 else []

    return load_keys


def test_what_was_heard_of_workers_that_left_long_ago_is_forgotten() -> None:
    async def play(stage: Stage) -> None:
        client, stays = await stage.client(), await stage.worker("stays")
        await client.keep(stage.spec())
        await stays.assigned()
        for number in range(5):
            worker = await stage.worker(f"w{number}")
            await worker.leave()
            await stage.quiet()
            stage.coordinator.post(None, Death(f"id-w{number}", 1, certain=True))
        await stage.tick()
        state = stage.coordinator.state
        assert {"id-w0", "id-w4"} <= set(state.heard)
        assert len(state.buried) == 5
        for _ in range(80):
            await stage.tick(60.0, deaf=0.0)
        assert set(state.heard) <= {"id-stays"}
        assert (state.buried, state.reported, state.lapsed.keys() - {"id-stays"}) == ({}, {}, set())
        assert len(state.workers) == 6
        hello = stage.hello("w0", number=1)
        peer = Worker(stage.dial())
        await peer.send(hello)
        assert (await peer.next(Goodbye)).code == "late_hello"

    perform(play)


def test_nothing_is_said_before_the_commit() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        stage.store.gate = asyncio.Event()
        await client.submit(stage.spec())
        await stage.store.reached.wait()
        assert await client.hears() == []
        assert await worker.hears() == []
        stage.store.gate.set()
        await client.next(Accepted)
        order = await worker.assigned()
        stage.store.gate.clear()
        stage.store.reached.clear()
        await worker.end(order)
        await stage.store.reached.wait()
        assert await client.hears() == []
        assert await worker.hears() == []
        stage.store.gate.set()
        await worker.next(Answered)
        await client.settled(order.task)

    perform(play)


def test_what_arrives_during_a_commit_is_one_turn() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        stage.store.gate = asyncio.Event()
        await client.submit(stage.spec())
        await stage.store.reached.wait()
        for _ in range(10):
            await client.submit(stage.spec())
        await stage.quiet()
        stage.store.gate.set()
        for _ in range(2):
            await client.next(Accepted)
        assert [len(changes.inserts) for changes in stage.store.commits] == [1, 10]

    perform(play)


def _poisoned(function: str) -> Any:
    def poison(changes: Changes) -> Exception | None:
        if any(task.spec.function == function for task in changes.inserts):
            return StoreRefusedError("poisoned")
        return None

    return poison


@pytest.mark.parametrize("at", [0, 3, 6])
def test_a_poisoned_submission_is_split_off_alone(at: int) -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(slots=20), await stage.client()
        stage.store.poison = _poisoned("bad")
        specs = [stage.spec() for _ in range(7)]
        specs[at] = stage.spec("bad")
        await client.submit(*specs[:4])
        await client.submit(*specs[4:])
        refused = await client.next(Refused)
        assert (refused.task, refused.code) == (specs[at].id, "invalid_input")
        for _ in range(6):
            await worker.settle(await worker.assigned())
        for spec in specs:
            if spec.function != "bad":
                await client.settled(spec.id)
        heard = [*await client.hears()]
        assert not any(isinstance(message, Refused) for message in heard)
        assert stage.counters.get("offenders") == 1

    perform(play)


def test_what_no_column_holds_is_refused_alone() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        (session,) = stage.coordinator.state.clients
        good, surrogate = stage.spec(), stage.spec("\ud800")
        keyed = stage.spec(key="\udfff")
        stage.coordinator.post(session, Submit((good, surrogate)))
        stage.coordinator.post(session, Submit((keyed,)))
        refused = {(await client.next(Refused)).task for _ in range(2)}
        assert refused == {surrogate.id, keyed.id}
        assert (await client.next(Accepted)).tasks == (good.id,)

    perform(play)


def test_a_payload_of_absurd_size_never_reaches_the_store() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        huge = Payload(Encoding.JSON, b"[]", size_bytes=(1 << 64) - 1)
        await client.submit(stage.spec(payload=huge))
        assert (await client.next(Refused)).code == "invalid_input"
        assert stage.counters.get("turns_split") == 0

    perform(play)


def test_a_result_of_absurd_size_ends_its_task() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec())
        order = await worker.assigned()
        await worker.end(order, result=Payload(Encoding.JSON, b"1", size_bytes=(1 << 64) - 1))
        settled = await client.settled(spec.id)
        assert (settled.state, settled.reason) == (State.FAILED, Reason.INVALID)

    perform(play)


def test_an_outcome_that_the_store_refuses_ends_its_task() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec())
        order = await worker.assigned()

        def poison(changes: Changes) -> Exception | None:
            bad = any(update.task.life.result == DONE for update in changes.updates)
            return StoreRefusedError("no such result") if bad else None

        stage.store.poison = poison
        await worker.end(order)
        settled = await client.settled(spec.id)
        assert (settled.state, settled.reason) == (State.FAILED, Reason.INVALID)
        assert (await worker.next(Answered)).answer is Answer.SETTLED

    perform(play)


def test_an_outcome_that_the_store_refuses_keeps_no_worker_out() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(slots=3), await stage.client()
        specs = [stage.spec() for _ in range(3)]
        await client.keep(*specs)
        orders = [await worker.assigned() for _ in specs]
        await worker.leave()

        def poison(changes: Changes) -> Exception | None:
            results = [update.task.life.result for update in changes.updates]
            return StoreRefusedError("no such result") if ODD in results else None

        stage.store.poison = poison
        kind = OutcomeKind.SUCCEEDED
        outcomes = tuple(
            Ended(order.task, order.token, kind, ODD if number == 1 else DONE)
            for number, order in enumerate(orders)
        )
        again = await stage.worker(slots=3, outcomes=outcomes)
        assert again.welcome is not None
        answers = {answer.token: answer.answer for answer in again.welcome.answers}
        assert answers == {order.token: Answer.SETTLED for order in orders}
        lives = [(await stage.row(order.task)).life for order in orders]
        assert [life.state for life in lives] == [State.SUCCEEDED, State.FAILED, State.SUCCEEDED]
        assert lives[1].reason is Reason.INVALID

    perform(play)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_doubt_loses_nothing_and_doubles_nothing(moment: str) -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(slots=3), await stage.client()
        specs = [stage.spec() for _ in range(3)]
        getattr(stage.store, moment).append(StoreDoubtError("the wire broke"))
        assert (await client.keep(*specs)).tasks == tuple(spec.id for spec in specs)
        assert stage.store.asked_last_turn == 1
        orders = [await worker.assigned() for _ in specs]
        assert {order.task for order in orders} == {spec.id for spec in specs}
        getattr(stage.store, moment).append(StoreDoubtError("and again"))
        for order in orders:
            await worker.end(order)
        for order in orders:
            await worker.next(Answered, lambda answered, o=order: answered.token == o.token)
            settled = await client.settled(order.task)
            assert settled.state is State.SUCCEEDED
        assert await client.hears() == []
        assert stage.written()[0] == 3
        (offer,) = stage.coordinator.state.crew.offers.values()
        assert (offer.leases, offer.longs, offer.backlog_us) == ({}, 0, 0)
        await worker.say()
        await stage.quiet()
        assert stage.counters.get("views_differ") == 0

    perform(play)


def test_doubt_while_reading_is_asked_again() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        await client.keep(spec := stage.spec())
        stage.store.reads.append(StoreDoubtError("cannot be read"))
        reply = await client.want(spec.id, Wanted.CANCEL)
        assert reply.data["state"] == "cancelled"

    perform(play)


@pytest.mark.parametrize("moment", ["read", "commit", "reopening"])
def test_a_damaged_store_ends_the_coordinator(
    moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage = StoreCorruptError("store.db is damaged")

    async def play(stage: Stage) -> None:
        client = await stage.client()
        await client.keep(spec := stage.spec())
        stage.coordinator.state.tasks.clear()
        if moment == "read":
            stage.store.reads.append(damage)
        elif moment == "commit":
            stage.store.before.append(damage)
        else:
            stage.store.before.append(StoreDoubtError("broken off"))

            async def damaged() -> int:
                raise damage

            stage.store.last_turn = damaged  # type: ignore[method-assign]
        await client.send(SetWanted(1, spec.id, Wanted.CANCEL))
        assert stage.running is not None
        await asyncio.wait([stage.running])
        assert await client.hears() == []

    with pytest.raises(StoreCorruptError, match="is damaged"):
        perform(play)
    assert "this coordinator ends: store.db is damaged" in caplog.text


def test_a_failed_turn_gives_lines_and_slots_back() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(slots=1), await stage.client()
        await client.keep(first := stage.spec(), second := stage.spec())
        order = await worker.assigned()
        assert order.task == first.id
        stage.store.before.extend([StoreDoubtError("1"), StoreFullError("2"), StoreDoubtError("3")])
        await worker.end(order)
        assert (await worker.assigned()).task == second.id
        (offer,) = stage.coordinator.state.crew.offers.values()
        assert len(offer.leases) == 1
        assert stage.counters.get("views_differ") == 0

    perform(play)


def test_a_death_told_before_a_failed_turn_is_judged_after_it() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec())
        await worker.assigned()
        stage.coordinator.post(None, Death("id-w", 1, True))
        await stage.quiet()
        assert (await stage.row(spec.id)).life.state is State.RUNNING
        stage.store.before.append(StoreDoubtError("broke"))
        await worker.leave()
        await stage.quiet()
        assert (await stage.row(spec.id)).life.state is State.QUEUED

    perform(play)


def test_without_room_submitters_are_refused_and_outcomes_wait() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec())
        order = await worker.assigned()
        full = [True]
        stage.store.poison = lambda changes: StoreFullError("full") if full[0] else None
        await worker.end(order)
        await client.submit(late := stage.spec())
        refused = await client.next(Refused)
        assert (refused.task, refused.code) == (late.id, "no_room")
        assert refused.retry_after_seconds > 0
        text = "the coordinator's disk has no room for new tasks until 2.5 MiB are free"
        assert refused.text == text
        assert not any(isinstance(m, Answered) for m in worker.unread)
        assert stage.room.released > 0
        full[0] = False
        await worker.next(Answered)
        assert (await client.settled(spec.id)).state is State.SUCCEEDED
        await client.submit(late)
        assert (await client.next(Refused)).code == "no_room", "until the room is looked at"
        stage.coordinator.look_at_room()
        assert (await client.keep(late)).tasks == (late.id,)

    perform(play)


def test_without_room_a_repetition_is_answered_as_kept() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        await client.keep(kept := stage.spec())
        stage.coordinator.short = True
        await client.submit(kept, new := stage.spec(), again=True)
        assert (await client.next(Refused)).task == new.id
        assert (await client.next(Accepted)).tasks == (kept.id,)

    perform(play)


def test_the_room_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    async def play(stage: Stage) -> None:
        stage.room.is_short = True
        for _ in range(3):
            stage.coordinator.look_at_room()
            assert stage.coordinator.short
        assert stage.room.restored == 3
        stage.room.is_short = False
        for _ in range(3):
            stage.coordinator.look_at_room()
            assert not stage.coordinator.short
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
        assert "until 2.5 MiB are free" in caplog.text

    perform(play)


def test_an_id_submitted_twice_without_saying_so_is_answered_once_more() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        spec, other = stage.spec(), stage.spec()
        await client.keep(spec)
        await worker.settle(await worker.assigned())
        await client.settled(spec.id)
        await client.submit(spec, other)
        accepted = [*(await client.next(Accepted)).tasks, *(await client.next(Accepted)).tasks]
        assert sorted(accepted) == sorted([spec.id, other.id])
        assert (await client.settled(spec.id)).state is State.SUCCEEDED
        assert (await worker.assigned()).task == other.id

    perform(play)


async def _bump(stage: Stage, task: TaskId, **fields: Any) -> None:
    """Write over a row as another coordinator would."""
    row = await stage.row(task)
    life = replace(row.life, version=row.life.version + 1, **fields)
    turn = await stage.store.inner.last_turn()
    await stage.store.inner.commit(
        Changes(turn=turn, updates=[Update(replace(row, life=life), row.life.version)])
    )


def test_a_row_that_another_writer_changed_is_read_anew() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec())
        order = await worker.assigned()
        await _bump(stage, spec.id)
        assert (await worker.settle(order)).answer is Answer.SETTLED
        assert (await client.settled(spec.id)).state is State.SUCCEEDED
        assert stage.counters.get("changes_refused") == 1

    perform(play)


def test_an_outcome_of_a_hello_is_not_called_settled_where_its_row_was_changed() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec())
        order = await worker.assigned()
        await worker.leave()
        await stage.quiet()
        await _bump(stage, spec.id, wanted=Wanted.PAUSE, wish=1)
        back = Worker(stage.dial())
        await back.send(stage.hello(number=2, outcomes=(ended(order),)))
        with pytest.raises(ChannelClosedError):
            await back.next(WorkerWelcome)
        assert (await stage.row(spec.id)).life.state is State.RUNNING
        again = await stage.worker(number=3, outcomes=(ended(order),))
        assert again.welcome is not None
        (answer,) = again.welcome.answers
        assert answer.answer is Answer.SETTLED
        assert (await client.settled(spec.id)).state is State.SUCCEEDED

    perform(play)


def test_no_socket_is_current_whose_newer_hello_was_committed_but_not_answered() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec())
        await worker.settle(await worker.assigned())
        stage.store.gate = gate = asyncio.Event()
        await client.submit(stage.spec())
        await stage.store.reached.wait()
        # Of the next turn the store refuses a part: what it has is not kept a second time.
        again = Worker(stage.dial())
        await again.send(stage.hello())
        await client.submit(spec)
        await stage.quiet()
        stage.store.gate = None
        gate.set()
        await stage.quiet()
        assert [row.epoch for row in await stage.store.worker_rows()] == [2]
        assert stage.coordinator.state.sessions == {}
        await worker.until_closed()
        await again.until_closed()
        assert (await stage.worker()).epoch == 3

    perform(play)


@pytest.mark.parametrize("how", ["silence", "death", "unnamed"])
def test_a_judgement_of_a_row_that_another_writer_changed_is_made_again(how: str) -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec())
        await worker.assigned()
        assert worker.welcome is not None
        await worker.leave()
        await stage.quiet()
        await _bump(stage, spec.id)
        if how == "silence":
            await stage.ticks(12)
        elif how == "death":
            word = worker.welcome.last_word
            assert stage.gateway.death(Death("id-w", 1, True), word, lambda: None)
            await stage.quiet()
        else:
            back = Worker(stage.dial())
            await back.send(stage.hello(number=2))
            await stage.quiet()
            assert (await stage.worker(number=3)).welcome is not None
        await stage.quiet()
        assert stage.counters.get("changes_refused") == 1
        row = await stage.row(spec.id)
        # A worker that is back gets it again; nobody else is here.
        assert (row.life.state, row.life.fence) == (
            (State.RUNNING, 2) if how == "unnamed" else (State.QUEUED, 1)
        )

    perform(play)


def test_a_refused_claim_does_not_lose_the_task() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(first := stage.spec(), second := stage.spec())
        order = await worker.assigned()
        assert order.task == first.id
        await _bump(stage, second.id)
        await worker.settle(order)
        assert (await worker.assigned()).task == second.id
        (offer,) = stage.coordinator.state.crew.offers.values()
        assert len(offer.leases) == 1

    perform(play)


def test_the_inbox_slows_its_senders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "INBOX_MESSAGES_MAX", 10)

    async def play(stage: Stage) -> None:
        client = await stage.client()
        stage.store.gate = asyncio.Event()
        await client.submit(stage.spec())
        await stage.store.reached.wait()
        specs = [stage.spec() for _ in range(40)]
        for spec in specs:
            await client.submit(spec)
        await stage.quiet()
        assert stage.coordinator.inbox._weight <= 12
        stage.store.gate.set()
        kept: list[TaskId] = []
        while len(kept) < 41:
            kept += (await client.next(Accepted)).tasks
        assert kept[1:] == [spec.id for spec in specs]

    perform(play)


def test_a_turn_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "TURN_MESSAGES_MAX", 10)

    async def play(stage: Stage) -> None:
        client = await stage.client()
        stage.store.gate = asyncio.Event()
        await client.submit(stage.spec())
        await stage.store.reached.wait()
        for _ in range(8):
            await client.submit(*(stage.spec() for _ in range(4)))
        await stage.quiet()
        stage.store.gate.set()
        kept = 0
        while kept < 33:
            kept += len((await client.next(Accepted)).tasks)
        assert [len(c.inserts) for c in stage.store.commits] == [1, 8, 8, 8, 8]

    perform(play)


def test_an_outcome_beats_the_cancel() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec())
        order = await worker.assigned()
        assert (await client.want(spec.id, Wanted.CANCEL)).data["said"] == "asked"
        await worker.settle(order)
        assert (await client.settled(spec.id)).state is State.SUCCEEDED

    perform(play)


def test_kinds_of_outcomes_reach_the_story() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec())
        order = await worker.next(Assign)
        await worker.settle(order, OutcomeKind.RAISED)
        settled = await client.settled(spec.id)
        assert (settled.state, settled.reason) == (State.FAILED, Reason.ERROR)
        assert settled.failure is not None
        (event,) = await stage.events(spec.id)
        assert (event.kind, event.detail) == ("raised", "builtins.ValueError: it did not work")

    perform(play)


@pytest.mark.parametrize("first", [Wanted.PAUSE, Wanted.CANCEL])
@pytest.mark.parametrize("second", [Wanted.PAUSE, Wanted.CANCEL])
def test_a_wish_beside_a_refused_change_is_answered_by_what_is(
    first: Wanted, second: Wanted
) -> None:
    """What a wish was told by stands on the change before it, and falls with it."""

    async def play(stage: Stage) -> None:
        await stage.worker()
        client = await stage.client()
        await client.keep(spec := stage.spec())
        await stage.quiet()
        await _bump(stage, spec.id)
        await client.send(SetWanted(1, spec.id, first), SetWanted(2, spec.id, second))
        one = await client.next(Reply, lambda reply: reply.ref == 1)
        two = await client.next(Reply, lambda reply: reply.ref == 2)
        assert stage.counters.get("changes_refused") == 1
        assert one.data is not None
        if (first, second) == (Wanted.CANCEL, Wanted.PAUSE):
            assert two.code == "being_cancelled"
        else:
            assert two.data is not None
        assert (await stage.row(spec.id)).life.wanted is max(first, second)

    perform(play)


def test_a_wish_for_what_waits_leaves_alone_what_a_worker_has() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(held := stage.spec(), waiting := stage.spec())
        order = await worker.assigned()
        assert order.task == held.id
        for ref, spec in enumerate((held, waiting)):
            await client.send(SetWanted(ref, spec.id, Wanted.CANCEL, waiting=True))
        said = [(await client.next(Reply)).data for _ in range(2)]
        assert said[0] == {"said": "running", "state": "running", "wanted": "run"}
        assert said[1] == {"said": "done", "state": "cancelled", "wanted": "cancel"}
        assert (await stage.row(held.id)).life.wish == 0
        assert await worker.hears() == []

    perform(play)


def test_a_wish_for_what_ended_in_a_refused_change_is_answered_by_what_is() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec())
        order = await worker.assigned()
        await _bump(stage, spec.id)
        stage.store.gate = gate = asyncio.Event()
        await client.submit(stage.spec(queue="other"))
        await stage.store.reached.wait()
        # Both are decided in the turn after this one.
        await worker.end(order)
        await stage.quiet()
        await client.send(SetWanted(1, spec.id, Wanted.CANCEL))
        await stage.quiet()
        stage.store.gate = None
        gate.set()
        reply = await client.next(Reply)
        assert stage.counters.get("changes_refused") == 1
        assert reply.data["state"] == "succeeded"

    perform(play)


def test_nobody_is_stopped_for_a_decision_that_the_store_refused() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec())
        order = await worker.assigned()
        held = (await stage.row(spec.id)).life
        await worker.leave()
        back = await stage.worker(draining=True)
        stale = await stage.row(spec.id)
        assert stale.life.lease is Lease.LAPSED
        await _bump(stage, spec.id, state=held.state, lease=held.lease, owed=held.owed)
        stage.coordinator.state.tasks[spec.id] = stale
        stage.store.gate = gate = asyncio.Event()
        await client.submit(stage.spec(queue="other"))
        await stage.store.reached.wait()
        # Of what looks as if it waited, the cancel spends the token; in truth it runs.
        await client.send(SetWanted(1, spec.id, Wanted.CANCEL))
        await stage.quiet()
        await back.say(Started(order.task, order.token))
        await stage.quiet()
        stage.store.gate = None
        gate.set()
        assert (await client.next(Reply)).data["state"] == "running"
        assert stage.counters.get("changes_refused") == 1
        assert not [message for message in await back.hears() if isinstance(message, StopOrder)]

    perform(play)
