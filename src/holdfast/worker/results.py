"""Large results on their way into the blob store, before any outcome names them (law 1).

While the worker is welcomed a result is stored at once; while it is cut off the result is put on
the shelf, durable, its outcome is kept as *unready*, and it is stored after the next welcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from holdfast.core.outbox import Outbox
from holdfast.errors import DefiniteError, HoldfastError
from holdfast.model.messages import Ended
from holdfast.model.outcome import Encoding, Failure, OutcomeKind
from holdfast.observe import TaskSet
from holdfast.worker.slots import Over
from holdfast.worker.transfers import Shelf, Transfers

TRIES_MAX = 4
RETRY_SECONDS = 0.5
UPLOADS_MAX = 4


class Stored(msgspec.Struct, frozen=True, gc=False):
    """An outcome whose large result is durable; not `ready`: on the shelf only."""

    ended: Ended
    ready: bool


class Results:
    """The large results of one worker that are not in the blob store yet."""

    __slots__ = (
        "_clearing",
        "_connected",
        "_done",
        "_outbox",
        "_shelf",
        "_tasks",
        "_transfers",
        "_under_way",
        "_uploads",
        "_wake",
    )

    def __init__(
        self,
        *,
        transfers: Transfers,
        shelf: Shelf,
        outbox: Outbox,
        tasks: TaskSet,
        connected: Callable[[], bool],
        wake: Callable[[], None],
    ) -> None:
        self._transfers = transfers
        self._shelf = shelf
        self._outbox = outbox
        self._tasks = tasks
        self._connected = connected
        self._wake = wake
        self._done: list[Stored] = []
        self._under_way = 0
        self._clearing = False
        self._uploads = asyncio.Semaphore(UPLOADS_MAX)

    @property
    def busy(self) -> bool:
        """Whether an outcome still waits for its result to be durable somewhere."""
        return self._under_way > 0 or bool(self._done)

    def rests_here(self, ended: Ended) -> bool:
        """Return whether an outcome from the spool has its result on the shelf only."""
        result = ended.result
        return result is not None and bool(result.digest and self._shelf.path_of(result.digest))

    def store(self, over: Over) -> None:
        """Make the large result of an ended attempt durable; `collect` brings the outcome."""
        self._under_way += 1
        self._tasks.start(f"store the result of {over.ended.task.hex()}", self._store(over))

    def collect(self) -> list[Stored]:
        """Return the outcomes whose results became durable, or could not be stored."""
        done, self._done = self._done, []
        return done

    def welcomed(self) -> None:
        """Begin to store what rests on the shelf."""
        if self._outbox.unready() and not self._clearing:
            self._clearing = True
            self._tasks.start("store shelved results", self._clear_shelf())

    async def _store(self, over: Over) -> None:
        ended = over.ended
        encoding = Encoding.JSON if ended.result is None else ended.result.encoding
        try:
            async with self._uploads:
                stored = await self._stored(ended, over.result_path, encoding)
        except (HoldfastError, OSError) as error:
            stored = Stored(_spoiled(ended, error), ready=True)
        self._transfers.discard(over.result_path)
        self._under_way -= 1
        self._done.append(stored)
        self._wake()

    async def _stored(self, ended: Ended, path: str, encoding: Encoding) -> Stored:
        tries = 0
        while self._connected():
            tries += 1
            try:
                payload = await self._transfers.store(path, encoding)
            except DefiniteError:
                raise
            except (HoldfastError, OSError):
                if tries >= TRIES_MAX:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return Stored(replace(ended, result=payload), ready=True)
        payload = await self._shelf.keep(path, encoding)
        return Stored(replace(ended, result=payload), ready=False)

    async def _clear_shelf(self) -> None:
        """Store all that rests on the shelf, as long as there is a session."""
        try:
            while self._connected() and (unready := self._outbox.unready()):
                for ended in unready:
                    if not await self._clear(ended):
                        await asyncio.sleep(RETRY_SECONDS)
                        break
        finally:
            self._clearing = False

    async def _clear(self, ended: Ended) -> bool:
        """Store one result that rests on the shelf; False where it is to be tried again."""
        try:
            self._outbox.ready(await self._from_shelf(ended))
        except DefiniteError as error:
            self._outbox.ready(_spoiled(ended, error))
        except (HoldfastError, OSError):
            return False
        self._wake()
        return True

    async def _from_shelf(self, ended: Ended) -> Ended:
        result = ended.result
        path = "" if result is None else self._shelf.path_of(result.digest)
        if result is None or not path:
            # Another outcome with the same bytes has brought it to the blob store already.
            return ended
        payload = await self._transfers.store(path, result.encoding)
        self._transfers.discard(path)
        return replace(ended, result=payload)


def _spoiled(ended: Ended, error: Exception) -> Ended:
    failure = Failure(message=f"the result could not be stored: {error}")
    return replace(ended, kind=OutcomeKind.ENVIRONMENT, result=None, failure=failure)
