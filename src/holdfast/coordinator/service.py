"""The heart: one inbox, one loop, one turn at a time.

    gather → load → decide → commit → perform

The coordinator drains its inbox (bounded), reads what its cache lacks in one batch, decides message
after message on an overlay, writes everything in one transaction, and only then says what follows
from it. While one commit runs, the inbox fills for the next: load makes turns larger, not slower.
What it does at start is what its sweeper does all the time; it keeps no truth in memory.
"""

from __future__ import annotations

import asyncio
from math import ceil

from holdfast.coordinator import loading
from holdfast.coordinator.deciding import Terms, decide
from holdfast.coordinator.facts import Register
from holdfast.coordinator.inbox import Inbox
from holdfast.coordinator.performing import perform
from holdfast.coordinator.placing import place
from holdfast.coordinator.recalling import recall
from holdfast.coordinator.sessions import Session
from holdfast.coordinator.splitting import parts_of
from holdfast.coordinator.state import CoordinatorState
from holdfast.coordinator.tasks import NO_ROOM_SECONDS
from holdfast.coordinator.turn import PLACING, Item, Turn
from holdfast.core.session import patience_seconds
from holdfast.errors import (
    StoreCorruptError,
    StoreDoubtError,
    StoreFullError,
    StoreRefusedError,
)
from holdfast.model.ids import Entropy, TaskId
from holdfast.model.messages import PutCode, Submit
from holdfast.model.task import Task
from holdfast.observe import Counters, logger
from holdfast.ports import Clock, Receipt, Room, Store

_LOG = logger("coordinator")
_DOUBT_SECONDS = (0.01, 0.05, 0.2, 1.0)
_SUBMITTED = (Submit, PutCode, Register)
"""What has to wait for room: new tasks, and functions that travel before them or by themselves."""


class Coordinator:
    """Decides and commits; the gateway brings messages and carries answers away.

    `room` tells whether the disk has space above the watermark and gives the ballast up.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        rng: Entropy,
        lease_seconds: float,
        beat_seconds: float,
        room: Room,
        counters: Counters,
    ) -> None:
        self.state = CoordinatorState()
        self.inbox = Inbox()
        self.store = store
        self.clock = clock
        self.terms = Terms(lease_seconds=lease_seconds, beat_seconds=beat_seconds)
        self.counters = counters
        self._rng = rng
        self._room = room
        self._doubts = 0
        self._look_again = False
        """Whether a turn is wanted although nothing came in and nothing waits."""
        self._number = 0
        self._damage: StoreCorruptError | None = None
        self.short = False
        """Whether submissions are refused for want of room."""
        self._needed_bytes = 0
        self.absent = ""
        """What became of workers that are kept beside us and are not here; the host says it."""
        self.ready = asyncio.Event()
        """Set when the store was read: sessions are answered from then on."""

    def look_at_room(self) -> None:
        """See whether submissions must be refused for want of room, or may come again."""
        if self._room.short():
            self._room.restore()
        short = self._room.short()
        self._needed_bytes = self._room.needed_bytes()
        if short and not self.short:
            until = _mebibytes(self._needed_bytes)
            told = "the disk is nearly full: new tasks are refused until %s are free, outcomes kept"
            _LOG.warning(told, until)
        elif self.short and not short:
            _LOG.warning("the disk has room again: new tasks are kept")
        self.short = short

    def no_room_for(self, size_bytes: int) -> str:
        """Return what is told to who brings a payload, "" where there is room for it."""
        if not self.short and not self._room.short(size_bytes):
            return ""
        what = f"a payload of {_mebibytes(size_bytes)}"
        return _no_room(what, self._room.needed_bytes() + size_bytes)

    # The inbox.

    def post(self, session: Session | None, message: object) -> None:
        """Put one message into the inbox."""
        self.inbox.post(session, message)

    # The loop.

    def give_up(self, damage: StoreCorruptError) -> None:
        """End with this error, before another turn: whoever read the store found it damaged."""
        self._damage = damage
        self.inbox.wake()

    async def run(self) -> None:
        """Recover, then turn for ever.

        Ends only by cancellation, a damaged store (StoreCorruptError), or an error of ours.
        """
        await self.recover()
        try:
            while True:
                await self.inbox.arrival()
                if self._damage is not None:
                    raise self._damage
                await self._next_turn()
        except StoreCorruptError as error:
            # Some turns may be in it for good; which, nobody can say any more.
            _LOG.critical("this coordinator ends: %s", error)
            raise
        finally:
            self.inbox.close()

    async def _next_turn(self) -> None:
        items = self.inbox.part()
        if items is not None:
            # Nothing is placed in these: whoever spoils a turn must be one of its items.
            if self.short:
                # Outcomes that wait for room must not keep submitters from their refusal.
                items += self.inbox.ahead(_SUBMITTED)
            await self._turn(items, placing=False)
            self.inbox.wake()
        elif len(self.inbox) or self._look_again or self._work_waits():
            self._look_again = False
            await self._turn(self.inbox.gather(), placing=True)
        if len(self.inbox):
            self.inbox.wake()
        for due_ms in (self.state.next_due_ms, self.state.siding.next_ms):
            if due_ms:
                self.inbox.wake_in((due_ms - self.clock.wall_ms()) / 1000)

    async def recover(self) -> None:
        """Read what was running; give back the time in which nobody listened."""
        state, now = self.state, self.clock.monotonic()
        state.facts = await self.store.open()
        self._number = state.facts.turn
        for row in sorted(await self.store.worker_rows(), key=lambda row: row.said_ms):
            state.workers[row.identity] = row
            state.names[row.name] = row.identity
        for task in await self.store.running():
            state.keep(task)
        for needs in await self.store.classes():
            state.lines.forget(needs)
        state.pause(row.name for row in await self.store.queue_rows() if row.paused)
        state.next_due_ms = await self.store.next_due_ms()
        for identity in state.held:
            outages = state.workers[identity].outages if identity in state.workers else 0
            left = patience_seconds(self.terms.lease_seconds, outages)
            state.heard[identity] = now - self.terms.lease_seconds + left
        state.missed = dict.fromkeys(state.held)
        state.swept = state.listening_since = now
        self.ready.set()
        self.inbox.wake()

    def _work_waits(self) -> bool:
        state = self.state
        now_ms = self.clock.wall_ms()
        times = (state.next_due_ms, state.siding.next_ms)
        return bool(state.lines.lines) or any(0 < due_ms <= now_ms for due_ms in times)

    # One turn.

    async def _turn(self, items: list[Item], *, placing: bool) -> None:
        try:
            turn = await self._decide(items, placing=placing)
        except StoreRefusedError as error:
            self._split(items, error)
            return
        except StoreDoubtError as error:
            _LOG.error("the store could not be read: %s", error)
            await self._reopened()
            self.inbox.again(items)
            return
        receipt = Receipt()
        if turn.writes:
            committed = await self._commit(turn, items)
            if committed is None:
                return
            receipt = committed
        self._doubts = 0
        refused = [*receipt.refused_inserts, *receipt.refused_updates]
        if refused:
            self.counters.add("changes_refused", len(refused))
            self.inbox.again(turn.refused_items(receipt))
            turn.without(refused)
            await self._reread(refused)
        for name, amount in turn.counts.items():
            self.counters.add(name, amount)
        if perform(turn, self.clock.monotonic(), distrust=bool(refused)):
            self._look_again = True
            self.inbox.wake()
        if turn.look_again_seconds:
            self._look_again = True
            self.inbox.wake_in(turn.look_again_seconds)

    async def _commit(self, turn: Turn, items: list[Item]) -> Receipt | None:
        """Commit a turn; None where it was not, and its items are taken care of."""
        try:
            receipt = await self.store.commit(turn.changes_to_commit())
        except StoreRefusedError as error:
            turn.undo()
            self._split(items, error)
            return None
        except StoreFullError as error:
            turn.undo()
            await self._no_room(items, error)
            return None
        except StoreDoubtError as error:
            _LOG.error("commit of turn %d broke off: %s", turn.number, error)
            if await self._reopened() < turn.number:
                turn.undo()
                self.inbox.again(items)
                return None
            receipt = await self._receipt_of(turn)
        self._number = turn.number
        self.counters.add("commits")
        return receipt

    async def _decide(self, items: list[Item], *, placing: bool) -> Turn:
        turn = Turn(
            self.state,
            number=self._number + 1,
            now=self.clock.monotonic(),
            now_ms=self.clock.wall_ms(),
            rng=self._rng,
            no_room=_no_room("new tasks", self._needed_bytes) if self.short else "",
        )
        await loading.load(turn, items, self.store)
        for item in items:
            turn.item = item
            decide(turn, item, self.terms)
        turn.item = PLACING
        if placing:
            loading.make_due_claimable(turn)
            turn.more = place(turn)
            turn.look_again_seconds = recall(turn)
        return turn

    # What can go wrong with a commit.

    def _split(self, items: list[Item], error: StoreRefusedError) -> None:
        """Halve a refused transaction until the offender stands alone and is answered."""
        _LOG.error("the store refuses a turn of %d items: %s", len(items), error)
        self.counters.add("turns_split")
        parts = parts_of(items, error)
        if len(items) == 1 and len(parts) < 2:
            self.counters.add("offenders")
        for part in reversed(parts):
            self.inbox.again(part)

    async def _no_room(self, items: list[Item], error: StoreFullError) -> None:
        """Refuse new submissions, give the ballast up, and let the rest commit when it can."""
        self.counters.add("turns_without_room")
        self._room.release()
        self._needed_bytes = self._room.needed_bytes()
        until = _mebibytes(self._needed_bytes)
        _LOG.error("no room: %s; new tasks are refused until %s are free", error, until)
        self.short = True
        submitted = [item for item in items if isinstance(item[1], _SUBMITTED)]
        if not submitted:
            await asyncio.sleep(NO_ROOM_SECONDS)
        self.inbox.again([item for item in items if not isinstance(item[1], _SUBMITTED)])
        self.inbox.again(submitted)

    async def _reopened(self) -> int:
        """Reopen the store and return its newest turn; until it says, nothing is said."""
        while True:
            seconds = _DOUBT_SECONDS[min(self._doubts, len(_DOUBT_SECONDS) - 1)]
            self._doubts += 1
            await asyncio.sleep(seconds)
            try:
                await self.store.close()
                await self.store.open()
                return await self.store.last_turn()
            except (StoreDoubtError, StoreRefusedError, StoreFullError) as error:
                _LOG.error("the store cannot be reopened yet: %s", error)

    async def _reread(self, ids: list[TaskId]) -> None:
        """Know the rows that another writer changed as they are: who holds what, above all."""
        for task in await self._rows(ids):
            self.state.keep(task)

    async def _rows(self, ids: list[TaskId]) -> list[Task]:
        while True:
            try:
                return await self.store.load(ids)
            except StoreDoubtError as error:
                _LOG.error("the store could not be read: %s", error)
                await self._reopened()

    async def _receipt_of(self, turn: Turn) -> Receipt:
        """Find out which changes of a committed turn were accepted, where its receipt was lost."""
        ids = [change.after.spec.id for change in turn.changes.values()]
        rows = {task.spec.id: task for task in await self._rows(ids)}
        receipt = Receipt()
        for change in turn.changes.values():
            if rows.get(change.after.spec.id) != change.after:
                kind = receipt.refused_inserts if change.before is None else receipt.refused_updates
                kind.append(change.after.spec.id)
        return receipt


def _no_room(what: str, needed_bytes: int) -> str:
    """Say what has no room, and when it will."""
    until = f"until {_mebibytes(needed_bytes)} are free"
    return f"the coordinator's disk has no room for {what} {until}"


def _mebibytes(size_bytes: int) -> str:
    # Rounded up: so much is enough.
    return f"{ceil(size_bytes * 10 / (1 << 20)) / 10:.1f} MiB"
