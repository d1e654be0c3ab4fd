"""Exceptions as data, and data as exceptions.

The coordinator reads names and texts only. An exception itself travels as a pickle beside them,
for a client that trusts the submitter, and only where it survives the way.
"""

from __future__ import annotations

import importlib
import traceback
from typing import Any, Final

from holdfast.errors import HoldfastError, TaskFailedError
from holdfast.model.limits import ERROR_TEXT_BYTES_MAX
from holdfast.model.outcome import Failure
from holdfast.payloads import pickling

PICKLED_BYTES_MAX: Final = 16 * 1024
_TYPES_MAX: Final = 32
_NAME_CHARACTERS_MAX: Final = 256
_FRAMES_MAX: Final = 100
_CUT: Final = "\n[... cut here ...]\n"


class RemoteTraceback(HoldfastError):
    """The traceback of a task, as text: the cause of the exception that a client sees."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}" if self.args else ""


def failure_of(error: BaseException, *, with_pickle: bool = True) -> Failure:
    """Return an exception as data, within the bounds of `model.limits`. Never raises."""
    kinds = [kind for kind in type(error).__mro__ if kind is not object][:_TYPES_MAX]
    return Failure(
        types=tuple(name_of(kind)[:_NAME_CHARACTERS_MAX] for kind in kinds),
        message=bounded(_text_of(error)),
        traceback=bounded(_traceback_of(error)),
        pickled=_pickle_of(error) if with_pickle else b"",
    )


def exception_of(failure: Failure, *, trusted: bool = True) -> Exception:
    """Return the exception of a failure: the task's own where it can be had, else TaskFailedError.

    Its cause is a `RemoteTraceback`. Where the exception did not pickle but its class can be
    imported, an instance is made with the message alone. What is no `Exception` (SystemExit and
    its like) would end the caller, so that it becomes a TaskFailedError too. With `trusted` false
    nothing is unpickled or imported.
    """
    error = (_unpickle(failure.pickled) or _remake(failure)) if trusted else None
    if error is None:
        name = failure.types[0].removeprefix("builtins.") if failure.types else "the task failed"
        text = f"{name}: {failure.message}" if failure.message else name
        error = TaskFailedError(text, traceback=failure.traceback)
    if failure.traceback:
        error.__cause__ = RemoteTraceback(failure.traceback)
    return error


def name_of(kind: type) -> str:
    """Return the qualified name of a class, as retry policies compare it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def bounded(text: str, bytes_max: int = ERROR_TEXT_BYTES_MAX) -> str:
    """Return a text that encodes to at most so many bytes: head and tail of a longer one."""
    data = text.encode(errors="backslashreplace")
    if len(data) > bytes_max:
        half = (bytes_max - len(_CUT)) // 2
        head, tail = data[:half].decode(errors="ignore"), data[-half:].decode(errors="ignore")
        return f"{head}{_CUT}{tail}"
    return text if len(data) == len(text) else data.decode()


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:
        return f"<str() of the exception raises {type(problem).__name__}>"


def _traceback_of(error: BaseException) -> str:
    try:
        # Frames of a deep recursion are cut by the limit: the outermost and innermost ones tell.
        shown = traceback.TracebackException.from_exception(error, limit=-_FRAMES_MAX, compact=True)
        return "".join(shown.format())
    except Exception as problem:
        return f"{name_of(type(error))}: <no traceback: {type(problem).__name__}>"


def _pickle_of(error: BaseException) -> bytes:
    if not isinstance(error, Exception):
        return b""
    try:
        data = pickling.dumps(error)
        if len(data) > PICKLED_BYTES_MAX:
            return b""
        again = pickling.loads(data)
        same = type(again) is type(error) and str(again) == str(error)
    except Exception:
        # Many exceptions do not pickle; names, message and traceback travel all the same.
        return b""
    return data if same else b""


def _unpickle(data: bytes) -> Exception | None:
    if not data:
        return None
    try:
        error = pickling.loads(data)
    except Exception:
        # A module that is missing here: the caller falls back to names and texts.
        return None
    return error if isinstance(error, Exception) else None


def _remake(failure: Failure) -> Exception | None:
    """Make an instance of the named class without calling its `__init__`."""
    if not failure.types:
        return None
    kind = _find_class(failure.types[0])
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return None
    try:
        error = kind.__new__(kind, failure.message)
        str(error)
    except Exception:
        # A class that cannot be without its attributes: TaskFailedError tells the same.
        return None
    return error


def _find_class(name: str) -> Any:
    """Import the class of a qualified name, whose module ends at one of its dots."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:length])
        if module_name == "__main__" or "<" in name:
            return None
        try:
            found: Any = importlib.import_module(module_name)
            for part in parts[length:]:
                found = getattr(found, part)
        except ModuleNotFoundError:
            continue
        except Exception:
            # The user's module fails to load here: the caller falls back.
            return None
        return found
    return None
