"""What is refused at the door, and what a repeated submission may not change."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.core import admission
from holdfast.core.admission import fault
from holdfast.model.ids import IdMint
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
        {"key": "k", "likeness": b"l" * 64},
        {"meta": (("a", ""), ("b", "x" * (META_BYTES_MAX - 2)))},
        {"meta": tuple((f"{n:02}", "") for n in range(META_MAX))},
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
        ({"meta": tuple((f"{n:02}", "") for n in range(META_MAX + 1))}, "over 32 names"),
        ({"meta": (("a", "x" * META_BYTES_MAX),)}, "4096 characters"),
        ({"meta": (("b", ""), ("a", ""))}, "not in order"),
        ({"meta": (("a", ""), ("a", ""))}, "twice"),
        ({"meta": (("", "x"),)}, "empty"),
        ({"meta": ((LONG + "x", ""),)}, "512"),
        ({"meta": (("a", "\x00"),)}, "NUL"),
        ({"key": "k", "likeness": b"l" * 63}, "likeness"),
        ({"likeness": b"l" * 64}, "no key"),
        ({"payload": replace(BLOB, digest=b"d")}, "SHA-256 and no data"),
        ({"payload": replace(BLOB, data=b"d")}, "SHA-256 and no data"),
        ({"payload": replace(BLOB, size_bytes=PAYLOAD_BYTES_MAX + 1)}, "over 536870912"),
        ({"payload": replace(BLOB, size_bytes=-1)}, "over 536870912"),
        ({"payload": Payload(Encoding.JSON, b"x" * (INLINE_BYTES_MAX + 1))}, "send it as a blob"),
    ],
)
def test_what_cannot_be_is_refused_with_the_mend(fields: dict[str, Any], text: str) -> None:
    assert text in fault(replace(SPEC, **fields), now_ms=NOW_MS)


def difference(kept: Spec, given: Spec) -> str:
    return ", ".join(admission.difference(kept, given))


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({}, ""),
        ({"submitted_ms": NOW_MS + 1, "due_ms": 7}, ""),
        ({"function": "other:f"}, "function"),
        ({"payload": BLOB}, "payload"),
        ({"queue": "q", "tags": ("t",)}, "queue, tags"),
        ({"priority": 1, "code": b"c", "python": "3.12"}, "priority, code, python"),
        ({"concurrent": True}, "concurrent"),
    ],
)
def test_a_repetition_may_differ_in_its_times_only(fields: dict[str, Any], parts: str) -> None:
    assert difference(SPEC, replace(SPEC, **fields)) == parts
    if "concurrent" not in fields:
        assert difference(SPEC, replace(SPEC, id=MINT.next(NOW_MS), **fields)) == parts


KEYED = replace(
    SPEC,
    function="__main__:work",
    payload=Payload(Encoding.PICKLE, b"some"),
    code=b"c" * 32,
    python="3.11",
    key="k",
    likeness=b"f" * 32 + b"a" * 32,
)
OTHER_BYTES = {"payload": Payload(Encoding.PICKLE, b"other"), "code": b"d" * 32}


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        (OTHER_BYTES, ""),
        (OTHER_BYTES | {"concurrent": True}, ""),
        (OTHER_BYTES | {"payload": BLOB}, ""),
        (OTHER_BYTES | {"likeness": b"f" * 32 + b"b" * 32}, "payload"),
        (OTHER_BYTES | {"likeness": b"g" * 32 + b"a" * 32}, "code"),
        (OTHER_BYTES | {"likeness": b"f" * 32 + bytes(32)}, "payload"),
        (OTHER_BYTES | {"likeness": bytes(32) + b"a" * 32}, "code"),
        (OTHER_BYTES | {"likeness": bytes(64)}, "payload, code"),
        (OTHER_BYTES | {"likeness": b""}, "payload, code"),
        ({"likeness": b""}, ""),
        ({"likeness": b"g" * 64}, ""),
        ({"function": "__main__:other"}, "function"),
        ({"queue": "q", "tags": ("t",), "priority": 3}, "queue, tags, priority"),
        ({"python": "3.12"}, "python"),
        ({"payload": INLINE, "likeness": b"f" * 32 + bytes(32)}, "payload"),
    ],
)
def test_under_a_key_what_is_pickled_has_to_be_alike(fields: dict[str, Any], parts: str) -> None:
    given = replace(KEYED, id=MINT.next(NOW_MS), **fields)
    assert difference(KEYED, given) == difference(given, KEYED) == parts


def test_what_has_no_likeness_in_either_is_compared_to_the_byte() -> None:
    kept = replace(KEYED, likeness=bytes(64))
    assert difference(kept, replace(kept, id=MINT.next(NOW_MS))) == ""
    given = replace(kept, id=MINT.next(NOW_MS), **OTHER_BYTES)
    assert difference(kept, given) == "payload, code"


def test_under_one_id_the_same_bytes_are_said_again() -> None:
    assert difference(KEYED, replace(KEYED, **OTHER_BYTES)) == "payload, code"
    assert difference(KEYED, replace(KEYED, concurrent=True)) == "concurrent"
