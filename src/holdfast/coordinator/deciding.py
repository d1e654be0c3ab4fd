"""Who may say what: each item of the inbox, in order, to the decision that it asks for.

A message of a worker's session counts only while that session is the one of the worker's newest
hello; what comes later on an older socket changes nothing and is counted.
"""

from __future__ import annotations

import msgspec

from holdfast.coordinator import queues, reconcile, tasks
from holdfast.coordinator.facts import Ahead, Closed, Death, Hello, Prune, Register, Tick
from holdfast.coordinator.forgetting import forget_workers
from holdfast.coordinator.sessions import ClientSession, WorkerSession
from holdfast.coordinator.turn import Item, Turn
from holdfast.model.limits import OUTAGE_SECONDS_MIN
from holdfast.model.messages import (
    Draining,
    Ended,
    Pull,
    PutCode,
    SetQueue,
    SetWanted,
    Started,
    Submit,
    View,
    Watch,
    WishTold,
)


class Terms(msgspec.Struct, frozen=True):
    """What every worker is told in its welcome, in seconds."""

    lease_seconds: float
    beat_seconds: float


def decide(turn: Turn, item: Item, terms: Terms) -> None:
    """Decide one item of the inbox on the turn's overlay."""
    session, message = item
    if isinstance(session, WorkerSession):
        _from_worker(turn, session, message, terms)
    elif isinstance(session, ClientSession):
        _from_client(turn, session, message)
    elif isinstance(message, Death):
        _death(turn, message)
    elif isinstance(message, Tick):
        _tick(turn, message, terms)


def _from_client(turn: Turn, session: ClientSession, message: object) -> None:
    if isinstance(message, Submit):
        tasks.submit(turn, session, message)
    elif isinstance(message, Watch):
        tasks.watch_all(turn, session, message)
    elif isinstance(message, SetWanted):
        tasks.set_wanted(turn, session, message)
    elif isinstance(message, PutCode):
        tasks.put_code(turn, session, message)
    elif isinstance(message, Register):
        tasks.register(turn, session, message)
    elif isinstance(message, Prune):
        tasks.prune(turn, session, message)
    elif isinstance(message, SetQueue):
        queues.set_queue(turn, session, message)
    elif isinstance(message, Closed):
        turn.state.unwatch(session)


def _from_worker(turn: Turn, session: WorkerSession, message: object, terms: Terms) -> None:
    if isinstance(message, Hello):
        reconcile.hello(
            turn,
            session,
            message,
            lease_seconds=terms.lease_seconds,
            beat_seconds=terms.beat_seconds,
        )
    elif isinstance(message, Ahead):
        reconcile.ahead(turn, message)
    elif isinstance(message, Closed):
        _closed(turn, session)
    elif not turn.is_current(session):
        turn.count("messages_of_older_sessions")
    elif isinstance(message, Ended):
        tasks.ended(turn, session, message)
    elif isinstance(message, Started):
        tasks.started(turn, session, message)
    elif isinstance(message, View):
        _view(turn, session, message)
    elif isinstance(message, Pull):
        asked = (message.asked, message.concurrent)
        session.offer.asked = [*map(max, session.offer.asked, asked)]
    elif isinstance(message, Draining):
        tasks.draining(turn, session, message)


def _closed(turn: Turn, session: WorkerSession) -> None:
    """The socket was read to its end; a death that was told of can be judged now."""
    turn.dismiss(session, "its socket closed")
    replaced = turn.session(session.identity) is not None
    # The report stays until the next life: this turn may have to be decided once more, and a hello
    # that was written before the death may be read after it.
    report = turn.state.death_of(session.identity, session.incarnation)
    if not replaced and report is not None:
        reconcile.death(turn, report)


def _view(turn: Turn, session: WorkerSession, view: View) -> None:
    """Compare what the worker holds with what we gave; a difference asks for a hello.

    What it holds of another store takes slots that we must not count on.
    """
    session.view = view
    session.offer.strangers(view.strangers, view.concurrent_strangers)
    if view.epoch != session.epoch or not session.ledger.agrees(view):
        turn.count("views_differ")
        turn.dismiss(session, "it holds other leases than we gave")


def _death(turn: Turn, death: Death) -> None:
    """Judge a death once all that the dead one said was read.

    Until then its guard's word stands: the kernel knows no more than that it is dead.
    """
    session = turn.session(death.identity)
    if session is None or session.incarnation != death.incarnation:
        reconcile.death(turn, death)
    elif death.certain or turn.state.death_of(death.identity, death.incarnation) is None:
        turn.state.reported[death.identity] = death


def _tick(turn: Turn, tick: Tick, terms: Terms) -> None:
    """Judge silence by the time in which we listened; tell unseen wishes again."""
    state = turn.state
    deaf = turn.now - state.swept - tick.seconds
    if deaf > tick.seconds / 2:
        turn.count("deaf_spells")
        for identity, heard in state.heard.items():
            # Who was heard meanwhile, by a hello that this turn has read, is owed nothing more.
            state.heard[identity] = max(heard, min(heard + deaf, turn.now))
        for session in state.sessions.values():
            session.heard = min(session.heard + deaf, turn.now)
        state.listening_since = min(state.listening_since + deaf, turn.now)
    state.swept = turn.now
    if turn.now - state.listening_since >= OUTAGE_SECONDS_MIN:
        turn.outages = [identity for identity in state.missed if not _is_here(turn, identity)]
    for identity in dict.fromkeys([*state.held, *state.sessions]):
        heard = state.heard.get(identity, 0.0)
        # The one that this turn welcomes, and the one that it may have closed, both were heard.
        for known in (turn.session(identity), state.sessions.get(identity)):
            if known is not None:
                heard = max(heard, known.heard)
        if turn.now - heard > terms.lease_seconds:
            reconcile.silence(turn, identity)
    for present in state.sessions.values():
        _tell_again(turn, present)
    forget_workers(turn)


def _is_here(turn: Turn, identity: str) -> bool:
    """Whether a worker said hello, be it that its turn is still to come."""
    return turn.session(identity) is not None or identity in turn.state.greetings


def _tell_again(turn: Turn, session: WorkerSession) -> None:
    if session.view is None or not session.ledger.wishes:
        return
    for token in session.ledger.unheard_wishes(session.view):
        task = turn.get(session.ledger.tokens[token])
        if task is not None and task.life.token == token:
            wish = WishTold(task.spec.id, token, task.life.wanted, task.life.wish)
            turn.say(session, wish, about=None)
