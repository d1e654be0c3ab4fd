"""What the supervisor, the nursery and the children say to each other, as bytes.

Orders travel as one packet each (SOCK_SEQPACKET), outcomes as length-prefixed frames (SOCK_STREAM),
requests to interrupt as bare tokens on the way back of the outcomes' socket. Paths travel as bytes,
as the file system has them: their names need not be UTF-8.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any, Final

import msgspec

from holdfast.model.ids import TOKEN_BYTES, TaskId, Token
from holdfast.model.messages import Ended
from holdfast.model.outcome import Payload
from holdfast.ports import Order

CODE_INLINE_BYTES_MAX: Final = 64 * 1024
"""A larger pickled function goes to a file."""
PACKET_BYTES_MAX: Final = 256 * 1024
"""Inline payload, inline code and names with room to spare; below any default `wmem_max` × 2."""
REPORT_BYTES_MAX: Final = 512 * 1024
"""A longer frame is not one of ours."""
ORDER_BUFFER_BYTES: Final = 1024 * 1024
RESULT_BUFFER_BYTES: Final = 256 * 1024
INTERRUPT_BYTES: Final = TOKEN_BYTES
REQUEST_BYTES_MAX: Final = 16 * 1024
RETIRED_EXIT: Final = 81
"""A child exits so between two orders when it is to be replaced by a fresh one."""
CUT_OFF: Final = (
    "the connection of this process to its worker was closed from within: by a task that closed "
    "all descriptors, or that became another program"
)
"""Said by whoever notices first, a child or its supervisor."""
SPOILED: Final = "something that is no outcome was written into the connection to the worker"

LENGTH: Final = struct.Struct("<I")

_ENCODER = msgspec.msgpack.Encoder()


class Work(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An order as a child reads it; `code_path` names the file of a large function."""

    token: Token
    task: TaskId
    fence: int
    function: str
    payload: Payload
    payload_path: bytes
    code: bytes
    code_path: bytes
    python: str


class WorkHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The first field of a packet: all that is needed of one that is taken back."""

    token: Token


class Report(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An outcome as a child writes it; `path` names the file of a large result."""

    ended: Ended
    path: bytes


class Charge(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Fork a child. Four descriptors come with it: orders, outcomes, stdout, stderr.

    `tasks_max` and `rss_bytes_max` (0: no bound) say when the child retires; with
    `follows_sources` it also does when a module that it has loaded was changed on disk. So many
    files it may open as `open_files_max` says (0: as many as its worker).
    """

    serial: int
    lane: int
    concurrent: bool
    results: bytes
    tasks_max: int
    rss_bytes_max: int
    follows_sources: bool
    open_files_max: int


class Forked(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The child of a charge runs; its pidfd comes along. `pid` 0: the fork failed, `error` why."""

    serial: int
    pid: int
    error: str = ""


class Exited(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A child is gone, and its process group with it. `status` is what waitpid gave.

    So many processes that its task had started are `left`, because they do not end.
    """

    serial: int
    status: int
    left: int = 0


def pack_order(order: Order, code_path: str) -> bytes:
    """Return the packet of an order, whose code may rest in a file instead."""
    return _ENCODER.encode(
        (
            order.token,
            order.task,
            order.fence,
            order.function,
            order.payload,
            os.fsencode(order.payload_path),
            b"" if code_path else order.code,
            os.fsencode(code_path),
            order.python,
        )
    )


def pack_report(ended: Ended, path: str) -> bytes:
    """Return the frame of an outcome, with its length before it."""
    body = _ENCODER.encode((ended, os.fsencode(path)))
    return LENGTH.pack(len(body)) + body


def pack(message: Any) -> bytes:
    """Return the packet of a message to or from the nursery."""
    return _ENCODER.encode(message)


def tell(control: socket.socket, message: Forked | Exited, *descriptors: int) -> None:
    """Tell the supervisor of a child; where it is gone, the guard ends who tells."""
    try:
        socket.send_fds(control, [pack(message)], list(descriptors))
    except (BrokenPipeError, ConnectionResetError):
        return
