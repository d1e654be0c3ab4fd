"""What survives: outcomes through cuts and deaths, an orderly drain, and large results."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from holdfast.core.peer import PeerState
from holdfast.errors import ChannelClosedError, HoldfastError, StoreFullError
from holdfast.model.messages import Draining, Ended, Goodbye, Started
from holdfast.model.outcome import Answer, Encoding, OutcomeKind, Payload
from holdfast.model.task import Phase
from tests.core.wording import number_of, said, task, token
from tests.worker.kit import Session, Stage, play


async def begin(stage: Stage) -> Session:
    stage.start()
    return await stage.welcomed()


async def cut(stage: Stage, session: Session) -> None:
    """Take the coordinator away, and wait until the agent has noticed."""
    stage.coordinator.down = True
    session.end.cut()
    await stage.cut_off()


# --- The spool ---------------------------------------------------------------------------------


def test_outcomes_of_a_long_cut_survive_the_death_of_the_worker() -> None:
    numbers = range(1, 101)

    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(*numbers, concurrent=True)
        await stage.engine.did("hand", 100)
        await cut(stage, session)
        stage.engine.end(*numbers)
        await asyncio.sleep(0.5)
        assert stage.spool.kept == {}
        await stage.spool.holds(100)
        await asyncio.sleep(0)
        assert stage.guard.named("spooled") == list(numbers)
        running.cancel()
        await asyncio.wait([running])

        stage.start()
        stage.coordinator.down = False
        again = await stage.coordinator.session()
        hello, outcomes = await again.hello()
        assert (hello.incarnation, hello.store, hello.held) == (2, "store-a", ())
        assert [number_of(each.token) for each in outcomes] == list(numbers)
        await again.welcome(*(said(n, Answer.SETTLED) for n in numbers), epoch=2)
        await stage.spool.holds(0)
        assert stage.engine.runs == {}
        assert stage.guard.named("done") == list(numbers)

    play(scene, concurrent_slots=100)


def test_a_short_cut_writes_nothing_to_disk() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1)
        await stage.engine.did("hand", 1)
        session.end.cut()
        await stage.cut_off()
        stage.engine.end(1)
        again = await stage.coordinator.session()
        await again.hello()
        await asyncio.sleep(0.6)
        await again.welcome(said(1, Answer.SETTLED), epoch=2)
        await asyncio.sleep(5)
        assert stage.spool.saves == 0

    play(scene)


def test_a_spool_that_fails_is_tried_again() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, 2)
        await stage.engine.did("hand", 2)
        await cut(stage, session)
        stage.spool.failures = 2
        stage.engine.end(1)
        await asyncio.sleep(2)
        stage.engine.end(2)
        await stage.spool.holds(2)

    play(scene)


def test_outcomes_that_another_store_does_not_know_are_kept() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, 2)
        await stage.engine.did("hand", 2)
        await cut(stage, session)
        stage.engine.end(1)
        await stage.spool.holds(1)
        stage.coordinator.down = False
        other = await stage.welcomed(
            said(1, Answer.UNKNOWN), said(2, Answer.UNKNOWN), epoch=1, store=("store-b", 1)
        )
        stage.engine.end(2)
        await other.assign(3)
        await stage.engine.did("hand", 3)
        stage.engine.end(3)
        await other.hear_ended(3)
        await other.settle(3)
        # What is spooled belongs to the first store: that is what a new life has to name.
        assert stage.home.remembered == ("store-a", 1)
        other.end.cut()
        own = await stage.coordinator.session()
        hello, outcomes = await own.hello()
        assert (hello.store, outcomes, hello.held) == ("store-b", [], ())
        await own.welcome(epoch=2)
        await own.hear_ended(1)
        await own.hear_ended(2)

    play(scene)


# --- Draining ----------------------------------------------------------------------------------


def test_a_drain_returns_what_has_not_started_and_waits_for_the_rest() -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(1, 2)
        await stage.engine.did("hand", 1)
        assert await session.hear(Started)
        stage.agent.drain(30)
        assert await session.hear(Draining)
        await session.hear_ended(2, OutcomeKind.RETURNED)
        await session.assign(3)
        await session.hear_ended(3, OutcomeKind.RETURNED)
        await session.settle(2, 3)
        assert not stage.engine.closed
        stage.engine.end(1)
        await session.hear_ended(1)
        assert stage.engine.closed
        await session.settle(1)
        assert (await session.hear(Goodbye)).code == "drained"
        await running
        assert stage.spool.saves == 0
        assert stage.engine.runs == {1: 1}

    play(scene, slots=1)


def test_what_outlives_a_drain_is_stopped_and_what_is_unanswered_is_spooled() -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(1)
        await stage.engine.did("hand", 1)
        assert await session.hear(Started)
        stage.agent.drain(5)
        stage.agent.drain(50)
        assert await session.hear(Draining)
        before = asyncio.get_running_loop().time()
        await session.hear_ended(1, OutcomeKind.STOPPED)
        assert 4 < asyncio.get_running_loop().time() - before < 6
        assert await session.hear(Goodbye)
        await running
        assert list(stage.spool.kept) == [token(1)]
        assert stage.guard.named("spooled") == [1]

    play(scene)


def test_a_drain_without_a_coordinator_ends_too() -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(1, 2)
        await stage.engine.did("hand", 1)
        await cut(stage, session)
        stage.agent.drain(5)
        await running
        kinds = {number_of(each.token): each.kind for each in stage.spool.load()}
        assert kinds == {1: OutcomeKind.STOPPED, 2: OutcomeKind.RETURNED}

    play(scene, slots=1)


def test_a_worker_that_drains_says_so_again_in_a_new_session() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1)
        await stage.engine.did("hand", 1)
        stage.agent.drain(60)
        await cut(stage, session)
        stage.coordinator.down = False
        again = await stage.coordinator.session()
        hello, _ = await again.hello()
        assert hello.draining
        await again.welcome(said(1, Answer.KEEP), epoch=2)
        assert await again.hear(Draining)
        stage.engine.end(1)
        await again.hear_ended(1)

    play(scene)


# --- Large payloads and results ----------------------------------------------------------------

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


def test_a_payload_that_is_missing_is_a_matter_of_the_environment() -> None:
    async def scene(stage: Stage) -> None:
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
        stage.files.failures = [OSError("reset"), ChannelClosedError("gone")]
        large = await Large.ended(stage)
        assert await large.session.hear(Started)
        await large.session.hear_ended(1)

    play(scene)


@pytest.mark.parametrize(
    "failures", [[StoreFullError("no room")], [OSError("reset")] * 9], ids=["full", "broken"]
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
        stage.files.failures = [HoldfastError("not yet")]
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


def test_a_shelf_that_the_store_refuses_ends_as_a_matter_of_the_environment() -> None:
    async def scene(stage: Stage) -> None:
        await Large.ended(stage, cut_off=True)
        await stage.spool.holds(1)
        stage.files.failures = [StoreFullError("no room")]
        stage.coordinator.down = False
        again = await stage.welcomed(said(1, Answer.KEEP), epoch=2)
        await again.hear_ended(1, OutcomeKind.ENVIRONMENT)
        assert stage.agent.session is PeerState.WELCOMED

    play(scene)


# --- Bounds ------------------------------------------------------------------------------------


def test_a_coordinator_that_acknowledges_nothing_gets_no_more_than_the_window() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        numbers = range(1, 41)
        await session.assign(*numbers, concurrent=True)
        await stage.engine.did("hand", 40)
        stage.engine.end(*numbers, result_bytes=60_000)
        await asyncio.sleep(3)
        waiting = sum(map(len, session.end.inbox))
        assert 400_000 < waiting < 900_000
        heard = 0
        while heard < 40:
            while not session.read:
                session.read.extend((await session.frame()).body)
                await session.say()
            heard += isinstance(session.read.popleft(), Ended)

    play(scene, concurrent_slots=100)


def test_a_large_hello_is_read_in_pages() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        numbers = range(1, 41)
        await session.assign(*numbers, concurrent=True)
        await stage.engine.did("hand", 40)
        await cut(stage, session)
        stage.engine.end(*numbers, result_bytes=60_000)
        stage.coordinator.down = False
        again = await stage.coordinator.session()
        hello, outcomes = await again.hello()
        assert hello.more
        assert len(outcomes) == 40

    play(scene, concurrent_slots=100)
