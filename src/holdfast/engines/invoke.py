"""One attempt in a child: find the function, decode the arguments, call, encode what came of it.

Runs user code, so anything may be raised here: every exception of an attempt becomes its outcome.
Owns no socket and no loop.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from holdfast.engines.current import TaskCancelled
from holdfast.engines.packets import Charge, Work, pack_report
from holdfast.errors import BlobTooLargeError, InvalidInputError, NotSerializableError
from holdfast.interpreter import python_version
from holdfast.model.messages import Ended
from holdfast.model.outcome import Encoding, Failure, OutcomeKind, Payload
from holdfast.payloads import (
    decode_call,
    decode_function,
    encode_result,
    failure_of,
)
from holdfast.payloads.describing import short_name_of
from holdfast.payloads.failures import bounded
from holdfast.payloads.functions import unwrap
from holdfast.payloads.interrupts import traceback_of

FUNCTIONS_MAX: Final = 128
"""Functions that a child keeps resolved; pickled ones are at most 64 KiB each, or in a file."""

_PYTHON: Final = python_version()


class Unfit(Exception):
    """The attempt cannot be made here: its outcome, before any user code was called."""

    def __init__(self, kind: OutcomeKind, failure: Failure) -> None:
        super().__init__(failure.message)
        self.kind = kind
        self.failure = failure


class Call(NamedTuple):
    """What is to be called."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Report(NamedTuple):
    """How an attempt ended, and the bytes that tell of it."""

    kind: OutcomeKind
    data: bytes

    @property
    def blames_place(self) -> bool:
        """Whether it ended for what it lacked here: the process may be what lacks it."""
        return self.kind is OutcomeKind.ENVIRONMENT


class Functions:
    """The functions that this child has resolved, the least recently used dropped first."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: OrderedDict[str | bytes, Callable[..., Any]] = OrderedDict()

    def resolve(self, work: Work) -> Callable[..., Any]:
        """Return the function of an order. Raises what its module or its pickle raises."""
        key = work.code or work.code_path or work.function
        known = self._known
        function = known.get(key)
        if function is not None:
            known.move_to_end(key)
            return function
        if work.code:
            function = decode_function(work.code)
        elif work.code_path:
            function = decode_function(Path(os.fsdecode(work.code_path)).read_bytes())
        else:
            function = _import(work.function)
        known[key] = function
        if len(known) > FUNCTIONS_MAX:
            known.popitem(last=False)
        return function


def prepare(functions: Functions, work: Work) -> Call:
    """Return the call of an order. Raises Unfit with the outcome where it cannot be made."""
    pickled = work.code or work.code_path or work.payload.encoding is not Encoding.JSON
    if pickled and work.python not in ("", _PYTHON):
        raise Unfit(
            OutcomeKind.ENVIRONMENT,
            Failure(
                message=f"{work.function} was pickled by Python {work.python}; this worker runs "
                f"{_PYTHON}. Start workers with {work.python}, or give the task a tag of theirs"
            ),
        )
    try:
        function = functions.resolve(work)
    except (InvalidInputError, MemoryError) as error:
        raise _unfit(error) from error
    except BaseException as error:
        # The module's own code ran: whatever it raises, it cannot be loaded here.
        raise Unfit(OutcomeKind.ENVIRONMENT, _about("cannot load", work, error)) from error
    try:
        args, kwargs = decode_call(work.payload, os.fsdecode(work.payload_path))
    except (ImportError, AttributeError, OSError) as error:
        text = "cannot load the arguments of"
        raise Unfit(OutcomeKind.ENVIRONMENT, _about(text, work, error)) from error
    except (InvalidInputError, MemoryError) as error:
        raise _unfit(error) from error
    except BaseException as error:
        text = "cannot decode the arguments of"
        raise Unfit(OutcomeKind.INVALID, _about(text, work, error)) from error
    return Call(function, args, kwargs)


def returned(work: Work, value: object, run_us: int, charge: Charge) -> Report:
    """Return the report of an attempt that returned; a large value goes to a file."""
    try:
        # The name says whose it is: what a child that dies leaves unfinished is removed.
        folder = os.fsdecode(charge.results)
        encoded = encode_result(
            value,
            spill_to=folder,
            prefix=f"{charge.serial}-",
            pickled=work.payload.encoding is Encoding.SERVICE,
        )
    except (NotSerializableError, BlobTooLargeError) as error:
        return over(work, OutcomeKind.INVALID, failure_of(error, with_pickle=False), run_us)
    except MemoryError as error:
        return over(work, OutcomeKind.OUT_OF_MEMORY, failure_of(error), run_us)
    except OSError as error:
        failure = _about("cannot write the result of", work, error)
        return over(work, OutcomeKind.ENVIRONMENT, failure, run_us)
    ended = _ended(work, OutcomeKind.SUCCEEDED, encoded.payload, None, run_us)
    return Report(ended.kind, pack_report(ended, encoded.path))


def raised(work: Work, error: BaseException, run_us: int, *, interrupted: bool) -> Report:
    """Return the report of an attempt that raised, whatever it raised.

    The exception is asked nothing that its class could answer by itself, and so end the child.
    """
    steps = traceback_of(error)
    if steps is not None:
        # The frame of the lane, which called, tells a user nothing.
        steps = steps.tb_next
    if interrupted and short_name_of(type(error)) == "CancelledError":
        # A coroutine is interrupted by a cancellation, which asyncio knows by its own name.
        error = TaskCancelled()
    BaseException.with_traceback(error, steps)
    if issubclass(type(error), MemoryError):
        return over(work, OutcomeKind.OUT_OF_MEMORY, failure_of(error), run_us)
    return over(work, OutcomeKind.RAISED, failure_of(error), run_us)


def over(work: Work, kind: OutcomeKind, failure: Failure, run_us: int = 0) -> Report:
    """Return the report of an attempt that left no result."""
    return Report(kind, pack_report(_ended(work, kind, None, failure, run_us), ""))


def _ended(
    work: Work, kind: OutcomeKind, result: Payload | None, failure: Failure | None, run_us: int
) -> Ended:
    return Ended(work.task, work.token, kind, result, failure, run_us)


def _import(name: str) -> Callable[..., Any]:
    module_name, _, qualname = name.partition(":")
    if not module_name or not qualname:
        raise InvalidInputError(f"{name!r} is not a function's name of the form module:qualname")
    if module_name == "__main__":
        raise InvalidInputError(f"{name} stands in __main__: it has to be submitted by value")
    found = functools.reduce(getattr, qualname.split("."), importlib.import_module(module_name))
    function = unwrap(found)
    if not callable(function):
        raise InvalidInputError(f"{name} is a {type(function).__qualname__}, not a function")
    plain: Callable[..., Any] = function
    return plain


def _unfit(error: Exception) -> Unfit:
    memory = isinstance(error, MemoryError)
    kind = OutcomeKind.OUT_OF_MEMORY if memory else OutcomeKind.INVALID
    return Unfit(kind, failure_of(error, with_pickle=False))


def _about(what: str, work: Work, error: BaseException) -> Failure:
    failure = failure_of(error, with_pickle=False)
    text = f"{what} {work.function} here: {short_name_of(type(error))}: {failure.message}"
    if issubclass(type(error), ModuleNotFoundError):
        text += f" (looked for in {', '.join(sys.path[:4])}, …)"
    return Failure(types=failure.types, message=bounded(text), traceback=failure.traceback)
