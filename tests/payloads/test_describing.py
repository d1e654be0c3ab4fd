"""Exceptions and classes whose own code fails are described all the same."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from holdfast.payloads.describing import is_sound, line_of, name_of, short_name_of, text_of


class Loud(str):
    def encode(self, *_: object, **__: object) -> NoReturn:
        raise SystemExit(4)


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise SystemExit(5)


def exception(text: Any) -> Exception:
    class Own(Exception):
        def __str__(self) -> str:
            if isinstance(text, BaseException):
                raise text
            return text  # type: ignore[no-any-return]  # that is the point

    return Own()


def test_a_text_is_a_plain_str() -> None:
    assert type(text_of(exception(Loud("text")))) is str
    assert line_of(exception(Loud("text"))) == "Own: text"
    assert line_of(KeyboardInterrupt()) == "KeyboardInterrupt"


@pytest.mark.parametrize("error", [ValueError(), SystemExit(3), KeyboardInterrupt()])
def test_a_text_that_cannot_be_had_says_why(error: BaseException) -> None:
    assert text_of(exception(error)) == f"<str() of the exception raises {type(error).__name__}>"
    assert "raises TypeError" in text_of(exception(3))


def test_classes_are_named_without_their_metaclass() -> None:
    hostile = Meta("Hostile", (), {"__module__": "of.the.user"})
    assert name_of(hostile) == "of.the.user.Hostile"
    assert short_name_of(hostile) == "Hostile"
    assert name_of(type("Odd", (), {"__module__": 3})) == "?.Odd"
    assert name_of(type("Odd", (), {"__module__": "\ud800"})) == "\\ud800.Odd"
    assert name_of(ValueError) == "builtins.ValueError"


def test_a_sound_exception_has_a_class_and_a_text() -> None:
    class Pretending(Exception):
        __class__ = ValueError  # type: ignore[assignment]  # a lie

    assert is_sound(ValueError("x"))
    assert not is_sound(exception(SystemExit(3)))
    assert not is_sound(exception(3))
    assert not is_sound(Pretending())
