"""An exception in parts: its class, its arguments, and those of its attributes that pickle.

For one whose own pickle does not come back whole. None of its own code runs when it comes back,
neither `__init__` nor `__setattr__`, so that what its constructor wants does not matter. What an
attribute's class raises costs that attribute alone. Never judges whether what came back is sound.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from types import MemberDescriptorType
from typing import Any, Final, NamedTuple

from holdfast.payloads import pickling
from holdfast.payloads.interrupts import is_of_a_signal

ATTRIBUTES_MAX: Final = 256
"""So many attributes are looked at; to pickle each is the work of its class."""
_HEAP_TYPE: Final = 1 << 9
"""The flag of a class that was made at run time, and not by the interpreter itself."""
_LEFT_OUT: Final = frozenset(
    {
        (BaseException, "__suppress_context__"),
        (BaseExceptionGroup, "message"),
        (BaseExceptionGroup, "exceptions"),
        (AttributeError, "obj"),
    }
)
"""What is carried by other means, or, as the whole object that lacked an attribute, not at all."""

Attributes = tuple[tuple[str, bytes], ...]
"""Names with a pickle each, so that one which cannot be loaded costs no other."""


class Parts(NamedTuple):
    """One exception. Without `args` it gets its text. Pickles in stores name this class."""

    kind: object
    args: bytes
    attributes: Attributes


def parts_of(error: Exception, bytes_max: int) -> bytes:
    """Return the pickle of an exception's parts, as many as there is room for; b"" for none.

    Raises what its class raises while it is pickled.
    """
    kind = type(error)
    left = bytes_max - len(pickling.dumps(Parts(kind, b"", ())))
    args = _pickle_of(_ARGS.__get__(error), left)
    data = pickling.dumps(Parts(kind, args, attributes_of(error, left - len(args))))
    return data if len(data) <= bytes_max else b""


def exception_of_parts(parts: Parts, text: str) -> Exception | None:
    """Make the exception again; None where its class is no Exception."""
    kind = parts.kind
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return None
    # The first that is the interpreter's own makes the object; all others only add to it.
    maker: Any = next(base for base in _mro_of(kind) if not _FLAGS.__get__(base) & _HEAP_TYPE)
    error: Exception = maker.__new__(kind)
    _ARGS.__set__(error, pickling.loads(parts.args) if parts.args else (text,))
    set_attributes(error, parts.attributes)
    return error


def attributes_of(error: BaseException, bytes_max: int) -> Attributes:
    """Return those attributes that pickle and come back, the small ones first; notes are some."""
    pickled = []
    for name, value in islice(_attributes_of(error), ATTRIBUTES_MAX):
        if data := _pickle_of(value, bytes_max):
            pickled.append((len(pickling.dumps((name, data))), name, data))
    kept = []
    for size, name, data in sorted(pickled):
        bytes_max -= size
        if bytes_max < 0:
            break
        kept.append((name, data))
    return tuple(kept)


def set_attributes(error: BaseException, attributes: Attributes) -> None:
    """Set attributes without asking the class; those that cannot be loaded here are left out."""
    fields = dict(_fields_of(type(error)))
    values: dict[str, Any] = {}
    for name, data in attributes:
        try:
            value = pickling.loads(data)
            if name in fields:
                fields[name].__set__(error, value)
            else:
                values[name] = value
        except BaseException as problem:
            # A module that is missing here: what did travel still tells.
            if is_of_a_signal(problem):
                raise
    dict.update(_DICT.__get__(error), values)


def _attributes_of(error: BaseException) -> Iterator[tuple[str, Any]]:
    for name, field in _fields_of(type(error)):
        try:
            value = field.__get__(error)
        except AttributeError:
            continue  # A slot that was never set.
        if value is not None:
            yield name, value
    for name, value in tuple(dict.items(_DICT.__get__(error))):
        if type(name) is str:
            yield name, value


def _fields_of(kind: type) -> Iterator[tuple[str, MemberDescriptorType]]:
    """Yield what instances hold outside of their `__dict__`: slots, and what an OSError has."""
    for base in reversed(_mro_of(kind)):
        for name, field in _NAMES.__get__(base).items():
            if type(field) is MemberDescriptorType and (base, name) not in _LEFT_OUT:
                yield name, field


def _pickle_of(value: object, bytes_max: int) -> bytes:
    """Return the pickle of one part, b"" where it does not come back or is too large."""
    try:
        data = pickling.dumps(value)
        if len(data) <= bytes_max:
            pickling.loads(data)
            return data
    except BaseException as problem:
        if is_of_a_signal(problem):
            raise
    return b""


def _mro_of(kind: type) -> tuple[type, ...]:
    found: tuple[type, ...] = type.__dict__["__mro__"].__get__(kind)
    return found


# Read from where they are kept, because an instance or its class may answer for them, or raise.
_ARGS: Final = BaseException.__dict__["args"]
_DICT: Final = BaseException.__dict__["__dict__"]
_FLAGS: Final = type.__dict__["__flags__"]
_NAMES: Final = type.__dict__["__dict__"]
