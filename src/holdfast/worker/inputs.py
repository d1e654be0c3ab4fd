"""What an attempt needs before it may start: the bytes of its function, and its large payload.

Owns the cache of pickled functions (bytes, never unpickled here) and the downloads under way. An
order that lacks something waits here, out of every lane, and comes out ready or spoiled.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgspec

from holdfast.errors import IndefiniteError
from holdfast.model.ids import Token
from holdfast.model.messages import Assign, Code
from holdfast.observe import TaskSet, logger
from holdfast.ports import Order
from holdfast.worker.transfers import Transfers

CODES_BYTES_MAX = 64 * 1024 * 1024
DOWNLOADS_MAX = 4
TRIES_MAX = 20
"""Downloads of one payload that may break off while there is a session."""
RETRY_SECONDS = 0.05
RETRY_SECONDS_MAX = 2.0
_LOG = logger("worker.inputs")


class Spoiled(msgspec.Struct, frozen=True, gc=False):
    """An order that cannot start on this worker, and why."""

    token: Token
    why: str


class Lacking(msgspec.Struct, gc=False):
    """An order that waits: for code where `code_lacks`, for a download where `fetching`."""

    assign: Assign
    code_lacks: bool
    fetching: bool
    code: bytes = b""
    payload_path: str = ""


class Inputs:
    """The orders of one worker that lack something, and the code that it knows."""

    __slots__ = (
        "_code",
        "_code_bytes",
        "_connected",
        "_downloads",
        "_files",
        "_folder",
        "_lacking",
        "_ready",
        "_spoiled",
        "_tasks",
        "_transfers",
        "_wake",
    )

    def __init__(
        self,
        *,
        transfers: Transfers,
        folder: Path,
        tasks: TaskSet,
        connected: Callable[[], bool],
        wake: Callable[[], None],
    ) -> None:
        self._transfers = transfers
        self._folder = folder
        self._tasks = tasks
        self._connected = connected
        self._wake = wake
        self._code: OrderedDict[bytes, bytes] = OrderedDict()
        self._code_bytes = 0
        self._lacking: dict[Token, Lacking] = {}
        self._files: dict[Token, str] = {}
        self._ready: list[tuple[Order, bool]] = []
        self._spoiled: list[Spoiled] = []
        self._downloads = asyncio.Semaphore(DOWNLOADS_MAX)

    def admit(self, assign: Assign) -> Order | None:
        """Return the order of an assignment that lacks nothing; None: `collect` brings it."""
        code = b""
        if assign.code:
            known = self._code.get(assign.code)
            if known is not None:
                code = known
                self._code.move_to_end(assign.code)
        code_lacks = bool(assign.code) and not code
        if not code_lacks and not assign.payload.digest:
            return _order(assign, code, "")
        lacking = Lacking(assign, code_lacks, bool(assign.payload.digest), code)
        self._lacking[assign.token] = lacking
        if lacking.fetching:
            self._tasks.start(f"fetch the payload of {assign.task.hex()}", self._fetch(lacking))
        return None

    def code_wanted(self) -> list[bytes]:
        """Return the digests of all functions that orders wait for."""
        wanted = {each.assign.code: None for each in self._lacking.values() if each.code_lacks}
        return list(wanted)

    def code_came(self, message: Code) -> None:
        """Take in the bytes of a function, or the word that there are none."""
        why = ""
        if not message.found or not message.data:
            why = "the coordinator does not have the function's bytes"
        elif hashlib.sha256(message.data).digest() != message.digest:
            why = "the function's bytes do not have their digest"
        else:
            self._learn(message.digest, message.data)
        for token, lacking in list(self._lacking.items()):
            if lacking.code_lacks and lacking.assign.code == message.digest:
                if why:
                    self._spoil(token, why)
                else:
                    lacking.code_lacks = False
                    lacking.code = message.data
                    self._settle(lacking)

    def release(self, token: Token) -> None:
        """Remove the files of an attempt that is over."""
        if self._files and (path := self._files.pop(token, "")):
            self._transfers.discard(path)

    def drop(self, token: Token) -> bool:
        """Forget an order that waits here, and its files; return whether it did.

        The files of another one stay: a child may be about to open them.
        """
        waited = self._lacking.pop(token, None) is not None
        if not waited:
            kept = [(order, many) for order, many in self._ready if order.token != token]
            waited = len(kept) < len(self._ready)
            self._ready = kept
        if waited:
            self.release(token)
        return waited

    def collect(self) -> tuple[list[tuple[Order, bool]], list[Spoiled]]:
        """Return (orders that became ready, whether each is concurrent) and the spoiled ones."""
        ready, self._ready = self._ready, []
        spoiled, self._spoiled = self._spoiled, []
        return ready, spoiled

    async def _fetch(self, lacking: Lacking) -> None:
        token = lacking.assign.token
        path = str(self._folder / token.hex())
        try:
            await self._fetched(lacking, path)
        except Exception as error:
            # Whatever broke: an order that waited for ever would keep its lease for ever.
            _LOG.debug("no payload of %s", lacking.assign.task.hex(), exc_info=error)
            if self._lacking.get(token) is lacking:
                self._spoil(
                    token, f"the payload could not be fetched: {type(error).__name__}: {error}"
                )
        else:
            if self._lacking.get(token) is lacking:
                self._files[token] = path
                lacking.payload_path = path
                lacking.fetching = False
                self._settle(lacking)
            else:
                self._transfers.discard(path)
        self._wake()

    async def _fetched(self, lacking: Lacking, path: str) -> None:
        """Download a payload, again where that broke off: a coordinator that dies is no fault.

        What breaks off while there is a session counts, so that there is an end to it.
        """
        failures, pause = 0, RETRY_SECONDS
        while True:
            try:
                async with self._downloads:
                    await self._transfers.fetch(lacking.assign.payload.digest, path)
                return
            except IndefiniteError as error:
                failures += self._connected()
                if failures >= TRIES_MAX or self._lacking.get(lacking.assign.token) is not lacking:
                    raise
                _LOG.debug("the payload of %s has to wait: %s", lacking.assign.task.hex(), error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_SECONDS_MAX)

    def _settle(self, lacking: Lacking) -> None:
        if lacking.code_lacks or lacking.fetching:
            return
        del self._lacking[lacking.assign.token]
        order = _order(lacking.assign, lacking.code, lacking.payload_path)
        self._ready.append((order, lacking.assign.concurrent))

    def _spoil(self, token: Token, why: str) -> None:
        self.drop(token)
        self._spoiled.append(Spoiled(token, why))

    def _learn(self, digest: bytes, data: bytes) -> None:
        if digest not in self._code:
            self._code_bytes += len(data)
        self._code[digest] = data
        while self._code_bytes > CODES_BYTES_MAX and len(self._code) > 1:
            _, old = self._code.popitem(last=False)
            self._code_bytes -= len(old)


def _order(assign: Assign, code: bytes, payload_path: str) -> Order:
    return Order(
        assign.task,
        assign.token,
        assign.fence,
        assign.function,
        assign.payload,
        payload_path,
        code,
        assign.python,
    )
