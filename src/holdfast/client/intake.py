"""The door between the user's threads and the client's loop: submissions in order, and bounded.

Owns the only lock that a submission takes. User threads put submissions in and wake the loop once;
the loop takes all that waits. What the coordinator has not accepted counts against two bounds, and
at a bound the submitting thread waits: that is the backpressure. Who lives on the loop itself must
not wait here: it looks whether the intake is `full`, and is told when to look again.

Ctrl-C can end a submission between any two of its statements. So nothing is counted beside the
queue: that a submission stands in it is the one thing that makes it one, and each carries the count
of all before it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgspec

from holdfast.client.calls import Call, likeness_of_call, python_of
from holdfast.client.code import HeldCode
from holdfast.client.future import Future, Owner
from holdfast.errors import OverloadedError
from holdfast.model.ids import IdMint
from holdfast.model.task import Spec
from holdfast.payloads import Encoded, encode_call
from holdfast.ports import Clock

SUBMISSIONS_MAX = 20_000
SUBMISSIONS_BYTES_MAX = 64 * 1024 * 1024
_LOW = 0.75
"""A thread that waited goes on once the load is down to this part of the bound: not at each one."""
_RETRY_AFTER_SECONDS = 0.1


class Submission(msgspec.Struct):
    """A task on its way to the coordinator. `path` names the file of a payload yet to upload.

    `size_bytes` is what it takes beside its function, which may be that of many. `mark` is how many
    were put in up to this one, and how many bytes those took.
    """

    spec: Spec
    future: Future[Any]
    path: str
    size_bytes: int
    mark: tuple[int, int]


class Intake:
    """What is submitted and not yet accepted; all but `waiting` is for any thread."""

    def __init__(
        self,
        *,
        clock: Clock,
        mint: IdMint,
        wake: Callable[[], None],
        on_own_thread: Callable[[], bool],
        changed: Callable[[], None] | None = None,
        spill_to: Path | None = None,
        submissions_max: int = SUBMISSIONS_MAX,
        bytes_max: int = SUBMISSIONS_BYTES_MAX,
    ) -> None:
        """`changed` is called on the loop when there is room again, all is accepted, or it is shut.

        `spill_to` is an existing folder for large payloads on their way.
        """
        self.waiting: deque[Submission] = deque()
        """What the loop has not taken yet; only the loop takes, by `take`."""
        self.looks = 0
        """How often the loop has begun to look here; the loop counts."""
        self._woken = -1
        """The look after which the loop was woken: it will look once more."""
        self._clock = clock
        self._mint = mint
        self._wake = wake
        self._on_own_thread = on_own_thread
        self._tell = changed
        self._spill_to = spill_to
        self._submissions_max = submissions_max
        self._bytes_max = bytes_max
        self._taken = (0, 0)
        """The mark of the newest that the loop has taken."""
        self._released = 0
        self._released_bytes = 0
        self._code = HeldCode()
        self._shut: Exception | None = None
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._watchers = 0

    def submit(
        self,
        owner: Owner,
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        arrivals: SimpleQueue[Future[Any]] | None = None,
    ) -> Future[Any]:
        """Encode the arguments of a call and put it in; see `add`. Raises NotSerializableError."""
        encoded = encode_call(args, kwargs, spill_to=self._spill_to)
        try:
            likeness = likeness_of_call(call, encoded, args, kwargs) if call.options.key else b""
            return self.add(owner, call, encoded, arrivals, likeness)
        except BaseException:
            if encoded.path:
                Path(encoded.path).unlink(missing_ok=True)
            raise

    def add(
        self,
        owner: Owner,
        call: Call,
        encoded: Encoded,
        arrivals: SimpleQueue[Future[Any]] | None = None,
        likeness: bytes = b"",
    ) -> Future[Any]:
        """Put in one submission and return its future; waits while a bound is reached.

        `arrivals` gets the future once it is done. Raises what the intake was shut with, and
        OverloadedError at a bound on the client's own thread, which must not wait for itself.
        """
        payload = encoded.payload
        options = call.options
        size = call.size_bytes + len(payload.data)
        with self._lock:
            number, total = self._newest()
            if (
                number - self._released >= self._submissions_max
                or total - self._released_bytes + self._code.held_bytes >= self._bytes_max
            ):
                self._wait_for_room()
                number, total = self._newest()
            if self._shut is not None:
                raise self._shut
            now_ms = self._clock.wall_ms()
            task_id = self._mint.next(now_ms)
            spec = Spec(
                task_id,
                call.function,
                payload,
                now_ms,
                now_ms + int(options.delay * 1000) if options.delay else 0,
                options.queue,
                options.tags,
                options.priority,
                options.key,
                call.digest,
                python_of(call, encoded),
                call.concurrent,
                likeness,
                options.meta,
            )
            future: Future[Any] = Future(owner, task_id)
            if arrivals is not None:
                future._call_ended = arrivals.put
            if call.code:
                # An interrupt right after this leaves a function here that nobody needs.
                self._code.hold(call.digest, call.code)
            mark = (number + 1, total + size)
            self.waiting.append(Submission(spec, future, encoded.path, size, mark))
            looks = self.looks
            if self._woken != looks:
                self._wake()
                self._woken = looks
        return future

    def take(self) -> Submission:
        """Take the oldest that waits; for the loop. Raises IndexError where none does."""
        # Before it is gone, so that who puts one in always finds the newest mark.
        self._taken = self.waiting[0].mark
        return self.waiting.popleft()

    def code(self, digest: bytes) -> bytes:
        """Return the function of a submission that is on its way."""
        return self._code.bytes_of(digest)

    def release(self, submissions: int, size_bytes: int, code: Sequence[bytes] = ()) -> None:
        """Count submissions that were accepted, or refused for good.

        `code` are the digests of their functions, one for each submission that has one.
        """
        with self._lock:
            self._released += submissions
            self._released_bytes += size_bytes
            if code:
                self._code.let_go(code)
            if not self._watchers and self._tell is None:
                return
            if self.has_room or not self.submissions:
                self._changed.notify_all()
                if self._tell is not None:
                    self._tell()

    def shut(self, error: Exception) -> None:
        """Refuse all further submissions with `error`; who waits for room gets it too."""
        with self._lock:
            if self._shut is None:
                self._shut = error
            self._changed.notify_all()
            if self._tell is not None:
                self._tell()

    def wait_empty(self, timeout: float) -> bool:
        """Wait until all is accepted, at most `timeout` seconds; return whether it is."""
        with self._lock:
            return self._wait(lambda: not self.submissions, timeout)

    @property
    def submissions(self) -> int:
        """How many submissions are not accepted yet."""
        return self._newest()[0] - self._released

    @property
    def held_bytes(self) -> int:
        """What they take, each function once."""
        return self._newest()[1] - self._released_bytes + self._code.held_bytes

    @property
    def full(self) -> bool:
        """Whether a bound is reached, so that `add` would wait."""
        return self._shut is None and (
            self.submissions >= self._submissions_max or self.held_bytes >= self._bytes_max
        )

    @property
    def places(self) -> int:
        """How many more submissions fit by their number; all where it is shut, to hear of it."""
        return self._submissions_max - (0 if self._shut is not None else self.submissions)

    @property
    def has_room(self) -> bool:
        """Whether who waited at a bound may go on."""
        return self._shut is not None or (
            self.submissions <= self._submissions_max * _LOW
            and self.held_bytes <= self._bytes_max * _LOW
        )

    def _newest(self) -> tuple[int, int]:
        try:
            return self.waiting[-1].mark
        except IndexError:
            return self._taken

    def _wait_for_room(self) -> None:
        if self._shut is None and self._on_own_thread():
            raise OverloadedError(
                f"{self.submissions} submissions are not accepted yet; a callback cannot wait",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self._wait(lambda: self.has_room, None)

    def _wait(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        # Whose submission was interrupted may not have come to it.
        self._wake()
        self._watchers += 1
        try:
            return self._changed.wait_for(condition, timeout)
        finally:
            self._watchers -= 1
