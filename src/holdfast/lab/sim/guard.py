"""The simulated guard: what a worker told it outlives that worker, and is told to the coordinator.

Owns the ledger of one worker process and the way of its report. A guard that was killed with its
worker says nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from holdfast.coordinator.facts import Death
from holdfast.lab.sim.coverage import CrashPoints
from holdfast.lab.sim.loop import Party, SimLoop
from holdfast.model.ids import Token

KILL_SECONDS = (0.001, 0.05)
"""How long a guard takes to end all children before it reports."""
TRY_SECONDS = (0.05, 2.0)
REPORT_SECONDS_MAX = 30.0

Deliver = Callable[[Death, str, Callable[[], None]], None]
"""Carries a report and its last word to the coordinator; calls back once it was answered."""


class SimGuard:
    """`ports.Guard` of one worker process, and what is left of it after that process."""

    def __init__(
        self, loop: SimLoop, party: Party, rng: random.Random, points: CrashPoints
    ) -> None:
        self._loop = loop
        self._party = party
        self._rng = rng
        self._points = points
        self._started: dict[Token, None] = {}
        self._spooled: dict[Token, None] = {}
        self._session: tuple[str, int, str] | None = None
        self._answered = False

    # The port.

    def started(self, tokens: Sequence[Token]) -> None:
        """These tokens are about to be handed to a child."""
        self._party.alive()
        with self._points.around(self._party, "guard started"):
            self._started.update(dict.fromkeys(tokens))

    def spooled(self, tokens: Sequence[Token]) -> None:
        """The outcomes of these tokens are durable in the spool."""
        self._party.alive()
        with self._points.around(self._party, "guard spooled"):
            self._spooled.update(dict.fromkeys(tokens))

    def done(self, tokens: Sequence[Token]) -> None:
        """These tokens are settled."""
        self._party.alive()
        with self._points.around(self._party, "guard done"):
            for token in tokens:
                self._started.pop(token, None)
                self._spooled.pop(token, None)

    def session(self, *, url: str, identity: str, incarnation: int, last_word: str) -> None:
        """Where, and with which one-use token, to tell of our death."""
        self._party.alive()
        with self._points.around(self._party, "guard session"):
            self._session = (identity, incarnation, last_word)

    # After the worker's death.

    def report(self, deliver: Deliver) -> None:
        """Tell of the death until it is answered, within a bound."""
        if self._session is None:
            return
        identity, incarnation, word = self._session
        death = Death(
            identity=identity,
            incarnation=incarnation,
            certain=True,
            started=tuple(self._started),
            spooled=tuple(self._spooled),
        )
        give_up_at = self._loop.time() + REPORT_SECONDS_MAX
        self._try(death, word, deliver, TRY_SECONDS[0], give_up_at)

    def _try(
        self, death: Death, word: str, deliver: Deliver, pause: float, give_up_at: float
    ) -> None:
        if self._answered or self._loop.time() > give_up_at:
            return
        deliver(death, word, self._answer)
        longer = min(2 * pause, TRY_SECONDS[1])
        self._loop.later(pause, self._try, death, word, deliver, longer, give_up_at)

    def _answer(self) -> None:
        self._answered = True
