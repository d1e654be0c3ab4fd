"""What the client's loop knows of its tasks: on their way, sent, held back, or watched.

Owns the accounts of one session after another: each submission stands in one place, and moves by
what the coordinator says. Used on the loop's thread only. It never touches a socket: it takes
messages, and fills a queue with messages.

    intake → [uploading] → sent → watched → settled
                  ↑          ├→ refused for now → fresh → sent
                fresh        └→ the channel broke → repeated → sent, with `again`
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from holdfast.client.future import End, Future, keep_all, settle_all
from holdfast.client.intake import Intake, Submission
from holdfast.errors import error_of
from holdfast.model.ids import TaskId
from holdfast.model.messages import Accepted, Message, PutCode, Refused, Submit, Watch
from holdfast.model.task import Spec
from holdfast.observe import logger

BATCH_SPECS_MAX = 256
BATCH_BYTES_MAX = 64 * 1024
_WATCH_IDS_MAX = 1_000
_LOG = logger("client")
_CODES_MAX = 1_000
"""Digests remembered as sent on this channel; a function forgotten is only sent once more."""
_HOLDERS_MAX = 10_000
"""Ids that were given up for the one of a key; the oldest are forgotten, and then unknown."""


class Book:
    """The accounts of one client. `owner.settling` is the lock of its futures."""

    def __init__(self, intake: Intake, settling: Any) -> None:
        self.sent: dict[bytes, Submission] = {}
        self.watched: dict[bytes, Future[Any]] = {}
        self.repeated: deque[Submission] = deque()
        self.fresh: deque[Submission] = deque()
        self.apart: dict[bytes, Submission] = {}
        """Being uploaded, or refused for now: not in any queue."""
        self.kept_calls: dict[bytes, list[Callable[[], None]]] = {}
        """What waits for a task to be accepted, such as a wish to cancel it."""
        self.held_back = ""
        """Why new tasks are not kept for now, "" where they are."""
        self._intake = intake
        self._settling = settling
        self._holders: dict[bytes, TaskId] = {}
        """Under which id the coordinator has what we submitted with a key that it knew."""
        self._codes: set[bytes] = set()
        """Functions that were sent on this channel and, as far as is known, kept."""

    # To the coordinator.

    @property
    def waits(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._intake.waiting or self.fresh or self.repeated)

    def fill(self, out: deque[Message], upload: Callable[[Submission], None]) -> None:
        """Move a batch of what waits into `out`: repetitions first, then in order.

        Submissions whose payload is a file go to `upload`, and come back by `put_fresh`.
        """
        if self.repeated:
            self._batch(self.repeated, out, upload, again=True)
        elif self.fresh:
            self._batch(self.fresh, out, upload, again=False)
        else:
            self._batch(self._intake.waiting, out, upload, again=False)

    def _batch(
        self,
        queue: deque[Submission],
        out: deque[Message],
        upload: Callable[[Submission], None],
        *,
        again: bool,
    ) -> None:
        specs: list[Spec] = []
        size = 0
        sent = self.sent
        take = self._intake.take if queue is self._intake.waiting else queue.popleft
        while queue and len(specs) < BATCH_SPECS_MAX and size < BATCH_BYTES_MAX:
            submission = take()
            spec = submission.spec
            if submission.path:
                self.apart[spec.id] = submission
                upload(submission)
                continue
            if spec.code and spec.code not in self._codes:
                if len(self._codes) >= _CODES_MAX:
                    self._codes.clear()
                self._codes.add(spec.code)
                code = self._intake.code(spec.code)
                out.append(PutCode(spec.code, code))
                size += len(code)
            specs.append(spec)
            sent[spec.id] = submission
            size += submission.size_bytes
        if specs:
            out.append(Submit(tuple(specs), again))

    def put_fresh(self, submission: Submission) -> None:
        """Queue what was uploaded, or what was refused for now and may be said again."""
        if self.apart.pop(submission.spec.id, None) is not None:
            self.fresh.append(submission)

    def channel_lost(self) -> None:
        """What was sent and not answered is to be repeated, in its order, before all else."""
        self.repeated.extendleft(reversed(self.sent.values()))
        self.sent.clear()
        self._codes.clear()

    def watches(self) -> Iterator[Watch]:
        """Return what a new session has to be told to watch."""
        ids = [TaskId(task_id) for task_id in self.watched]
        for start in range(0, len(ids), _WATCH_IDS_MAX):
            yield Watch(tuple(ids[start : start + _WATCH_IDS_MAX]))

    def watch(self, future: Future[Any]) -> None:
        """Keep a future of an accepted task until it is settled; several may share a task."""
        task_id = future._task_id
        twin = self.watched.get(task_id)
        if twin is not None and twin is not future:
            future._twin = twin
        self.watched[task_id] = future

    # From the coordinator.

    def accept(self, message: Accepted) -> None:
        """Move what is durable from sent to watched; under the id that holds its key."""
        holders = dict(message.known) if message.known else {}
        futures = []
        code = []
        size = 0
        for task_id in message.tasks:
            submission = self.sent.pop(task_id, None)
            if submission is None:
                continue
            future = submission.future
            size += submission.size_bytes
            futures.append(future)
            if submission.spec.code:
                code.append(submission.spec.code)
            if holders and task_id in holders:
                future._task_id = holders[task_id]
                self._note_holder(task_id, holders[task_id])
                self.watch(future)
            else:
                self.watched[task_id] = future
        if futures:
            if self.held_back:
                _LOG.warning("new tasks are kept again")
                self.held_back = ""
            keep_all(self._settling, futures)
            self._intake.release(len(futures), size, code)
        if self.kept_calls:
            for task_id in message.tasks:
                self._call_kept(task_id)

    def holder(self, task_id: TaskId) -> TaskId:
        """Return the id of the task that a submission of ours with a key was found to be."""
        return self._holders.get(task_id, task_id)

    def _note_holder(self, task_id: TaskId, holder: TaskId) -> None:
        if len(self._holders) >= _HOLDERS_MAX:
            del self._holders[next(iter(self._holders))]
        self._holders[task_id] = holder

    def settle(self, ends: list[tuple[TaskId, End]]) -> None:
        """End the futures of these tasks."""
        pairs: list[tuple[Future[Any], End]] = []
        for task_id, end in ends:
            future = self.known_kept(task_id)
            self.watched.pop(task_id, None)
            while future is not None:
                pairs.append((future, end))
                twin, future._twin = future._twin, None
                future = twin
        if pairs:
            settle_all(self._settling, pairs)

    def known_kept(self, task_id: TaskId) -> Future[Any] | None:
        """Return the future of a task that the coordinator knows, as its messages show."""
        future = self.watched.get(task_id)
        if future is None and task_id in self.sent:
            self.accept(Accepted((task_id,)))
            future = self.watched.get(task_id)
        return future

    def refuse(self, message: Refused) -> Submission | None:
        """Take a refusal: returns the submission where it is to be said again, later."""
        task_id = message.task
        submission = self.sent.pop(task_id, None)
        if submission is None:
            self.settle([(task_id, error_of(message.code, message.text))])
            return None
        if message.retry_after_seconds > 0:
            if message.code != "no_code":
                self._hold_back(message.text)
            # Its function need not have been kept either: it goes again with the submission.
            self._codes.discard(submission.spec.code)
            self.apart[task_id] = submission
            return submission
        self.fail(submission, error_of(message.code, message.text))
        return None

    def _hold_back(self, why: str) -> None:
        """Tell once that submissions wait: nobody else would, while the coordinator says no."""
        if why != self.held_back:
            _LOG.warning("nothing new is kept for now: %s; it is submitted again and again", why)
            self.held_back = why

    def fail(self, submission: Submission, error: BaseException) -> None:
        """End a submission that will not be kept."""
        self.apart.pop(submission.spec.id, None)
        self._release([submission])
        settle_all(self._settling, [(submission.future, error)])
        self._call_kept(submission.spec.id)

    def fail_all(self, error: BaseException, *, unsent: bool) -> list[Submission]:
        """End all that was sent with an error; with `unsent` also what never was.

        Returns the submissions that ended.
        """
        self.channel_lost()
        queues = [self.repeated]
        gone: list[Submission] = []
        if unsent:
            gone += self.apart.values()
            self.apart.clear()
            queues.append(self.fresh)
        for queue in queues:
            gone += queue
            queue.clear()
        while unsent and self._intake.waiting:
            gone.append(self._intake.take())
        self._release(gone)
        settle_all(self._settling, [(submission.future, error) for submission in gone])
        self.settle([(TaskId(task_id), error) for task_id in self.watched.copy()])
        for submission in gone:
            self._call_kept(submission.spec.id)
        return gone

    def _release(self, gone: list[Submission]) -> None:
        size = sum(submission.size_bytes for submission in gone)
        code = [submission.spec.code for submission in gone if submission.spec.code]
        self._intake.release(len(gone), size, code)

    def when_kept(self, task_id: TaskId, call: Callable[[], None]) -> None:
        """Call once the task is accepted or surely refused; now, where that is known."""
        if task_id in self.watched or not self._on_its_way(task_id):
            call()
        else:
            self.kept_calls.setdefault(task_id, []).append(call)

    def when_all_kept(self, low: bytes, high: bytes, call: Callable[[], None]) -> None:
        """Call once every task with an id from `low` to `high` is accepted or surely refused."""
        held = (*self.sent.values(), *self.apart.values(), *self._queued())
        left = {each.spec.id for each in held if low <= each.spec.id <= high}

        def kept(task_id: TaskId) -> None:
            left.discard(task_id)
            if not left:
                call()

        for task_id in [*left]:
            self.kept_calls.setdefault(task_id, []).append(partial(kept, task_id))
        if not left:
            call()

    def once_kept(self, future: Future[Any], call: Callable[[], None]) -> None:
        """Call once a future that is neither accepted nor done is so: without a search for it."""
        self.kept_calls.setdefault(future._task_id, []).append(call)

    def _on_its_way(self, task_id: TaskId) -> bool:
        return (
            task_id in self.sent
            or task_id in self.apart
            or any(submission.spec.id == task_id for submission in self._queued())
        )

    def _queued(self) -> Iterator[Submission]:
        for queue in (self.repeated, self.fresh, self._intake.waiting.copy()):
            yield from queue

    def _call_kept(self, task_id: TaskId) -> None:
        for call in self.kept_calls.pop(task_id, ()):
            call()
