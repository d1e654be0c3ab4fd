"""What can be said of an exception or a class whose own code may fail, or end the process.

Nothing here raises, but for what a signal's handler raised meanwhile.
"""

from __future__ import annotations

from typing import Any, Final

from holdfast.payloads.interrupts import is_of_a_signal

SCRIPT: Final = "__main__"
SPAWNED: Final = "__mp_main__"
"""What `multiprocessing` calls the script in a process that it does not fork."""


def module_named(name: str) -> str:
    """Return the name of a module as it is in every process: a script has two, and is one."""
    return SCRIPT if name == SPAWNED else name


def text_of(error: BaseException) -> str:
    """Return the text of an exception, or the reason that there is none."""
    try:
        # A plain str, also where `__str__` returns one of a class of its own.
        return str.__str__(str(error))
    except BaseException as problem:
        if is_of_a_signal(problem):
            raise
        return f"<str() of the exception raises {short_name_of(type(problem))}>"


def short_name_of(kind: type) -> str:
    """Return the name of a class, without asking its metaclass."""
    name: str = type.__dict__["__name__"].__get__(kind)
    return name


def name_of(kind: type) -> str:
    """Return the qualified name of a class, as retry policies compare it."""
    try:
        module: Any = type.__dict__["__module__"].__get__(kind)
    except AttributeError:
        module = None
    name = type.__dict__["__qualname__"].__get__(kind)
    found = f"{module_named(str.__str__(module)) if isinstance(module, str) else '?'}.{name}"
    return found.encode(errors="backslashreplace").decode()


def is_sound(error: BaseException) -> bool:
    """Tell whether an exception can be asked for its class and its text, as all who catch it do."""
    try:
        str(error)
        return error.__class__ is type(error)
    except BaseException as problem:
        if is_of_a_signal(problem):
            raise
        return False


def line_of(error: BaseException) -> str:
    """Return one exception as `Name: text`, or its name alone where it has no text."""
    name, text = short_name_of(type(error)), text_of(error)
    return f"{name}: {text}" if text else name
