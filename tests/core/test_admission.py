"""What is refused at the door, and what a repeated submission may not change."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.core.admission import difference, fault
from holdfast.model.ids import IdMint
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
from holdfast.model.outcome import Encoding, Payload
from holdfast.model.task import Spec

NOW_MS = 1_700_000_000_000
INLINE = Payload(Encoding.JSON, b"[1]")
BLOB = Payload(Encoding.PICKLE, digest=b"d" * 32, size_bytes=PAYLOAD_BYTES_MAX)
MINT = IdMint(Random(0))
SPEC = Spec(MINT.next(NOW_MS), "module:function", INLINE, NOW_MS)
LONG = "x" * NAME_BYTES_MAX


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"submitted_ms": 1},
        {"due_ms": NOW_MS + DELAY_MS_MAX},
        {"priority": PRIORITY_MAX},
        {"priority": PRIORITY_MIN},
        {"function": LONG},
        {"queue": LONG},
        {"key": "k" * KEY_BYTES_MAX},
        {"tags": tuple(f"{n:02}" for n in range(TAGS_MAX))},
        {"code": b"c" * 32},
        {"python": "3.11"},
        {"payload": BLOB},
        {"payload": Payload(Encoding.JSON, b"x" * INLINE_BYTES_MAX)},
    ],
)
def test_what_is_within_the_bounds_is_let_in(fields: dict[str, Any]) -> None:
    assert fault(replace(SPEC, **fields), now_ms=NOW_MS) == ""


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"id": b"short"}, "UUIDv7"),
        ({"id": SPEC.id[:6] + b"\x40" + SPEC.id[7:]}, "UUIDv7"),
        ({"submitted_ms": 0}, "submitted_ms=0"),
        ({"submitted_ms": 1 << 47}, "not a time"),
        ({"due_ms": -1}, "due_ms=-1"),
        ({"due_ms": NOW_MS + DELAY_MS_MAX + 1}, "beyond"),
        ({"priority": PRIORITY_MAX + 1}, "priority=1001"),
        ({"priority": PRIORITY_MIN - 1}, "priority=-1001"),
        ({"function": ""}, "function is empty"),
        ({"function": "a\x00b"}, "NUL"),
        ({"function": LONG + "x"}, "512"),
        ({"queue": ""}, "queue=''"),
        ({"queue": "a+b"}, "queue='a+b'"),
        ({"queue": "a~"}, "queue='a~'"),
        ({"queue": LONG + "x"}, "too long"),
        ({"key": "k" * (KEY_BYTES_MAX + 1)}, "1024"),
        ({"key": "\x00"}, "NUL"),
        ({"tags": tuple(f"{n:02}" for n in range(TAGS_MAX + 1))}, "over 32"),
        ({"tags": ("a", "b+")}, "tags are"),
        ({"tags": ("",)}, "empty"),
        ({"tags": ("b", "a")}, "not in order"),
        ({"tags": ("a", "a")}, "twice"),
        ({"code": b"c" * 31}, "SHA-256"),
        ({"python": LONG + "x"}, "python"),
        ({"payload": replace(BLOB, digest=b"d")}, "SHA-256 and no data"),
        ({"payload": replace(BLOB, data=b"d")}, "SHA-256 and no data"),
        ({"payload": replace(BLOB, size_bytes=PAYLOAD_BYTES_MAX + 1)}, "over 536870912"),
        ({"payload": replace(BLOB, size_bytes=-1)}, "over 536870912"),
        ({"payload": Payload(Encoding.JSON, b"x" * (INLINE_BYTES_MAX + 1))}, "send it as a blob"),
    ],
)
def test_what_cannot_be_is_refused_with_the_mend(fields: dict[str, Any], text: str) -> None:
    assert text in fault(replace(SPEC, **fields), now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({}, ""),
        ({"id": MINT.next(NOW_MS + 1), "submitted_ms": NOW_MS + 1, "due_ms": 7}, ""),
        ({"function": "other:f"}, "function"),
        ({"payload": BLOB}, "payload"),
        ({"queue": "q", "tags": ("t",)}, "queue, tags"),
        ({"priority": 1, "code": b"c", "python": "3.12"}, "priority, code, python"),
        ({"concurrent": True}, "concurrent"),
    ],
)
def test_a_repetition_may_differ_in_its_id_and_times_only(
    fields: dict[str, Any], parts: str
) -> None:
    assert difference(SPEC, replace(SPEC, **fields)) == parts
