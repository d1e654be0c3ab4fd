"""The door of the web: what is bounded before any of it is understood.

Plain ASGI in front of the application, which is imported at the first request that needs it, on a
thread, so that an embedded coordinator starts without a web framework and no session waits for its
import. Owns the reading of bodies (size, speed, how much of all of them lies in memory) and the
change between MessagePack and JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from holdfast.observe import logger
from holdfast.web.problems import Problem, problem_body

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_LOG = logger("web")
BODY_BYTES_MAX = 64 * 1024 * 1024
BODIES_BYTES_MAX = 256 * 1024 * 1024
"""All bodies together that are being read, or are here until they are answered."""
BODY_SILENCE_SECONDS = 10.0
BODY_BYTES_PER_SECOND = 16 * 1024
"""A body has ten seconds, and a second more for each so many bytes that came."""
SEND_SECONDS = 60.0
"""How long a client may take to make room for the next piece of an answer."""
_RETRY_SECONDS = 1
_MSGPACK = b"application/msgpack"
_JSON = b"application/json"
_PACKED = frozenset((_MSGPACK, b"application/x-msgpack", b"application/vnd.msgpack"))


class Door:
    """What every request passes. `load` imports and returns the application."""

    def __init__(self, load: Callable[[], App]) -> None:
        self._load = load
        self._app: App | None = None
        self._loading = asyncio.Lock()
        self._bodies_bytes = 0
        self.open = 0
        """Requests that are being answered."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app or await self._loaded()
        headers = dict(scope["headers"])
        answer = _Answer(send, packed=_wants_msgpack(headers))
        self.open += 1
        try:
            async with self._body(headers, receive) as body:
                if _kind(headers) in _PACKED:
                    body = _from_msgpack(body)
                    scope = {**scope, "headers": _with_kind(scope["headers"], _JSON, len(body))}
                await app(scope, _Replay(body, receive), answer)
        except Problem as problem:
            await answer.refuse(problem)
        except _GoneError:
            return
        except Exception as error:
            # The application has answered it, where it came to that; nobody else is to end of it.
            _LOG.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
            await answer.refuse(Problem(500, "internal", "an error of ours; the log says which"))
        finally:
            self.open -= 1

    async def _loaded(self) -> App:
        async with self._loading:
            if self._app is None:
                self._app = await asyncio.to_thread(self._load)
        return self._app

    @asynccontextmanager
    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> AsyncIterator[bytes]:
        """Read a body whole, within its bounds; it counts until the request is answered."""
        told = headers.get(b"content-length", b"0")
        if not told.isdigit():
            raise Problem(400, "invalid_request", "content-length is not a number")
        if int(told) > BODY_BYTES_MAX:
            raise _too_large()
        taken = 0
        try:
            chunks: list[bytes] = []
            async for chunk in _chunks(receive):
                taken += len(chunk)
                self._bodies_bytes += len(chunk)
                if taken > BODY_BYTES_MAX:
                    raise _too_large()
                if self._bodies_bytes > BODIES_BYTES_MAX:
                    raise Problem(
                        503,
                        "overloaded",
                        "too many large requests are here at once",
                        retry_after_seconds=_RETRY_SECONDS,
                    )
                chunks.append(chunk)
            yield chunks[0] if len(chunks) == 1 else b"".join(chunks)
        finally:
            self._bodies_bytes -= taken


class _GoneError(Exception):
    """The client left, or reads nothing: there is nobody to answer."""


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + BODY_SILENCE_SECONDS
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                event = await receive()
        except TimeoutError:
            raise Problem(408, "too_slow", "the body comes too slowly", closes=True) from None
        if event["type"] == "http.disconnect":
            raise _GoneError
        chunk: bytes = event.get("body", b"")
        deadline += len(chunk) / BODY_BYTES_PER_SECOND
        yield chunk
        if not event.get("more_body", False):
            return


def _too_large() -> Problem:
    text = f"a body has at most {BODY_BYTES_MAX} bytes"
    return Problem(413, "too_large", text, closes=True)


class _Replay:
    """The body as the application reads it; after it, what becomes of the client."""

    __slots__ = ("_body", "_receive")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Event:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Answer:
    """The way back: bounded in time, and in MessagePack where it was asked for."""

    __slots__ = ("_begun", "_buffered", "_packed", "_send", "_start")

    def __init__(self, send: Send, *, packed: bool) -> None:
        self._send = send
        self._packed = packed
        self._begun = False
        self._start: Event | None = None
        """The head of a JSON answer that is to be packed once it is whole."""
        self._buffered = bytearray()

    async def __call__(self, event: Event) -> None:
        if self._packed and event["type"] == "http.response.start":
            kind = _kind(dict(event["headers"]))
            if kind.endswith(b"json"):
                self._start = event
                return
        if self._start is not None:
            self._buffered += event.get("body", b"")
            if event.get("more_body", False):
                return
            await self._say_packed(self._start)
            return
        await self._say(event)

    async def _say_packed(self, start: Event) -> None:
        body = bytes(self._buffered)
        if body:
            body = msgspec.msgpack.encode(msgspec.json.decode(body))
        headers = _with_kind(start["headers"], _MSGPACK, len(body))
        await self._say({**start, "headers": headers})
        await self._say({"type": "http.response.body", "body": body})

    async def _say(self, event: Event) -> None:
        self._begun = True
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._send(event)
        except TimeoutError:
            raise _GoneError from None

    async def refuse(self, problem: Problem) -> None:
        """Answer with what is wrong, where no answer has begun."""
        if self._begun:
            return
        start, body = problem_body(problem)
        await self(start)
        await self({"type": "http.response.body", "body": body})


def _kind(headers: dict[bytes, bytes]) -> bytes:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


def _wants_msgpack(headers: dict[bytes, bytes]) -> bool:
    wanted = headers.get(b"accept", b"").lower()
    return any(kind in wanted for kind in _PACKED) and _JSON not in wanted


def _with_kind(
    headers: list[tuple[bytes, bytes]], kind: bytes, size: int
) -> list[tuple[bytes, bytes]]:
    kept = [(n, v) for n, v in headers if n.lower() not in (b"content-type", b"content-length")]
    return [*kept, (b"content-type", kind), (b"content-length", str(size).encode())]


def _from_msgpack(body: bytes) -> bytes:
    """Return a MessagePack body as JSON. What JSON has no word for comes as text: bytes, times."""
    try:
        return msgspec.json.encode(msgspec.msgpack.decode(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError) as error:
        text = f"the body is not MessagePack that JSON can say: {error}"
        raise Problem(400, "invalid_request", text) from None
