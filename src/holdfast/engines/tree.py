"""The processes below a supervisor as one: guard, nursery and children stand together, or fall.

Owns their start, their fall, and what follows it: a fallen tree is planted anew in the same place,
once nothing of it is left. It gives up where tree after tree has borne no child. It knows no
orders.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from holdfast.engines import ending, kernel
from holdfast.engines.calling import heard
from holdfast.engines.forking import NurseryLink
from holdfast.engines.guarding import CLOSE_SECONDS, GuardProcess
from holdfast.engines.packets import Charge, Exited, Forked
from holdfast.observe import TaskSet, logger

BARREN_MAX: Final = 5
"""So many trees in a row may fall before they have borne a child."""
PAUSE_SECONDS: Final = 0.05
"""Before a tree that follows a barren one; twice as long before each further one."""
LOOK_SECONDS: Final = 0.001
LOOK_SECONDS_MAX: Final = 0.02

_LOG = logger("engines.tree")


class Tree:
    """The guard and the nursery of one engine, whichever life of them.

    `forked` and `exited` tell of children. `falling`: all children are to be ended now, and nobody
    tells of each; it returns their pidfds. `fell`: they have ended, and a new tree stands. `lost`:
    they have ended, and none follows. `failed` is handed whatever breaks here. With `adopts`,
    orphans of a guard that was killed become children of this process, which must have no others:
    they are ended too.
    """

    def __init__(
        self,
        *,
        python: str,
        adopts: bool,
        forked: Callable[[Forked, int], None],
        exited: Callable[[Exited], None],
        falling: Callable[[], Sequence[int]],
        fell: Callable[[], None],
        lost: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.guard = GuardProcess(python=python, died=partial(heard, failed, self._guard_died))
        self._python = python
        self._adopts = adopts
        self._forked = forked
        self._exited = exited
        self._falling = falling
        self._fell = fell
        self._lost = lost
        self._failed = failed
        self._nursery: NurseryLink | None = None
        self._barren = 0
        self._tasks = TaskSet(_LOG)
        self._felling: asyncio.TimerHandle | None = None
        self._dying: Sequence[int] = ()

    @property
    def stands(self) -> bool:
        """Whether children can be asked for."""
        return self._nursery is not None

    def plant(self) -> None:
        """Start guard and nursery. A child can be asked for at once."""
        self._barren += 1
        if self._adopts:
            kernel.become_subreaper()
        nursery = NurseryLink(
            forked=self._child_came,
            exited=self._exited,
            lost=self._nursery_lost,
            stuck=self._nursery_stuck,
            failed=self._failed,
        )
        try:
            self.guard.start(nursery.command(self._python), inherit=nursery.inherit)
        except OSError:
            nursery.close()
            raise
        nursery.open()
        self._nursery = nursery

    def fork(self, charge: Charge, descriptors: Sequence[int]) -> None:
        """Ask for a child, who gets copies of the descriptors. They may be closed on return."""
        assert self._nursery is not None, "a tree has fallen"
        self._nursery.fork(charge, descriptors)

    async def close(self, *, farewell: bool = True) -> None:
        """End all that is below us but the guard, who hears on. A second call does nothing.

        Without a farewell the guard tells of our death.
        """
        await self._tasks.cancel()
        self._stop_felling()
        await self.guard.close(farewell=farewell)
        if not self.guard.lives:
            await self._clear()
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None
        # The nursery was heard to end: nobody has to end the guard for that.
        self._stop_felling()

    def _child_came(self, forked: Forked, pidfd: int) -> None:
        if forked.pid:
            self._barren = 0
        self._forked(forked, pidfd)

    def _nursery_lost(self) -> None:
        """The kernel ends the children of a nursery with it, the guard ends all others."""
        self._fall()
        loop = asyncio.get_running_loop()
        self._felling = loop.call_later(CLOSE_SECONDS, heard, self._failed, self.guard.kill)

    def _nursery_stuck(self) -> None:
        """Somebody has stopped it: with its guard, the kernel ends it all the same."""
        _LOG.error("no child comes from the nursery: it is replaced, with all children")
        self.guard.kill()

    def _guard_died(self) -> None:
        self._fall()
        self._stop_felling()
        self._tasks.start("plant a new tree", self._replanted())

    def _fall(self) -> None:
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None
            self._dying = self._falling()

    def _stop_felling(self) -> None:
        if self._felling is not None:
            self._felling.cancel()
            self._felling = None

    async def _replanted(self) -> None:
        try:
            await self._replant()
        except Exception as error:
            self._failed(error)

    async def _replant(self) -> None:
        """Let a new tree stand where one fell, or give up; then tell of the fall."""
        await _ends(self._dying)
        await self._clear()
        while self._barren < BARREN_MAX:
            if self._barren:
                await asyncio.sleep(PAUSE_SECONDS * 2**self._barren)
            try:
                self.plant()
            except OSError as error:
                _LOG.error("no guard can be started: %s", error)
                continue
            self._fell()
            return
        self._lost()

    async def _clear(self) -> None:
        """End what a guard has left that could not do it itself, within the bound of its own."""
        if not self._adopts:
            return
        for pause in _pauses():
            if ending.strike():
                return
            await asyncio.sleep(pause)
        _LOG.error("processes that a guard has left do not end")


async def _ends(pidfds: Sequence[int]) -> None:
    """Wait until these processes have ended, within the bound of an orderly end."""
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    for pause in _pauses():
        if len(poll.poll(0)) == len(pidfds):
            return
        await asyncio.sleep(pause)


def _pauses() -> Iterator[float]:
    """Yield ever longer pauses, of `CLOSE_SECONDS` in all."""
    pause = total = LOOK_SECONDS
    while total < CLOSE_SECONDS:
        yield pause
        pause = min(pause * 2, LOOK_SECONDS_MAX)
        total += pause
