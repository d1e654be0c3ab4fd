"""What becomes of each lease that a worker holds, from its order to its outcome in the outbox.

Owns the way between the peer's leases and the lanes: orders get their inputs and go in line, a
stop, a recall or a wish reaches them there, and what ended leaves the leases for the outbox. It
never decides which lane gets what (`core.lanes`) or what a coordinator hears when (`core.outbox`),
and it waits for nothing.
"""

from __future__ import annotations

from holdfast.core.outbox import Outbox
from holdfast.core.peer import Held, Peer
from holdfast.model.ids import Token
from holdfast.model.messages import Ended
from holdfast.model.outcome import Failure, OutcomeKind
from holdfast.model.task import Phase, Wanted
from holdfast.observe import Counters
from holdfast.ports import Guard, Order
from holdfast.worker.inputs import Inputs
from holdfast.worker.results import Results, Stored
from holdfast.worker.slots import Over, Slots
from holdfast.worker.transfers import Transfers


class Phases:
    """How far each lease has come. It is the keeper of `Slots`."""

    __slots__ = ("_outbox", "_peer")

    def __init__(self, *, peer: Peer, outbox: Outbox) -> None:
        self._peer = peer
        self._outbox = outbox

    def handed(self, order: Order, now: float) -> None:
        """Note that a child may take an order up: it counts as started."""
        lease = self._peer.leases.get(order.token)
        if lease is not None and lease.phase is not Phase.STARTED:
            lease.phase = Phase.STARTED
            self._outbox.started(order.task, order.token, now=now)

    def taken_back(self, token: Token) -> None:
        """Note that no child took an order up: it has not started after all."""
        lease = self._peer.leases.get(token)
        if lease is not None:
            lease.phase = Phase.ASSIGNED
        self._outbox.not_started(token)


class Leases:
    """All leases of one worker, and where their attempts are."""

    __slots__ = (
        "_counters",
        "_guard",
        "_inputs",
        "_outbox",
        "_peer",
        "_results",
        "_slots",
        "_transfers",
    )

    def __init__(
        self,
        *,
        peer: Peer,
        outbox: Outbox,
        inputs: Inputs,
        slots: Slots,
        results: Results,
        transfers: Transfers,
        guard: Guard,
        counters: Counters,
    ) -> None:
        self._peer = peer
        self._outbox = outbox
        self._inputs = inputs
        self._slots = slots
        self._results = results
        self._transfers = transfers
        self._guard = guard
        self._counters = counters

    # What the coordinator says.

    def take(self, lease: Held) -> None:
        """Put an order in line, or ask for what it lacks."""
        assign = lease.order
        if assign.token not in self._peer.leases:
            return  # Stopped in the same breath.
        order = self._inputs.admit(assign)
        if order is not None:
            self._slots.add(order, concurrent=assign.concurrent)
        elif assign.code in self._inputs.code_wanted():
            self._outbox.code_wanted(assign.code)

    def stop(self, token: Token, now: float) -> None:
        """The lease is not ours any more: see that its attempt ends, and say nothing of it."""
        self._outbox.not_started(token)
        if self._withdrawn(token, now):
            # A suspect that waits to run again has begun before, and nothing will answer it.
            self._guard.done([token])
        else:
            self._slots.stop(token, now)

    def recall(self, token: Token, now: float) -> None:
        """Return an order that has not begun; of one that has, say so."""
        lease = self._peer.leases.get(token)
        if lease is None:
            return  # Its outcome is on the way, or the lease was never ours: the view tells.
        if not self._slots.is_suspect(token) and self._handed_back(lease, now):
            return
        self._outbox.started_again(lease.order.task, token)

    def grant(self, lease: Held, now: float) -> None:
        """Do what the user wishes of a task, as far as its attempt has not ended."""
        token = lease.order.token
        if token not in self._peer.leases:
            return
        if lease.wanted is Wanted.RUN:
            self._slots.spare(token)
        elif self._handed_back(lease, now):
            return
        elif lease.wanted is Wanted.CANCEL:
            self._slots.stop(token, now)

    # What happened here.

    def collect_ended(self, now: float) -> None:
        """Take in the attempts that are over; a large result is made durable first."""
        for over in self._slots.collect(now):
            self._over(over)

    def collect_stored(self) -> None:
        """Take in the outcomes whose large results have become durable."""
        for stored in self._results.collect():
            self._stored(stored)

    def collect_inputs(self) -> None:
        """Put the orders in line that lack nothing any more; those that cannot start have ended."""
        ready, spoiled = self._inputs.collect()
        for order, concurrent in ready:
            self._slots.add(order, concurrent=concurrent)
        for each in spoiled:
            self._spoiled(each.token, each.why)

    # The end of the worker.

    def give_back(self, now: float) -> None:
        """End all that no child runs: what has surely not begun, and suspects."""
        self._slots.take_back_all(now)
        for lease in list(self._peer.leases.values()):
            self._handed_back(lease, now)

    def give_up(self) -> None:
        """The children have ended: whatever is held still has surely stopped, or never started."""
        for token, lease in list(self._peer.leases.items()):
            kind = OutcomeKind.STOPPED if lease.phase is Phase.STARTED else OutcomeKind.RETURNED
            self._end(Ended(lease.order.task, token, kind))

    # How it is done.

    def _withdrawn(self, token: Token, now: float) -> bool:
        """Take an attempt out of all lines; False where a child runs it, or none ever will."""
        if self._inputs.drop(token):
            return True
        if not self._slots.withdraw(token, now):
            return False
        self._inputs.release(token)
        return True

    def _handed_back(self, lease: Held, now: float) -> bool:
        """End a lease that no child runs now, and return whether that is so.

        It is returned; a suspect is stopped, because it has run.
        """
        token = lease.order.token
        kind = OutcomeKind.STOPPED if self._slots.is_suspect(token) else OutcomeKind.RETURNED
        if not self._withdrawn(token, now):
            return False
        self._end(Ended(lease.order.task, token, kind))
        return True

    def _over(self, over: Over) -> None:
        self._inputs.release(over.ended.token)
        lease = self._peer.leases.get(over.ended.token)
        if lease is None:
            self._unwanted(over.ended)
            if over.result_path:
                self._transfers.discard(over.result_path)
        elif over.result_path:
            self._results.store(over, lease.origin)
        else:
            self._end(over.ended)

    def _stored(self, stored: Stored) -> None:
        if stored.ended.token not in self._peer.leases:
            self._unwanted(stored.ended)
            self._results.drop(stored)
            return
        self._end(stored.ended, ready=stored.ready)
        if not stored.ready:
            self._results.clear()

    def _unwanted(self, ended: Ended) -> None:
        """Nobody answers this outcome, so that the guard is to forget it now."""
        self._counters.add("worker.outcomes_unwanted")
        if not self._outbox.has(ended.token):
            self._guard.done([ended.token])

    def _spoiled(self, token: Token, why: str) -> None:
        lease = self._peer.leases.get(token)
        if lease is not None:
            failure = Failure(message=why)
            self._end(Ended(lease.order.task, token, OutcomeKind.ENVIRONMENT, failure=failure))

    def _end(self, ended: Ended, *, ready: bool = True) -> None:
        """Let a lease go: its outcome is in the outbox from here on."""
        lease = self._peer.ended(ended.token)
        if lease is not None:
            self._outbox.ended(ended, lease.origin, ready=ready)
