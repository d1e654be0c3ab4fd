"""How answers are written: JSON from plain data, ETags, and what the reference says of errors."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from fastapi import Response

from holdfast.web.problems import MEDIA_TYPE, Problem
from holdfast.web.shapes import ProblemOut

Told = dict[int | str, dict[str, Any]]
"""What the reference says of the answers of a route, by status."""
_WORDS = {
    304: "It still has this version.",
    400: "The request is no HTTP, JSON or MessagePack that can be read.",
    404: "No such thing is here.",
    409: "It is known with other contents, or is not in a state for this.",
    410: "The task had ended, and was removed since.",
    412: "It has another version by now.",
    413: "The body is too large.",
    422: "A field is missing, unknown, or cannot be.",
    429: "Too much waits; come again after the time in Retry-After.",
    503: "No room, or the store cannot be asked; come again after the time in Retry-After.",
}


def problems(*statuses: int) -> Told:
    """Return what the reference says of the errors of a route."""
    told: Told = {}
    for status in (400, 413, *statuses):
        told[status] = {"description": _WORDS[status]}
        if status != 304:
            told[status]["model"] = ProblemOut
            told[status]["content"] = {MEDIA_TYPE: {}}
        if status in (429, 503):
            told[status]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return told


def json_answer(
    value: Any, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return plain data as an answer."""
    return Response(encoded(value), status, headers, media_type="application/json")


def problem_answer(problem: Problem) -> Response:
    """Return a problem as an answer."""
    body = encoded(problem.as_dict())
    return Response(body, problem.status, problem.headers(), media_type=MEDIA_TYPE)


def encoded(value: Any) -> bytes:
    """Return plain data as JSON."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        # A lone surrogate, which only the standard library escapes.
        return json.dumps(value).encode()


def etag(version: int) -> str:
    """Return the ETag of a version."""
    return f'"{version}"'


def version_of(tag: str) -> int:
    """Return the version that an If-Match header asks for, 0 for any. Raises Problem 412."""
    if tag in ("", "*"):
        return 0
    digits = tag.strip().strip('"')
    if not digits.isascii() or not digits.isdigit() or not 0 < int(digits) < 1 << 62:
        raise Problem(412, "version", f"no task has the version {tag[:40]}")
    return int(digits)
