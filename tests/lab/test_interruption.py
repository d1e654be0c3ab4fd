"""An interruption ends a block once, and leaves the handlers as they were."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

import pytest

from holdfast.lab.interruption import interrupted_once


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_ends_the_block_and_no_other_disturbs_what_follows(number: int) -> None:
    former = signal.getsignal(number)
    tidied: list[int] = []

    def tidy() -> None:
        os.kill(os.getpid(), number)
        tidied.append(number)

    def work() -> None:
        with interrupted_once(), ExitStack() as stack:
            stack.callback(tidy)
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert tidied == [number]
    assert signal.getsignal(number) is former


def test_what_was_ignored_stays_ignored() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupted_once():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)
