"""The oracles by themselves: each accuses what it must, and nothing else."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.lab.sim.hearing import Hearing
from holdfast.lab.sim.history import History
from holdfast.lab.sim.judge import Judge
from holdfast.lab.sim.loop import Party, SimLoop
from holdfast.lab.sim.records import Records
from holdfast.lab.sim.witness import Behaviour, Witness, arguments, result_of
from holdfast.model.ids import TaskId, Token
from holdfast.model.messages import Accepted, Answered, Assign, Settled, StopOrder
from holdfast.model.outcome import Answer, Encoding, Payload, Reason
from holdfast.model.task import Charges, Lease, Life, Owed, Phase, Spec, State, Task, Wanted
from holdfast.ports import Changes, Event, Order, Receipt, Update

ID = TaskId(bytes(15) + b"\x07")
TOKEN = Token(b"t" * 16)
SPEC = Spec(ID, "sim:ok", arguments(Behaviour("ok", 10)), 1)
FRESH = Life()
CLAIMED = Life(
    version=2,
    state=State.RUNNING,
    fence=1,
    token=TOKEN,
    lease=Lease.HELD,
    phase=Phase.ASSIGNED,
    worker="w",
    incarnation=1,
)
RESULT = Payload(Encoding.JSON, result_of(ID, 1, "ok"))
DONE = replace(
    CLAIMED,
    version=3,
    state=State.SUCCEEDED,
    lease=Lease.SPENT,
    phase=Phase.ENDED,
    result=RESULT,
)
LAPSED = replace(
    CLAIMED, version=3, state=State.QUEUED, lease=Lease.LAPSED, owed=Owed.LOSS, phase=Phase.STARTED
)


class Court:
    """A judge and a hearing over one mirror."""

    def __init__(self) -> None:
        self.now = 100.0
        self.records = Records()
        self.witness = Witness()
        loop = SimLoop(steps_max=1, real_seconds_max=1.0)
        history = History(loop, keep=True)
        loop.close()
        self.judge = Judge(
            self.records, self.witness, history, {}, lease_seconds=10.0, now=self._time
        )
        self.hearing = Hearing(self.records, history, self._time)
        self.coordinator = Party("coordinator", "coordinator")
        self.turn = 0

    def _time(self) -> float:
        return self.now

    def insert(self, life: Life = FRESH) -> Court:
        return self.commit(inserts=[Task(SPEC, life)])

    def update(self, life: Life, *story: str, token: Token | None = None) -> Court:
        events = [Event(ID, 1, kind, detail="loss") for kind in story]
        before = self.records.rows[ID].version
        return self.commit(updates=[Update(Task(SPEC, life), before, token)], events=events)

    def commit(self, **parts: Any) -> Court:
        self.turn += 1
        self.judge.deciding()
        self.judge.committed(Changes(turn=self.turn, **parts), Receipt())
        return self

    def run(self, how: str = "") -> Court:
        order = Order(ID, TOKEN, 1, "sim:ok", SPEC.payload)
        run = self.witness.began(order, worker="w", incarnation=1, now=self.now)
        if how:
            self.witness.ended(run, how, self.now)
        return self

    def say(self, *messages: Any) -> Court:
        self.hearing.sent(self.coordinator, "somebody", messages)
        return self

    def accuses(self, text: str) -> bool:
        return any(text in violation for violation in self.records.violations)


@pytest.fixture
def court() -> Court:
    return Court()


def test_an_honest_life_is_not_accused(court: Court) -> None:
    court.insert().update(CLAIMED).say(
        Assign(1, 1, ID, TOKEN, 1, "f", RESULT, b"", "", False, 0, 0)
    )
    court.run("succeeded").update(DONE, token=TOKEN)
    court.say(Accepted((ID,)), Settled(ID, State.SUCCEEDED, Reason.NONE, RESULT, None))
    court.say(Answered(ID, TOKEN, Answer.SETTLED))
    assert not court.records.violations


def test_a_terminal_row_that_changes(court: Court) -> None:
    court.insert(CLAIMED).run("succeeded").update(DONE)
    court.update(replace(DONE, version=4, state=State.FAILED, reason=Reason.ERROR, result=None))
    assert court.accuses("it was succeeded, and changed")


def test_a_result_of_another_attempt(court: Court) -> None:
    court.insert(CLAIMED).run("succeeded")
    court.update(replace(DONE, result=Payload(Encoding.JSON, result_of(ID, 2, "ok"))))
    assert court.accuses("the result is not that of run 1")


def test_a_success_that_nobody_saw(court: Court) -> None:
    court.insert(CLAIMED).run().update(DONE)
    assert court.accuses("never ended so")


@pytest.mark.parametrize(
    ("how", "outcome"), [("crashed", "raised"), ("raised", "crashed"), ("succeeded", "raised")]
)
def test_an_outcome_that_is_not_so(court: Court, how: str, outcome: str) -> None:
    court.insert(CLAIMED).run(how)
    court.update(replace(CLAIMED, version=3, state=State.QUEUED, lease=Lease.SPENT), outcome)
    assert court.accuses(f"outcome {outcome} of run 1")


def test_a_return_of_what_ran(court: Court) -> None:
    court.insert(CLAIMED).run()
    used = Charges(free_returns=1)
    court.update(
        replace(CLAIMED, version=3, state=State.QUEUED, lease=Lease.SPENT, used=used), "returned"
    )
    assert court.accuses("returned as not run, and it had run")


def test_a_lease_that_ends_without_a_word(court: Court) -> None:
    court.insert(CLAIMED).update(LAPSED)
    assert court.accuses("its story does not say why")


def test_a_death_that_was_none(court: Court) -> None:
    court.insert(CLAIMED).update(LAPSED, "worker died")
    assert court.accuses("declared dead, and lives")


def test_a_death_that_was_one(court: Court) -> None:
    court.records.died["w", 1] = 99.0
    court.insert(CLAIMED).update(LAPSED, "worker died")
    assert not court.records.violations


@pytest.mark.parametrize(("silent", "guilty"), [(9.0, True), (10.1, False)])
def test_a_run_again_after_too_short_a_silence(court: Court, silent: float, guilty: bool) -> None:
    court.records.hear("w", court.now - silent)
    court.insert(CLAIMED).run().update(LAPSED, "worker silent")
    assert not court.records.violations
    again = replace(CLAIMED, version=4, fence=2, token=Token(b"u" * 16), used=Charges(losses=1))
    court.update(again)
    assert court.accuses("is run again") is guilty


def test_time_in_which_nobody_listened_is_no_silence(court: Court) -> None:
    court.records.hear("w", court.now - 12.0)
    court.records.stalls.append((court.now - 8.0, court.now - 2.0))
    court.judge.deciding()
    assert court.records.listened_seconds("w", grain_seconds=1.0) == pytest.approx(7.0)
    court.records.started_coordinator(court.now - 3.0)
    assert court.records.listened_seconds("w", grain_seconds=1.0) == pytest.approx(3.0)


def test_a_claim_after_a_cancel_and_a_token_used_twice(court: Court) -> None:
    wanted = replace(CLAIMED, wanted=Wanted.CANCEL, wish=1)
    court.insert(wanted)
    court.update(replace(wanted, version=3, fence=2), "worker silent")
    assert court.accuses("claimed after its cancel was committed")
    assert court.accuses("a token was used before")


def test_a_claim_that_charges_nothing_for_what_ran(court: Court) -> None:
    court.records.died["w", 1] = 99.0
    court.insert(CLAIMED).run().update(replace(LAPSED, owed=Owed.FREE), "worker died")
    free = Charges(free_returns=1)
    court.update(
        replace(CLAIMED, version=4, fence=2, token=Token(b"u" * 16), used=free, freed=(TOKEN,))
    )
    assert court.accuses("had begun, and was charged as free")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Accepted((ID,)), "acknowledged before it was committed"),
        (Settled(ID, State.FAILED, Reason.ERROR, None, None), "which is not so"),
        (Assign(1, 1, ID, TOKEN, 1, "f", RESULT, b"", "", False, 0, 0), "assigned before"),
        (Answered(ID, TOKEN, Answer.SETTLED), "and is not committed"),
    ],
)
def test_what_is_said_before_its_commit(court: Court, message: Any, text: str) -> None:
    assert court.say(message).accuses(text)


def test_the_holder_of_a_lease_is_told_to_stop(court: Court) -> None:
    court.insert(CLAIMED).say(StopOrder(1, ID, TOKEN))
    assert court.accuses("was told to stop")


def test_the_newest_token_is_answered_as_superseded(court: Court) -> None:
    court.insert(CLAIMED).say(Answered(ID, TOKEN, Answer.SUPERSEDED))
    assert court.accuses("answered as superseded")


def test_a_blob_that_is_named_and_not_there(court: Court) -> None:
    spec = replace(SPEC, payload=arguments(Behaviour("big", 10)))
    data = result_of(ID, 1, "big")
    big = Payload(Encoding.JSON, digest=hashlib.sha256(data).digest(), size_bytes=len(data))
    court.run("succeeded").commit(inserts=[Task(spec, CLAIMED)])
    court.commit(updates=[Update(Task(spec, replace(DONE, result=big)), 2)])
    assert court.accuses("a blob that is not durable")


def test_accusations_are_bounded(court: Court) -> None:
    for number in range(100):
        court.records.blame(str(number))
    assert len(court.records.violations) < 100
