"""Which lane gets which order: what happened, and what must be handed then."""

from __future__ import annotations

import math

from holdfast.core.lanes import (
    AHEAD_ORDERS_MAX,
    BLOCKED_SECONDS,
    FUNCTIONS_KNOWN_MAX,
    Alone,
    Lanes,
)
from holdfast.model.ids import Token


def token(number: int) -> Token:
    return Token(number.to_bytes(16, "big"))


class Play:
    """Lanes driven by small numbers for tokens, and a clock that the test moves."""

    def __init__(self, *, slots: int = 2, concurrent: int = 3) -> None:
        self.lanes = Lanes(slots=slots, concurrent_slots=concurrent)
        self.now = 100.0

    def add(self, *numbers: int, function: str = "f", concurrent: bool = False) -> None:
        for number in numbers:
            self.lanes.add(token(number), function, concurrent=concurrent)

    def handed(self) -> list[tuple[int, int]]:
        """Return what is handed now, as (lane, number)."""
        return [(lane, int.from_bytes(each, "big")) for lane, each in self.lanes.choose(self.now)]

    def end(self, *numbers: int, run: float = 0.0) -> None:
        for number in numbers:
            self.lanes.ended(token(number), run, self.now)

    def learn(self, function: str = "f", run: float = 0.0) -> None:
        """Let a function be known."""
        self.add(999, function=function)
        assert len(self.handed()) == 1
        self.end(999, run=run)


def test_an_unknown_function_gets_a_lane_of_its_own() -> None:
    play = Play()
    play.add(1, 2, 3)
    assert play.handed() == [(0, 1), (1, 2)]
    assert play.handed() == []
    play.end(2, run=1.0)
    assert play.handed() == [(1, 3)]


def test_a_short_function_is_handed_ahead_up_to_the_bounds() -> None:
    play = Play()
    play.learn(run=0.001)
    play.add(*range(1, 20))
    handed = play.handed()
    assert [number for _, number in handed] == list(range(1, 11))
    per_lane = [sum(lane == which for lane, _ in handed) for which in (0, 1)]
    assert per_lane == [5, 5]  # five of one millisecond in each lane


def test_no_lane_gets_more_orders_than_the_bound() -> None:
    play = Play(slots=1)
    play.learn()
    play.add(*range(1, 200))
    assert len(play.handed()) == AHEAD_ORDERS_MAX


def test_nobody_passes_the_head_of_the_line() -> None:
    play = Play(slots=1)
    play.learn("short")
    play.add(1, function="short")
    play.add(2, function="long")
    play.add(3, function="short")
    assert play.handed() == [(0, 1)]
    play.end(1)
    assert play.handed() == [(0, 2)]
    assert play.handed() == []


def test_a_function_that_became_slow_loses_its_credit() -> None:
    play = Play(slots=1)
    play.learn(run=0.0)
    play.add(1, 2)
    assert play.handed() == [(0, 1), (0, 2)]
    play.end(1, 2, run=1.0)
    play.add(3, 4)
    assert play.handed() == [(0, 3)]


def test_what_waits_behind_a_long_attempt_is_to_be_taken_back() -> None:
    play = Play()
    play.learn()
    play.add(1, 2, 3, 4)
    assert play.handed() == [(1, 1), (0, 2), (0, 3), (1, 4)]
    play.end(2, 3)
    due = play.lanes.next_check()
    assert play.lanes.blocked(play.now) == []
    play.now = due
    assert play.lanes.blocked(play.now) == [1]
    assert play.lanes.blocked(play.now) == []
    play.lanes.back([token(4)], play.now)
    assert play.handed() == [(0, 4)]
    play.add(5)
    assert play.handed() == [(0, 5)]
    assert play.lanes.next_check() == play.now + BLOCKED_SECONDS
    play.end(1)
    play.add(6)
    assert play.handed() == [(1, 6)]


def test_the_clock_of_a_lane_runs_from_when_its_first_became_the_first() -> None:
    play = Play(slots=1)
    play.learn()
    play.add(1, 2, 3)
    play.handed()
    play.now += 0.015
    play.end(1)
    play.now += 0.015
    assert play.lanes.blocked(play.now) == []
    play.now += 0.006
    assert play.lanes.blocked(play.now) == [0]


def test_what_was_taken_back_keeps_its_place_in_line() -> None:
    play = Play(slots=1)
    play.learn()
    play.add(1, 2, 3)
    assert play.handed() == [(0, 1), (0, 2), (0, 3)]
    play.add(4)
    play.lanes.back([token(2), token(3), token(77)], play.now)
    assert play.handed() == [(0, 2), (0, 3), (0, 4)]


def test_a_lane_that_refused_waits_until_it_is_writable() -> None:
    play = Play(slots=1)
    play.add(1)
    assert play.handed() == [(0, 1)]
    play.lanes.back([token(1)], play.now)
    play.lanes.refused(0)
    assert play.handed() == []
    play.lanes.writable(0)
    assert play.handed() == [(0, 1)]
    play.add(2)
    play.lanes.writable(0)
    assert play.handed() == []


def test_an_order_leaves_its_line_but_not_its_lane() -> None:
    play = Play(slots=1)
    play.add(1, 2)
    play.add(3, concurrent=True)
    assert play.lanes.remove(token(3))
    assert play.handed() == [(0, 1)]
    assert not play.lanes.remove(token(1))
    assert play.lanes.remove(token(2))
    assert not play.lanes.remove(token(2))
    assert not play.lanes.remove(token(9))
    assert play.lanes.lane_of(token(1)) == 0
    assert play.lanes.lane_of(token(2)) is None
    assert play.lanes.in_lane(0) == [token(1)]
    assert play.lanes.handed() == [token(1)]


def test_concurrent_orders_share_the_last_lane_up_to_their_bound() -> None:
    play = Play(slots=2, concurrent=3)
    play.add(1, 2, 3, 4, concurrent=True)
    assert play.handed() == [(2, 1), (2, 2), (2, 3)]
    play.end(2, run=5.0)
    assert play.handed() == [(2, 4)]
    play.now += 60
    assert play.lanes.blocked(play.now) == []
    assert play.lanes.next_check() == math.inf


def test_each_suspect_runs_once_alone_before_the_others() -> None:
    play = Play(slots=1)
    play.add(1, 2, concurrent=True)
    assert play.handed() == [(1, 1), (1, 2)]
    play.add(3, 4, concurrent=True)
    play.lanes.back([token(1), token(2)], play.now, alone=Alone.IN_LANE)
    assert play.handed() == [(1, 1)]
    assert play.handed() == []
    play.end(1)
    assert play.handed() == [(1, 2)]
    play.lanes.lost(token(2), play.now)
    assert play.handed() == [(1, 3), (1, 4)]
    play.lanes.lost(token(3), play.now)
    play.lanes.lost(token(3), play.now)
    assert play.lanes.handed() == [token(4)]


class Fallen(Play):
    """Two plain orders and two concurrent ones, handed one after another; then all lanes died."""

    def __init__(self) -> None:
        super().__init__(slots=2)
        for number in (1, 3):
            self.add(number)
            self.add(number + 1, concurrent=True)
            assert len(self.handed()) == 2
            self.now += 1.0
        self.add(5)
        self.add(6, concurrent=True)
        suspects = [token(number) for number in (1, 3, 2, 4)]
        self.lanes.back(suspects, self.now, alone=Alone.IN_WORKER)


def test_each_suspect_of_a_fall_runs_alone_in_the_worker_the_youngest_first() -> None:
    play = Fallen()
    for handed in ((1, 3), (2, 4), (0, 1), (2, 2)):
        assert play.handed() == [handed]
        assert play.handed() == []
        play.end(handed[1])
    assert play.handed() == [(1, 5), (2, 6)]


def test_a_suspect_of_a_fall_that_did_not_run_stays_one_and_one_found_clears_the_others() -> None:
    play = Fallen()
    assert play.handed() == [(1, 3)]
    play.lanes.back([token(3)], play.now)
    assert play.handed() == [(0, 3)]
    play.lanes.lost(token(3), play.now)
    assert play.handed() == [(2, 4)]
    play.lanes.lost(token(4), play.now)
    assert play.lanes.remove(token(2))
    play.lanes.acquit()
    assert play.handed() == [(1, 1), (0, 5), (2, 6)]


def test_a_suspect_of_a_fall_waits_for_a_lane_that_has_room() -> None:
    play = Fallen()
    for lane in (0, 1):
        play.lanes.refused(lane)
    assert play.handed() == []
    play.lanes.writable(1)
    assert play.handed() == [(1, 3)]


def test_a_strange_end_changes_nothing() -> None:
    play = Play()
    play.end(42)
    assert play.lanes.handed() == []


def test_only_so_many_functions_are_known() -> None:
    play = Play(slots=1)
    for number in range(FUNCTIONS_KNOWN_MAX + 1):
        play.learn(f"f{number}")
    play.add(1, 2, function="f0")
    assert play.handed() == [(0, 1)]  # the oldest is forgotten: unknown again
    play.end(1)
    play.handed()
    play.end(2)
    play.add(3, 4, function=f"f{FUNCTIONS_KNOWN_MAX}")
    assert len(play.handed()) == 2
