"""Notes: what the death of a client costs, and what it never costs."""

from __future__ import annotations

import random

from holdfast.lab.sim.notes import Notes
from holdfast.lab.sim.plan import WishPlan
from holdfast.lab.sim.witness import Behaviour, arguments
from holdfast.model.ids import TaskId
from holdfast.model.task import Spec, Wanted
from tests.core.wording import task

MANY = range(1, 41)


def submitted(notes: Notes, number: int, do: str = "ok") -> TaskId:
    """Note a submission that was not answered."""
    payload = arguments(Behaviour(do, 5))
    spec = Spec(task(number), "sim:ok", payload, submitted_ms=1)
    notes.ids[number] = spec.id
    notes.unanswered[spec.id] = (spec, False)
    return spec.id


def wish(number: int) -> WishPlan:
    """Return a wish for the task of a submission."""
    return WishPlan(1.0, 0, number, Wanted.CANCEL)


def test_what_was_not_answered_is_forgotten_or_said_again() -> None:
    notes = Notes({})
    ids = {submitted(notes, number) for number in MANY}
    notes.early = [(number, wish(number)) for number in MANY]
    lost = set(notes.forget(random.Random(1)))
    assert 5 < len(lost) < 35
    assert set(notes.unanswered) == ids - lost
    assert all(said for _, said in notes.unanswered.values())
    assert {notes.ids[each.task] for _, each in notes.early} == ids - lost


def test_what_was_accepted_is_never_forgotten() -> None:
    notes = Notes({})
    for number in MANY:
        notes.accepted(submitted(notes, number), task(number))
        submitted(notes, number)
        notes.early.append((number, wish(number)))
    assert notes.forget(random.Random(1)) == []
    assert list(notes.unsettled) == [task(number) for number in MANY]
    assert len(notes.early) == len(MANY)
    assert 5 < len(notes.unanswered) < 35


def test_what_only_a_cancel_ends_is_never_forgotten() -> None:
    notes = Notes({})
    for number in MANY:
        submitted(notes, number, "forever")
    assert notes.forget(random.Random(1)) == []


def test_notes_are_at_rest_once_all_is_answered() -> None:
    notes = Notes({})
    assert notes.at_rest
    given = submitted(notes, 1)
    assert notes.waits_for == [given]
    notes.accepted(given, task(2))
    notes.accepted(given, task(2))
    assert notes.waits_for == [task(2)]
    assert notes.holder_of(wish(1)) == task(2)
    del notes.unsettled[task(2)]
    assert notes.at_rest
    other = submitted(notes, 3)
    notes.early = [(7, wish(3))]
    notes.refused(other)
    assert notes.at_rest
