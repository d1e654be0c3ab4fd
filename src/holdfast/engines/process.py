"""The process engine: warm child processes as lanes, under a nursery and a guard. Linux only.

Owns the lives of the lanes' children: it hands orders, hears outcomes, and when a child is gone
says which orders it had taken up and which surely not, and gives the lane a fresh child. It does
not judge a death, keeps no order after its end, and runs no user code.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from holdfast.engines.calling import heard
from holdfast.engines.child import INTERRUPT_SIGNAL
from holdfast.engines.codefiles import CodeFiles
from holdfast.engines.evidence import OomEvidence
from holdfast.engines.lane import GarbledError, Life, Untaken
from holdfast.engines.packets import (
    CODE_INLINE_BYTES_MAX,
    PACKET_BYTES_MAX,
    RETIRED_EXIT,
    Charge,
    Exited,
    Forked,
    pack_order,
)
from holdfast.engines.tree import Tree
from holdfast.model.ids import Token
from holdfast.observe import logger
from holdfast.payloads.values import PARTIAL_SUFFIX
from holdfast.ports import EngineListener, LaneDeath, Order

BUFFER_BYTES: Final = 256 * 1024
BACKOFF_SECONDS: Final = 0.01
BACKOFF_SECONDS_MAX: Final = 1.0
BACKOFF_DOUBLINGS_MAX: Final = 10
"""More failures are not reckoned with: after a thousand of them no float would hold the pause."""
WORD_SECONDS: Final = 3.0
"""How long its minder's word on a dead child is waited for: longer than that may take to end what
the child has left."""
LAST_READS_MAX: Final = 64
"""Reads of each stream of a dead child, so that a surviving grandchild cannot hold us."""

NO_DEATH: Final = LaneDeath((), (), 0, 0, killed=False, out_of_memory=False, last_words="")
"""Of a lane without a child, when all others die."""

_LOG = logger("engines.process")


class ProcessEngine:
    """Satisfies `ports.Engine`; `guard` satisfies `ports.Guard`.

    `state_dir` gets the folders `engine/results` (large results, removed by who is told of them)
    and `engine/code`; `open` empties both. A new guard and a new nursery follow those that end
    unasked; `guard_death` is called when they do so again and again before they have a child.
    `recycle_tasks` and `recycle_rss_bytes` (0: never) replace a child between two tasks;
    `follow_sources` replaces one whose modules were changed on disk. `open_files_max` (0: as it is
    here) is the soft limit of user code. `adopts` is for a process that has no children but those
    of this engine: it ends what a guard that was killed has left.
    """

    def __init__(
        self,
        *,
        state_dir: Path,
        guard_death: Callable[[], None],
        python: str = sys.executable,
        recycle_tasks: int = 0,
        recycle_rss_bytes: int = 0,
        follow_sources: bool = False,
        adopts: bool = False,
        open_files_max: int = 0,
    ) -> None:
        self._tree = Tree(
            python=python,
            adopts=adopts,
            forked=self._forked,
            exited=self._exited,
            falling=self._end_all,
            fell=self._fell,
            lost=self._lost,
            failed=self._failed,
        )
        self.guard = self._tree.guard
        self._results = state_dir.absolute() / "engine" / "results"
        self._code = state_dir.absolute() / "engine" / "code"
        self._guard_death = guard_death
        self._recycle_tasks = recycle_tasks
        self._recycle_rss_bytes = recycle_rss_bytes
        self._follow_sources = follow_sources
        self._open_files_max = open_files_max
        self._listener: EngineListener | None = None
        self._lives: list[Life | None] = []
        self._by_serial: dict[int, Life] = {}
        self._serial = 0
        self._failures: list[int] = []
        self._timers: dict[int, asyncio.TimerHandle] = {}
        """By serial: the birth that is put off, or the word that is waited for."""
        self._unborn: dict[int, asyncio.TimerHandle] = {}
        """By lane: when a life is tried for again, for which there was no room."""
        self._full: dict[int, None] = {}
        self._code_files = CodeFiles(self._code, named=self._code_named)
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._reads_printed = True
        self._down = True
        self._oom = OomEvidence()

    async def open(self, listener: EngineListener, *, lanes: int) -> None:
        """Start the tree, and one child for each lane; orders can be handed at once."""
        assert lanes > 0, "an engine has a lane at least"
        for folder in (self._results, self._code):
            folder.mkdir(parents=True, exist_ok=True)
            for left_behind in folder.iterdir():
                left_behind.unlink()
        self._listener = listener
        self._down = False
        self._oom.watch()
        self._tree.plant()
        self._failures = [0] * (lanes + 1)
        self._lives = [None] * (lanes + 1)
        for lane in range(lanes):
            self._replace(lane, needed=False)

    def hand(self, lane: int, order: Order) -> bool:
        """Put an order into a lane; False where it has no room (`lane_writable` follows).

        Raises OSError where its function cannot be put on the disk.
        """
        if self._down or not self._tree.stands:
            return False
        life = self._lives[lane]
        if life is None and lane not in self._unborn:
            life = self._lives[lane] = self._try_to_bear(lane)
        if life is None:
            return False
        code_path = ""
        if len(order.code) > CODE_INLINE_BYTES_MAX:
            code_path = self._code_files.path_of(order.code)
        packet = pack_order(order, code_path)
        assert len(packet) <= PACKET_BYTES_MAX, "a larger payload comes by its path"
        if life.hand(packet):
            life.handed[order.token] = code_path
            return True
        if lane not in self._full:
            self._full[lane] = None
            asyncio.get_running_loop().add_writer(
                life.orders, heard, self._failed, self._writable, lane, life
            )
        return False

    def take_back(self, lane: int) -> list[Token]:
        """Return the orders that the child has not taken up; they leave the lane."""
        life = self._lives[lane]
        return [] if life is None else [untaken.token for untaken in life.take_back()]

    def interrupt(self, lane: int, token: Token) -> None:
        """Raise `TaskCancelled` inside the attempt, if it is the one that runs."""
        life = self._lives[lane]
        if life is not None and token in life.handed:
            concurrent = lane == len(self._lives) - 1
            life.interrupt(token, None if concurrent else INTERRUPT_SIGNAL)

    def kill(self, lane: int) -> None:
        """SIGKILL the child's process group; `lane_died` follows."""
        life = self._lives[lane]
        if life is not None:
            life.killed = True
            life.kill()

    def read_printed(self, on: bool) -> None:
        """Read on what children print, or let them wait at a full pipe until then."""
        self._reads_printed = on
        for life in self._by_serial.values():
            self._watch_printed(life)

    async def close(self, *, farewell: bool = True) -> None:
        """End all children and what they left behind. A second call does nothing.

        Without a farewell the guard tells of it as of a sudden death.
        """
        self._down = True
        self._oom.close()
        self._stop_timers()
        await self._tree.close(farewell=farewell)
        for life in self._by_serial.values():
            self._print_the_last(life)
            self._unwatch(life)
            life.close()
        self._by_serial.clear()
        self._lives = [None] * len(self._lives)

    # Births.

    def _bear(self, lane: int, delay_seconds: float = 0.0) -> Life:
        """Return a new life of a lane, whose child is asked for now or after a delay.

        Raises OSError where this process has no room for its streams.
        """
        self._serial += 1
        life = Life(lane=lane, serial=self._serial)
        self._by_serial[life.serial] = life
        self._watch(life.outcomes, self._readable, life)
        self._watch_printed(life)
        if delay_seconds:
            self._timers[life.serial] = self._later(delay_seconds, self._ask_for, life)
        else:
            self._ask_for(life)
        return life

    def _try_to_bear(self, lane: int, delay_seconds: float = 0.0) -> Life | None:
        """Return a new life of a lane; None where there is no room for one now.

        It is tried for again then, and `lane_writable` tells when it is there.
        """
        try:
            life = self._bear(lane, delay_seconds)
        except OSError as error:
            if lane not in self._unborn:
                _LOG.error("lane %d: no room for a child, it is tried again: %s", lane, error)
            self._failures[lane] += 1
            self._unborn[lane] = self._later(self._backoff(lane), self._bear_late, lane)
            return None
        self._unborn.pop(lane, None)
        return life

    def _bear_late(self, lane: int) -> None:
        life = self._lives[lane] = self._try_to_bear(lane)
        if life is not None and self._listener is not None:
            self._listener.lane_writable(lane)

    def _backoff(self, lane: int) -> float:
        failures = min(self._failures[lane], BACKOFF_DOUBLINGS_MAX)
        return min(BACKOFF_SECONDS * 2**failures, BACKOFF_SECONDS_MAX) if failures else 0.0

    def _ask_for(self, life: Life) -> None:
        self._timers.pop(life.serial, None)
        charge = Charge(
            serial=life.serial,
            lane=life.lane,
            concurrent=life.lane == len(self._failures) - 1,
            results=os.fsencode(self._results),
            tasks_max=self._recycle_tasks,
            rss_bytes_max=self._recycle_rss_bytes,
            follows_sources=self._follow_sources,
            open_files_max=self._open_files_max,
        )
        try:
            self._tree.fork(charge, life.descriptors)
        except OSError as error:
            _LOG.warning("lane %d: no child can be asked for now: %s", life.lane, error)
            self._timers[life.serial] = self._later(BACKOFF_SECONDS_MAX, self._ask_for, life)
            return
        life.release()

    def _forked(self, forked: Forked, pidfd: int) -> None:
        life = self._by_serial.get(forked.serial)
        if life is None or not forked.pid:
            if pidfd >= 0:
                os.close(pidfd)
            if life is not None:
                _LOG.warning("lane %d: no child could be forked: %s", life.lane, forked.error)
                self._bury(life, signal.SIGKILL)
            return
        if pidfd < 0:
            raise OSError(errno.EMFILE, "a child came without its pidfd: there was no room for it")
        life.pid, life.pidfd, life.oom_kills = forked.pid, pidfd, self._oom.count()
        self._watch(pidfd, self._ended, life)
        if life.killed or life.garbled:
            life.kill()

    # Work.

    def _readable(self, life: Life) -> None:
        listener = self._listener
        assert listener is not None
        try:
            reports = life.read(self._buffer)
        except BlockingIOError:
            return
        except GarbledError as error:
            # At its end a child closes them too: the kernel lets it keep its own exit status then.
            _LOG.debug("lane %d: %s", life.lane, error)
            life.garbled = True
            reports = []
        if life.garbled:
            asyncio.get_running_loop().remove_reader(life.outcomes)
            life.kill()
        if reports:
            life.begun_any = True
            for report in reports:
                listener.attempt_ended(life.lane, report.ended, os.fsdecode(report.path))

    def _writable(self, lane: int, life: Life) -> None:
        asyncio.get_running_loop().remove_writer(life.orders)
        self._full.pop(lane, None)
        if self._listener is not None:
            self._listener.lane_writable(lane)

    def _watch_printed(self, life: Life) -> None:
        for descriptor, error in ((life.printed, False), (life.errors, True)):
            if self._reads_printed:
                self._watch(descriptor, partial(self._print, life, error=error))
            else:
                asyncio.get_running_loop().remove_reader(descriptor)

    def _print(self, life: Life, *, error: bool) -> bool:
        """Pass on one read of what was printed; tells whether there may be more."""
        data = life.read_printed(error=error)
        if data:
            assert self._listener is not None
            self._listener.printed(life.lane, error=error, data=data)
        elif data is not None:
            asyncio.get_running_loop().remove_reader(life.errors if error else life.printed)
        return bool(data)

    def _code_named(self) -> set[str]:
        """Return the files that a child may still read for an order it was handed."""
        lives = self._by_serial.values()
        return {path for life in lives for path in life.handed.values() if path}

    # Deaths.

    def _ended(self, life: Life) -> None:
        """The pidfd says that the child is gone; how, its minder tells in a moment."""
        asyncio.get_running_loop().remove_reader(life.pidfd)
        if not self._tree.stands:
            return
        self._timers[life.serial] = self._later(WORD_SECONDS, self._despair, life)

    def _despair(self, life: Life) -> None:
        _LOG.warning("lane %d: nobody tells how its child ended; what it left may live", life.lane)
        self._bury(life, signal.SIGKILL)

    def _exited(self, exited: Exited) -> None:
        life = self._by_serial.get(exited.serial)
        if life is not None:
            if exited.left:
                text = "lane %d: %d processes of a task that was cut off do not end"
                _LOG.warning(text, life.lane, exited.left)
            self._bury(life, exited.status)

    def _bury(self, life: Life, status: int) -> None:
        """Hear the last of a child, report the death, and give its lane a fresh one.

        Whatever becomes of the fresh one, the death has been told; only what a retired child has
        left goes to it unseen.
        """
        timer = self._timers.pop(life.serial, None)
        if timer is not None:
            timer.cancel()
        if self._down or self._listener is None:
            return
        waiting, begun = self._last_of(life)
        was_full = self._full.pop(life.lane, life) is None
        code = os.waitstatus_to_exitcode(status)
        retired = code == RETIRED_EXIT and not begun
        started_well = bool(begun) or life.begun_any or life.killed
        self._failures[life.lane] = 0 if started_well else self._failures[life.lane] + 1
        if retired:
            fresh = self._replace(life.lane, needed=bool(waiting))
            if fresh is not None:
                waiting = fresh.take_over(waiting)
        if waiting or not retired:
            by_us = life.killed and code == -signal.SIGKILL
            memory = code == -signal.SIGKILL and not by_us and self._oom.grew(life.oom_kills)
            death = life.death(begun, waiting, code, out_of_memory=memory)
            self._listener.lane_died(life.lane, death)
        elif was_full:
            self._listener.lane_writable(life.lane)
        if not retired:
            self._replace(life.lane, needed=False)

    def _last_of(self, life: Life) -> tuple[Sequence[Untaken], tuple[Token, ...]]:
        """Hear the last of a life and strike it off; return what waits in it, and what it began."""
        self._hear_the_last(life)
        waiting: Sequence[Untaken] = life.take_back()
        begun = tuple(life.handed)
        self._unwatch(life)
        del self._by_serial[life.serial]
        self._lives[life.lane] = None
        life.close()
        if begun:
            self._tidy(life)
        return waiting, begun

    def _tidy(self, life: Life) -> None:
        """Remove what a child had begun to write; what cannot be removed now, `open` does."""
        try:
            for unfinished in self._results.glob(f"{life.serial}-*{PARTIAL_SUFFIX}"):
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            _LOG.warning("lane %d: an unfinished result stays: %s", life.lane, error)

    def _hear_the_last(self, life: Life) -> None:
        """Read what the child wrote before its end; all of it is in the buffers by now."""
        for _ in range(LAST_READS_MAX):
            try:
                reports = life.read(self._buffer)
            except (BlockingIOError, GarbledError):
                break
            assert self._listener is not None
            for report in reports:
                self._listener.attempt_ended(life.lane, report.ended, os.fsdecode(report.path))
        self._print_the_last(life)

    def _print_the_last(self, life: Life) -> None:
        for error in (False, True):
            for _ in range(LAST_READS_MAX):
                if not self._print(life, error=error):
                    break

    def _replace(self, lane: int, *, needed: bool) -> Life | None:
        """Give a lane a fresh child; one that keeps dying at its start is put off.

        The concurrent lane gets one where it is `needed` now, else with its next order.
        """
        concurrent = lane == len(self._lives) - 1
        fresh = None
        if needed or not concurrent:
            fresh = self._try_to_bear(lane, self._backoff(lane))
        self._lives[lane] = fresh
        return fresh

    def _watch(self, descriptor: int, callback: Callable[..., object], *args: object) -> None:
        asyncio.get_running_loop().add_reader(descriptor, heard, self._failed, callback, *args)

    def _later(
        self, seconds: float, callback: Callable[..., object], *args: object
    ) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        return loop.call_later(seconds, heard, self._failed, callback, *args)

    def _failed(self, error: Exception) -> None:
        """Nothing that is told from here on could be relied upon: the worker ends."""
        if self._down or self._listener is None:
            _LOG.debug("an engine that is down failed", exc_info=error)
            return
        self._down = True
        self._stop_timers()
        for life in self._by_serial.values():
            self._unwatch(life)
        self._listener.failed(error)

    def _unwatch(self, life: Life) -> None:
        loop = asyncio.get_running_loop()
        for descriptor in (life.outcomes, life.printed, life.errors, life.pidfd):
            if descriptor >= 0:
                loop.remove_reader(descriptor)
        loop.remove_writer(life.orders)

    def _stop_timers(self) -> None:
        for timers in (self._timers, self._unborn):
            for timer in timers.values():
                timer.cancel()
            timers.clear()

    def _end_all(self) -> list[int]:
        self._stop_timers()
        lives = [life for life in self._by_serial.values() if life.pidfd >= 0]
        for life in lives:
            life.kill()
        return [life.pidfd for life in lives]

    def _fell(self) -> None:
        """All children are gone at once: fresh ones of a new tree take all lanes."""
        self._tell_of(self._bury_all())
        self._failures = [0] * len(self._lives)
        for lane in range(len(self._lives)):
            self._replace(lane, needed=False)

    def _lost(self) -> None:
        """All children are gone, and none follows."""
        self._tell_of(self._bury_all())
        self._down = True
        self._guard_death()

    def _bury_all(self) -> list[tuple[int, LaneDeath]]:
        memory = self._oom.grew()
        deaths = []
        for lane, life in enumerate(self._lives):
            if life is None:
                deaths.append((lane, NO_DEATH))
                continue
            waiting, begun = self._last_of(life)
            death = life.death(begun, waiting, -signal.SIGKILL, out_of_memory=memory)
            deaths.append((lane, death))
        self._full.clear()
        return deaths

    def _tell_of(self, deaths: list[tuple[int, LaneDeath]]) -> None:
        if self._listener is not None:
            self._listener.all_died(deaths)
