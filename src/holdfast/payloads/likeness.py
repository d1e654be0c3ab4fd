"""The likeness of values that are pickled: a digest that equal contents have in every process.

The bytes of a pickle are no such thing. Sets come in the order of a process's random hashes, what
`__main__` defines travels with its code and with names drawn at random, and an object that is met
twice is written once, so that even a text which the interpreter happens to keep makes other bytes.
Here a value is read as pickle reads it, with these differences: a set and a dictionary have no
order; classes, modules and functions count by their names, never by their code; a function that no
name leads to (a lambda, a closure) also by the values that it holds; and what is met twice is read
twice. What cannot be read so (cycles; more bytes than allowed) has no likeness.

Owns what counts as equal. It compares nothing, and never changes what travels.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Iterable
from hashlib import sha256
from operator import itemgetter
from types import FunctionType, ModuleType
from typing import Any

from holdfast.observe import logger
from holdfast.payloads import pickling
from holdfast.payloads.describing import module_named
from holdfast.payloads.functions import WRAPPED

_AS_PICKLED = frozenset({str, int, float, bool, type(None), bytes, list, tuple})
_IN_ORDER = ({str}, {int}, {bytes})
"""Elements of one of these types are put in order as they are; others by their digests."""
_REDUCERS = pickling.reducers()
_LOG = logger("payloads")


def likeness_of(value: object, *, bytes_max: int) -> bytes:
    """Return the likeness of a value, a SHA-256; b"" where it has none.

    Reads at most `bytes_max` bytes, as they come with what is met twice written twice.
    """
    try:
        return _Reading(bytes_max).digest(value)
    except Exception as error:
        # Code of the user's classes runs here: whatever it raises, the value pickled before.
        _LOG.debug("a value has no likeness: %s: %s", type(error).__name__, error)
        return b""


class _TooMuchError(Exception):
    """More is to be read than is allowed."""


class _Reading:
    """One value read to its end, with what is left of the bytes that this may take."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max
        self._within: set[int] = set()
        """The functions that are being read: they may hold themselves."""

    def digest(self, value: object) -> bytes:
        sink = _Sink(self)
        _Pickler(sink, self).dump(value)
        return sink.hash.digest()

    def take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _TooMuchError("it is too large, or holds the same things very often")

    def function(self, function: FunctionType) -> tuple[Any, ...]:
        name = ("function", _script_or(function.__module__), function.__qualname__)
        if "<" not in function.__qualname__ or id(function) in self._within:
            return name
        self._within.add(id(function))
        try:
            held = (function.__defaults__, function.__kwdefaults__, list(_closed_over(function)))
            return (*name, self.digest(held))
        finally:
            self._within.discard(id(function))

    def ordered(self, values: Iterable[Any]) -> list[Any]:
        """Return what has no order in the order that it has here."""
        listed = list(values)
        if set(map(type, listed)) in _IN_ORDER:
            return sorted(listed)
        return sorted(map(self.digest, listed))

    def items(self, pairs: Iterable[tuple[Any, Any]]) -> list[Any]:
        listed = list(pairs)
        if any(type(key) is not str for key, _ in listed):
            listed = [(self.digest(key), value) for key, value in listed]
        listed.sort(key=itemgetter(0))
        return listed


def _script_or(module: Any) -> Any:
    return module_named(module) if type(module) is str else module


def _closed_over(function: FunctionType) -> Iterable[tuple[Any, ...]]:
    for cell in function.__closure__ or ():
        try:
            yield (cell.cell_contents,)
        except ValueError:
            # Not assigned yet.
            yield ()


class _Sink:
    """Where the bytes go: nothing is kept of them."""

    def __init__(self, reading: _Reading) -> None:
        self.hash = sha256()
        self._reading = reading

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        self._reading.take(size)
        self.hash.update(data)
        return size


class _Pickler(pickle.Pickler):
    """Writes what counts. `persistent_id` is asked about every object, sets and all."""

    dispatch_table = _REDUCERS

    def __init__(self, sink: _Sink, reading: _Reading) -> None:
        super().__init__(sink, protocol=pickling.PROTOCOL)
        self._reading = reading
        # What is met twice is written twice.
        self.fast = True

    def persistent_id(self, obj: Any) -> Any:
        """Return what stands for an object; None: it is written as pickle writes it."""
        kind = type(obj)
        if kind in _AS_PICKLED:
            return None
        reading = self._reading
        if kind is dict:
            return ("dict", reading.items(obj.items()))
        if kind is set or kind is frozenset:
            return (kind.__name__, reading.ordered(obj))
        if issubclass(kind, type):
            return ("class", _script_or(obj.__module__), obj.__qualname__)
        if kind is FunctionType:
            return reading.function(obj)
        if kind is ModuleType:
            return ("module", _script_or(obj.__name__))
        own = getattr(obj, "__dict__", None)
        if type(own) is dict and WRAPPED in own:
            return ("task", own[WRAPPED])
        return None if kind in _REDUCERS else self._own_container(obj)

    def _own_container(self, obj: Any) -> Any:
        """Return what stands for a set or a dictionary of a class of its own, else None."""
        if isinstance(obj, set | frozenset):
            kind = type(obj)
            if (
                kind.__reduce__ in (set.__reduce__, frozenset.__reduce__)
                and kind.__reduce_ex__ is object.__reduce_ex__
            ):
                return ("own set", kind, self._reading.ordered(obj), obj.__reduce__()[2])
        elif isinstance(obj, dict) and not isinstance(obj, OrderedDict):
            reduced = obj.__reduce_ex__(pickling.PROTOCOL)
            if isinstance(reduced, tuple) and len(reduced) == 5 and reduced[4] is not None:
                *made_of, listed, items = reduced
                return ("own dict", made_of, list(listed or ()), self._reading.items(items))
        return None
