"""Large results on their way into the blob store, before any outcome names them (law 1).

While the store that gave the lease has welcomed the worker, a result is stored at once. While it
has not, or does not take the result for now (it is full, or breaks off), the result is put on the
shelf, durable, its outcome is kept as *unready*, and it is stored as soon as that store takes it.
A worker that leaves waits for no store: what is not stored yet rests there for its next life.
Attempts have ended here: nothing that passes makes one run again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from holdfast.core.outbox import Outbox
from holdfast.core.peer import Origin
from holdfast.errors import IndefiniteError, StoreFullError
from holdfast.model.ids import Token
from holdfast.model.messages import Ended
from holdfast.model.outcome import Encoding, Failure, OutcomeKind, Payload
from holdfast.observe import TaskSet, logger
from holdfast.worker.slots import Over
from holdfast.worker.transfers import Shelf, Transfers

TRIES_MAX = 4
RETRY_SECONDS = 0.5
RETRY_SECONDS_MAX = 8.0
UPLOADS_MAX = 4
_LOG = logger("worker.results")


class Stored(msgspec.Struct, frozen=True, gc=False):
    """An outcome whose large result is durable; not `ready`: on the shelf only."""

    ended: Ended
    ready: bool


class Results:
    """The large results of one worker that are not in the blob store yet."""

    __slots__ = (
        "_clearing",
        "_done",
        "_leaving",
        "_outbox",
        "_rested",
        "_shelf",
        "_store_now",
        "_tasks",
        "_transfers",
        "_under_way",
        "_uploading",
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
        store_now: Callable[[], Origin | None],
        wake: Callable[[], None],
    ) -> None:
        self._transfers = transfers
        self._shelf = shelf
        self._outbox = outbox
        self._tasks = tasks
        self._store_now = store_now
        self._wake = wake
        self._done: list[Stored] = []
        self._under_way = 0
        self._clearing = False
        self._leaving = False
        self._rested = asyncio.Event()
        """Nothing is under way; set once the worker leaves."""
        self._uploads = asyncio.Semaphore(UPLOADS_MAX)
        self._uploading: dict[asyncio.Timeout, None] = {}
        """The bounds of the uploads under way: none, until the worker leaves."""

    @property
    def busy(self) -> bool:
        """Whether an outcome still waits for its result to be durable somewhere."""
        return self._under_way > 0 or bool(self._done)

    def rests_here(self, ended: Ended) -> bool:
        """Return whether an outcome from the spool has its result on the shelf only."""
        result = ended.result
        return result is not None and bool(result.digest and self._shelf.path_of(result.digest))

    def store(self, over: Over, origin: Origin) -> None:
        """Make the large result of an ended attempt durable; `collect` brings the outcome.

        `origin` gave the lease: no other store gets the result.
        """
        self._under_way += 1
        self._tasks.start(f"store the result of {over.ended.task.hex()}", self._store(over, origin))

    async def rest(self) -> None:
        """Put on the shelf what is not stored yet; returns when all of it is durable somewhere."""
        self._leaving = True
        now = asyncio.get_running_loop().time()
        for bound in self._uploading:
            bound.reschedule(now)
        while self._under_way:
            self._rested.clear()
            await self._rested.wait()

    def collect(self) -> list[Stored]:
        """Return the outcomes whose results became durable, or could not be stored."""
        done, self._done = self._done, []
        return done

    def drop(self, stored: Stored) -> None:
        """Forget a result whose outcome nobody wants any more."""
        if not stored.ready:
            self._tidy(stored.ended)

    def unwanted(self, token: Token) -> None:
        """Keep no result for an outcome that its store will not accept any more."""
        ended = self._outbox.unwanted(token)
        if ended is not None:
            self._tidy(ended)

    def clear(self) -> None:
        """Begin to store what rests on the shelf for the present store, where anything does."""
        if not self._clearing and self._store_now() is not None and self._outbox.unready():
            self._clearing = True
            self._tasks.start("store shelved results", self._clear_shelf())

    async def _store(self, over: Over, origin: Origin) -> None:
        ended = over.ended
        encoding = Encoding.JSON if ended.result is None else ended.result.encoding
        try:
            async with self._uploads:
                stored = await self._stored(ended, over.result_path, encoding, origin)
        except Exception as error:
            # Whatever broke: a lease whose outcome never comes would be kept for ever.
            _LOG.warning("the result of %s is lost", ended.task.hex(), exc_info=error)
            stored = Stored(_spoiled(ended, error), ready=True)
        finally:
            self._under_way -= 1
            self._rested.set()
        self._done.append(stored)
        self._wake()
        self._transfers.discard(over.result_path)

    async def _stored(self, ended: Ended, path: str, encoding: Encoding, origin: Origin) -> Stored:
        for _ in range(TRIES_MAX):
            if self._leaving or self._store_now() != origin:
                break
            try:
                payload = await self._upload(path, encoding)
            except TimeoutError:
                break  # The worker leaves.
            except StoreFullError as error:
                _LOG.info("the result of %s has to wait: %s", ended.task.hex(), error)
                break
            except IndefiniteError:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                if self._store_now() == origin:
                    return Stored(replace(ended, result=payload), ready=True)
        payload = await self._shelf.keep(path, encoding)
        return Stored(replace(ended, result=payload), ready=False)

    async def _upload(self, path: str, encoding: Encoding) -> Payload:
        """Store a file, unless the worker leaves before that is done: TimeoutError."""
        async with asyncio.timeout(None) as bound:
            self._uploading[bound] = None
            try:
                return await self._transfers.store(path, encoding)
            finally:
                del self._uploading[bound]

    async def _clear_shelf(self) -> None:
        """Store all that rests on the shelf for the present store, while it welcomes us."""
        pause = RETRY_SECONDS
        try:
            while self._store_now() is not None and (unready := self._outbox.unready()):
                # Where the smallest finds no room, none does.
                for ended in sorted(unready, key=_size):
                    if not await self._clear(ended):
                        await asyncio.sleep(pause)
                        pause = min(2 * pause, RETRY_SECONDS_MAX)
                        break
                    pause = RETRY_SECONDS
        finally:
            self._clearing = False

    async def _clear(self, ended: Ended) -> bool:
        """Store one result that rests on the shelf; False where it is to be tried again."""
        store = self._store_now()
        try:
            ready = await self._from_shelf(ended)
        except (StoreFullError, IndefiniteError) as error:
            _LOG.debug("the result of %s has to wait: %s", ended.task.hex(), error)
            return False
        except Exception as error:
            _LOG.warning("the result of %s is lost", ended.task.hex(), exc_info=error)
            ready = _spoiled(ended, error)
        if self._store_now() != store:
            return False  # Who has it now is uncertain: it is stored once more.
        self._outbox.ready(ready)
        self._wake()
        if ready.result is not None:
            self._tidy(ended)
        return True

    async def _from_shelf(self, ended: Ended) -> Ended:
        result = ended.result
        path = "" if result is None else self._shelf.path_of(result.digest)
        if result is None or not path:
            # Another outcome with the same bytes has brought it to the blob store already.
            return ended
        return replace(ended, result=await self._transfers.store(path, result.encoding))

    def _tidy(self, ended: Ended) -> None:
        """Remove a result from the shelf, unless another outcome still needs it there."""
        digest = b"" if ended.result is None else ended.result.digest
        if not self._outbox.rests(digest) and (path := self._shelf.path_of(digest)):
            self._transfers.discard(path)


def _size(ended: Ended) -> int:
    return 0 if ended.result is None else ended.result.size_bytes


def _spoiled(ended: Ended, error: Exception) -> Ended:
    text = f"the result could not be stored: {type(error).__name__}: {error}"
    failure = Failure(message=text)
    return replace(ended, kind=OutcomeKind.ENVIRONMENT, result=None, failure=failure)
