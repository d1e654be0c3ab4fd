"""What survives JSON exactly, checked against JSON itself."""

from __future__ import annotations

import enum
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.payloads.plain import DEPTH_MAX, is_plain

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary(max_size=3)
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4)
        | st.tuples(inner)
    ),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return math.copysign(1, left) == math.copysign(1, right) and left == right
    return bool(left == right)


@given(VALUES)
def test_a_plain_value_survives_json(value: Any) -> None:
    if is_plain(value):
        assert same(value, msgspec.json.decode(msgspec.json.encode(value)))


class Number(int):
    pass


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    "value", [None, True, 0, -(2**63), 2**63 - 1, 1.5, -0.0, "é", [], {}, [{"a": [1, "x", None]}]]
)
def test_plain(value: object) -> None:
    assert is_plain(value)


@pytest.mark.parametrize(
    "value",
    [
        (1,),
        {1: 2},
        {"\ud800": 1},
        "\ud800",
        2**63,
        math.nan,
        math.inf,
        b"",
        Number(1),
        Colour.RED,
        {1},
        [[object()]],
    ],
)
def test_not_plain(value: object) -> None:
    assert not is_plain(value)
    assert not is_plain([value])
    assert not is_plain({"a": value})


def test_what_is_shared_or_cyclic_is_not_plain() -> None:
    part: list[object] = []
    assert not is_plain([part, part])
    part.append(part)
    assert not is_plain(part)


def test_what_is_deep_is_not_plain() -> None:
    value: object = 1
    for _ in range(DEPTH_MAX):
        value = [value]
    assert is_plain(value)
    for _ in range(100_000):
        value = [value]
    assert not is_plain(value)
