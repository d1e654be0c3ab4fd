"""A function made ready to be submitted: its name or its pickle, and its options.

Made once for a `map`, and anew for each `submit`, because globals and closures may have changed.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from itertools import chain
from types import MethodType
from typing import Any

import msgspec

from holdfast.client.options import DEFAULTS, OPTION_NAMES, Options, options_with, split_options
from holdfast.client.task import TaskFunction
from holdfast.errors import InvalidInputError, NotSerializableError
from holdfast.interpreter import python_version
from holdfast.model.limits import CODE_BYTES_MAX
from holdfast.model.outcome import Encoding
from holdfast.payloads import Encoded, encode_function, likeness_of
from holdfast.payloads.functions import unwrap

_SPEC_BYTES = 160
_CO_COROUTINE = 0x80
_PARTIALS_MAX = 8
_LIKENESS_BYTES = 32
_LIKENESS_FACTOR = 16
_LIKENESS_READ_BYTES = 4 * 1024 * 1024
"""What a likeness reads at most: so many times what was pickled, and this. A pickle holds once what
is met often, and a few of those within each other are without end where each is read anew."""


class Call(msgspec.Struct, frozen=True):
    """A function ready to be submitted.

    `size_bytes` is what its spec takes beside the payload and the code, which many may share.
    `likeness` is that of a function that travels, where there is a key; else, or where it has none,
    it is empty.
    """

    function: str
    code: bytes
    digest: bytes
    python: str
    concurrent: bool
    options: Options
    size_bytes: int
    likeness: bytes = b""


def call_of(function: Callable[..., Any], options: Options) -> Call:
    """Make a function ready to be submitted.

    Raises NotSerializableError where it neither has an import path nor pickles, InvalidInputError
    where it cannot be called.
    """
    name, code, python = encode_function(function)
    if len(code) > CODE_BYTES_MAX:
        raise NotSerializableError(
            f"the function {name} pickles to {len(code)} bytes, at most {CODE_BYTES_MAX} travel. "
            f"It closes over large data: pass that as an argument, or move the function to a module"
        )
    return Call(
        function=name,
        code=code,
        digest=sha256(code).digest() if code else b"",
        python=python,
        concurrent=_is_coroutine_function(function),
        options=options,
        size_bytes=_size_of(name, options),
        likeness=_likeness(unwrap(function), len(code)) if code and options.key else b"",
    )


def call_by_name(function: str, options: Options) -> Call:
    """Make a function ready that only the workers can import, by its path `module:qualname`.

    Raises InvalidInputError where that is no import path.
    """
    module, _, name = function.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise InvalidInputError(f"{function!r} is not an import path `module:function`")
    return Call(
        function=function,
        code=b"",
        digest=b"",
        python="",
        concurrent=False,
        options=options,
        size_bytes=_size_of(function, options),
    )


def _size_of(name: str, options: Options) -> int:
    """Return what a spec takes beside its payload; a character has up to three bytes."""
    notes = chain.from_iterable(options.meta)
    texts = (name, options.queue, options.key, *options.tags, *notes)
    return _SPEC_BYTES + 3 * sum(map(len, texts))


def options_of(
    function: Callable[..., Any], kwargs: dict[str, Any]
) -> tuple[Options, dict[str, Any]]:
    """Return the options of a submission and the keywords that are the function's own.

    Raises InvalidInputError where a keyword could be meant for either.
    """
    options = DEFAULTS
    if isinstance(function, MethodType) and isinstance(function.__func__, TaskFunction):
        # As `classmethod` binds a task, where the interpreter does not ask the task to bind.
        function = function.__func__.__get__(function.__self__)
    if isinstance(function, TaskFunction):
        options = function.holdfast_options
        if function.holdfast_bound:
            return options, kwargs
        function = function.__holdfast_function__
    if not kwargs or OPTION_NAMES.isdisjoint(kwargs):
        return options, kwargs
    given, own = split_options(function, kwargs)
    return options_with(options, given), own


def python_of(call: Call, encoded: Encoded) -> str:
    """Return the version of Python that a task is bound to, "" where nothing of it is pickled."""
    return call.python or (python_version() if encoded.payload.encoding is Encoding.PICKLE else "")


def likeness_of_call(
    call: Call, encoded: Encoded, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bytes:
    """Return what `Spec.likeness` holds of a call with a key, "" where that is nothing."""
    held = b""
    if encoded.payload.encoding is Encoding.PICKLE:
        held = _likeness((args, kwargs), encoded.payload.size_bytes)
    if not call.likeness and not held:
        return b""
    return call.likeness.ljust(_LIKENESS_BYTES, b"\0") + held.ljust(_LIKENESS_BYTES, b"\0")


def _likeness(value: object, pickled_bytes: int) -> bytes:
    return likeness_of(value, bytes_max=_LIKENESS_READ_BYTES + _LIKENESS_FACTOR * pickled_bytes)


def _is_coroutine_function(function: Callable[..., Any]) -> bool:
    plain = unwrap(function)
    for _ in range(_PARTIALS_MAX):
        code = getattr(plain, "__code__", None)
        if code is not None:
            return bool(code.co_flags & _CO_COROUTINE)
        # functools.partial, and methods of callable instances.
        inner = getattr(plain, "func", None)
        if inner is None:
            break
        plain = inner
    code = getattr(getattr(type(plain), "__call__"), "__code__", None)  # noqa: B004, B009
    return code is not None and bool(code.co_flags & _CO_COROUTINE)
