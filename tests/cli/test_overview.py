"""Readings, rates, and the order of functions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.cli.overview import (
    Reading,
    as_data,
    class_text,
    duration_text,
    failing,
    frame_of,
    rate_text,
    read,
    slowest,
)
from holdfast.errors import RefusedError
from tests.cli.conftest import Client

STATES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")
STATS = {
    "tasks": dict.fromkeys(STATES, 0),
    "waiting": {"default": 3},
    "workers": 1,
    "clients": 2,
    "counters": {},
}


def reading(now: float, **tasks: int) -> Reading:
    counts = dict.fromkeys(STATES, 0) | tasks
    return Reading(now, 1000, counts, {"default": 3}, 2, [{"name": "w"}], [])


def test_a_reading_is_three_questions() -> None:
    client: Any = Client(stats=lambda: STATS, workers=lambda: ["w"], functions=lambda: ["f"])
    told = read(client, now=5.0, at_ms=7)
    assert (told.now, told.at_ms, told.clients) == (5.0, 7, 2)
    assert (told.waiting, told.workers, told.functions) == ({"default": 3}, ["w"], ["f"])


@pytest.mark.parametrize("code", ["unknown_question", "store"])
def test_an_older_coordinator_tells_of_no_functions(code: str) -> None:
    def refuse() -> None:
        raise RefusedError("no", code=code)

    client: Any = Client(stats=lambda: STATS, workers=list, functions=refuse)
    if code == "unknown_question":
        assert read(client, now=0.0, at_ms=0).functions == []
    else:
        with pytest.raises(RefusedError):
            read(client, now=0.0, at_ms=0)


def test_rates_are_of_what_came_since_the_reading_before() -> None:
    before = reading(10.0, queued=5, succeeded=100, failed=1)
    after = reading(12.0, queued=7, running=2, succeeded=110, failed=2)
    assert frame_of(after, before).rates == {"submitted": 7.5, "succeeded": 5.0, "failed": 0.5}
    assert set(frame_of(after, None).rates.values()) == {None}
    assert set(frame_of(after, after).rates.values()) == {None}


def test_a_count_that_fell_tells_no_rate() -> None:
    before, after = reading(0.0, succeeded=9, failed=1), reading(1.0, succeeded=4, failed=3)
    assert frame_of(after, before).rates == {"submitted": None, "succeeded": None, "failed": 2.0}


def test_a_frame_as_json() -> None:
    data = as_data(frame_of(reading(3.0, succeeded=1), reading(0.0)))
    assert json.loads(json.dumps(data)) == {
        "at_ms": 1000,
        "tasks": dict.fromkeys(STATES, 0) | {"succeeded": 1},
        "rates": {"submitted": 0.333, "succeeded": 0.333, "failed": 0.0},
        "waiting": {"default": 3},
        "clients": 2,
        "workers": [{"name": "w"}],
        "functions": [],
    }


def test_functions_in_two_orders() -> None:
    never = {"function": "never", "failed": 0, "max_ms": None}
    slow = {"function": "slow", "failed": 1, "max_ms": 9}
    bad = {"function": "bad", "failed": 2, "max_ms": 5}
    assert slowest([never, bad, slow]) == [slow, bad]
    assert failing([never, slow, bad]) == [bad, slow]


@pytest.mark.parametrize(
    ("needs", "text"),
    [
        ("default", "default"),
        ("default~", "default, async"),
        ("q+gpu+ssd", "q, tag gpu, tag ssd"),
        ("q+gpu~", "q, tag gpu, async"),
    ],
)
def test_a_requirement_class_in_words(needs: str, text: str) -> None:
    assert class_text(needs) == text


def test_times_and_rates_have_units() -> None:
    told = [duration_text(ms) for ms in (None, 0, 999.4, 1500, 119_000, 150_000, 7_200_000)]
    assert told == ["–", "0 ms", "999 ms", "1.5 s", "119.0 s", "2.5 min", "2.0 h"]
    assert [rate_text(rate) for rate in (None, 0.0, 1234.56)] == ["–", "0.0/s", "1,234.6/s"]
