"""Mutants of the worker's side: what it keeps, names, starts, stops and tells its guard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from holdfast.core.outbox import Outbox, Stand
from holdfast.core.peer import Held, Peer
from holdfast.core.session import Ledger
from holdfast.core.wire import Wire
from holdfast.errors import ProtocolError
from holdfast.model.ids import Token
from holdfast.model.messages import Ended, HeldLease
from holdfast.model.outcome import OutcomeKind
from holdfast.model.task import Wanted
from holdfast.worker import inputs, slots
from holdfast.worker.agent import Agent
from holdfast.worker.inputs import Inputs
from holdfast.worker.leases import Leases
from holdfast.worker.results import Results, Stored
from holdfast.worker.slots import Slots
from tests.sim.mutants.mutant import Mutant


def grace_unbounded(patch: pytest.MonkeyPatch) -> None:
    """Cancel: a task that does not obey is interrupted, and never killed."""
    patch.setattr(slots, "CANCEL_GRACE_SECONDS", 1e9)


def spool_after_replace(patch: pytest.MonkeyPatch) -> None:
    """Hello: what is spooled is delivered only after the hello that replaces the former life."""
    original = Outbox.rejoin

    def rejoin(self: Outbox, origin: Any) -> tuple[list[Ended], list[HeldLease]]:
        named, owed = original(self, origin)
        for ended in named:
            entry = self._entries[ended.token]
            if entry.spooled:
                entry.stand = Stand.QUEUED
                self._queued[ended.token] = entry
        return [ended for ended in named if ended.token not in self._queued], owed

    patch.setattr(Outbox, "rejoin", rejoin)


def workers_forget_outcomes_when_cut_off(patch: pytest.MonkeyPatch) -> None:
    """Outbox: what was not answered before a socket broke is never said again."""
    patch.setattr(Outbox, "rejoin", lambda self, origin: ([], []))


def workers_forget_leases_when_cut_off(patch: pytest.MonkeyPatch) -> None:
    """Hello: a worker names none of the leases that it holds."""
    original = Peer.hello

    def hello(self: Peer, **options: Any) -> Sequence[Any]:
        self.leases.clear()
        return original(self, **options)

    patch.setattr(Peer, "hello", hello)


def hello_numbers_do_not_grow(patch: pytest.MonkeyPatch) -> None:
    """Hello: every socket of one incarnation says the same number."""
    original = Peer.hello

    def hello(self: Peer, **options: Any) -> Sequence[Any]:
        self.number = 0
        return original(self, **options)

    patch.setattr(Peer, "hello", hello)


def the_guard_is_not_told_of_starts(patch: pytest.MonkeyPatch) -> None:
    """Worker: a task is handed to a child, and the guard does not know."""
    original = Slots.dispatch

    class Deaf:
        def __init__(self, guard: Any) -> None:
            self.done = guard.done

        def started(self, tokens: Sequence[Token]) -> None: ...

    def dispatch(self: Slots, now: float) -> None:
        guard = self._guard
        self._guard = Deaf(guard)  # type: ignore[assignment]  # what `dispatch` uses of it
        try:
            original(self, now)
        finally:
            self._guard = guard

    patch.setattr(Slots, "dispatch", dispatch)


def starts_are_not_reported(patch: pytest.MonkeyPatch) -> None:
    """Worker: it does not say that a task was handed to a child."""
    patch.setattr(Outbox, "started", lambda self, task, token, *, now: None)


def what_runs_is_returned(patch: pytest.MonkeyPatch) -> None:
    """Recall, pause: what is asked back is returned as not started, although it runs."""
    grant = Leases.grant

    def give_back(self: Leases, token: Token, now: float) -> None:
        lease = self._peer.leases.get(token)
        if lease is not None:
            self._unbegun(token, now)
            self._end(Ended(lease.order.task, token, OutcomeKind.RETURNED))

    def obey(self: Leases, lease: Held, now: float) -> None:
        if lease.wanted is Wanted.PAUSE:
            give_back(self, lease.order.token, now)
        else:
            grant(self, lease, now)

    patch.setattr(Leases, "recall", give_back)
    patch.setattr(Leases, "grant", obey)


def orders_start_without_a_session(patch: pytest.MonkeyPatch) -> None:
    """Worker: an assigned task is started while no coordinator has answered a hello."""
    original = Agent._pass

    def one_pass(self: Agent, now: float) -> None:
        original(self, now)
        if not self._sessions.connected and not self._leaving.begun:
            self._hand_out(now)

    patch.setattr(Agent, "_pass", one_pass)


def order_gap_accepted(patch: pytest.MonkeyPatch) -> None:
    """Session: a frame is missing, with the orders in it, and nobody minds.

    Three layers would each notice: frames have numbers, orders have numbers, and the digest of
    leases says what a worker has read. All three are taken away, because any one saves the rest.
    """
    read = Wire.read

    def read_after_a_gap(self: Wire[Any], data: bytes) -> Any:
        before = self.read_number
        self.read_number += _number_of(data) == before + 2
        try:
            return read(self, data)
        except ProtocolError:
            self.read_number = before
            raise

    def count(self: Peer, number: int) -> None:
        self.read = number

    patch.setattr(Wire, "read", read_after_a_gap)
    patch.setattr(Peer, "_count", count)
    patch.setattr(Ledger, "agrees", lambda self, view: True)


def _number_of(frame: bytes) -> object:
    try:
        return msgspec.msgpack.decode(frame)[0]
    except (msgspec.MsgspecError, TypeError, LookupError, ValueError):
        return None  # It is spoilt: `read` says how.


def a_wish_is_obeyed_once(patch: pytest.MonkeyPatch) -> None:
    """Worker: after one wish for a lease was obeyed, those with higher numbers are not."""
    original = Peer._obey

    def obey(self: Peer, lease: Held, wanted: Any, wish: int, heard: Any) -> None:
        if not lease.wish:
            original(self, lease, wanted, wish, heard)

    patch.setattr(Peer, "_obey", obey)


def a_result_is_named_before_it_is_stored(patch: pytest.MonkeyPatch) -> None:
    """Law 1: a large result that the blob store did not take is named all the same."""
    original = Results._stored

    async def stored(self: Results, *arguments: Any) -> Stored:
        return replace(await original(self, *arguments), ready=True)

    patch.setattr(Results, "_stored", stored)


def suspects_are_returned(patch: pytest.MonkeyPatch) -> None:
    """Outcomes: what ran in a child that died, and waits to run again, is returned as never run."""
    patch.setattr(Slots, "is_suspect", lambda self, token: False)


def large_arguments_are_let_go_too_early(patch: pytest.MonkeyPatch) -> None:
    """Worker: who asks for an order back has its large arguments removed, also where it runs."""
    original = Inputs.drop

    def drop(self: Inputs, token: Token) -> bool:
        self.release(token)
        return original(self, token)

    patch.setattr(Inputs, "drop", drop)


def a_download_that_breaks_off_is_a_fault(patch: pytest.MonkeyPatch) -> None:
    """Worker: a coordinator that dies while arguments are fetched costs their task its budget."""
    patch.setattr(inputs, "TRIES_MAX", 0)


WORKERS = (
    Mutant(grace_unbounded, 3, calm=False),
    Mutant(spool_after_replace, 0),
    Mutant(workers_forget_outcomes_when_cut_off, 0),
    Mutant(workers_forget_leases_when_cut_off, 0),
    Mutant(hello_numbers_do_not_grow, 0),
    Mutant(the_guard_is_not_told_of_starts, 5),
    Mutant(starts_are_not_reported, 0, calm=False),
    Mutant(what_runs_is_returned, 0, calm=False),
    Mutant(orders_start_without_a_session, 11),
    Mutant(order_gap_accepted, 19),
    Mutant(a_wish_is_obeyed_once, 37),
    Mutant(a_result_is_named_before_it_is_stored, 25),
    Mutant(suspects_are_returned, 21),
    Mutant(large_arguments_are_let_go_too_early, 13),
    Mutant(a_download_that_breaks_off_is_a_fault, 9),
)
