"""The lanes of an engine, kept busy: hands orders, takes them back, stops them, and judges deaths.

Owns what becomes of an attempt between *may start* and *is over*. `core.lanes` reckons which lane
gets what; this room tells the guard, moves the orders, keeps the grace of those that are to be
stopped, and turns a death into outcomes. It never talks to a coordinator.

What an engine reports is only noted; it is judged in `collect`, so that one wake-up of the worker
sees all of it in order, and so that no call of ours into the engine is answered inside itself.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from holdfast.core.lanes import Alone, Lanes
from holdfast.model.ids import Token
from holdfast.model.limits import CANCEL_GRACE_SECONDS, EVIDENCE_BYTES_MAX
from holdfast.model.messages import Ended
from holdfast.model.outcome import Failure, OutcomeKind
from holdfast.ports import Engine, Guard, LaneDeath, Order


class Over(msgspec.Struct, frozen=True, gc=False):
    """An attempt that has ended; a large result rests at `result_path`."""

    ended: Ended
    result_path: str = ""


class Fall(msgspec.Struct, frozen=True, gc=False):
    """The children of all lanes died at once."""

    deaths: tuple[tuple[int, LaneDeath], ...]


class Keeper(Protocol):
    """Who keeps the leases: told of each order that reaches a lane, or leaves it unrun."""

    def handed(self, order: Order, now: float) -> None:
        """A child may take it up from now on."""
        ...

    def taken_back(self, token: Token) -> None:
        """No child took it up, surely; it waits in line again."""
        ...


Printed = Callable[[int, bool, bytes], None]
"""Where the output of children goes: lane, whether stderr, bytes."""


class Slots:
    """All lanes of one worker. It is the engine's listener."""

    __slots__ = (
        "_begun",
        "_closed",
        "_engine",
        "_events",
        "_guard",
        "_keeper",
        "_lanes",
        "_orders",
        "_printed",
        "_spoils",
        "_stops_at",
        "_wake",
    )

    def __init__(
        self,
        *,
        engine: Engine,
        guard: Guard,
        keeper: Keeper,
        slots: int,
        concurrent_slots: int,
        wake: Callable[[], None],
        printed: Printed,
    ) -> None:
        self._engine = engine
        self._guard = guard
        self._keeper = keeper
        self._lanes = Lanes(slots=slots, concurrent_slots=concurrent_slots)
        self._orders: dict[Token, Order] = {}
        self._begun: dict[Token, None] = {}
        """Suspects: they ran in a child that died, and wait to run again, or do."""
        self._stops_at: dict[Token, float] = {}
        """When the grace of an attempt that is to stop is over; infinity once it was killed."""
        self._events: list[tuple[int, Over | LaneDeath | Fall | Exception | None]] = []
        self._spoils: list[Over] = []
        """Orders that could not be put where a child reads them."""
        self._wake = wake
        self._printed = printed
        self._closed = False

    # The engine's listener.

    def attempt_ended(self, lane: int, ended: Ended, result_path: str) -> None:
        """Note an end; `collect` judges it."""
        self._events.append((lane, Over(ended, result_path)))
        self._wake()

    def lane_died(self, lane: int, death: LaneDeath) -> None:
        """Note a death; `collect` judges it."""
        self._events.append((lane, death))
        self._wake()

    def all_died(self, deaths: Sequence[tuple[int, LaneDeath]]) -> None:
        """Note the death of all lanes; `collect` judges it."""
        self._events.append((-1, Fall(tuple(deaths))))
        self._wake()

    def lane_writable(self, lane: int) -> None:
        """Note that a lane has room again."""
        self._events.append((lane, None))
        self._wake()

    def printed(self, lane: int, *, error: bool, data: bytes) -> None:
        """Pass on what a child wrote."""
        self._printed(lane, error, data)

    def failed(self, error: Exception) -> None:
        """Note that the engine is of no use any more; `collect` raises it."""
        self._events.append((-1, error))
        self._wake()

    # What the worker asks.

    async def open(self) -> None:
        """Start the engine with one lane for each slot."""
        await self._engine.open(self, lanes=self._lanes.slots)

    async def close(self, *, farewell: bool = True) -> None:
        """End all children. Nothing is asked of the engine from here on.

        What was in a lane stays there: whoever keeps the leases ends it. Without a farewell the
        guard tells of it as of a sudden death.
        """
        self._closed = True
        await self._engine.close(farewell=farewell)

    @property
    def busy(self) -> bool:
        """Whether any order is in a lane."""
        return bool(self._lanes.handed())

    def add(self, order: Order, *, concurrent: bool) -> None:
        """Put an order in line that has all it needs."""
        self._orders[order.token] = order
        self._lanes.add(order.token, order.function, concurrent=concurrent)

    def dispatch(self, now: float) -> None:
        """Hand out what the lanes have room for; the guard is told of all of it first.

        What this worker has no room for on its disk is over, and `collect` brings it.
        """
        chosen = self._lanes.choose(now)
        if not chosen:
            return
        self._guard.started([token for _, token in chosen])
        refused: list[Token] = []
        full: dict[int, None] = {}
        for lane, token in chosen:
            order = self._orders[token]
            try:
                has_room = lane not in full and self._engine.hand(lane, order)
            except OSError as error:
                self._spoiled(token, error, now)
                continue
            if has_room:
                self._keeper.handed(order, now)
            else:
                full[lane] = None
                refused.append(token)
        if refused:
            self._not_named(refused)
            self._lanes.back(refused, now)
            for lane in full:
                self._lanes.refused(lane)

    def is_suspect(self, token: Token) -> bool:
        """Whether an order ran in a child that died: it waits to run again, or does."""
        return token in self._begun

    def withdraw(self, token: Token, now: float) -> bool:
        """Take an order out that no child runs now; its neighbours stay in line.

        It surely did not run, unless it is a suspect. Return whether it was there.
        """
        lane = self._lanes.lane_of(token)
        if lane is not None:
            self._take_back(lane, now)
        if not self._lanes.remove(token):
            return False
        del self._orders[token]
        self._begun.pop(token, None)
        return True

    def take_back_all(self, now: float) -> None:
        """Put everything in line again that no child has taken up."""
        for lane in range(self._lanes.slots + 1):
            if self._lanes.in_lane(lane):
                self._take_back(lane, now)

    def stop(self, token: Token, now: float) -> None:
        """Interrupt an attempt that runs; after the grace its child is killed."""
        lane = self._lanes.lane_of(token)
        if lane is not None and token not in self._stops_at and not self._closed:
            self._stops_at[token] = now + CANCEL_GRACE_SECONDS
            self._engine.interrupt(lane, token)

    def spare(self, token: Token) -> None:
        """Let an attempt live that was to be stopped, where it still does."""
        if self._stops_at.get(token, math.inf) != math.inf:
            del self._stops_at[token]

    def collect(self, now: float) -> list[Over]:
        """Return all attempts that are over since the last call, in order.

        Raises what broke the engine, if anything did.
        """
        if not self._events and not self._spoils:
            return []
        overs, self._spoils = self._spoils, []
        events, self._events = self._events, []
        for lane, event in events:
            if isinstance(event, Over):
                self._ended(event, now)
                overs.append(event)
            elif event is None:
                self._lanes.writable(lane)
            elif isinstance(event, Fall):
                self._fell(event, now, overs)
            elif isinstance(event, Exception):
                raise event
            else:
                self._died(lane, event, now, overs)
        return overs

    def act(self, now: float) -> None:
        """Do what falls due: kill what outlived its grace, clear the lanes that are blocked."""
        for lane in self._lanes.blocked(now):
            self._take_back(lane, now)
        if not self._stops_at:
            return
        lanes: dict[int, None] = {}
        for token, when in self._stops_at.items():
            if when <= now and (at := self._lanes.lane_of(token)) is not None:
                lanes[at] = None
                self._stops_at[token] = math.inf
        for lane in lanes:
            # What the child has not taken up must not die with it.
            self._take_back(lane, now)
            self._engine.kill(lane)

    def next_due(self) -> float:
        """Return when `act` has something to do; infinity for never."""
        due = self._lanes.next_check()
        return min(due, *self._stops_at.values()) if self._stops_at else due

    # How it is done.

    def _take_back(self, lane: int, now: float) -> None:
        if self._closed:
            return
        tokens = self._engine.take_back(lane)
        for token in tokens:
            self._stops_at.pop(token, None)
        self._unrun(tokens, now)

    def _unrun(self, tokens: Sequence[Token], now: float) -> None:
        """Put orders in line again that no child took up."""
        self._lanes.back(tokens, now)
        for token in self._not_named(tokens):
            self._keeper.taken_back(token)

    def _not_named(self, tokens: Sequence[Token]) -> list[Token]:
        """Let the guard not name those that surely did not run, and return them."""
        unrun = [token for token in tokens if token not in self._begun]
        if unrun:
            self._guard.done(unrun)
        return unrun

    def _spoiled(self, token: Token, error: OSError, now: float) -> None:
        """End an order that this worker cannot hand to any child: its neighbours go on."""
        order = self._orders.pop(token)
        self._not_named([token])
        self._lanes.lost(token, now)
        self._begun.pop(token, None)
        failure = Failure(message=f"this worker could not hand it to a child: {error}")
        ended = Ended(order.task, token, OutcomeKind.ENVIRONMENT, failure=failure)
        self._spoils.append(Over(ended))
        self._wake()

    def _ended(self, over: Over, now: float) -> None:
        token = over.ended.token
        self._lanes.ended(token, over.ended.run_us * 1e-6, now)
        del self._orders[token]
        if self._begun:
            self._begun.pop(token, None)
        if self._stops_at:
            self._stops_at.pop(token, None)

    def _died(self, lane: int, death: LaneDeath, now: float, overs: list[Over]) -> None:
        self._unrun(death.untouched, now)
        killed = death.killed and not death.out_of_memory
        if lane == self._lanes.slots and len(death.begun) > 1 and not killed:
            # One of them did it: each runs once alone, and only a crash alone is charged.
            self._suspect(death.begun, now, overs, alone=Alone.IN_LANE)
        else:
            overs.extend(self._perished(token, death, now) for token in death.begun)
        self._lanes.writable(lane)

    def _fell(self, fall: Fall, now: float, overs: list[Over]) -> None:
        """Judge the death of all lanes: whatever ran in any of them may have done it."""
        for _, death in fall.deaths:
            self._unrun(death.untouched, now)
        begun = [(token, death) for _, death in fall.deaths for token in death.begun]
        if len(begun) == 1:
            (token, death), *_ = begun
            overs.append(self._perished(token, death, now))
            self._lanes.acquit()
        else:
            tokens = [token for token, _ in begun]
            self._suspect(tokens, now, overs, alone=Alone.IN_WORKER)
        for lane, _ in fall.deaths:
            self._lanes.writable(lane)

    def _suspect(
        self, tokens: Sequence[Token], now: float, overs: list[Over], *, alone: Alone
    ) -> None:
        """Put those in line again one of which ended a process that all had in common."""
        unwanted = [token for token in tokens if token in self._stops_at]
        self._begun.update(dict.fromkeys(tokens))
        overs.extend(self._stopped(token, now) for token in unwanted)
        self._lanes.back(tokens, now, alone=alone)

    def _stopped(self, token: Token, now: float) -> Over:
        """Return the outcome of a suspect that was to be stopped, and is now: it runs no more."""
        order = self._orders.pop(token)
        self._lanes.lost(token, now)
        del self._begun[token], self._stops_at[token]
        failure = Failure(message="it was to be stopped when its process died")
        return Over(Ended(order.task, token, OutcomeKind.STOPPED, failure=failure))

    def _perished(self, token: Token, death: LaneDeath, now: float) -> Over:
        """Return the outcome of an attempt that its child took with it."""
        order = self._orders.pop(token)
        self._lanes.lost(token, now)
        self._begun.pop(token, None)
        meant = self._stops_at.pop(token, None) is not None
        if death.out_of_memory:
            kind = OutcomeKind.OUT_OF_MEMORY
        elif death.killed and not meant:
            kind = OutcomeKind.RETURNED
        else:
            kind = OutcomeKind.CRASHED
        if kind is OutcomeKind.RETURNED:
            failure = Failure(message=_NEIGHBOUR)
        else:
            failure = Failure(message=_how(death), evidence=_evidence(death))
        return Over(Ended(order.task, token, kind, failure=failure))


_NEIGHBOUR = "it had begun, in a process that was killed to stop another task there"


def _how(death: LaneDeath) -> str:
    if death.out_of_memory:
        return "the process was killed because memory ran out"
    if death.signal:
        return f"the process was ended by {_signal_name(death.signal)}"
    return f"the process exited with code {death.exit_code} before the task ended"


def _evidence(death: LaneDeath) -> str:
    lines = [f"signal: {_signal_name(death.signal)}" if death.signal else ""]
    lines.append("" if death.signal else f"exit code: {death.exit_code}")
    lines.append("killed by the worker, after the grace" if death.killed else "")
    lines.append(death.last_words[-EVIDENCE_BYTES_MAX // 2 :])
    return "\n".join(line for line in lines if line)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
