"""The coordinator's end of a worker's session: who is let in, and what both believe is held.

A hello's pair (incarnation, number) must be above the pair that the store keeps, so that a
late socket of the same worker can never take the place of a newer one. `Ledger` mirrors what the
worker holds: the worker says in each frame the number of the last order it read and a digest of
its leases up to there; the ledger knows its own digest as of any order that was not confirmed yet.
A difference closes the socket and the worker says hello: a frame's own list is never used to take
a lease away.
"""

from __future__ import annotations

from collections import deque

import msgspec

from holdfast.model.ids import Token
from holdfast.model.limits import OUTAGE_SECONDS_MIN, OUTAGES_IN_A_ROW_MAX
from holdfast.model.messages import View, WorkerHello
from holdfast.model.words import Word


class Admission(Word):
    """What becomes of a hello."""

    WELCOME = 1
    LATE = 2
    """Not above the stored pair: a newer hello of this worker was already answered."""
    NAME_TAKEN = 3
    """A present worker of another identity has this name."""


class Known(msgspec.Struct, frozen=True, gc=False):
    """What is stored of a worker, and whether it has a session now."""

    identity: str
    name: str
    incarnation: int
    number: int
    epoch: int
    present: bool
    outages: int = 0


def admit(hello: WorkerHello, *, same: Known | None, namesake: Known | None) -> Admission:
    """Judge a hello by the stored worker of its identity and by the one that has its name."""
    if same is not None and (hello.incarnation, hello.number) <= (same.incarnation, same.number):
        return Admission.LATE
    if namesake is not None and namesake.identity != hello.identity and namesake.present:
        return Admission.NAME_TAKEN
    return Admission.WELCOME


def patience_seconds(lease_seconds: float, outages: int) -> float:
    """Return how long a worker may be silent once a coordinator starts, in seconds.

    `outages` is how many came before this one since its last hello. The time of an outage is given
    back twice in a row: a lease begins anew. The next ones count as silence, each for as long as
    the shortest that would be given back, so that restarts without end keep no lease alive. An
    outage ends, and counts, once a coordinator has listened for that time: who lives has come by
    then (`core.redial`), so that no lease ends before a whole one of listening.
    """
    if outages < OUTAGES_IN_A_ROW_MAX:
        return max(lease_seconds, OUTAGE_SECONDS_MIN)
    taken = OUTAGE_SECONDS_MIN * (outages - OUTAGES_IN_A_ROW_MAX + 1)
    return max(lease_seconds - taken, 0.0)


def token_digest(token: bytes) -> int:
    """Return what a token adds to a digest of leases: its first eight bytes."""
    return int.from_bytes(token[:8], "big")


class Ledger:
    """What one worker holds, as this coordinator believes."""

    __slots__ = ("_changes", "_digest", "_read", "order", "tokens", "wishes")

    def __init__(self) -> None:
        self.order = 0
        """The number of the last order sent on this session."""
        self.tokens: dict[bytes, bytes] = {}
        """Token → task, of every lease that the worker should name."""
        self.wishes: dict[bytes, int] = {}
        """Token → the newest wish above 0 that was told."""
        self._digest = 0
        self._read = 0
        self._changes: deque[tuple[int, int, bytes]] = deque()
        """Orders not confirmed yet: number, what it did to the digest, token that it stopped."""

    def keep(self, token: bytes, task: bytes) -> None:
        """Count a lease that the welcome leaves to the worker."""
        if token not in self.tokens:
            self.tokens[token] = task
            self._digest ^= token_digest(token)

    def assign(self, token: bytes, task: bytes) -> int:
        """Count an assignment that is being sent; return its order number."""
        self.order += 1
        self.keep(token, task)
        self._changes.append((self.order, token_digest(token), b""))
        return self.order

    def stop(self, token: bytes) -> int:
        """Count a stop order that is being sent; return its order number."""
        self.order += 1
        if self.tokens.pop(token, None) is not None:
            self.wishes.pop(token, None)
            self._digest ^= token_digest(token)
            self._changes.append((self.order, token_digest(token), token))
        return self.order

    def ended(self, token: bytes) -> None:
        """The worker's outcome for a lease was read on this session: it names it no more.

        Where a stop order for it is still on its way, the worker let go of it before it read that.
        """
        if self.tokens.pop(token, None) is not None:
            self.wishes.pop(token, None)
            self._digest ^= token_digest(token)
        elif self._changes:
            kept = [change for change in self._changes if change[2] != token]
            self._changes = deque(kept)

    def tell(self, token: bytes, wish: int) -> None:
        """A wish is being told."""
        if token in self.tokens:
            self.wishes[token] = wish

    def agrees(self, view: View) -> bool:
        """Whether a frame's view is what this ledger held when that order had been read."""
        if view.read < self._read or view.read > self.order:
            return False
        self._read = view.read
        changes = self._changes
        while changes and changes[0][0] <= view.read:
            changes.popleft()
        digest = self._digest
        for _, change, _ in changes:
            digest ^= change
        return digest == view.digest

    def unheard_wishes(self, view: View) -> list[Token]:
        """Return the leases whose newest wish the worker has not seen; they are told again."""
        if not self.wishes:
            return []
        seen = dict(view.wishes)
        wishes = self.wishes.items()
        return [Token(token) for token, wish in wishes if seen.get(Token(token), 0) < wish]
