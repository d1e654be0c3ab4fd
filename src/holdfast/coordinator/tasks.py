"""What a message does to the task that it names: the lifecycle, applied to a turn's overlay.

Every function here takes the turn and what came in, and leaves its decision in the turn. None of
them waits, reads a clock, or says anything before the commit.
"""

from __future__ import annotations

from holdfast.coordinator.facts import Prune, Register
from holdfast.coordinator.sessions import ClientSession, Session, WorkerSession
from holdfast.coordinator.turn import Turn
from holdfast.core import admission, lease
from holdfast.core.lifecycle import Said, Wish
from holdfast.model.ids import TaskId, Token, id_text
from holdfast.model.limits import AVOID_SECONDS_BASE, AVOID_SECONDS_MAX
from holdfast.model.messages import (
    Answered,
    Draining,
    Ended,
    PutCode,
    Refused,
    Reply,
    Settled,
    SetWanted,
    Started,
    StopOrder,
    Submit,
    Watch,
    WishTold,
)
from holdfast.model.outcome import Answer, Failure, OutcomeKind
from holdfast.model.task import TERMINAL_MIN, Life, Spec, State, Task, Wanted

NO_ROOM_SECONDS = 2.0
NO_CODE_SECONDS = 0.5
GONE = ("pruned", "it had ended, and was removed since")
"""What is told of a task that was removed: code and text."""
_UNKNOWN = ("unknown_task", "no task has this id")
_WISHES = {Wanted.RUN: Wish.RESUME, Wanted.PAUSE: Wish.PAUSE, Wanted.CANCEL: Wish.CANCEL}
_STORIES = {Wish.RESUME: "resumed", Wish.PAUSE: "pause asked", Wish.CANCEL: "cancel asked"}


def submit(turn: Turn, session: ClientSession, message: Submit) -> None:
    """Keep new tasks; a repetition is answered like the first time."""
    accepted = turn.accepted.setdefault(session, [])
    for spec in message.specs:
        text = admission.fault(spec, now_ms=turn.now_ms)
        if text:
            turn.say(session, Refused(spec.id, "invalid_input", text))
            continue
        known = turn.get(spec.id)
        if known is None and spec.key:
            holder = turn.keys.get(spec.key)
            known = turn.get(holder) if holder is not None else None
        if known is not None:
            _repeated(turn, session, spec, known)
            continue
        if spec.id in turn.gone:
            turn.say(session, Refused(spec.id, *GONE))
            continue
        if turn.no_room:
            turn.say(session, _no_room(spec, turn.no_room))
            continue
        if spec.code and not turn.has_code(spec.code):
            turn.say(session, _no_code(spec))
            continue
        due_ms = spec.due_ms if spec.due_ms > turn.now_ms else 0
        turn.insert(Task(spec, Life(due_ms=due_ms)))
        if spec.key:
            turn.keys[spec.key] = spec.id
        accepted.append((spec.id, spec.id))
        if session.watches_own:
            turn.watched.append((session, spec.id))


def _no_room(spec: Spec, text: str) -> Refused:
    """Return what a submitter is told where there is no room now; its task was not kept."""
    return Refused(spec.id, "no_room", text, retry_after_seconds=NO_ROOM_SECONDS)


def _no_code(spec: Spec) -> Refused:
    """Return what a submitter is told who has to send the function of its task once more."""
    text = "the bytes of its function are not here: send them before the task"
    return Refused(spec.id, "no_code", text, retry_after_seconds=NO_CODE_SECONDS)


def _repeated(turn: Turn, session: ClientSession, spec: Spec, known: Task) -> None:
    turn.join(known.spec.id)
    differs = admission.difference(known.spec, spec)
    if differs:
        name = f"key {spec.key!r}" if known.spec.id != spec.id else "id"
        text = f"the {name} is known with other contents: {_differ(differs)}"
        turn.say(session, Refused(spec.id, "key_conflict", text), about=known.spec.id)
        return
    turn.accepted[session].append((spec.id, known.spec.id))
    if session.watches_own:
        watch(turn, session, known.spec.id)


def _differ(parts: tuple[str, ...]) -> str:
    """Return a sentence of parts, at least one, that differ."""
    if len(parts) == 1:
        return f"{parts[0]} differs"
    return f"{', '.join(parts[:-1])} and {parts[-1]} differ"


def watch(turn: Turn, session: ClientSession, task_id: TaskId) -> None:
    """Tell a client when a task is settled; now, where it is."""
    task = turn.get(task_id)
    if task is None:
        turn.say(session, Refused(task_id, *(GONE if task_id in turn.gone else _UNKNOWN)))
    elif task.life.state >= TERMINAL_MIN and task_id not in turn.changes:
        turn.say(session, settled(task))
    else:
        turn.join(task_id)
        turn.watched.append((session, task_id))


def watch_all(turn: Turn, session: ClientSession, message: Watch) -> None:
    """Watch several tasks."""
    for task_id in message.tasks:
        watch(turn, session, task_id)


def settled(task: Task) -> Settled:
    """Return what a watcher is told of a terminal task."""
    life = task.life
    failure = life.failure if life.state is not State.SUCCEEDED else None
    return Settled(task.spec.id, life.state, life.reason, life.result, failure)


def put_code(turn: Turn, session: ClientSession, message: PutCode) -> None:
    """Keep the bytes of a pickled function, where there is room.

    Where there is none it is dropped, and its tasks are refused until it comes again with them.
    """
    if not turn.no_room and not turn.has_code(message.digest):
        turn.code[message.digest] = message.data


def register(turn: Turn, session: ClientSession, message: Register) -> None:
    """Keep a function under an id, where its bytes are kept."""
    row = message.row
    if turn.no_room:
        reply = Reply(message.ref, None, "no_room", turn.no_room)
    elif row.code and not turn.has_code(row.code):
        reply = Reply(message.ref, None, "no_code", "the bytes of the function are not here")
    else:
        turn.functions.append(row)
        reply = Reply(message.ref, id_text(row.id))
    turn.say(session, reply)


def prune(turn: Turn, session: ClientSession, message: Prune) -> None:
    """Remove those of the tasks that have ended."""
    removed = []
    for task_id in message.tasks:
        task = turn.get(task_id)
        ended = task is not None and task.life.state >= TERMINAL_MIN
        # One that ends in this very turn is told of first.
        if ended and task_id not in turn.changes and task_id not in turn.pruned:
            turn.pruned[task_id] = None
            removed.append(task_id)
    turn.say(session, Reply(message.ref, removed))


def set_wanted(turn: Turn, session: Session, message: SetWanted) -> None:
    """Cancel, pause or resume a task."""
    task = turn.get(message.task)
    if task is None:
        told = GONE if message.task in turn.gone else _UNKNOWN
        turn.say(session, Reply(message.ref, None, *told))
        return
    if message.version and message.version != task.life.version:
        turn.join(message.task)
        text = f"the task has version {task.life.version} by now, not {message.version}"
        turn.say(session, Reply(message.ref, None, "version", text), about=message.task)
        return
    if message.waiting and task.life.state is State.RUNNING:
        turn.join(message.task)
        turn.say(session, Reply(message.ref, _answer(task, "running")), about=message.task)
        return
    wish = _WISHES[message.wanted]
    life, said = lease.wished(task.life, wish, now_ms=turn.now_ms)
    if said is Said.BEING_CANCELLED:
        turn.join(message.task)
        reply = Reply(message.ref, None, "being_cancelled", "it is being cancelled")
        turn.say(session, reply, about=message.task)
        return
    if life is task.life:
        turn.join(message.task)
    else:
        task = turn.put_back(task, life)
        turn.tell(_STORIES[wish], task)
        if life.state is State.RUNNING:
            tell_wish(turn, task)
    turn.say(session, Reply(message.ref, _answer(task, said.text)), about=message.task)


def _answer(task: Task, said: str) -> dict[str, str]:
    life = task.life
    return {"said": said, "state": life.state.text, "wanted": life.wanted.text}


def tell_wish(turn: Turn, task: Task) -> None:
    """Tell the worker that holds a task what is wanted of it."""
    life = task.life
    session = turn.session(life.worker)
    if session is not None:
        turn.say(
            session,
            WishTold(task.spec.id, life.token, life.wanted, life.wish),
            about=task.spec.id,
        )


def ended(turn: Turn, session: WorkerSession, message: Ended) -> None:
    """An attempt ended."""
    session.ledger.ended(message.token)
    session.offer.drop(message.token)
    answer = settle(turn, message)
    turn.say(session, Answered(message.task, message.token, answer), about=message.task)


def settle(turn: Turn, message: Ended) -> Answer:
    """Apply an outcome to its task; return what the worker is answered."""
    task = turn.get(message.task)
    if task is None:
        turn.count("outcomes_unknown")
        return Answer.SUPERSEDED
    if _unfit(message):
        failure = Failure(message="the result is not one: its size or its digest cannot be")
        message = Ended(message.task, message.token, OutcomeKind.INVALID, failure=failure)
    kind = message.kind
    avoid_until_ms = 0
    if kind is OutcomeKind.ENVIRONMENT:
        seconds = min(AVOID_SECONDS_BASE * 2**task.life.used.environment, AVOID_SECONDS_MAX)
        avoid_until_ms = turn.now_ms + int(seconds * 1000)
    step = lease.ended(
        task.life,
        message.token,
        kind,
        now_ms=turn.now_ms,
        result=message.result,
        failure=message.failure,
        avoid_until_ms=avoid_until_ms,
    )
    if step.counted:
        turn.count("outcomes_superseded")
    if step.life is task.life:
        turn.join(message.task)
    else:
        after = turn.put_back(task, step.life, token=message.token)
        if kind is OutcomeKind.SUCCEEDED:
            turn.state.pace.learn(task.spec.function, max(0, message.run_us))
        else:
            turn.tell(kind.text, after, detail=_detail(message.failure))
    return step.answer


def _unfit(message: Ended) -> bool:
    """Whether a result cannot be kept; it is refused here, before a whole turn is."""
    return message.result is not None and bool(admission.payload_fault(message.result))


def _detail(failure: Failure | None) -> str:
    if failure is None:
        return ""
    name = failure.types[0] if failure.types else ""
    parts = (f"{name}: {failure.message}" if name else failure.message, failure.evidence)
    return "\n".join(part for part in parts if part)


def started(turn: Turn, session: WorkerSession, message: Started) -> None:
    """An attempt was handed to a child."""
    task = turn.get(message.task)
    step = None
    if task is not None:
        step = lease.started(task.life, message.token, now_ms=turn.now_ms)
        if step.life is task.life:
            turn.join(message.task)
        else:
            after = turn.put_back(task, step.life, token=_writer(task, message))
            if task.life.state is not State.RUNNING and after.life.state is State.RUNNING:
                turn.tell("revived", after)
    if step is None or step.answer is Answer.STOP:
        turn.count("starts_superseded")
        turn.stopped.append((session, message.task, message.token))
        session.offer.drop(message.token)


def _writer(task: Task, message: Started) -> Token | None:
    """The token that the store checks: none for a charge put right under an older one."""
    return message.token if message.token == task.life.token else None


def draining(turn: Turn, session: WorkerSession, message: Draining) -> None:
    """A worker takes no more."""
    session.offer.open = False


def stop_order(session: WorkerSession, task: TaskId, token: Token) -> StopOrder:
    """Return the numbered order to stop, counted in the session's ledger."""
    return StopOrder(session.ledger.stop(token), task, token)
