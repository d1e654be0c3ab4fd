"""One connection through the proxy: two links, each carrying the bytes of one direction.

Owns how a fault acts on bytes under way. A link is a reader and a writer with a bounded buffer
between them; the reader knows no fault, the writer all of them, and it asks again before each
piece, so that a fault and its repair take effect in the middle of a stream. What the kernel has
taken is beyond recall. Never decides which faults are on: the `Board` says so.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any

from holdfast.lab.faults.board import Board, Tally, settle
from holdfast.lab.faults.endpoint import close_with_reset
from holdfast.lab.faults.tcp import DIRECTIONS, Direction

READ_BYTES_MAX = 65_536
BUFFER_BYTES_MAX = 65_536
"""A link reads on while it holds less than this; so it holds less than this and one read."""
PIECE_SECONDS = 0.02
"""A slow link sends pieces of this length, so that a change of its rate is felt soon."""
LINE_CREDIT_SECONDS = 0.1
"""How much unused time a slow link may catch up after its receiver was the slower one."""


class _Sign(Enum):
    END = "end"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class _Arrival:
    at: float
    what: bytes | _Sign


class Link:
    """The bytes of one direction of one connection."""

    def __init__(
        self,
        *,
        connection: int,
        direction: Direction,
        board: Board,
        tally: Tally,
        on_reset: Callable[[], None],
        on_sink_lost: Callable[[], None],
    ) -> None:
        self._name = f"{connection}/{direction}"
        self._direction = direction
        self._board = board
        self._tally = tally
        self._on_reset = on_reset
        self._on_sink_lost = on_sink_lost
        self._buffer: deque[_Arrival] = deque()
        self._buffered_bytes = 0
        self._filled = asyncio.Event()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self._sink: socket.socket | None = None
        self._sink_known = asyncio.Event()
        self._sink_lost = False
        self._dice: dict[int, Random] = {}
        self._line_free_at = 0.0
        self._next_slice_at = 0.0
        self.holed = False
        """Something of this stream was dropped: from here on nothing may pass."""
        self.finished = False

    def open_towards(self, sink: socket.socket) -> None:
        """Say where the bytes go. Until then they wait in the buffer."""
        self._sink = sink
        self._sink_known.set()

    async def receive(self, source: socket.socket) -> None:
        """Read until the end of the stream, as far ahead of the writer as the buffer allows."""
        loop = asyncio.get_running_loop()
        while True:
            await self._roomy.wait()
            try:
                data = await loop.sock_recv(source, READ_BYTES_MAX)
            except OSError:
                self.put_reset()
                return
            self._put(data or _Sign.END)
            if not data:
                return

    def put_reset(self) -> None:
        """Let a reset travel this way, behind what is under way already."""
        self._put(_Sign.RESET)

    def _put(self, what: bytes | _Sign) -> None:
        self._buffer.append(_Arrival(asyncio.get_running_loop().time(), what))
        if isinstance(what, bytes):
            self._buffered_bytes += len(what)
            if self._buffered_bytes >= BUFFER_BYTES_MAX:
                self._roomy.clear()
        self._filled.set()

    async def forward(self) -> None:
        """Carry what was read to the other side, through all faults, until the stream ends."""
        while True:
            await self._filled.wait()
            arrival = self._buffer[0]
            ready_at = await self._travel(arrival)
            if isinstance(arrival.what, _Sign):
                await self._deliver_sign(arrival.what)
                self.finished = True
                return
            await self._deliver(arrival.what, ready_at)
            self._buffer.popleft()
            self._buffered_bytes -= len(arrival.what)
            if self._buffered_bytes < BUFFER_BYTES_MAX:
                self._roomy.set()
            if not self._buffer:
                self._filled.clear()

    async def _travel(self, arrival: _Arrival) -> float:
        """Wait out the latency, and return when it ended (loop time)."""
        loop = asyncio.get_running_loop()
        while True:
            now_on = self._board[self._direction]
            delay_seconds = now_on.end_delay_seconds if arrival.what is _Sign.END else 0.0
            for number, fault in now_on.latencies:
                jitter_seconds = fault.jitter_seconds * (2 * self._die(number).random() - 1)
                delay_seconds += max(0.0, fault.delay_seconds + jitter_seconds)
            due = arrival.at + delay_seconds
            if due <= loop.time() or not await self._board.pause(due):
                return due

    def _die(self, number: int) -> Random:
        """Return the dice of one applied fault on this link."""
        die = self._dice.get(number)
        if die is None:
            fault = self._board.applied[number]
            die = Random(f"{getattr(fault, 'seed', 0)}/{self._name}")
            self._dice = {n: d for n, d in self._dice.items() if n in self._board.applied}
            self._dice[number] = die
        return die

    async def _passes(self) -> bool:
        """Wait while bytes are held here, and say whether they pass (else they are dropped)."""
        while not self.holed and self._board[self._direction].silence == "held":
            await self._board.pause(None)
        return not self.holed and self._board[self._direction].silence is None

    async def _deliver_sign(self, sign: _Sign) -> None:
        if not await self._passes():
            self.holed = True
        elif sign is _Sign.RESET:
            self._on_reset()
        elif not self._sink_lost:
            sink = await self._open_sink()
            if not await self._passes():
                self.holed = True
                return
            # An error means that the receiver has reset, and the other direction reads of it.
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

    async def _deliver(self, data: bytes, ready_at: float) -> None:
        loop = asyncio.get_running_loop()
        rest = memoryview(data)
        while rest and not self._sink_lost:
            if not await self._passes():
                self._drop(len(rest))
                return
            now_on = self._board[self._direction]
            now = loop.time()
            if now_on.slice_bytes is not None and now < self._next_slice_at:
                await self._board.pause(self._next_slice_at)
                continue
            piece_bytes = min(len(rest), now_on.slice_bytes or len(rest))
            rate = now_on.bytes_per_second
            if rate is not None:
                piece_bytes = min(piece_bytes, max(1, int(rate * PIECE_SECONDS)))
                begin = max(self._line_free_at, ready_at, now - LINE_CREDIT_SECONDS)
                free_at = begin + piece_bytes / rate
                if free_at > now and await self._board.pause(free_at):
                    continue
                self._line_free_at = free_at
            await self._send(self._corrupted(rest[:piece_bytes]))
            rest = rest[piece_bytes:]
            self._next_slice_at = loop.time() + now_on.gap_seconds

    def _corrupted(self, piece: memoryview) -> memoryview:
        for number, fault in self._board[self._direction].corruptions:
            die = self._die(number)
            if die.random() < fault.probability:
                spoilt = bytearray(piece)
                spoilt[die.randrange(len(spoilt))] ^= 1 << die.randrange(8)
                piece = memoryview(spoilt)
                self._tally.corrupted_pieces += 1
        return piece

    async def _send(self, piece: memoryview) -> None:
        while piece:
            sink = await self._open_sink()
            if not await self._passes():
                self._drop(len(piece))
                return
            try:
                sent = sink.send(piece)
            except BlockingIOError:
                await _writable(sink)
            except OSError:
                self._sink_lost = True
                self._on_sink_lost()
                return
            else:
                self._tally.forwarded_bytes += sent
                piece = piece[sent:]

    def _drop(self, count: int) -> None:
        self.holed = True
        self._tally.dropped_bytes += count

    async def _open_sink(self) -> socket.socket:
        await self._sink_known.wait()
        assert self._sink is not None, "open_towards sets both"
        return self._sink


class Connection:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(
        self,
        *,
        number: int,
        client: socket.socket,
        connect: Callable[[], Coroutine[Any, Any, socket.socket | None]],
        board: Board,
        tallies: dict[Direction, Tally],
    ) -> None:
        self._client = client
        self._connect = connect
        self._server: socket.socket | None = None
        self._board = board
        self._task: asyncio.Task[None] | None = None
        self.was_reset = False
        self.to_server, self.to_client = (
            Link(
                connection=number,
                direction=direction,
                board=board,
                tally=tallies[direction],
                on_reset=self.reset,
                on_sink_lost=lost,
            )
            for direction, lost in zip(
                DIRECTIONS, (self._server_lost, self._client_lost), strict=True
            )
        )

    def runs_in(self, task: asyncio.Task[None]) -> None:
        """Name the task of `run`, which a reset ends."""
        self._task = task

    async def run(self) -> None:
        """Carry both directions until both have ended. `close` must follow, come what may."""
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(self.to_server.receive(self._client))
            pumps.create_task(self.to_server.forward())
            while self._silent(all):
                await self._board.pause(None)
            self._server = await self._connect()
            if self._server is None:
                # To be told so is an answer, and answers do not pass through silence.
                while self._silent(any):
                    await self._board.pause(None)
                self.reset()
                return
            self.to_server.open_towards(self._server)
            self.to_client.open_towards(self._client)
            pumps.create_task(self.to_client.receive(self._server))
            pumps.create_task(self.to_client.forward())

    def _silent(self, which: Callable[[list[bool]], bool]) -> bool:
        return which([self._board[way].silence is not None for way in DIRECTIONS])

    def _server_lost(self) -> None:
        self._lost(self.to_client)

    def _client_lost(self) -> None:
        self._lost(self.to_server)

    def _lost(self, back: Link) -> None:
        """Tell the sender that its receiver is gone, by the way `back`, faults and all."""
        if not back.finished:
            back.put_reset()
        elif self._silent(any):
            back.holed = True
        else:
            self.reset()

    def mend(self) -> None:
        """Reset the connection if it has a hole and nothing is silent any more."""
        if (self.to_server.holed or self.to_client.holed) and not self._silent(any):
            self.reset()

    def reset(self) -> None:
        """Send RST to both sides, as soon as the loop comes round."""
        assert self._task is not None, "runs_in comes first"
        self.was_reset = True
        self._task.cancel()

    def close(self) -> None:
        """Close both sockets; to be called when `run` has ended, and harmless when repeated."""
        for side in (self._client, self._server):
            if side is not None and side.fileno() >= 0:
                (close_with_reset if self.was_reset else socket.socket.close)(side)


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bool] = loop.create_future()
    loop.add_writer(sock, settle, future, True)
    try:
        await future
    finally:
        loop.remove_writer(sock)
