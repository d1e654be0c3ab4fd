"""What goes wrong, as RFC 9457 says it: one JSON object with a stable type, for every error.

Owns the types and their statuses. Light: the door uses it before the framework is imported.
"""

from __future__ import annotations

from http import HTTPStatus
from math import ceil
from typing import Any

import msgspec

from holdfast.errors import (
    HoldfastError,
    InvalidInputError,
    KeyConflictError,
    OverloadedError,
    PrunedTaskError,
    RefusedError,
    StoreDoubtError,
    UnknownTaskError,
)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:holdfast:problem:"
_CODES = {"being_cancelled": 409, "version": 412, "no_room": 503, "store": 503, "running": 409}


class Problem(Exception):
    """An answer that is an error. `code` is stable and made for programs, `detail` for people."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        retry_after_seconds: float = 0.0,
        closes: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        self.closes = closes
        self.more = more

    def as_dict(self) -> dict[str, Any]:
        """Return what the body says."""
        return {
            "type": TYPE_PREFIX + self.code,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.more,
        }

    def headers(self) -> dict[str, str]:
        """Return what its answer has beside the type of the body."""
        headers = {}
        if self.retry_after_seconds > 0:
            headers["retry-after"] = str(ceil(self.retry_after_seconds))
        if self.closes:
            headers["connection"] = "close"
        return headers


def problem_body(problem: Problem) -> tuple[dict[str, Any], bytes]:
    """Return the ASGI event that starts an answer, and its body."""
    body = msgspec.json.encode(problem.as_dict())
    headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **problem.headers()}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": problem.status, "headers": raw}, body


def problem_of(error: HoldfastError) -> Problem:
    """Return how an error of ours is told."""
    text = str(error)
    if isinstance(error, PrunedTaskError):
        return Problem(410, "pruned", text)
    if isinstance(error, UnknownTaskError):
        return Problem(404, "unknown_task", text)
    if isinstance(error, KeyConflictError):
        return Problem(409, "key_conflict", text)
    if isinstance(error, InvalidInputError):
        return Problem(422, "invalid_input", text)
    if isinstance(error, OverloadedError):
        status = 429 if error.code == "overloaded" else 503
        return Problem(status, error.code, text, retry_after_seconds=error.retry_after_seconds)
    if isinstance(error, RefusedError):
        return Problem(_CODES.get(error.code, 409), error.code, text)
    if isinstance(error, StoreDoubtError):
        return Problem(503, "in_doubt", text, retry_after_seconds=1)
    return Problem(500, "internal", text)
