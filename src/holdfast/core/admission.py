"""What a submission must be to be kept: bounds and shapes, before anything is written."""

from __future__ import annotations

from holdfast.model.ids import ID_BYTES
from holdfast.model.limits import (
    DELAY_MS_MAX,
    INLINE_BYTES_MAX,
    KEY_BYTES_MAX,
    NAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    TAGS_MAX,
)
from holdfast.model.outcome import Payload
from holdfast.model.task import Spec

DIGEST_BYTES = 32
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
    if not _is_word(spec.queue):
        return f"queue={spec.queue!r} is empty, too long, or has one of '+', '~', NUL"
    if len(spec.key) > KEY_BYTES_MAX or "\x00" in spec.key:
        return f"key is over {KEY_BYTES_MAX} characters or has a NUL"
    if spec.tags and (len(spec.tags) > TAGS_MAX or not all(map(_is_word, spec.tags))):
        return f"tags are over {TAGS_MAX}, or one is empty, too long, or has '+', '~', NUL"
    if spec.tags and list(spec.tags) != sorted(set(spec.tags)):
        return "tags are not in order, or one is given twice"
    if spec.code and len(spec.code) != DIGEST_BYTES:
        return "code is not a SHA-256 of 32 bytes"
    if len(spec.python) > NAME_BYTES_MAX:
        return "python is not a version"
    return payload_fault(spec.payload)


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


def _is_name(text: str, characters_max: int) -> bool:
    return 0 < len(text) <= characters_max and "\x00" not in text


def _is_word(text: str) -> bool:
    return 0 < len(text) <= NAME_BYTES_MAX and _RESERVED.isdisjoint(text)


def difference(kept: Spec, given: Spec) -> str:
    """Return which parts of a repeated submission differ from what is kept, "" for none.

    The id and the times may differ: a key is repeated under a fresh id.
    """
    parts = ("function", "payload", "queue", "tags", "priority", "code", "python", "concurrent")
    return ", ".join(part for part in parts if getattr(kept, part) != getattr(given, part))
