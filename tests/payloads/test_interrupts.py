"""What a signal raised passes; what the code of a value raised does not."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from holdfast.payloads.interrupts import is_of_a_signal

SIGNAL = signal.SIGUSR2


def caught(run: Callable[[], object]) -> BaseException:
    try:
        run()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def ask(run: Callable[[], object]) -> bool:
    return is_of_a_signal(caught(run))


class Stop(BaseException):
    pass


def stop(*_: object) -> NoReturn:
    raise Stop


class Handler:
    def method(self, *_: object) -> NoReturn:
        self.deeper()

    def deeper(self) -> NoReturn:
        raise Stop

    def __call__(self, *_: object) -> NoReturn:
        raise Stop


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    former = [(number, signal.getsignal(number)) for number in (SIGNAL, signal.SIGINT)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in former:
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "handler", [stop, Handler().method, Handler(), functools.partial(Handler().method, "more")]
)
def test_what_a_handler_raised_is_of_a_signal(handler: Any) -> None:
    signal.signal(SIGNAL, handler)
    assert ask(lambda: signal.raise_signal(SIGNAL))
    assert not ask(Handler().deeper)


def test_the_key_is_told_from_a_class_that_raises_the_same() -> None:
    def pretend() -> NoReturn:
        raise KeyboardInterrupt

    def pretend_later() -> None:
        try:
            pretend()
        except KeyboardInterrupt:
            raise

    assert ask(lambda: signal.raise_signal(signal.SIGINT))
    assert not ask(pretend)
    assert not ask(pretend_later)


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), ValueError(), Stop()])
def test_what_was_raised_otherwise_is_not(error: BaseException) -> None:
    def fail() -> NoReturn:
        raise error

    assert not ask(fail)
    assert not is_of_a_signal(error)


def test_nothing_is_of_a_signal_in_another_thread() -> None:
    signal.signal(SIGNAL, stop)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(ask(stop)))
    thread.start()
    thread.join()
    assert answers == [False]
