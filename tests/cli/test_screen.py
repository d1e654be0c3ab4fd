"""How a frame looks: complete where there is room, whole lines where there is little."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from holdfast.cli.overview import Frame, Reading, frame_of
from holdfast.cli.screen import picture

STATES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")


def worker(number: int) -> dict[str, Any]:
    return {
        "name": f"worker-{number}",
        "state": "connected",
        "running": 1,
        "slots": 4,
        "holds": 2,
        "heard_seconds_ago": 0.5,
    }


def function(name: str, *, failed: int = 0, max_ms: int | None = 1500) -> dict[str, Any]:
    mean_ms = None if max_ms is None else max_ms / 2
    return {
        "function": name,
        "ended": 12,
        "failed": failed,
        "mean_ms": mean_ms,
        "max_ms": max_ms,
    }


def frame(**parts: Any) -> Frame:
    fields: dict[str, Any] = {
        "now": 2.0,
        "at_ms": 1_700_000_000_000,
        "tasks": dict.fromkeys(STATES, 0) | {"queued": 12_345, "failed": 1},
        "waiting": {"default": 7, "q+gpu~": 8},
        "clients": 3,
        "workers": [worker(1)],
        "functions": [function("m:slow"), function("m:bad", failed=5, max_ms=None)],
    }
    return frame_of(Reading(**(fields | parts)), None)


def drawn(shown: Frame | None, *, trouble: str = "", width: int = 120, height: int = 0) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False)
    console.print(picture(shown, trouble, width=width, height=height))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_everything_is_shown(width: int) -> None:
    text = drawn(frame(), width=width)
    for words in (
        "workers 1   clients 3",
        "queued 12,345   running 0   paused 0   succeeded 0   failed 1   cancelled 0",
        "submitted –   succeeded –   failed –",
        "worker-1",
        "connected",
        "1/4",
        "0.5 s ago",
        "q, tag gpu, async",
        "m:slow",
        "750 ms",
        "1.5 s",
        "m:bad",
    ):
        assert words in text
    slow, bad = text.index("SLOWEST"), text.index("FAILING")
    assert ("\n" in text[slow:bad]) is (width < 100)
    assert max(map(len, text.splitlines())) <= width


def test_what_is_not_there_is_said() -> None:
    text = drawn(frame(waiting={}, workers=[], functions=[]))
    for words in ("no worker is connected", "nothing waits", "nothing has run", "nothing failed"):
        assert words in text
    assert "waiting for the coordinator" in drawn(None)
    assert "it is not reached" in drawn(None, trouble="it is not reached")


def test_trouble_stands_beside_what_was_known() -> None:
    text = drawn(frame(), trouble="the coordinator is not reached; trying again")
    assert "the coordinator is not reached; trying again" in text.splitlines()[1]
    assert "worker-1" in text


@pytest.mark.parametrize("width", [1, 7, 20, 40, 60, 99, 100, 250])
@pytest.mark.parametrize("height", [1, 10, 24, 60])
def test_no_size_breaks_it(width: int, height: int) -> None:
    crowd = frame(
        workers=[worker(number) for number in range(100)],
        functions=[function(f"a.long.module:{'f' * number}", failed=1) for number in range(100)],
    )
    lines = drawn(crowd, trouble="no", width=width, height=height).splitlines()
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 50), (120, 24), (120, 60)])
def test_a_crowd_fits_the_terminal(width: int, height: int) -> None:
    crowd = frame(
        workers=[worker(number) for number in range(100)],
        functions=[function(f"m:f{number}", failed=1) for number in range(100)],
        waiting={f"q{number}": number for number in range(100)},
    )
    text = drawn(crowd, width=width, height=height, trouble="no answer")
    assert len(text.splitlines()) <= height
    assert "more" in text


def test_names_are_shown_and_not_obeyed() -> None:
    text = drawn(frame(functions=[function("m:[bold]\x1b[2Jf\r\n")]))
    assert "m:[bold]\N{REPLACEMENT CHARACTER}[2Jf" in text
    assert "\x1b" not in text
