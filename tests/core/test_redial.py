"""When a party dials again."""

from __future__ import annotations

import pytest

from holdfast.core.redial import (
    BASE_SECONDS,
    CAP_SECONDS,
    FIRST_SECONDS_MAX,
    Redial,
    pause_seconds,
)
from holdfast.model.limits import OUTAGE_SECONDS_MIN


class Always:
    """Chance that always falls the same way."""

    def __init__(self, value: float) -> None:
        self._value = value

    def random(self) -> float:
        return self._value

    def randbytes(self, n: int, /) -> bytes:
        return bytes(n)


def ceilings(redial: Redial, count: int) -> list[float]:
    return [redial.next()[1] for _ in range(count)]


def test_the_first_try_is_almost_immediate_and_later_ones_double_up_to_the_cap() -> None:
    seen = ceilings(Redial(Always(1.0), doors=1), 12)
    assert seen[:4] == [FIRST_SECONDS_MAX, BASE_SECONDS, 2 * BASE_SECONDS, 4 * BASE_SECONDS]
    assert seen[-1] == CAP_SECONDS
    assert seen == sorted(seen)


def test_who_has_one_door_waits_by_the_same_rule() -> None:
    redial = Redial(Always(0.5), doors=1)
    assert ceilings(redial, 12) == [pause_seconds(failures, Always(0.5)) for failures in range(12)]
    assert pause_seconds(1_000_000, Always(1.0)) == CAP_SECONDS


def test_jitter_is_full_also_at_the_cap() -> None:
    def low(at: float) -> list[float]:
        return ceilings(Redial(Always(at), doors=1), 12)

    assert low(0.0) == [0.0] * 12
    assert low(0.5)[-1] == CAP_SECONDS / 2


def test_every_door_is_tried_before_the_wait_grows() -> None:
    redial = Redial(Always(1.0), doors=3)
    tries = [redial.next() for _ in range(8)]
    assert [door for door, _ in tries] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert [wait for _, wait in tries[1:4]] == [BASE_SECONDS / 3] * 3
    assert tries[4][1] == 2 * BASE_SECONDS / 3


def test_who_lives_has_come_before_it_is_counted_as_missed() -> None:
    for doors in (1, 3):
        redial = Redial(Always(1.0), doors=doors)
        round_seconds = [redial.next()[1] for _ in range(60 * doors)][-doors:]
        assert sum(round_seconds) == pytest.approx(CAP_SECONDS)
    assert OUTAGE_SECONDS_MIN - 1.0 >= CAP_SECONDS


def test_a_door_that_opened_is_tried_first_after_a_loss() -> None:
    redial = Redial(Always(1.0), doors=3)
    redial.next()
    assert redial.next()[0] == 1
    redial.welcomed()
    assert redial.next() == (1, FIRST_SECONDS_MAX / 3)
