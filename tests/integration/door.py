"""A door before a coordinator that can be made to behave as badly as a network can."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_ACCEPT_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HEAD_BYTES_MAX = 8192
_ANSWER_SECONDS = 10.0


class Door:
    """Listens on a free port; what becomes of a connection is said by `mode`.

    `through` splices it to the coordinator's socket. `met` counts connections by mode.
    """

    def __init__(self, upstream: Path) -> None:
        self.mode = "through"
        self.met: Counter[str] = Counter()
        self.port = 0
        self._upstream = upstream
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Door:
        self._thread.start()
        assert self._ready.wait(_ANSWER_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._call(self._abort_all)
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_ANSWER_SECONDS)
        assert not self._thread.is_alive()

    def turn(self, mode: str) -> None:
        """Behave so from now on, and break what is open."""
        self.mode = mode
        self._call(self._abort_all)

    def _call(self, function: Callable[[], None]) -> None:
        assert self._loop is not None
        done = threading.Event()

        def call() -> None:
            function()
            done.set()

        self._loop.call_soon_threadsafe(call)
        assert done.wait(_ANSWER_SECONDS)

    def _abort_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._opened, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        await server.wait_closed()

    async def _opened(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mode = self.mode
        self.met[mode] += 1
        self._writers.add(writer)
        try:
            if mode == "through":
                await self._splice(reader, writer)
            else:
                await self._misbehave(mode, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            return  # The client went, which is all that could be wanted of it.
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _misbehave(
        self, mode: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if mode == "reset":
            return
        head = await reader.readuntil(b"\r\n\r\n")
        if mode == "hangs up":
            return
        if mode == "silent":
            await reader.read()
        elif mode == "no http":
            writer.write(b"\x00\xff\x13garbage" * 100)
        elif mode.isdecimal():
            writer.write(b"HTTP/1.1 %s Not now\r\nContent-Length: 3\r\n\r\nno\n" % mode.encode())
        else:
            writer.write(_upgrade(head))
            if mode == "garbled frame":
                writer.write(b"\x82\x05\x93\xff\x00\xc1\x01")
            elif mode == "no websocket":
                writer.write(b"\xff\xff\xff\xff\xff\xff")
            elif mode == "text":
                writer.write(b"\x81\x05hello")
            else:
                assert mode == "upgrade alone", mode
        await writer.drain()

    async def _splice(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_unix_connection(self._upstream)
        self._writers.add(ours)
        try:
            await asyncio.gather(_copy(reader, ours), _copy(theirs, writer))
        finally:
            self._writers.discard(ours)
            ours.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.transport.abort()


def _upgrade(head: bytes) -> bytes:
    key = next(
        line.split(b":", 1)[1].strip()
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    )
    accept = base64.b64encode(hashlib.sha1(key + _ACCEPT_KEY).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
