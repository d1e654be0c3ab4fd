"""UUIDv7 as RFC 9562 lays it out, ascending in one process, and the ways a person types one."""

from __future__ import annotations

import uuid
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.ids import (
    ID_BYTES,
    IdMint,
    TaskId,
    id_text,
    parse_id,
    prefix_range,
)

MILLISECONDS = st.integers(0, (1 << 47) - 1)


def time_ms(task: TaskId) -> int:
    return int.from_bytes(task[:6], "big")


def minted(now_ms: int, seed: int = 0) -> TaskId:
    return IdMint(Random(seed)).next(now_ms)


@given(MILLISECONDS, st.integers())
def test_an_id_is_a_uuid_of_version_7_with_its_time_in_front(now_ms: int, seed: int) -> None:
    task = minted(now_ms, seed)
    read = uuid.UUID(bytes=task)
    assert (read.version, read.variant) == (7, uuid.RFC_4122)
    assert time_ms(task) == now_ms
    assert id_text(task) == str(read)


@given(st.lists(MILLISECONDS, min_size=2, max_size=20))
def test_ids_ascend_whatever_the_wall_clock_does(times: list[int]) -> None:
    mint = IdMint(Random(1))
    made = [mint.next(now_ms) for now_ms in times]
    assert made == sorted(set(made))


def test_a_full_counter_moves_the_millisecond_ahead() -> None:
    mint = IdMint(Random(1))
    made = [mint.next(1_000) for _ in range(4_097)]
    assert made == sorted(set(made))
    assert time_ms(made[4_095]) == 1_000
    assert time_ms(made[4_096]) == 1_001
    assert [task[6] & 0x0F for task in (made[0], made[4_095], made[4_096])] == [0, 15, 0]
    assert time_ms(mint.next(1_002)) == 1_002


def test_two_processes_differ_by_chance_alone() -> None:
    assert minted(1_000, 1) != minted(1_000, 2)
    assert minted(1_000, 1)[:8] == minted(1_000, 2)[:8]


@given(st.binary(min_size=ID_BYTES, max_size=ID_BYTES))
def test_an_id_is_read_back_from_its_text(task: bytes) -> None:
    assert parse_id(id_text(TaskId(task))) == task
    assert parse_id(f"  {task.hex().upper()}\n") == task


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "0 hex digits"),
        ("0" * 31, "31 hex digits"),
        ("0" * 33, "33 hex digits"),
        ("0" * 31 + "g", "not hexadecimal"),
        ("00 00" + "0" * 27, "not hexadecimal"),
        ("٠" * 32, "not hexadecimal"),
    ],
)
def test_what_is_no_id_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_id(text)


@given(st.binary(min_size=ID_BYTES, max_size=ID_BYTES), st.integers(1, 36), st.booleans())
def test_an_id_is_within_the_range_of_each_of_its_beginnings(
    task: bytes, length: int, upper: bool
) -> None:
    text = id_text(TaskId(task))[:length]
    low, high = prefix_range(text.upper() if upper else text)
    assert low <= task <= high
    digits = len(text.replace("-", ""))
    assert low.hex()[:digits] == high.hex()[:digits]
    assert set(low.hex()[digits:]) <= {"0"}
    assert set(high.hex()[digits:]) <= {"f"}


@pytest.mark.parametrize("text", ["", " ", "-", "x", "0" * 33, "0 0"])
def test_what_begins_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the beginning"):
        prefix_range(text)
