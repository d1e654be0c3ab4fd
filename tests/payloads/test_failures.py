from __future__ import annotations

import json
import signal
import threading
from typing import Any, NoReturn

import pytest

from holdfast.errors import TaskFailedError
from holdfast.model.limits import ERROR_TEXT_BYTES_MAX
from holdfast.model.outcome import Failure
from holdfast.payloads import RemoteTraceback, exception_of, failure_of
from holdfast.payloads.failures import PICKLED_BYTES_MAX


class Own(ValueError):
    pass


class TwoArguments(Exception):
    """The classic that pickles and does not unpickle."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(f"{left} and {right}")
        self.right = right


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


def test_one_that_does_not_unpickle_comes_back_in_parts() -> None:
    again = exception_of(raised(TwoArguments("a", "b")))
    assert type(again) is TwoArguments
    assert (str(again), again.right) == ("a and b", "b")
    assert "in raised" in str(again.__cause__)


def test_one_of_which_no_pickle_came_is_made_again_from_its_message() -> None:
    failure = raised(TwoArguments("a", "b"))
    again = exception_of(Failure(types=failure.types, message=failure.message))
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
    assert exception_of(failure).args == (failure.message,)
    assert "RuntimeError" in raised(Silent()).message


def test_a_deep_recursion_is_a_short_text() -> None:
    def dig(depth: Any) -> Any:
        return dig(depth + 1)

    with pytest.raises(RecursionError) as caught:
        dig(0)
    assert len(failure_of(caught.value).traceback.encode()) <= ERROR_TEXT_BYTES_MAX


ENDS = (SystemExit(3), KeyboardInterrupt(), GeneratorExit(), RuntimeError("own"))


class Ending(Exception):
    """Each look at it that its class can answer ends the process, or fails."""

    end: BaseException = ENDS[0]

    def __str__(self) -> str:
        raise self.end

    def __reduce__(self) -> NoReturn:
        raise self.end


class Unread(Exception):
    def __setstate__(self, state: object) -> NoReturn:
        raise SystemExit(state)


class Elusive(Exception):
    def __getattribute__(self, name: str) -> NoReturn:
        raise SystemExit(name)


class Guarded(ValueError):
    """Refuses what is set, and is false."""

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise SystemExit(name)

    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize("end", ENDS)
def test_an_exception_whose_class_ends_the_process_is_described(
    end: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ending, "end", end)
    failure = raised(Ending("x"))
    assert failure.types[0] == f"{__name__}.Ending"
    assert failure.message == f"<str() of the exception raises {type(end).__name__}>"
    assert "in raised" in failure.traceback
    assert failure.pickled == b""
    assert type(exception_of(failure)) is TaskFailedError


def test_an_exception_that_answers_nothing_is_described() -> None:
    failure = raised(Elusive("x"))
    assert failure.types[0] == f"{__name__}.Elusive"
    assert failure.message == "x"
    assert "in raised" in failure.traceback
    assert failure.pickled == b""
    assert type(exception_of(failure)) is TaskFailedError


def test_one_that_ends_the_process_as_it_comes_back_comes_back_in_parts() -> None:
    error = Unread("text")
    error.detail = 1  # type: ignore[attr-defined]  # a state to set
    again = exception_of(raised(error))
    assert type(again) is Unread
    assert vars(again) == {"detail": 1}


def test_one_that_refuses_attributes_comes_back() -> None:
    again = exception_of(raised(Guarded("text")))
    assert type(again) is Guarded
    assert isinstance(again.__cause__, RemoteTraceback)


def test_ctrl_c_meanwhile_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Exception):
        def __str__(self) -> str:
            signal.raise_signal(signal.SIGINT)
            return "text"

    with pytest.raises(KeyboardInterrupt):
        failure_of(Slow())


class OwnGroup(ExceptionGroup[Exception]):
    pass


class PickyGroup(ExceptionGroup[Exception]):
    """Cannot be made of a text and its members."""

    def __new__(cls, members: list[Exception], *, text: str) -> PickyGroup:
        return super().__new__(cls, text, members)

    def __init__(self, members: list[Exception], *, text: str) -> None:
        pass


def test_a_group_comes_back_whole_where_it_can() -> None:
    again = exception_of(raised(ExceptionGroup("g", [Own("a", 1), OwnGroup("h", [KeyError("k")])])))
    assert isinstance(again, ExceptionGroup)
    assert repr(again) == "ExceptionGroup('g', [Own('a', 1), OwnGroup('h', [KeyError('k')])])"


def test_of_a_group_that_does_not_each_member_comes_back_by_itself() -> None:
    inner = OwnGroup("h", [TwoArguments("a", "b"), KeyError("k")])
    again = exception_of(
        raised(ExceptionGroup("g", [Own("a", 1), Ending(), TwoArguments("c", "d"), inner]))
    )
    assert type(again) is ExceptionGroup
    assert again.message == "g"
    assert "in raised" in str(again.__cause__)
    own, ending, parted, nested = again.exceptions
    assert (type(own), own.args) == (Own, ("a", 1))
    assert type(ending) is TaskFailedError
    assert "Ending" in str(ending)
    assert isinstance(parted, TwoArguments)
    assert (str(parted), parted.right) == ("c and d", "d")
    assert type(nested) is OwnGroup
    assert [type(member) for member in nested.exceptions] == [TwoArguments, KeyError]
    matched, _ = again.split(KeyError)
    assert matched is not None


def test_notes_of_a_group_and_of_its_members_come_back() -> None:
    member = TwoArguments("a", "b")
    member.add_note("of the member")
    group = OwnGroup("g", [member])
    group.add_note("of the group")
    vars(group)["lock"] = threading.Lock()  # It does not pickle.
    again = exception_of(raised(group))
    assert isinstance(again, OwnGroup)
    assert again.__notes__ == ["of the group"]
    assert again.exceptions[0].__notes__ == ["of the member"]
    again = exception_of(raised(ExceptionGroup("g", [group])))
    assert isinstance(again, ExceptionGroup)
    assert again.exceptions[0].__notes__ == ["of the group"]


def test_a_group_that_cannot_be_made_again_is_a_plain_one() -> None:
    error = PickyGroup([ValueError("a")], text="picky")
    error.add_note("told")
    again = exception_of(raised(error))
    assert type(again) is ExceptionGroup
    assert again.__notes__ == ["told"]
    assert (again.message, repr(again.exceptions)) == ("picky", "(ValueError('a'),)")


def test_a_large_group_is_bounded_and_says_what_it_leaves_out() -> None:
    large = ValueError("x" * PICKLED_BYTES_MAX)
    failure = raised(ExceptionGroup("g", [large, *(KeyError(n) for n in range(5000))]))
    assert len(failure.pickled) <= PICKLED_BYTES_MAX
    again = exception_of(failure)
    assert isinstance(again, ExceptionGroup)
    first, *rest, last = again.exceptions
    assert type(first) is ValueError
    assert len(str(first)) <= 1024
    assert {type(member) for member in rest} == {KeyError}
    assert len(rest) > 20
    assert str(last) == (
        f"the task failed: {5000 - len(rest)} more exceptions of the group do not fit"
    )


def test_a_deep_group_is_bounded() -> None:
    error: Exception = TwoArguments("a", "b")
    for _ in range(2000):
        error = ExceptionGroup("g", [error])
    assert isinstance(exception_of(raised(error)), ExceptionGroup | TaskFailedError)


def test_what_ends_the_process_makes_no_group_that_a_client_would_raise() -> None:
    again = exception_of(raised(BaseExceptionGroup("g", [SystemExit(3), ValueError(1)])))
    assert type(again) is TaskFailedError
