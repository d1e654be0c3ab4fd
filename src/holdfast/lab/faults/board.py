"""Which faults are on in a proxy, who waits for a change of them, and what they did.

Owns the waking of those who wait: a fault and its repair reach bytes that are under way. Never
touches a socket.
"""

from __future__ import annotations

import asyncio

from holdfast.lab.faults.tcp import DIRECTIONS, Conditions, Direction, Fault, conditions


class Board:
    """The faults that are on, and whoever waits for a change of them. Lives in one event loop."""

    __slots__ = ("_conditions", "_waiting", "applied")

    def __init__(self) -> None:
        self.applied: dict[int, Fault] = {}
        self._waiting: set[asyncio.Future[bool]] = set()
        self._conditions: dict[Direction, Conditions] = {}
        self.changed()

    def __getitem__(self, direction: Direction) -> Conditions:
        return self._conditions[direction]

    def changed(self) -> None:
        """Add up the faults anew and wake all who pause."""
        self._conditions = {way: conditions(way, self.applied) for way in DIRECTIONS}
        for future in self._waiting:
            settle(future, True)

    async def pause(self, until: float | None) -> bool:
        """Wait for a change, but not beyond `until` (loop time); say whether one came."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        alarm = None if until is None else loop.call_at(until, settle, future, False)
        self._waiting.add(future)
        try:
            return await future
        finally:
            self._waiting.discard(future)
            if alarm is not None:
                alarm.cancel()


class Tally:
    """What one direction of a proxy did so far."""

    __slots__ = ("corrupted_pieces", "dropped_bytes", "forwarded_bytes")

    def __init__(self) -> None:
        self.forwarded_bytes = 0
        self.dropped_bytes = 0
        self.corrupted_pieces = 0


def settle(future: asyncio.Future[bool], value: bool) -> None:
    """Give a future its result, unless it has one or was cancelled."""
    if not future.done():
        future.set_result(value)
