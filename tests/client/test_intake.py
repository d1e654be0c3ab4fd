"""Ctrl-C in the middle of a submission."""

from __future__ import annotations

import linecache
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from holdfast.client import session
from tests.client import work
from tests.client.scripted import Scripted, client_of

RARE_SECONDS = 40.0
ROOMS = ("intake.py", "code.py", "thread.py", "client.py")


@pytest.fixture
def rare_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no heartbeat wake a loop that should have been woken."""
    monkeypatch.setattr(session, "HEARTBEAT_SECONDS", RARE_SECONDS)


@contextmanager
def interrupted_at(number: int) -> Iterator[None]:
    """Raise KeyboardInterrupt before that many more statements of the client have run."""
    left = number

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(tuple(f"/client/{room}" for room in ROOMS)):
            return None
        # Python runs no handler between the body of a `with` and the release of its lock.
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and not line.lstrip().startswith("with "):
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def closure(number: int) -> Callable[[], int]:
    return lambda: number


@pytest.mark.parametrize("own_function", [True, False])
@pytest.mark.parametrize("accepting", [True, False])
def test_an_interrupt_between_any_two_statements_leaves_the_count_right(
    tmp_path: Path, own_function: bool, accepting: bool, rare_heartbeats: None
) -> None:
    scripted = Scripted()
    scripted.accepting = scripted.settling = accepting
    interrupts = 0
    with client_of(scripted, tmp_path) as client:
        while True:
            try:
                with interrupted_at(interrupts):
                    last = client.submit(*((closure(1),) if own_function else (work.double, 1)))
            except KeyboardInterrupt:
                interrupts += 1
                continue
            break
        assert interrupts > 20
        if not accepting:
            intake = client._intake
            scripted.wait_for("all is sent", lambda: len(scripted.specs) == intake.submissions)
            scripted.accepting = scripted.settling = True
            scripted.cut()
        assert last.result(10) in (1, 2)
        began = time.monotonic()
        client.close()
        assert time.monotonic() - began < RARE_SECONDS / 2
        assert client._intake.submissions == 0
        if not own_function:
            assert client._intake.held_bytes == 0


def test_who_was_interrupted_before_waking_the_loop_is_sent_by_closing(
    tmp_path: Path, rare_heartbeats: None
) -> None:
    scripted = Scripted()
    with client_of(scripted, tmp_path) as client:
        assert client.submit(work.double, 1).result(10) == 2
        wake = client._intake._wake

        def interrupted() -> None:
            client._intake._wake = wake
            raise KeyboardInterrupt

        client._intake._wake = interrupted
        with pytest.raises(KeyboardInterrupt):
            client.submit(work.double, 2)
        assert client._intake.submissions == 1
        began = time.monotonic()
        client.close()
        assert time.monotonic() - began < RARE_SECONDS / 2
        assert len(scripted.specs) == 2
