"""What follows from a commit: the cache is brought up to date, and what is true is said."""

from __future__ import annotations

from holdfast.coordinator import tasks
from holdfast.coordinator.placing import assignment
from holdfast.coordinator.queues import paused_after
from holdfast.coordinator.sessions import ClientSession, WorkerSession
from holdfast.coordinator.state import CoordinatorState
from holdfast.coordinator.turn import Change, Turn
from holdfast.model.ids import TaskId
from holdfast.model.messages import Accepted, LeaseAnswer, Settled, WishTold
from holdfast.model.outcome import Answer
from holdfast.model.task import TERMINAL_MIN

_PAIRS_MAX = 2_000


def perform(turn: Turn, now: float, *, distrust: bool) -> bool:
    """Say what the committed turn made true. Returns whether another turn should follow at once.

    `distrust`: part of the turn was refused, so that a welcome in it may name what did not
    happen. It is not said: that worker says hello again, and is answered by what is.
    """
    state = turn.state
    if distrust:
        _unwelcome(turn)
    for change in turn.changes.values():
        state.keep(change.after)
    state.forget_cut()
    state.learn_code([*turn.code, *turn.kept_code])
    for identity in turn.outages:
        state.missed.pop(identity, None)
    for row in turn.forgotten:
        # One that said hello in this very turn is known anew with the row that follows.
        state.forget_worker(row)
    for row in turn.workers.values():
        state.welcomed(row)
    for session, answers in turn.welcomed:
        _welcome(state, session, answers, now)
        # A report on a former life, which this hello has ended, waits for nothing any more.
        state.judged(session.identity, session.incarnation - 1)
    for client, pairs in turn.accepted.items():
        _accept(client, pairs)
    for client, task_id in turn.watched:
        _watch(turn, client, task_id)
    for claimed, session, _ in turn.claimed:
        session.send(assignment(session, turn.changes[claimed].after))
    for session, task, token in turn.stopped:
        session.send(tasks.stop_order(session, task, token))
    for _, target, message in turn.effects:
        if isinstance(message, WishTold) and isinstance(target, WorkerSession):
            target.ledger.tell(message.token, message.wish)
        if isinstance(message, Settled) and isinstance(target, ClientSession):
            target.settle(message)
        else:
            target.send(message)
    for change in turn.changes.values():
        if change.after.life.state >= TERMINAL_MIN:
            _settle(turn, change)
    for session, reason in turn.dismissed.items():
        dismiss(state, session, reason, now)
    for identity, incarnation in turn.judged:
        state.judged(identity, incarnation)
    if turn.dismissed or turn.welcomed:
        state.release_unserved()
    if turn.queues:
        state.pause(paused_after(state.crew.paused, turn.queues.values()))
    state.forget_gone(now)
    return turn.more or bool(turn.welcomed or turn.queues)


def _unwelcome(turn: Turn) -> None:
    """Close the sessions that this turn would welcome, with nothing said on them.

    Their epochs are committed, so that the sessions before them are over as well.
    """
    strangers = dict.fromkeys(session for session, _ in turn.welcomed)
    turn.welcomed.clear()
    turn.effects = [effect for effect in turn.effects if effect[1] not in strangers]
    for session in strangers:
        for each in (session, turn.state.sessions.get(session.identity)):
            if each is not None:
                turn.dismiss(each, "part of its hello must be decided again")


def _welcome(
    state: CoordinatorState,
    session: WorkerSession,
    answers: tuple[LeaseAnswer, ...],
    now: float,
) -> None:
    old = state.sessions.get(session.identity)
    if old is not None:
        dismiss(state, old, "replaced by a newer session of this worker", now)
    state.sessions[session.identity] = session
    life = (session.identity, session.incarnation)
    if state.death_of(*life) is not None:
        # It died after it wrote its hello: it ends with its socket, and gets nothing before.
        session.offer.open = False
    else:
        state.reported.pop(session.identity, None)
    state.come(session.offer)
    state.lapsed.pop(session.identity, None)
    for answer in answers:
        if answer.answer is Answer.KEEP:
            task = state.tasks.get(answer.task)
            function = "" if task is None else task.spec.function
            concurrent = task is not None and task.spec.concurrent
            session.ledger.keep(answer.token, answer.task)
            session.offer.hold(answer.token, state.pace.cost_us(function), concurrent=concurrent)
            if answer.wish:
                session.ledger.tell(answer.token, answer.wish)


def dismiss(state: CoordinatorState, session: WorkerSession, reason: str, now: float) -> None:
    """Close a worker's session: no claim for that worker before its next hello."""
    if state.sessions.get(session.identity) is session:
        del state.sessions[session.identity]
        state.crew.go(session.identity)
        state.heard[session.identity] = max(session.heard, state.heard.get(session.identity, 0.0))
    session.close(reason)


def _accept(client: ClientSession, pairs: list[tuple[TaskId, TaskId]]) -> None:
    for start in range(0, len(pairs), _PAIRS_MAX):
        part = pairs[start : start + _PAIRS_MAX]
        known = tuple(pair for pair in part if pair[0] != pair[1])
        client.send(Accepted(tuple(given for given, _ in part), known))


def _watch(turn: Turn, client: ClientSession, task_id: TaskId) -> None:
    change = turn.changes.get(task_id)
    if change is not None and change.after.life.state >= TERMINAL_MIN:
        client.settle(tasks.settled(change.after))
    elif not client.closed:
        turn.state.watch(client, task_id)


def _settle(turn: Turn, change: Change) -> None:
    watching = turn.state.watchers.pop(task_id := change.after.spec.id, None)
    if watching:
        message = tasks.settled(change.after)
        for client in watching:
            client.watched.pop(task_id, None)
            client.settle(message)
