"""Which task goes to which worker, and what waits in memory for it.

Four small machines:

- `Pace` knows how long a function runs, from what workers measured. A function of unknown length
  is long.
- `Urgency` knows the highest priority of late. What is below it is assigned ahead only a little, so
  that what is urgent does not wait behind a thousand that are not.
- `Crew` knows the workers of this coordinator: what they offer and what they hold. A lease takes
  a whole slot while its function is long, or microseconds of a slot's horizon while it is short,
  so that short tasks are assigned ahead and long ones never wait behind each other.
- `Lines` is the ready window: the first tasks of each requirement class that some present worker
  serves, in line order. Of a class that nobody serves it knows the name, and no turn looks at it.

Who asks matches them: least-loaded worker first, and for it the task that stands first in line
over all classes that it serves. Nothing here is truth: all of it is rebuilt from the store and
from hellos.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable

from holdfast.model.limits import OUTSTANDING_MAX, WINDOW_TASKS_MAX, WINDOWS_BYTES_MAX
from holdfast.model.task import Spec, queue_of

HORIZON_US = 20_000
"""How much short work is assigned ahead, for each slot."""
LONG_US = 10_000
"""A function that runs longer than this is long: it is never assigned ahead of a free slot."""
URGENT_SECONDS = 1.0
BEHIND_URGENT_MAX = 64
"""What a worker may hold of tasks that are less urgent than what came of late: about 5 ms of the
shortest."""
OVERHEAD_US = 30
"""What a task costs beside its function."""
_FUNCTIONS_MAX = 10_000
_ROW_BYTES = 1_024
_CLASSES_MAX = 20_000
"""Classes of which the crew remembers who serves them."""
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


class Urgency:
    """The highest priority that was claimed within `URGENT_SECONDS`."""

    __slots__ = ("_priority", "_until")

    def __init__(self) -> None:
        self._priority = 0
        self._until = 0.0

    def learn(self, priority: int, now: float) -> None:
        """Take in a claim; `now` is in monotonic seconds."""
        if priority >= self._priority or now >= self._until:
            self._priority, self._until = priority, now + URGENT_SECONDS

    def ahead_max(self, priority: int, now: float) -> int:
        """Return up to how many leases of one worker a task of this priority is assigned ahead."""
        behind = priority < self._priority and now < self._until
        return BEHIND_URGENT_MAX if behind else OUTSTANDING_MAX


class Offer:
    """One present worker: what it offers, and what it holds now."""

    __slots__ = (
        "_claimed",
        "_concurrent_here",
        "_slots_here",
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
        self.slots = self._slots_here = slots
        self.concurrent_slots = self._concurrent_here = concurrent_slots
        self.queues = frozenset(queues)
        self.tags = frozenset(tags)
        self.pull = pull
        self.open = open
        self.asked = [0, 0]
        """What a worker in pull mode has asked for since its hello: plain tasks, and concurrent."""
        self.given = [0, 0]
        self.leases: dict[bytes, int] = {}
        """Token → microseconds it weighs; 0 for a long one, -1 for a concurrent one."""
        self._claimed: dict[bytes, float] = {}
        self.longs = 0
        self.concurrent = 0
        self.backlog_us = 0

    def strangers(self, plain: int, concurrent: int) -> None:
        """Note how many of its slots run what another store gave: they are not to be had here."""
        self._slots_here = max(0, self.slots - max(0, plain))
        self._concurrent_here = max(0, self.concurrent_slots - max(0, concurrent))

    def serves(self, needs: str) -> bool:
        """Whether this worker offers what a requirement class needs."""
        queue, *tags = needs.removesuffix("~").split("+")
        if self.queues and queue not in self.queues:
            return False
        if needs.endswith("~") and not self.concurrent_slots:
            return False
        return all(tag in self.tags for tag in tags)

    def hold(
        self, token: bytes, cost_us: int, *, concurrent: bool, now: float | None = None
    ) -> None:
        """Count a lease of this worker. `cost_us` 0: it takes a whole slot.

        `now`, in monotonic seconds, is given where it is claimed, and not where it is kept.
        """
        if now is not None:
            self._claimed[token] = now
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
        self._claimed.pop(token, None)
        if cost_us < 0:
            self.concurrent -= 1
        elif cost_us:
            self.backlog_us -= cost_us
        else:
            self.longs -= 1

    def age_seconds(self, token: bytes, now: float) -> float:
        """Return how long ago a lease was claimed; infinity where this session only kept it."""
        return now - self._claimed.get(token, -math.inf)

    def takes(self, cost_us: int, *, concurrent: bool, ahead_max: int = OUTSTANDING_MAX) -> bool:
        """Whether there is room for one more task of this weight.

        Beyond its free slots a worker gets it only while it holds less than `ahead_max` leases.
        """
        if not self.open or (self.pull and self.given[concurrent] >= self.asked[concurrent]):
            return False
        if concurrent:
            return self.concurrent < self._concurrent_here
        if len(self.leases) - self.concurrent < self._slots_here:
            return True
        if self.pull or not cost_us or self.longs >= self._slots_here:
            return False
        ahead = (self._slots_here - self.longs) * HORIZON_US
        return len(self.leases) < ahead_max and self.backlog_us + cost_us <= ahead

    @property
    def full(self) -> bool:
        """Whether no task of any weight would be taken now."""
        return not (self.takes(1, concurrent=False) or self.takes(1, concurrent=True))

    @property
    def free(self) -> int:
        """How many plain slots have no lease; below 0, how many leases certainly wait for one."""
        return self._slots_here - (len(self.leases) - self.concurrent)

    @property
    def load(self) -> float:
        """How busy a slot of this worker is, in slots: 1.0 is one task for each."""
        longs = self.longs + self.slots - self._slots_here
        return (longs + self.backlog_us / HORIZON_US + self.concurrent / 64) / self.slots


def weight(spec: Spec) -> int:
    """Return what a waiting task takes of memory, in bytes: its payload and about its row."""
    return _ROW_BYTES + len(spec.payload.data)


class Stock:
    """What all lines hold together, and which of them changed since somebody looked."""

    __slots__ = ("bytes", "cut", "lines", "touched")

    def __init__(self) -> None:
        self.bytes = 0
        """What all windows weigh."""
        self.lines = 0
        self.touched: dict[str, None] = {}
        """Classes whose line changed: it may be short now, or at its end."""
        self.cut: list[bytes] = []
        """Tasks that left a window because it was too long, or for the siding; the caller forgets
        them."""


class Line:
    """The window of one requirement class. `more`: the store has tasks beyond `tail`.

    While `more`, the window holds every claimable task of the class that stands at or before
    `tail`, and none beyond it.
    """

    __slots__ = ("_stock", "bytes", "entries", "held", "more", "needs", "tail")

    def __init__(self, needs: str, stock: Stock) -> None:
        self.needs = needs
        self._stock = stock
        self.entries: list[tuple[int, bytes]] = []
        self.held: dict[bytes, int] = {}
        """Task → its weight."""
        self.bytes = 0
        self.more = True
        self.tail: tuple[int, bytes] | None = None

    def push(self, rank: int, task: bytes, size: int = 0) -> bool:
        """Put a claimable task that weighs `size` bytes in its place.

        Returns False where it stands beyond the window.
        """
        entry = (rank, task)
        if self.more and (self.tail is None or entry > self.tail):
            return False
        if task in self.held:
            return True
        fits = self._fits(size)
        if not fits or len(self.entries) >= 2 * WINDOW_TASKS_MAX:
            self._cut(self.bytes if fits else self.bytes // 2)
            if self.more and self.tail is not None and entry > self.tail:
                return False
        self._enter(entry, size)
        return True

    def _enter(self, entry: tuple[int, bytes], size: int) -> None:
        heapq.heappush(self.entries, entry)
        self.held[entry[1]] = size
        self.bytes += size
        self._stock.bytes += size

    def _leave(self, task: bytes) -> bool:
        size = self.held.pop(task, None)
        if size is None:
            return False
        self.bytes -= size
        self._stock.bytes -= size
        self._stock.touched[self.needs] = None
        return True

    def _share(self) -> int:
        return WINDOWS_BYTES_MAX // self._stock.lines

    def _fits(self, size: int) -> bool:
        # The first of a line always does, so that no line starves another.
        if self._stock.bytes + size <= WINDOWS_BYTES_MAX or not self.held:
            return True
        return self.bytes + size <= self._share()

    def _cut(self, bytes_max: int) -> None:
        """Keep the first tasks, one at least; the others are read from the store again."""
        entries = self._waiting()
        kept = size = 0
        for _, task in entries[:WINDOW_TASKS_MAX]:
            size += self.held[task]
            if kept and size > bytes_max:
                break
            kept += 1
        self.entries = entries[:kept]
        if len(entries) == kept:
            return
        for _, task in entries[kept:]:
            self._leave(task)
            self._stock.cut.append(task)
        self.tail = self.entries[-1]
        self.more = True

    def _waiting(self) -> list[tuple[int, bytes]]:
        # Entries of tasks that left, or that came back, stand here for nobody or twice.
        return sorted({entry for entry in self.entries if entry[1] in self.held})

    def fill(self, entries: Iterable[tuple[int, bytes, int]], *, more: bool) -> list[bytes]:
        """Take in the next page of the store (rank, task, weight), in line order after `tail`.

        Returns what is held of it: all, or what there is room for.
        """
        if len(self.entries) >= 2 * WINDOW_TASKS_MAX:
            self.entries = self._waiting()
        self.more = more
        taken = []
        for rank, task, size in entries:
            if task not in self.held:
                if not self._fits(size):
                    self.more = True
                    break
                self._enter((rank, task), size)
            self.tail = (rank, task)
            taken.append(task)
        return taken

    def short(self, tasks_min: int) -> bool:
        """Whether to read on: there is more, few tasks are held, and there is room for a page."""
        if not self.more or len(self.held) >= tasks_min:
            return False
        free = WINDOWS_BYTES_MAX - (self._stock.bytes - self.bytes)
        return not self.held or 2 * self.bytes <= max(free, self._share())

    def reread(self) -> None:
        """Take it that the store has tasks anywhere: the line is read anew from its head."""
        self.more, self.tail = True, None
        self._stock.touched[self.needs] = None

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
        self._leave(entry[1])
        return entry

    def restore(self, rank: int, task: bytes, size: int = 0) -> None:
        """Put back what was popped; where the window ends before it now, it is read again."""
        self.push(rank, task, size)

    def remove(self, task: bytes) -> None:
        """Forget a task that is claimable no more."""
        self._leave(task)

    def clear(self) -> None:
        """Hold nothing any more."""
        for task in list(self.held):
            self._leave(task)
        self.entries.clear()
        self.reread()


class Lines:
    """The lines of the classes that are served and have tasks, or had; the names of the others.

    `unserved`: classes of which the store may have tasks, and for which nobody is here.
    """

    __slots__ = ("lines", "stock", "unserved")

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self.unserved: dict[str, None] = {}
        self.stock = Stock()

    def line(self, needs: str) -> Line:
        """Return the line of a class, made empty with everything still in the store."""
        line = self.lines.get(needs)
        if line is None:
            line = self.lines[needs] = Line(needs, self.stock)
            self.unserved.pop(needs, None)
            self.stock.lines += 1
            self.stock.touched[needs] = None
        return line

    def new(self, needs: str) -> Line:
        """Return the line of a served class, made with nothing in the store."""
        line = self.lines.get(needs)
        if line is None:
            line = self.line(needs)
            line.more = False
        return line

    def touched(self) -> list[Line]:
        """Return the lines that changed since they were last said to be looked at."""
        return [line for needs in self.stock.touched if (line := self.lines.get(needs))]

    def looked_at(self, line: Line) -> None:
        """Note that a line was looked at; one that is at its end is forgotten."""
        self.stock.touched.pop(line.needs, None)
        if not line.held and not line.more:
            self.drop(line)

    def drop(self, line: Line) -> None:
        """Forget a line and what it holds."""
        line.clear()
        del self.lines[line.needs]
        self.stock.lines -= 1
        self.stock.touched.pop(line.needs, None)

    def forget(self, needs: str) -> None:
        """Drop a window whose class nobody serves; that the store may have tasks is kept."""
        line = self.lines.get(needs)
        if line is not None:
            self.drop(line)
        self.unserved[needs] = None


class Crew:
    """The present workers, by identity, and who of them serves a class.

    Of a queue that is `paused`, nobody serves any class.
    """

    __slots__ = ("_serving", "offers", "paused")

    def __init__(self) -> None:
        self.offers: dict[str, Offer] = {}
        self.paused: frozenset[str] = frozenset()
        self._serving: dict[str, dict[str, Offer]] = {}

    def come(self, offer: Offer) -> None:
        """A worker is here, with this offer instead of any it made before."""
        self.go(offer.identity)
        self.offers[offer.identity] = offer
        for needs, serving in self._serving.items():
            if self._serves(offer, needs):
                serving[offer.identity] = offer

    def go(self, identity: str) -> None:
        """A worker is here no more."""
        if self.offers.pop(identity, None) is not None:
            for serving in self._serving.values():
                serving.pop(identity, None)

    def serving(self, needs: str) -> Collection[Offer]:
        """Return the workers that serve a class, in the order they came."""
        serving = self._serving.get(needs)
        if serving is None:
            if len(self._serving) >= _CLASSES_MAX:
                self._serving.clear()
            serving = self._serving[needs] = {
                offer.identity: offer
                for offer in self.offers.values()
                if self._serves(offer, needs)
            }
        return serving.values()

    def _serves(self, offer: Offer, needs: str) -> bool:
        return queue_of(needs) not in self.paused and offer.serves(needs)

    def pause(self, queues: Iterable[str]) -> None:
        """Let these queues be paused, and no others."""
        self.paused = frozenset(queues)
        self._serving.clear()

    def served(self, needs: str) -> bool:
        """Whether any present worker serves a class."""
        return bool(self._serving.get(needs) or self.serving(needs))
