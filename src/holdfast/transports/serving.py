"""The web server: an ASGI application on sockets that are already bound.

Owns the only use of `uvicorn`, and keeps it from what is the caller's: signal handlers, logging,
the choice of the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator, Sequence
from typing import Any, cast

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from holdfast.model.limits import FRAME_BYTES_MAX
from holdfast.transports.asgi import AsgiApp

_GRACE_SECONDS = 2
"""What open requests have to end once the server stops."""
_BACKLOG = 2048


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers and its clock tick: the process decides when it ends."""

    def __init__(
        self, config: uvicorn.Config, *, started: asyncio.Event | None, stop: asyncio.Event
    ) -> None:
        super().__init__(config)
        self._accepts = started
        self._stop = stop

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._accepts is not None:
            self._accepts.set()

    async def main_loop(self) -> None:
        await self._stop.wait()


class _WebSocket(WebSocketsSansIOProtocol):
    """A connection whose peer may close it while the server stops."""

    def shutdown(self) -> None:
        if self.handshake_complete and not self.close_sent and self.conn.state.name != "OPEN":
            # It waits only for what its peer has not read yet; uvicorn would raise, and leave the
            # other connections open.
            self.transport.close()
        else:
            super().shutdown()


async def serve(
    app: AsgiApp,
    *,
    sockets: Sequence[socket.socket],
    stop: asyncio.Event,
    started: asyncio.Event | None = None,
) -> None:
    """Serve on bound TCP or Unix sockets until `stop` is set, then close them and all channels.

    `started` is set once connections are accepted. After `stop` the open requests have two seconds
    to end. The sockets belong to the server from here on; the path of a Unix socket stays.
    """
    config = uvicorn.Config(
        # uvicorn types its events one by one; ours are plain mappings.
        cast("Any", app),
        http="httptools",
        ws=_WebSocket,
        ws_max_size=FRAME_BYTES_MAX,
        ws_ping_interval=None,
        ws_ping_timeout=None,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = _Server(config, started=started, stop=stop)
    try:
        await server.serve(sockets=list(sockets))
    finally:
        for each in sockets:
            each.close()
