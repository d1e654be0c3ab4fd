"""What a coordinator keeps in memory: a write-through cache of the store, and who is here.

All of it can be lost at any moment: `tasks` and `held` come back from the store, sessions and
offers from hellos, watchers from clients that watch again, paces from the next outcomes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import chain

from holdfast.coordinator.facts import Death
from holdfast.coordinator.sessions import ClientSession, WorkerSession
from holdfast.core.dispatch import Crew, Line, Lines, Offer, Pace, Urgency, weight
from holdfast.core.session import Admission, Known, admit
from holdfast.core.siding import Siding
from holdfast.model.ids import TaskId
from holdfast.model.messages import WorkerHello
from holdfast.model.task import Lease, State, Task, needs_of, rank_of
from holdfast.ports import StoreFacts, WorkerRow

UNSERVED_MIN = 1_000
"""So many names of unserved classes are kept before the store is asked which of them it has."""
GONE_SECONDS = 3_600.0
"""How long what was heard of a worker is kept that is not here and holds nothing."""
_FORGET_SECONDS = 60.0
LAPSED_MAX = 4_096
"""Lapsed leases of one worker that its guard's report can still put right."""
CODE_KNOWN_MAX = 10_000
"""Functions remembered as kept; the store is asked for one that was forgotten."""


class CoordinatorState:
    """The cache of one coordinator. `tasks` holds what runs and what waits in a line."""

    def __init__(self) -> None:
        self.facts = StoreFacts(store="", timeline=0, turn=0)
        self.tasks: dict[bytes, Task] = {}
        self.held: dict[str, dict[bytes, None]] = {}
        """Worker identity → the running tasks whose lease it holds."""
        self.lines = Lines()
        self.siding = Siding()
        self.crew = Crew()
        self.pace = Pace()
        self.urgency = Urgency()
        self.workers: dict[str, WorkerRow] = {}
        self.names: dict[str, str] = {}
        """Worker name → the identity that said hello with it last."""
        self.sessions: dict[str, WorkerSession] = {}
        self.clients: dict[ClientSession, None] = {}
        self.heard: dict[str, float] = {}
        """Worker identity → when it was last heard, on the monotonic clock."""
        self.greetings: dict[str, tuple[int, int]] = {}
        """Worker identity → incarnation and number of its newest hello that was read and waits."""
        self.buried: dict[str, Death] = {}
        """Worker identity → the report of a death that was judged, as its guard told it."""
        self.drained: dict[str, int] = {}
        """Worker identity → the incarnation that was asked to leave."""
        self.lapsed: dict[str, dict[bytes, bytes]] = {}
        """Worker identity → token and task of leases that lapsed since its newest hello."""
        self.missed: dict[str, None] = {}
        """Workers that held something when we began, and said no hello since; they are counted."""
        self.listening_since = 0.0
        """When we began, later by the time in which we did not listen, on the monotonic clock."""
        self.swept = 0.0
        """When silence was last judged, on the monotonic clock."""
        self.reported: dict[str, Death] = {}
        """Worker identity → the report of a death whose socket is still being read."""
        self.reporters: dict[str, dict[int, list[Callable[[], None]]]] = {}
        """Worker identity and incarnation → who is to hear that its guard's report was judged."""
        self.watchers: dict[bytes, list[ClientSession]] = {}
        self.code: OrderedDict[bytes, None] = OrderedDict()
        """Digests of functions that the store has, those that were learned last."""
        self.next_due_ms = 0
        self.unserved_max = UNSERVED_MIN
        """With so many unserved classes, the store is asked which of them still have tasks."""
        self.forget_at = 0.0
        """When to look next for what was heard of workers that are gone, on the monotonic clock."""
        self.forget_rows_at = 0.0
        """When to look next for rows of workers to forget, on the monotonic clock."""
        self.recalled: dict[bytes, float] = {}
        """Token → when it was recalled last, on the monotonic clock."""
        self.recall_at = 0.0
        """When to look next for work to recall, on the monotonic clock."""

    def known(self, identity: str) -> Known | None:
        """Return what is stored of a worker, for `core.session.admit`."""
        row = self.workers.get(identity)
        if row is None:
            return None
        return Known(
            identity=row.identity,
            name=row.name,
            incarnation=row.incarnation,
            number=row.number,
            epoch=row.epoch,
            present=identity in self.sessions or bool(self.held.get(identity)),
            outages=row.outages,
        )

    def greeted(self, hello: WorkerHello, now: float) -> None:
        """Note that a worker spoke: where its hello has to wait for its turn, it is not silent."""
        known = self.known(hello.identity)
        admission = admit(hello, same=known, namesake=self.namesake(hello.name))
        if known is None or admission is not Admission.WELCOME:
            return
        self.heard[hello.identity] = max(now, self.heard.get(hello.identity, 0.0))
        pair = (hello.incarnation, hello.number)
        self.greetings[hello.identity] = max(pair, self.greetings.get(hello.identity, pair))

    def refused(self, hello: WorkerHello) -> None:
        """Note that a hello changes nothing, so that the sockets before it count as before."""
        if self.greetings.get(hello.identity) == (hello.incarnation, hello.number):
            del self.greetings[hello.identity]

    def welcomed(self, row: WorkerRow) -> None:
        """Note that a hello is committed."""
        self.workers[row.identity] = row
        self.names[row.name] = row.identity
        self.missed.pop(row.identity, None)
        if self.greetings.get(row.identity, (0, 0)) <= (row.incarnation, row.number):
            self.greetings.pop(row.identity, None)

    def is_outdated(self, session: WorkerSession) -> bool:
        """Whether a newer hello of a session's worker was read, and is not committed yet.

        What comes on the older socket after it changes nothing, however long the newer one waits,
        and whichever takes its place meanwhile.
        """
        pair = (session.incarnation, session.hello.number)
        return self.greetings.get(session.identity, pair) > pair

    def death_of(self, identity: str, incarnation: int) -> Death | None:
        """Return what was told of the death of this life; its guard's word before the kernel's."""
        for told in (self.buried.get(identity), self.reported.get(identity)):
            if told is not None and told.incarnation == incarnation:
                return told
        return None

    def namesake(self, name: str) -> Known | None:
        """Return the worker that bears a name now; one that has taken another name does not."""
        known = self.known(self.names.get(name, ""))
        return known if known is not None and known.name == name else None

    def guard_told_of(self, identity: str, incarnation: int) -> bool:
        """Whether a guard's report of this life was judged, or is here and waits for it."""
        buried = self.buried.get(identity)
        judged = buried is not None and buried.incarnation == incarnation
        return judged or incarnation in self.reporters.get(identity, ())

    def keep(self, task: Task) -> None:
        """Take a committed row into the cache, and index it by who holds it."""
        life, task_id = task.life, task.spec.id
        before = self.tasks.get(task_id)
        if before is not None and before.life.state is State.RUNNING:
            self._unhold(before)
        if life.lease is Lease.LAPSED:
            lapsed = self.lapsed.setdefault(life.worker, {})
            if len(lapsed) < LAPSED_MAX:
                lapsed[life.token] = task_id
        if life.state is State.RUNNING:
            self.tasks[task_id] = task
            self.held.setdefault(life.worker, {})[task_id] = None
        elif life.state is State.QUEUED and not life.due_ms and self.waits(task):
            self.tasks[task_id] = task
        else:
            self.tasks.pop(task_id, None)
            if life.state is State.QUEUED and life.due_ms:
                self.note_due(life.due_ms)

    def waits(self, task: Task) -> bool:
        """Whether a claimable task stands in its line's window."""
        line = self.lines.lines.get(needs_of(task.spec))
        return line is not None and task.spec.id in line.held

    def evict(self, task: Task) -> None:
        """Forget a row that is not as we thought; it is read anew when it is needed."""
        cached = self.tasks.pop(task.spec.id, None)
        if cached is not None and cached.life.state is State.RUNNING:
            self._unhold(cached)
        line = self.lines.lines.get(needs := needs_of(task.spec))
        if line is not None:
            line.remove(task.spec.id)
        # It may be claimable all the same.
        self.reread(needs)

    def reread(self, needs: str) -> None:
        """Take it that the store has tasks of a class that are not known: read it from its head."""
        if self.crew.served(needs):
            self.lines.line(needs).reread()
        else:
            self.lines.forget(needs)

    def _unhold(self, task: Task) -> None:
        held = self.held.get(task.life.worker)
        if held is not None:
            held.pop(task.spec.id, None)
            if not held:
                del self.held[task.life.worker]

    def note_due(self, due_ms: int) -> None:
        """Remember when the next delayed task falls due."""
        if not self.next_due_ms or due_ms < self.next_due_ms:
            self.next_due_ms = due_ms

    def fill(self, line: Line, page: Iterable[Task], *, more: bool) -> None:
        """Take a page of claimable tasks of one class into its window, as far as there is room."""
        tasks = {task.spec.id: task for task in page}
        entries = ((rank_of(t.spec), t.spec.id, weight(t.spec)) for t in tasks.values())
        for task_id in line.fill(entries, more=more):
            self.tasks[task_id] = tasks[TaskId(task_id)]

    def back_in_line(self, task: Task) -> None:
        """Stand a task, as it was just read, in its line again: it may be tried by all."""
        spec, needs = task.spec, needs_of(task.spec)
        if task.life.state is not State.QUEUED or task.life.due_ms:
            return
        if self.lines.new(needs).push(rank_of(spec), spec.id, weight(spec)):
            self.tasks[spec.id] = task

    def watch(self, session: ClientSession, task_id: bytes) -> None:
        """Tell this client when the task is settled."""
        if task_id not in session.watched:
            session.watched[task_id] = None
            self.watchers.setdefault(task_id, []).append(session)

    def unwatch(self, session: ClientSession) -> None:
        """A client is gone."""
        for task_id in session.watched:
            watching = self.watchers.get(task_id)
            if watching is not None:
                watching.remove(session)
                if not watching:
                    del self.watchers[task_id]
        session.watched.clear()
        self.clients.pop(session, None)

    def unwatch_one(self, session: ClientSession, task_id: bytes) -> None:
        """A client waits for this task no more."""
        watching = self.watchers.get(task_id, [])
        if session in watching:
            watching.remove(session)
            session.watched.pop(task_id, None)
        if not watching:
            self.watchers.pop(task_id, None)

    def learn_code(self, digests: Iterable[bytes]) -> None:
        """Remember functions that the store has: none is ever removed from it."""
        for digest in digests:
            self.code[digest] = None
        while len(self.code) > CODE_KNOWN_MAX:
            self.code.popitem(last=False)

    def report_to(self, identity: str, incarnation: int, hear: Callable[[], None]) -> None:
        """Have `hear` called once what a guard reported of this life was judged."""
        self.reporters.setdefault(identity, {}).setdefault(incarnation, []).append(hear)

    def judged(self, identity: str, newest: int) -> None:
        """What was reported of the lives up to this one is committed, or of no use any more."""
        waiting = self.reporters.get(identity, {})
        for incarnation in [life for life in waiting if life <= newest]:
            for hear in waiting.pop(incarnation):
                hear()
        if not waiting:
            self.reporters.pop(identity, None)

    def forget_cut(self) -> None:
        """Forget the tasks that left a window because it was too long, or for the siding."""
        cut = self.lines.stock.cut
        for task_id in cut:
            task = self.tasks.get(task_id)
            if task is None or task.life.state is not State.QUEUED:
                continue
            # Since a turn that was undone, it may stand in another line of its class.
            if not self.waits(task):
                del self.tasks[task_id]
        cut.clear()

    def come(self, offer: Offer) -> None:
        """A worker is here: what waits for it is read from the store."""
        self.crew.come(offer)
        for needs in [needs for needs in self.lines.unserved if self.crew.served(needs)]:
            self.lines.line(needs)

    def pause(self, queues: Iterable[str]) -> None:
        """Know which queues are paused: of the others, all that waits may be claimed."""
        self.crew.pause(queues)
        for needs in [needs for needs in self.lines.unserved if self.crew.served(needs)]:
            self.lines.line(needs)
        self.release_unserved()

    def release_unserved(self) -> None:
        """Drop the windows of classes that no present worker serves, and what is beside them."""
        for needs in self.siding.classes():
            if not self.crew.served(needs):
                self.siding.forget(needs)
                self.lines.forget(needs)
        for needs, line in list(self.lines.lines.items()):
            if not self.crew.served(needs):
                for task_id in line.held:
                    self.tasks.pop(task_id, None)
                self.lines.forget(needs)

    def forget_gone(self, now: float) -> None:
        """Forget what was heard of workers that hold nothing and left long ago.

        Their rows stay for longer: a hello is judged by them.
        """
        if now < self.forget_at:
            return
        self.forget_at = now + _FORGET_SECONDS
        told = (self.heard, self.buried, self.lapsed, self.reported, self.drained)
        for identity in dict.fromkeys(chain.from_iterable(told)):
            if identity in self.held or identity in self.sessions:
                continue
            # Of one that was never heard, the time counts from here.
            if now - self.heard.setdefault(identity, now) > GONE_SECONDS:
                self._forget_heard(identity)

    def _forget_heard(self, identity: str) -> None:
        for told in (self.heard, self.buried, self.lapsed, self.reported, self.drained):
            told.pop(identity, None)
        self.judged(identity, max(self.reporters.get(identity, ()), default=0))

    def forget_worker(self, row: WorkerRow) -> None:
        """Forget a worker whose row was removed."""
        self.workers.pop(row.identity, None)
        self.greetings.pop(row.identity, None)
        if self.names.get(row.name) == row.identity:
            del self.names[row.name]
        self._forget_heard(row.identity)
