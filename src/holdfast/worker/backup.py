"""When outcomes go to disk: after a while without a session, and at the end of the worker.

Owns which outcomes the spool has. It never delivers any: the outbox keeps and names them.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from holdfast.core.outbox import Entry, Outbox
from holdfast.errors import HoldfastError
from holdfast.model.ids import Token
from holdfast.observe import TaskSet
from holdfast.ports import Guard, Spool

CUT_OFF_SECONDS = 1.0
"""So long without a session, outcomes are only in memory."""
RETRY_SECONDS = 5.0


class Backup:
    """The spool of one worker, and the guard's knowledge of it."""

    __slots__ = (
        "_answered",
        "_cut_off_at",
        "_guard",
        "_keeping",
        "_log",
        "_outbox",
        "_spool",
        "_tasks",
        "_wake",
    )

    def __init__(
        self,
        *,
        spool: Spool,
        guard: Guard,
        outbox: Outbox,
        tasks: TaskSet,
        log: logging.Logger,
        wake: Callable[[], None],
    ) -> None:
        self._wake = wake
        self._spool = spool
        self._guard = guard
        self._outbox = outbox
        self._tasks = tasks
        self._log = log
        self._cut_off_at = math.inf
        self._answered: list[Token] = []
        self._keeping = False

    def cut_off(self, now: float) -> None:
        """Note that there is no session from now on."""
        if self._cut_off_at == math.inf:
            self._cut_off_at = now

    def welcomed(self) -> None:
        """Note that there is a session again."""
        self._cut_off_at = math.inf

    def due(self) -> float:
        """Return when outcomes have to go to disk; infinity while there is a session."""
        return self._cut_off_at + CUT_OFF_SECONDS

    def answered(self, entries: list[Entry]) -> None:
        """Let the guard and the spool forget what is settled."""
        self._guard.done([entry.ended.token for entry in entries])
        self._answered += [entry.ended.token for entry in entries if entry.spooled]
        if self._answered:
            self._start()

    def act(self, now: float) -> None:
        """Write what is not on disk, where that is due; forget what could not be forgotten yet."""
        if self._answered or (now >= self.due() and self._outbox.has_unspooled):
            self._start()

    async def save(self) -> None:
        """Write all that is unanswered; durable on return. Raises what the spool raises."""
        while outcomes := self._outbox.unspooled():
            await self._spool.save(outcomes)
            self._saved([ended.token for ended in outcomes])
        if self._answered:
            self._start()

    def _saved(self, tokens: list[Token]) -> None:
        """Note what is durable now.

        What was answered while the disk was busy is there for nothing: the guard has been told
        that it is done, and must not name it again.
        """
        kept = [token for token in tokens if self._outbox.has(token)]
        self._outbox.spooled(kept)
        if kept:
            self._guard.spooled(kept)
        self._answered += [token for token in tokens if not self._outbox.has(token)]

    def _start(self) -> None:
        if not self._keeping:
            self._keeping = True
            self._tasks.start("keep the spool", self._keep())

    async def _keep(self) -> None:
        try:
            if self._cut_off_at != math.inf:
                await self.save()
            while answered := list(self._answered):
                await self._spool.forget(answered)
                del self._answered[: len(answered)]
        except (HoldfastError, OSError) as error:
            # The outcomes stay in memory, and are tried again as long as we are cut off. What is to
            # be forgotten is tried until it is: a next life would deliver it for nothing.
            self._log.error("the spool cannot be kept: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._keeping = False
        # What came while the disk was busy found nobody to start.
        self._wake()
