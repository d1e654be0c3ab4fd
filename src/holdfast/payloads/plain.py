"""Which values survive JSON exactly: equal, of the same types, and with nothing shared.

A pure question about a value; no bytes are made here.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any, Final

DEPTH_MAX: Final = 64
"""Deeper values are pickled, so that no decoder on the way meets its recursion limit."""

_INT_MIN: Final = -(1 << 63)
_INT_MAX: Final = (1 << 63) - 1


def is_plain(value: object) -> bool:
    """Tell whether a value survives the way to JSON and back exactly.

    None, bool, int of 64 bits, finite float, str without lone surrogates, and list and dict (str
    keys) of these, all of exactly these types. A container met twice (shared, or within itself)
    is not plain, because JSON would make two of it.
    """
    return are_plain((value,))


def are_plain(values: Iterable[object]) -> bool:
    """Tell whether all of these values are plain and share no container."""
    seen: set[int] = set()
    level: list[object] = []
    if not _level_is_plain(values, level, seen):
        return False
    for _ in range(DEPTH_MAX):
        if not level:
            return True
        below: list[object] = []
        for container in level:
            items: Iterable[object]
            if isinstance(container, dict):
                if not all(type(key) is str and _is_text(key) for key in container):
                    return False
                items = container.values()
            else:
                assert isinstance(container, list)
                items = container
            if not _level_is_plain(items, below, seen):
                return False
        level = below
    return not level


def _level_is_plain(values: Iterable[Any], below: list[object], seen: set[int]) -> bool:
    """Check values; the containers among them are put off to `below`."""
    for value in values:
        kind = type(value)
        if kind is str:
            if not value.isascii() and not _is_text(value):
                return False
        elif kind is int:
            if not _INT_MIN <= value <= _INT_MAX:
                return False
        elif value is None or kind is bool:
            continue
        elif kind is float:
            if not isfinite(value):
                return False
        elif kind is list or kind is dict:
            if id(value) in seen:
                return False
            seen.add(id(value))
            below.append(value)
        else:
            return False
    return True


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
