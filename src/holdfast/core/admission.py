"""What a submission must be to be kept: bounds and shapes, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.model.ids import ID_BYTES
from holdfast.model.limits import (
    DELAY_MS_MAX,
    INLINE_BYTES_MAX,
    KEY_BYTES_MAX,
    META_BYTES_MAX,
    META_MAX,
    NAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    TAGS_MAX,
)
from holdfast.model.outcome import Payload
from holdfast.model.task import Spec

DIGEST_BYTES = 32
_PARTS = (
    "function",
    "payload",
    "queue",
    "tags",
    "priority",
    "code",
    "python",
    "concurrent",
)
_LIKENED = ("code", "payload")
"""What a likeness is of, in its order."""
_TIME_MS_MAX = 1 << 47
_RESERVED = frozenset("+~\x00")
_VERSION_BITS = 0x70


def fault(spec: Spec, *, now_ms: int) -> str:
    """Return what is wrong with a submission and the mend, "" where nothing is."""
    if len(spec.id) != ID_BYTES or spec.id[6] & 0xF0 != _VERSION_BITS:
        return "the id is not a UUIDv7 of 16 bytes"
    if not 0 < spec.submitted_ms < _TIME_MS_MAX:
        return f"submitted_ms={spec.submitted_ms} is not a time"
    if spec.due_ms and not 0 <= spec.due_ms <= now_ms + DELAY_MS_MAX:
        return f"due_ms={spec.due_ms} is beyond {DELAY_MS_MAX} ms from now"
    if not PRIORITY_MIN <= spec.priority <= PRIORITY_MAX:
        return f"priority={spec.priority} is not within {PRIORITY_MIN} to {PRIORITY_MAX}"
    if not _is_name(spec.function, NAME_BYTES_MAX):
        return f"function is empty, has a NUL, or is over {NAME_BYTES_MAX} characters"
    if text := queue_fault(spec.queue):
        return text
    if len(spec.key) > KEY_BYTES_MAX or "\x00" in spec.key:
        return f"key is over {KEY_BYTES_MAX} characters or has a NUL"
    if spec.tags and (len(spec.tags) > TAGS_MAX or not all(map(_is_word, spec.tags))):
        return f"tags are over {TAGS_MAX}, or one is empty, too long, or has '+', '~', NUL"
    if spec.tags and list(spec.tags) != sorted(set(spec.tags)):
        return "tags are not in order, or one is given twice"
    if spec.code and len(spec.code) != DIGEST_BYTES:
        return "code is not a SHA-256 of 32 bytes"
    if spec.likeness and (len(spec.likeness) != len(_LIKENED) * DIGEST_BYTES or not spec.key):
        return "likeness is not two SHA-256 of 32 bytes, or there is no key"
    if spec.meta and (text := _meta_fault(spec.meta)):
        return text
    if len(spec.python) > NAME_BYTES_MAX:
        return "python is not a version"
    return payload_fault(spec.payload)


def queue_fault(queue: str) -> str:
    """Return what is wrong with the name of a queue, "" where nothing is."""
    if _is_word(queue):
        return ""
    return f"queue={queue!r} is empty, too long, or has one of '+', '~', NUL"


def payload_fault(payload: Payload) -> str:
    """Return what is wrong with arguments or a result, "" where nothing is."""
    if not 0 <= payload.size_bytes <= PAYLOAD_BYTES_MAX:
        return f"the payload is over {PAYLOAD_BYTES_MAX} bytes"
    if payload.digest:
        if len(payload.digest) != DIGEST_BYTES or payload.data:
            return "a payload by reference has a SHA-256 and no data"
    elif len(payload.data) > INLINE_BYTES_MAX:
        return f"an inline payload is over {INLINE_BYTES_MAX} bytes: send it as a blob"
    return ""


def _meta_fault(meta: tuple[tuple[str, str], ...]) -> str:
    names = [name for name, _ in meta]
    if len(meta) > META_MAX or sum(len(name) + len(value) for name, value in meta) > META_BYTES_MAX:
        return f"meta has over {META_MAX} names, or over {META_BYTES_MAX} characters in all"
    if names != sorted(set(names)):
        return "meta is not in order, or a name is given twice"
    if not all(_is_name(name, NAME_BYTES_MAX) and "\x00" not in value for name, value in meta):
        return f"meta has a name that is empty or over {NAME_BYTES_MAX} characters, or a NUL"
    return ""


def _is_name(text: str, characters_max: int) -> bool:
    return 0 < len(text) <= characters_max and "\x00" not in text


def _is_word(text: str) -> bool:
    return 0 < len(text) <= NAME_BYTES_MAX and _RESERVED.isdisjoint(text)


def difference(kept: Spec, given: Spec) -> tuple[str, ...]:
    """Return which parts of a repeated submission differ from what is kept.

    Under one id the same submission is said again, so that all but the times is the same to the
    byte. Under a key the same call is made again, under an id of its own, perhaps by another run of
    a script that was edited since. What is pickled has other bytes then, even for equal contents:
    its likeness is enough. Whether the function is an `async def` is of its code.
    """
    same = set() if kept.id == given.id else {"concurrent", *_alike(kept, given)}
    return tuple(
        part for part in _PARTS if part not in same and getattr(kept, part) != getattr(given, part)
    )


def _alike(kept: Spec, given: Spec) -> Iterator[str]:
    """Yield the parts that have a likeness in both, and the same."""
    for number, part in enumerate(_LIKENED):
        at = slice(number * DIGEST_BYTES, (number + 1) * DIGEST_BYTES)
        if kept.likeness[at] == given.likeness[at] and any(kept.likeness[at]):
            yield part
