"""A program of `test_likeness`: prints the likeness of many values, by their names, as JSON.

Its first argument turns round the order in which what has none is made. What `__main__` defines is
the program's own, so that each run makes it anew.
"""

from __future__ import annotations

import enum
import functools
import json
import operator
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from holdfast import task
from holdfast.payloads import likeness_of

TURNED = sys.argv[1:] == ["turned"]
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon"]
BYTES_MAX = 1 << 20


def turn(items: Iterable[Any]) -> list[Any]:
    """Return items in the order of this run."""
    listed = list(items)
    return listed[::-1] if TURNED else listed


@dataclass
class Settings:
    name: str
    words: set[str] = field(default_factory=set)
    other: dict[Any, Any] = field(default_factory=dict)


class Plain:
    def __init__(self, **values: Any) -> None:
        for name in turn(values):
            setattr(self, name, values[name])

    def method(self, number: int) -> int:
        return number


class Slotted:
    __slots__ = ("left", "right")

    def __init__(self, left: Any, right: Any) -> None:
        self.left, self.right = left, right


class Array:
    """What an array does: bytes beside a few words, by a function of its own."""

    def __init__(self, data: bytes, shape: tuple[int, ...]) -> None:
        self.data, self.shape = data, shape

    def __reduce__(self) -> tuple[Any, ...]:
        return _array, (self.data, self.shape), {"flags": {"aligned", "contiguous", "owned"}}


def _array(data: bytes, shape: tuple[int, ...]) -> Array:
    return Array(data, shape)


class Words(set[str]):
    pass


class Named(dict[str, Any]):
    pass


class Pair(NamedTuple):
    left: Any
    right: Any


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def work(number: int = 3) -> int:
    return number


@task
def decorated(number: int) -> int:
    return number


@task(queue="other")
def decorated_too(number: int) -> int:
    return number


def closing_over(value: Any) -> Callable[[], Any]:
    def inner() -> Any:
        return value

    return inner


def recursive(value: Any) -> Callable[[int], Any]:
    def inner(number: int) -> Any:
        return inner(number - 1) if number else value

    return inner


def built(*letters: str) -> str:
    """Return a text that is no literal, and that nobody else holds."""
    return "".join(letters)


class Meta(type):
    pass


class WithMeta(metaclass=Meta):
    pass


SHARED = [1, 2]
VALUES: dict[str, Any] = {
    "tuple": (1, "a"),
    "tuple of other types": (1.0, "a"),
    "tuple of a bool": (True, "a"),
    "list": [1, "a"],
    "words": set(turn(WORDS)),
    "fewer words": set(turn(WORDS[1:])),
    "no words": set(),
    "frozen words": frozenset(turn(WORDS)),
    "numbers": set(turn(range(50))),
    "bytes": {word.encode() for word in turn(WORDS)},
    "mixed": {1, 2.5, "a", b"b", None, (1, "x"), frozenset(turn(WORDS))},
    "nested": {frozenset({"a", word}) for word in turn(WORDS)},
    "other nested": {frozenset({"b", word}) for word in turn(WORDS)},
    "own words": Words(turn(WORDS)),
    "dictionary": {word: len(word) for word in turn(WORDS)},
    "other dictionary": {word: len(word) + 1 for word in turn(WORDS)},
    "keys of all types": {key: str(key) for key in turn([1, "1", None, (2, "x"), b"1"])},
    "named": Named(dict.fromkeys(turn(WORDS), 1)),
    "groups": defaultdict(set, {word: {word, "x"} for word in turn(WORDS)}),
    "groups of lists": defaultdict(list, {word: {word, "x"} for word in turn(WORDS)}),
    "counts": Counter(turn(WORDS)),
    "in order": OrderedDict((word, 1) for word in WORDS),
    "in another order": OrderedDict((word, 1) for word in WORDS[::-1]),
    "dataclass": Settings("a", set(turn(WORDS)), {"k": {1: set(turn(WORDS))}}),
    "other dataclass": Settings("b", set(turn(WORDS)), {"k": {1: set(turn(WORDS))}}),
    "instance": Plain(a=1, b={"x", "y", "z"}),
    "other instance": Plain(a=1, b={"x", "y"}),
    "slots": Slotted({"a", "b", "c"}, 1),
    "array": Array(b"data" * 100_000, (400_000,)),
    "other array": Array(b"Data" * 100_000, (400_000,)),
    "pair": Pair({"a", "b", "c"}, None),
    "enumeration": Colour.RED,
    "other enumeration": Colour.BLUE,
    "class": Plain,
    "other class": Settings,
    "class with a metaclass": WithMeta,
    "builtin class": int,
    "function": work,
    "task": decorated,
    "other task": decorated_too,
    "builtin": len,
    "module": json,
    "other module": operator,
    "generic": list[int],
    "lambda": lambda: WORDS,
    "lambda with a default": lambda word="a": word,
    "lambda with another": lambda word="b": word,
    "lambda with a keyword": lambda *, word="a": word,
    "closure": closing_over({"a", "b", "c"}),
    "other closure": closing_over({"a", "b"}),
    "recursive closure": recursive(1),
    "other recursive closure": recursive(2),
    "partial": functools.partial(work, {"a", "b", "c"}),
    "other partial": functools.partial(work, {"a", "b"}),
    "method": Plain(a=1).method,
    "other method": Plain(a=2).method,
    "error": ValueError("a", {"x", "y"}),
    "shared": [SHARED, SHARED, built("al", "pha"), "alpha"],
    "large": [built("wo", "rd")] * 100_000,
    "deep": functools.reduce(lambda inner, _: [inner], range(60), []),
}


if __name__ == "__main__":
    found = {name: likeness_of(value, bytes_max=BYTES_MAX).hex() for name, value in VALUES.items()}
    # Equal contents that this program makes in another way.
    found["shared"] = likeness_of([[1, 2], [1, 2], "alpha", "alpha"], bytes_max=BYTES_MAX).hex()
    sys.stdout.write(json.dumps(found))
