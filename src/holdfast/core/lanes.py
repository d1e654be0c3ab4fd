"""Which lane gets which order: all that a worker weighs between speed and a fair wait.

Rules
-----
A lane runs its orders one after another. Orders wait in one line, first come first served, and
nobody passes the head of the line. An order goes to an empty lane; or ahead into the queue of a
lane, where both it and everything in that queue are known to be short, so that the work queued
there stays below `AHEAD_SECONDS`. A function of unknown length gets a lane of its own.

How long a function runs is a weighted mean of what was seen, per function, for the
`FUNCTIONS_KNOWN_MAX` seen last. The estimate may be wrong: a lane whose current attempt runs
longer than `BLOCKED_SECONDS` is *blocked*; what waits behind it is to be taken back into the line.

Concurrent orders have a line of their own and all go to lane `slots`, so many at once. After a
crash there, each suspect runs once alone in that lane, before any other concurrent order.

Where all lanes died at once, whatever ran in any of them is a *suspect of the fall*: each runs once
with nothing beside it in the whole worker, before anything else. The one that began last comes
first, because what brings a worker down seldom takes long; once one was found to have done it, the
others are suspects no longer.

This room only reckons. The shell hands, takes back and kills, and says here what came of it.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable

import msgspec
from msgspec import structs

from holdfast.model.ids import Token
from holdfast.model.words import Word

AHEAD_SECONDS = 0.005
AHEAD_ORDERS_MAX = 64
BLOCKED_SECONDS = 0.020
ORDER_SECONDS_MIN = 20e-6
"""What an order costs a lane even where user code takes no time."""
NEW_WEIGHT = 0.25
FUNCTIONS_KNOWN_MAX = 1024


class Alone(Word):
    """Where nobody runs beside an order."""

    NO = 0
    IN_LANE = 1
    """A suspect of a crash of the concurrent lane."""
    IN_WORKER = 2
    """A suspect of a death of all lanes at once."""


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """One order in line."""

    token: Token
    function: str
    concurrent: bool
    alone: Alone = Alone.NO


class Lane(msgspec.Struct, gc=False):
    """One lane: what was handed to it and has not ended, in order."""

    number: int
    queue: dict[Token, tuple[Waiting, float, float]]
    """The order, how long it may take, and when it was handed."""
    load_seconds: float = 0.0
    since: float = 0.0
    """When the first of the queue became the first."""
    stuck: bool = False
    """It was blocked, or refused an order, and takes no more for now."""
    unknown: bool = False
    """It has one attempt of unknown or long duration."""


class Lanes:
    """The lines, the lanes, and what is known of each function's length."""

    __slots__ = (
        "_concurrent_line",
        "_concurrent_slots",
        "_free",
        "_lanes",
        "_line",
        "_mean_seconds",
        "_next",
        "_recluse",
        "_suspects",
        "_where",
    )

    def __init__(self, *, slots: int, concurrent_slots: int) -> None:
        self._lanes = [Lane(number, {}) for number in range(slots + 1)]
        self._concurrent_slots = concurrent_slots
        self._line: deque[Waiting] = deque()
        self._concurrent_line: deque[Waiting] = deque()
        self._suspects: deque[Waiting] = deque()
        """Of a fall: they go first, one after another."""
        self._recluse = False
        """One of them is in a lane: nothing else is handed."""
        self._where: dict[Token, Lane | None] = {}
        self._mean_seconds: OrderedDict[str, float] = OrderedDict()
        self._free: dict[int, None] = dict.fromkeys(range(slots))
        self._next = 0

    @property
    def slots(self) -> int:
        """The number of lanes for plain functions; also the number of the concurrent lane."""
        return len(self._lanes) - 1

    def lane_of(self, token: Token) -> int | None:
        """Return the lane that an order was handed to; None where it is in line, or unknown."""
        lane = self._where.get(token)
        return None if lane is None else lane.number

    def handed(self) -> list[Token]:
        """Return all orders in lanes, in order."""
        return [token for lane in self._lanes for token in lane.queue]

    def in_lane(self, number: int) -> list[Token]:
        """Return what a lane was handed and has not ended, in order."""
        return list(self._lanes[number].queue)

    # What happens.

    def add(self, token: Token, function: str, *, concurrent: bool) -> None:
        """Put an order at the end of its line."""
        line = self._concurrent_line if concurrent else self._line
        line.append(Waiting(token, function, concurrent))
        self._where[token] = None

    def remove(self, token: Token) -> bool:
        """Take an order out of its line; False where it is in a lane, or unknown."""
        if token not in self._where or self._where[token] is not None:
            return False
        del self._where[token]
        for line in (self._line, self._concurrent_line, self._suspects):
            for waiting in [each for each in line if each.token == token]:
                line.remove(waiting)
        return True

    def choose(self, now: float) -> list[tuple[int, Token]]:
        """Return what to hand to which lane, in order, and count it as handed."""
        if self._recluse or self._suspects:
            return self._choose_suspect(now)
        chosen: list[tuple[int, Token]] = []
        line = self._line
        while line:
            waiting = line[0]
            estimate = self._mean_seconds.get(waiting.function, AHEAD_SECONDS)
            lane = self._place(estimate)
            if lane is None:
                break
            line.popleft()
            self._put(lane, waiting, estimate, now)
            chosen.append((lane.number, waiting.token))
        if self._concurrent_line:
            self._choose_concurrent(chosen, now)
        return chosen

    def ended(self, token: Token, run_seconds: float, now: float) -> None:
        """An attempt ended by itself after so long in user code."""
        lane = self._where.pop(token, None)
        if lane is None:
            return
        waiting = self._drop(lane, token, now)
        seconds = max(run_seconds, ORDER_SECONDS_MIN)
        means = self._mean_seconds
        mean = means.get(waiting.function)
        if mean is None:
            if len(means) >= FUNCTIONS_KNOWN_MAX:
                means.popitem(last=False)
            means[waiting.function] = seconds
        else:
            means[waiting.function] = mean + NEW_WEIGHT * (seconds - mean)
            means.move_to_end(waiting.function)

    def back(self, tokens: Iterable[Token], now: float, *, alone: Alone = Alone.NO) -> None:
        """These left their lanes: they stand first in line again, in their order.

        `alone`: they are suspects from now on. Who is one already stays one.
        """
        if alone is Alone.IN_WORKER:
            tokens = sorted(tokens, key=self._handed_at, reverse=True)
        returning: list[Waiting] = []
        for token in tokens:
            lane = self._where.get(token)
            if lane is None:
                continue
            waiting = self._drop(lane, token, now)
            if alone > waiting.alone:
                waiting = structs.replace(waiting, alone=alone)
            self._where[token] = None
            returning.append(waiting)
        for waiting in reversed(returning):
            self._line_of(waiting).appendleft(waiting)

    def lost(self, token: Token, now: float) -> None:
        """An order in a lane ended without running to its end."""
        lane = self._where.pop(token, None)
        if lane is not None:
            self._drop(lane, token, now)

    def acquit(self) -> None:
        """It is known who made all lanes die: the other suspects of that run as before."""
        for waiting in reversed(self._suspects):
            cleared = structs.replace(waiting, alone=Alone.NO)
            self._line_of(cleared).appendleft(cleared)
        self._suspects.clear()

    def refused(self, number: int) -> None:
        """A lane has no room, whatever is reckoned here; `writable` ends that."""
        self._lanes[number].stuck = True
        self._free.pop(number, None)

    def writable(self, number: int) -> None:
        """A lane that refused an order has room again, or has a fresh child."""
        lane = self._lanes[number]
        lane.stuck = False
        if not lane.queue and number < self.slots:
            self._free[number] = None

    def blocked(self, now: float) -> list[int]:
        """Return the lanes whose queue should be taken back, and hand them no more for now."""
        found: list[int] = []
        for lane in self._lanes[:-1]:
            if not lane.stuck and len(lane.queue) > 1 and now >= lane.since + BLOCKED_SECONDS:
                lane.stuck = True
                found.append(lane.number)
        return found

    def next_check(self) -> float:
        """Return when `blocked` is to be asked again; infinity where no lane has a queue."""
        waits = [lane.since for lane in self._lanes[:-1] if len(lane.queue) > 1 and not lane.stuck]
        return min(waits, default=math.inf) + BLOCKED_SECONDS

    # How it is reckoned.

    def _place(self, estimate: float) -> Lane | None:
        """Return the lane for the head of the line: an empty one, or one with short work."""
        if self._free:
            return self._lanes[next(iter(self._free))]
        if estimate >= AHEAD_SECONDS:
            return None
        slots = len(self._lanes) - 1
        for step in range(slots):
            lane = self._lanes[(self._next + step) % slots]
            if (
                not lane.stuck
                and not lane.unknown
                and lane.load_seconds + estimate <= AHEAD_SECONDS
                and len(lane.queue) < AHEAD_ORDERS_MAX
            ):
                self._next = (lane.number + 1) % slots
                return lane
        return None

    def _choose_suspect(self, now: float) -> list[tuple[int, Token]]:
        """Return the first suspect of a fall, once nothing else is in any lane."""
        if any(lane.queue for lane in self._lanes):
            return []
        waiting = self._suspects[0]
        number = len(self._lanes) - 1 if waiting.concurrent else next(iter(self._free), 0)
        lane = self._lanes[number]
        if lane.stuck:
            return []
        self._suspects.popleft()
        self._put(lane, waiting, AHEAD_SECONDS, now)
        self._recluse = True
        return [(number, waiting.token)]

    def _line_of(self, waiting: Waiting) -> deque[Waiting]:
        if waiting.alone is Alone.IN_WORKER:
            return self._suspects
        return self._concurrent_line if waiting.concurrent else self._line

    def _handed_at(self, token: Token) -> float:
        lane = self._where.get(token)
        return -math.inf if lane is None else lane.queue[token][2]

    def _choose_concurrent(self, chosen: list[tuple[int, Token]], now: float) -> None:
        line, lane = self._concurrent_line, self._lanes[-1]
        while line and not lane.stuck and len(lane.queue) < self._concurrent_slots:
            waiting = line[0]
            # Who runs alone is the only one there, so that looking at the first will do.
            if lane.queue and (waiting.alone or next(iter(lane.queue.values()))[0].alone):
                return
            line.popleft()
            self._put(lane, waiting, 0.0, now)
            chosen.append((lane.number, waiting.token))

    def _put(self, lane: Lane, waiting: Waiting, estimate: float, now: float) -> None:
        if not lane.queue:
            lane.since = now
            self._free.pop(lane.number, None)
        lane.queue[waiting.token] = (waiting, estimate, now)
        lane.load_seconds += estimate
        lane.unknown = estimate >= AHEAD_SECONDS
        self._where[waiting.token] = lane

    def _drop(self, lane: Lane, token: Token, now: float) -> Waiting:
        if next(iter(lane.queue)) == token:
            lane.since = now
        waiting, estimate, _ = lane.queue.pop(token)
        # Whoever leaves a lane while there is a recluse is the recluse.
        self._recluse = False
        lane.load_seconds -= estimate
        if not lane.queue:
            # What blocked the lane has ended; the sum starts afresh, without rounding errors.
            lane.load_seconds = 0.0
            lane.unknown = False
            lane.stuck = False
            if lane.number < len(self._lanes) - 1:
                self._free[lane.number] = None
        return waiting
