"""No web page drives a coordinator: requests with an origin, or for a foreign host, are refused."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from holdfast.ports import Channel
from holdfast.transports.asgi import asgi_app

Event = MutableMapping[str, Any]


def _answers(kind: str, headers: list[tuple[bytes, bytes]]) -> tuple[list[Event], list[str]]:
    said: list[Event] = []
    served: list[str] = []

    async def serve(channel: Channel) -> None:
        served.append("session")

    async def http(scope: Event, receive: Any, send: Any) -> None:
        served.append("http")

    async def receive() -> Event:
        return {"type": "websocket.connect"}

    async def send(event: Event) -> None:
        said.append(event)

    scope = {"type": kind, "path": "/v1/session", "headers": headers, "client": None}
    asyncio.run(asgi_app(serve, http)(scope, receive, send))
    return said, served


@pytest.mark.parametrize("kind", ["websocket", "http"])
@pytest.mark.parametrize(
    "headers",
    [
        [(b"host", b"127.0.0.1:7700"), (b"origin", b"https://evil.example")],
        [(b"host", b"127.0.0.1:7700"), (b"origin", b"null")],
        [(b"host", b"evil.example:7700")],
        [(b"host", b"")],
        [],
    ],
)
def test_a_web_page_is_refused(kind: str, headers: list[tuple[bytes, bytes]]) -> None:
    said, served = _answers(kind, headers)
    assert served == []
    assert said[0]["type"] == ("websocket.close" if kind == "websocket" else "http.response.start")
    assert kind == "websocket" or said[0]["status"] == 403


@pytest.mark.parametrize("host", [b"127.0.0.1:7700", b"localhost", b"[::1]:7700", b"127.8.0.1"])
def test_our_own_clients_are_served(host: bytes) -> None:
    assert _answers("websocket", [(b"host", host)])[1] == ["session"]
    assert _answers("http", [(b"host", host)])[1] == ["http"]
