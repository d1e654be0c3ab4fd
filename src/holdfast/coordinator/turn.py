"""One turn on paper: what was decided, on an overlay over the cache, and what is to be said.

No task, lease or worker row changes before the commit of `changes_to_commit`; what a turn wants
said is said by the service afterwards, and only for what was accepted. Three things are changed
ahead, and put back by `undo` or `without`: the windows of waiting tasks, the siding beside them,
and in offers the leases of claims.

What else deciding writes stays, whether the turn commits or its items are decided once more. None
of it is a promise, and written twice it is as good as once:

- what was seen, which no commit makes true or false: when somebody was heard and when silence was
  judged (`heard`, `swept`), deaths that a guard reported (`reported`, `buried`), what a worker
  shows, asks for, lets go or will not take (`view`, `offer`, `ledger`), that a client has gone;
- `epoch` and `last_word` of a session before its welcome: a hello that is decided again writes
  both anew, and nobody is told of them before the commit;
- hints, which are only ever estimates: `pace`, `urgency`, and what was recalled when (`recalled`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.coordinator.facts import Hello
from holdfast.coordinator.sessions import ClientSession, Session, WorkerSession
from holdfast.coordinator.state import CoordinatorState
from holdfast.core.dispatch import Line, weight
from holdfast.core.siding import Parked, Track
from holdfast.model.ids import Entropy, TaskId, Token
from holdfast.model.limits import ERROR_TEXT_BYTES_MAX
from holdfast.model.messages import LeaseAnswer, Message, Submit
from holdfast.model.task import Life, State, Task, needs_of, rank_of
from holdfast.ports import (
    Attempt,
    Changes,
    CodeRow,
    Event,
    QueueRow,
    Receipt,
    Registered,
    Update,
    WorkerRow,
)

Item = tuple[Session | None, object]
"""What came in: a message or a judgement, and the session it came from."""


PLACING: Item = (None, None)
"""Where a change comes from the waiting lines, and not from a message."""


class Change:
    """What a turn makes of one task: the row it was, the row it becomes, and because of what."""

    __slots__ = ("after", "before", "items", "token")

    def __init__(self, before: Task | None, after: Task, token: Token | None, item: Item) -> None:
        self.before = before
        self.after = after
        self.token = token
        self.items = [item]


class Turn:
    """The decisions of one turn. `now` is monotonic seconds, `now_ms` wall milliseconds.

    `no_room` is what submitters are told where there is none for them, else "".
    """

    def __init__(
        self,
        state: CoordinatorState,
        *,
        number: int,
        now: float,
        now_ms: int,
        rng: Entropy,
        no_room: str = "",
    ) -> None:
        self.state = state
        self.number = number
        self.now = now
        self.now_ms = now_ms
        self.rng = rng
        self.no_room = no_room
        self.loaded: dict[bytes, Task] = {}
        self.keys: dict[str, TaskId] = {}
        self.changes: dict[bytes, Change] = {}
        self.events: list[Event] = []
        self.attempts: list[Attempt] = []
        self.workers: dict[str, WorkerRow] = {}
        self.outages: list[str] = []
        """Workers that did not come although we have listened long enough since we began."""
        self.forgotten: list[WorkerRow] = []
        """Workers that were seen last so long ago that their rows are removed."""
        self.queues: dict[str, QueueRow] = {}
        self.pruned: dict[TaskId, None] = {}
        self.gone: dict[bytes, None] = {}
        """Tasks that are asked for and were removed before."""
        self.functions: list[Registered] = []
        self.code: dict[bytes, bytes] = {}
        """Bytes of functions to keep, by digest."""
        self.kept_code: dict[bytes, None] = {}
        """Functions of which the store said that it has them."""
        self.effects: list[tuple[bytes | None, Session, Message]] = []
        self.claimed: list[tuple[TaskId, WorkerSession, Token]] = []
        self.stopped: list[tuple[WorkerSession, TaskId, Token]] = []
        self.accepted: dict[ClientSession, list[tuple[TaskId, TaskId]]] = {}
        self.watched: list[tuple[ClientSession, TaskId]] = []
        self.welcomed: list[tuple[WorkerSession, tuple[LeaseAnswer, ...]]] = []
        self.newest: dict[str, WorkerSession] = {}
        """Worker identity → the session that this turn welcomed last."""
        self.dismissed: dict[WorkerSession, str] = {}
        self.judged: list[tuple[str, int]] = []
        """Workers, and the life of each, of which a guard's report was judged."""
        self.counts: dict[str, int] = {}
        self.due: list[Task] = []
        self.more = False
        self.unread = False
        """Whether lines, or tasks beside them, are left that this turn did not come to read."""
        self.shunts = 0
        """Tasks that were moved out of their lines."""
        self.look_again_seconds = 0.0
        """When another turn should look for work to recall; 0 for no such need."""
        self.item: Item = PLACING
        self._pushed: list[tuple[Line, bytes]] = []
        self._popped: list[tuple[Line, int, bytes]] = []
        self._sided: list[tuple[bytes, Parked | None]] = []
        """Tasks that came to the siding or left it, and what was noted of them before."""

    # What is known.

    def get(self, task_id: bytes) -> Task | None:
        """Return a task as this turn sees it, None where neither cache nor load knows it."""
        change = self.changes.get(task_id)
        if change is not None:
            return change.after
        task = self.state.tasks.get(task_id)
        return task if task is not None else self.loaded.get(task_id)

    def has_code(self, digest: bytes) -> bool:
        """Whether a function is in the store, or comes there with this turn."""
        return digest in self.state.code or digest in self.code or digest in self.kept_code

    def held_by(self, identity: str) -> list[Task]:
        """Return the running tasks whose lease this worker holds, as this turn sees them."""
        ids = dict(self.state.held.get(identity, ()))
        for task_id in self.changes:
            ids[task_id] = None
        tasks = (self.get(task_id) for task_id in ids)
        return [
            task
            for task in tasks
            if task is not None
            and task.life.state is State.RUNNING
            and task.life.worker == identity
        ]

    def is_current(self, session: WorkerSession) -> bool:
        """Whether a worker's session is the one of its newest hello, also within this turn.

        One that this turn closes is not: no claim for that worker before its next hello.
        """
        if session in self.dismissed:
            return False
        identity = session.identity
        return (self.newest.get(identity) or self.state.sessions.get(identity)) is session

    def session(self, identity: str) -> WorkerSession | None:
        """Return a worker's session as this turn sees it: that of its newest hello."""
        newest = self.newest.get(identity)
        if newest is not None:
            return None if newest in self.dismissed else newest
        known = self.state.sessions.get(identity)
        return known if known is not None and self.is_current(known) else None

    # What is decided.

    def join(self, task_id: bytes) -> None:
        """Let this item share the fate of a task's change: refused, both are decided again."""
        change = self.changes.get(task_id)
        if change is not None:
            change.items.append(self.item)

    def insert(self, task: Task) -> None:
        """Keep a new task; a claimable one stands in line at once."""
        self.changes[task.spec.id] = Change(None, task, None, self.item)
        if not task.life.due_ms:
            self.push(task)

    def put(self, task: Task, life: Life, *, token: Token | None = None) -> Task:
        """Write a new life over a task; `token` is the writer's, where a worker writes."""
        task_id = task.spec.id
        after = Task(task.spec, life)
        change = self.changes.get(task_id)
        if change is None:
            self.changes[task_id] = Change(task, after, token, self.item)
        else:
            change.after = after
            change.items.append(self.item)
            if change.before is not None and change.token is None:
                change.token = token
        return after

    def put_back(self, task: Task, life: Life, *, token: Token | None = None) -> Task:
        """Write a life that may have become claimable, or may have left its line."""
        after = self.put(task, life, token=token)
        if life.state is State.QUEUED and not life.due_ms:
            self.push(after)
        elif task.life.state is State.QUEUED:
            line = self.state.lines.lines.get(needs_of(task.spec))
            if line is not None and task.spec.id in line.held:
                line.remove(task.spec.id)
                self._popped.append((line, rank_of(task.spec), task.spec.id))
        return after

    def push(self, task: Task) -> None:
        """Stand a claimable task in its line, where a present worker serves its class."""
        task_id, needs = task.spec.id, needs_of(task.spec)
        if not self.state.crew.served(needs):
            self.state.lines.forget(needs)
            return
        line = self.state.lines.new(needs)
        if task_id not in line.held and line.push(rank_of(task.spec), task_id, weight(task.spec)):
            self._pushed.append((line, task_id))

    def pop(self, source: Line | Track) -> None:
        """Take away what stands first in a line, or beside one."""
        if isinstance(source, Line):
            rank, task_id = source.pop()
            self._popped.append((source, rank, task_id))
        elif first := source.head():
            self._sided.append((first[1], self.state.siding.take(first[1])))

    def shunt(self, source: Line | Track, task: Task, avoids: str) -> Track:
        """Move what stands first to the track of those that it avoids; return that track."""
        spec, life = task.spec, task.life
        self.pop(source)
        if isinstance(source, Line):
            self.state.lines.stock.cut.append(spec.id)
        parked = Parked(rank_of(spec), spec.id, needs_of(spec), avoids, life.avoid_until_ms)
        track, former = self.state.siding.park(parked)
        self._sided.append((spec.id, former))
        return track

    def tell(self, kind: str, task: Task, *, detail: str = "") -> None:
        """Add a line to a task's story."""
        life = task.life
        self.events.append(
            Event(
                task=task.spec.id,
                at_ms=self.now_ms,
                kind=kind,
                fence=life.fence,
                worker=life.worker,
                detail=detail and _bounded(detail),
            )
        )

    def say(self, session: Session, message: Message, *, about: bytes | None = None) -> None:
        """Say something after the commit, unless the change of task `about` is refused."""
        self.effects.append((about, session, message))

    def welcome(
        self, session: WorkerSession, row: WorkerRow, answers: Sequence[LeaseAnswer]
    ) -> None:
        """Let a worker's session be the one that counts, from here on."""
        self.workers[row.identity] = row
        self.newest[row.identity] = session
        self.welcomed.append((session, tuple(answers)))

    def dismiss(self, session: WorkerSession, reason: str) -> None:
        """Close a worker's session with this turn; its later messages change nothing."""
        self.dismissed.setdefault(session, reason)

    def count(self, name: str) -> None:
        """Count an event of this turn; it counts when the turn is committed."""
        self.counts[name] = self.counts.get(name, 0) + 1

    # What becomes of it.

    def changes_to_commit(self) -> Changes:
        """Return the transaction of this turn."""
        inserts: list[Task] = []
        updates: list[Update] = []
        for change in self.changes.values():
            if change.before is None:
                inserts.append(change.after)
            elif change.after is not change.before:
                before = change.before.life.version
                updates.append(Update(change.after, before, change.token))
        return Changes(
            turn=self.number,
            inserts=inserts,
            updates=updates,
            outages=self.outages,
            workers=list(self.workers.values()),
            events=self.events,
            attempts=self.attempts,
            code=[CodeRow(digest, data) for digest, data in self.code.items()],
            forgotten=[row for row in self.forgotten if row.identity not in self.workers],
            queues=list(self.queues.values()),
            functions=self.functions,
            pruned=list(self.pruned),
            pruned_ms=self.now_ms,
        )

    @property
    def writes(self) -> bool:
        """Whether there is anything to commit."""
        rows = self.changes or self.workers or self.outages or self.forgotten or self.queues
        return bool(rows or self.code or self.functions or self.pruned or self.events)

    def undo(self) -> None:
        """Put the lines and the offers back as they were before this turn."""
        for _, session, token in self.claimed:
            _unclaim(session, token)
        for line, task_id in self._pushed:
            line.remove(task_id)
        for line, rank, task_id in self._popped:
            task = self.state.tasks.get(task_id)
            if task is not None and task.life.state is State.QUEUED:
                line.restore(rank, task_id, weight(task.spec))
        for task_id, former in reversed(self._sided):
            self.state.siding.take(task_id)
            if former is not None:
                self.state.siding.park(former)

    def refused_items(self, receipt: Receipt) -> list[Item]:
        """Return what must be decided again because a row was not as we thought."""
        refused = dict.fromkeys([*receipt.refused_inserts, *receipt.refused_updates])
        items: dict[int, Item] = {}
        for task_id in refused:
            for item in self.changes[task_id].items:
                # A hello was answered by closing its socket: it would be late for itself.
                if not isinstance(item[1], Hello):
                    items[id(item)] = item
        return [
            (session, self._only(message, refused) if isinstance(message, Submit) else message)
            for session, message in items.values()
            if message is not None
        ]

    def without(self, refused: Iterable[bytes]) -> None:
        """Drop the changes that a store refused, and what would have been said of them."""
        gone = dict.fromkeys(refused)
        for task_id in gone:
            self.state.evict(self.changes.pop(task_id).after)
        for task_id, session, token in self.claimed:
            if task_id in gone:
                _unclaim(session, token)
        self.claimed = [claim for claim in self.claimed if claim[0] not in gone]
        self.stopped = [stop for stop in self.stopped if stop[1] not in gone]
        self.effects = [effect for effect in self.effects if effect[0] not in gone]
        self.watched = [pair for pair in self.watched if pair[1] not in gone]
        for client, pairs in self.accepted.items():
            self.accepted[client] = [pair for pair in pairs if pair[1] not in gone]

    def _only(self, message: Submit, refused: dict[TaskId, None]) -> Submit:
        """Return what of a submission is decided again; now the store is read first.

        That is also what was taken for a repetition of a refused task, by its key.
        """
        specs = tuple(
            spec
            for spec in message.specs
            if spec.id in refused or (spec.key and self.keys.get(spec.key) in refused)
        )
        return Submit(specs, again=True)


def _unclaim(session: WorkerSession, token: Token) -> None:
    concurrent = session.offer.leases.get(token, 0) < 0
    session.offer.drop(token)
    session.offer.given[concurrent] -= 1


def _bounded(detail: str) -> str:
    """Return the head of a text that encodes to at most so many bytes."""
    return detail.encode(errors="replace")[:ERROR_TEXT_BYTES_MAX].decode(errors="ignore")
