"""The called end: ASGI events as channels, and which path goes where.

Plain ASGI 3 without a framework. It knows neither sessions nor routes: both are given to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from typing import Any

from holdfast.errors import ChannelClosedError
from holdfast.ports import Channel
from holdfast.transports.address import SESSION_PATH

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
ServeChannel = Callable[[Channel], Awaitable[None]]

_CLOSE_OK = 1000
_NOT_BINARY = 1003
_REASON_BYTES_MAX = 120


class AsgiChannel:
    """An accepted WebSocket of an ASGI server, as a `Channel`. One task reads, one writes.

    What the peer had sent is read to its end, also after a send failed or we closed.
    """

    __slots__ = ("_closed", "_ended", "_receive", "_send", "peer")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        self.peer = f"{client[0]}:{client[1]}" if client else "unix socket"
        self._receive = receive
        self._send = send
        self._closed = False
        self._ended = False

    async def send(self, frame: bytes) -> None:
        """Send one frame; waits while the peer is slow. Raises ChannelClosedError."""
        if self._closed:
            raise ChannelClosedError(f"{self.peer}: closed")
        try:
            await self._send({"type": "websocket.send", "bytes": frame})
        except (OSError, RuntimeError) as error:
            # Servers differ in what they raise for a socket that is gone.
            self._closed = True
            raise ChannelClosedError(f"{self.peer}: {str(error) or 'gone'}") from None

    async def receive(self) -> bytes:
        """Return the next frame. Raises ChannelClosedError."""
        if self._ended:
            raise ChannelClosedError(f"{self.peer}: closed")
        event = await self._receive()
        if event["type"] != "websocket.receive":
            self._closed = self._ended = True
            code, reason = event.get("code", 1005), event.get("reason") or "gone"
            raise ChannelClosedError(f"{self.peer}: {reason} ({code})")
        frame: bytes | None = event.get("bytes")
        if frame is None:
            await self._close(_NOT_BINARY, "frames are binary")
            raise ChannelClosedError(f"{self.peer}: sent text")
        return frame

    async def close(self, reason: str = "") -> None:
        """Close the socket; a closed channel stays so."""
        await self._close(_CLOSE_OK, reason)

    async def _close(self, code: int, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        short = reason.encode()[:_REASON_BYTES_MAX].decode(errors="ignore")
        try:
            await self._send({"type": "websocket.close", "code": code, "reason": short})
        except (OSError, RuntimeError):
            # It was gone already, which is what we want.
            return


def asgi_app(serve_channel: ServeChannel, http: AsgiApp) -> AsgiApp:
    """Return the ASGI application of one coordinator.

    WebSockets on `/v1/session` are accepted and given to `serve_channel`, which owns them until it
    returns; HTTP requests go to `http`.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind in ("http", "websocket") and _is_foreign(scope):
            await _refuse(scope, receive, send)
        elif kind == "http":
            await http(scope, receive, send)
        elif kind == "websocket":
            await _websocket(scope, receive, send, serve_channel)
        elif kind == "lifespan":
            await _lifespan(receive, send)

    return app


def _is_foreign(scope: Scope) -> bool:
    """Whether a web page may be behind a request: it names an origin, or a host that is not ours.

    A page of any site can dial a loopback address, also under a name of its own.
    """
    headers = dict(scope["headers"])
    if b"origin" in headers:
        return True
    host = headers.get(b"host", b"").decode("latin-1")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name != "localhost" and not _is_loopback(name)


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": _CLOSE_OK})
        return
    await send({"type": "http.response.start", "status": 403, "headers": []})
    await send({"type": "http.response.body", "body": b"not from a web page"})


async def _websocket(scope: Scope, receive: Receive, send: Send, serve: ServeChannel) -> None:
    event = await receive()
    if event["type"] != "websocket.connect":
        return
    if scope["path"] != SESSION_PATH:
        # Before it is accepted, a close is answered as HTTP 403.
        await send({"type": "websocket.close", "code": _CLOSE_OK})
        return
    try:
        await send({"type": "websocket.accept"})
    except OSError:
        # The caller hung up first; there is no session to serve.
        return
    channel = AsgiChannel(scope, receive, send)
    try:
        await serve(channel)
    finally:
        await channel.close()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return
