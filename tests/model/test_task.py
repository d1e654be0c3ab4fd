"""Requirement classes and the place in line."""

from __future__ import annotations

import pytest

from holdfast.model.ids import TaskId
from holdfast.model.outcome import Encoding, Payload
from holdfast.model.task import TERMINAL_MIN, Spec, State, needs_of, rank_of

HOUR_MS = 3_600_000


def spec(
    *,
    tags: tuple[str, ...] = (),
    concurrent: bool = False,
    priority: int = 0,
    submitted_ms: int = HOUR_MS,
) -> Spec:
    return Spec(
        TaskId(bytes(16)),
        "m:f",
        Payload(Encoding.JSON),
        submitted_ms,
        queue="q",
        tags=tags,
        concurrent=concurrent,
        priority=priority,
    )


@pytest.mark.parametrize(
    ("given", "needs"),
    [
        (spec(), "q"),
        (spec(tags=("a", "b")), "q+a+b"),
        (spec(concurrent=True), "q~"),
        (spec(tags=("a",), concurrent=True), "q+a~"),
    ],
)
def test_a_requirement_class_names_all_that_a_worker_must_offer(given: Spec, needs: str) -> None:
    assert needs_of(given) == needs


def test_priority_goes_first_and_an_hour_of_waiting_outweighs_five_levels() -> None:
    assert rank_of(spec()) < rank_of(spec(submitted_ms=HOUR_MS + 1))
    assert rank_of(spec(priority=1, submitted_ms=HOUR_MS + 1)) < rank_of(spec())
    waited = spec(submitted_ms=0)
    assert rank_of(waited) < rank_of(spec(priority=5))
    assert rank_of(spec(priority=7)) < rank_of(waited)


def test_the_terminal_states_are_the_last_three() -> None:
    terminal = [state.text for state in State if state >= TERMINAL_MIN]
    assert terminal == ["succeeded", "failed", "cancelled"]
