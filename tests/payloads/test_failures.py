from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.errors import TaskFailedError
from holdfast.model.limits import ERROR_TEXT_BYTES_MAX
from holdfast.model.outcome import Failure
from holdfast.payloads import RemoteTraceback, exception_of, failure_of


class Own(ValueError):
    pass


class TwoArguments(Exception):
    """The classic that pickles and does not unpickle."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(f"{left} and {right}")


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class NeedsAttribute(Exception):
    detail: str

    def __init__(self, *, detail: str) -> None:
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


def raised(error: BaseException) -> Failure:
    try:
        raise error
    except BaseException as caught:
        return failure_of(caught)


def test_an_exception_comes_back_as_itself() -> None:
    failure = raised(Own("bad", 7))
    assert failure.types[:2] == (f"{__name__}.Own", "builtins.ValueError")
    assert failure.types[-1] == "builtins.BaseException"
    assert "in raised" in failure.traceback
    again = exception_of(failure)
    assert type(again) is Own
    assert again.args == ("bad", 7)
    assert isinstance(again.__cause__, RemoteTraceback)
    assert "in raised" in str(again.__cause__)


def test_one_that_does_not_unpickle_is_made_again_from_its_message() -> None:
    failure = raised(TwoArguments("a", "b"))
    assert failure.pickled == b""
    again = exception_of(failure)
    assert type(again) is TwoArguments
    assert str(again) == "a and b"


def test_an_inner_class_is_found_by_its_name() -> None:
    failure = Failure(types=("json.decoder.JSONDecodeError",), message="Expecting value")
    assert type(exception_of(failure)) is json.JSONDecodeError or isinstance(
        exception_of(failure), TaskFailedError
    )


@pytest.mark.parametrize(
    "failure",
    [
        Failure(),
        Failure(types=("no_such_module.Error",), message="m"),
        Failure(types=("json.no_such_class",), message="m"),
        Failure(types=("builtins.dict",), message="m"),
        Failure(types=("builtins.ValueError",), message="m", pickled=b"\x80\x05broken"),
        Failure(types=("__main__.Error",), message="m", pickled=b"cno_such_module\nError\n."),
    ],
)
def test_what_cannot_be_had_is_a_task_failed_error(failure: Failure) -> None:
    again = exception_of(failure)
    assert isinstance(again, TaskFailedError | ValueError)
    assert failure.message in str(again)


def test_an_exception_without_its_attributes_is_not_made() -> None:
    assert isinstance(exception_of(Failure(types=raised(Silent()).types)), TaskFailedError)
    failure = Failure(types=raised(NeedsAttribute(detail="d")).types, message="d")
    assert isinstance(exception_of(failure), TaskFailedError)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_would_end_the_client_does_not(error: BaseException) -> None:
    again = exception_of(raised(error))
    assert isinstance(again, TaskFailedError)
    assert type(error).__name__ in str(again)


def test_nothing_is_unpickled_or_imported_without_trust() -> None:
    again = exception_of(raised(Own("bad")), trusted=False)
    assert type(again) is TaskFailedError
    assert "Own: bad" in str(again)


def test_texts_are_bounded_and_legal() -> None:
    failure = raised(Own("é" * 100_000 + "\ud800"))
    assert len(failure.message.encode()) <= ERROR_TEXT_BYTES_MAX
    assert failure.message.endswith("\\ud800")
    assert "cut here" in failure.message
    assert failure.pickled == b""
    assert "RuntimeError" in raised(Silent()).message


def test_a_deep_recursion_is_a_short_text() -> None:
    def dig(depth: Any) -> Any:
        return dig(depth + 1)

    with pytest.raises(RecursionError) as caught:
        dig(0)
    assert len(failure_of(caught.value).traceback.encode()) <= ERROR_TEXT_BYTES_MAX
