"""What the door refuses before anything is understood, and what it bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from holdfast.web import door as room
from holdfast.web.door import Door

Event = dict[str, Any]


class Call:
    """One request: its events come as the test lets them, and what is answered is kept."""

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.scope = {"type": "http", "method": "POST", "path": "/x", "headers": list(headers)}
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.said: list[Event] = []

    def body(self, data: bytes, *, more: bool = False) -> None:
        self.events.put_nowait({"type": "http.request", "body": data, "more_body": more})

    async def send(self, event: Any) -> None:
        self.said.append(event)

    @property
    def status(self) -> int:
        return int(self.said[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.said[0]["headers"])

    def told(self) -> Any:
        return msgspec.json.decode(b"".join(event.get("body", b"") for event in self.said[1:]))


async def echo(scope: Any, receive: Any, send: Any) -> None:
    event = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": event["body"]})


def play(scene: Callable[[Door], Awaitable[None]], app: Any = echo) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20):
            await scene(Door(lambda: app))

    asyncio.run(whole())


async def go(door: Door, call: Call) -> None:
    await door(call.scope, call.events.get, call.send)


def test_a_body_in_pieces_arrives_whole() -> None:
    async def scene(door: Door) -> None:
        call = Call()
        call.body(b"ab", more=True)
        call.body(b"cd")
        await go(door, call)
        assert call.said[1]["body"] == b"abcd"
        assert door.open == 0

    play(scene)


@pytest.mark.parametrize("told", [True, False])
def test_what_is_too_large_is_refused(told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BODY_BYTES_MAX", 10)

    async def scene(door: Door) -> None:
        call = Call(*([(b"content-length", b"11")] if told else []))
        if not told:
            call.body(b"123456", more=True)
            call.body(b"123456", more=True)
        await go(door, call)
        assert (call.status, call.headers[b"connection"]) == (413, b"close")
        assert call.told()["code"] == "too_large"

    play(scene)


def test_a_length_that_is_no_number() -> None:
    async def scene(door: Door) -> None:
        call = Call((b"content-length", b"-5"))
        await go(door, call)
        assert call.status == 400

    play(scene)


def test_who_sends_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BODY_SILENCE_SECONDS", 0.05)

    async def scene(door: Door) -> None:
        call = Call()
        call.body(b"a", more=True)
        await go(door, call)
        assert (call.status, call.headers[b"connection"]) == (408, b"close")

    play(scene)


def test_all_bodies_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BODIES_BYTES_MAX", 10)

    async def scene(door: Door) -> None:
        first, second, third = Call(), Call(), Call()
        first.body(b"12345678", more=True)
        waits = asyncio.create_task(go(door, first))
        await asyncio.sleep(0.05)
        second.body(b"12345678")
        await go(door, second)
        assert (second.status, second.headers[b"retry-after"]) == (503, b"1")
        first.body(b"")
        await waits
        third.body(b"12345678")
        await go(door, third)
        assert (first.status, third.status) == (200, 200)

    play(scene)


def test_who_leaves_is_not_answered() -> None:
    async def scene(door: Door) -> None:
        call = Call()
        call.body(b"a", more=True)
        call.events.put_nowait({"type": "http.disconnect"})
        await go(door, call)
        assert call.said == []

    play(scene)


def test_who_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SEND_SECONDS", 0.05)

    async def scene(door: Door) -> None:
        call = Call()
        call.body(b"a")

        async def stuck(_: Any) -> None:
            await asyncio.sleep(60)

        await door(call.scope, call.events.get, stuck)
        assert door.open == 0

    play(scene)


def test_an_application_that_breaks_is_answered_for(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a bug")

    async def scene(door: Door) -> None:
        call = Call()
        call.body(b"")
        await go(door, call)
        assert (call.status, call.told()["code"]) == (500, "internal")

    play(scene, broken)
    assert "a bug" in caplog.text


def test_the_application_is_loaded_once_when_it_is_first_asked_for() -> None:
    loads = 0

    def load() -> Any:
        nonlocal loads
        loads += 1
        return echo

    async def whole() -> None:
        door = Door(load)
        assert loads == 0
        calls = [Call() for _ in range(5)]
        for call in calls:
            call.body(b"x")
        await asyncio.gather(*(go(door, call) for call in calls))
        assert loads == 1

    asyncio.run(whole())
