from __future__ import annotations

import functools
import math
import sys
import threading
from collections.abc import Callable

import pytest

from holdfast.errors import InvalidInputError, NotSerializableError
from holdfast.interpreter import python_version
from holdfast.payloads import decode_function, encode_function
from holdfast.payloads.functions import WRAPPED


class TaskObject:
    """As `@task` makes it."""

    def __init__(self, function: Callable[..., object]) -> None:
        setattr(self, WRAPPED, function)


class Outer:
    @staticmethod
    def method(number: int) -> int:
        return number + 1


def test_what_can_be_imported_goes_by_its_path() -> None:
    assert encode_function(math.sqrt) == ("math:sqrt", b"", "")
    assert encode_function(Outer.method) == (f"{__name__}:Outer.method", b"", "")
    assert encode_function(functools.partial).name == "functools:partial"


def test_a_task_object_goes_by_the_path_that_leads_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = TaskObject(Outer.method)
    monkeypatch.setattr(Outer, "method", wrapped)
    assert encode_function(wrapped).name == f"{__name__}:Outer.method"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "function", [lambda number: number + 1, functools.partial(max, 3), Outer().method.__call__]
)
def test_what_cannot_goes_by_value(function: Callable[[int], int]) -> None:
    name, code, python = encode_function(function)
    assert ":" in name
    assert python == python_version()
    assert decode_function(code)(2) == 3


def test_a_function_of_a_closure_keeps_its_variables() -> None:
    step = 5

    def add(number: int) -> int:
        return number + step

    name, code, _ = encode_function(add)
    assert name.endswith("test_a_function_of_a_closure_keeps_its_variables.<locals>.add")
    assert decode_function(code)(1) == 6


def test_a_variable_that_does_not_pickle_is_named() -> None:
    lock = threading.Lock()

    def use() -> bool:
        return lock.locked()

    with pytest.raises(NotSerializableError, match=r"variable 'lock' of use: _thread\.lock"):
        encode_function(use)


def test_what_is_not_callable_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        encode_function(3)  # type: ignore[arg-type]  # the mistake under test


def test_a_name_that_cannot_travel_is_no_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def odd() -> int:
        return 3

    odd.__qualname__ = odd.__name__ = "\ud800"
    monkeypatch.setattr(sys.modules[__name__], "\ud800", odd, raising=False)
    encoded = encode_function(odd)
    assert encoded.name.endswith(":?")
    assert decode_function(encoded.code)() == 3
