"""The real clock never goes backward."""

from __future__ import annotations

import time

import pytest

from holdfast.clock import SystemClock


def test_a_wall_clock_that_is_set_back_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    shown = iter([5_000_000_000, 3_000_000_000, 6_000_000_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(shown))
    assert [clock.wall_ms() for _ in range(3)] == [5_000, 5_000, 6_000]


def test_time_passes() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    assert clock.monotonic() >= before > 0
