"""The oracle of what is said: nothing is told to anybody before the commit that makes it true.

Owns the checks of every frame that the coordinator sends, and of what clients were told. It reads
the mirror of committed rows only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast.lab.sim.frames import kinds_of
from holdfast.lab.sim.history import History
from holdfast.lab.sim.loop import Party
from holdfast.lab.sim.network import End
from holdfast.lab.sim.plan import Submission, WishPlan
from holdfast.lab.sim.records import Records
from holdfast.lab.sim.sessions import Sessions
from holdfast.model.ids import TaskId
from holdfast.model.messages import (
    Accepted,
    Answered,
    Assign,
    Message,
    Settled,
    StopOrder,
    WishTold,
    WorkerWelcome,
)
from holdfast.model.outcome import Answer
from holdfast.model.task import TERMINAL_MIN, Lease, Spec, Wanted


class Hearing:
    """Watches every frame of one run, and what clients heard."""

    def __init__(
        self,
        records: Records,
        sessions: Sessions,
        history: History,
        now: Callable[[], float],
    ) -> None:
        self._records = records
        self._sessions = sessions
        self._history = history
        self._now = now
        self.accepted_ids: dict[TaskId, TaskId] = {}
        """Ids that a client was told are kept → the task that holds each."""
        self.refused_ids: dict[TaskId, str] = {}
        self.forgotten_ids: dict[TaskId, None] = {}
        """Ids that a client had no answer for when it died, and nobody asks for any more."""
        self.told: dict[TaskId, Settled] = {}
        self.submissions = 0

    # The network's listener.

    def sent(self, by: Party, to: str, body: Sequence[Message]) -> None:
        """A frame is being sent."""
        self._history.add(by.name, f"-> {to} {' '.join(kinds_of(body))}")
        if by.role == "coordinator":
            for message in body:
                self._said(message)

    def read(self, end: End, body: Sequence[Message]) -> None:
        """A frame was read."""
        if end.party.role == "coordinator":
            self._sessions.read(end, body)
            if self._sessions.is_newest(end):
                # What comes on an older socket, such as a late hello, changes nothing.
                self._records.hear(end.other.party.name, self._now())
        elif any(isinstance(message, WorkerWelcome) for message in body):
            self._sessions.welcome_read(end)

    def _said(self, message: Message) -> None:
        records = self._records
        if isinstance(message, Accepted):
            known = dict(message.known)
            for given in message.tasks:
                if known.get(given, given) not in records.rows:
                    self._blame(given, "it was acknowledged before it was committed")
        elif isinstance(message, Settled):
            life = records.rows.get(message.task)
            if life is None or life.state < TERMINAL_MIN or life.state is not message.state:
                self._blame(message.task, f"it was told {message.state.text}, which is not so")
        elif isinstance(message, Assign):
            if records.tokens.get(message.token) != (message.task, message.fence):
                self._blame(message.task, "it was assigned before the claim was committed")
        elif isinstance(message, StopOrder):
            self._stopped(message.task, message.token)
        elif isinstance(message, Answered):
            self._answered(message.task, message.token, message.answer)
        elif isinstance(message, WorkerWelcome):
            for each in message.answers:
                if each.answer is Answer.STOP:
                    self._stopped(each.task, each.token)
                elif each.answer is Answer.KEEP and each.token not in records.tokens:
                    self._blame(each.task, "a lease was kept that was never committed")
                else:
                    self._answered(each.task, each.token, each.answer)
        elif isinstance(message, WishTold):
            life = records.rows.get(message.task)
            if life is None or life.wish < message.wish:
                self._blame(message.task, "a wish was told before it was committed")

    def _stopped(self, task: TaskId, token: bytes) -> None:
        life = self._records.rows.get(task)
        if life is None or life.token != token:
            return
        if life.lease is Lease.HELD:
            self._blame(task, "the holder of its lease was told to stop")
        elif life.lease is Lease.LAPSED:
            self._blame(task, "who came back in time with its lapsed lease was told to stop")

    def _answered(self, task: TaskId, token: bytes, answer: Answer) -> None:
        life = self._records.rows.get(task)
        if answer is Answer.SETTLED and token not in self._records.spent:
            self._blame(task, "an outcome was answered as settled, and is not committed")
        newest = life is not None and life.token == token and life.lease is not Lease.SPENT
        if answer is Answer.SUPERSEDED and newest:
            self._blame(task, "an outcome of the newest token was answered as superseded")

    def in_the_dark(self) -> list[TaskId]:
        """Return the tasks that go on, and that no client waits for."""
        rows = self._records.rows
        return [
            task for task in self.forgotten_ids if task in rows and rows[task].state < TERMINAL_MIN
        ]

    # What clients were told.

    def submitted(self, spec: Spec, plan: Submission) -> None:
        """A client made a task."""
        self.submissions += 1
        self._history.name(spec.id, f"t{plan.number}")
        behaviour = plan.behaviour
        self._history.add(
            f"client-{plan.client}",
            f"submits t{plan.number} {behaviour.do} {behaviour.ms} ms x{behaviour.times}",
        )

    def accepted(self, client: str, given: TaskId, holder: TaskId) -> None:
        """A client read that a task is kept."""
        if given not in self.accepted_ids:
            self._history.add(client, f"has {self._history.name_of(given)} accepted")
        if self.accepted_ids.setdefault(given, holder) != holder:
            self._blame(given, "it was acknowledged under two ids")

    def refused(self, client: str, task: TaskId, code: str) -> None:
        """A client read that a task is surely not kept."""
        self._history.add(client, f"has {self._history.name_of(task)} refused: {code}")
        self.refused_ids[task] = code
        if task in self._records.rows or task in self.accepted_ids:
            self._blame(task, f"it was refused ({code}), and is kept")

    def forgotten(self, client: str, tasks: Sequence[TaskId]) -> None:
        """A client died, and these ids with it: they are kept or not, and end by themselves."""
        names = " ".join(map(self._history.name_of, tasks))
        self._history.add(client, f"dies and forgets {names or 'nothing'}")
        self.forgotten_ids.update(dict.fromkeys(tasks))

    def settled(self, client: str, message: Settled) -> None:
        """A client read how a task ended."""
        first = self.told.setdefault(message.task, message)
        if (first.state, first.result) != (message.state, message.result):
            self._blame(message.task, "it was told to end in two ways")

    def replied(self, client: str, wish: WishPlan, task: TaskId, code: str) -> None:
        """A client read the answer to a wish."""
        name = self._history.name_of(task)
        self._history.add(client, f"is answered {wish.wanted.text} {name}: {code or 'done'}")
        life = self._records.rows.get(task)
        undone = life is not None and life.state < TERMINAL_MIN and life.wanted != Wanted.CANCEL
        if wish.wanted is Wanted.CANCEL and not code and undone:
            self._blame(task, "a cancel was answered that is not committed")

    def _blame(self, task: TaskId, text: str) -> None:
        name = self._history.name_of(task)
        self._records.blame(f"{self._now():.3f} {name}: {text}")
        self._history.add("judge", f"VIOLATION {name}: {text}")
