"""Identifiers: UUIDv7 made by the submitter, and what a person types for one.

Owns the shape of ids and their text. Never draws time or chance by itself: both are arguments.
An id is 16 bytes everywhere inside (rows, frames, dictionaries) and becomes text only at the
surfaces.
"""

from __future__ import annotations

from typing import NewType, Protocol

TaskId = NewType("TaskId", bytes)
Token = NewType("Token", bytes)

ID_BYTES = 16
TOKEN_BYTES = 16

NO_TOKEN = Token(b"")

_COUNTER_BITS = 12
_COUNTER_MAX = (1 << _COUNTER_BITS) - 1
_RANDOM_BYTES = 8
_VARIANT_MASK = (1 << 62) - 1
_VARIANT = 0b10 << 62


class Entropy(Protocol):
    """Where chance comes from: `random.Random`, or `random.SystemRandom` in production."""

    def randbytes(self, n: int, /) -> bytes: ...

    def random(self) -> float: ...


class IdMint:
    """Make UUIDv7 ids (RFC 9562, section 5.7) that ascend within one process.

    The 12 bits after the millisecond are a counter (RFC 9562, section 6.2, method 1), so that
    tasks submitted in one millisecond keep their order; when it is full, the millisecond is
    moved ahead. A wall clock that steps back does not make ids descend.
    """

    __slots__ = ("_counter", "_ms", "_rng")

    def __init__(self, rng: Entropy) -> None:
        self._rng = rng
        self._ms = 0
        self._counter = 0

    def next(self, now_ms: int) -> TaskId:
        """Return a new id for a submission at `now_ms` (milliseconds since the epoch)."""
        if now_ms > self._ms:
            self._ms = now_ms
            self._counter = 0
        elif self._counter < _COUNTER_MAX:
            self._counter += 1
        else:
            self._ms += 1
            self._counter = 0
        head = (self._ms << 16) | 0x7000 | self._counter
        tail = (
            int.from_bytes(self._rng.randbytes(_RANDOM_BYTES), "big") & _VARIANT_MASK
        ) | _VARIANT
        return TaskId(((head << 64) | tail).to_bytes(ID_BYTES, "big"))


def id_text(task_id: bytes) -> str:
    """Return the canonical text of an id, `0192f3a4-…` (36 characters)."""
    text = task_id.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def parse_id(text: str) -> TaskId:
    """Read the canonical text of an id, with or without dashes.

    Raises ValueError where the text is not one.
    """
    digits = text.strip().replace("-", "")
    if len(digits) != 2 * ID_BYTES:
        raise ValueError(f"{text!r} is not a task id: it has {len(digits)} hex digits, not 32")
    if not _is_hexadecimal(digits):
        raise ValueError(f"{text!r} is not a task id: it is not hexadecimal")
    return TaskId(bytes.fromhex(digits))


def prefix_range(text: str) -> tuple[bytes, bytes]:
    """Return the lowest and the highest id that begin with a prefix as a person types it.

    Raises ValueError where the text is empty, too long or not hexadecimal.
    """
    digits = text.strip().replace("-", "").lower()
    if not digits or len(digits) > 2 * ID_BYTES or not _is_hexadecimal(digits):
        raise ValueError(f"{text!r} is not the beginning of a task id")
    return (
        bytes.fromhex(digits.ljust(2 * ID_BYTES, "0")),
        bytes.fromhex(digits.ljust(2 * ID_BYTES, "f")),
    )


def _is_hexadecimal(digits: str) -> bool:
    # `bytes.fromhex` alone would skip blanks inside, and return a shorter id.
    return all(digit in "0123456789abcdefABCDEF" for digit in digits)
