"""Sockets: the first frame's rules, what closes a session and only that one, and beats."""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec
import pytest

from holdfast.coordinator import gateway, inbox, service
from holdfast.core.wire import Wire
from holdfast.errors import ChannelClosedError, StoreCorruptError, StoreDoubtError, StoreFullError
from holdfast.model.messages import (
    PROTOCOL,
    Ask,
    ClientHello,
    CodeWanted,
    Draining,
    Ended,
    Goodbye,
    HelloMore,
    Message,
    Pull,
    Refused,
    Reply,
    Started,
    Submit,
    View,
    Watch,
    WorkerFrame,
    WorkerWelcome,
)
from holdfast.model.outcome import Answer, OutcomeKind
from holdfast.model.task import Phase, State
from tests.coordinator.stage import Client, Peer, Stage, Worker, ended, held, perform

_HELLO = ClientHello(PROTOCOL, "c", "0", "3.11")


@pytest.mark.parametrize(
    "body",
    [
        (),
        (_HELLO, _HELLO),
        (Submit(()),),
        (ClientHello(PROTOCOL + 1, "c", "0", "3.11"),),
        (HelloMore((), False),),
        (Goodbye("x", "y"),),
    ],
)
def test_a_session_begins_with_a_hello_alone(body: tuple[Message, ...]) -> None:
    async def play(stage: Stage) -> None:
        bystander = await stage.client("bystander")
        peer = Client(stage.dial())
        await peer.send(*body)
        assert (await peer.next(Goodbye)).code == "protocol_error"
        await peer.until_closed()
        assert stage.counters.get("protocol_errors") == 1
        await bystander.keep(stage.spec())

    perform(play)


def test_sessions_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(stage: Stage) -> None:
        monkeypatch.setattr(gateway, "SESSIONS_MAX", 2)
        client, worker = await stage.client(), await stage.worker()
        third = Client(stage.dial())
        await third.send(_HELLO)
        assert "more than 2 sessions" in (await third.next(Goodbye)).text
        await third.until_closed()
        await worker.leave()
        await stage.quiet()
        await client.keep(stage.spec())
        assert await (await stage.client("fourth")).keep(stage.spec())

    perform(play)


@pytest.mark.parametrize(
    "parts",
    [
        {"slots": 0},
        {"slots": 1 << 40},
        {"concurrent_slots": -1},
        {"incarnation": 0},
        {"number": 1 << 63},
        {"identity": ""},
        {"name": "a\x00b", "identity": "i"},
    ],
)
def test_an_absurd_offer_is_refused(parts: dict[str, object]) -> None:
    async def play(stage: Stage) -> None:
        peer = Worker(stage.dial())
        name = str(parts.pop("name", "w"))
        await peer.send(stage.hello(name, **parts))
        assert (await peer.next(Goodbye)).code == "protocol_error"
        await peer.until_closed()

    perform(play)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x00" * 300_000,
        msgspec.msgpack.encode((7, 0, (), None)),
        msgspec.msgpack.encode((2, 99, (), None)),
        msgspec.msgpack.encode((2, 0, (), None, b"x" * 10)) + b"junk",
        b"\x94\x02\x00\x91\x93\x1e\x91\xa3\xed\xa0\x80\xc2\xc0",
    ],
)
def test_a_frame_that_cannot_be_closes_its_session_only(data: bytes) -> None:
    async def play(stage: Stage) -> None:
        bystander, peer = await stage.client("bystander"), await stage.client()
        await peer.channel.send(data)
        await peer.until_closed()
        assert stage.counters.get("protocol_errors") == 1
        await bystander.keep(stage.spec())
        assert len(stage.coordinator.state.clients) == 1

    perform(play)


@pytest.mark.parametrize("message", [Draining(), Pull(1), Started(b"t", b"t"), CodeWanted(b"d")])  # type: ignore[arg-type]
def test_a_client_does_not_speak_like_a_worker(message: Message) -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        await client.send(message)
        assert "not for this session" in (await client.next(Goodbye)).text
        await client.until_closed()

    perform(play)


@pytest.mark.parametrize("message", [Submit(()), Watch(()), Ask(1, "status", {})])
def test_a_worker_does_not_speak_like_a_client(message: Message) -> None:
    async def play(stage: Stage) -> None:
        worker = await stage.worker()
        await worker.say(message)
        await worker.until_closed()
        assert stage.counters.get("protocol_errors") == 1

    perform(play)


def test_a_worker_says_what_it_holds_and_waits_for_its_welcome() -> None:
    async def play(stage: Stage) -> None:
        worker = await stage.worker("silent")
        await worker.send()
        await worker.until_closed()
        early = Worker(stage.dial())
        await early.send(stage.hello("early"))
        await early.send(Pull(1), view=View(0, 0, 0))
        await early.until_closed()
        patient = Worker(stage.dial())
        await patient.send(stage.hello("patient"))
        await patient.send(view=View(0, 0, 0))
        heard = await patient.hears()
        assert not any(isinstance(message, Goodbye) for message in heard)
        assert not patient.channel.closed
        assert stage.counters.get("protocol_errors") == 2

    perform(play)


def test_a_hello_that_is_interrupted_or_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "HELLO_BYTES_MAX", 100)

    async def play(stage: Stage) -> None:
        first = Worker(stage.dial())
        await first.send(stage.hello("a", more=True))
        await first.send(Pull(1))
        await first.until_closed()
        second = Worker(stage.dial())
        await second.send(stage.hello("b", more=True))
        spec = stage.spec()
        big = Ended(spec.id, b"t" * 90, OutcomeKind.RETURNED)  # type: ignore[arg-type]
        await second.send(HelloMore((big,), True))
        await second.until_closed()
        assert stage.counters.get("protocol_errors") == 2

    perform(play)


def test_too_many_questions_at_once() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        await client.send(*(Ask(n, "stats", {}) for n in range(17)))
        await client.until_closed()
        assert stage.counters.get("protocol_errors") == 1
        other = await stage.client()
        for _ in range(3):
            await other.send(*(Ask(n, "stats", {}) for n in range(16)))
            for _ in range(16):
                await other.next(Reply)

    perform(play)


def test_a_long_watch_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "_WATCH_MAX", 3)

    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker(slots=9)
        specs = [stage.spec() for _ in range(8)]
        await client.keep(*specs)
        other = await stage.client("other")
        await other.send(Watch(tuple(spec.id for spec in specs)))
        for _ in specs:
            await worker.end(await worker.assigned())
        for spec in specs:
            assert (await other.settled(spec.id)).state is State.SUCCEEDED

    perform(play)


def test_what_was_said_before_the_socket_broke_counts() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker(slots=2)
        await client.keep(one := stage.spec(), two := stage.spec())
        orders = [await worker.assigned() for _ in range(2)]
        for order in orders:
            await worker.say(ended(order))
        await worker.leave()
        assert (await client.settled(one.id)).state is State.SUCCEEDED
        assert (await client.settled(two.id)).state is State.SUCCEEDED

    perform(play)


def test_beats_are_said_where_nothing_else_was() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker()
        stage.gateway.beat()
        await stage.quiet()
        assert not client.channel._frames
        stage.clock.pass_by(0.6)
        stage.gateway.beat()
        assert await client.read() == ()
        assert await worker.read() == ()

    perform(play)


def test_code_that_cannot_be_read_closes_the_session() -> None:
    async def play(stage: Stage) -> None:
        worker = await stage.worker()

        async def broken(digest: bytes) -> bytes:
            raise StoreDoubtError("cannot be read")

        stage.store.load_code = broken  # type: ignore[attr-defined]
        await worker.say(CodeWanted(b"d" * 32))
        await worker.until_closed()

    perform(play)


def test_code_in_a_damaged_store_ends_the_coordinator() -> None:
    async def play(stage: Stage) -> None:
        worker = await stage.worker()

        async def broken(digest: bytes) -> bytes:
            raise StoreCorruptError("store.db is damaged")

        stage.store.load_code = broken  # type: ignore[attr-defined]
        await worker.say(CodeWanted(b"d" * 32))
        assert stage.running is not None
        await asyncio.wait([stage.running])

    with pytest.raises(StoreCorruptError):
        perform(play)


def test_a_goodbye_ends_a_session() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker()
        await client.send(Goodbye("bye", ""))
        await client.until_closed()
        await worker.say(Goodbye("bye", ""))
        await worker.until_closed()
        await stage.quiet()
        assert stage.coordinator.state.sessions == {}
        assert stage.counters.get("protocol_errors") == 0

    perform(play)


def test_closing_closes_every_socket() -> None:
    async def play(stage: Stage) -> None:
        peers: list[Peer] = [await stage.client(), await stage.worker()]
        await stage.gateway.close()
        for peer in peers:
            with pytest.raises(ChannelClosedError):
                await peer.channel.send(Wire(WorkerFrame).write(deque()))

    perform(play)


def test_hellos_do_not_pile_up_while_nothing_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "NO_ROOM_SECONDS", 0.0)
    monkeypatch.setattr(inbox, "_STALE_BYTES_MAX", 10_000)

    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker()
        await client.keep(spec := stage.spec())
        order = await worker.assigned()
        await worker.start(order)
        await worker.leave()
        await stage.quiet()
        stage.store.poison = lambda changes: StoreFullError("no room")
        done = ended(order)
        for _ in range(50):
            again = Worker(stage.dial())
            await again.send(stage.hello(outcomes=(done,)))
            await stage.quiet()
            await again.leave()
            await stage.quiet()
        last = Worker(stage.dial())
        await last.send(stage.hello(outcomes=(done,)))
        await stage.quiet()
        waiting = stage.coordinator.inbox
        assert len(waiting) + sum(len(part.items) for part in waiting._parts) < 12
        # Submitters are told meanwhile.
        stage.coordinator.short = True
        await client.submit(stage.spec())
        assert (await client.next(Refused)).code == "no_room"
        stage.store.poison = lambda changes: None
        welcome = await last.next(WorkerWelcome)
        assert [answer.answer for answer in welcome.answers] == [Answer.SETTLED]
        assert (await client.settled(spec.id)).state is State.SUCCEEDED

    perform(play)


def test_an_older_socket_is_done_with_once_a_newer_hello_was_read() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker()
        await client.keep(spec := stage.spec())
        await worker.start(order := await worker.assigned())
        await stage.quiet()
        stage.store.poison = lambda changes: StoreFullError("no room")
        back, again = Worker(stage.dial()), Worker(stage.dial())
        await back.send(stage.hello(held=(held(order, Phase.STARTED),)))
        await stage.quiet()
        # It was on its way when the hello overtook it; that one is never answered.
        await worker.end(order)
        await worker.until_closed()
        await again.send(stage.hello(held=(held(order, Phase.STARTED),)))
        await stage.quiet()
        stage.store.poison = lambda changes: None
        welcome = await again.next(WorkerWelcome)
        assert [answer.answer for answer in welcome.answers] == [Answer.KEEP]
        assert (await stage.row(spec.id)).life.state is State.RUNNING

    perform(play)


def test_a_hello_that_is_put_off_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker()
        await client.keep(spec := stage.spec())
        await worker.start(await worker.assigned())
        await worker.leave()
        await stage.quiet()
        monkeypatch.setattr(inbox, "HELLOS_BYTES_MAX", 1)
        for _ in range(5):
            again = Worker(stage.dial())
            await again.send(stage.hello())
            assert "try again later" in (await again.next(Goodbye)).text
            await again.until_closed()
            await stage.tick(8.0)
        assert stage.counters.get("hellos_put_off") == 5
        assert (await stage.row(spec.id)).life.state is State.RUNNING

    perform(play)


def test_a_session_does_not_hold_the_outcomes_of_its_hello() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker()
        await client.keep(stage.spec())
        order = await worker.assigned()
        await worker.leave()
        await stage.worker(outcomes=(ended(order),))
        (session,) = stage.coordinator.state.sessions.values()
        assert session.hello.outcomes == ()

    perform(play)
