"""What every kind of child does with its sockets: report outcomes, hear requests, leave.

Owns the end of a child: what was printed is passed on, and nothing of the nursery's interpreter
runs.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from typing import Final, NoReturn

from holdfast.engines.packets import CUT_OFF, INTERRUPT_BYTES

LOOP_ENDED_EXIT: Final = 83
"""User code ended the event loop that many attempts had in common."""
LOST_EXIT: Final = 82
"""Our sockets are gone or broken: user code closed them."""

_ASKED_BYTES_MAX: Final = 64 * INTERRUPT_BYTES


def leave(status: int) -> NoReturn:
    """Exit at once, with what was printed, and with nothing of the nursery's interpreter run."""
    flush_streams()
    os._exit(status)


def leave_cut_off() -> NoReturn:
    """Leave because our sockets are gone: nobody would ever hear of an outcome. Say so before."""
    with suppress(OSError):
        os.write(2, f"{CUT_OFF}\n".encode())
    leave(LOST_EXIT)


def flush_streams() -> None:
    """Pass on what user code printed; its streams may be closed or replaced."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue


def send_report(outcomes: socket.socket, report: bytes) -> None:
    """Write an outcome; exits where the socket is gone."""
    try:
        outcomes.sendall(report)
    except OSError:
        leave_cut_off()


def read_requests(outcomes: socket.socket) -> list[bytes]:
    """Return the tokens that the supervisor wants interrupted."""
    try:
        data = outcomes.recv(_ASKED_BYTES_MAX, socket.MSG_DONTWAIT)
    except OSError:
        return []
    return [data[at : at + INTERRUPT_BYTES] for at in range(0, len(data), INTERRUPT_BYTES)]
