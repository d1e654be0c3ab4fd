"""What a pickle would make, read from its opcodes: nothing of it is loaded.

A stack machine like that of `pickle` (opcodes as `pickletools` documents them), whose values are
only kinds. It tells data from what may be a function, and whether a call has its shape. What it
cannot know, it takes for right: the child that loads the pickle has the last word.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Final

OPCODES_MAX: Final = 200_000
"""Of a longer pickle only the end is looked at."""
_STOP: Final = b"."

DATA, LIST, DICT, SET, OBJECT = "data", "a list", "a dict", "a set", "an object"


class BadPickleError(ValueError):
    """The bytes are no pickle that could be loaded."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value is; `parts` are those of a tuple."""

    name: str
    parts: tuple[Kind, ...] | None = None

    def __str__(self) -> str:
        return "a tuple" if self.parts is not None else self.name


_MARK: Final = Kind("mark")
_UNKNOWN: Final = Kind(OBJECT)
_TAKES: Final = {"REDUCE": 2, "NEWOBJ": 2, "NEWOBJ_EX": 3, "STACK_GLOBAL": 2, "BINPERSID": 1}
"""What these take from the stack, for an object that they push."""
_PUSHES: Final = {
    **dict.fromkeys(("EMPTY_LIST",), Kind(LIST)),
    **dict.fromkeys(("EMPTY_DICT",), Kind(DICT)),
    **dict.fromkeys(("EMPTY_SET",), Kind(SET)),
    "EMPTY_TUPLE": Kind("a tuple", ()),
    **dict.fromkeys(("GLOBAL", "EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER"), _UNKNOWN),
    "MARK": _MARK,
}
_FROM_MARK: Final = {
    "LIST": Kind(LIST),
    "DICT": Kind(DICT),
    "FROZENSET": Kind(SET),
    "INST": _UNKNOWN,
    "OBJ": _UNKNOWN,
}
"""These take all down to the mark, and push."""
_DROPS: Final = {"APPEND": 1, "SETITEM": 2, "BUILD": 1, "POP": 1}
_DROPS_FROM_MARK: Final = frozenset(("APPENDS", "SETITEMS", "ADDITEMS", "POP_MARK"))
_NOTHING: Final = frozenset(("PROTO", "FRAME", "READONLY_BUFFER", "STOP"))
_PUTS: Final = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GETS: Final = frozenset(("GET", "BINGET", "LONG_BINGET"))
_TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(slots=True)
class _Machine:
    stack: list[Kind] = field(default_factory=list)
    memo: dict[int, Kind] = field(default_factory=dict)

    def take(self, count: int) -> tuple[Kind, ...]:
        taken = tuple(self.stack[len(self.stack) - count :]) if count else ()
        if len(taken) < count or _MARK in taken:
            raise BadPickleError("it takes more than it has made")
        del self.stack[len(self.stack) - count :]
        return taken

    def take_to_mark(self) -> tuple[Kind, ...]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                taken = tuple(self.stack[at + 1 :])
                del self.stack[at:]
                return taken
        raise BadPickleError("it takes more than it has made")

    def top(self) -> Kind:
        if not self.stack or self.stack[-1] is _MARK:
            raise BadPickleError("it takes more than it has made")
        return self.stack[-1]

    def step(self, name: str, argument: object) -> None:
        """Do what one opcode does."""
        if name in _PUSHES:
            self.stack.append(_PUSHES[name])
        elif name in _TAKES:
            self.take(_TAKES[name])
            self.stack.append(_UNKNOWN)
        elif name in _FROM_MARK:
            self.take_to_mark()
            self.stack.append(_FROM_MARK[name])
        elif name in _TUPLES or name == "TUPLE":
            parts = self.take(_TUPLES[name]) if name in _TUPLES else self.take_to_mark()
            self.stack.append(Kind("a tuple", tuple(Kind(str(part)) for part in parts)))
        elif name in _DROPS:
            self.take(_DROPS[name])
        elif name in _DROPS_FROM_MARK:
            self.take_to_mark()
        else:
            self._step_rarely(name, argument)

    def _step_rarely(self, name: str, argument: object) -> None:
        if name in _PUTS:
            self.memo[int(str(argument))] = self.top()
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.top()
        elif name in _GETS:
            self.stack.append(self.memo.get(int(str(argument)), _UNKNOWN))
        elif name == "DUP":
            self.stack.append(self.top())
        elif name not in _NOTHING:
            # Numbers, texts, bytes, None, True, False.
            self.stack.append(Kind(DATA))


def kind_of(data: bytes) -> Kind:
    """Return what a pickle would make; an object where that cannot be known.

    Raises BadPickleError where it could not be loaded.
    """
    machine = _Machine()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if number >= OPCODES_MAX:
                if not data.endswith(_STOP):
                    raise BadPickleError("it breaks off")
                return _UNKNOWN
            machine.step(opcode.name, argument)
    except BadPickleError:
        raise
    except (ValueError, UnicodeDecodeError, OverflowError, KeyError) as error:
        raise BadPickleError(str(error)) from None
    return machine.top()


def may_be_called(kind: Kind) -> bool:
    """Tell whether a value of this kind may be a function."""
    return kind.name == OBJECT and kind.parts is None


def may_be_a_call(kind: Kind) -> bool:
    """Tell whether it may be ((args...), {kwargs})."""
    if kind.parts is None:
        return kind.name == OBJECT
    if len(kind.parts) != 2:
        return False
    args, kwargs = kind.parts
    return args.name in ("a tuple", OBJECT) and kwargs.name in (DICT, OBJECT)
