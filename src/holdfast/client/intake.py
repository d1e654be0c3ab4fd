"""The door between the user's threads and the client's loop: submissions in order, and bounded.

Owns the only lock that a submission takes. User threads put submissions in and wake the loop once;
the loop takes all that waits. What the coordinator has not accepted counts against two bounds, and
at a bound the submitting thread waits: that is the backpressure.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import msgspec

from holdfast.client.calls import Call, python_of
from holdfast.client.code import HeldCode
from holdfast.client.future import Future, Owner
from holdfast.errors import OverloadedError
from holdfast.model.ids import IdMint
from holdfast.model.task import Spec
from holdfast.payloads import Encoded
from holdfast.ports import Clock

SUBMISSIONS_MAX = 20_000
SUBMISSIONS_BYTES_MAX = 64 * 1024 * 1024
_LOW = 0.75
"""A thread that waited goes on once the load is down to this part of the bound: not at each one."""
_RETRY_AFTER_SECONDS = 0.1


class Submission(msgspec.Struct):
    """A task on its way to the coordinator. `path` names the file of a payload yet to upload.

    `size_bytes` is what it takes beside its function, which may be that of many.
    """

    spec: Spec
    future: Future[Any]
    path: str
    size_bytes: int


class Intake:
    """What is submitted and not yet accepted; all but `waiting` is for any thread."""

    def __init__(
        self,
        *,
        clock: Clock,
        mint: IdMint,
        wake: Callable[[], None],
        on_own_thread: Callable[[], bool],
        submissions_max: int = SUBMISSIONS_MAX,
        bytes_max: int = SUBMISSIONS_BYTES_MAX,
    ) -> None:
        self.waiting: deque[Submission] = deque()
        """What the loop has not taken yet; only the loop takes."""
        self.awake = False
        """Whether the loop was woken since it last looked; the loop sets it back."""
        self._clock = clock
        self._mint = mint
        self._wake = wake
        self._on_own_thread = on_own_thread
        self._submissions_max = submissions_max
        self._bytes_max = bytes_max
        self._submissions = 0
        self._bytes = 0
        self._code = HeldCode()
        self._shut: Exception | None = None
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._watchers = 0

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
            if self._submissions >= self._submissions_max or self._bytes >= self._bytes_max:
                self._wait_for_room()
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
            )
            future: Future[Any] = Future(owner, task_id)
            if arrivals is not None:
                future._arrivals = arrivals
            if call.code:
                self._bytes += self._code.hold(call.digest, call.code)
            self.waiting.append(Submission(spec, future, encoded.path, size))
            self._submissions += 1
            self._bytes += size
            if not self.awake:
                self.awake = True
                self._wake()
        return future

    def code(self, digest: bytes) -> bytes:
        """Return the function of a submission that is on its way."""
        return self._code.bytes_of(digest)

    def release(self, submissions: int, size_bytes: int, code: Sequence[bytes] = ()) -> None:
        """Count submissions that were accepted, or refused for good.

        `code` are the digests of their functions, one for each submission that has one.
        """
        with self._lock:
            self._submissions -= submissions
            self._bytes -= size_bytes
            if code:
                self._bytes -= self._code.let_go(code)
            if self._watchers and (self._has_room() or not self._submissions):
                self._changed.notify_all()

    def shut(self, error: Exception) -> None:
        """Refuse all further submissions with `error`; who waits for room gets it too."""
        with self._lock:
            if self._shut is None:
                self._shut = error
            self._changed.notify_all()

    def wait_empty(self, timeout: float) -> bool:
        """Wait until all is accepted, at most `timeout` seconds; return whether it is."""
        with self._lock:
            return self._wait(lambda: not self._submissions, timeout)

    @property
    def submissions(self) -> int:
        """How many submissions are not accepted yet."""
        return self._submissions

    def _has_room(self) -> bool:
        return (
            self._submissions <= self._submissions_max * _LOW
            and self._bytes <= self._bytes_max * _LOW
        )

    def _wait_for_room(self) -> None:
        if self._on_own_thread():
            raise OverloadedError(
                f"{self._submissions} submissions are not accepted yet; a callback cannot wait",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self._wait(lambda: self._has_room() or self._shut is not None, None)

    def _wait(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        self._watchers += 1
        try:
            return self._changed.wait_for(condition, timeout)
        finally:
            self._watchers -= 1
