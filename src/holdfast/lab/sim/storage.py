"""The coordinator's disk with its faults: a wrapper around the real store.

Owns the virtual time that a commit takes, the crash points around it, and the failures of a store:
full, broken off before or after the commit happened, unreadable. The database itself is a lent
connection in memory; it outlives the coordinator as a disk does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from holdfast.errors import StoreDoubtError, StoreFullError, StoreRefusedError
from holdfast.lab.sim.coverage import AFTER, BEFORE, CrashPoints
from holdfast.lab.sim.loop import Party, SimLoop
from holdfast.lab.sim.witness import POISON
from holdfast.model.ids import TaskId
from holdfast.model.task import Lease, Phase, State, Task
from holdfast.ports import (
    Changes,
    QueueRow,
    ReadyPage,
    Receipt,
    Store,
    StoreFacts,
    Update,
    WorkerRow,
)

COMMIT_SECONDS = (0.0002, 0.003)
READ_SECONDS = (0.00002, 0.0004)


class StoreWatch(Protocol):
    """Who watches the store: told of each transaction as it comes, and when it is durable."""

    def deciding(self) -> None: ...

    def committed(self, changes: Changes, receipt: Receipt) -> None: ...


class DiskState:
    """The faults of the coordinator's disk now. It outlives the coordinator."""

    __slots__ = ("doubts_after", "doubts_before", "full_until", "slow_until", "unreadable_until")

    def __init__(self) -> None:
        self.full_until = 0.0
        self.slow_until = 0.0
        self.unreadable_until = 0.0
        self.doubts_before = 0
        self.doubts_after = 0
        """How many of the next commits break off, before or after they happened."""

    def ails(self, now: float) -> bool:
        """Return whether anything is wrong with it."""
        until = max(self.full_until, self.slow_until, self.unreadable_until)
        return now < until or self.doubts_before + self.doubts_after > 0

    def heal(self) -> None:
        """End all faults."""
        self.full_until = self.slow_until = self.unreadable_until = 0.0
        self.doubts_before = self.doubts_after = 0


class FaultyStore:
    """`ports.Store` of one coordinator process."""

    def __init__(
        self,
        inner: Store,
        disk: DiskState,
        party: Party,
        *,
        loop: SimLoop,
        rng: random.Random,
        points: CrashPoints,
        watch: StoreWatch,
        kinds: Callable[[Changes], list[str]],
    ) -> None:
        self._inner = inner
        self._disk = disk
        self._party = party
        self._loop = loop
        self._rng = rng
        self._points = points
        self._watch = watch
        self._kinds = kinds
        self._in_doubt = False

    async def open(self) -> StoreFacts:
        """Open the store; ends a doubt. Raises StoreDoubtError while it is unreadable."""
        await self._read(opening=True)
        facts = await self._inner.open()
        self._in_doubt = False
        return facts

    async def close(self) -> None:
        """Close the store."""
        self._party.alive()
        await self._inner.close()

    async def commit(self, changes: Changes) -> Receipt:
        """Write one turn, or fail as the disk's faults say. See `ports.Store`."""
        self._party.alive()
        if self._in_doubt:
            raise StoreDoubtError("an earlier turn is in doubt")
        self._watch.deciding()
        kinds = self._kinds(changes)
        self._points.touch(self._party, kinds, BEFORE)
        await asyncio.sleep(self._commit_seconds())
        self._party.alive()
        disk = self._disk
        if self._loop.time() < disk.full_until:
            raise StoreFullError("no room (simulated)")
        if any(map(_is_poisoned, changes.updates)):
            raise StoreRefusedError("a result that no column holds (simulated)")
        if disk.doubts_before:
            disk.doubts_before -= 1
            self._in_doubt = True
            raise StoreDoubtError("broken off before the commit (simulated)")
        receipt = await self._inner.commit(changes)
        self._watch.committed(changes, receipt)
        self._points.touch(self._party, kinds, AFTER)
        if disk.doubts_after:
            disk.doubts_after -= 1
            self._in_doubt = True
            raise StoreDoubtError("broken off after the commit (simulated)")
        return receipt

    async def last_turn(self) -> int:
        """See `ports.Store`."""
        await self._read()
        return await self._inner.last_turn()

    async def load(self, tasks: Sequence[TaskId]) -> list[Task]:
        """See `ports.Store`."""
        await self._read()
        return await self._inner.load(tasks)

    async def pruned(self, tasks: Sequence[TaskId]) -> list[TaskId]:
        """See `ports.Store`."""
        await self._read()
        return await self._inner.pruned(tasks)

    async def load_keys(self, keys: Sequence[str]) -> list[Task]:
        """See `ports.Store`."""
        await self._read()
        return await self._inner.load_keys(keys)

    async def running(self) -> list[Task]:
        """See `ports.Store`."""
        await self._read()
        return await self._inner.running()

    async def classes(self) -> list[str]:
        """See `ports.Store`."""
        await self._read()
        return await self._inner.classes()

    async def ready(self, needs: str, *, after: tuple[int, bytes] | None, limit: int) -> ReadyPage:
        """See `ports.Store`."""
        await self._read()
        return await self._inner.ready(needs, after=after, limit=limit)

    async def due(self, until_ms: int, *, limit: int) -> list[Task]:
        """See `ports.Store`."""
        await self._read()
        return await self._inner.due(until_ms, limit=limit)

    async def next_due_ms(self) -> int:
        """See `ports.Store`."""
        await self._read()
        return await self._inner.next_due_ms()

    async def worker_rows(self) -> list[WorkerRow]:
        """See `ports.Store`."""
        await self._read()
        return await self._inner.worker_rows()

    async def queue_rows(self) -> list[QueueRow]:
        """See `ports.Store`."""
        await self._read()
        return await self._inner.queue_rows()

    async def load_code(self, digest: bytes) -> bytes | None:
        """See `ports.Store`."""
        await self._read()
        return await self._inner.load_code(digest)

    async def kept_code(self, digests: Sequence[bytes]) -> list[bytes]:
        """See `ports.Store`."""
        await self._read()
        return await self._inner.kept_code(digests)

    async def _read(self, *, opening: bool = False) -> None:
        self._party.alive()
        await asyncio.sleep(self._rng.uniform(*READ_SECONDS))
        self._party.alive()
        if self._loop.time() < self._disk.unreadable_until:
            raise StoreDoubtError("the database cannot be read (simulated)")
        if self._in_doubt and not opening:
            raise StoreDoubtError("an earlier turn is in doubt")

    def _commit_seconds(self) -> float:
        seconds = self._rng.uniform(*COMMIT_SECONDS)
        if self._loop.time() < self._disk.slow_until:
            seconds += self._rng.random()
        return seconds


class SimRoom:
    """`ports.Room`: there is room exactly while the disk is not full."""

    __slots__ = ("_disk", "_loop")

    def __init__(self, disk: DiskState, loop: SimLoop) -> None:
        self._disk = disk
        self._loop = loop

    def short(self, size_bytes: int = 0) -> bool:
        """Whether the disk is full now."""
        return self._loop.time() < self._disk.full_until

    def needed_bytes(self) -> int:
        """Nothing is measured here."""
        return 0

    def release(self) -> None:
        """Nothing is kept back here: a full disk stays full until it is healed."""

    def restore(self) -> None:
        """Nothing is kept back here."""


def kinds_of(changes: Changes) -> list[str]:
    """Name what a transaction does, each kind once; these are its crash points."""
    kinds: dict[str, None] = {}
    if changes.workers:
        kinds["commit hello"] = None
    if changes.code:
        kinds["commit code"] = None
    if changes.outages:
        kinds["commit outage"] = None
    for task in changes.inserts:
        claimed = task.life.state is State.RUNNING
        kinds["commit insert+claim" if claimed else "commit insert"] = None
    for update in changes.updates:
        kinds[f"commit {_kind_of(update.task, writer=update.token is not None)}"] = None
    return list(kinds) or ["commit other"]


def _kind_of(task: Task, *, writer: bool) -> str:
    life = task.life
    if writer and life.lease is Lease.SPENT:
        return "outcome"
    if life.lease is Lease.HELD:
        return "started" if life.phase is Phase.STARTED else "claim"
    if life.lease is Lease.LAPSED and life.state is State.QUEUED:
        return "lapse"
    return "wish"


def _is_poisoned(update: Update) -> bool:
    result = update.task.life.result
    return result is not None and POISON in result.data
