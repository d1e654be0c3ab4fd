"""The end of a worker: asked for, refused by its coordinator, or forced by a failure of ours.

Rules
-----
A worker *serves* until it is asked to leave. Then it *drains*: it takes no more, returns what has
not begun, and waits for the rest until a time that only moves closer. Then it *closes* its engine,
and nothing is asked of that any more; a large result that is not stored yet is put on the shelf.
Once it is *childless*, whatever is held still has surely stopped; the outcomes are said, those
without an answer are spooled, and it says goodbye.

A failure of ours skips all of that: nothing that we would say or keep could be relied upon. The
guard, to whom no farewell is said then, tells that we have ended, so that nobody waits for us. What
only an operator can mend (another worker has our name, or our home is an old copy) ends in good
order, and is raised last.

Owns these stages, and why the worker ended. It never touches an attempt itself: `Leases` does.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from holdfast.core.outbox import Outbox
from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.model.messages import Goodbye
from holdfast.model.words import Word
from holdfast.observe import logger
from holdfast.ports import Clock
from holdfast.worker.backup import Backup
from holdfast.worker.leases import Leases
from holdfast.worker.results import Results
from holdfast.worker.sessions import Sessions
from holdfast.worker.slots import Slots

FAREWELL_SECONDS = 2.0
"""How long the end of a worker waits for answers to its last outcomes."""
_LOG = logger("worker")


class Stage(Word):
    """How far the end has come."""

    SERVING = 0
    DRAINING = 1
    CLOSING = 2
    CHILDLESS = 3


class Leaving:
    """The orderly end of one worker, and what kept it from one."""

    __slots__ = (
        "_backup",
        "_clock",
        "_failed",
        "_leases",
        "_outbox",
        "_refused",
        "_results",
        "_sessions",
        "_slots",
        "_stage",
        "_stirred",
        "_wake",
        "due",
    )

    def __init__(
        self,
        *,
        leases: Leases,
        slots: Slots,
        results: Results,
        outbox: Outbox,
        backup: Backup,
        sessions: Sessions,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._leases = leases
        self._slots = slots
        self._results = results
        self._outbox = outbox
        self._backup = backup
        self._sessions = sessions
        self._clock = clock
        self._wake = wake
        self.due = math.inf
        """When the draining is over, whatever still runs; infinity before it was asked for."""
        self._stage = Stage.SERVING
        self._failed: BaseException | None = None
        self._refused: ConfigurationError | None = None
        self._stirred = asyncio.Event()
        """Nothing is left to wait for; during the farewell: a pass has been."""

    @property
    def begun(self) -> bool:
        """Whether the worker takes no more work."""
        return self._stage is not Stage.SERVING

    @property
    def closing(self) -> bool:
        """Whether the engine is being closed, or is closed: nothing is asked of it any more."""
        return self._stage in (Stage.CLOSING, Stage.CHILDLESS)

    def ask(self, within_seconds: float) -> None:
        """Take no more and leave, in good order; what still runs after this time is stopped."""
        self.due = min(self.due, self._clock.monotonic() + within_seconds)
        if not self.begun:
            self._stage = Stage.DRAINING
            self._sessions.say_draining()
        self._wake()

    def refused(self, why: str) -> None:
        """Leave at once, in good order: the coordinator has told what only an operator can mend."""
        self._refused = ConfigurationError(why)
        self.ask(0.0)

    def failed(self, error: BaseException) -> None:
        """Leave without a word: the worker cannot go on."""
        _LOG.error("the worker cannot go on", exc_info=error)
        self._failed = error
        self._stirred.set()

    def act(self, now: float) -> None:
        """Do what a pass does once the worker leaves."""
        if self._stage is Stage.DRAINING:
            self._slots.act(now)
            self._leases.give_back(now)
            at_rest = not self._slots.busy and not self._results.busy
            if at_rest or now >= self.due:
                self._stirred.set()
        elif self._stage is Stage.CHILDLESS:
            self._give_up()

    async def run(self) -> None:
        """Wait until nothing is left to wait for, then end the children and say farewell.

        Raises what failed, what the spool raised, or what the coordinator refused us for.
        """
        await self._stirred.wait()
        if self._failed is None:
            self._stage = Stage.CLOSING
            await self._slots.close()
            self._leases.collect_ended(self._clock.monotonic())
            await self._results.rest()
            self._leases.collect_stored()
            self._stage = Stage.CHILDLESS
            await self._farewell()
        if (failed := self._failed or self._refused) is not None:
            raise failed

    def _give_up(self) -> None:
        self._leases.give_up()
        self._stirred.set()

    async def _farewell(self) -> None:
        """Say and keep what is left after the children have ended, then go."""
        self._give_up()
        self._wake()
        await self._hear_last_answers()
        self._backup.cut_off(self._clock.monotonic())
        try:
            await self._backup.save()
        except (HoldfastError, OSError) as error:
            _LOG.error("outcomes are lost with this worker: %s", error)
            self._failed = error
        if self._sessions.connected:
            await self._say_goodbye()

    async def _hear_last_answers(self) -> None:
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                while self._sessions.connected and len(self._outbox):
                    # Whatever is heard, and the end of the session, has a pass that sets it.
                    self._stirred.clear()
                    await self._stirred.wait()
        except TimeoutError:
            _LOG.warning("%d outcomes are unanswered and go to the spool", len(self._outbox))

    async def _say_goodbye(self) -> None:
        goodbye = Goodbye("drained", "the worker has ended in good order")
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._sessions.say_goodbye(goodbye)
        except TimeoutError:
            _LOG.debug("the coordinator did not take our goodbye")
