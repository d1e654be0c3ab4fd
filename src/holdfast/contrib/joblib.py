"""A backend for joblib: the batches of a `joblib.Parallel` call become durable tasks.

Owns how many batches of a call are with the coordinator at once, and the thread on which joblib
hears of their ends. There it may pickle, unpickle and run the caller's generator, none of which the
client's own thread, which keeps the session alive, must do. It imports joblib only when it is
called, because that changes the environment; a worker has imported it by then.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future as StandardFuture
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from holdfast.engines.current import current
from holdfast.errors import InvalidInputError
from holdfast.observe import logger

if TYPE_CHECKING:
    from holdfast.client.client import Client
    from holdfast.client.executor import TaskExecutor
    from holdfast.client.options import Options

_ALL = -1
_AHEAD = 2
"""Batches for each slot where all are to be busy: one runs, the next is already there."""
_END_SECONDS = 5.0
_LOG = logger("client")
Batch = Callable[[], list[Any]]
Tell = Callable[[StandardFuture[Any]], object]


def register_joblib(
    client: Client, *, name: str = "holdfast", options: Options | None = None
) -> None:
    """Let `joblib.parallel_config(backend=name)` run its batches as tasks of this client.

    `n_jobs` is how many batches run at once; -1, also where none is given, means all slots of the
    workers that serve `options`, and 1 is a loop in this process, as ever. Inside a task the
    backend is that loop, so that tasks never wait for tasks. Raises ImportError where joblib 1.5 or
    newer is not installed.
    """
    try:
        import joblib
    except ImportError as error:
        raise ImportError("joblib is not installed: pip install 'joblib>=1.5'") from error
    backend = _backend_class()
    joblib.register_parallel_backend(
        name, lambda **given: backend(client=client, name=name, options=options, **given)
    )


def run_batch(batch: Batch, name: str) -> list[Any]:
    """Run one batch of joblib's, in a worker. There the backend's name means a plain loop."""
    from joblib import register_parallel_backend
    from joblib.parallel import SequentialBackend

    register_parallel_backend(name, SequentialBackend)
    return batch()


class Batches:
    """The batches of one call of joblib's; at most `at_once_max` are with the coordinator.

    One thread does all: it submits, and it tells of ends, so that the rest needs no lock.
    """

    def __init__(self, executor: TaskExecutor, name: str, at_once_max: int) -> None:
        self._executor = executor
        self._name = name
        self._at_once_max = at_once_max
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._waiting: deque[tuple[Batch, Tell]] = deque()
        self._open = 0
        self._thread = threading.Thread(target=self._serve, name="holdfast-joblib", daemon=True)
        self._thread.start()

    def add(self, batch: Batch, tell: Tell) -> None:
        """Run a batch when its turn comes, and tell of its end, with its future."""
        self._calls.put(partial(self._take, batch, tell))

    def end(self) -> None:
        """Take no more; cancel what waits in the queue, and let what runs end."""
        self._calls.put(None)
        if self._thread is not threading.current_thread():
            # A client that is closed next would forget what was to be cancelled.
            self._thread.join(_END_SECONDS)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _take(self, batch: Batch, tell: Tell) -> None:
        self._waiting.append((batch, tell))
        self._fill()

    def _ended(self, tell: Tell, future: StandardFuture[Any]) -> None:
        self._open -= 1
        self._fill()
        try:
            tell(future)
        except BaseException:
            # sys.exit() in a generator of the caller's too: the other batches live by this thread.
            _LOG.exception("joblib failed to take the end of a batch")

    def _fill(self) -> None:
        while self._waiting and self._open < self._at_once_max:
            self._open += 1
            self._start(*self._waiting.popleft())

    def _start(self, batch: Batch, tell: Tell) -> None:
        self._submit(batch).add_done_callback(
            lambda future: self._calls.put(partial(self._ended, tell, future))
        )

    def _submit(self, batch: Batch) -> StandardFuture[Any]:
        try:
            return self._executor.submit(run_batch, batch, self._name)
        except Exception as error:
            # Joblib raises it where it waits for this batch.
            failed: StandardFuture[Any] = StandardFuture()
            failed.set_exception(error)
            return failed


def _backend_class() -> type[Any]:
    """Return the class that joblib takes for a backend."""
    from joblib.parallel import (
        AutoBatchingMixin,
        FallbackToBackend,
        ParallelBackendBase,
        SequentialBackend,
    )

    class HoldfastBackend(AutoBatchingMixin, ParallelBackendBase):
        supports_retrieve_callback = True
        default_n_jobs = _ALL
        batches: Batches | None = None

        def __init__(
            self, client: Client, name: str, options: Options | None, **given: Any
        ) -> None:
            super().__init__(**given)
            self.client = client
            self.name = name
            self.options = options

        def effective_n_jobs(self, n_jobs: int | None) -> int:
            return _jobs(n_jobs, self.client.executor(self.options))

        def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
            if self.batches is not None:
                # Joblib shares one backend among the calls that go on in a `with` block.
                level = self.nesting_level
                other = HoldfastBackend(self.client, self.name, self.options, nesting_level=level)
                raise FallbackToBackend(other)
            jobs = self.effective_n_jobs(n_jobs)
            if jobs == 1:
                raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
            self.parallel = parallel
            at_once_max = jobs * _AHEAD if n_jobs == _ALL else jobs
            self.batches = Batches(self.client.executor(self.options), self.name, at_once_max)
            return jobs

        def submit(self, func: Batch, callback: Tell) -> None:
            batches = self.batches
            # Else the call was aborted meanwhile, and nobody waits for what is still dispatched.
            if batches is not None:
                batches.add(func, callback)

        def retrieve_result_callback(self, out: StandardFuture[Any]) -> Any:
            return out.result()

        def terminate(self) -> None:
            batches, self.batches = self.batches, None
            if batches is not None:
                batches.end()
            self.reset_batch_stats()

        def abort_everything(self, ensure_ready: bool = True) -> None:
            self.terminate()
            if ensure_ready:
                self.configure(self.parallel.n_jobs, self.parallel)

    return HoldfastBackend


def _jobs(n_jobs: int | None, executor: TaskExecutor) -> int:
    """Return how many batches run at once, in joblib's words: below 0, it counts from all slots."""
    if n_jobs == 0:
        raise ValueError("n_jobs == 0 in Parallel has no meaning")
    if _in_a_task():
        return 1
    if n_jobs is None or n_jobs == _ALL:
        # One would be a loop in this process; the one slot that there is may be far away.
        return max(2, executor.slots)
    return n_jobs if n_jobs > 0 else max(1, executor.slots + 1 + n_jobs)


def _in_a_task() -> bool:
    try:
        current()
    except InvalidInputError:
        return False
    return True
