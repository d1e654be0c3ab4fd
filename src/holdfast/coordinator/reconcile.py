"""Both ways after every reconnect: what the worker holds, and what the store gave it.

A hello and all that follows from it are one transaction: the new epoch, the outcomes of outbox and
spool, the leases that the worker names, and those it does not. Silence and death put leases back
by the same tables.
"""

from __future__ import annotations

import msgspec

from holdfast.coordinator import tasks
from holdfast.coordinator.facts import Ahead, Death, Hello
from holdfast.coordinator.sessions import WorkerSession
from holdfast.coordinator.state import CoordinatorState
from holdfast.coordinator.turn import Turn
from holdfast.core import lease
from holdfast.core.lifecycle import Judgement
from holdfast.core.session import Admission, admit
from holdfast.model.ids import Token
from holdfast.model.messages import (
    PROTOCOL,
    Answered,
    DrainOrder,
    Ended,
    Goodbye,
    HeldLease,
    LeaseAnswer,
    WorkerHello,
    WorkerWelcome,
)
from holdfast.model.outcome import Answer
from holdfast.model.task import Phase, State, Task
from holdfast.ports import WorkerRow

_LAST_WORD_BYTES = 16
_ANSWERS_MAX = 1_000
"""Outcomes that are answered in the welcome itself."""


class Facts(msgspec.Struct, frozen=True):
    """What a worker row keeps of the last hello, beside the pair that only grows."""

    slots: int
    concurrent_slots: int
    pull: bool
    queues: tuple[str, ...]
    tags: tuple[str, ...]
    host: str
    boot: str
    pid: int
    python: str
    version: str
    last_word: str
    """One for a whole life: its guard may not have heard any of the later welcomes."""


def hello(
    turn: Turn, session: WorkerSession, whole: Hello, *, lease_seconds: float, beat_seconds: float
) -> None:
    """Let a worker in, or close the socket; answer each lease that it names."""
    said, state = whole.hello, turn.state
    row = turn.workers.get(said.identity)
    same = state.known(said.identity)
    verdict = admit(said, same=same, namesake=state.namesake(said.name))
    if any(r.name == said.name and r.identity != said.identity for r in turn.workers.values()):
        verdict = Admission.NAME_TAKEN
    late_in_turn = row is not None and (said.incarnation, said.number) <= (
        row.incarnation,
        row.number,
    )
    if verdict is not Admission.WELCOME or late_in_turn:
        newest = max((w.incarnation for w in (same, row) if w is not None), default=0)
        _refuse(turn, session, Admission.LATE if late_in_turn else verdict, newest=newest)
        return
    # It was heard before, but silence counts from here: in between we may not have listened.
    session.heard = turn.now
    session.epoch = max(same.epoch if same else 0, row.epoch if row else 0) + 1
    session.last_word = _last_word(turn, said)
    answers = [_outcome_answer(turn, said, outcome) for outcome in whole.outcomes]
    settled: dict[bytes, None] = {outcome.token: None for outcome in whole.outcomes}
    answers += [_lease_answer(turn, said, held) for held in said.held if held.token not in settled]
    _lapse_unnamed(turn, said, settled)
    turn.welcome(session, _row(turn, session), answers)
    welcomed, rest = _pages(said, answers)
    turn.say(
        session,
        WorkerWelcome(
            PROTOCOL,
            state.facts.store,
            state.facts.timeline,
            session.epoch,
            lease_seconds,
            beat_seconds,
            session.last_word,
            welcomed,
        ),
    )
    if state.drained.get(said.identity) == said.incarnation and not said.draining:
        session.offer.open = False
        turn.say(session, DrainOrder())
    for answer in rest:
        turn.say(session, Answered(answer.task, answer.token, answer.answer))


def ahead(turn: Turn, part: Ahead) -> None:
    """Write outcomes of a hello that was refused whole, unless a newer hello came meanwhile."""
    same = turn.state.known(part.hello.identity)
    if admit(part.hello, same=same, namesake=None) is Admission.WELCOME:
        for outcome in part.outcomes:
            tasks.settle(turn, outcome)


def _pages(
    said: WorkerHello, answers: list[LeaseAnswer]
) -> tuple[tuple[LeaseAnswer, ...], list[LeaseAnswer]]:
    """Return what the welcome says, and what follows it: a long spool's answers fit no frame.

    The welcome answers every lease that the hello names as held.
    """
    held = {lease.token for lease in said.held}
    others = [answer for answer in answers if answer.token not in held]
    late = others[_ANSWERS_MAX:]
    later = {answer.token for answer in late}
    return tuple(answer for answer in answers if answer.token not in later), late


def _refuse(turn: Turn, session: WorkerSession, verdict: Admission, *, newest: int) -> None:
    """Close the socket of a hello; `newest` is the last life of this worker that was let in."""
    turn.state.refused(session.hello)
    mine = session.incarnation
    if verdict is Admission.NAME_TAKEN:
        text = f"a worker of another identity has the name {session.name!r}: give --name another"
        goodbye = Goodbye("name_taken", text)
    elif mine < newest:
        # None of its hellos will ever be above that; within one life the next one is.
        text = (
            f"life {newest} of this worker was let in, and this is life {mine}: its home was "
            "restored from a backup, or a copy of it is in use; give this worker another --home, "
            "or remove the file 'identity' in its own"
        )
        goodbye = Goodbye("outlived", text)
    else:
        goodbye = Goodbye("late_hello", "a newer hello of this worker was answered")
    turn.count(f"hellos_{goodbye.code}")
    turn.say(session, goodbye)
    turn.dismiss(session, goodbye.text)


def _last_word(turn: Turn, said: WorkerHello) -> str:
    """Return the word by which the guard of this life will prove itself."""
    row = turn.workers.get(said.identity) or turn.state.workers.get(said.identity)
    if row is not None and row.incarnation == said.incarnation:
        return msgspec.msgpack.decode(row.facts, type=Facts).last_word
    return turn.rng.randbytes(_LAST_WORD_BYTES).hex()


def _row(turn: Turn, session: WorkerSession) -> WorkerRow:
    said = session.hello
    facts = Facts(
        slots=said.slots,
        concurrent_slots=said.concurrent_slots,
        pull=said.pull,
        queues=said.queues,
        tags=said.tags,
        host=said.host,
        boot=said.boot,
        pid=said.pid,
        python=said.python,
        version=said.version,
        last_word=session.last_word,
    )
    return WorkerRow(
        identity=said.identity,
        name=said.name,
        incarnation=said.incarnation,
        number=said.number,
        epoch=session.epoch,
        facts=msgspec.msgpack.encode(facts),
        said_ms=turn.now_ms,
    )


def _outcome_answer(turn: Turn, said: WorkerHello, outcome: Ended) -> LeaseAnswer:
    task = turn.get(outcome.task)
    if task is None and _elsewhere(turn, said):
        return LeaseAnswer(outcome.task, outcome.token, Answer.UNKNOWN)
    return LeaseAnswer(outcome.task, outcome.token, tasks.settle(turn, outcome))


def _elsewhere(turn: Turn, said: WorkerHello) -> bool:
    facts = turn.state.facts
    return bool(said.store) and (said.store, said.timeline) != (facts.store, facts.timeline)


def _lease_answer(turn: Turn, said: WorkerHello, held: HeldLease) -> LeaseAnswer:
    task = turn.get(held.task)
    if task is None:
        elsewhere = held.stranger or _elsewhere(turn, said)
        answer = Answer.UNKNOWN if elsewhere else Answer.STOP
        return LeaseAnswer(held.task, held.token, answer)
    apply = lease.started if held.phase is Phase.STARTED else lease.named_assigned
    step = apply(task.life, held.token, now_ms=turn.now_ms)
    if step.life is not task.life:
        token = held.token if held.token == task.life.token else None
        after = turn.put_back(task, step.life, token=token)
        if task.life.state is not State.RUNNING and after.life.state is State.RUNNING:
            turn.tell("revived", after)
        task = after
    return LeaseAnswer(held.task, held.token, step.answer, task.life.wanted, task.life.wish)


def _lapse_unnamed(turn: Turn, said: WorkerHello, settled: dict[bytes, None]) -> None:
    """Put back what the worker does not know of.

    The guard of its former life may have reported while that one's socket was still open: what it
    names had begun, whatever we were told.
    """
    named = settled | {held.token: None for held in said.held}
    report = turn.state.reported.get(said.identity)
    begun = report.started if report is not None and report.incarnation < said.incarnation else ()
    for task in turn.held_by(said.identity):
        token = task.life.token
        if token not in named:
            judgement = Judgement.DEATH_STARTED if token in begun else Judgement.UNNAMED
            _judge(turn, task, token, judgement)


def silence(turn: Turn, identity: str) -> None:
    """Put back what a worker holds that was not heard for longer than its lease."""
    _close(turn, identity, "silent for longer than its lease")
    for task in turn.held_by(identity):
        _judge(turn, task, task.life.token, Judgement.SILENCE)


def death(turn: Turn, fact: Death) -> None:
    """Put back what a dead incarnation held; its guard's names make the charge exact."""
    if fact.certain:
        turn.judged.append((fact.identity, fact.incarnation))
    row = turn.workers.get(fact.identity) or turn.state.workers.get(fact.identity)
    if row is None or row.incarnation != fact.incarnation:
        turn.count("deaths_late")
        return
    if not fact.certain and turn.state.guard_told_of(fact.identity, fact.incarnation):
        # More exactly, be it that its word was not judged yet: what it spooled waits.
        return
    if fact.certain:
        turn.state.buried[fact.identity] = fact
    _close(turn, fact.identity, "dead")
    started, spooled = dict.fromkeys(fact.started), dict.fromkeys(fact.spooled)
    for task in turn.held_by(fact.identity):
        token = task.life.token
        if not fact.certain:
            _judge(turn, task, token, Judgement.SILENCE)
        elif token in spooled:
            _wait(turn, task, token, begun=token in started)
        else:
            named = token in started
            _judge(turn, task, token, Judgement.DEATH_STARTED if named else Judgement.DEATH)
    for lapsed, task_id in lapsed_before(turn.state, fact):
        former = turn.get(task_id)
        if former is not None:
            _judge(turn, former, lapsed, Judgement.DEATH_STARTED)


def _wait(turn: Turn, task: Task, token: Token, *, begun: bool) -> None:
    """Leave a lease to the next life of its worker, which brings the outcome.

    What had begun counts as started from now on, also where nobody had said so yet.
    """
    if begun:
        step = lease.started(task.life, token, now_ms=turn.now_ms)
        if step.life is not task.life:
            task = turn.put(task, step.life)
    _judge(turn, task, token, Judgement.DEATH_SPOOLED)


def lapsed_before(state: CoordinatorState, fact: Death) -> list[tuple[bytes, bytes]]:
    """Return token and task of the leases that a report names as started and that lapsed before it.

    Silence may have judged them as not started; what ran is charged as such.
    """
    lapsed = state.lapsed.get(fact.identity, {})
    return [(token, lapsed[token]) for token in fact.started if token in lapsed]


def _close(turn: Turn, identity: str, reason: str) -> None:
    session = turn.session(identity)
    if session is not None:
        turn.dismiss(session, reason)


_STORIES = {
    Judgement.SILENCE: "worker silent",
    Judgement.DEATH: "worker died",
    Judgement.DEATH_STARTED: "worker died",
    Judgement.UNNAMED: "worker came back without it",
}


def _judge(turn: Turn, task: Task, token: bytes, judgement: Judgement) -> None:
    step = lease.judged(task.life, token, judgement, now_ms=turn.now_ms)
    if step.life is not task.life:
        after = turn.put_back(task, step.life)
        if token == task.life.token:
            turn.tell(_STORIES.get(judgement, judgement.text), after, detail=after.life.owed.text)
        else:
            turn.tell("former run charged", after, detail="its guard told late that it had begun")
