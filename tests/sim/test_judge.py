"""The oracles by themselves: each accuses what it must, and nothing else."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.coordinator.facts import Death
from holdfast.lab.sim.hearing import Hearing
from holdfast.lab.sim.history import History
from holdfast.lab.sim.judge import Judge
from holdfast.lab.sim.lapses import due_seconds
from holdfast.lab.sim.loop import Party, SimLoop
from holdfast.lab.sim.records import Records
from holdfast.lab.sim.sessions import Sessions
from holdfast.lab.sim.witness import Behaviour, Witness, arguments, blob_of, result_of
from holdfast.model.ids import TaskId, Token
from holdfast.model.messages import (
    Accepted,
    Answered,
    Assign,
    HeldLease,
    Settled,
    StopOrder,
    WorkerHello,
)
from holdfast.model.outcome import Answer, Encoding, Payload, Reason
from holdfast.model.task import Charges, Lease, Life, Owed, Phase, Spec, State, Task, Wanted
from holdfast.ports import Changes, CodeRow, Event, Order, Receipt, Update, WorkerRow

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
UNHEARD = replace(LAPSED, owed=Owed.UNHEARD, phase=Phase.ASSIGNED)


class Court:
    """A judge and a hearing over one mirror."""

    def __init__(self) -> None:
        self.now = 100.0
        self.records = Records()
        self.blobs: dict[bytes, bytes] = {}
        self.witness = Witness()
        loop = SimLoop(steps_max=1, real_seconds_max=1.0)
        history = History(loop, keep=True)
        loop.close()
        self.sessions = Sessions(lease_seconds=10.0, now=self._time)
        self.judge = Judge(
            self.records,
            self.sessions,
            self.witness,
            history,
            self.blobs,
            self,
            lease_seconds=10.0,
            now=self._time,
        )
        self.hearing = Hearing(self.records, self.sessions, history, self._time)
        self.spool: list[bytes] = []
        self.wall_ms = 1_000
        self.coordinator = Party("coordinator", "coordinator")
        self.turn = 0

    def _time(self) -> float:
        return self.now

    def spooled(self, worker: str) -> list[bytes]:
        return self.spool

    def latest_wall_ms(self) -> int:
        return self.wall_ms

    def insert(self, life: Life = FRESH) -> Court:
        return self.commit(inserts=[Task(SPEC, life)])

    def update(
        self, life: Life, *story: str, token: Token | None = None, owed: str = "loss"
    ) -> Court:
        events = [Event(ID, 1, kind, worker="w", detail=owed) for kind in story]
        before = self.records.rows[ID].version
        return self.commit(updates=[Update(Task(SPEC, life), before, token)], events=events)

    def commit(self, receipt: Receipt | None = None, **parts: Any) -> Court:
        self.turn += 1
        self.judge.deciding()
        self.judge.committed(Changes(turn=self.turn, **parts), receipt or Receipt())
        return self

    def run(self, how: str = "") -> Court:
        order = Order(ID, TOKEN, 1, "sim:ok", SPEC.payload)
        run = self.witness.began(order, worker="w", incarnation=1, now=self.now)
        if how:
            self.witness.ended(run, how, self.now)
            self.sessions.ended[TOKEN] = None
        return self

    def dies(self, *, started: tuple[bytes, ...] = (), spooled: tuple[bytes, ...] = ()) -> Court:
        self.records.died["w", 1] = 99.0
        death = Death("w", 1, certain=True, started=started, spooled=spooled)
        self.records.testaments["w", 1] = death
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


def test_a_task_whose_function_is_nowhere(court: Court) -> None:
    travels = Task(replace(SPEC, code=b"d" * 32), FRESH)
    court.commit(inserts=[travels])
    assert court.accuses("its function is nowhere")


@pytest.mark.parametrize("turns", [1, 2])
def test_a_task_whose_function_is_kept_with_it_or_before_it(court: Court, turns: int) -> None:
    parts = {"code": [CodeRow(b"d" * 32, b"bytes")]}
    travels = {"inserts": [Task(replace(SPEC, code=b"d" * 32), FRESH)]}
    for each in [parts | travels] if turns == 1 else [parts, travels]:
        court.commit(**each)
    assert court.records.violations == []


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
    court.dies(started=(TOKEN,)).insert(CLAIMED).update(LAPSED, "worker died")
    assert not court.records.violations


def test_a_death_that_nobody_told_of(court: Court) -> None:
    court.records.died["w", 1] = 99.0
    court.insert(CLAIMED).update(LAPSED, "worker died")
    assert court.accuses("nobody told of it")


@pytest.mark.parametrize(
    ("started", "owed", "guilty"),
    [((), "free", False), ((), "loss", True), ((TOKEN,), "loss", False), ((TOKEN,), "free", True)],
)
def test_what_a_death_owes(
    court: Court, started: tuple[bytes, ...], owed: str, guilty: bool
) -> None:
    court.dies(started=started).insert(CLAIMED).update(LAPSED, "worker died", owed=owed)
    assert court.accuses("for its worker's death") is guilty


def test_a_spooled_outcome_that_is_not_waited_for(court: Court) -> None:
    court.dies(started=(TOKEN,), spooled=(TOKEN,)).insert(CLAIMED).update(LAPSED, "worker died")
    assert court.accuses("did not wait for its outcome")


def test_a_spooled_outcome_that_a_hello_forgets(court: Court) -> None:
    court.spool.append(TOKEN)
    story = [Event(ID, 1, "worker came back without it", worker="w", detail="loss")]
    court.insert(CLAIMED)
    court.commit(updates=[Update(Task(SPEC, LAPSED), 2)], events=story, workers=[hello_row(2)])
    assert court.accuses("rests in the spool of w")


def hello_row(incarnation: int, number: int = 1) -> WorkerRow:
    return WorkerRow("w", "w", incarnation, number, 1, b"", 1)


@pytest.mark.parametrize(
    ("incarnation", "ran", "guilty"),
    [(1, True, True), (1, False, False), (2, True, False)],
)
def test_a_lease_that_a_hello_does_not_name(
    court: Court, incarnation: int, ran: bool, guilty: bool
) -> None:
    court.insert(CLAIMED)
    if ran:
        court.run()
    story = [Event(ID, 1, "worker came back without it", worker="w", detail="loss")]
    court.commit(
        updates=[Update(Task(SPEC, LAPSED), 2)], events=story, workers=[hello_row(incarnation)]
    )
    assert court.accuses("began on w, which lost it") is guilty
    assert (TOKEN in court.records.unheard) is (incarnation == 2)


def test_who_comes_back_without_a_hello(court: Court) -> None:
    court.insert(CLAIMED).update(LAPSED, "worker came back without it")
    assert court.accuses("but said no hello")


def test_a_death_before_its_last_words_were_read(court: Court) -> None:
    court.sessions._committed["w"] = ((1, 1), 0.0)
    court.sessions._newest["w"] = ((1, 1), SimpleNamespace(unread=3))  # type: ignore[assignment]
    court.dies().insert(CLAIMED).update(UNHEARD, "worker died", owed="free")
    assert court.accuses("with 3 of its frames unread")


def test_a_started_lease_of_a_worker_that_died(court: Court) -> None:
    court.sessions.begun[TOKEN] = None
    court.dies().insert(CLAIMED).update(replace(CLAIMED, version=3, phase=Phase.STARTED))
    court.update(replace(LAPSED, version=4), "worker died")
    assert not court.records.violations


@pytest.mark.parametrize(("number", "guilty"), [(2, True), (3, False)])
def test_a_hello_that_is_not_above_the_last(court: Court, number: int, guilty: bool) -> None:
    court.commit(workers=[hello_row(1, 2)])
    court.sessions.disturbed("w", for_seconds=1.0)
    court.commit(workers=[hello_row(1, number)])
    assert court.accuses("was welcomed by hello") is guilty


def test_a_session_that_ended_for_nothing(court: Court) -> None:
    court.sessions.disturbed("w", for_seconds=1.0)
    court.now += 1000.0
    court.commit(workers=[hello_row(1, 1)]).commit(workers=[hello_row(2, 1)])
    assert not court.records.violations
    court.commit(workers=[hello_row(2, 2)])
    assert court.accuses("nothing had gone wrong")


def test_a_claim_for_who_was_given_up(court: Court) -> None:
    court.insert(CLAIMED)
    again = replace(CLAIMED, version=3, fence=2, token=Token(b"u" * 16), used=Charges(losses=1))
    court.update(again, "worker silent")
    assert court.accuses("whose session is closed")


def test_a_claim_for_whose_death_was_judged(court: Court) -> None:
    court.records.buried["w", 1] = None
    court.insert(replace(CLAIMED, incarnation=2))
    assert not court.records.violations
    court.update(replace(LAPSED, incarnation=2), "worker silent")
    court.commit(workers=[hello_row(1, 1)])
    again = replace(CLAIMED, version=4, fence=2, token=Token(b"u" * 16), used=Charges(losses=1))
    court.update(again)
    assert court.accuses("whose death was judged")


@pytest.mark.parametrize(
    ("told", "silent", "guilty"),
    [(1.0, 5.0, True), (None, 5.0, False), (0.0, 5.0, False), (1.0, 10.1, False)],
)
def test_a_spooled_outcome_that_was_not_waited_for(
    court: Court, told: float | None, silent: float, guilty: bool
) -> None:
    court.dies(spooled=(TOKEN,)).insert(CLAIMED)
    court.records.hear("w", court.now - silent)
    if told is not None:
        court.records.believed["w", 1] = court.now - told
    court.update(UNHEARD, "worker silent", owed="unheard")
    assert court.accuses("told to be spooled") is guilty


@pytest.mark.parametrize(
    ("said", "told", "owed", "guilty"),
    [
        (False, False, "unheard", False),
        (False, False, "loss", True),
        (True, False, "loss", False),
        (True, False, "unheard", False),
        (False, True, "unheard", True),
        (False, True, "loss", False),
    ],
)
def test_what_a_silence_owes(court: Court, said: bool, told: bool, owed: str, guilty: bool) -> None:
    court.insert(CLAIMED)
    if said:
        court.sessions.begun[TOKEN] = None
    if told:
        court.dies(started=(TOKEN,), spooled=(TOKEN,)).records.buried["w", 1] = None
    court.records.hear("w", court.now - 11.0)
    court.update(UNHEARD, "worker silent", owed=owed)
    assert court.accuses("for its worker's silence") is guilty


@pytest.mark.parametrize("owed", ["unheard", "loss"])
def test_a_report_that_may_be_judged_in_the_turn_of_the_silence(court: Court, owed: str) -> None:
    court.insert(CLAIMED).dies(started=(TOKEN,)).records.believed["w", 1] = court.now - 1.0
    court.records.hear("w", court.now - 11.0)
    court.update(UNHEARD, "worker silent", owed=owed)
    assert not court.accuses("for its worker's silence")


def test_what_the_silence_of_a_started_lease_owes(court: Court) -> None:
    court.sessions.begun[TOKEN] = None
    started = replace(CLAIMED, version=3, phase=Phase.STARTED)
    court.insert(CLAIMED).update(started)
    court.update(replace(UNHEARD, version=4), "worker silent", owed="unheard")
    assert court.accuses("owes a unheard for its worker's silence, and should a loss")


def test_outages_in_a_row_leave_less_and_less_of_a_lease() -> None:
    records = Records()
    dues = []
    for outages in range(6):
        records.outages["w"] = outages
        records.started_coordinator(100.0 + outages)
        dues.append(due_seconds(records, "w", 99.0, 10.0))
        assert due_seconds(records, "w", 100.0 + outages, 10.0) == 10.0
    assert dues == [10.0, 10.0, 7.0, 4.0, 1.0, 0.0]
    records.outages["w"] = 0
    records.started_coordinator(200.0)
    assert due_seconds(records, "w", 0.0, 1.0) == 3.0


def test_a_claim_before_its_time(court: Court) -> None:
    court.commit(inserts=[Task(replace(SPEC, due_ms=court.wall_ms + 1), CLAIMED)])
    assert court.accuses("before it was due")


def test_a_claim_for_a_worker_to_avoid(court: Court) -> None:
    court.insert(replace(CLAIMED, avoid="v w", avoid_until_ms=2))
    assert court.accuses("which it has to avoid")


def test_an_outcome_that_was_said_too_late(court: Court) -> None:
    court.insert(CLAIMED).run("succeeded")
    court.sessions.ended.clear()
    court.update(DONE, token=TOKEN)
    assert court.accuses("said too late, or never")


def test_a_start_and_a_return_that_nobody_told(court: Court) -> None:
    court.insert(CLAIMED).update(replace(CLAIMED, version=3, phase=Phase.STARTED))
    assert court.accuses("told to have begun too late, or never")
    back = replace(CLAIMED, version=5, phase=Phase.STARTED)
    court.update(replace(LAPSED, version=4), "worker silent").update(back)
    assert court.accuses("came back, and nobody named it")


@pytest.mark.parametrize(("silent", "guilty"), [(9.0, True), (10.1, False)])
def test_a_run_again_after_too_short_a_silence(court: Court, silent: float, guilty: bool) -> None:
    court.records.hear("w", court.now - silent)
    court.records.obstruct("w", court.now - silent)
    court.insert(CLAIMED).run().update(UNHEARD, "worker silent", owed="unheard")
    assert not court.records.violations
    used = Charges(free_returns=1, unheard=1)
    again = replace(CLAIMED, version=4, fence=2, token=Token(b"u" * 16), used=used)
    court.update(again)
    assert court.accuses("is run again") is guilty


AGAIN = replace(
    CLAIMED,
    version=4,
    fence=2,
    token=Token(b"u" * 16),
    used=Charges(free_returns=1, unheard=1),
)


@pytest.mark.parametrize("obstructed", ["w", "coordinator", "", "long ago", "another"])
def test_who_lived_with_a_free_way_is_not_silent(court: Court, obstructed: str) -> None:
    heard = court.now - 30.0
    court.records.hear("w", heard)
    if obstructed == "long ago":
        court.records.obstruct("w", heard - 16.0)
    elif obstructed:
        court.records.obstruct(obstructed, court.now - 20.0)
    court.insert(CLAIMED).run().update(UNHEARD, "worker silent", owed="unheard").update(AGAIN)
    assert court.accuses("w lived, and nothing stood in its way") is (
        obstructed not in ("w", "coordinator")
    )


def test_what_is_not_given_back_was_listened_to_by_former_coordinators(court: Court) -> None:
    records, heard = court.records, court.now - 60.0
    records.hear("w", heard)
    records.obstruct("w", court.now)
    for ago in (50.0, 40.0, 30.0, 20.0):
        records.started_coordinator(court.now - ago)
        records.outages["w"] = records.outages.get("w", 0) + 1
        records.ended_coordinator(court.now - ago + 1.0)
    records.started_coordinator(court.now - 1.5)
    # What is left of the lease has passed; but in all they have listened for 5.5 s of 10.
    assert due_seconds(records, "w", heard, 10.0) == 1.0
    assert records.in_vain["w"] == pytest.approx(4.0)
    court.insert(CLAIMED).run().update(UNHEARD, "worker silent", owed="unheard").update(AGAIN)
    assert court.accuses("w was silent for 1.500 s of 1 s, 4.000 s before")


def test_a_worker_is_missed_once_it_could_have_come(court: Court) -> None:
    court.records.hear("w", court.now - 60.0)
    court.records.started_coordinator(court.now - 2.9)
    court.commit(outages=["w"])
    assert court.accuses("w was counted as missed after 2.900 s")
    court.records.violations.clear()
    court.now += 0.2
    court.commit(outages=["w"])
    assert not court.records.violations
    court.records.hear("w", court.now)
    court.commit(outages=["w"])
    assert court.accuses("w was counted as missed, and has been heard")


def test_time_in_which_nobody_listened_is_no_silence(court: Court) -> None:
    court.records.hear("w", court.now - 12.0)
    court.records.stalls.append((court.now - 8.0, court.now - 2.0))
    court.judge.deciding()
    assert court.records.listened_seconds("w", grain_seconds=1.0) == pytest.approx(7.0)
    court.records.stalls += [(court.now - 9.0, court.now - 5.0), (court.now - 1.0, court.now)]
    assert court.records.listened_seconds("w", grain_seconds=1.0) == pytest.approx(6.0)
    court.records.started_coordinator(court.now - 3.0)
    assert court.records.listened_seconds("w", grain_seconds=1.0) == pytest.approx(3.0)


def test_a_claim_after_a_cancel_and_a_token_used_twice(court: Court) -> None:
    wanted = replace(CLAIMED, wanted=Wanted.CANCEL, wish=1)
    court.insert(wanted)
    court.update(replace(wanted, version=3, fence=2), "worker silent")
    assert court.accuses("claimed after its cancel was committed")
    assert court.accuses("a token was used before")


def test_a_claim_that_charges_nothing_for_what_ran(court: Court) -> None:
    court.dies().insert(CLAIMED).run()
    court.update(replace(LAPSED, owed=Owed.FREE), "worker died", owed="free")
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


def test_who_comes_back_in_time_is_told_to_stop(court: Court) -> None:
    court.dies(started=(TOKEN,)).insert(CLAIMED).update(LAPSED, "worker died")
    assert court.say(StopOrder(1, ID, TOKEN)).accuses("who came back in time")


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


# The row after, by itself and beside the row before.


def test_what_was_refused_is_not_judged(court: Court) -> None:
    broken = replace(CLAIMED, fence=7)
    court.commit(Receipt(refused_inserts=[ID]), inserts=[Task(SPEC, broken)])
    court.insert()
    update = Update(Task(SPEC, broken), 1, None)
    court.commit(Receipt(refused_updates=[ID]), updates=[update])
    assert court.records.rows[ID] == FRESH
    assert not court.records.violations


def test_a_row_that_was_written_over_unseen(court: Court) -> None:
    court.commit(updates=[Update(Task(SPEC, CLAIMED), 1, None)])
    court.insert().commit(updates=[Update(Task(SPEC, CLAIMED), FRESH.version + 1, None)])
    assert len(court.records.violations) == 2
    assert court.accuses("written over that was not as expected")


def test_an_id_that_is_inserted_twice_and_a_task_that_is_born_old(court: Court) -> None:
    court.insert().insert()
    assert court.accuses("inserted twice")
    court.commit(inserts=[Task(SPEC, replace(FRESH, state=State.PAUSED, wanted=Wanted.PAUSE))])
    assert court.accuses("a new task is paused")


def test_a_version_and_a_cancel_that_go_back(court: Court) -> None:
    cancelled = replace(CLAIMED, wanted=Wanted.CANCEL, wish=1)
    court.insert(cancelled).update(replace(cancelled, version=3, wanted=Wanted.RUN, wish=2))
    assert court.accuses("a cancel was taken back")
    court.update(replace(cancelled, version=3, wish=2))
    assert court.accuses("its version or its wish went back")


def test_two_outcomes_in_one_turn(court: Court) -> None:
    court.insert(CLAIMED).run("crashed")
    ended = replace(CLAIMED, version=3, state=State.QUEUED, lease=Lease.SPENT)
    court.update(ended, "crashed", "raised")
    assert court.accuses("several outcomes in one turn: crashed, raised")


def test_a_second_outcome_of_one_run(court: Court) -> None:
    court.insert(CLAIMED).run("crashed")
    used = Charges(crashes=1)
    spent = replace(CLAIMED, version=3, state=State.QUEUED, lease=Lease.SPENT, used=used)
    court.update(spent, "crashed")
    assert not court.records.violations
    court.update(replace(spent, version=4, used=Charges(crashes=2)), "crashed")
    assert court.accuses("a second outcome, crashed, under a token that was spent")


def test_a_token_that_changes_under_its_fence_or_comes_back(court: Court) -> None:
    court.insert(CLAIMED)
    court.update(replace(CLAIMED, version=3, token=Token(b"u" * 16)), "worker silent")
    assert court.accuses("its token changed under one fence")
    court.update(replace(DONE, version=4, state=State.QUEUED, token=TOKEN, result=None))
    court.update(replace(LAPSED, version=5))
    assert court.accuses("a spent token came back")


def test_a_fence_that_jumps_and_a_claim_that_is_none(court: Court) -> None:
    court.insert().update(replace(CLAIMED, fence=2, phase=Phase.STARTED))
    assert court.accuses("fence 0 became 2")
    assert court.accuses("does not leave it running and assigned")


def test_a_hello_that_tells_of_a_former_run(court: Court) -> None:
    """What it names as started was charged as free, and has to be charged anew."""
    other, third = (TaskId(bytes(15) + bytes([n])) for n in (8, 9))
    freed = replace(CLAIMED, fence=2, token=Token(b"u" * 16), freed=(TOKEN,))
    court.records.rows.update({ID: freed, other: DONE})
    held = tuple(
        HeldLease(task, token, Phase.STARTED, 0)
        for task, token in ((ID, TOKEN), (other, TOKEN), (third, TOKEN), (ID, freed.token))
    )
    court.sessions._hellos["w", (1, 1)] = hello(held)
    court.commit(workers=[hello_row(1)])
    assert len(court.records.violations) == 1
    assert court.accuses("a former run had begun; it stays free")


def hello(held: tuple[HeldLease, ...]) -> WorkerHello:
    return WorkerHello(
        *(1, "w", "w", 1, 1, "", 0, 1, 0, False, (), ()),
        *("", "", 1, "", "", False, held, ()),
    )


def test_outages_are_counted_until_a_worker_is_heard(court: Court) -> None:
    court.records.started_coordinator(court.now - 3.0)
    court.commit(outages=["w"]).commit(outages=["w"])
    assert court.records.outages == {"w": 2}
    court.commit(workers=[hello_row(1)])
    assert court.records.outages == {"w": 0}


# Outcomes against what was seen.

BACK = replace(CLAIMED, version=3, state=State.QUEUED, lease=Lease.SPENT)


@pytest.mark.parametrize(("avoid", "guilty"), [("w", False), ("v", True)])
def test_where_a_task_could_not_run_is_avoided(court: Court, avoid: str, guilty: bool) -> None:
    court.insert(CLAIMED).run("environment")
    court.update(replace(BACK, avoid=avoid, used=Charges(environment=1)), "environment")
    assert court.accuses("it does not avoid w") is guilty
    assert len(court.records.violations) == guilty


def test_a_return_of_what_did_not_run(court: Court) -> None:
    court.insert(CLAIMED)
    court.sessions.ended[TOKEN] = None
    court.update(replace(BACK, used=Charges(free_returns=1)), "returned")
    assert not court.records.violations


@pytest.mark.parametrize(
    ("do", "outcome", "guilty"),
    [
        ("big", "environment", False),
        ("poison", "environment", True),
        ("poison", "invalid", False),
        ("big", "invalid", True),
    ],
)
def test_a_run_that_went_well_and_whose_result_did_not(
    court: Court, do: str, outcome: str, guilty: bool
) -> None:
    """A large one may not reach the blob store; one that does not serialise is invalid."""
    spec = replace(SPEC, payload=arguments(Behaviour(do, 10)))
    court.run("succeeded").commit(inserts=[Task(spec, CLAIMED)])
    used = Charges(environment=1) if outcome == "environment" else Charges()
    life = replace(BACK, avoid="w", used=used)
    court.commit(
        updates=[Update(Task(spec, life), 2, None)], events=[Event(ID, 1, outcome, worker="w")]
    )
    assert court.accuses(f"outcome {outcome} of run 1, which did: ['succeeded']") is guilty
    assert len(court.records.violations) == guilty


@pytest.mark.parametrize(("fence", "guilty"), [(1, False), (2, True)])
def test_a_large_result(court: Court, fence: int, guilty: bool) -> None:
    spec = replace(SPEC, payload=arguments(Behaviour("big", 10)))
    big = blob_of(ID, fence, "big")
    court.blobs[big.digest] = b""
    court.run("succeeded").commit(inserts=[Task(spec, CLAIMED)])
    court.commit(updates=[Update(Task(spec, replace(DONE, result=big)), 2, TOKEN)])
    assert court.accuses("the result is not that of run 1") is guilty
    assert len(court.records.violations) == guilty


# Charges and shapes.


def test_a_free_return_that_was_put_right_is_remembered(court: Court) -> None:
    freed = replace(CLAIMED, freed=(Token(b"o" * 16),), used=Charges(free_returns=1, losses=5))
    court.insert(freed)
    court.update(replace(freed, version=3, freed=(), used=Charges(losses=6)))
    assert not court.records.violations, "one above the budget, by a charge that came late"


def test_a_budget_that_is_exceeded(court: Court) -> None:
    court.insert(CLAIMED).update(replace(CLAIMED, version=3, used=Charges(losses=6)))
    assert court.accuses("losses went up by 6, and should by 0")
    assert court.accuses("losses is 6, and may be 5")


@pytest.mark.parametrize(
    ("life", "text"),
    [
        (replace(FRESH, version=2, state=State.RUNNING), "running with a lease none"),
        (replace(LAPSED, state=State.CANCELLED), "and its token is not spent"),
        (replace(FRESH, version=2, wanted=Wanted.PAUSE), "queued although pause is wanted"),
        (replace(FRESH, version=2, state=State.FAILED), "failed without a reason"),
    ],
)
def test_a_row_that_cannot_be(court: Court, life: Life, text: str) -> None:
    assert court.insert().update(life).accuses(text)


def test_accusations_are_bounded(court: Court) -> None:
    for number in range(100):
        court.records.blame(str(number))
    assert len(court.records.violations) < 100
