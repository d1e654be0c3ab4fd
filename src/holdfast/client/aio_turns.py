"""Coroutines that wait at the bound on submissions: in turn, and many of them let in at once.

Owns their line. Who is let in submits before it awaits anything, so that what was seen is still
true then. One at a time would make each submission a frame of its own. For one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque

from holdfast.client.intake import Intake

AT_ONCE_MAX = 256
"""So many submit in a row before the loop has its turn: a frame's worth."""


class Turns:
    """The line before one intake; `look` is called when there is room again, or it is shut."""

    def __init__(self) -> None:
        self._line: deque[asyncio.Future[None]] = deque()
        self._let_in = 0
        """Who was told to go on, and has not done so yet: each has a place."""
        self._due = False
        self._unbroken = 0

    async def take(self, intake: Intake) -> None:
        """Wait until one submission has room. Who is cancelled here gives its turn to the next."""
        if not (self._line or self._let_in or intake.full):
            self._unbroken += 1
            if self._unbroken < AT_ONCE_MAX:
                return
        self._unbroken = 0
        put = self._line.append
        while True:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            put(turn)
            self.look(intake)
            try:
                await turn
            finally:
                # Cancelled in line, it is passed over; after that, its place is free again.
                if turn.done() and not turn.cancelled():
                    self._let_in -= 1
                if self._line:
                    self.look(intake)
            if not intake.full:
                return
            # What those before it submitted was large.
            put = self._line.appendleft

    def look(self, intake: Intake) -> None:
        """Let in those for whom there is room, soon."""
        if self._line and not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._let, intake)

    def _let(self, intake: Intake) -> None:
        self._due = False
        if intake.full:
            return
        places = min(AT_ONCE_MAX, intake.places - self._let_in)
        while self._line and places > 0:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                self._let_in += 1
                places -= 1
