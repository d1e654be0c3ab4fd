"""The one place that knows the pickling library, and the search for what does not pickle.

Pickling runs code of the user's classes, so that any exception may come out of it. Nothing here
holds more than the value and one copy of its bytes.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, Protocol

import cloudpickle  # type: ignore[import-untyped]  # it ships no types

from holdfast.payloads.describing import SPAWNED, line_of, name_of, short_name_of
from holdfast.payloads.interrupts import is_of_a_signal

PROTOCOL: Final = 5

_TRIES_MAX = 300
_DEPTH_MAX = 20
_TEXT_MAX = 200


class Sink(Protocol):
    """Where a pickle goes, piece by piece."""

    def write(self, data: Any, /) -> int: ...


class _Nowhere:
    """A sink that only lets the pickler run."""

    def write(self, data: Any, /) -> int:
        return len(data)


def dump(value: object, sink: Sink) -> None:
    """Pickle a value into a sink; what the script defines goes by value."""
    _tell_of_script()
    cloudpickle.Pickler(sink, protocol=PROTOCOL).dump(value)


def dumps(value: object) -> bytes:
    """Return a value's pickle; what the script defines goes by value."""
    _tell_of_script()
    data: bytes = cloudpickle.dumps(value, protocol=PROTOCOL)
    return data


def _tell_of_script() -> None:
    """Let the pickling library know the script by the name that it has in a spawned process too.

    It only knows `__main__` by itself. What is told stays told, which is as it is for `__main__`.
    """
    script = sys.modules.get(SPAWNED)
    # In the process of the script itself, that name may lead to `__main__`.
    if script is not None and script.__name__ == SPAWNED:
        cloudpickle.register_pickle_by_value(script)


def reducers() -> Mapping[type, Any]:
    """Return how the pickling library takes apart what Python itself does not pickle, by type."""
    table: Mapping[type, Any] = cloudpickle.Pickler.dispatch_table
    return table


def loads(data: bytes) -> Any:
    """Return the value of a pickle that a trusted submitter made."""
    return pickle.loads(data)


def load_file(path: str) -> Any:
    """Return the value of a pickle in a file, without a second copy of its bytes in memory."""
    with open(path, "rb") as file:
        return pickle.load(file)


def blame(value: object, name: str) -> str:
    """Say which part of a value does not pickle: `result['a'][3]: _thread.lock: <the reason>`.

    Descends into containers and attributes, with a bound on tries and depth.
    """
    tries = _TRIES_MAX
    reason = _refusal(value) or "it does not pickle"
    for _ in range(_DEPTH_MAX):
        for label, part in _parts(value, name):
            if tries == 0:
                break
            tries -= 1
            refusal = _refusal(part)
            if refusal:
                value, name, reason = part, label, refusal
                break
        else:
            break
        if tries == 0:
            break
    return f"{name}: {name_of(type(value))}: {reason}"


def refusal_of(value: object, name: str) -> str:
    """Say which part of a value does not pickle, "" where it does."""
    return blame(value, name) if _refusal(value) else ""


def _refusal(value: object) -> str:
    try:
        dump(value, _Nowhere())
    except BaseException as error:
        if is_of_a_signal(error):
            raise
        return line_of(error)[:_TEXT_MAX]
    return ""


def _parts(value: object, name: str) -> list[tuple[str, object]]:
    """Return the parts of a value that can be had: to look at them runs its code, too."""
    found: list[tuple[str, object]] = []
    try:
        found.extend(islice(_walk(value, name), _TRIES_MAX))
    except BaseException as error:
        if is_of_a_signal(error):
            raise
        return found
    return found


def _walk(value: object, name: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"key {_short(key)} of {name}", key
            yield f"{name}[{_short(key)}]", part
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield f"{name}[{index}]", part
    elif isinstance(value, set | frozenset):
        for part in value:
            yield f"element {_short(part)} of {name}", part
    elif not isinstance(value, type):
        for label, part in getattr(value, "__dict__", {}).items():
            yield f"{name}.{label}", part
        for cell_name, part in _cells(value):
            yield f"variable {cell_name!r} of {name}", part


def _cells(value: object) -> Iterator[tuple[str, object]]:
    """Yield what a function closes over, which is a common cause."""
    names = getattr(getattr(value, "__code__", None), "co_freevars", ())
    for cell_name, cell in zip(names, getattr(value, "__closure__", None) or (), strict=False):
        try:
            yield cell_name, cell.cell_contents
        except ValueError:
            continue


def _short(value: object) -> str:
    try:
        text = repr(value)
    except BaseException as error:
        if is_of_a_signal(error):
            raise
        shown, raised = short_name_of(type(value)), short_name_of(type(error))
        text = f"<{shown} whose repr raises {raised}>"
    return text if len(text) <= 40 else f"{text[:37]}..."
