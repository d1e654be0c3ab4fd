"""How a task ended, as REST tells it. Results are bytes here: nothing of them is unpickled."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec

from holdfast.coordinator.tasks import settled
from holdfast.model.ids import id_text
from holdfast.model.messages import Settled
from holdfast.model.outcome import Encoding, Payload
from holdfast.model.task import TERMINAL_MIN, Task

_NO_RESULT: dict[str, Any] = {"encoding": "none", "value": None, "data": "", "blob": None}


def settled_of(task: Task) -> Settled | None:
    """Return how a task ended, None where it has not."""
    return settled(task) if task.life.state >= TERMINAL_MIN else None


def result_of(ended: Settled) -> dict[str, Any]:
    """Return what an answer says of an ended task."""
    failure = ended.failure
    return {
        "id": id_text(ended.task),
        "state": ended.state.text,
        "reason": ended.reason.text if ended.reason else "",
        **(_NO_RESULT if ended.result is None else _told(ended.result)),
        "error": "" if failure is None else failure.message,
        "error_type": failure.types[0] if failure is not None and failure.types else "",
        "traceback": "" if failure is None else failure.traceback,
    }


def _told(payload: Payload) -> dict[str, Any]:
    word = "json" if payload.encoding is Encoding.JSON else "pickle"
    told = {**_NO_RESULT, "encoding": word}
    if payload.digest:
        digest = payload.digest.hex()
        told["blob"] = {
            "url": f"/v1/blobs/{digest}",
            "sha256": digest,
            "size_bytes": payload.size_bytes,
        }
    elif word == "json":
        told["value"] = msgspec.Raw(payload.data)
    else:
        told["data"] = b64encode(payload.data).decode()
    return told
