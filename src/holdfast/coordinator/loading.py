"""What a turn reads before it decides: in one batch, only what the cache lacks."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from holdfast.coordinator.facts import Ahead, Closed, Death, Hello, Prune, Register
from holdfast.coordinator.reconcile import lapsed_before
from holdfast.coordinator.sessions import Session, WorkerSession
from holdfast.coordinator.state import UNSERVED_MIN, CoordinatorState
from holdfast.coordinator.turn import Item, Turn
from holdfast.core.siding import Track
from holdfast.model.ids import TaskId
from holdfast.model.limits import WINDOW_LOW_TASKS, WINDOW_TASKS_MAX
from holdfast.model.messages import Ended, PutCode, SetWanted, Started, Submit, Watch
from holdfast.model.task import State
from holdfast.ports import Store

_DUE_MAX = 1_000
_PAGE = WINDOW_TASKS_MAX // 2
_TRACK_TASKS = 64
"""Rows that one turn reads of each track that is open to a worker with room."""
_READS_MAX = 256
"""Lines that one turn reads on, so that a turn has a bound; the next one reads the others."""


async def load(turn: Turn, items: Iterable[Item], store: Store) -> None:
    """Read the tasks that the messages name, the next pages of short lines, and what fell due.

    A task that is brought back in line is in its window before pages are read behind it.
    """
    wanted, keys, code = _named(turn, items)
    if keys:
        for task in await store.load_keys(list(keys)):
            turn.loaded[task.spec.id] = task
            turn.keys[task.spec.key] = task.spec.id
    missing = [TaskId(task_id) for task_id in wanted if task_id not in turn.loaded]
    if missing:
        for task in await store.load(missing):
            turn.loaded[task.spec.id] = task
        absent = [task_id for task_id in missing if task_id not in turn.loaded]
        if absent:
            turn.gone = dict.fromkeys(await store.pruned(absent))
    if code:
        turn.kept_code = dict.fromkeys(await store.kept_code(list(code)))
    await _bring_back(turn, store)
    await _fill_lines(turn, store)
    await _read_siding(turn, store)
    state = turn.state
    if state.next_due_ms and state.next_due_ms <= turn.now_ms:
        turn.due = await store.due(turn.now_ms, limit=_DUE_MAX)
        state.next_due_ms = await store.next_due_ms()


def _named(
    turn: Turn, items: Iterable[Item]
) -> tuple[dict[bytes, None], dict[str, None], dict[bytes, None]]:
    """Return the tasks, keys and functions that the store is to be asked for."""
    cached, known_code = turn.state.tasks, turn.state.code
    wanted: dict[bytes, None] = {}
    keys: dict[str, None] = {}
    code: dict[bytes, None] = {}
    came: dict[bytes, None] = {}
    for session, message in items:
        if isinstance(message, Ended | Started | SetWanted):
            if message.task not in cached:
                wanted[message.task] = None
        elif isinstance(message, Submit):
            for spec in message.specs:
                if spec.key:
                    keys[spec.key] = None
                if spec.code and spec.code not in known_code and spec.code not in came:
                    code[spec.code] = None
                if message.again and spec.id not in cached:
                    wanted[spec.id] = None
        elif isinstance(message, PutCode):
            came[message.digest] = None
        elif isinstance(message, Register):
            digest = message.row.code
            if digest and digest not in known_code and digest not in came:
                code[digest] = None
        elif isinstance(message, Watch | Prune):
            wanted.update((task, None) for task in message.tasks if task not in cached)
        elif isinstance(message, Ahead):
            named = [outcome.task for outcome in message.outcomes]
            wanted.update((task, None) for task in named if task not in cached)
        elif isinstance(message, Hello):
            named = [*(held.task for held in message.hello.held)]
            named += [outcome.task for outcome in message.outcomes]
            wanted.update((task, None) for task in named if task not in cached)
        elif report := _report(turn, session, message):
            before = lapsed_before(turn.state, report)
            wanted.update((task, None) for _, task in before if task not in cached)
    return wanted, keys, code


def _report(turn: Turn, session: Session | None, message: object) -> Death | None:
    """Return the death that an item tells of, or whose socket it tells the end of."""
    if isinstance(message, Death):
        return message
    if isinstance(message, Closed) and isinstance(session, WorkerSession):
        return turn.state.reported.get(session.identity)
    return None


async def _fill_lines(turn: Turn, store: Store) -> None:
    state = turn.state
    reads = 0
    for line in state.lines.touched():
        if line.short(WINDOW_LOW_TASKS):
            if reads >= _READS_MAX:
                turn.unread = True
                break
            reads += 1
            page = await store.ready(line.needs, after=line.tail, limit=_PAGE)
            state.fill(line, page.tasks, more=page.more)
        state.lines.looked_at(line)
    if len(state.lines.unserved) >= state.unserved_max:
        state.lines.unserved = {
            needs: None for needs in await store.classes() if needs not in state.lines.lines
        }
        state.unserved_max = UNSERVED_MIN + 2 * len(state.lines.unserved)


async def _bring_back(turn: Turn, store: Store) -> None:
    """Stand the tasks in their lines again that no worker has to avoid any more."""
    siding = turn.state.siding
    due = siding.due(turn.now_ms, limit=_DUE_MAX)
    if not due:
        return
    rows = await store.load([TaskId(task_id) for task_id in due])
    for task_id in due:
        siding.take(task_id)
    for task in rows:
        turn.state.back_in_line(task)
    turn.unread |= len(due) == _DUE_MAX


async def _read_siding(turn: Turn, store: Store) -> None:
    """Read the first tasks beside the lines that some worker with room may have before others."""
    state = turn.state
    wanted = [
        task_id
        for track in state.siding.tracks()
        if _comes_first(state, track)
        if any(track.is_open_to(offer) for offer in state.crew.serving(track.needs))
        for _, task_id in track.first(_TRACK_TASKS)
        if task_id not in state.tasks and task_id not in turn.loaded
    ]
    if not wanted:
        return
    for task in await store.load([TaskId(task_id) for task_id in wanted]):
        turn.loaded[task.spec.id] = task
    for task_id in wanted:
        if task_id not in turn.loaded:
            state.siding.take(task_id)


def _comes_first(state: CoordinatorState, track: Track) -> bool:
    """Whether what stands first on a track comes before its line."""
    line = state.lines.lines.get(track.needs)
    ahead, first = line.head() if line is not None else None, track.head()
    return ahead is None or (first is not None and first < ahead)


def make_due_claimable(turn: Turn) -> None:
    """Stand the delayed tasks that fell due in their lines."""
    for row in turn.due:
        task = turn.get(row.spec.id) or row
        life = task.life
        if life.state is State.QUEUED and 0 < life.due_ms <= turn.now_ms:
            turn.put_back(task, replace(life, version=life.version + 1, due_ms=0))
