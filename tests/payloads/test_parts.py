"""Exceptions whose own pickle does not come back: what of them does."""

from __future__ import annotations

import pickle
import threading
from typing import Any, NoReturn

import pytest

from holdfast.payloads import parts
from holdfast.payloads.parts import ATTRIBUTES_MAX, Parts, exception_of_parts, parts_of

ROOM = 16 * 1024


class TwoArguments(Exception):
    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left}-{right}")
        self.left = left
        self.right = right


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Slotted(Exception):
    __slots__ = ("never", "obj", "place")

    def __init__(self, *, place: str) -> None:
        self.place = place
        self.obj = 1


class Unreachable(ConnectionError):
    """An OSError keeps its number and text outside of `args` where the class has an `__init__`."""

    def __init__(self, host: str, number: int) -> None:
        super().__init__(number, f"no way to {host}")
        self.host = host


class Malformed(UnicodeDecodeError):
    def __init__(self, data: bytes) -> None:
        super().__init__("utf-8", data, 0, 1, "as a test")


class Closed(Exception):
    """Its own code is never asked, neither on the way nor back."""

    def __new__(cls, *args: object) -> Closed:
        if args != ("made",):
            raise SystemExit("new")
        return super().__new__(cls, *args)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise SystemExit(name)

    def __getattr__(self, name: str) -> NoReturn:
        raise SystemExit(name)

    def __reduce__(self) -> NoReturn:
        raise SystemExit("reduce")


class Ending:
    """A value that ends the process as it is pickled, or as it comes back."""

    def __init__(self, when: str) -> None:
        self.when = when

    def __getstate__(self) -> str:
        if self.when == "away":
            raise SystemExit(self.when)
        return self.when

    def __setstate__(self, state: str) -> NoReturn:
        raise SystemExit(state)


def carried(error: Exception, room: int = ROOM) -> Any:
    data = parts_of(error, room)
    assert 0 < len(data) <= room
    return exception_of_parts(pickle.loads(data), "the text")


def test_arguments_and_attributes_come_back_whatever_the_constructor_wants() -> None:
    again = carried(TwoArguments(1, 2))
    assert type(again) is TwoArguments
    assert (again.args, again.left, again.right) == (("1-2",), 1, 2)
    again = carried(KeywordOnly(code=3))
    assert (type(again), str(again), again.code) == (KeywordOnly, "code 3", 3)


@pytest.mark.parametrize("value", [threading.Lock(), Ending("away"), Ending("back"), "x" * ROOM])
def test_an_attribute_that_cannot_travel_costs_no_other(value: object) -> None:
    error: Any = TwoArguments(1, 2)
    error.add_note("a note")
    error.value = value
    error.last = 5
    again = carried(error)
    assert vars(again) == {"left": 1, "right": 2, "__notes__": ["a note"], "last": 5}


@pytest.mark.parametrize("argument", [threading.Lock(), Ending("back"), "x" * ROOM])
def test_without_its_arguments_it_has_its_text(argument: object) -> None:
    error: Any = ValueError(argument)
    error.code = 7
    again = carried(error)
    assert (type(again), again.args, again.code) == (ValueError, ("the text",), 7)


def test_slots_and_what_the_interpreter_keeps_come_back() -> None:
    again = carried(Slotted(place="here"))
    assert (again.place, again.obj) == ("here", 1)
    assert not hasattr(again, "never")
    again = carried(Unreachable("there", 113))
    assert (again.errno, again.strerror, again.host) == (113, "no way to there", "there")
    assert str(again) == "[Errno 113] no way to there"
    again = carried(Malformed(b"\xff"))
    assert (again.object, again.reason, again.end) == (b"\xff", "as a test", 1)


def test_the_object_that_lacked_an_attribute_does_not_travel() -> None:
    again = carried(AttributeError("no x", name="x", obj=TwoArguments))
    assert (again.name, again.obj) == ("x", None)


def test_none_of_its_own_code_runs() -> None:
    error = Closed("made")
    vars(error)["detail"] = 1
    again = carried(error)
    assert type(again) is Closed
    assert vars(again) == {"detail": 1}


def test_what_cannot_be_loaded_here_is_left_out() -> None:
    attributes = (("gone", b"cno_such_module\nThing\n."), ("kept", pickle.dumps(1)))
    again = exception_of_parts(Parts(ValueError, b"", attributes), "t")
    assert vars(again) == {"kept": 1}


@pytest.mark.parametrize("kind", [int, SystemExit, "ValueError"])
def test_what_is_no_exception_class_makes_none(kind: Any) -> None:
    assert exception_of_parts(Parts(kind, b"", ()), "t") is None


def test_small_attributes_come_first_and_their_number_is_bounded() -> None:
    error: Any = ValueError("v")
    error.large = "x" * (ROOM - 400)
    error.larger = "x" * (ROOM - 300)
    error.small = 1
    assert set(vars(carried(error))) == {"large", "small"}
    many: Any = ValueError("v")
    vars(many).update({f"a{n}": n for n in range(ATTRIBUTES_MAX + 5)})
    assert len(vars(carried(many))) == ATTRIBUTES_MAX
    vars(many)[5] = "no name"
    carried(many)


def test_without_room_there_is_none() -> None:
    assert parts_of(TwoArguments(1, 2), 20) == b""


def test_ctrl_c_meanwhile_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(data: bytes) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "is_of_a_signal", lambda error: True)
    data = parts_of(TwoArguments(1, 2), ROOM)
    monkeypatch.setattr("holdfast.payloads.pickling.loads", interrupted)
    with pytest.raises(KeyboardInterrupt):
        parts_of(TwoArguments(1, 2), ROOM)
    with pytest.raises(KeyboardInterrupt):
        exception_of_parts(pickle.loads(data)._replace(args=b""), "t")
