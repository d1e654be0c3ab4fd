"""Tasks as rows and back, in the column order of `statements`.

Owns the encoding of values that SQLite has no type for. Never touches a connection. Encoding runs
on the caller's thread, so that the writer thread needs the interpreter lock as little as possible.

Rows hold `bytearray` for bytes, 0 for a missing token and "" for a missing key: sqlite3 looks for
an adapter whenever it binds `bytes` or None, which takes four times as long as the copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast.model.ids import TaskId, Token
from holdfast.model.outcome import Encoding, Failure, Payload, Reason
from holdfast.model.task import (
    NO_CHARGES,
    Charges,
    Lease,
    Life,
    Owed,
    Phase,
    Spec,
    State,
    Task,
    Wanted,
    needs_of,
    rank_of,
)
from holdfast.stores import statements

Row = tuple[Any, ...]

INLINE_ROW_BYTES = 512
"""Above this a payload rests in `bodies` and a result in `results`: claim and settle rewrite the
row that they touch, and one that grows by a result splits its page."""

# An enumeration is called once here, not once a row: a look-up in a tuple is ten times faster.
_STATES = tuple(State)
_WANTED = tuple(Wanted)
_PHASES = tuple(Phase)
_LEASES = tuple(Lease)
_OWED = tuple(Owed)
_REASONS = tuple(Reason)
_ENCODINGS = (None, *Encoding)

_pack = msgspec.msgpack.Encoder().encode
_json_text = msgspec.json.Encoder().encode
_meta_of = msgspec.json.Decoder(dict[str, str]).decode
_tags_of = msgspec.json.Decoder(tuple[str, ...]).decode
_freed_of = msgspec.msgpack.Decoder(tuple[Token, ...]).decode
_failure_of = msgspec.msgpack.Decoder(Failure).decode
_rows_of = msgspec.json.Decoder(list[list[Any]]).decode

_BLOBS_AT = tuple(at for at, name in enumerate(statements.READ) if name in statements.BLOBS)


def spec_row(spec: Spec) -> Row:
    """Return the columns `SPEC`."""
    payload = spec.payload
    return (
        bytearray(spec.id),
        spec.function,
        payload.encoding + 0,
        bytearray(payload.data) if len(payload.data) <= INLINE_ROW_BYTES else None,
        bytearray(payload.digest),
        payload.size_bytes,
        spec.submitted_ms,
        spec.due_ms,
        spec.queue,
        _json_text(spec.tags).decode() if spec.tags else "[]",
        spec.priority,
        spec.key,
        bytearray(spec.code),
        spec.python,
        1 if spec.concurrent else 0,
        needs_of(spec),
        rank_of(spec),
    )


def head_row(life: Life) -> Row:
    """Return the columns `HEAD`. Adding 0 makes plain integers of enumerations."""
    return (
        life.version,
        life.state + 0,
        life.wanted + 0,
        life.wish,
        life.due_ms,
        life.fence,
        bytearray(life.token),
        life.lease + 0,
        life.phase + 0,
        life.owed + 0,
        life.worker,
        life.incarnation,
        life.epoch,
        life.claimed_ms,
    )


def ending_row(life: Life) -> Row:
    """Return the columns `ENDING`."""
    result = life.result
    if result is None:
        return (life.started_ms, life.ended_ms, life.reason + 0, 0, bytearray(), bytearray(), 0)
    return (
        life.started_ms,
        life.ended_ms,
        life.reason + 0,
        result.encoding + 0,
        bytearray(result.data) if len(result.data) <= INLINE_ROW_BYTES else 0,
        bytearray(result.digest),
        result.size_bytes,
    )


def rest_row(life: Life) -> Row:
    """Return the columns `REST`."""
    used = life.used
    return (
        used.retries,
        used.losses,
        used.crashes,
        used.out_of_memory,
        used.environment,
        used.free_returns,
        used.unheard,
        bytearray(_pack(life.freed) if life.freed else b""),
        life.mark,
        life.crash_mark,
        life.saved_number,
        bytearray(life.saved_digest),
        life.avoid,
        life.avoid_until_ms,
        bytearray(b"" if life.failure is None else _pack(life.failure)),
    )


def rare_row(spec: Spec) -> Row:
    """Return the columns `RARE`."""
    return (bytearray(spec.likeness), _json_text(dict(spec.meta)).decode())


def has_rare(spec: Spec) -> bool:
    """Tell whether any column of `RARE` holds more than its empty value."""
    return bool(spec.likeness or spec.meta)


def has_history(life: Life) -> bool:
    """Tell whether any column of `REST` holds more than its empty value."""
    return not (
        life.failure is None
        and not life.freed
        and life.mark == 0
        and life.crash_mark == 0
        and life.saved_number == 0
        and not life.saved_digest
        and not life.avoid
        and life.avoid_until_ms == 0
        and (life.used is NO_CHARGES or life.used == NO_CHARGES)
    )


def is_fresh(life: Life) -> bool:
    """Tell whether only columns of `HEAD` hold more than their empty values."""
    return not (
        life.started_ms
        or life.ended_ms
        or life.reason
        or life.result is not None
        or has_history(life)
    )


def tasks_of(text: str, data: bytes | None) -> list[Task]:
    """Read the row of `statements.packed_tasks`."""
    found = []
    at = 0
    for row in _rows_of(text):
        for column in _BLOBS_AT:
            if length := row[column]:
                row[column] = data[at : at + length] if data else b""
                at += length
            else:
                row[column] = b""
        found.append(_task_of(row))
    assert at == len(data or b""), "blobs do not have the lengths that the row says"
    return found


def _payload(encoding: int, data: bytes, digest: bytes, size_bytes: int) -> Payload | None:
    kind = _ENCODINGS[encoding]
    return None if kind is None else Payload(kind, data, digest, size_bytes)


def _task_of(row: Sequence[Any]) -> Task:
    payload = _payload(*row[2:6])
    assert payload is not None, "a task without a payload"
    spec = Spec(
        TaskId(row[0]),
        row[1],
        payload,
        row[6],
        row[7],
        row[8],
        _tags_of(row[9]) if row[9] != "[]" else (),
        row[10],
        row[11] or "",
        row[12],
        row[13],
        row[14] == 1,
        row[51],
        tuple(sorted(_meta_of(row[52]).items())) if row[52] != "{}" else (),
    )
    return Task(spec, _life_of(row))


def _life_of(row: Sequence[Any]) -> Life:
    used = row[36:43]
    return Life(
        row[15],
        _STATES[row[16]],
        _WANTED[row[17]],
        row[18],
        row[19],
        row[20],
        Token(row[21]),
        _LEASES[row[22]],
        _PHASES[row[23]],
        _OWED[row[24]],
        row[25],
        row[26],
        row[27],
        row[28],
        row[29],
        row[30],
        Charges(*used) if any(used) else NO_CHARGES,
        _freed_of(row[43]) if row[43] else (),
        row[44],
        row[45],
        row[46],
        row[47],
        row[48],
        row[49],
        _REASONS[row[31]],
        _payload(*row[32:36]) if row[32] else None,
        _failure_of(row[50]) if row[50] else None,
    )
