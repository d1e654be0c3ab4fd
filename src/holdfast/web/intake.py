"""From a request to a task that is kept: its id, its payload, its function.

Owns what becomes of arguments (inline, or a blob that is durable before the row that names it) and
the functions that were registered. It never unpickles anything.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence

import msgspec

from holdfast.coordinator.desk import Desk
from holdfast.errors import BlobTooLargeError, StoreFullError, error_of
from holdfast.model.ids import IdMint, TaskId, parse_id
from holdfast.model.limits import INLINE_BYTES_MAX, PAYLOAD_BYTES_MAX
from holdfast.model.messages import Refused
from holdfast.model.outcome import Encoding, Payload
from holdfast.model.task import Spec
from holdfast.ports import BlobStore, Clock, Registered, StoreReader
from holdfast.web.problems import Problem, problem_of
from holdfast.web.shapes import TaskNew

FUNCTIONS_MAX = 1_000
"""Registered functions that are remembered; another is read from the store."""
_PIECE_BYTES = 256 * 1024
_NO_FUNCTION = "no function is registered under this id"


class Intake:
    """Makes tasks of requests and has them kept."""

    def __init__(
        self, desk: Desk, reader: StoreReader, blobs: BlobStore, *, clock: Clock, mint: IdMint
    ) -> None:
        self.desk = desk
        self.mint = mint
        self.clock = clock
        self.reader = reader
        self.blobs = blobs
        self._functions: OrderedDict[bytes, Registered] = OrderedDict()

    async def function(self, text: str) -> Registered:
        """Return a registered function. Raises Problem 404 where there is none."""
        try:
            function_id = parse_id(text)
        except ValueError:
            raise Problem(422, "invalid_input", f"{text!r} is not the id of a function") from None
        known = self._functions.get(function_id)
        if known is not None:
            self._functions.move_to_end(function_id)
            return known
        row = await self.reader.registered(function_id)
        if row is None:
            raise Problem(404, "unknown_function", _NO_FUNCTION)
        self._functions[function_id] = row
        if len(self._functions) > FUNCTIONS_MAX:
            self._functions.popitem(last=False)
        return row

    async def payload(self, encoding: Encoding, data: bytes) -> Payload:
        """Return a payload; a large one is a durable blob. Raises Problem."""
        if len(data) <= INLINE_BYTES_MAX:
            return Payload(encoding, data, size_bytes=len(data))
        if no_room := self.desk.no_room_for(len(data)):
            raise Problem(503, "no_room", no_room, retry_after_seconds=2)
        try:
            kept = await self.blobs.put(_pieces(data), bytes_max=PAYLOAD_BYTES_MAX)
        except BlobTooLargeError as error:
            raise Problem(413, "too_large", str(error)) from None
        except StoreFullError as error:
            raise Problem(503, "no_room", str(error), retry_after_seconds=2) from None
        return Payload(encoding, b"", kept.digest, kept.size_bytes)

    async def spec(self, new: TaskNew) -> Spec:
        """Return the task of a request. Raises Problem."""
        code, python, name = b"", "", new.function
        if new.function_id:
            row = await self.function(new.function_id)
            code, python, name = row.code, row.python, row.function
        try:
            data = msgspec.json.encode((new.args, new.kwargs))
        except (OverflowError, RecursionError, UnicodeEncodeError) as error:
            raise Problem(422, "invalid_input", f"the arguments: {error}") from None
        now_ms = self.clock.wall_ms()
        return Spec(
            parse_id(new.id) if new.id else self.mint.next(now_ms),
            name,
            await self.payload(Encoding.JSON, data),
            now_ms,
            now_ms + int(new.delay * 1000) if new.delay else 0,
            new.queue,
            tuple(sorted(set(new.tags))),
            new.priority,
            new.key,
            code,
            python,
            False,
            b"",
            tuple(sorted(new.meta.items())),
        )

    async def keep(self, specs: Sequence[Spec], *, named: bool) -> list[TaskId | Problem]:
        """Have tasks kept; return for each the id of the one that is, or what refused it.

        `named`: some ids were made by the submitter, who may say them again.
        """
        answers = await self.desk.submit(specs, again=named)
        return [_problem(each) if isinstance(each, Refused) else each for each in answers]


def _problem(refused: Refused) -> Problem:
    if refused.retry_after_seconds > 0:
        seconds = refused.retry_after_seconds
        return Problem(503, refused.code, refused.text, retry_after_seconds=seconds)
    return problem_of(error_of(refused.code, refused.text))


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for first in range(0, len(data), _PIECE_BYTES):
        yield data[first : first + _PIECE_BYTES]
