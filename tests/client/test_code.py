"""Functions on their way: each is held and counted once, as long as a submission needs it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.client.code import HeldCode
from holdfast.client.future import Future
from holdfast.errors import ConnectionLostError
from holdfast.model.messages import Accepted, PutCode, Refused, Submit
from holdfast.model.task import Spec
from tests.client.scripted import Scripted, client_of

LARGE_BYTES = 150_000


def test_bytes_are_held_once_and_until_the_last_need() -> None:
    held = HeldCode()
    first, twin = b"x" * 100, bytes(bytearray(b"x" * 100))
    held.hold(b"1", first)
    held.hold(b"1", twin)
    held.hold(b"2", b"y")
    assert held.held_bytes == 101
    assert held.bytes_of(b"1") is first
    held.let_go([b"1", b"2"])
    assert held.held_bytes == 100
    held.let_go([b"1"])
    assert held.held_bytes == 0
    with pytest.raises(KeyError):
        held.bytes_of(b"1")


def closure(number: int) -> Callable[[], int]:
    """Return a function that pickles to many bytes, others for each number."""
    enclosed = hashlib.sha256(str(number).encode()).hexdigest() * (LARGE_BYTES // 64)
    return lambda: len(enclosed)


def test_functions_count_against_the_bound_on_bytes(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.accepting = scripted.settling = False
    futures: list[Future[int]] = []
    with client_of(scripted, tmp_path, submissions_bytes_max=10 * LARGE_BYTES) as client:

        def submit_many() -> None:
            futures.extend(client.submit(closure(number)) for number in range(30))

        thread = threading.Thread(target=submit_many)
        thread.start()
        scripted.wait_for("ten came", lambda: len(scripted.code) == 10)
        thread.join(0.1)
        assert thread.is_alive(), "the submitting thread waits"
        assert len(scripted.code) == 10
        scripted.accepting = scripted.settling = True
        scripted.cut()
        thread.join(20)
        assert {future.result(20) for future in futures} == {LARGE_BYTES // 64 * 64}
        assert len(futures) == 30
        assert client._intake.held_bytes == 0


def test_tasks_of_one_function_count_it_once(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.accepting = scripted.settling = False
    with client_of(scripted, tmp_path, submissions_bytes_max=2 * LARGE_BYTES) as client:
        function = closure(1)
        futures = [client.submit(function) for _ in range(200)]
        scripted.wait_for(
            "all came", lambda: sum(len(m.specs) for m in scripted.read(Submit)) == 200
        )
        assert len(scripted.read(PutCode)) == 1
        scripted.say(Accepted(tuple(future._task_id for future in futures[:199])))
        futures[198].wait_accepted(10)
        assert client._intake.held_bytes > LARGE_BYTES, "one more needs it"
        scripted.say(Accepted((futures[199]._task_id,)))
        futures[199].wait_accepted(10)
        assert client._intake.held_bytes == 0


def test_what_is_refused_for_good_or_ends_with_its_client_is_let_go(tmp_path: Path) -> None:
    scripted = Scripted()

    def refuse(spec: Spec) -> Refused | None:
        return Refused(spec.id, "invalid_input", "no") if scripted.accepting else None

    scripted.refuse = refuse
    with client_of(scripted, tmp_path) as client:
        assert client.submit(closure(1)).exception(10) is not None
        assert client._intake.held_bytes == 0
        scripted.accepting = scripted.settling = False
        scripted.cut()
        lost = client.submit(closure(2))
        scripted.wait_for("it came", lambda: len(scripted.read(Submit)) == 2)
        scripted.store = "another"
        scripted.cut()
        assert isinstance(lost.exception(10), ConnectionLostError)
        assert client._intake.held_bytes == 0


def test_a_batch_of_functions_is_bounded(tmp_path: Path) -> None:
    scripted = Scripted()
    with client_of(scripted, tmp_path) as client:
        scripted.up = False
        scripted.cut()
        futures = [client.submit(closure(number)) for number in range(20)]
        scripted.up = True
        assert all(future.result(20) for future in futures)
    between = 0
    for session in scripted.sessions:
        for message in session.read:
            between = 0 if isinstance(message, Submit) else between + isinstance(message, PutCode)
            assert between <= 1, "each goes with its own tasks"
