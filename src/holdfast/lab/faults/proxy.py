"""A proxy that stands between two parties of a test and disturbs what they say to each other.

Owns the listening socket, the list of connections and which faults are on. Never understands what
it carries, and never fails a fault silently: what was dropped, reset and spoilt is counted.

    async with FaultProxy(("127.0.0.1", server_port)) as proxy:
        connect_to(proxy.address)
        with proxy.apply(Latency(delay_seconds=0.2)):
            ...                       # slow in here
        with proxy.apply(HalfOpen()):
            ...                       # silent in here; afterwards what has a hole is reset

Everything runs in the event loop that started it; from synchronous code use `ProxyThread`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from holdfast.lab.faults.board import Board, Tally
from holdfast.lab.faults.endpoint import Endpoint, connected, listening, prepare, reserve
from holdfast.lab.faults.stream import Connection
from holdfast.lab.faults.tcp import DIRECTIONS, Direction, Fault, Reset, refuses
from holdfast.observe import TaskSet, logger

CONNECTIONS_MAX = 1024
SOCKET_BUFFER_BYTES = 131_072
ACCEPTS_PER_TURN = 64
POLL_SECONDS = 0.005
"""How often a condition is looked at, and a lack of descriptors tried again."""

_OUT_OF_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_LOG = logger("lab.proxy")


@dataclass(frozen=True, slots=True)
class ProxyCounts:
    """What a proxy did since it was made; `open_connections` alone also falls.

    `refused_by_server` are clients that were reset because the upstream could not be reached.
    `reset_connections` contains them, and every RST that the proxy passed on or made itself.
    """

    accepted_connections: int
    open_connections: int
    reset_connections: int
    refused_by_server: int
    to_server_bytes: int
    to_client_bytes: int
    dropped_to_server_bytes: int
    dropped_to_client_bytes: int
    corrupted_pieces: int
    faults_applied: int
    faults_on: int


class AppliedFault:
    """A fault that is on. Leaving the `with` block, or `heal`, repairs it; once is enough."""

    __slots__ = ("_heal", "fault")

    def __init__(self, fault: Fault, heal: Callable[[], None]) -> None:
        self.fault = fault
        self._heal = heal

    def heal(self) -> None:
        """Repair it. Harmless when it is repaired already."""
        self._heal()

    def __enter__(self) -> AppliedFault:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.heal()


class FaultProxy:
    """Forward every connection to `upstream`, through the faults that are on.

    A sender is slowed when its receiver is slow: what is under way is bounded by the two socket
    buffers of each side and twice 64 KiB for each direction. Beyond `connections_max` open
    connections, new ones wait in the backlog.
    """

    def __init__(
        self,
        upstream: Endpoint,
        *,
        listen: Endpoint = ("127.0.0.1", 0),
        connections_max: int = CONNECTIONS_MAX,
        socket_buffer_bytes: int = SOCKET_BUFFER_BYTES,
    ) -> None:
        self._upstream = upstream
        self._listen_at = listen
        self._connections_max = connections_max
        self._socket_buffer_bytes = socket_buffer_bytes
        self._board = Board()
        self._tallies: dict[Direction, Tally] = {way: Tally() for way in DIRECTIONS}
        self._tasks = TaskSet(_LOG)
        self._connections: dict[int, Connection] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reserved: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._accepting = False
        self._retry: asyncio.TimerHandle | None = None
        self._accepted = 0
        self._reset = 0
        self._refused_by_server = 0
        self._faults_applied = 0

    async def start(self) -> None:
        """Begin to listen. Raise OSError when the address is taken."""
        assert self._loop is None, "a proxy starts once"
        self._listen_at, self._reserved = reserve(self._listen_at)
        self._loop = asyncio.get_running_loop()
        try:
            self._listen()
        except BaseException:
            self._release()
            raise

    async def close(self) -> None:
        """Close all sockets and wait until everything has ended. Harmless when repeated."""
        self._board.applied.clear()
        self._stop_listening()
        await self._tasks.cancel()
        for number in list(self._connections):
            self._forget(number)
        self._release()

    def _release(self) -> None:
        if self._reserved is not None:
            self._reserved.close()
        self._reserved = None
        if isinstance(self._listen_at, Path) and self._loop is not None:
            self._listen_at.unlink(missing_ok=True)
        self._loop = None

    async def __aenter__(self) -> FaultProxy:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def address(self) -> Endpoint:
        """Where clients connect: the real port once the proxy has started."""
        return self._listen_at

    @property
    def port(self) -> int:
        """The TCP port where clients connect."""
        assert not isinstance(self._listen_at, Path), "a unix socket has no port"
        return self._listen_at[1]

    def apply(self, fault: Fault) -> AppliedFault:
        """Switch a fault on at once, for open and for new connections.

        What is on adds up; the same value may be applied twice and is then healed twice.
        """
        assert self._loop is not None, "start the proxy before a fault is applied"
        self._faults_applied += 1
        number = self._faults_applied
        self._board.applied[number] = fault
        self._faults_changed()
        if isinstance(fault, Reset):
            for connection in self._connections.values():
                connection.reset()
        return AppliedFault(fault, partial(self._heal, number))

    def heal(self) -> None:
        """Repair everything."""
        if self._board.applied:
            self._board.applied.clear()
            self._faults_changed()

    def _heal(self, number: int) -> None:
        if self._board.applied.pop(number, None) is not None:
            self._faults_changed()

    def _faults_changed(self) -> None:
        self._board.changed()
        for connection in self._connections.values():
            connection.mend()
        if refuses(self._board.applied):
            self._stop_listening()
        elif self._listener is None:
            self._listen()

    def counts(self) -> ProxyCounts:
        """Return what happened so far."""
        to_server, to_client = (self._tallies[way] for way in DIRECTIONS)
        return ProxyCounts(
            accepted_connections=self._accepted,
            open_connections=len(self._connections),
            reset_connections=self._reset,
            refused_by_server=self._refused_by_server,
            to_server_bytes=to_server.forwarded_bytes,
            to_client_bytes=to_client.forwarded_bytes,
            dropped_to_server_bytes=to_server.dropped_bytes,
            dropped_to_client_bytes=to_client.dropped_bytes,
            corrupted_pieces=to_server.corrupted_pieces + to_client.corrupted_pieces,
            faults_applied=self._faults_applied,
            faults_on=len(self._board.applied),
        )

    async def wait_for(
        self,
        what: str,
        condition: Callable[[ProxyCounts], bool],
        *,
        timeout_seconds: float = 10.0,
    ) -> ProxyCounts:
        """Wait until the counts fulfil a condition, and return them.

        Raise TimeoutError, with `what` was waited for and the last counts.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while not condition(counts := self.counts()):
            if loop.time() > deadline:
                raise TimeoutError(f"waited {timeout_seconds} s in vain until {what}: {counts}")
            await asyncio.sleep(POLL_SECONDS)
        return counts

    def _listen(self) -> None:
        self._listener = listening(self._listen_at, buffer_bytes=self._socket_buffer_bytes)
        self._resume_accepting()

    def _stop_listening(self) -> None:
        self._pause_accepting()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _resume_accepting(self) -> None:
        room = len(self._connections) < self._connections_max
        if self._listener is not None and self._loop is not None and room and not self._accepting:
            self._loop.add_reader(self._listener, self._accept)
            self._accepting = True

    def _pause_accepting(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._accepting and self._listener is not None and self._loop is not None:
            self._loop.remove_reader(self._listener)
        self._accepting = False

    def _accept(self) -> None:
        assert self._listener is not None, "the reader is removed before the listener"
        assert self._loop is not None, "it runs in the loop"
        for _ in range(ACCEPTS_PER_TURN):
            if len(self._connections) >= self._connections_max:
                self._pause_accepting()
                return
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_ROOM:
                    raise
                _LOG.warning("the proxy cannot accept: %s", error)
                self._pause_accepting()
                self._retry = self._loop.call_later(POLL_SECONDS, self._resume_accepting)
                return
            self._begin(client)

    def _begin(self, client: socket.socket) -> None:
        prepare(client, buffer_bytes=self._socket_buffer_bytes)
        self._accepted += 1
        number = self._accepted
        connection = Connection(
            number=number,
            client=client,
            connect=self._connect,
            board=self._board,
            tallies=self._tallies,
        )
        self._connections[number] = connection
        task = self._tasks.watched(f"proxy connection {number}", connection.run())
        connection.runs_in(task)
        task.add_done_callback(partial(self._ended, number))

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("connection %d broke down", number, exc_info=error)
        self._forget(number)

    def _forget(self, number: int) -> None:
        connection = self._connections.pop(number, None)
        if connection is not None:
            self._reset += connection.was_reset
            connection.close()
            self._resume_accepting()

    async def _connect(self) -> socket.socket | None:
        try:
            return await connected(self._upstream, buffer_bytes=self._socket_buffer_bytes)
        except OSError as error:
            _LOG.info("the server at %s does not take a connection: %s", self._upstream, error)
            self._refused_by_server += 1
            return None
