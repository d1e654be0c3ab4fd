"""Bodies of tasks whose results and exceptions do what they should not."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, NoReturn

from holdfast.payloads import decode_result, encode_result
from tests.engines.bodies import touch, wait_for

ERRORS = {
    "exit": SystemExit(3),
    "key": KeyboardInterrupt(),
    "generator": GeneratorExit(),
    "disk": OSError("backing file is gone"),
    "pipe": BrokenPipeError("torn"),
    "value": ValueError("wrong"),
}


class BadResult:
    """Raises while it is pickled."""

    def __init__(self, error: str) -> None:
        self.error = error

    def __reduce__(self) -> NoReturn:
        raise ERRORS[self.error]


class BadValue:
    """Raises while it is unpickled."""

    def __init__(self, error: str) -> None:
        self.error = error

    def __setstate__(self, state: dict[str, str]) -> NoReturn:
        raise ERRORS[state["error"]]


def return_bad(error: str) -> Any:
    return BadResult(error)


async def return_bad_later(error: str) -> Any:
    return BadResult(error)


def take(value: object) -> None:
    pass


class Untold(Exception):
    """Ends the process where its text is asked, and where it is pickled."""

    def __str__(self) -> str:
        raise SystemExit(4)

    def __reduce__(self) -> NoReturn:
        raise SystemExit(5)


class Untraced(Exception):
    """Gives no exception where it is to take a traceback."""

    def with_traceback(self, _: object) -> Any:
        return None


class Untraceable(Exception):
    def with_traceback(self, _: object) -> Any:
        raise SystemExit(6)


class Elusive(Exception):
    def __getattribute__(self, name: str) -> NoReturn:
        raise SystemExit(name)


RAISED = {kind.__name__: kind for kind in (Untold, Untraced, Untraceable, Elusive)}


def fail(name: str) -> NoReturn:
    raise RAISED[name]("text")


async def fail_later(name: str) -> NoReturn:
    raise RAISED[name]("text")


def read_and_hold(folder: str, module: str, mark: str, go: str) -> Any:
    """Import a module, say so, and return what it holds once there is a sign."""
    if folder not in sys.path:
        sys.path.insert(0, folder)
    value = importlib.import_module(module).VALUE
    touch(mark)
    wait_for(go)
    return [value, os.getpid()]


async def read_and_hold_later(folder: str, module: str, mark: str, go: str) -> Any:
    return read_and_hold(folder, module, mark, go)


class Slow:
    """Holds whoever unpickles it."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __setstate__(self, state: dict[str, str]) -> None:
        touch(state["mark"])
        wait_for(state["mark"] + ".never")


def read_slowly(mark: str, folder: str) -> Any:
    """Read a result, as a task does that waits for another one."""
    return decode_result(encode_result(Slow(mark), spill_to=folder).payload)
