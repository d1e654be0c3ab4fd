"""Wishes to cancel that nobody waits for: all are said, beyond each bound and over each break."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from holdfast.client import cancelling, exchange
from holdfast.client.client import Client
from holdfast.client.future import Future
from holdfast.errors import ChannelClosedError
from holdfast.model.ids import TaskId
from holdfast.model.messages import Ask, Refused, Reply, SetWanted
from holdfast.model.task import State
from tests.client import work
from tests.client.scripted import Conversation, Scripted, client_of

MANY = 100
AT_ONCE = 5


@pytest.fixture(autouse=True)
def _low_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "OPEN_MAX", 3 * AT_ONCE)
    monkeypatch.setattr(cancelling, "AT_ONCE_MAX", AT_ONCE)


@pytest.fixture
def scripted() -> Scripted:
    made = Scripted()
    made.settling = False
    return made


@pytest.fixture
def client(scripted: Scripted, tmp_path: Path) -> Iterator[Client]:
    with client_of(scripted, tmp_path) as client:
        yield client


def accepted(client: Client, count: int = MANY) -> list[Future[Any]]:
    futures: list[Future[Any]] = [client.submit(work.double, n) for n in range(count)]
    futures[-1].wait_accepted(10)
    return futures


def wished(scripted: Scripted) -> list[TaskId]:
    return [message.task for message in scripted.read(SetWanted)]


def test_a_shutdown_cancels_all_in_order_within_the_bound(
    client: Client, scripted: Scripted
) -> None:
    executor = client.executor()
    futures = [executor.submit(work.double, n) for n in range(MANY)]
    executor.shutdown(wait=True, cancel_futures=True)
    assert all(future.cancelled() for future in futures)
    assert wished(scripted) == [future._task_id for future in futures]


def test_few_are_said_at_once(client: Client, scripted: Scripted) -> None:
    futures = accepted(client)
    held: list[tuple[Any, ...]] = []
    answer, scripted.cancel = scripted.cancel, lambda *given: held.append(given)
    client.cancel_waiting(futures)
    scripted.wait_for("some are said", lambda: len(held) == AT_ONCE)
    scripted.cancel = answer

    def answer_all() -> None:
        for given in held:
            answer(*given)

    scripted.do(answer_all)
    scripted.wait_for("all are cancelled", lambda: len(wished(scripted)) == MANY)


def test_a_map_that_is_closed_cancels_all_that_waits(client: Client, scripted: Scripted) -> None:
    results = client.map(work.double, range(MANY), buffersize=MANY)
    scripted.wait_for("all are there", lambda: len(scripted.specs) == MANY)
    first = next(iter(scripted.specs.values()))
    scripted.do(lambda: scripted.end(scripted.sessions[-1], first))
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    scripted.wait_for("all are cancelled", lambda: len(wished(scripted)) == MANY - 1)


def test_closing_waits_until_all_are_said(scripted: Scripted, tmp_path: Path) -> None:
    with client_of(scripted, tmp_path) as client:
        executor = client.executor()
        futures = [executor.submit(work.double, n) for n in range(MANY)]
        executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in futures)


def test_a_break_changes_nothing(client: Client, scripted: Scripted) -> None:
    futures = accepted(client)
    said = 0
    answer = scripted.cancel

    def break_at_times(*given: Any) -> None:
        nonlocal said
        said += 1
        if said in (7, 30):
            raise ChannelClosedError("scripted")
        answer(*given)

    scripted.cancel = break_at_times
    client.cancel_waiting(futures)
    scripted.wait_for("all are cancelled", lambda: set(futures_of(scripted)) == set(ids(futures)))
    assert len(scripted.sessions) == 3


def futures_of(scripted: Scripted) -> list[TaskId]:
    return [task for task, end in scripted.ended.items() if end.state is State.CANCELLED]


def ids(futures: list[Future[Any]]) -> list[TaskId]:
    return [future._task_id for future in futures]


def test_what_runs_or_has_ended_is_left_alone(client: Client, scripted: Scripted) -> None:
    futures = accepted(client, 20)
    scripted.states[futures[3]._task_id] = "running"
    scripted.do(lambda: scripted.end(scripted.sessions[-1], scripted.specs[futures[5]._task_id]))
    assert futures[5].result(10) == 10
    client.cancel_waiting(futures)
    rest = [future for n, future in enumerate(futures) if n not in (3, 5)]
    scripted.wait_for("the rest is cancelled", lambda: set(ids(rest)) <= set(futures_of(scripted)))
    assert wished(scripted) == [future._task_id for n, future in enumerate(futures) if n != 5]
    assert all(message.waiting for message in scripted.read(SetWanted))
    assert not futures[3].done()
    assert not scripted.read(Ask)


def test_submissions_on_their_way_are_cancelled_once_they_are_kept(
    client: Client, scripted: Scripted
) -> None:
    early = accepted(client, 3)
    scripted.refuse = lambda spec: Refused(spec.id, "no_room", "no room", 0.001)
    late = [client.submit(work.double, n) for n in range(AT_ONCE + 1)]
    never = client.submit(work.double, 77)
    client.cancel_waiting([*late, never, *early])
    scripted.wait_for("what is kept is cancelled", lambda: wished(scripted) == ids(early))
    for_good = never._task_id

    def judge(spec: Any) -> Refused | None:
        return Refused(spec.id, "invalid_input", "no") if spec.id == for_good else None

    scripted.refuse = judge
    scripted.wait_for("the late ones too", lambda: len(wished(scripted)) == len(early + late))
    assert set(wished(scripted)) == set(ids(early + late))


def test_callbacks_may_cancel_beyond_the_bound(client: Client, scripted: Scripted) -> None:
    first, *rest = accepted(client)
    scripted.states[rest[-1]._task_id] = "running"
    said: list[bool] = []

    def cancel_rest(_: object) -> None:
        said.extend(future.cancel() for future in rest)

    first.add_done_callback(cancel_rest)
    scripted.do(lambda: scripted.end(scripted.sessions[-1], scripted.specs[first._task_id]))
    scripted.wait_for("all are wished", lambda: len(wished(scripted)) == len(rest))
    assert wished(scripted) == ids(rest)
    assert said == [True] * len(rest)
    assert not any(message.waiting for message in scripted.read(SetWanted))


def test_questions_at_the_bound_do_not_stop_it(client: Client, scripted: Scripted) -> None:
    futures = accepted(client)
    answer = scripted.ask

    def hold(session: Conversation, ref: int, question: str, given: dict[str, Any]) -> None:
        if question != "stats":
            answer(session, ref, question, given)

    scripted.ask = hold
    threads = [threading.Thread(target=partial(ask, client)) for _ in range(exchange.ASKED_MAX - 1)]
    for thread in threads:
        thread.start()
    scripted.wait_for("they are asked", lambda: len(scripted.read(Ask)) == len(threads))
    for number in range(exchange.OPEN_MAX - len(threads)):
        held = threading.Thread(target=partial(wish, client, futures[number]))
        threads.append(held)
    scripted.cancel, cancel = (lambda *given: None), scripted.cancel
    for thread in threads[exchange.ASKED_MAX - 1 :]:
        thread.start()
    scripted.wait_for(
        "the bound is reached",
        lambda: len(scripted.read(SetWanted)) + len(scripted.read(Ask)) == exchange.OPEN_MAX,
    )
    scripted.cancel = cancel
    client.cancel_waiting(futures[MANY // 2 :])
    scripted.wait_for(
        "they are cancelled", lambda: set(ids(futures[MANY // 2 :])) <= set(futures_of(scripted))
    )
    scripted.ask = answer
    scripted.cut()
    for thread in threads:
        thread.join(10)


def ask(client: Client) -> None:
    with pytest.raises(Exception, match="stats"):
        client.stats()


def wish(client: Client, future: Future[Any]) -> None:
    assert future.cancel()


def test_what_closing_leaves_unsaid_is_told(
    client: Client, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    futures = accepted(client)
    scripted.cancel = lambda *given: None
    client.cancel_waiting(futures)
    scripted.wait_for("some are said", lambda: scripted.read(SetWanted))
    client.close(timeout=0.05)
    (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"{MANY} tasks" in told.getMessage()


def test_what_cannot_be_cancelled_is_told_once(
    client: Client, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    futures = accepted(client, 9)
    answer = scripted.cancel

    def refuse(session: Conversation, ref: int, task: TaskId, waiting: bool) -> None:
        if task in (futures[2]._task_id, futures[8]._task_id):
            session.out.append(Reply(ref, None, "broken", "the store is not read"))
        elif task == futures[4]._task_id:
            session.out.append(Reply(ref, None, "unknown_task", "it was pruned"))
        else:
            answer(session, ref, task, waiting)

    scripted.cancel = refuse
    client.cancel_waiting(futures)
    scripted.wait_for("the rest is cancelled", lambda: len(futures_of(scripted)) == 6)
    client.close()
    (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "2 tasks" in told.getMessage()
    assert "the store is not read" in told.getMessage()
