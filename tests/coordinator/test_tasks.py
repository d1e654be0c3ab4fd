"""Submissions, keys, wishes and watches: what each message does to its task."""

from __future__ import annotations

import hashlib

import pytest
from msgspec.structs import replace

from holdfast.coordinator import sessions
from holdfast.model.ids import TaskId
from holdfast.model.messages import (
    Accepted,
    Assign,
    Code,
    CodeWanted,
    PutCode,
    Refused,
    Settled,
    Watch,
    WishTold,
)
from holdfast.model.outcome import Encoding, OutcomeKind, Payload
from holdfast.model.task import Lease, State, Wanted
from tests.coordinator.stage import Stage, ended, held, perform


def test_the_same_submission_is_answered_with_the_same_id() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        spec = stage.spec()
        await client.keep(spec)
        await client.submit(spec, spec, again=True)
        accepted = await client.next(Accepted)
        assert (accepted.tasks, accepted.known) == ((spec.id, spec.id), ())
        assert stage.written() == (1, 0)

    perform(play)


def test_a_key_names_one_task() -> None:
    async def play(stage: Stage) -> None:
        client, other = await stage.client(), await stage.client("other")
        first, second, third = (stage.spec(key="page-1") for _ in range(3))
        await client.submit(first, second)
        accepted = await client.next(Accepted)
        assert accepted.known == ((second.id, first.id),)
        await other.submit(third)
        assert (await other.next(Accepted)).known == ((third.id, first.id),)
        worker = await stage.worker()
        await worker.settle(await worker.assigned())
        assert (await client.settled(first.id)).state is State.SUCCEEDED
        assert (await other.settled(first.id)).state is State.SUCCEEDED
        await other.submit(stage.spec(key="page-1"))
        assert (await other.settled(first.id)).state is State.SUCCEEDED

    perform(play)


def test_a_key_finds_what_is_alike_though_its_bytes_differ() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        alike = bytes(32) + b"a" * 32
        pickles = [Payload(Encoding.PICKLE, data) for data in (b"one", b"another")]
        specs = [
            stage.spec(key="k", payload=pickle, likeness=alike, python="3.11")
            for pickle in (*pickles, pickles[0])
        ]
        await client.keep(specs[0])
        await client.submit(specs[1])
        assert (await client.next(Accepted)).known == ((specs[1].id, specs[0].id),)
        other = replace(specs[2], likeness=bytes(32) + b"b" * 32, payload=Payload(Encoding.PICKLE))
        await client.submit(other)
        assert "contents: payload differs" in (await client.next(Refused)).text
        again = replace(specs[0], payload=pickles[1])
        await client.submit(again, again=True)
        assert "the id is known" in (await client.next(Refused)).text

    perform(play)


def test_other_contents_under_a_known_name_are_refused() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        spec = stage.spec(key="k")
        await client.keep(spec)
        await client.submit(stage.spec("m:other", key="k", priority=3))
        refused = await client.next(Refused)
        assert refused.code == "key_conflict"
        assert "key 'k'" in refused.text
        assert "function and priority differ" in refused.text
        changed = stage.spec("m:other")
        changed = type(changed)(spec.id, "m:other", spec.payload, spec.submitted_ms)
        await client.submit(changed, again=True)
        assert "the id is known" in (await client.next(Refused)).text

    perform(play)


def test_one_wrong_submission_does_not_harm_its_neighbours() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        good, bad = stage.spec(), stage.spec("")
        await client.submit(good, bad)
        assert (await client.next(Refused)).task == bad.id
        assert (await client.next(Accepted)).tasks == (good.id,)

    perform(play)


@pytest.mark.parametrize("how", ["queued", "paused", "delayed"])
def test_cancel_of_what_does_not_run(how: str) -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        due_ms = stage.clock.wall_ms() + 9_000 if how == "delayed" else 0
        await client.keep(spec := stage.spec(due_ms=due_ms))
        if how == "paused":
            await client.want(spec.id, Wanted.PAUSE)
        reply = await client.want(spec.id, Wanted.CANCEL)
        assert reply.data == {"said": "done", "state": "cancelled", "wanted": "cancel"}
        assert (await client.settled(spec.id)).state is State.CANCELLED
        worker = await stage.worker()
        assert await worker.hears() == []
        assert (await client.want(spec.id, Wanted.CANCEL)).data["said"] == "finished"

    perform(play)


def test_cancel_of_what_runs_is_asked_and_told_until_it_is_seen() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec())
        order = await worker.assigned()
        assert (await client.want(spec.id, Wanted.CANCEL)).data["said"] == "asked"
        told = await worker.next(WishTold)
        assert (told.token, told.wanted, told.wish) == (order.token, Wanted.CANCEL, 1)
        assert (await client.want(spec.id, Wanted.PAUSE)).code == "being_cancelled"
        await worker.say()
        await stage.tick()
        assert (await worker.next(WishTold)).wish == 1
        worker.wishes[order.token] = 1
        await worker.say()
        await stage.tick()
        assert await worker.hears() == []
        await worker.settle(order, OutcomeKind.RETURNED)
        assert (await client.settled(spec.id)).state is State.CANCELLED

    perform(play)


def test_a_wish_survives_its_worker() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec())
        order = await worker.assigned()
        await client.want(spec.id, Wanted.PAUSE)
        back = await stage.worker(held=(held(order),))
        assert back.welcome is not None
        (answer,) = back.welcome.answers
        assert (answer.wanted, answer.wish) == (Wanted.PAUSE, 1)
        await back.say()
        await stage.tick()
        assert (await back.next(WishTold)).wanted is Wanted.PAUSE
        await client.want(spec.id, Wanted.CANCEL)
        await stage.ticks(12)
        assert (await client.settled(spec.id)).state is State.CANCELLED
        assert (await stage.row(spec.id)).life.lease is Lease.SPENT

    perform(play)


def test_pause_and_resume() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        await client.keep(spec := stage.spec())
        assert (await client.want(spec.id, Wanted.PAUSE)).data["state"] == "paused"
        assert (await client.want(spec.id, Wanted.PAUSE)).data["said"] == "done"
        worker = await stage.worker()
        assert await worker.hears() == []
        assert (await client.want(spec.id, Wanted.RUN)).data["state"] == "running" or (
            await stage.row(spec.id)
        ).life.state is State.RUNNING
        order = await worker.assigned()
        assert (await client.want(spec.id, Wanted.PAUSE)).data["said"] == "asked"
        await worker.settle(order, OutcomeKind.RETURNED)
        assert (await stage.row(spec.id)).life.state is State.PAUSED
        await client.want(spec.id, Wanted.RUN)
        assert (await worker.assigned()).fence == 2

    perform(play)


def test_a_wish_for_nothing() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        assert (await client.want(stage.spec().id, Wanted.PAUSE)).code == "unknown_task"

    perform(play)


def test_watching() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(done := stage.spec(), running := stage.spec())
        await worker.settle(await worker.assigned())
        await client.settled(done.id)
        other = await stage.client("other")
        unknown = stage.spec().id
        await other.send(Watch((done.id, running.id, unknown)))
        assert (await other.settled(done.id)).state is State.SUCCEEDED
        assert (await other.next(Refused)).code == "unknown_task"
        await worker.settle(await worker.assigned())
        assert (await other.settled(running.id)).state is State.SUCCEEDED
        assert (await client.settled(running.id)).state is State.SUCCEEDED
        assert stage.coordinator.state.watchers == {}

    perform(play)


def test_a_client_that_leaves_is_forgotten_and_its_tasks_go_on() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec())
        order = await worker.assigned()
        await client.leave()
        await stage.quiet()
        state = stage.coordinator.state
        assert (state.watchers, state.clients) == ({}, {})
        assert stage.gateway.clients == 0
        await worker.settle(order)
        back = await stage.client()
        await back.submit(spec, again=True)
        assert (await back.settled(spec.id)).state is State.SUCCEEDED

    perform(play)


def test_a_client_of_our_own_tasks_is_not_counted() -> None:
    async def play(stage: Stage) -> None:
        for kept_by, counted in (("our mark", 0), ("another mark", 1), ("", 2)):
            await stage.client(kept_by=kept_by)
            assert stage.gateway.clients == counted
        assert len(stage.coordinator.state.clients) == 3

    perform(play)


def test_code_is_kept_and_given() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        data = b"a pickled function"
        digest = hashlib.sha256(data).digest()
        await client.send(PutCode(digest, data))
        await client.keep(stage.spec(code=digest))
        await worker.assigned()
        await worker.say(CodeWanted(digest), CodeWanted(b"x" * 32))
        assert await worker.next(Code) == Code(digest, data, True)
        assert await worker.next(Code) == Code(b"x" * 32, b"", False)
        await client.send(PutCode(digest, b"something else"))
        await client.until_closed()
        assert stage.counters.get("protocol_errors") == 1

    perform(play)


def test_results_for_a_client_that_does_not_read_wait_in_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "RESULTS_BYTES_MAX", 200_000)

    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(slots=100), await stage.client()
        specs = [stage.spec() for _ in range(100)]
        await client.submit(*specs)
        big = Payload(Encoding.JSON, b'"' + b"x" * 60_000 + b'"')
        for _ in specs:
            await worker.say(ended(await worker.assigned(), result=big))
        await stage.quiet()
        (session,) = stage.coordinator.state.clients
        queued = [message for message in session.out if isinstance(message, Settled)]
        assert 0 < len(queued) < 10
        assert len(session.owed) > 50
        told: set[TaskId] = set()
        while len(told) < 100:
            settled = await client.next(Settled)
            assert settled.result == big
            assert settled.task not in told
            told.add(settled.task)
            await client.send()
        assert session.owed == {}

    perform(play)


def test_a_peer_that_never_reads_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "OUT_MESSAGES_MAX", 3)

    async def play(stage: Stage) -> None:
        client = await stage.client()
        (session,) = stage.coordinator.state.clients
        for _ in range(4):
            session.send(Refused(stage.spec().id, "x", "y"))
        assert session.closed
        await client.until_closed()

    perform(play)


def test_a_worker_is_told_when_what_it_ended_is_unknown() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(stage.spec())
        order = await worker.next(Assign)
        stranger = type(order)(
            **{f: getattr(order, f) for f in order.__struct_fields__}
            | {"task": stage.spec().id, "token": b"t" * 16}
        )
        assert (await worker.settle(stranger)).answer.text == "superseded"
        assert stage.counters.get("outcomes_unknown") == 1

    perform(play)
