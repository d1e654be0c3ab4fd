"""Which task goes to which worker, and what waits in memory for it.

Three small machines:

- `Pace` knows how long a function runs, from what workers measured. A function of unknown length
  is long.
- `Crew` knows the workers of this coordinator: what they offer and what they hold. A lease takes
  a whole slot while its function is long, or microseconds of a slot's horizon while it is short,
  so that short tasks are assigned ahead and long ones never wait behind each other.
- `Lines` is the ready window: the first tasks of each requirement class that some present worker
  serves, in line order. A class that nobody serves holds nothing in memory and starves nobody.

Who asks matches them: least-loaded worker first, and for it the task that stands first in line
over all classes that it serves. Nothing here is truth: all of it is rebuilt from the store and
from hellos.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from holdfast.model.limits import OUTSTANDING_MAX, WINDOW_TASKS_MAX

HORIZON_US = 20_000
"""How much short work is assigned ahead, for each slot."""
LONG_US = 10_000
"""A function that runs longer than this is long: it is never assigned ahead of a free slot."""
OVERHEAD_US = 30
"""What a task costs beside its function."""
_FUNCTIONS_MAX = 10_000
_DECAY = 8


class Pace:
    """How long each function runs: the slowest of late, forgotten slowly."""

    __slots__ = ("_us",)

    def __init__(self) -> None:
        self._us: dict[str, int] = {}

    def learn(self, function: str, run_us: int) -> None:
        """Take in one measured run, in microseconds."""
        run_us = max(run_us, 0)
        known = self._us.get(function)
        if known is None:
            if len(self._us) >= _FUNCTIONS_MAX:
                del self._us[next(iter(self._us))]
            self._us[function] = run_us
        elif run_us >= known:
            self._us[function] = run_us
        else:
            self._us[function] = known - ((known - run_us) // _DECAY or 1)

    def cost_us(self, function: str) -> int:
        """Return what one task of a function takes of a slot; 0 for one that is long."""
        known = self._us.get(function)
        if known is None or known > LONG_US:
            return 0
        return known + OVERHEAD_US


class Offer:
    """One present worker: what it offers, and what it holds now."""

    __slots__ = (
        "asked",
        "backlog_us",
        "concurrent",
        "concurrent_slots",
        "given",
        "identity",
        "leases",
        "longs",
        "open",
        "pull",
        "queues",
        "slots",
        "tags",
    )

    def __init__(
        self,
        identity: str,
        *,
        slots: int,
        concurrent_slots: int,
        queues: Iterable[str],
        tags: Iterable[str],
        pull: bool,
        open: bool = True,
    ) -> None:
        self.identity = identity
        self.slots = slots
        self.concurrent_slots = concurrent_slots
        self.queues = frozenset(queues)
        self.tags = frozenset(tags)
        self.pull = pull
        self.open = open
        self.asked = 0
        self.given = 0
        self.leases: dict[bytes, int] = {}
        """Token → microseconds it weighs; 0 for a long one, -1 for a concurrent one."""
        self.longs = 0
        self.concurrent = 0
        self.backlog_us = 0

    def serves(self, needs: str) -> bool:
        """Whether this worker offers what a requirement class needs."""
        queue, *tags = needs.removesuffix("~").split("+")
        if self.queues and queue not in self.queues:
            return False
        if needs.endswith("~") and not self.concurrent_slots:
            return False
        return all(tag in self.tags for tag in tags)

    def hold(self, token: bytes, cost_us: int, *, concurrent: bool) -> None:
        """Count a lease of this worker. `cost_us` 0: it takes a whole slot."""
        if concurrent:
            self.concurrent += 1
            cost_us = -1
        elif cost_us:
            self.backlog_us += cost_us
        else:
            self.longs += 1
        self.leases[token] = cost_us

    def drop(self, token: bytes) -> None:
        """Count it no more; a token that is not held changes nothing."""
        cost_us = self.leases.pop(token, None)
        if cost_us is None:
            return
        if cost_us < 0:
            self.concurrent -= 1
        elif cost_us:
            self.backlog_us -= cost_us
        else:
            self.longs -= 1

    def takes(self, cost_us: int, *, concurrent: bool) -> bool:
        """Whether there is room for one more task of this weight."""
        if not self.open or (self.pull and self.given >= self.asked):
            return False
        if concurrent:
            return self.concurrent < self.concurrent_slots
        if len(self.leases) - self.concurrent < self.slots:
            return True
        if self.pull or not cost_us or self.longs >= self.slots:
            return False
        ahead = (self.slots - self.longs) * HORIZON_US
        return len(self.leases) < OUTSTANDING_MAX and self.backlog_us + cost_us <= ahead

    @property
    def full(self) -> bool:
        """Whether no task of any weight would be taken now."""
        return not (self.takes(1, concurrent=False) or self.takes(1, concurrent=True))

    @property
    def load(self) -> float:
        """How busy a slot of this worker is, in slots: 1.0 is one task for each."""
        return (self.longs + self.backlog_us / HORIZON_US + self.concurrent / 64) / self.slots


class Line:
    """The window of one requirement class. `more`: the store has tasks beyond `tail`.

    While `more`, the window holds every claimable task of the class that stands at or before
    `tail`, and none beyond it.
    """

    __slots__ = ("cut", "entries", "held", "more", "tail")

    def __init__(self) -> None:
        self.entries: list[tuple[int, bytes]] = []
        self.held: dict[bytes, None] = {}
        self.more = True
        self.tail: tuple[int, bytes] | None = None
        self.cut: list[bytes] = []
        """Tasks that left the window because it was too long; the caller forgets them."""

    def push(self, rank: int, task: bytes) -> bool:
        """Put a claimable task in its place; False where it stands beyond the window."""
        entry = (rank, task)
        if self.more and (self.tail is None or entry > self.tail):
            return False
        if task in self.held:
            return True
        if len(self.entries) >= 2 * WINDOW_TASKS_MAX:
            self._cut()
            if self.more and self.tail is not None and entry > self.tail:
                return False
        heapq.heappush(self.entries, entry)
        self.held[task] = None
        return True

    def _cut(self) -> None:
        entries = self._waiting()
        self.entries = entries[:WINDOW_TASKS_MAX]
        if len(entries) == len(self.entries):
            return
        for _, task in entries[WINDOW_TASKS_MAX:]:
            del self.held[task]
            self.cut.append(task)
        self.tail = self.entries[-1]
        self.more = True

    def _waiting(self) -> list[tuple[int, bytes]]:
        # Entries of tasks that left, or that came back, stand here for nobody or twice.
        return sorted({entry for entry in self.entries if entry[1] in self.held})

    def fill(self, entries: Iterable[tuple[int, bytes]], *, more: bool) -> None:
        """Take in the next page of the store, in line order after `tail`."""
        if len(self.entries) >= 2 * WINDOW_TASKS_MAX:
            self.entries = self._waiting()
        for entry in entries:
            self.tail = entry
            if entry[1] not in self.held:
                heapq.heappush(self.entries, entry)
                self.held[entry[1]] = None
        self.more = more

    def head(self) -> tuple[int, bytes] | None:
        """Return the first in line; entries of tasks that left are dropped on the way."""
        entries = self.entries
        while entries:
            if entries[0][1] in self.held:
                return entries[0]
            heapq.heappop(entries)
        return None

    def pop(self) -> tuple[int, bytes]:
        """Take the head away; the caller has seen that there is one."""
        entry = heapq.heappop(self.entries)
        del self.held[entry[1]]
        return entry

    def restore(self, rank: int, task: bytes) -> None:
        """Put back what was popped; where the window ends before it now, it is read again."""
        self.push(rank, task)

    def remove(self, task: bytes) -> None:
        """Forget a task that is claimable no more."""
        self.held.pop(task, None)


class Lines:
    """The lines of all requirement classes that are known to have tasks, or had."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}

    def line(self, needs: str) -> Line:
        """Return the line of a class, made empty with everything still in the store."""
        line = self.lines.get(needs)
        if line is None:
            line = self.lines[needs] = Line()
        return line

    def new(self, needs: str) -> Line:
        """Return the line of a class of which the store is known to hold no claimable task."""
        line = self.lines.get(needs)
        if line is None:
            line = self.lines[needs] = Line()
            line.more = False
        return line

    def forget(self, needs: str) -> None:
        """Drop a window whose class nobody serves any more."""
        line = self.lines.get(needs)
        if line is not None:
            line.entries.clear()
            line.held.clear()
            line.tail = None
            line.more = True


class Crew:
    """The present workers, by identity."""

    __slots__ = ("offers",)

    def __init__(self) -> None:
        self.offers: dict[str, Offer] = {}

    def serving(self, needs: str) -> Iterator[Offer]:
        """Yield the workers that serve a class, in the order they came."""
        return (offer for offer in self.offers.values() if offer.serves(needs))

    def served(self, needs: str) -> bool:
        """Whether any present worker serves a class."""
        return any(True for _ in self.serving(needs))
