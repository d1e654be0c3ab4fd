"""Large payloads and results: fetched before a start, stored before an outcome, never misplaced."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from holdfast.core.peer import PeerState
from holdfast.errors import BlobMissingError, ChannelClosedError, StoreFullError
from holdfast.model.messages import Answered, Draining, Ended, Goodbye, Recall, Started
from holdfast.model.outcome import Answer, Encoding, OutcomeKind, Payload
from holdfast.model.task import Phase, Wanted
from holdfast.worker import inputs, results
from tests.core.wording import said, task, token
from tests.worker.kit import Session, Stage, begin, cut, play

BLOB = Payload(Encoding.JSON, digest=b"large-arguments", size_bytes=15)


@dataclass
class Large:
    """A stage on which task 1 has ended with a large result."""

    stage: Stage
    session: Session

    @classmethod
    async def ended(cls, stage: Stage, *, cut_off: bool = False) -> Large:
        session = await begin(stage)
        await session.assign(1)
        await stage.engine.did("hand", 1)
        if cut_off:
            await cut(stage, session)
        stage.files.files["out/1"] = b"large-result"
        message = Ended(task(1), token(1), OutcomeKind.SUCCEEDED, Payload(Encoding.PICKLE))
        stage.engine.report(message, "out/1")
        return cls(stage, session)


def test_a_payload_by_reference_is_there_before_the_order_starts() -> None:
    async def scene(stage: Stage) -> None:
        stage.files.gate = asyncio.Event()
        session = await begin(stage)
        await session.assign(1, payload=BLOB)
        await session.assign(2)
        await stage.engine.did("hand", 2)
        assert 1 not in stage.engine.runs
        stage.files.blobs[BLOB.digest] = b"the bytes"
        stage.files.gate.set()
        await stage.engine.did("hand", 1)
        path = stage.engine.orders[1].payload_path
        assert stage.files.files == {path: b"the bytes"}
        stage.engine.end(1, 2)
        await asyncio.sleep(0.1)
        assert stage.files.files == {}

    play(scene)


@pytest.mark.parametrize("how", ["recall", "pause", "drain"])
def test_the_payload_of_what_a_child_has_taken_up_stays(how: str) -> None:
    async def scene(stage: Stage) -> None:
        stage.files.blobs[BLOB.digest] = b"the bytes"
        session = await begin(stage)
        await session.assign(1, payload=BLOB)
        await stage.engine.did("hand", 1)
        path = stage.engine.orders[1].payload_path
        if how == "recall":
            await session.say(Recall(task(1), token(1)))
        elif how == "pause":
            await session.wish(1, Wanted.PAUSE, 1)
        else:
            stage.agent.drain(30)
        await asyncio.sleep(0.2)
        assert 1 in stage.engine.runs
        # A child opens it only once the module of its function is imported.
        assert path in stage.files.files
        stage.engine.end(1)
        await asyncio.sleep(0.1)
        assert stage.files.files == {}

    play(scene)


def test_the_payload_of_an_order_that_is_taken_back_is_removed() -> None:
    async def scene(stage: Stage) -> None:
        stage.files.blobs[BLOB.digest] = b"the bytes"
        session = await begin(stage)
        await session.assign(1, 2)
        await session.assign(3, payload=BLOB)
        await stage.engine.did("hand", 2)
        await asyncio.sleep(0.1)
        assert len(stage.files.files) == 1
        await session.say(Recall(task(3), token(3)))
        await session.hear_ended(3, OutcomeKind.RETURNED)
        assert stage.files.files == {}

    play(scene)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "RETRY_SECONDS", 0.005)
    monkeypatch.setattr(inputs, "RETRY_SECONDS_MAX", 0.01)


@pytest.mark.usefixtures("quick_retries")
def test_a_download_that_breaks_off_is_tried_again_and_is_no_fault() -> None:
    async def scene(stage: Stage) -> None:
        stage.files.blobs[BLOB.digest] = b"the bytes"
        stage.files.failures = [ChannelClosedError("the coordinator died")] * (inputs.TRIES_MAX - 1)
        session = await begin(stage)
        await session.assign(1, payload=BLOB)
        await stage.engine.did("hand", 1)
        stage.engine.end(1)
        await session.hear_ended(1, OutcomeKind.SUCCEEDED)

    play(scene)


@pytest.mark.usefixtures("quick_retries")
def test_a_download_that_breaks_off_again_and_again_while_there_is_a_session_has_an_end() -> None:
    async def scene(stage: Stage) -> None:
        stage.files.failures = [ChannelClosedError("nobody answers")] * inputs.TRIES_MAX
        session = await begin(stage)
        await session.assign(1, payload=BLOB)
        await session.hear_ended(1, OutcomeKind.ENVIRONMENT)
        assert stage.files.failures == []

    play(scene)


@pytest.mark.usefixtures("quick_retries")
def test_a_download_is_not_tried_any_more_where_nobody_wants_the_order() -> None:
    async def scene(stage: Stage) -> None:
        stage.files.failures = [ChannelClosedError("nobody answers")] * inputs.TRIES_MAX
        session = await begin(stage)
        await session.assign(1, payload=BLOB)
        await asyncio.sleep(0.05)
        await session.say(Recall(task(1), token(1)))
        await session.hear_ended(1, OutcomeKind.RETURNED)
        left = len(stage.files.failures)
        await asyncio.sleep(0.3)
        assert len(stage.files.failures) >= left - 1 > 0

    play(scene)


@pytest.mark.parametrize(
    "broken", [BlobMissingError("no such blob"), OSError("no such blob"), KeyError("no such blob")]
)
def test_a_payload_that_is_missing_is_a_matter_of_the_environment(broken: Exception) -> None:
    async def scene(stage: Stage) -> None:
        stage.files.failures = [broken]
        session = await begin(stage)
        await session.assign(1, payload=BLOB)
        message = await session.hear_ended(1, OutcomeKind.ENVIRONMENT)
        assert message.failure is not None
        assert "no such blob" in message.failure.message

    play(scene)


@pytest.mark.parametrize("missing", [False, True])
def test_an_order_taken_away_while_its_payload_comes(missing: bool) -> None:
    async def scene(stage: Stage) -> None:
        stage.files.gate = asyncio.Event()
        if not missing:
            stage.files.blobs[BLOB.digest] = b"the bytes"
        session = await begin(stage)
        await session.assign(1, payload=BLOB)
        await session.assign(2)
        await stage.engine.did("hand", 2)
        await session.stop(1)
        await session.assign(3)
        await stage.engine.did("hand", 3)
        stage.files.gate.set()
        await asyncio.sleep(1)
        assert stage.files.files == {}
        assert 1 not in stage.engine.runs

    play(scene)


def test_a_large_result_is_durable_before_its_outcome_is_said() -> None:
    async def scene(stage: Stage) -> None:
        stage.files.gate = asyncio.Event()
        large = await Large.ended(stage)
        assert await large.session.hear(Started)
        assert stage.files.blobs == {}
        stage.files.gate.set()
        message = await large.session.hear_ended(1)
        assert message.result == Payload(Encoding.PICKLE, digest=b"large-result", size_bytes=12)
        assert b"large-result" in stage.files.blobs
        assert stage.files.files == {}

    play(scene)


def test_a_store_that_falters_is_tried_again() -> None:
    async def scene(stage: Stage) -> None:
        stage.files.failures = [ChannelClosedError("reset"), ChannelClosedError("gone")]
        large = await Large.ended(stage)
        assert await large.session.hear(Started)
        await large.session.hear_ended(1)

    play(scene)


@pytest.mark.parametrize(
    "failures",
    [[BlobMissingError("no file")], [OSError("a bad disk")], [ValueError("ours")]],
    ids=["missing", "disk", "fault"],
)
def test_a_result_that_cannot_be_stored_is_a_matter_of_the_environment(
    failures: list[Exception],
) -> None:
    async def scene(stage: Stage) -> None:
        stage.files.failures = failures
        large = await Large.ended(stage)
        message = await large.session.hear_ended(1, OutcomeKind.ENVIRONMENT)
        assert message.failure is not None
        assert "could not be stored" in message.failure.message
        await large.session.settle(1)
        stage.agent.drain(3600)
        assert await large.session.hear(Draining)
        assert (await large.session.hear(Goodbye)).code == "drained"

    play(scene)


@pytest.mark.parametrize(
    "failures",
    [[StoreFullError("no room")], [ChannelClosedError("reset")] * results.TRIES_MAX],
    ids=["full", "broken"],
)
def test_a_result_that_the_store_does_not_take_for_now_is_stored_later(
    failures: list[Exception],
) -> None:
    async def scene(stage: Stage) -> None:
        later = [StoreFullError("still no room"), ChannelClosedError("reset")]
        stage.files.failures = [*failures, *later]
        large = await Large.ended(stage)
        assert await large.session.hear(Started)
        message = await large.session.hear_ended(1)
        assert message.result == Payload(Encoding.PICKLE, digest=b"large-result", size_bytes=12)
        assert (stage.files.failures, stage.files.kept, stage.files.shelf) == ([], 1, {})
        assert stage.engine.runs == {1: 1}

    play(scene)


def test_a_result_goes_to_the_store_that_gave_its_lease_alone() -> None:
    async def scene(stage: Stage) -> None:
        await Large.ended(stage, cut_off=True)
        await stage.spool.holds(1)
        stage.coordinator.down = False
        other = await stage.welcomed(said(1, Answer.UNKNOWN), epoch=1, store=("store-b", 1))
        await asyncio.sleep(5)
        assert stage.files.blobs == {}
        assert stage.files.shelf == {b"large-result": b"large-result"}
        other.end.cut()
        own = await stage.welcomed(said(1, Answer.KEEP), epoch=2)
        await own.hear_ended(1)
        assert b"large-result" in stage.files.blobs
        assert stage.files.shelf == {}

    play(scene)


def test_the_large_result_of_a_stranger_is_not_stored_at_another_store() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1)
        await stage.engine.did("hand", 1)
        assert await session.hear(Started)
        session.end.cut()
        other = await stage.welcomed(said(1, Answer.UNKNOWN), epoch=1, store=("store-b", 1))
        stage.files.files["out/1"] = b"large-result"
        message = Ended(task(1), token(1), OutcomeKind.SUCCEEDED, Payload(Encoding.PICKLE))
        stage.engine.report(message, "out/1")
        await asyncio.sleep(5)
        assert (stage.files.blobs, list(stage.files.shelf)) == ({}, [b"large-result"])
        other.end.cut()
        own = await stage.welcomed(said(1, Answer.KEEP), epoch=2)
        await own.hear_ended(1)

    play(scene)


def test_a_result_whose_lease_was_taken_away_leaves_nothing_behind() -> None:
    async def scene(stage: Stage) -> None:
        stage.files.gate = asyncio.Event()
        stage.files.failures = [StoreFullError("no room")]
        large = await Large.ended(stage)
        assert await large.session.hear(Started)
        await large.session.stop(1)
        await asyncio.sleep(0.1)
        stage.files.gate.set()
        await asyncio.sleep(1)
        assert (stage.files.files, stage.files.shelf) == ({}, {})
        assert stage.guard.named("done") == [1]

    play(scene)


def test_a_result_that_its_store_wants_no_more_takes_no_place_of_others() -> None:
    """The store has no room, and the task went elsewhere: it must not be named in all hellos."""

    async def scene(stage: Stage) -> None:
        await Large.ended(stage, cut_off=True)
        await stage.spool.holds(1)
        stage.files.failures = [StoreFullError("no room")] * 100
        stage.coordinator.down = False
        again = await stage.welcomed(said(1, Answer.STOP), epoch=2)
        message = await again.hear_ended(1, OutcomeKind.STOPPED)
        assert message.result is None
        assert stage.files.shelf == {}
        await again.say(Answered(task(1), token(1), Answer.SUPERSEDED))
        await stage.spool.holds(0)
        assert not stage.agent.occupied

    play(scene)


def test_nothing_starts_while_too_many_results_wait_for_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("holdfast.core.outbox.UNREADY_MAX", 0)

    async def scene(stage: Stage) -> None:
        stage.files.failures = [StoreFullError("no room")] * 10
        large = await Large.ended(stage)
        await asyncio.sleep(1)
        await large.session.assign(2)
        await asyncio.sleep(1)
        assert 2 not in stage.engine.runs
        stage.files.failures.clear()
        await stage.engine.did("hand", 2)

    play(scene)


@pytest.mark.parametrize("reborn", [False, True])
def test_a_large_result_of_a_cut_rests_on_the_shelf_until_there_is_a_session(
    reborn: bool,
) -> None:
    async def scene(stage: Stage) -> None:
        await Large.ended(stage, cut_off=True)
        await stage.spool.holds(1)
        assert stage.files.shelf == {b"large-result": b"large-result"}
        if reborn:
            await stage.end()
            stage.start()
        stage.files.failures = [ChannelClosedError("not yet"), StoreFullError("nor now")]
        stage.coordinator.down = False
        again = await stage.coordinator.session()
        hello, outcomes = await again.hello()
        # Its outcome cannot be said yet: it is named as a lease that runs.
        assert [(each.token, each.phase) for each in hello.held] == [(token(1), Phase.STARTED)]
        assert outcomes == []
        await again.welcome(said(1, Answer.KEEP), epoch=2)
        await again.hear_ended(1)
        assert stage.files.shelf == {}
        assert b"large-result" in stage.files.blobs
        await again.settle(1)
        await stage.spool.holds(0)

    play(scene)


def test_a_shelf_that_cannot_be_read_ends_as_a_matter_of_the_environment() -> None:
    async def scene(stage: Stage) -> None:
        await Large.ended(stage, cut_off=True)
        await stage.spool.holds(1)
        stage.files.failures = [OSError("a bad disk")]
        stage.coordinator.down = False
        again = await stage.welcomed(said(1, Answer.KEEP), epoch=2)
        await again.hear_ended(1, OutcomeKind.ENVIRONMENT)
        assert stage.agent.session is PeerState.WELCOMED

    play(scene)
