"""The plain HTTP routes beside the sessions: blobs, the guards' reports, and whether we are up.

Plain ASGI, so that an embedded coordinator starts without a web framework. Bodies are streamed and
bounded; a body is refused before it is read where its length already says that it is too large.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from holdfast.coordinator.facts import Death
from holdfast.coordinator.gateway import Gateway
from holdfast.errors import BlobCorruptError, BlobMissingError, BlobTooLargeError, StoreFullError
from holdfast.model.limits import PAYLOAD_BYTES_MAX
from holdfast.observe import logger
from holdfast.ports import BlobStore

_LOG = logger("http")
_REPORT_BYTES_MAX = 4 * 1024 * 1024
_DIGEST_HEX = 64
_JUDGED_SECONDS = 1.5
"""Less than a guard waits for an answer; the socket of the dead may still be read."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class DeathReport(msgspec.Struct, frozen=True):
    """What a guard posts: the incarnation that died, and what it had started and spooled (hex)."""

    identity: str
    incarnation: int
    last_word: str
    started: list[str]
    spooled: list[str]


class Routes:
    """The HTTP side of one coordinator, as an ASGI callable; `others` answers the rest."""

    def __init__(
        self,
        gateway: Gateway,
        blobs: BlobStore,
        others: Callable[[Scope, Receive, Send], Awaitable[None]] | None = None,
    ) -> None:
        self._gateway = gateway
        self._blobs = blobs
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if path == "/healthz":
            await _answer(send, 200, {"up": True})
        elif path == "/readyz":
            why = self._gateway.not_ready
            await _answer(send, 503 if why else 200, {"ready": not why, "why": why})
        elif path == "/v1/deaths" and method == "POST":
            await self._death(receive, send)
        elif path.startswith("/v1/blobs/"):
            await self._blob(scope, method, path.removeprefix("/v1/blobs/"), receive, send)
        elif self._others is not None:
            await self._others(scope, receive, send)
        else:
            await _answer(send, 404, {"error": f"no {method} {path} here"})

    async def _death(self, receive: Receive, send: Send) -> None:
        body = bytearray()
        try:
            async for chunk in _body(receive):
                body += chunk
                if len(body) > _REPORT_BYTES_MAX:
                    raise BlobTooLargeError("the report is too large")
        except BlobTooLargeError as error:
            await _answer(send, 413, {"error": str(error)})
            return
        try:
            report = msgspec.json.decode(bytes(body), type=DeathReport)
            death = Death(
                identity=report.identity,
                incarnation=report.incarnation,
                certain=True,
                started=tuple(bytes.fromhex(token) for token in report.started),
                spooled=tuple(bytes.fromhex(token) for token in report.spooled),
            )
        except (msgspec.MsgspecError, ValueError) as error:
            await _answer(send, 400, {"error": str(error)})
            return
        await self._gateway.ready()
        judged = asyncio.Event()
        if not self._gateway.death(death, report.last_word, judged.set):
            await _answer(send, 403, {"error": "not the last word of this worker"})
            return
        try:
            async with asyncio.timeout(_JUDGED_SECONDS):
                await judged.wait()
        except TimeoutError:
            await _answer(send, 503, {"error": "it is not judged yet: say it again"})
        else:
            await _answer(send, 200, {"judged": True})

    async def _blob(
        self, scope: Scope, method: str, name: str, receive: Receive, send: Send
    ) -> None:
        digest = _digest(name)
        if digest is None:
            await _answer(send, 400, {"error": "a blob is named by 64 hex digits"})
        elif method == "PUT":
            await self._put(scope, digest, receive, send)
        elif method in ("GET", "HEAD"):
            await self._get(digest, send, body=method == "GET")
        else:
            await _answer(send, 405, {"error": f"{method} is not for blobs"})

    async def _put(self, scope: Scope, digest: bytes, receive: Receive, send: Send) -> None:
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > PAYLOAD_BYTES_MAX:
            await _answer(send, 413, {"error": f"over {PAYLOAD_BYTES_MAX} bytes"})
            return
        try:
            # What is left is for the outcomes of tasks that run.
            if no_room := self._gateway.no_room_for(int(length)):
                raise StoreFullError(no_room)
            payload = await self._blobs.put(_body(receive), bytes_max=PAYLOAD_BYTES_MAX)
        except BlobTooLargeError as error:
            await _answer(send, 413, {"error": str(error)})
        except StoreFullError as error:
            await _answer(send, 507, {"error": str(error)})
        except OSError as error:
            _LOG.error("blob %s cannot be written: %s", digest.hex(), error)
            await _answer(send, 500, {"error": str(error)})
        else:
            if payload.digest == digest:
                await _answer(send, 201, {"size_bytes": payload.size_bytes})
            else:
                text = f"the bytes have the digest {payload.digest.hex()}"
                await _answer(send, 422, {"error": text})

    async def _get(self, digest: bytes, send: Send, *, body: bool) -> None:
        if not await self._blobs.has(digest):
            await _answer(send, 404, {"error": "no such blob"})
            return
        headers = [(b"content-type", b"application/octet-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if body:
            try:
                async for chunk in self._blobs.get(digest):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except (BlobMissingError, BlobCorruptError, OSError) as error:
                # The head is sent. The body ends in good order all the same: a broken connection
                # would be dialled anew for ever, and who reads verifies the digest.
                _LOG.error("blob %s cannot be read: %s", digest.hex(), error)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _digest(name: str) -> bytes | None:
    if len(name) != _DIGEST_HEX:
        return None
    try:
        return bytes.fromhex(name)
    except ValueError:
        return None


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise BlobTooLargeError("the body broke off")
        yield event.get("body", b"")
        more = event.get("more_body", False)


async def _answer(send: Send, status: int, content: dict[str, Any]) -> None:
    body = msgspec.json.encode(content)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
