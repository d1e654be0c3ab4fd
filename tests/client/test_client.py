"""The client against a scripted coordinator: submission, results, errors, the end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from holdfast import task
from holdfast.client.future import Future
from holdfast.errors import (
    ConnectionLostError,
    InvalidInputError,
    KeyConflictError,
    NoCoordinatorError,
    NotSerializableError,
    ProtocolError,
    RefusedError,
    ResultUnreadableError,
    TaskCancelledError,
    TaskFailedError,
    UnknownTaskError,
)
from holdfast.model.messages import (
    Accepted,
    Ask,
    PutCode,
    Refused,
    Settled,
    SetWanted,
    Submit,
    Watch,
)
from holdfast.model.outcome import Failure, Payload, Reason
from holdfast.model.task import Spec, State
from tests.client import work
from tests.client.scripted import Scripted, client_of
from tests.client.work import Refusal
from tests.conftest import Eventually


def test_a_result_comes_back(tmp_path: Path) -> None:
    with client_of(Scripted(), tmp_path) as client:
        future = client.submit(work.double, 21)
        assert future.result(10) == 42
        assert future.exception() is None
        assert future.done()
        assert future.accepted
        assert not future.cancelled()
        assert not future.running()
        assert future.cancel() is False
        assert repr(future) == f"<Future {future.id} finished>"


def test_kinds_of_functions(tmp_path: Path) -> None:
    scripted = Scripted()
    base = 100
    with client_of(scripted, tmp_path) as client:
        assert client.submit(lambda x: x + base, 1).result(10) == 101
        assert client.submit(work.later, 1).result(10) == 2
        assert client.submit(work.total, 1, 2, 3).result(10) == 6
        assert client.submit(work.swallow, a=(1, 2)).result(10) == {"a": (1, 2)}
        assert client.submit(len, [1]).result(10) == 1
    first, later, plain, pickled, _ = scripted.specs.values()
    assert first.code in scripted.code
    assert later.concurrent
    assert (plain.python, plain.function) == ("", f"{work.__name__}:total")
    assert pickled.python


def test_a_function_is_sent_once_a_session_and_pickled_at_each_submission(tmp_path: Path) -> None:
    scripted = Scripted()
    value = 1
    with client_of(scripted, tmp_path) as client:

        def local() -> int:
            return value

        assert [client.submit(local).result(10) for _ in range(3)] == [1, 1, 1]
        assert len(scripted.read(PutCode)) == 1
        value = 2
        assert client.submit(local).result(10) == 2
        assert len(scripted.read(PutCode)) == 2


def test_a_function_is_sent_again_with_what_was_refused_for_now(tmp_path: Path) -> None:
    scripted = Scripted()
    times = 3
    base = 40

    def refuse(spec: Spec) -> Refused | None:
        nonlocal times
        times -= 1
        if times > 0:
            # A full disk takes neither the task nor its function.
            scripted.code.clear()
            return Refused(spec.id, "no_room", "later", 0.01)
        return None

    scripted.refuse = refuse
    with client_of(scripted, tmp_path) as client:
        assert client.submit(lambda x: x + base, 2).result(10) == 42
    said = [type(message) for message in scripted.sessions[0].read]
    assert said[1:7] == [PutCode, Submit] * 3


def test_options_reach_the_spec(tmp_path: Path) -> None:
    scripted = Scripted()
    with client_of(scripted, tmp_path) as client:
        client.submit(work.double, 1, key="page-1", priority=5, delay=10).result(10)
        client.submit(work.labelled.options(key="k"), 1, key="own").result(10)
        client.submit(task(work.swallow).options(queue="q"), key="x").result(10)
    first, second, third = scripted.specs.values()
    assert (first.key, first.priority, first.due_ms - first.submitted_ms) == ("page-1", 5, 10_000)
    assert (second.key, second.queue, second.tags) == ("k", "bulk", ("big", "gpu"))
    assert (third.queue, third.tags, third.key) == ("q", (), "")


class Taken:
    """A blob store that takes all and keeps nothing."""

    async def put(self, path: str, payload: Payload) -> None:
        return

    async def fetch(self, digest: bytes, path: str) -> None:
        raise AssertionError("nothing is fetched here")


def test_what_is_pickled_has_a_likeness_where_there_is_a_key(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.run = lambda spec: Settled(spec.id, State.SUCCEEDED, Reason.NONE, None, None)
    base = 40
    none = bytes(32)
    with client_of(scripted, tmp_path, blobs=Taken()) as client:
        for key in ("", "k"):
            client.submit(work.double.options(key=key), 1).result(10)
            client.submit(task(work.swallow_one).options(key=key), (1,)).result(10)
            client.submit(task(lambda x: x + base).options(key=key), 1).result(10)
            client.submit(task(lambda x: x + base).options(key=key), (1,)).result(10)
            client.submit(task(work.swallow_one).options(key=key), (b"x" * 100_000,)).result(10)
    likenesses = [spec.likeness for sent in scripted.read(Submit) for spec in sent.specs]
    assert likenesses[:6] == [b""] * 6
    arguments, function, both, large = likenesses[6:]
    assert (arguments[:32], function[32:], large[:32]) == (none, none, none)
    assert both == function[:32] + arguments[32:]
    assert none not in (arguments[32:], function[:32], large[32:])


def test_what_does_not_serialise_is_named_and_nothing_is_submitted(tmp_path: Path) -> None:
    scripted = Scripted()
    with client_of(scripted, tmp_path) as client:
        with pytest.raises(NotSerializableError, match="argument 1"):
            client.submit(work.total, 1, threading.Lock())  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match=r"options\(\)"):
            client.submit(work.labelled, 1, key="x")
    assert not scripted.specs


def test_an_exception_comes_back_as_itself(tmp_path: Path) -> None:
    with client_of(Scripted(), tmp_path) as client:
        future = client.submit(work.fail, "no")
        with pytest.raises(Refusal, match="no") as caught:
            future.result(10)
        assert "in fail" in str(caught.value.__cause__)
        assert future.exception() is caught.value


def test_other_ends_are_told(tmp_path: Path) -> None:
    scripted = Scripted()
    ends = [
        (State.FAILED, Reason.LOST, None),
        (State.FAILED, Reason.CRASHED, Failure(evidence="signal 9")),
        (State.FAILED, Reason.TIMEOUT, Failure(types=("x.Gone",), message="too long")),
    ]

    def end(spec: Spec) -> Settled:
        state, reason, failure = ends.pop(0)
        return Settled(spec.id, state, reason, None, failure)

    scripted.run = end
    with client_of(scripted, tmp_path) as client:
        for reason, said in (("lost", "lost"), ("crashed", "signal 9"), ("timeout", "too long")):
            with pytest.raises(TaskFailedError, match=said) as caught:
                client.submit(work.double, 1).result(10)
            assert caught.value.reason == reason


def test_a_result_that_does_not_unpickle_is_an_error_of_its_own(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.run = lambda spec: Settled(spec.id, State.SUCCEEDED, Reason.NONE, spec.payload, None)
    with client_of(scripted, tmp_path) as client:
        future = client.submit(work.swallow, a=Unreadable())
        with pytest.raises(ResultUnreadableError, match=f"{future.id} succeeded") as caught:
            future.result(10)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


class Unreadable:
    def __reduce__(self) -> tuple[object, tuple[int, int]]:
        return divmod, (1, 0)


def test_refusals(tmp_path: Path) -> None:
    scripted = Scripted()
    codes = ["key_conflict", "invalid_input", "policy"]
    scripted.refuse = lambda spec: Refused(spec.id, codes.pop(0), "because")
    with client_of(scripted, tmp_path) as client:
        for kind in (KeyConflictError, InvalidInputError, RefusedError):
            future = client.submit(work.double, 1)
            with pytest.raises(kind, match="because"):
                future.wait_accepted(10)
            assert not future.accepted


def test_an_overloaded_coordinator_is_asked_again_by_itself(tmp_path: Path) -> None:
    scripted = Scripted()
    times = 3

    def refuse(spec: Spec) -> Refused | None:
        nonlocal times
        times -= 1
        return Refused(spec.id, "overloaded", "later", 0.01) if times > 0 else None

    scripted.refuse = refuse
    with client_of(scripted, tmp_path) as client:
        assert client.submit(work.double, 3).result(10) == 6
    assert len(scripted.read(Submit)) == 3
    assert not any(message.again for message in scripted.read(Submit))


def test_who_waits_for_a_full_coordinator_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scripted = Scripted()
    full = [True]
    scripted.refuse = lambda spec: Refused(spec.id, "no_room", "no room", 0.01) if full[0] else None
    with client_of(scripted, tmp_path) as client:
        future = client.submit(work.double, 3)
        with pytest.raises(TimeoutError, match=r"not accepted in 0.2 s: no room; .* submit it"):
            future.result(0.2)
        with pytest.raises(TimeoutError, match="not accepted"):
            future.wait_accepted(0.1)
        full[0] = False
        assert future.result(10) == 6
        assert client.held_back == ""
    # Once, however often it was refused.
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "no room" in caplog.text


def test_timeouts_leave_the_task_alone(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    with client_of(scripted, tmp_path) as client:
        future = client.submit(work.double, 3)
        with pytest.raises(TimeoutError, match="it goes on"):
            future.result(0.01)
        with pytest.raises(TimeoutError):
            future.exception(0)
        future.wait_accepted(10)
        scripted.settle_open()
        assert future.result(10) == 6


@pytest.mark.parametrize("timeout", [float("inf"), pytest.param(10**400, id="huge"), 1e300, 10**10])
def test_a_timeout_may_be_without_end(timeout: float, tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    with client_of(scripted, tmp_path, connect_seconds=timeout) as client:
        futures = [client.submit(work.double, n) for n in range(3)]
        results = client.map(work.double, [3], timeout=timeout)
        threading.Timer(0.05, scripted.settle_open).start()
        assert futures[0].result(timeout) == 0
        assert len(list(client.as_completed(futures, timeout))) == 3
        assert list(results) == [6]
        client.close(timeout)


@pytest.mark.parametrize("timeout", [float("nan"), "1", "soon", [], 1j])
def test_a_timeout_is_a_number_of_seconds(timeout: Any, tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    with client_of(scripted, tmp_path) as client:
        future = client.submit(work.double, 1)
        for wait in (
            future.result,
            future.exception,
            lambda timeout: client.map(work.double, [1], timeout=timeout),
            lambda timeout: client.as_completed([future], timeout),
            client.close,
        ):
            with pytest.raises(InvalidInputError, match="timeout="):
                wait(timeout)


def test_waiting_for_acceptance_alone(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.accepting = scripted.settling = False
    with client_of(scripted, tmp_path) as client:
        future = client.submit(work.double, 3)
        with pytest.raises(TimeoutError):
            future.wait_accepted(0.01)
        scripted.accepting = scripted.settling = True
        scripted.cut()
        future.wait_accepted(10)
        assert future.accepted


def test_a_load_makes_batches(tmp_path: Path) -> None:
    scripted = Scripted()
    with client_of(scripted, tmp_path) as client:
        futures = [client.submit(work.double, number) for number in range(3000)]
        assert [future.result(20) for future in futures] == [2 * n for n in range(3000)]
    batches = [len(message.specs) for message in scripted.read(Submit)]
    assert sum(batches) == 3000
    assert max(batches) <= 256
    assert len(batches) < 1000
    assert list(scripted.specs) == sorted(scripted.specs)


def test_many_threads_share_a_client(tmp_path: Path) -> None:
    scripted = Scripted()
    with client_of(scripted, tmp_path, submissions_max=100) as client:

        def submit(start: int) -> int:
            futures = [client.submit(work.double, start + n) for n in range(200)]
            return sum(future.result(30) for future in futures)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            sums = list(pool.map(submit, range(0, 8000, 1000)))
    assert sums == [sum(2 * (start + n) for n in range(200)) for start in range(0, 8000, 1000)]


def test_submission_waits_at_the_bound(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.accepting = False
    with client_of(scripted, tmp_path, submissions_max=4) as client:
        futures = [client.submit(work.double, n) for n in range(4)]
        entered, through = threading.Event(), threading.Event()

        def fifth() -> None:
            entered.set()
            futures.append(client.submit(work.double, 4))
            through.set()

        thread = threading.Thread(target=fifth)
        thread.start()
        assert entered.wait(10)
        assert not through.wait(0.05)
        scripted.accepting = True
        scripted.cut()
        assert through.wait(10)
        thread.join(10)
        assert [future.result(10) for future in futures] == [0, 2, 4, 6, 8]


def test_a_second_submission_of_a_key_is_the_same_task(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    with client_of(scripted, tmp_path) as client:
        first = client.submit(work.double, 5, key="k")
        first.wait_accepted(10)
        second = client.submit(work.double, 5, key="k")
        second.wait_accepted(10)
        assert second.id == first.id
        scripted.settle_open()
        assert (first.result(10), second.result(10)) == (10, 10)


def test_a_task_is_found_again_by_its_id_or_its_beginning(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    with client_of(scripted, tmp_path) as client:
        submitted = client.submit(work.double, 5)
        submitted.wait_accepted(10)
        whole = client.future(submitted.id)
        part = client.future(submitted.id[:13])
        scripted.settle_open()
        assert [f.result(10) for f in (submitted, whole, part)] == [10, 10, 10]
        assert client.future(submitted.id).result(10) == 10
        with pytest.raises(UnknownTaskError):
            client.future("0000")
        with pytest.raises(UnknownTaskError):
            client.future("0" * 32).result(10)


@pytest.mark.parametrize("letters", [36, 20])
@pytest.mark.parametrize("verb", ["status", "why", "story", "cancel", "future"])
def test_a_task_of_ours_is_asked_about_once_it_is_accepted(
    verb: str, letters: int, tmp_path: Path, eventually: Eventually
) -> None:
    scripted = Scripted()
    scripted.accepting = scripted.settling = False
    scripted.answers = {"why": {"why": "w"}, "story": ["submitted"]}
    with client_of(scripted, tmp_path) as client, ThreadPoolExecutor() as pool:
        future = client.submit(work.double, 5)
        asked = pool.submit(lambda: getattr(client, verb)(future.id[:letters]))
        scripted.wait_for("it is submitted", lambda: scripted.read(Submit))
        eventually("the question waits", lambda: client._session._book.kept_calls)
        assert not scripted.read(Ask) + scripted.read(SetWanted) + scripted.read(Watch)
        scripted.say(Accepted((future._task_id,)))
        said = asked.result(10)
        if verb == "future":
            scripted.settle_open()
            assert (said.accepted, said.result(10), future.result(10)) == (True, 10, 10)
        else:
            assert scripted.read(SetWanted if verb == "cancel" else Ask)


def test_the_beginning_of_an_id_waits_for_all_that_it_may_mean(
    tmp_path: Path, eventually: Eventually
) -> None:
    scripted = Scripted()
    scripted.accepting = scripted.settling = False
    with client_of(scripted, tmp_path) as client, ThreadPoolExecutor() as pool:
        futures = [client.submit(work.double, number) for number in range(3)]
        asked = pool.submit(lambda: client.status(futures[0].id[:2]))
        scripted.wait_for("they are submitted", lambda: len(scripted.specs) == 3)
        eventually("the question waits", lambda: len(client._session._book.kept_calls) == 3)
        scripted.say(Accepted(tuple(future._task_id for future in futures[1:])))
        futures[2].wait_accepted(10)
        assert not scripted.read(Ask)
        scripted.say(Accepted((futures[0]._task_id,)))
        with pytest.raises(UnknownTaskError, match="several"):
            asked.result(10)


def test_a_question_about_a_task_that_is_not_accepted_in_time(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.accepting = False
    with client_of(scripted, tmp_path, answer_seconds=0.05) as client:
        future = client.submit(work.double, 5)
        with pytest.raises(TimeoutError):
            client.status(future.id)
        scripted.wait_for("it is submitted", lambda: scripted.read(Submit))
        scripted.say(Accepted((future._task_id,)))


def test_the_id_before_a_key_was_known_leads_to_the_task_too(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    with client_of(scripted, tmp_path) as client:
        first = client.submit(work.double, 5, key="k")
        first.wait_accepted(10)
        early = client.submit(work.double, 5, key="k").id
        assert client.status(early)["id"] == first.id
        assert client.status(early)["id"] == first.id
        again = client.future(early)
        again.wait_accepted(10)
        assert again.id == first.id
        assert client.cancel(early)["id"] == first.id


def test_a_future_of_a_task_that_is_never_accepted_ends_with_the_client(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.accepting = False
    with client_of(scripted, tmp_path) as client:
        again = client.future(client.submit(work.double, 5).id)
        with pytest.raises(ConnectionLostError):
            client.close(timeout=0.05)
    with pytest.raises(ConnectionLostError):
        again.result(10)


@pytest.mark.parametrize("task", [None, 5, b"01"])
def test_what_is_no_id_is_told(task: Any, tmp_path: Path) -> None:
    with client_of(Scripted(), tmp_path) as client:
        for find in (client.future, client.cancel):
            with pytest.raises(InvalidInputError, match=r"is not the id of a task"):
                find(task)


def test_cancel_of_a_waiting_task(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    with client_of(scripted, tmp_path) as client:
        future = client.submit(work.double, 5)
        assert future.cancel() is True
        assert future.cancelled()
        assert future.cancel() is True
        for kind in (TaskCancelledError, concurrent.futures.CancelledError):
            with pytest.raises(kind):
                future.result(10)
        other = client.submit(work.double, 5)
        other.wait_accepted(10)
        assert client.cancel(other.id[:-3])["state"] == "cancelled"
        assert other.cancelled()


def test_cancel_of_a_running_task_is_asked(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    with client_of(scripted, tmp_path) as client:
        future = client.submit(work.double, 5)
        future.wait_accepted(10)
        scripted.states[future._task_id] = "running"
        assert future.cancel() is True
        assert not future.done()
        scripted.settle_open(State.SUCCEEDED)
        assert future.result(10) is None


def test_callbacks_and_the_standard_waits(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    called: list[object] = []
    with client_of(scripted, tmp_path) as client:
        futures: list[Future[int]] = [client.submit(work.double, n) for n in range(5)]
        futures[0].add_done_callback(called.append)
        futures[0].add_done_callback(lambda future: 1 / 0)
        assert concurrent.futures.wait(futures, 0.01).done == set()
        futures[4].wait_accepted(10)
        scripted.settle_open()
        assert concurrent.futures.wait(futures, 10).not_done == set()
        assert {f.result() for f in client.as_completed(futures, 10)} == {0, 2, 4, 6, 8}
        assert called == [futures[0]]
        futures[1].add_done_callback(called.append)
        assert called == [futures[0], futures[1]]
        raised = [client.submit(work.fail, "x"), client.submit(work.double, 1)]
        raised[1].wait_accepted(10)
        scripted.do(lambda: scripted.end(scripted.sessions[-1], list(scripted.specs.values())[5]))
        done = concurrent.futures.wait(raised, 10, concurrent.futures.FIRST_EXCEPTION).done
        assert done == {raised[0]}


@pytest.mark.parametrize(
    "error", [SystemExit(5), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()]
)
def test_a_callback_that_would_end_a_program_ends_nothing(
    error: BaseException, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scripted = Scripted()
    scripted.settling = False

    def leave(_: object) -> None:
        raise error

    with client_of(scripted, tmp_path) as client:
        future = client.submit(work.double, 1)
        future.add_done_callback(leave)
        future.wait_accepted(10)
        scripted.settle_open()
        assert future.result(10) == 2
        scripted.settling = True
        assert client.submit(work.double, 2).result(10) == 4
    assert f"callback of <Future {future.id}" in caplog.text
    assert type(error).__name__ in caplog.text


def test_a_callback_must_not_wait_for_another_task(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    caught: list[BaseException | None] = []
    done = threading.Event()
    with client_of(scripted, tmp_path) as client:
        first, second = client.submit(work.double, 1), client.submit(work.double, 2)

        def wait_within(_: object) -> None:
            try:
                second.result(1)
            except InvalidInputError as error:
                caught.append(error)
            done.set()

        first.add_done_callback(wait_within)
        second.wait_accepted(10)
        scripted.do(lambda: scripted.end(scripted.sessions[-1], scripted.specs[first._task_id]))
        assert done.wait(10)
        assert "another thread" in str(caught[0])


def test_questions(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.answers = {"workers": [], "stats": {"x": 1}, "story": [1], "why": {"why": "w"}}
    scripted.answers |= {"list": [{}], "drain": {"draining": True}}
    with client_of(scripted, tmp_path) as client:
        assert client.workers() == []
        assert client.stats() == {"x": 1}
        assert client.story("1") == [1]
        assert client.why("1") == {"why": "w"}
        assert client.list(states=["queued"]) == [{}]
        with pytest.raises(TypeError, match="state"):
            client.list(state="queued")  # type: ignore[call-arg]  # what a person misspells
        with pytest.raises(InvalidInputError, match=r"\['queued'\]"):
            client.list(states="queued")
        assert client.drain("w") == {"draining": True}
        with pytest.raises(UnknownTaskError):
            client.status("ff")
        with pytest.raises(RefusedError) as caught:
            client.ask("riddle")
        assert caught.value.code == "unknown_question"


@pytest.mark.parametrize(
    "parameters",
    [{"task": "\ud800"}, {"limit": 10**30}, {"task": object()}, {"task": "0" * 70_000}],
)
def test_a_question_that_cannot_travel_is_in_nobodys_way(
    parameters: dict[str, object], tmp_path: Path
) -> None:
    with client_of(Scripted(), tmp_path) as client:
        with pytest.raises(InvalidInputError, match="parameters of 'list'"):
            client.ask("list", **parameters)
        assert client.submit(work.double, 21).result(10) == 42


def test_closing_sends_what_is_on_its_way_and_ends_the_futures(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    with client_of(scripted, tmp_path) as client:
        futures = [client.submit(work.double, n) for n in range(500)]
        callback = threading.Event()
        futures[0].add_done_callback(lambda _: callback.set())
    assert len(scripted.specs) == 500
    assert callback.is_set()
    with pytest.raises(ConnectionLostError, match="tasks go on"):
        futures[-1].result(10)
    with pytest.raises(RefusedError, match="closed"):
        client.submit(work.double, 1)
    with pytest.raises(RefusedError, match="closed"):
        client.stats()
    client.close()


def test_closing_says_what_was_not_accepted(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.accepting = False
    with client_of(scripted, tmp_path) as client:
        client.submit(work.double, 1)
        with pytest.raises(ConnectionLostError, match="1 submissions"):
            client.close(timeout=0.05)


@pytest.mark.parametrize("seconds", [0, 0.25])
def test_closing_says_how_long_it_waited(tmp_path: Path, seconds: float) -> None:
    scripted = Scripted()
    scripted.accepting = False
    with client_of(scripted, tmp_path) as client:
        client.submit(work.double, 1)
        with pytest.raises(ConnectionLostError, match=f"1 submissions .* within {seconds} s of"):
            client.close(seconds)


def test_the_error_of_the_body_comes_before_the_one_of_closing(tmp_path: Path) -> None:
    scripted = Scripted()
    with pytest.raises(KeyError), client_of(scripted, tmp_path):
        raise KeyError("mine")


def test_nobody_answers(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.up = False
    with (
        pytest.raises(NoCoordinatorError, match="no coordinator answered"),
        client_of(scripted, tmp_path, connect_seconds=0.1),
    ):
        pass


def test_another_protocol_is_told(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.protocol = 2
    with pytest.raises(ProtocolError, match="this one speaks 2"), client_of(scripted, tmp_path):
        pass


def test_ctrl_c_in_result_leaves_the_task(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    with client_of(scripted, tmp_path) as client:
        future = client.submit(work.double, 2)
        future.wait_accepted(10)
        main = threading.get_ident()
        threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            future.result(10)
        assert not future.done()
        scripted.settle_open()
        assert future.result(10) == 4


def test_ctrl_c_at_the_exit_of_a_script_says_what_is_not_acknowledged(tmp_path: Path) -> None:
    program = """
        import signal, sys
        from pathlib import Path
        from tests.client import work
        from tests.client.scripted import Scripted, client_of

        scripted = Scripted()
        scripted.accepting = False
        made = client_of(scripted, Path(sys.argv[1]))
        client = made.__enter__()
        for number in range(3):
            client.submit(work.double, number)
        waits = client._intake.wait_empty

        def wait_empty(seconds):
            # A timer of the kernel: at the exit, Python from 3.12 on starts no thread any more.
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            return waits(seconds)

        client._intake.wait_empty = wait_empty
        print("printed", end="")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stderr == (
        "holdfast: interrupted; 3 submissions were not acknowledged, and whether they were kept "
        "is not known\n"
    )
    assert (done.stdout, done.returncode) == ("printed", 130)


def test_a_fork_is_told_to_connect_anew(tmp_path: Path) -> None:
    program = f"""
        import os, sys, warnings
        from pathlib import Path
        from tests.client import work
        from tests.client.scripted import Scripted, client_of
        from holdfast.errors import DefiniteError
        warnings.simplefilter("ignore")
        scripted = Scripted()
        scripted.settling = False
        with client_of(scripted, Path({str(tmp_path)!r})) as client:
            future = client.submit(work.double, 1)
            future.wait_accepted(10)
            pid = os.fork()
            if pid == 0:
                said = 0
                for use in (lambda: client.submit(work.double, 1), future.result, client.stats):
                    try:
                        use()
                    except DefiniteError as error:
                        said += "connect() anew" in str(error)
                os._exit(said)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    """
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_watching_nothing_is_said_without_need(tmp_path: Path) -> None:
    scripted = Scripted()
    with client_of(scripted, tmp_path) as client:
        client.submit(work.double, 1).result(10)
    assert not scripted.read(Watch)
