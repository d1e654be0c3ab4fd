"""The function service: functions and arguments as base64 of pickles, by four endpoints.

Its clients were written against several services, which differ in how they say what went wrong:
the dialect is a setting. No pickle is loaded here; `opcodes` reads what one would make.
"""

from __future__ import annotations

import asyncio
import pickle
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from holdfast.errors import UnknownTaskError
from holdfast.model.ids import id_text
from holdfast.model.limits import NAME_BYTES_MAX
from holdfast.model.messages import Settled
from holdfast.model.outcome import Encoding, Failure, Payload
from holdfast.model.task import Spec, State, Task
from holdfast.web import opcodes
from holdfast.web.answers import json_answer, problems
from holdfast.web.dialect import Dialect
from holdfast.web.functions import from_base64, keep_function
from holdfast.web.intake import Intake
from holdfast.web.problems import Problem
from holdfast.web.results import settled_of
from holdfast.web.shapes import Uuid

Id = Annotated[Uuid, Path(description="The id of a task.")]
_CHUNK_BYTES = 3 * 64 * 1024
"""A multiple of three: base64 of the pieces is that of the whole."""
_INLINE_LOOK_BYTES = 64 * 1024
"""A pickle up to this size is looked through at once, a longer one on a thread."""


class FunctionIn(BaseModel):
    """A function: its name, and the base64 of its pickle."""

    name: Annotated[str, Field(min_length=1, max_length=NAME_BYTES_MAX, pattern=r"^[^\x00]*$")]
    payload: str


class FunctionId(BaseModel):
    """The id of a registered function."""

    function_id: str


class CallIn(BaseModel):
    """A call: the function's id, and the base64 of the pickle of ((args...), {kwargs})."""

    function_id: Uuid
    payload: str


class ServiceTask(BaseModel):
    """The id of a task."""

    task_id: str


class StatusOut(BaseModel):
    """Where a task is."""

    task_id: str
    status: str


class ServiceResult(BaseModel):
    """What a task returned or raised, as base64 of a pickle; empty while it has not ended."""

    task_id: str
    status: str
    result: str


class Up(BaseModel):
    """The service is up."""

    message: str


class ServiceRoutes:
    """The routes of the function service."""

    def __init__(self, intake: Intake, dialect: Dialect) -> None:
        self._intake = intake
        self._dialect = dialect

    def router(self) -> APIRouter:
        """Return the routes with what the reference says of them."""
        routes = APIRouter(tags=["function service"])
        add, told = routes.add_api_route, problems(404, 422, 429, 503)
        add("/", self.up, response_model=Up)
        post = ["POST"]
        path = "/register_function"
        add(path, self.register, methods=post, response_model=FunctionId, responses=told)
        path = "/execute_function"
        add(path, self.execute, methods=post, response_model=ServiceTask, responses=told)
        add("/status/{task_id}", self.status, response_model=StatusOut, responses=told)
        add("/result/{task_id}", self.result, response_model=ServiceResult, responses=told)
        return routes

    async def up(self) -> Response:
        """Say that the service is up."""
        return json_answer({"message": "Holdfast is up"})

    async def register(self, function: FunctionIn) -> Response:
        """Register a function."""
        code = await _pickle_of(function.payload)
        kind = await _kind_of(code)
        if not opcodes.may_be_called(kind):
            raise Problem(400, "invalid_payload", f"the payload is {kind}, not a function")
        row = await keep_function(self._intake, function.name, code)
        return json_answer({"function_id": id_text(row.id)})

    async def execute(self, call: CallIn) -> Response:
        """Call a registered function."""
        try:
            row = await self._intake.function(call.function_id)
        except Problem as problem:
            raise _unknown(problem, self._dialect.unknown) from None
        data = await _pickle_of(call.payload)
        kind = await _kind_of(data)
        if not opcodes.may_be_a_call(kind):
            text = f"the payload is {kind}, not ((args...), {{kwargs}})"
            raise Problem(400, "invalid_payload", text)
        now_ms = self._intake.clock.wall_ms()
        payload = await self._intake.payload(Encoding.SERVICE, data)
        task = self._intake.mint.next(now_ms)
        spec = Spec(task, row.function, payload, now_ms, code=row.code, python=row.python)
        said = (await self._intake.keep([spec], named=False))[0]
        if isinstance(said, Problem):
            raise said
        return json_answer({"task_id": id_text(said)})

    async def status(self, task_id: Id) -> Response:
        """Tell where a task is: QUEUED, RUNNING, COMPLETED or FAILED."""
        word = self._dialect.word((await self._find(task_id)).life.state)
        return json_answer({"task_id": task_id, "status": word})

    async def result(self, task_id: Id) -> Response:
        """Tell what a task returned or raised."""
        task = await self._find(task_id)
        ended = settled_of(task)
        if ended is not None:
            return await _ended(self._intake, self._dialect, task_id, ended)
        if self._dialect.unfinished != 200:
            text = "the task has not ended yet"
            raise Problem(self._dialect.unfinished, "unfinished", text)
        word = self._dialect.word(task.life.state)
        return json_answer({"task_id": task_id, "status": word, "result": ""})

    async def _find(self, id: str) -> Task:
        try:
            return await self._intake.desk.find(id)
        except UnknownTaskError as error:
            raise Problem(self._dialect.unknown, "unknown_task", str(error)) from None


def _unknown(problem: Problem, status: int) -> Problem:
    return Problem(status, problem.code, problem.detail) if problem.status == 404 else problem


async def _pickle_of(text: str) -> bytes:
    try:
        return from_base64(text, "payload")
    except Problem as problem:
        raise Problem(400, "invalid_payload", problem.detail) from None


async def _kind_of(data: bytes) -> opcodes.Kind:
    try:
        if len(data) <= _INLINE_LOOK_BYTES:
            return opcodes.kind_of(data)
        return await asyncio.to_thread(opcodes.kind_of, data)
    except opcodes.BadPickleError as error:
        text = f"the payload is not base64 of a pickle: {error}"
        raise Problem(400, "invalid_payload", text) from None


async def _ended(intake: Intake, dialect: Dialect, task_id: str, settled: Settled) -> Response:
    head: dict[str, Any] = {"task_id": task_id, "status": dialect.word(settled.state)}
    if settled.state is not State.SUCCEEDED:
        data = _raised(settled, as_object=dialect.error == "object")
    elif settled.result is not None and settled.result.digest:
        return _streamed(intake, head, settled.result)
    else:
        data = _returned(settled.result)
    return json_answer({**head, "result": b64encode(data).decode()})


def _returned(result: Payload | None) -> bytes:
    if result is None:
        return pickle.dumps(None)
    if result.encoding is Encoding.JSON:
        # Plain values of a task that did not come by this door.
        return pickle.dumps(msgspec.json.decode(result.data))
    return result.data


def _raised(settled: Settled, *, as_object: bool) -> bytes:
    failure = settled.failure or Failure(message=settled.state.text)
    text = failure.message or (failure.types[0] if failure.types else settled.reason.text)
    if as_object:
        return failure.pickled or pickle.dumps(RuntimeError(text))
    return pickle.dumps(text)


def _streamed(intake: Intake, head: dict[str, Any], result: Payload) -> Response:
    """Answer with a large result, piece by piece: it is never whole in memory."""
    if result.encoding is Encoding.JSON:
        text = f"its result has {result.size_bytes} bytes of JSON: it is at /v1/blobs"
        raise Problem(409, "not_a_pickle", text)

    async def pieces() -> AsyncIterator[bytes]:
        yield msgspec.json.encode({**head, "result": ""})[:-2]
        kept = bytearray()
        async for chunk in intake.blobs.get(result.digest):
            kept += chunk
            whole = len(kept) - len(kept) % _CHUNK_BYTES
            if whole:
                yield b64encode(kept[:whole])
                del kept[:whole]
        yield b64encode(kept) + b'"}'

    return StreamingResponse(pieces(), media_type="application/json")
