"""Beside the lines: who may have what, in which order, and when it goes back."""

from __future__ import annotations

import pytest

from holdfast.core import siding
from holdfast.core.dispatch import Offer
from holdfast.core.siding import Parked, Siding, Track


def parked(task: int, avoids: str = "a", *, needs: str = "q", until_ms: int = 100) -> Parked:
    return Parked(task % 10, bytes([task]), needs, avoids, until_ms)


def tracks(yard: Siding) -> dict[str, list[int]]:
    return {track.key: [task[0] for _, task in track.first(99)] for track in yard.tracks()}


def test_each_track_is_in_line_order() -> None:
    yard = Siding()
    for each in (parked(3), parked(11), parked(2, "a b"), parked(5, needs="r"), parked(4)):
        yard.park(each)
    assert tracks(yard) == {"q a": [11, 3, 4], "q a b": [2], "r a": [5]}
    assert yard.classes() == ["q", "r"]
    assert len(yard) == 5


def test_a_task_stands_in_one_place() -> None:
    yard = Siding()
    track, former = yard.park(first := parked(1))
    assert (track.head(), former) == ((1, b"\x01"), None)
    other, former = yard.park(again := parked(1, "a b", until_ms=200))
    assert (track.head(), other.head(), former) == (None, (1, b"\x01"), first)
    assert (yard.next_ms, yard.due(199, limit=9)) == (200, [])
    assert (yard.take(b"\x01"), yard.take(b"\x01")) == (again, None)
    assert (len(yard), yard.next_ms, tracks(yard)) == (0, 0, {})


def test_the_earliest_go_back_first_and_stay_until_they_are_taken() -> None:
    yard = Siding()
    for task, until_ms in ((1, 30), (2, 10), (3, 20), (4, 40)):
        yard.park(parked(task, until_ms=until_ms))
    assert yard.due(9, limit=9) == []
    for _ in range(2):
        assert yard.due(30, limit=9) == [b"\x02", b"\x03", b"\x01"]
        assert yard.due(30, limit=2) == [b"\x02", b"\x03"]
    yard.take(b"\x02")
    assert (yard.next_ms, yard.due(30, limit=1)) == (20, [b"\x03"])


def test_what_comes_back_is_there_once() -> None:
    yard = Siding()
    for _ in range(2):
        track, _ = yard.park(parked(1))
    yard.park(parked(2))
    assert [task for _, task in track.first(9)] == [b"\x01", b"\x02"]
    assert yard.due(100, limit=9) == [b"\x01", b"\x02"]


def test_what_left_takes_no_room() -> None:
    yard = Siding()
    yard.park(parked(1))
    for until_ms in range(1_000):
        track, _ = yard.park(parked(2, until_ms=until_ms))
    assert len(track.entries) < 2 * siding._SPARE
    assert len(yard._times) < 2 * siding._SPARE
    assert track.first(9) == [(1, b"\x01"), (2, b"\x02")]
    assert yard.due(999, limit=9) == [b"\x01", b"\x02"]


def test_a_class_is_forgotten() -> None:
    yard = Siding()
    for each in (parked(1), parked(2, "b"), parked(3, needs="r")):
        yard.park(each)
    yard.forget("q")
    assert tracks(yard) == {"r a": [3]}
    assert yard.due(100, limit=9) == [b"\x03"]


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siding, "SIDING_TASKS_MAX", 3)
    monkeypatch.setattr(siding, "_TRACKS_MAX", 2)
    yard = Siding()
    for task in (1, 2, 3):
        assert not yard.full
        yard.park(parked(task, f"w{task}"))
    assert yard.full
    assert list(tracks(yard)) == ["q w1", "q w2"]
    yard.take(b"\x01")
    assert not yard.full
    assert list(tracks(yard)) == ["q w2", "q w3"]


@pytest.mark.parametrize(
    ("identity", "slots", "concurrent_slots", "needs", "is_open"),
    [
        ("c", 1, 0, "q", True),
        ("a", 1, 1, "q", False),
        ("c", 0, 1, "q", False),
        ("c", 0, 1, "q~", True),
        ("c", 1, 0, "q~", False),
    ],
)
def test_a_track_is_open_to_others_that_have_room(
    identity: str, slots: int, concurrent_slots: int, needs: str, is_open: bool
) -> None:
    offer = Offer(
        identity, slots=slots, concurrent_slots=concurrent_slots, queues=(), tags=(), pull=False
    )
    assert Track(needs, "a b").is_open_to(offer) is is_open
