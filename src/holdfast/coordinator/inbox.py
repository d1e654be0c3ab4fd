"""What waits for the next turn: messages in the order they came, and parts of turns that failed.

Bounded, also while nothing commits. A message weighs as many tasks as it holds, and what these
carry by the page; whoever posts asks for space before it reads on, and from a weight on nothing is
taken ahead of the parts. Hellos do not wait for space, because a worker that cannot say hello would
seem silent: they have a bound of their own, and of those of one life only the newest waits. Of
ticks one waits. Owns also when the next turn is due although nothing came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

import msgspec

from holdfast.coordinator.facts import Ahead, Hello, Tick
from holdfast.coordinator.sessions import Session, WorkerSession
from holdfast.coordinator.turn import Item
from holdfast.core.wire import size_of
from holdfast.model.limits import HELLOS_BYTES_MAX, INBOX_MESSAGES_MAX, TURN_MESSAGES_MAX
from holdfast.model.messages import Ended, PutCode, Submit, View, Watch, WorkerHello

_WEIGHT_BYTES = 4096
_ALARM_SECONDS_MAX = 3600.0
_STALE_BYTES_MAX = 4 * 1024 * 1024
"""So much of hellos that nobody will answer may lie between the others before all are looked at."""


class _Part(msgspec.Struct, gc=False):
    """Items that are decided together, and what they weigh."""

    items: list[Item]
    weight: int


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    """The newest hello of one life of a worker that waits."""

    number: int
    session: WorkerSession
    cost: int


class Inbox:
    """The one inbox of a coordinator."""

    __slots__ = (
        "_alarm",
        "_alarm_at",
        "_arrived",
        "_hellos_bytes",
        "_items",
        "_lives",
        "_parts",
        "_parts_weight",
        "_space",
        "_stale_bytes",
        "_ticks",
        "_weight",
        "_weights",
    )

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._weights: deque[int] = deque()
        """What each item weighs, in tasks."""
        self._weight = 0
        self._parts: deque[_Part] = deque()
        """Parts of turns that failed: decided before all others, one after another."""
        self._parts_weight = 0
        self._lives: dict[tuple[str, int], _Waiting] = {}
        """Identity and incarnation → the newest hello of this life that waits."""
        self._hellos_bytes = 0
        self._stale_bytes = 0
        """What those of them take whose place a newer one took."""
        self._ticks = 0
        self._alarm: asyncio.Handle | None = None
        # A loop may give a handle that cannot say when it rings, for a moment that is now.
        self._alarm_at = 0.0
        self._arrived = asyncio.Event()
        self._space = asyncio.Event()
        self._space.set()

    def __len__(self) -> int:
        return len(self._items)

    def post(self, session: Session | None, message: object) -> None:
        """Put one message behind all others."""
        weight = _weight_of(message)
        self._items.append((session, message))
        self._weights.append(weight)
        self._weight += weight
        self._arrived.set()

    def tick(self, tick: Tick) -> None:
        """Let time pass, unless a tick waits already: that one will see all the time."""
        if not self._ticks:
            self._ticks = 1
            self.post(None, tick)

    def has_room_for_hello(self, more_bytes: int) -> bool:
        """Whether a hello of so many bytes may be read on, or posted."""
        return self._hellos_bytes + more_bytes <= HELLOS_BYTES_MAX

    def greet(self, session: WorkerSession, hello: Hello) -> None:
        """Post a whole hello. It takes the place of older ones of the same life that still wait.

        That changes nothing that is decided: whoever says hello again names all that it holds, and
        every outcome that was not answered. Those of another life stay, because what that one knew
        may have died with it.
        """
        older = self._lives.get(_life_of(hello.hello))
        if older is not None and older.number < hello.hello.number:
            _supersede(older.session)
            self._stale_bytes += older.cost
            if self._stale_bytes > _STALE_BYTES_MAX:
                self._drop_stale()
        self._entered([(session, hello)])
        self.post(session, hello)

    async def space(self) -> None:
        """Wait until the inbox is below its bound; gateways ask before they read on."""
        if self._weight >= INBOX_MESSAGES_MAX:
            self._space.clear()
            await self._space.wait()

    def gather(self) -> list[Item]:
        """Take what one turn may hold."""
        items: list[Item] = []
        weight = 0
        while self._items and weight < TURN_MESSAGES_MAX:
            weight += self._weights.popleft()
            items.append(self._items.popleft())
        self._lose(weight)
        return self._left(items) if self._hellos_bytes or self._ticks else items

    def again(self, items: list[Item]) -> None:
        """Let items be decided once more, before all others.

        A view was judged when it was read, and tells of no later moment.
        """
        rest = [item for item in items if not isinstance(item[1], View)]
        if self._lives:
            self._supersede_older(rest)
            rest = [item for item in rest if not _is_stale(item)]
        if rest:
            self._parts.appendleft(part := _Part(rest, _weight_in_parts(rest)))
            self._parts_weight += part.weight
            self._entered(rest)
        self._arrived.set()

    def ahead(self, kinds: tuple[type, ...]) -> list[Item]:
        """Take messages of these kinds ahead; all others wait behind the parts, in their order.

        None where the parts weigh too much: then the inbox fills, and its bound holds.
        """
        if self._parts_weight >= INBOX_MESSAGES_MAX:
            return []
        fresh = self.gather()
        rest = [item for item in fresh if not isinstance(item[1], kinds)]
        if rest:
            weight = _weight_in_parts(rest)
            if self._parts and self._parts[-1].weight + weight <= TURN_MESSAGES_MAX:
                self._parts[-1].items += rest
                self._parts[-1].weight += weight
            else:
                self._parts.append(_Part(rest, weight))
            self._parts_weight += weight
            self._entered(rest)
        return [item for item in fresh if isinstance(item[1], kinds)]

    def part(self) -> list[Item] | None:
        """Take the next part of a turn that failed, None where there is none."""
        if not self._parts:
            return None
        part = self._parts.popleft()
        self._parts_weight -= part.weight
        return self._left(part.items)

    def _lose(self, weight: int) -> None:
        self._weight -= weight
        if not self._space.is_set() and self._weight < INBOX_MESSAGES_MAX // 2:
            self._space.set()

    # Hellos and ticks that wait.

    def _entered(self, items: Iterable[Item]) -> None:
        for session, message in items:
            if isinstance(message, Hello):
                assert isinstance(session, WorkerSession)
                life, cost = _life_of(message.hello), _cost_of(message)
                known = self._lives.get(life)
                if known is None or known.number < message.hello.number:
                    self._lives[life] = _Waiting(message.hello.number, session, cost)
                self._hellos_bytes += cost
            elif isinstance(message, Tick):
                self._ticks += 1

    def _left(self, items: list[Item]) -> list[Item]:
        """Note that items wait no more; return those that are still to be decided."""
        for session, message in items:
            if isinstance(message, Hello):
                life = _life_of(message.hello)
                if (known := self._lives.get(life)) is not None and known.session is session:
                    del self._lives[life]
                self._hellos_bytes -= _cost_of(message)
                if _is_stale((session, message)):
                    self._stale_bytes -= _cost_of(message)
            elif isinstance(message, Tick):
                self._ticks = max(0, self._ticks - 1)
        return [item for item in items if not _is_stale(item)]

    def _supersede_older(self, items: Iterable[Item]) -> None:
        """Give up the sessions in a turn that failed whose workers said hello again meanwhile."""
        for session, message in items:
            if isinstance(message, Hello) and isinstance(session, WorkerSession):
                known = self._lives.get(_life_of(message.hello))
                if known is not None and message.hello.number < known.number:
                    _supersede(session)

    def _drop_stale(self) -> None:
        """Look at all that waits, and drop what nobody will answer."""
        stale = [item for item in self._items if _is_stale(item)]
        pairs = zip(self._items, self._weights, strict=True)
        kept = [(item, weight) for item, weight in pairs if not _is_stale(item)]
        self._items = deque(item for item, _ in kept)
        self._weights = deque(weight for _, weight in kept)
        self._lose(self._weight - sum(self._weights))
        for part in self._parts:
            stale += (gone := [item for item in part.items if _is_stale(item)])
            part.items = [item for item in part.items if not _is_stale(item)]
            weight = _weight_in_parts(gone)
            part.weight -= weight
            self._parts_weight -= weight
        self._parts = deque(part for part in self._parts if part.items)
        self._left(stale)

    # When a turn is due.

    async def arrival(self) -> None:
        """Wait until a turn is due, and one pass of the event loop for what other sockets hold."""
        await self._arrived.wait()
        await asyncio.sleep(0)
        self._arrived.clear()

    def wake(self) -> None:
        """Let a turn run although nothing came in."""
        self._arrived.set()

    def wake_in(self, seconds: float) -> None:
        """Let a turn run that much later; the earliest of several wishes counts."""
        loop = asyncio.get_running_loop()
        at = loop.time() + min(max(seconds, 0.0), _ALARM_SECONDS_MAX)
        if self._alarm is not None:
            if self._alarm_at <= at:
                return
            self._alarm.cancel()
        self._alarm, self._alarm_at = loop.call_at(at, self._ring), at

    def _ring(self) -> None:
        self._alarm = None
        self._arrived.set()

    def close(self) -> None:
        """Wake nobody any more."""
        if self._alarm is not None:
            self._alarm.cancel()


def _weight_of(message: object) -> int:
    """Return what a message weighs in a turn: its tasks, and what it carries by the page."""
    if isinstance(message, Submit):
        size = sum(len(spec.payload.data) for spec in message.specs)
        return 1 + len(message.specs) + size // _WEIGHT_BYTES
    if isinstance(message, Ended):
        if message.failure is not None:
            return 1 + size_of(message) // _WEIGHT_BYTES
        return 1 if message.result is None else 1 + len(message.result.data) // _WEIGHT_BYTES
    if isinstance(message, PutCode):
        return 1 + len(message.data) // _WEIGHT_BYTES
    if isinstance(message, Watch):
        return 1 + len(message.tasks)
    if isinstance(message, Hello):
        return 1 + len(message.outcomes) + message.size_bytes // _WEIGHT_BYTES
    if isinstance(message, Ahead):
        return sum(map(_weight_of, message.outcomes))
    return 1


def _weight_in_parts(items: Iterable[Item]) -> int:
    """Return what items weigh beside hellos, which have a bound of their own."""
    return sum(_weight_of(message) for _, message in items if not isinstance(message, Hello))


def _cost_of(hello: Hello) -> int:
    """Return what a hello takes of their bound, in bytes; an empty one takes a page."""
    return _WEIGHT_BYTES + hello.size_bytes


def _life_of(hello: WorkerHello) -> tuple[str, int]:
    """Return whose hello it is: identity and incarnation."""
    return hello.identity, hello.incarnation


def _is_stale(item: Item) -> bool:
    return isinstance(item[0], WorkerSession) and item[0].superseded


def _supersede(session: WorkerSession) -> None:
    session.superseded = True
    session.close("a newer hello of this worker waits")
