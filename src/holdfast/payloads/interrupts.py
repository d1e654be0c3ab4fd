"""Whether an exception was raised by a signal's handler, or by the code that it came out of.

Pickling, unpickling and describing a value runs code of the user's classes, and whatever that
raises is an error of the value, be it SystemExit. A signal that arrives meanwhile is none: Ctrl-C,
a handler of the program, and the soft cancellation of a task pass through.
"""

from __future__ import annotations

import functools
import signal
import threading
from types import CodeType, TracebackType
from typing import Any


def is_of_a_signal(error: BaseException) -> bool:
    """Tell whether a signal's handler raised this; to be asked where it was caught."""
    if threading.get_ident() != threading.main_thread().ident:
        return False  # Handlers run in the main thread only.
    frames = frames_of(error)
    codes = {step.tb_frame.f_code for step in frames}
    if codes & {_code_of(signal.getsignal(number)) for number in signal.valid_signals()}:
        return True
    return issubclass(type(error), KeyboardInterrupt) and not (frames and _raises(frames[-1]))


def traceback_of(error: BaseException) -> TracebackType | None:
    """Return an exception's traceback, without asking its class."""
    found: TracebackType | None = BaseException.__dict__["__traceback__"].__get__(error)
    return found


def frames_of(error: BaseException) -> list[TracebackType]:
    """Return the steps of an exception's traceback, the innermost one last."""
    frames = []
    step = traceback_of(error)
    while step is not None:
        frames.append(step)
        step = step.tb_next
    return frames


def _code_of(handler: Any) -> CodeType | None:
    """Return the Python code of a handler; None where it has none, as Python's own for Ctrl-C."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    code = getattr(getattr(handler, "__func__", handler), "__code__", None)
    if code is None:
        code = getattr(type(handler).__dict__.get("__call__"), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _raises(step: TracebackType) -> bool:
    """Tell whether a frame ended by a `raise`: Python's own handler leaves no frame of its own."""
    from opcode import opmap

    return step.tb_frame.f_code.co_code[step.tb_lasti] == opmap["RAISE_VARARGS"]
