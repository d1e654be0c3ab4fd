"""The gate of interrupts by itself: whom it strikes, and how often."""

from __future__ import annotations

import pytest

from holdfast.engines.child import InterruptGate
from holdfast.engines.current import TaskCancelled


def test_a_request_for_another_token_changes_nothing() -> None:
    gate = InterruptGate(lambda: [b"other"])
    gate.arm(b"mine")
    gate.on_signal(0, None)
    assert not gate.struck


def test_it_strikes_once() -> None:
    gate = InterruptGate(lambda: [b"mine"])
    gate.arm(b"mine")
    with pytest.raises(TaskCancelled):
        gate.on_signal(0, None)
    gate.on_signal(0, None)
    assert gate.struck


def test_it_does_not_strike_after_the_end() -> None:
    gate = InterruptGate(lambda: [b"mine"])
    gate.arm(b"mine")
    gate.disarm()
    gate.on_signal(0, None)
    gate.arm(b"next")
    assert not gate.struck


def test_a_request_that_came_early_strikes_at_the_start() -> None:
    gate = InterruptGate(lambda: [b"mine"])
    gate.on_signal(0, None)
    with pytest.raises(TaskCancelled):
        gate.arm(b"mine")


def test_a_coroutine_is_cancelled_instead() -> None:
    struck = []
    gate = InterruptGate(lambda: [b"mine"])
    gate.arm(b"mine")
    gate.cancel = lambda: struck.append(True)
    gate.on_signal(0, None)
    assert struck == [True]
