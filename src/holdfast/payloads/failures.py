"""Exceptions as data, and data as exceptions.

The coordinator reads names and texts only. An exception itself travels as a pickle beside them,
for a client that trusts the submitter. One that does not survive the way as a whole travels in
parts, and of such a group each member by itself. All this runs code of the user's classes. Whatever
that raises, SystemExit too, makes the description poorer, and goes no further.
"""

from __future__ import annotations

import importlib
import traceback
from typing import Any, Final, NamedTuple, cast

from holdfast.errors import HoldfastError, TaskFailedError
from holdfast.model.limits import ERROR_TEXT_BYTES_MAX
from holdfast.model.outcome import Failure
from holdfast.payloads import pickling
from holdfast.payloads.describing import SCRIPT, is_sound, name_of, short_name_of, text_of
from holdfast.payloads.interrupts import frames_of, is_of_a_signal, traceback_of
from holdfast.payloads.parts import (
    Attributes,
    Parts,
    attributes_of,
    exception_of_parts,
    parts_of,
    set_attributes,
)

PICKLED_BYTES_MAX: Final = 16 * 1024
_TYPES_MAX: Final = 32
_NAME_CHARACTERS_MAX: Final = 256
_FRAMES_MAX: Final = 100
_MEMBER_TEXT_BYTES_MAX: Final = 1024
_GROUP_BYTES: Final = 2 * _MEMBER_TEXT_BYTES_MAX
"""What a group takes beside its members: its own text, and the word on those that are left out."""
_GROUP_ATTRIBUTES_PART: Final = 8
"""A group's own attributes, its notes among them, get at most this part of the room."""
_CUT: Final = "\n[... cut here ...]\n"


class RemoteTraceback(HoldfastError):
    """The traceback of a task, as text: the cause of the exception that a client sees."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}" if self.args else ""


class Group(NamedTuple):
    """An exception group, member by member. Pickles in stores name this class."""

    text: str
    members: tuple[Failure, ...]
    attributes: Attributes = ()


def failure_of(error: BaseException, *, with_pickle: bool = True) -> Failure:
    """Return an exception as data, within the bounds of `model.limits`. Never raises."""
    kinds: tuple[type, ...] = type.__dict__["__mro__"].__get__(type(error))
    return Failure(
        types=tuple(_bounded_name(kind) for kind in kinds[:_TYPES_MAX] if kind is not object),
        message=bounded(text_of(error)),
        traceback=bounded(_traceback_of(error)),
        pickled=_pickle_of(error, PICKLED_BYTES_MAX) if with_pickle else b"",
    )


def exception_of(failure: Failure, *, trusted: bool = True) -> Exception:
    """Return the exception of a failure: the task's own where it can be had, else TaskFailedError.

    Its cause is a `RemoteTraceback`. Where nothing of the exception pickled but its class can be
    imported, an instance is made with the message alone; in a group, so is each such member. What
    is no `Exception` (SystemExit and its like) would end the caller, so that it becomes a
    TaskFailedError too. With `trusted` false nothing is unpickled or imported.
    """
    error = _own(failure) if trusted else None
    if error is None:
        name = failure.types[0].removeprefix("builtins.") if failure.types else "the task failed"
        text = f"{name}: {failure.message}" if failure.message else name
        error = TaskFailedError(text, traceback=failure.traceback)
    if failure.traceback:
        # Not by assignment, which the class may have made its own.
        BaseException.__dict__["__cause__"].__set__(error, RemoteTraceback(failure.traceback))
    return error


def bounded(text: str, bytes_max: int = ERROR_TEXT_BYTES_MAX) -> str:
    """Return a text that encodes to at most so many bytes: head and tail of a longer one."""
    data = text.encode(errors="backslashreplace")
    if len(data) > bytes_max:
        half = (bytes_max - len(_CUT)) // 2
        head, tail = data[:half].decode(errors="ignore"), data[-half:].decode(errors="ignore")
        return f"{head}{_CUT}{tail}"
    return text if len(data) == len(text) else data.decode()


def _bounded_name(kind: type) -> str:
    return name_of(kind)[:_NAME_CHARACTERS_MAX]


def _traceback_of(error: BaseException) -> str:
    try:
        # Frames of a deep recursion are cut by the limit: the outermost and innermost ones tell.
        shown = traceback.TracebackException(
            type(error), error, traceback_of(error), limit=-_FRAMES_MAX, compact=True
        )
        return "".join(shown.format())
    except BaseException as problem:
        if is_of_a_signal(problem):
            raise
        cause = f"{name_of(type(error))}: <not described: {short_name_of(type(problem))}>\n"
    steps = [
        f'  File "{step.tb_frame.f_code.co_filename}", line {step.tb_lineno}, '
        f"in {step.tb_frame.f_code.co_name}\n"
        for step in frames_of(error)[-_FRAMES_MAX:]
    ]
    return "".join(["Traceback (most recent call last):\n", *steps, cause])


def _pickle_of(error: BaseException, bytes_max: int) -> bytes:
    """Return an exception's pickle where it survives the way, that of its parts, or nothing."""
    # Asked of the type, because an instance may answer for its class, or raise.
    if not issubclass(type(error), Exception):
        return b""
    for pickle_of in (_whole, _members_of, _parts_of):
        try:
            if data := pickle_of(error, bytes_max):
                return data
        except BaseException as problem:
            # Many exceptions do not pickle; names, message and traceback travel all the same.
            if is_of_a_signal(problem):
                raise
    return b""


def _whole(error: BaseException, bytes_max: int) -> bytes:
    data = pickling.dumps(error)
    if len(data) > bytes_max:
        return b""
    again = pickling.loads(data)
    same = type(again) is type(error) and str(again) == str(error) and is_sound(again)
    return data if same else b""


def _members_of(error: BaseException, bytes_max: int) -> bytes:
    """Return the pickle of a group, member by member, as many as there is room for."""
    if not issubclass(type(error), ExceptionGroup):
        return b""
    attributes = attributes_of(error, bytes_max // _GROUP_ATTRIBUTES_PART)
    left = bytes_max - _GROUP_BYTES - _size(attributes)
    members: list[Failure] = []
    every = BaseExceptionGroup.__dict__["exceptions"].__get__(error)
    for index, member in enumerate(every):
        carried = _member(member, _pickle_of(member, left))
        if carried.pickled and _size(carried) > left:
            carried = _member(member, b"")
        left -= _size(carried)
        if left < 0:
            text = f"{len(every) - index} more exceptions of the group do not fit"
            members.append(Failure(message=text))
            break
        members.append(carried)
    text = bounded(BaseExceptionGroup.__dict__["message"].__get__(error), _MEMBER_TEXT_BYTES_MAX)
    data = pickling.dumps(Group(text, tuple(members), attributes))
    return data if len(data) <= bytes_max else b""


def _parts_of(error: BaseException, bytes_max: int) -> bytes:
    """Return the pickle of an exception's parts where those make one that is sound."""
    if issubclass(type(error), ExceptionGroup):
        return b""
    data = parts_of(cast("Exception", error), bytes_max)
    again = exception_of_parts(pickling.loads(data), text_of(error)) if data else None
    return data if again is not None and is_sound(again) else b""


def _member(error: BaseException, pickled: bytes) -> Failure:
    text = bounded(text_of(error), _MEMBER_TEXT_BYTES_MAX)
    return Failure(types=(_bounded_name(type(error)),), message=text, pickled=pickled)


def _size(value: object) -> int:
    return len(pickling.dumps(value))


def _own(failure: Failure) -> Exception | None:
    """Return the exception of a failure, or one that is made in its likeness."""
    try:
        found = pickling.loads(failure.pickled) if failure.pickled else None
        if type(found) is Group:
            found = _regroup(found, failure)
        elif type(found) is Parts:
            found = exception_of_parts(found, failure.message)
        elif found is None or not issubclass(type(found), Exception):
            found = _remake(failure)
        return found if found is not None and is_sound(found) else None
    except BaseException as problem:
        # A module that is missing here: names and texts still tell.
        if is_of_a_signal(problem):
            raise
    return _remake(failure)


def _regroup(group: Group, failure: Failure) -> Exception | None:
    """Make a group of its members, of its own class where that can be."""
    members = [exception_of(member) for member in group.members]
    kind = _find_class(failure.types[0]) if failure.types else None
    if isinstance(kind, type) and issubclass(kind, ExceptionGroup):
        error = _make(kind, group.text, members)
        if error is not None:
            set_attributes(error, group.attributes)
            return error
    error = ExceptionGroup(group.text, members)
    set_attributes(error, group.attributes)
    return error


def _remake(failure: Failure) -> Exception | None:
    """Make an instance of the named class from the message alone."""
    kind = _find_class(failure.types[0]) if failure.types else None
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return None
    return _make(kind, failure.message)


def _make(kind: type[Exception], *args: Any) -> Exception | None:
    """Make an exception without calling its `__init__`."""
    try:
        error = kind.__new__(kind, *args)
    except BaseException as problem:
        if is_of_a_signal(problem):
            raise
        return None
    # A class that cannot be without its attributes: TaskFailedError tells the same.
    return error if issubclass(type(error), Exception) and is_sound(error) else None


def _find_class(name: str) -> Any:
    """Import the class of a qualified name, whose module ends at one of its dots."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:length])
        if module_name == SCRIPT or "<" in name:
            return None
        try:
            found: Any = importlib.import_module(module_name)
            for part in parts[length:]:
                found = getattr(found, part)
        except ModuleNotFoundError:
            continue
        except BaseException as problem:
            # The user's module fails to load here: the caller falls back.
            if is_of_a_signal(problem):
                raise
            return None
        return found
    return None
