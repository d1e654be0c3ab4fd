"""The end of a script whose client nobody closed: its last submissions, and Ctrl-C meanwhile.

Large payloads travel on threads, and threads end before exit callbacks are called: submissions are
waited for before that. What is raised in an exit callback reaches neither the exit status nor a
person in one line, so that Ctrl-C ends the process here. The interpreter's exit callbacks that were
registered before the client was made are not called then.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from functools import cache
from typing import NoReturn, Protocol
from weakref import WeakSet

STATUS = 130
"""What a shell reports of a command that Ctrl-C ended."""


class Sender(Protocol):
    """Who has something to send before threads end."""

    def send_before_exit(self) -> None: ...


def before_threads_end(sender: Sender) -> None:
    """Have a sender called once the main thread has ended, and threads can still be used.

    Python has no public name for that moment (its own pools use this one): where the private one is
    missing, what needs no thread is still sent by the exit callback.
    """
    _senders().add(sender)


@cache
def _senders() -> WeakSet[Sender]:
    # Pools close at that moment too, and those that came later before those that came earlier.
    import concurrent.futures.thread  # noqa: F401

    senders: WeakSet[Sender] = WeakSet()

    def send() -> None:
        for sender in list(senders):
            sender.send_before_exit()

    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        register(send)
    return senders


def end_interrupted(unacknowledged: int) -> NoReturn:
    """Say what is not known, and end this process with the status of an interrupt."""
    told = "all submissions were acknowledged"
    if unacknowledged:
        told = (
            f"{unacknowledged} submissions were not acknowledged, and whether they were kept is "
            "not known"
        )
    try:
        sys.stderr.write(f"holdfast: interrupted; {told}\n")
        sys.stdout.flush()
        sys.stderr.flush()
        logging.shutdown()
    except (OSError, ValueError, AttributeError, KeyboardInterrupt):
        # Closed, full, or not there: nobody is left to tell.
        os._exit(STATUS)
    os._exit(STATUS)
