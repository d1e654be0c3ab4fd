"""Joblib over Holdfast: what it asks of a backend, and what becomes of it when something dies."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future as StandardFuture
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

import holdfast
from holdfast import wiring
from holdfast.client.client import Client
from holdfast.contrib.joblib import Batches
from holdfast.transports import endpoint
from tests.conftest import Eventually
from tests.contrib import bodies
from tests.integration.conftest import stop


class Desk:
    """An executor that runs nothing: the test ends each batch."""

    def __init__(self) -> None:
        self.open: list[StandardFuture[Any]] = []
        self.shut: list[bool] = []
        self.refusing = False

    def submit(self, function: Callable[..., Any], *args: Any) -> StandardFuture[Any]:
        if self.refusing:
            raise holdfast.NotSerializableError("a lock")
        self.open.append(StandardFuture())
        return self.open[-1]

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        self.shut.append(cancel_futures)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def batches(desk: Desk) -> Iterator[Batches]:
    batches = Batches(desk, "holdfast", 2)  # type: ignore[arg-type]
    yield batches
    batches.end()


def test_so_many_batches_are_submitted_at_once(
    desk: Desk, batches: Batches, eventually: Eventually
) -> None:
    told: list[int] = []
    for _ in range(5):
        batches.add(list, lambda future: told.append(future.result()))
    for ended in range(5):
        submitted = min(5, ended + 2)
        eventually("there is the next", lambda wanted=submitted: len(desk.open) == wanted)
        desk.open[ended].set_result(ended)
        eventually("it is told", lambda wanted=ended: told == list(range(wanted + 1)))
    batches.end()
    assert desk.shut == [True], "what still waits is cancelled"


def test_a_batch_that_cannot_be_submitted_is_told_like_any_other(
    desk: Desk, batches: Batches
) -> None:
    told: list[BaseException | None] = []
    threads: list[str] = []
    done = threading.Event()

    def tell(future: StandardFuture[Any]) -> None:
        told.append(future.exception())
        threads.append(threading.current_thread().name)
        done.set()
        raise bodies.Refusal("joblib itself fails")

    desk.refusing = True
    batches.add(list, tell)
    assert done.wait(10)
    assert isinstance(told[0], holdfast.NotSerializableError)
    assert threads == ["holdfast-joblib"], "the client's own thread runs nothing of joblib's"
    done.clear()
    batches.add(list, tell)
    assert done.wait(10), "what fails in joblib does not end the thread"


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("joblib") / ".holdfast"


@pytest.fixture(scope="module")
def hf(state_dir: Path) -> Iterator[Client]:
    with wiring.connect(state_dir=state_dir) as client:
        yield client
        told = endpoint.read(state_dir)
        workers = [worker["pid"] for worker in client.workers()]
    assert told is not None
    for pid in (told.pid, *workers):
        stop(pid)


@pytest.fixture
def here(hf: Client) -> Iterator[Client]:
    """Joblib's batches go to this client."""
    holdfast.register_joblib(hf)
    with joblib.parallel_config(backend="holdfast"):
        yield hf


def call(function: Callable[..., Any], *args: Any) -> list[Any]:
    return [joblib.delayed(function)(number, *args) for number in range(6)]


def test_a_call_of_joblib(here: Client) -> None:
    assert joblib.Parallel()(call(bodies.double)) == [0, 2, 4, 6, 8, 10]
    assert joblib.Parallel(n_jobs=2, batch_size=4)(call(bodies.double)) == [0, 2, 4, 6, 8, 10]
    local = 3
    assert joblib.Parallel()(call(lambda number: number * local)) == [0, 3, 6, 9, 12, 15]
    names = {task["function"] for task in here.list(limit=100)}
    assert "holdfast.contrib.joblib:run_batch" in names
    assert joblib.effective_n_jobs(3) == 3
    assert joblib.effective_n_jobs(-1) == max(2, here.executor().slots)
    with pytest.raises(ValueError, match="n_jobs == 0"):
        joblib.Parallel(n_jobs=0)(call(bodies.double))


def test_one_job_is_a_loop_in_this_process(here: Client) -> None:
    before = len(here.list(limit=500))
    kept: list[int] = []
    joblib.Parallel(n_jobs=1)(call(kept.append))
    assert kept == [0, 1, 2, 3, 4, 5]
    assert len(here.list(limit=500)) == before


def test_an_exception_comes_through_and_the_next_call_is_whole(here: Client) -> None:
    with pytest.raises(bodies.Refusal) as caught:
        joblib.Parallel(n_jobs=2)(call(bodies.refuse))
    assert "bodies.py" in str(caught.value.__cause__), "the remote traceback is the cause"
    with joblib.Parallel(n_jobs=2) as parallel:
        with pytest.raises(bodies.Refusal):
            parallel(call(bodies.refuse))
        assert parallel(call(bodies.double)) == [0, 2, 4, 6, 8, 10]
    with pytest.raises(holdfast.NotSerializableError, match="lock"):
        joblib.Parallel(n_jobs=2)([joblib.delayed(print)(threading.Lock())])


def test_generators_of_one_block_do_not_end_each_other(here: Client) -> None:
    first = joblib.Parallel(n_jobs=2, return_as="generator")(call(bodies.double))
    second = joblib.Parallel(n_jobs=2, return_as="generator_unordered")(call(bodies.double))
    assert sorted(second) == [0, 2, 4, 6, 8, 10]
    assert list(first) == [0, 2, 4, 6, 8, 10]
    assert joblib.Parallel()(call(bodies.double)) == [0, 2, 4, 6, 8, 10]


def test_a_killed_process_does_not_lose_the_call(here: Client, tmp_path: Path) -> None:
    calls = call(bodies.die_once, str(tmp_path))
    assert joblib.Parallel(n_jobs=2, batch_size=2)(calls) == [0, 1, 2, 3, 4, 5]
    assert (tmp_path / "killed").exists()


@pytest.mark.parametrize("backend", [None, "holdfast"])
def test_joblib_within_a_task_uses_threads_or_a_loop(here: Client, backend: str | None) -> None:
    used = joblib.Parallel(n_jobs=2)(call(bodies.nested, backend))
    first = "ThreadingBackend" if backend is None else "SequentialBackend"
    assert {outer for outer, _ in used} == {first}
    assert {inner for _, inner in used} <= {"SequentialBackend", "ThreadingBackend"}


def test_a_task_that_registers_as_well_does_not_wait_for_tasks(
    here: Client, state_dir: Path
) -> None:
    found = here.submit(bodies.register_again, str(state_dir)).result(30)
    assert found == [0, 2, 4]


def test_cross_validation_and_a_grid(here: Client) -> None:
    samples, labels = make_classification(200, random_state=0)
    model = LogisticRegression(C=0.1)
    with joblib.parallel_config(backend="sequential"):
        expected = cross_val_score(model, samples, labels, cv=4)
    assert list(cross_val_score(model, samples, labels, cv=4)) == list(expected)
    grid = GridSearchCV(model, {"C": [0.1, 1.0]}, cv=2).fit(samples, labels)
    assert set(grid.best_params_) == {"C"}


def test_where_joblib_is_missing_it_is_told() -> None:
    program = (
        "import sys; sys.modules['joblib'] = None\n"
        "import holdfast\n"
        "try: holdfast.register_joblib(None)\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install 'joblib>=1.5'" in done.stdout
