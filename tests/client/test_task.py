"""`@task` and the options of a submission."""

from __future__ import annotations

import asyncio
import functools
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from types import MethodType
from typing import Any

import cloudpickle
import pytest

from holdfast.client.calls import call_of, options_of
from holdfast.client.options import DEFAULTS, Options, options_with, split_options
from holdfast.client.task import TaskFunction, task
from holdfast.errors import InvalidInputError, NotSerializableError
from holdfast.payloads import decode_function
from tests.client import work


def test_a_task_is_still_its_function() -> None:
    assert work.double(4) == 8
    assert work.double.__name__ == "double"
    assert work.double.__doc__ == "Return twice the number."
    assert work.double.__module__ == work.__name__
    assert work.double.__wrapped__ is work.double.__holdfast_function__  # type: ignore[attr-defined]
    assert repr(work.double) == f"<task {work.__name__}.double>"


def test_a_task_in_a_class_binds() -> None:
    class Box:
        @task
        def me(self) -> object:
            return self

    box = Box()
    assert box.me() is box


def _there(function: Callable[..., Any]) -> Any:
    """Return the function as a worker has it."""
    call = call_of(function, DEFAULTS)
    assert call.code, "a bound method goes by value"
    return decode_function(call.code)


def test_a_method_is_submitted_with_its_instance() -> None:
    scale = work.Scale(5)
    assert _there(scale.times)(2) == 10
    assert _there(scale.times.options(key="k"))(2) == 10
    assert scale.times.options(key="k")(2) == 10
    assert options_of(scale.times, {"key": "k"})[0] == Options(queue="bulk", key="k")
    assert call_of(scale.times_later, DEFAULTS).concurrent
    assert asyncio.run(_there(scale.times_later)(2)) == 10
    assert call_of(work.Scale.times, DEFAULTS).function == f"{work.__name__}:Scale.times"
    assert call_of(scale.plain, DEFAULTS).code == b""


def test_a_class_method_is_submitted_with_its_class() -> None:
    # Interpreters differ in who binds it: the task, or `classmethod`.
    for bound in (work.Scale.usual, MethodType(work.Scale.__dict__["usual"].__func__, work.Scale)):
        assert _there(bound)(2) == 6
        assert options_of(bound, {"priority": 1})[0].priority == 1


def test_what_cannot_be_called_is_no_task() -> None:
    with pytest.raises(InvalidInputError, match="decorates functions"):
        task(3)  # type: ignore[call-overload]


def test_a_task_goes_by_its_import_path() -> None:
    call = call_of(work.double, DEFAULTS)
    assert (call.function, call.code, call.python) == (f"{work.__name__}:double", b"", "")
    assert call_of(work.double.options(priority=1), DEFAULTS).function == call.function


def test_a_task_can_be_an_argument() -> None:
    again = pickle.loads(cloudpickle.dumps(work.labelled))
    assert again(1, key="x") == "1x"
    assert again.holdfast_options == work.labelled.holdfast_options


def test_async_functions_are_concurrent() -> None:
    assert call_of(work.later, DEFAULTS).concurrent
    assert call_of(functools.partial(work.later.__holdfast_function__, 1), DEFAULTS).concurrent
    assert not call_of(work.double, DEFAULTS).concurrent
    assert not call_of(len, DEFAULTS).concurrent

    class Callable:
        async def __call__(self) -> None: ...

    assert call_of(Callable(), DEFAULTS).concurrent


def test_a_local_function_goes_by_value_with_its_digest() -> None:
    call = call_of(lambda: 1, DEFAULTS)
    assert call.code
    assert len(call.digest) == 32
    assert call.python == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_a_function_that_closes_over_much_is_refused_with_the_mend() -> None:
    large = b"x" * 300_000
    with pytest.raises(NotSerializableError, match="pass that as an argument"):
        call_of(lambda: large, DEFAULTS)


def test_the_decorator_checks_and_orders_its_options() -> None:
    options = work.labelled.holdfast_options
    assert options == Options(queue="bulk", tags=("big", "gpu"), priority=7)
    changed = work.labelled.options(priority=1, key="k", delay=2.5)
    assert changed.holdfast_options == Options("bulk", ("big", "gpu"), 1, "k", 2.5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"priority": 1001}, "priority=1001"),
        ({"priority": "high"}, "priority='high'"),
        ({"priority": True}, "priority=True"),
        ({"queue": ""}, "queue"),
        ({"queue": "a+b"}, "queue"),
        ({"tags": "gpu"}, "tags='gpu' is one text"),
        ({"tags": [3]}, "tags: 3"),
        ({"tags": {"a": 1}}, r"tags=\{'a': 1\} is not a list of texts"),
        ({"tags": 5}, "tags=5 is not a list of texts"),
        ({"tags": [str(number) for number in range(40)]}, "over 32"),
        ({"key": "a\0"}, "key"),
        ({"key": 5}, "key"),
        ({"key": "\ud800"}, "key"),
        ({"queue": "\ud800"}, "queue"),
        ({"tags": ["a", "\udfff"]}, "tags"),
        ({"delay": -1}, "delay=-1"),
        ({"delay": float("nan")}, "delay=nan"),
        ({"delay": 1e12}, "delay="),
        ({"delay": "1"}, "delay="),
        ({"delay": float("inf")}, "delay=inf"),
        ({"delay": 10**400}, "delay=1000.*…"),
        ({"delay": 10**5000}, "delay=a number of too many digits"),
        ({"priority": -(10**5000)}, "priority=a number"),
        ({"color": 1}, "color: no such option"),
    ],
)
def test_an_option_that_cannot_be_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said.replace("+", r"\+")):
        options_with(DEFAULTS, given)


def test_option_keywords_are_holdfasts() -> None:
    options, own = options_of(work.total, {"key": "page-1", "priority": 5, "x": 1})
    assert options == Options(key="page-1", priority=5)
    assert own == {"x": 1}
    options, own = options_of(work.double, {"delay": 10})
    assert (options.delay, own) == (10, {})


@functools.lru_cache
def _cached(key: str) -> str:
    return key


@pytest.mark.parametrize("function", [work.labelled, work.swallow, _cached])
def test_a_keyword_that_could_be_for_both_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"\.options\("):
        options_of(function, {"key": "x"})


def test_a_positional_only_parameter_is_not_meant_by_a_keyword() -> None:
    def picky(key: str, /) -> str:
        return key

    assert split_options(picky, {"key": "x"}) == ({"key": "x"}, {})
    assert split_options(functools.partial(picky), {"key": "x"}) == ({"key": "x"}, {})
    assert split_options(max, {"priority": 1}) == ({"priority": 1}, {})


def test_after_options_every_keyword_is_the_functions() -> None:
    bound = work.labelled.options(key="mine")
    assert isinstance(bound, TaskFunction)
    assert options_of(bound, {"key": "x"}) == (bound.holdfast_options, {"key": "x"})


def test_decorating_is_light() -> None:
    program = """
        import json, sys
        from holdfast import task
        task(lambda: 1)
        json.dump(sorted(sys.modules), sys.stdout)
    """
    source = "\n".join(line.strip() for line in program.strip().splitlines())
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=True)
    heavy = {"asyncio", "msgspec", "websockets", "cloudpickle", "dataclasses", "threading"}
    assert not heavy & set(json.loads(done.stdout))
