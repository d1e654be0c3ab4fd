"""REST for functions that are registered under an id: by import path, or as a pickle.

A pickle stays bytes here. Of one that a function service is given, only the shape is looked at.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from hashlib import sha256
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from holdfast.model.ids import id_text
from holdfast.model.limits import CODE_BYTES_MAX, NAME_BYTES_MAX
from holdfast.model.messages import PutCode
from holdfast.ports import Registered
from holdfast.web.answers import json_answer, problems
from holdfast.web.intake import Intake
from holdfast.web.problems import Problem
from holdfast.web.shapes import FunctionNew, FunctionOut, FunctionPage, Uuid

Id = Annotated[Uuid, Path(description="The id of a function.")]
Name = Annotated[str, Query(max_length=NAME_BYTES_MAX, description="Only those of this name.")]
Limit = Annotated[int, Query(ge=1, le=1_000)]
Cursor = Annotated[Uuid, Query(description="`next` of the page before.")]


def router(intake: Intake) -> APIRouter:
    """Return the routes of functions."""
    routes = APIRouter(prefix="/v1/functions", tags=["functions"])

    @routes.post("", status_code=201, response_model=FunctionOut, responses=problems(422, 429, 503))
    async def register(new: FunctionNew) -> Response:
        """Register a function, by its import path or as a pickle, and return its id."""
        code = from_base64(new.pickle, "pickle")
        row = await keep_function(intake, new.name, code, function=new.function, python=new.python)
        return json_answer(
            _told(row), status=201, headers={"location": f"/v1/functions/{id_text(row.id)}"}
        )

    @routes.get("", response_model=FunctionPage, responses=problems(422, 503))
    async def list_functions(name: Name = "", limit: Limit = 100, cursor: Cursor = "") -> Response:
        """List registered functions, newest first."""
        before = bytes.fromhex(cursor.replace("-", ""))
        rows = await intake.reader.all_registered(name=name, before=before, limit=limit)
        following = id_text(rows[-1].id) if len(rows) == limit else None
        return json_answer({"functions": [_told(row) for row in rows], "next": following})

    @routes.get("/{id}", response_model=FunctionOut, responses=problems(404, 422, 503))
    async def show_function(id: Id) -> Response:
        """Tell of a registered function."""
        return json_answer(_told(await intake.function(id)))

    return routes


async def keep_function(
    intake: Intake, name: str, code: bytes, *, function: str = "", python: str = ""
) -> Registered:
    """Register a function and return its row. Raises Problem where its pickle is too large."""
    if len(code) > CODE_BYTES_MAX:
        text = f"the pickle has {len(code)} bytes; at most {CODE_BYTES_MAX} travel to workers"
        raise Problem(413, "too_large", f"{text}: pass large data as an argument")
    now_ms = intake.clock.wall_ms()
    digest = sha256(code).digest() if code else b""
    row = Registered(
        id=intake.mint.next(now_ms),
        name=name,
        function=function or name,
        code=digest,
        python=python,
        registered_ms=now_ms,
    )
    await intake.desk.register(row, PutCode(digest, code) if code else None)
    return row


def from_base64(text: str, field: str) -> bytes:
    """Return the bytes of base64 text, with or without newlines. Raises Problem 422."""
    try:
        return b64decode("".join(text.split()), validate=True)
    except (Base64Error, ValueError) as error:
        raise Problem(422, "invalid_input", f"{field} is not base64: {error}") from None


def _told(row: Registered) -> dict[str, Any]:
    return {
        "id": id_text(row.id),
        "name": row.name,
        "function": row.function,
        "pickled": bool(row.code),
        "python": row.python,
        "registered_ms": row.registered_ms,
    }
