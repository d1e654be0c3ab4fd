"""The worker from hello to outcome, against a scripted coordinator and a scripted engine."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from holdfast.core.peer import Offer, PeerState
from holdfast.errors import ConfigurationError
from holdfast.model.messages import Code, CodeWanted, Ended, Goodbye, Pull, Started
from holdfast.model.outcome import Answer, OutcomeKind
from holdfast.model.task import Phase, Wanted
from tests.core.wording import number_of, said, started
from tests.worker.kit import Session, Stage, begin, learn, play, two_in_a_lane


def test_an_order_is_run_reported_and_forgotten() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1)
        await stage.engine.did("hand", 1)
        assert stage.guard.told == [("started", (1,))]
        assert await session.hear(Started) == started(1)
        stage.engine.end(1)
        await session.hear_ended(1)
        await session.settle(1)
        await session.assign(2)
        await stage.engine.did("hand", 2)
        assert stage.guard.named("done") == [1]
        assert stage.guard.sessions == [("memory", 1, "word-1")]
        assert stage.files.sessions == ["memory"]
        assert stage.home.remembered == ("store-a", 1)

    play(scene)


def test_a_short_task_costs_one_message() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, 2)
        await stage.engine.did("hand", 2)
        stage.engine.end(1, 2)
        await session.hear_ended(1)
        await session.hear_ended(2)
        assert session.frames == 2  # the hello, and one frame with both

    play(scene)


def test_an_order_of_another_epoch_ends_the_session() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, epoch=99)
        await session.gone()
        again = await stage.coordinator.session()
        hello, _ = await again.hello()
        assert (hello.number, hello.held) == (2, ())
        assert stage.engine.runs == {}

    play(scene)


def test_held_leases_and_outcomes_are_reconciled_after_a_cut() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, 2, 3, 4)
        await stage.engine.did("hand", 2)
        stage.coordinator.down = True
        session.end.cut()
        await stage.cut_off()
        stage.engine.end(1)
        await asyncio.sleep(0.5)
        assert stage.engine.runs == {1: 1, 2: 1}  # nothing starts without a session
        stage.coordinator.down = False
        again = await stage.coordinator.session()
        hello, outcomes = await again.hello()
        assert [(number_of(h.token), h.phase) for h in hello.held] == [
            (2, Phase.STARTED),
            (3, Phase.ASSIGNED),
            (4, Phase.ASSIGNED),
        ]
        assert [number_of(each.token) for each in outcomes] == [1]
        await again.welcome(
            said(1, Answer.SETTLED),
            *(said(n, Answer.KEEP) for n in (2, 4)),
            said(3, Answer.STOP),
            epoch=2,
        )
        await stage.engine.did("hand", 4)
        stage.engine.end(2, 4)
        await again.hear_ended(2)
        await again.hear_ended(4)
        assert stage.engine.runs == {1: 1, 2: 1, 4: 1}

    play(scene)


def test_an_outcome_that_comes_between_hello_and_welcome_is_said_in_the_session() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1)
        await stage.engine.did("hand", 1)
        session.end.cut()
        await stage.cut_off()
        again = await stage.coordinator.session()
        hello, _ = await again.hello()
        assert len(hello.held) == 1
        stage.engine.end(1)
        await again.welcome(said(1, Answer.KEEP), epoch=2)
        await again.hear_ended(1)  # the frame's view is checked there

    play(scene)


def test_silence_of_the_coordinator_ends_the_session() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        before = asyncio.get_running_loop().time()
        await session.gone()
        assert 10 <= asyncio.get_running_loop().time() - before < 12
        assert session.frames >= 10  # heartbeats

    play(scene)


def test_heartbeats_of_the_coordinator_keep_the_session() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        for _ in range(40):
            await asyncio.sleep(1)
            await session.say()
        assert stage.agent.session is PeerState.WELCOMED
        await session.say(Goodbye("stop", "we restart"))
        await stage.coordinator.session()

    play(scene)


def test_orders_behind_a_long_attempt_move_to_a_free_lane() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await learn(stage, session)
        await session.assign(1, 2, 3, 4)
        await stage.engine.did("hand", 4)
        lane = stage.engine.lane_of(1)
        other = 3 if stage.engine.lane_of(2) != lane else 2
        assert stage.engine.children[lane].queue
        while stage.engine.children[1 - lane].begun:
            stage.engine.end(number_of(next(iter(stage.engine.children[1 - lane].begun))))
        await asyncio.sleep(0.05)
        assert not stage.engine.children[lane].queue
        assert stage.engine.runs == {900: 1, 1: 1, 2: 1, 3: 1, 4: 1}
        assert other

    play(scene)


def test_the_death_of_a_lane_is_a_crash_of_what_it_ran_and_of_nothing_else() -> None:
    async def scene(stage: Stage) -> None:
        session = await two_in_a_lane(stage)
        stage.engine.die(0, signal=11)
        message = await session.hear_ended(1, OutcomeKind.CRASHED)
        assert message.failure is not None
        assert "SIGSEGV" in message.failure.evidence
        assert "last words" in message.failure.evidence
        stage.engine.die(0, exit_code=3, out_of_memory=True)
        await session.hear_ended(2, OutcomeKind.OUT_OF_MEMORY)
        assert stage.engine.runs == {900: 1, 1: 1, 2: 1}
        await session.assign(3)
        await stage.engine.did("hand", 3)
        stage.engine.die(0, exit_code=3)
        message = await session.hear_ended(3, OutcomeKind.CRASHED)
        assert message.failure is not None
        assert "exit code: 3" in message.failure.evidence

    play(scene, slots=1)


def test_only_a_crash_alone_is_charged_in_the_concurrent_lane() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, 2, 3, concurrent=True)
        await stage.engine.did("hand", 3)
        for number in (1, 2, 3):
            assert await session.hear(Started) == started(number)
        stage.engine.die(1, signal=6)
        await asyncio.sleep(0.01)
        assert stage.engine.runs == {1: 2, 2: 1, 3: 1}
        stage.engine.end(1)
        await session.hear_ended(1)
        assert stage.engine.runs == {1: 2, 2: 2, 3: 1}
        stage.engine.die(1, signal=6)
        await session.hear_ended(2, OutcomeKind.CRASHED)
        stage.engine.end(3)
        await session.hear_ended(3)

    play(scene, slots=1)


def test_a_suspect_that_was_cancelled_does_not_run_again() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, 2, concurrent=True)
        await stage.engine.did("hand", 2)
        await session.wish(1, Wanted.CANCEL, 1)
        await stage.engine.did("interrupt", 1)
        stage.engine.die(1, signal=11)
        await session.hear_ended(1, OutcomeKind.STOPPED)
        assert stage.engine.runs == {1: 1, 2: 2}
        stage.engine.end(2)
        await session.hear_ended(2)

    play(scene, slots=1)


def test_a_suspect_that_is_stopped_is_forgotten_by_the_guard() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, 2, concurrent=True)
        await stage.engine.did("hand", 2)
        stage.engine.die(1, signal=11)
        await asyncio.sleep(0.01)
        assert stage.engine.runs == {1: 2, 2: 1}
        await session.stop(2)
        await asyncio.sleep(0.01)
        assert stage.guard.named("done") == [2]
        await session.stop(1)
        await stage.engine.did("interrupt", 1)
        stage.engine.end(1)
        await asyncio.sleep(0.01)
        assert stage.guard.named("done") == [2, 1]

    play(scene, slots=1)


def test_neighbours_of_one_that_was_killed_are_returned() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, 2, concurrent=True)
        await stage.engine.did("hand", 2)
        await session.wish(1, Wanted.CANCEL, 1)
        await stage.engine.did("kill", 1)
        kinds = {}
        while len(kinds) < 2:
            message = await session.hear(object)
            if isinstance(message, Ended):
                kinds[number_of(message.token)] = message.kind
        assert kinds == {1: OutcomeKind.CRASHED, 2: OutcomeKind.RETURNED}

    play(scene, slots=1)


def test_a_lane_that_refuses_gets_the_order_when_it_is_writable() -> None:
    async def scene(stage: Stage) -> None:
        stage.engine.room = 0
        session = await begin(stage)
        await learn(stage, session)
        await session.assign(1, 2)
        await stage.engine.did("hand", 1)
        await asyncio.sleep(0.001)
        assert ("hand", 2) not in stage.engine.log
        stage.engine.room = 5
        stage.engine.listener.lane_writable(0)
        await stage.engine.did("hand", 2)

    play(scene, slots=1)


def test_code_is_asked_for_once_and_kept() -> None:
    data = b"pickled function"
    digest = hashlib.sha256(data).digest()

    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, 2, code=digest)
        assert (await session.hear(CodeWanted)).digest == digest
        session.end.cut()
        again = await stage.welcomed(said(1, Answer.KEEP), said(2, Answer.KEEP), epoch=2)
        assert (await again.hear(CodeWanted)).digest == digest
        await again.say(Code(digest, data, True))
        await stage.engine.did("hand", 2)
        assert stage.engine.orders[1].code == data
        stage.engine.end(1, 2)
        await again.hear_ended(1)
        await again.hear_ended(2)
        await again.assign(3, code=digest)
        await stage.engine.did("hand", 3)

    play(scene)


@pytest.mark.parametrize(("data", "found"), [(b"", False), (b"other bytes", True)])
def test_code_that_is_not_there_is_a_matter_of_the_environment(data: bytes, found: bool) -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, code=b"d" * 32)
        await session.hear(CodeWanted)
        await session.say(Code(b"d" * 32, data, found))
        message = await session.hear_ended(1, OutcomeKind.ENVIRONMENT)
        assert message.failure is not None
        assert "bytes" in message.failure.message

    play(scene)


def test_an_order_that_finds_no_room_on_the_disk_costs_no_other() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        stage.engine.spoiled[2] = OSError(28, "No space left on device")
        await session.assign(1, 2, 3)
        message = await session.hear_ended(2, OutcomeKind.ENVIRONMENT)
        assert message.failure is not None
        assert "No space left on device" in message.failure.message
        await stage.engine.did("hand", 3)
        stage.engine.end(1, 3)
        await session.hear_ended(1)
        await session.hear_ended(3)

    play(scene)


def test_pull_asks_for_one_task_for_each_free_slot() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        assert (await session.hear(Pull)).asked == 2
        await session.assign(1, 2)
        await stage.engine.did("hand", 2)
        stage.engine.end(1)
        asked = [message async for message in until_pull(session)]
        assert asked == [3]
        session.end.cut()
        again = await stage.welcomed(said(1, Answer.SETTLED), said(2, Answer.KEEP), epoch=2)
        assert (await again.hear(Pull)).asked == 1

    async def until_pull(session: Session):  # type: ignore[no-untyped-def]  # of the test alone
        while True:
            message = await session.hear(object)
            if isinstance(message, Pull):
                yield message.asked
                return

    play(scene, pull=True)


def test_pull_asks_for_concurrent_tasks_while_every_slot_is_busy() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        assert await session.hear(Pull) == Pull(2, 3)
        await session.assign(1, 2)
        await session.assign(3, concurrent=True)
        await stage.engine.did("hand", 3)
        stage.engine.end(3)
        assert await session.hear(Pull) == Pull(2, 4)

    play(scene, pull=True, concurrent_slots=3)


def test_what_children_print_is_passed_on() -> None:
    async def scene(stage: Stage) -> None:
        await begin(stage)
        stage.engine.listener.printed(0, error=True, data=b"oh")
        assert stage.printed == [(0, True, b"oh")]

    play(scene)


def test_a_broken_guard_ends_the_worker() -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        stage.guard.broken = True
        await session.assign(1)
        with pytest.raises(BrokenPipeError):
            await running
        assert stage.engine.closed
        assert not stage.engine.farewell
        assert stage.engine.runs == {}

    play(scene)


def test_an_engine_that_broke_ends_the_worker() -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(1)
        await stage.engine.did("hand", 1)
        stage.engine.listener.failed(RuntimeError("our own fault"))
        with pytest.raises(RuntimeError, match="our own fault"):
            await running
        assert stage.engine.closed
        assert not stage.engine.farewell

    play(scene)


@pytest.mark.parametrize("slots", [0, -1])
def test_a_worker_without_slots_is_refused(slots: int) -> None:
    async def scene(stage: Stage) -> None:
        stage.offer = Offer("w", slots)
        with pytest.raises(ConfigurationError, match="slot"):
            stage.start()

    play(scene)
