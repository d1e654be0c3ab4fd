"""Ctrl-C where processes of ours run: it ends a block, and none disturbs the tidying up after it.

Owns the handlers of the signals by which we are stopped. It ends no process.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 130
TOLD = "interrupted; everything that was started has ended"


@contextmanager
def interrupted_once() -> Iterator[None]:
    """Let the first Ctrl-C end the block, and none disturb the tidying up, which has its bounds.

    The end of the terminal and SIGTERM are no different: the processes below are in sessions of
    their own, and nobody else would end them. For the main thread. Raises KeyboardInterrupt.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    former = {number: signal.getsignal(number) for number in numbers}

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number, handler in former.items():
        # Who started us, with `nohup` or in the background, may have wished it ignored.
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
