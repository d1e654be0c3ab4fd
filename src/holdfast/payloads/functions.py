"""Functions by import path where they have one, else by value."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import MethodType
from typing import Any, NamedTuple

from holdfast.errors import InvalidInputError, NotSerializableError
from holdfast.interpreter import python_version
from holdfast.model.limits import NAME_BYTES_MAX
from holdfast.payloads import pickling
from holdfast.payloads.describing import SCRIPT, module_named
from holdfast.payloads.interrupts import is_of_a_signal

WRAPPED = "__holdfast_function__"
"""A task object, as `@task` makes it, keeps the plain function under this attribute."""


class EncodedFunction(NamedTuple):
    """`code` is empty where `name` is an import path; `python` is set where there is code."""

    name: str
    code: bytes
    python: str


def unwrap(function: Any) -> Any:
    """Return the plain function of a task object, and anything else as it is.

    A method whose function is a task object, as `classmethod` makes one, stays bound.
    """
    if isinstance(function, MethodType) and hasattr(function.__func__, WRAPPED):
        return MethodType(getattr(function.__func__, WRAPPED), function.__self__)
    return getattr(function, WRAPPED, function)


def encode_function(function: Callable[..., Any]) -> EncodedFunction:
    """Name a function by `module:qualname` where that leads to it, else pickle it by value.

    What stands in `__main__`, in a function or in a lambda goes by value. A script is called
    `__main__` here also in a process that `multiprocessing` spawned.
    Raises InvalidInputError for what cannot be called, NotSerializableError naming the part.
    """
    plain = unwrap(function)
    if not callable(plain):
        raise InvalidInputError(f"{type(plain).__qualname__} is not callable; give a function")
    named = plain if isinstance(getattr(plain, "__qualname__", None), str) else type(plain)
    name = f"{_module_of(named)}:{named.__qualname__}"
    if _leads_to(name, plain):
        return EncodedFunction(name, b"", "")
    try:
        code = pickling.dumps(plain)
    except BaseException as error:
        if is_of_a_signal(error):
            raise
        raise NotSerializableError(
            f"the function {name} cannot be pickled: {pickling.blame(plain, named.__name__)}. "
            f"Move it to a module that workers can import"
        ) from error
    shown = name.encode(errors="replace")[:NAME_BYTES_MAX].decode(errors="ignore")
    return EncodedFunction(shown, code, python_version())


def decode_function(code: bytes) -> Callable[..., Any]:
    """Return the function of a pickle. What unpickling raises comes through as it is.

    Raises InvalidInputError where it is none.
    """
    function = unwrap(pickling.loads(code))
    if not callable(function):
        raise InvalidInputError(f"the code is a {type(function).__qualname__}, not a function")
    plain: Callable[..., Any] = function
    return plain


def _module_of(named: Any) -> str:
    return module_named(str(getattr(named, "__module__", None) or "?"))


def _leads_to(name: str, function: object) -> bool:
    """Tell whether importing `name` elsewhere will find this very function."""
    module_name, _, qualname = name.partition(":")
    travels = name.encode(errors="replace")
    if module_name == SCRIPT or "<" in qualname or len(travels) > NAME_BYTES_MAX:
        return False
    if travels.decode() != name:
        return False
    found: Any = sys.modules.get(module_name)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found is not None and unwrap(found) is function
