"""The likeness of values: the same in every process for equal contents, another for others."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.payloads import likeness_of
from tests.payloads import likenesses
from tests.scripts import told_by

BYTES_MAX = 1 << 20
SIZE = 32


def run(seed: str, *words: str) -> dict[str, str]:
    found: dict[str, str] = told_by(likenesses.__file__, *words, seed=seed)
    return found


def test_equal_contents_are_alike_in_every_process() -> None:
    first = run("1")
    assert all(len(bytes.fromhex(likeness)) == SIZE for likeness in first.values()), first
    assert run("2", "turned") == first
    assert run("3") == first


def test_other_contents_are_not_alike() -> None:
    found: dict[str, str] = {}
    for name, value in likenesses.VALUES.items():
        likeness = likeness_of(value, bytes_max=BYTES_MAX).hex()
        assert likeness, name
        assert likeness not in found, f"{name} is like {found[likeness]}"
        found[likeness] = name


def test_an_edited_function_is_the_same_and_another_is_not() -> None:
    def named(body: str, script: str = "__main__") -> Any:
        room: dict[str, Any] = {"__name__": script}
        exec(f"# a comment\n{body}", room)  # as two versions of a script
        return room

    before = named("def work(x, n=3): return x in {'a', 'b'}\nclass C: a = 1")
    after = named("\n\ndef work(x, n=4): return x\ndef other(x): return x\nclass C: b = 2")
    spawned = named("def work(x): return x\nclass C: pass", "__mp_main__")
    for name in ("work", "C"):
        assert likeness_of(before[name], bytes_max=BYTES_MAX) == likeness_of(
            after[name], bytes_max=BYTES_MAX
        )
        assert likeness_of(before[name], bytes_max=BYTES_MAX) == likeness_of(
            spawned[name], bytes_max=BYTES_MAX
        )
    assert likeness_of(after["work"], bytes_max=BYTES_MAX) != likeness_of(
        after["other"], bytes_max=BYTES_MAX
    )


class Loop:
    me: Any = None


def cycles() -> dict[str, Any]:
    in_list: list[Any] = []
    in_list.append(in_list)
    in_dictionary: dict[str, Any] = {}
    in_dictionary["me"] = in_dictionary
    in_instance = Loop()
    in_instance.me = in_instance
    in_both = Loop()
    in_both.me = [({"a": in_both},)]
    in_set = Loop()
    in_set.me = {in_set}
    return {
        "set": in_set,
        "list": in_list,
        "dictionary": in_dictionary,
        "instance": in_instance,
        "both": in_both,
    }


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("not I")


def much() -> Any:
    """Return little that holds itself so often that reading all of it would take for ever."""
    found: Any = ["leaf"]
    for _ in range(60):
        found = [found, found]
    return found


WITHOUT = {**cycles(), "refuses": Refuses(), "much": much(), "large": b"x" * (BYTES_MAX + 1)}


@pytest.mark.parametrize("name", WITHOUT)
def test_some_values_have_none(name: str) -> None:
    for value in (WITHOUT[name], {name: WITHOUT[name]}, {(name, 1): WITHOUT[name]}):
        assert likeness_of(value, bytes_max=BYTES_MAX) == b""


def test_the_bound_is_on_all_that_is_read() -> None:
    value = {("word", number): frozenset({"x", (number,)}) for number in range(1000)}
    assert likeness_of(value, bytes_max=BYTES_MAX)
    assert not likeness_of(value, bytes_max=20_000)
