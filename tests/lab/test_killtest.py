"""The kill test without its processes: the pace of what is submitted."""

from __future__ import annotations

from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from holdfast.lab import killtest
from holdfast.lab.killtest import SHORT


class Client:
    """It takes whatever comes."""

    def __init__(self) -> None:
        self.taken = 0

    def submit(self, *call: Any) -> Future[Any]:
        self.taken += 1
        return Future()


def test_a_wave_that_is_late_waits_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine so slow that a second passes whenever the time is asked."""
    slept: list[float] = []
    seconds = count()
    monkeypatch.setattr(killtest.time, "monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr(killtest.time, "sleep", slept.append)
    client = Client()
    work = killtest._Work(
        SHORT,
        client,  # type: ignore[arg-type]  # a stand-in
        tmp_path / "witness",
        release=tmp_path / "release",
        seed=1,
    )
    work.submit_while(lambda: False)
    assert client.taken == SHORT.tasks
    assert slept
    assert min(slept) >= 0
