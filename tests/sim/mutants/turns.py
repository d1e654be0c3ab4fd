"""Mutants of the turn: what is said before it is true, and what a coordinator believes."""

from __future__ import annotations

import pytest

from holdfast.coordinator import placing, tasks
from holdfast.coordinator.service import Coordinator
from holdfast.coordinator.sessions import ClientSession, WorkerSession
from holdfast.coordinator.turn import PLACING, Turn
from holdfast.model.messages import Accepted, Answered, Ended, PutCode, Submit
from holdfast.model.outcome import Answer
from holdfast.model.task import Task
from holdfast.ports import Receipt
from holdfast.stores.sqlite import SQLiteStore
from tests.sim.mutants.mutant import Mutant


def ack_before_commit(patch: pytest.MonkeyPatch) -> None:
    """Law 1: a submission is acknowledged before its commit."""
    original = tasks.submit

    def submit(turn: Turn, session: ClientSession, message: Submit) -> None:
        original(turn, session, message)
        session.send(Accepted(tuple(spec.id for spec in message.specs)))

    patch.setattr(tasks, "submit", submit)


def order_before_commit(patch: pytest.MonkeyPatch) -> None:
    """Law 1: an assignment is sent before its claim is committed."""
    original = placing._claim

    def claim(turn: Turn, session: WorkerSession, task: Task, cost_us: int) -> bool:
        claimed = original(turn, session, task, cost_us)
        if claimed:
            turn.claimed.pop()
            session.send(placing.assignment(session, turn.changes[task.spec.id].after))
        return claimed

    patch.setattr(placing, "_claim", claim)


def outcome_answered_before_commit(patch: pytest.MonkeyPatch) -> None:
    """Law 1: an outcome is answered as settled before its commit."""
    original = tasks.ended

    def ended(turn: Turn, session: WorkerSession, message: Ended) -> None:
        original(turn, session, message)
        session.send(Answered(message.task, message.token, Answer.SETTLED))

    patch.setattr(tasks, "ended", ended)


def overlay_off(patch: pytest.MonkeyPatch) -> None:
    """The turn: a decision does not see what the messages before it in the same turn did."""
    original = Turn.get

    def get(self: Turn, task_id: bytes) -> Task | None:
        known = self.state.tasks.get(task_id) or self.loaded.get(task_id)
        # Placing sees all of it: else nothing that was put back would ever be claimed.
        return original(self, task_id) if self.item is PLACING or known is None else known

    patch.setattr(Turn, "get", get)


def a_broken_commit_is_taken_for_done(patch: pytest.MonkeyPatch) -> None:
    """Law 1: after an error of unknown end the store is not asked what became of the turn.

    Both answers are taken for granted: that the turn was written, and that all of it was accepted.
    """
    original = Coordinator._reopened

    async def reopened(self: Coordinator) -> int:
        return max(await original(self), self._number + 1)

    async def receipt_of(self: Coordinator, turn: Turn) -> Receipt:
        return Receipt()

    patch.setattr(Coordinator, "_reopened", reopened)
    patch.setattr(Coordinator, "_receipt_of", receipt_of)


def a_restart_forgets_what_runs(patch: pytest.MonkeyPatch) -> None:
    """Law 6: a coordinator that starts does not read which leases are held."""

    async def running(self: SQLiteStore) -> list[Task]:
        return []

    patch.setattr(SQLiteStore, "running", running)


def functions_are_taken_for_kept(patch: pytest.MonkeyPatch) -> None:
    """Submit: a task is kept without a look whether its function is, or comes with it."""
    original = Turn.has_code

    def put_code(turn: Turn, session: ClientSession, message: PutCode) -> None:
        if not turn.no_room and not original(turn, message.digest):
            turn.code[message.digest] = message.data

    patch.setattr(tasks, "put_code", put_code)
    patch.setattr(Turn, "has_code", lambda self, digest: True)


def functions_are_known_before_their_commit(patch: pytest.MonkeyPatch) -> None:
    """Law 1: a function counts as kept from the decision on, be it committed or not."""
    original = tasks.put_code

    def put_code(turn: Turn, session: ClientSession, message: PutCode) -> None:
        original(turn, session, message)
        turn.state.learn_code(turn.code)

    patch.setattr(tasks, "put_code", put_code)


TURNS = (
    Mutant(ack_before_commit, 0, calm=False),
    Mutant(order_before_commit, 0, calm=False),
    Mutant(outcome_answered_before_commit, 0, calm=False),
    Mutant(overlay_off, 1),
    Mutant(a_broken_commit_is_taken_for_done, 5),
    Mutant(a_restart_forgets_what_runs, 2),
    Mutant(functions_are_taken_for_kept, 11),
    Mutant(functions_are_known_before_their_commit, 34),
)
