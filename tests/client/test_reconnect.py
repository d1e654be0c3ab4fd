"""What a break of the channel does to a client: nothing is lost, nothing is doubled."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from holdfast.client.book import Book
from holdfast.client.future import Future
from holdfast.client.intake import Intake
from holdfast.errors import ChannelClosedError, ConnectionLostError, OverloadedError
from holdfast.model.ids import TaskId
from holdfast.model.messages import Accepted, Ask, Goodbye, PutCode, Refused, Submit, Watch
from holdfast.ports import Channel
from tests.client import work
from tests.client.scripted import LoopbackDialer, Scripted, client_of


def test_what_was_not_accepted_is_said_again_in_order(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.break_after_submit = 3
    with client_of(scripted, tmp_path) as client:
        futures = [client.submit(lambda x: x + 1, n) for n in range(600)]
        assert [future.result(20) for future in futures] == list(range(1, 601))
    submits = scripted.read(Submit)
    assert submits[0].again is False
    assert any(message.again for message in submits)
    assert list(scripted.specs) == sorted(scripted.specs)
    assert len(scripted.sessions) == 4
    for session in scripted.sessions:
        kinds = [type(message) for message in session.read]
        if Submit in kinds:
            assert kinds.index(PutCode) < kinds.index(Submit)


def test_what_was_accepted_is_watched_again(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    with client_of(scripted, tmp_path) as client:
        futures = [client.submit(work.double, n) for n in range(2500)]
        futures[-1].wait_accepted(10)
        scripted.cut()
        scripted.wait_for("all are watched", lambda: scripted.watched == set(scripted.specs))
        assert max(len(message.tasks) for message in scripted.read(Watch)) <= 1000
        scripted.settle_open()
        assert [future.result(20) for future in futures] == [2 * n for n in range(2500)]
    assert not any(message.again for message in scripted.read(Submit))


def test_submission_goes_on_while_cut_off(tmp_path: Path) -> None:
    scripted = Scripted()
    with client_of(scripted, tmp_path) as client:
        client.submit(work.double, 1).result(10)
        scripted.up = False
        scripted.cut()
        futures = [client.submit(work.double, n) for n in range(100)]
        assert not futures[0].accepted
        scripted.up = True
        assert [future.result(20) for future in futures] == [2 * n for n in range(100)]


def test_questions_and_wishes_are_said_again(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    with client_of(scripted, tmp_path) as client:
        future = client.submit(work.double, 1)
        future.wait_accepted(10)
        asked = scripted.ask

        def break_once(*given: Any) -> None:
            scripted.ask = asked
            raise ChannelClosedError("scripted")

        scripted.ask = break_once
        assert client.status(future.id)["state"] == "queued"
        assert len(scripted.read(Ask)) == 2
        assert future.cancel()


def test_few_questions_are_asked_at_once(tmp_path: Path) -> None:
    scripted = Scripted()
    open_now: list[int] = []
    most = 0

    def hold(session: object, ref: int, question: str, given: dict[str, Any]) -> None:
        nonlocal most
        open_now.append(ref)
        most = max(most, len(open_now))

    answer = scripted.ask
    with client_of(scripted, tmp_path) as client:
        scripted.answers["stats"] = {}
        scripted.ask = hold
        threads = [threading.Thread(target=client.stats) for _ in range(30)]
        for thread in threads:
            thread.start()
        scripted.wait_for("eight are asked", lambda: len(open_now) == 8)
        scripted.ask = answer
        scripted.do(lambda: [answer(scripted.sessions[-1], ref, "stats", {}) for ref in open_now])
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
    assert most == 8


def test_another_store_ends_what_the_former_one_has(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    with client_of(scripted, tmp_path) as client:
        future = client.submit(work.double, 1)
        future.wait_accepted(10)
        scripted.store = "store-2"
        scripted.cut()
        with pytest.raises(ConnectionLostError, match=r"store-2, not store-1"):
            future.result(10)
        scripted.settling = True
        assert client.submit(work.double, 2).result(10) == 4


def test_goodbyes_without_end_are_taken_as_an_answer(tmp_path: Path) -> None:
    scripted = Scripted()

    def refuse(*_: object) -> None:
        scripted.sessions[-1].out.append(Goodbye("protocol_error", "what is this?"))

    scripted.submit = refuse  # type: ignore[method-assign]
    with client_of(scripted, tmp_path) as client:
        with pytest.raises(ConnectionLostError, match="what is this"):
            client.submit(work.double, 1).result(30)
        with pytest.raises(ConnectionLostError, match="what is this"):
            client.submit(work.double, 1)


def test_an_embedded_coordinator_is_started_again(tmp_path: Path) -> None:
    scripted = Scripted()
    restarts = 0

    def restart() -> None:
        nonlocal restarts
        restarts += 1
        if restarts == 2:
            raise OSError("not yet")
        scripted.up = True

    scripted.up = False
    with client_of(scripted, tmp_path, restart=restart) as client:
        assert client.submit(work.double, 1).result(10) == 2
        assert restarts == 1
        scripted.up = False
        scripted.cut()
        assert client.submit(work.double, 2).result(10) == 4
        assert restarts == 3


def test_the_next_dialer_is_tried(tmp_path: Path) -> None:
    scripted = Scripted()

    class Nobody:
        async def dial(self) -> Channel:
            raise ChannelClosedError("nobody")

    dialers = [Nobody(), LoopbackDialer(scripted.serve)]
    with client_of(scripted, tmp_path, dialers=dialers) as client:
        assert client.submit(work.double, 1).result(10) == 2


def test_a_callback_does_not_wait_at_the_bound(tmp_path: Path) -> None:
    scripted = Scripted()
    caught: list[BaseException] = []
    done = threading.Event()
    with client_of(scripted, tmp_path, submissions_max=1) as client:
        scripted.settling = False
        first = client.submit(work.double, 1)
        first.wait_accepted(10)
        scripted.accepting = False

        def submit_two(_: object) -> None:
            try:
                client.submit(work.double, 2)
                client.submit(work.double, 3)
            except OverloadedError as error:
                caught.append(error)
            done.set()

        first.add_done_callback(submit_two)
        scripted.settle_open()
        assert done.wait(10)
        assert "cannot wait" in str(caught[0])
        scripted.accepting = True
        scripted.cut()


class Nothing:
    """An owner of futures that are never asked for."""

    settling = threading.Lock()
    held_back = ""

    def cancel_task(self, future: Future[Any]) -> bool:
        return False

    def check_may_wait(self) -> None:
        return


def test_the_book_ignores_what_it_does_not_know() -> None:
    intake = Intake(
        clock=None,  # type: ignore[arg-type]
        mint=None,  # type: ignore[arg-type]
        wake=lambda: None,
        on_own_thread=lambda: False,
    )
    book = Book(intake, Nothing.settling)
    stranger = TaskId(b"x" * 16)
    book.accept(Accepted((stranger,)))
    assert book.refuse(Refused(stranger, "unknown_task", "none")) is None
    book.settle([(stranger, ValueError())])
    assert not book.watched
    assert not book.sent
    future: Future[Any] = Future(Nothing(), stranger)
    book.watch(future)
    assert book.refuse(Refused(stranger, "unknown_task", "none")) is None
    with pytest.raises(LookupError, match="none"):
        future.result()
