"""What waits for the next turn: messages in the order they came, and parts of turns that failed.

Bounded: a message weighs as many tasks as it holds, and what these carry by the page;
whoever posts asks for space before it reads on. Owns also when the next turn is due although
nothing came.
"""

from __future__ import annotations

import asyncio
from collections import deque

from holdfast.coordinator.facts import Hello
from holdfast.coordinator.sessions import Session
from holdfast.coordinator.turn import Item
from holdfast.core.wire import size_of
from holdfast.model.limits import INBOX_MESSAGES_MAX, TURN_MESSAGES_MAX
from holdfast.model.messages import Ended, PutCode, Submit, View, Watch

_WEIGHT_BYTES = 4096
_ALARM_SECONDS_MAX = 3600.0
_PARTS_MAX = 64
"""From here on nothing more is taken ahead: the inbox fills, and its bound holds."""


class Inbox:
    """The one inbox of a coordinator."""

    __slots__ = (
        "_alarm",
        "_alarm_at",
        "_arrived",
        "_items",
        "_parts",
        "_space",
        "_weight",
        "_weights",
    )

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._weights: deque[int] = deque()
        """What each item weighs, in tasks."""
        self._weight = 0
        self._parts: deque[list[Item]] = deque()
        """Parts of turns that failed: decided before all others, one after another."""
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
        self._weight -= weight
        if not self._space.is_set() and self._weight < INBOX_MESSAGES_MAX // 2:
            self._space.set()
        return items

    def again(self, items: list[Item]) -> None:
        """Let items be decided once more, before all others.

        A view was judged when it was read, and tells of no later moment.
        """
        rest = [item for item in items if not isinstance(item[1], View)]
        if rest:
            self._parts.appendleft(rest)
        self._arrived.set()

    def ahead(self, kinds: tuple[type, ...]) -> list[Item]:
        """Take messages of these kinds ahead; all others wait behind the parts, in their order."""
        if len(self._parts) >= _PARTS_MAX:
            return []
        fresh = self.gather()
        rest = [item for item in fresh if not isinstance(item[1], kinds)]
        if rest:
            self._parts.append(rest)
        return [item for item in fresh if isinstance(item[1], kinds)]

    def part(self) -> list[Item] | None:
        """Take the next part of a turn that failed, None where there is none."""
        return self._parts.popleft() if self._parts else None

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
        return 1 + len(message.outcomes)
    return 1
