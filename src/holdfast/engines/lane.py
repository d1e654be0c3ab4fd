"""One life of a lane's child, as the supervisor holds it: four streams, and who has what.

Owns the descriptors and the bookkeeping of one child. It decides nothing: `process` does. The
receiving end of the orders is kept open here too, so that what the child has not read can be taken
back, and so that orders can be handed before the child is born.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import msgspec

from holdfast.engines import kernel
from holdfast.engines.evidence import Tail
from holdfast.engines.packets import (
    CUT_OFF,
    LENGTH,
    ORDER_BUFFER_BYTES,
    PACKET_BYTES_MAX,
    REPORT_BYTES_MAX,
    RESULT_BUFFER_BYTES,
    SPOILED,
    Report,
    WorkHead,
)
from holdfast.model.ids import Token
from holdfast.ports import LaneDeath

PRINTED_BYTES = 64 * 1024
"""Read from one stream at one wake-up."""

_HEADS = msgspec.msgpack.Decoder(WorkHead)
_REPORTS = msgspec.msgpack.Decoder(Report)


class GarbledError(Exception):
    """The child's outcomes are not ones of ours: user code wrote there, or closed it."""


class Untaken(NamedTuple):
    """An order that a child was handed and has not taken up."""

    token: Token
    packet: bytes
    code_path: str


class Life:
    """One child of a lane, from before its birth until it is buried."""

    __slots__ = (
        "_orders_in",
        "_orders_out",
        "_outcomes",
        "_rest",
        "_theirs",
        "_trouble",
        "begun_any",
        "errors",
        "garbled",
        "handed",
        "killed",
        "lane",
        "oom_kills",
        "pid",
        "pidfd",
        "printed",
        "serial",
        "stderr",
    )

    def __init__(self, *, lane: int, serial: int) -> None:
        """Open the streams. Raises OSError where there is no room for all of them."""
        self.lane = lane
        self.serial = serial
        self.pid = 0
        self.pidfd = -1
        self.oom_kills = 0
        """How many processes the kernel had killed for want of memory when it was born."""
        self.handed: dict[Token, str] = {}
        """What has no outcome yet, with the file of its function where it has one."""
        self.begun_any = False
        self.killed = False
        self.garbled = False
        self.stderr = Tail()
        self._rest = b""
        self._trouble = ""
        with ExitStack() as opened:
            self._orders_out, self._orders_in = _sockets(opened, socket.SOCK_SEQPACKET)
            self._outcomes, theirs = _sockets(opened, socket.SOCK_STREAM)
            self.printed, printed_in = _pipe(opened)
            self.errors, errors_in = _pipe(opened)
            opened.pop_all()
        self._orders_out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ORDER_BUFFER_BYTES)
        for each in (self._outcomes, theirs):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, RESULT_BUFFER_BYTES)
        for pipe in (self.printed, self.errors):
            os.set_blocking(pipe, False)
        # The child's end of the orders stays in blocking mode, whose flags both copies share.
        self._theirs = (self._orders_in.fileno(), theirs.detach(), printed_in, errors_in)

    @property
    def orders(self) -> int:
        """The descriptor that orders are written to."""
        return self._orders_out.fileno()

    @property
    def outcomes(self) -> int:
        """The descriptor that outcomes are read from."""
        return self._outcomes.fileno()

    @property
    def descriptors(self) -> tuple[int, int, int, int]:
        """What the child gets: orders, outcomes, stdout, stderr."""
        return self._theirs

    def release(self) -> None:
        """Close the ends that are the child's alone."""
        for descriptor in self._theirs[1:]:
            os.close(descriptor)
        self._theirs = (self._theirs[0], -1, -1, -1)

    def hand(self, packet: bytes) -> bool:
        """Put a packet into the lane; False where there is no room."""
        try:
            self._orders_out.send(packet, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        return True

    def take_back(self) -> list[Untaken]:
        """Return the packets that the child has not read. They are not `handed` any more."""
        taken: list[Untaken] = []
        while True:
            try:
                packet = self._orders_in.recv(PACKET_BYTES_MAX, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return taken
            token = _HEADS.decode(packet).token
            taken.append(Untaken(token, packet, self.handed.pop(token)))

    def take_over(self, waiting: Sequence[Untaken]) -> Sequence[Untaken]:
        """Take what a former child has not taken up; return what there is no room for.

        The kernel gives every lane the same room, but promises nobody that it does.
        """
        for at, untaken in enumerate(waiting):
            if not self.hand(untaken.packet):
                return waiting[at:]
            self.handed[untaken.token] = untaken.code_path
        return ()

    def death(
        self,
        begun: tuple[Token, ...],
        waiting: Sequence[Untaken],
        code: int,
        *,
        out_of_memory: bool,
    ) -> LaneDeath:
        """Return what is told of the end of this child; `code` below 0 is a signal."""
        return LaneDeath(
            begun=begun,
            untouched=tuple(untaken.token for untaken in waiting),
            signal=max(-code, 0),
            exit_code=max(code, 0),
            killed=self.killed and code == -signal.SIGKILL,
            out_of_memory=out_of_memory,
            last_words=self.last_words(),
        )

    def read(self, buffer: memoryview) -> list[Report]:
        """Return the whole reports that have arrived, at most one buffer full of them.

        Raises BlockingIOError where there is nothing to read, GarbledError for what no child of
        ours writes, and at the end of the stream.
        """
        try:
            size = self._outcomes.recv_into(buffer, 0, socket.MSG_DONTWAIT)
        except ConnectionResetError:
            size = 0
        if not size:
            if self.pid and not self.killed and not kernel.is_ending(self.pid):
                self._trouble = CUT_OFF
            raise GarbledError("the child has closed its outcomes")
        data: memoryview | bytes = buffer[:size]
        if self._rest:
            data = self._rest + data
        reports: list[Report] = []
        at, end = 0, len(data)
        while end - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data, at)
            if length > REPORT_BYTES_MAX:
                self._spoil(reports)
                break
            until = at + LENGTH.size + length
            if until > end:
                break
            try:
                report = _REPORTS.decode(data[at + LENGTH.size : until])
            except (msgspec.MsgspecError, UnicodeDecodeError):
                self._spoil(reports)
                break
            if self.handed.pop(report.ended.token, None) is None:
                self._spoil(reports)
                break
            reports.append(report)
            at = until
        self._rest = bytes(data[at:])
        return reports

    def _spoil(self, reports: list[Report]) -> None:
        """Nothing further of this stream can be trusted; what came before it can."""
        self.garbled = True
        self._trouble = SPOILED
        if not reports:
            raise GarbledError("the child's outcomes are garbled")

    def read_printed(self, *, error: bool) -> bytes | None:
        """Return what was printed, b"" at the end of the stream, None where nothing is there."""
        try:
            data = os.read(self.errors if error else self.printed, PRINTED_BYTES)
        except BlockingIOError:
            return None
        if error:
            self.stderr.add(data)
        return data

    def last_words(self) -> str:
        """Return the end of its stderr, and why we ended it, where its task has that on itself."""
        text = self.stderr.text()
        if self._trouble and self._trouble not in text:
            gap = "\n" if text and not text.endswith("\n") else ""
            self.stderr.add(f"{gap}{self._trouble}\n".encode())
            text = self.stderr.text()
        return text

    def interrupt(self, token: Token, number: signal.Signals | None) -> None:
        """Ask the child to interrupt a token, and knock with a signal where it needs one."""
        if self.pidfd < 0:
            return
        try:
            self._outcomes.send(token, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            if number is not None:
                signal.pidfd_send_signal(self.pidfd, number)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError, ProcessLookupError):
            return  # It is past hearing; the kill after the grace is not.

    def kill(self) -> None:
        """SIGKILL the child; its minder ends what it leaves before it tells."""
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                return  # It ended by itself in the same moment.

    def close(self) -> None:
        """Close all that is left."""
        self._orders_out.close()
        self._orders_in.close()
        self._outcomes.close()
        for descriptor in (self.printed, self.errors, self.pidfd, *self._theirs[1:]):
            if descriptor >= 0:
                os.close(descriptor)
        self.printed = self.errors = self.pidfd = -1
        self._theirs = (-1, -1, -1, -1)


def _sockets(opened: ExitStack, kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair(socket.AF_UNIX, kind)
    for each in pair:
        opened.callback(each.close)
    return pair


def _pipe(opened: ExitStack) -> tuple[int, int]:
    pair = os.pipe2(os.O_CLOEXEC)
    for each in pair:
        opened.callback(os.close, each)
    return pair
