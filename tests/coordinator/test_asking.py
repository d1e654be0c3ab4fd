"""Questions of people: plain answers, and a code for each that cannot be answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from holdfast.errors import StoreCorruptError
from holdfast.model.ids import id_text
from holdfast.model.limits import ERROR_TEXT_BYTES_MAX
from holdfast.model.messages import DrainOrder, Ended
from holdfast.model.outcome import Encoding, Failure, OutcomeKind, Payload
from holdfast.model.task import State, Wanted
from holdfast.ports import Changes, Event
from tests.coordinator.stage import Client, Stage, perform


def test_status_story_and_why_by_prefix() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(), await stage.client()
        await client.keep(spec := stage.spec(key="k", tags=()))
        order = await worker.assigned()
        await worker.start(order)
        await stage.quiet()
        text = id_text(spec.id)
        for prefix in (text, text[:13], spec.id.hex()):
            status = (await client.ask("status", task=prefix)).data
            assert (status["id"], status["state"], status["worker"]) == (text, "running", "w")
        why = (await client.ask("why", task=text)).data
        assert "started on worker w" in why["why"]
        await worker.settle(order, OutcomeKind.RAISED)
        story = [line["what"] for line in (await client.ask("story", task=text)).data]
        assert story[0] == "submitted"
        assert set(story) == {"submitted", "assigned", "started", "raised", "failed"}
        status = (await client.ask("status", task=text)).data
        assert (status["reason"], status["error"]) == ("error", "it did not work")
        assert status["error_type"] == "builtins.ValueError"

    perform(play)


def test_why_tells_of_a_worker_that_does_not_start() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        await client.keep(spec := stage.spec())
        stage.coordinator.absent = "the coordinator's own worker ended with exit code 3"
        why = (await client.ask("why", task=id_text(spec.id))).data["why"]
        assert why == f"queued: no worker is connected; {stage.coordinator.absent}"

    perform(play)


def test_lists() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        specs = [stage.spec(f"m:f{n}", queue="a" if n % 2 else "b") for n in range(6)]
        await client.keep(*specs)
        await client.want(specs[5].id, Wanted.CANCEL)
        ids = [id_text(spec.id) for spec in specs]

        async def listed(**parameters: object) -> list[str]:
            return [row["id"] for row in (await client.ask("list", **parameters)).data]

        assert await listed() == ids[::-1]
        assert await listed(limit=2) == ids[:3:-1]
        assert await listed(before=ids[4]) == ids[3::-1]
        assert await listed(queue="a") == [ids[5], ids[3], ids[1]]
        assert await listed(function="m:f2") == [ids[2]]
        assert await listed(states=["cancelled"]) == [ids[5]]

    perform(play)


def test_a_drain_outlives_the_socket_that_was_to_tell_it() -> None:
    async def play(stage: Stage) -> None:
        await stage.worker(slots=1)
        client = await stage.client()
        assert (await client.ask("drain", worker="w")).data["draining"]
        # That socket broke before the order was read.
        again = await stage.worker(slots=1)
        heard = await again.hears()
        assert [type(message) for message in heard] == [DrainOrder]
        assert [worker["state"] for worker in (await client.ask("workers")).data] == ["draining"]
        spec = stage.spec()
        await client.keep(spec)
        await stage.quiet()
        assert (await stage.row(spec.id)).life.state is State.QUEUED
        # What it says of itself needs no order, and its next life was not asked.
        assert await (await stage.worker(slots=1, draining=True)).hears() == []
        fresh = await stage.worker(slots=1, incarnation=2)
        assert (await fresh.assigned()).task == spec.id

    perform(play)


def test_workers_drain_and_stats() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker("w", slots=3), await stage.client()
        await client.keep(stage.spec(), stage.spec(queue="b"))
        await worker.start(await worker.assigned())
        await stage.quiet()
        (told,) = (await client.ask("workers")).data
        assert (told["name"], told["state"], told["running"], told["holds"]) == (
            "w",
            "connected",
            1,
            2,
        )
        assert (await client.ask("drain", worker="w")).data["draining"]
        await worker.next(DrainOrder)
        await client.keep(stage.spec())
        stats = (await client.ask("stats")).data
        assert stats["tasks"]["running"] == 2
        assert stats["waiting"] == {"default": 1}
        assert (stats["workers"], stats["clients"]) == (1, 1)
        await worker.leave()
        await stage.quiet()
        (told,) = (await client.ask("workers")).data
        assert told["state"] == "disconnected"
        assert (await client.ask("drain", worker="w")).code == "unknown_task"

    perform(play)


def test_functions_of_what_ended_lately() -> None:
    async def play(stage: Stage) -> None:
        worker, client = await stage.worker(queues=("default",)), await stage.client()
        assert (await client.ask("functions")).data == []
        await client.keep(stage.spec("m:f"))
        order = await worker.assigned()
        await worker.start(order)
        await worker.settle(order, OutcomeKind.RAISED)
        await client.keep(never := stage.spec("m:g", queue="none"))
        await client.want(never.id, Wanted.CANCEL)
        failed, cancelled = (await client.ask("functions")).data
        assert (failed["function"], failed["ended"], failed["failed"]) == ("m:f", 1, 1)
        assert 0 <= failed["mean_ms"] <= failed["max_ms"]
        assert cancelled == {
            "function": "m:g",
            "ended": 1,
            "failed": 0,
            "mean_ms": None,
            "max_ms": None,
        }

    perform(play)


Question = Callable[[Client], Awaitable[object]]


@pytest.mark.parametrize(
    ("question", "parameters", "code"),
    [
        ("nonsense", {}, "unknown_question"),
        ("status", {}, "invalid_input"),
        ("status", {"task": 5}, "invalid_input"),
        ("status", {"task": "xyz"}, "invalid_input"),
        ("status", {"task": ""}, "invalid_input"),
        ("status", {"task": "ffffffff"}, "unknown_task"),
        ("status", {"task": "0"}, "unknown_task"),
        ("story", {"task": None}, "invalid_input"),
        ("why", {"task": []}, "invalid_input"),
        ("drain", {}, "invalid_input"),
        ("drain", {"worker": "nobody"}, "unknown_task"),
        ("list", {"limit": 0}, "invalid_input"),
        ("list", {"state": "failed"}, "invalid_input"),
        ("list", {"states": "failed"}, "invalid_input"),
        ("status", {"task": "0", "tasks": "0"}, "invalid_input"),
        ("stats", {"of": "tasks"}, "invalid_input"),
        ("functions", {"limit": 5}, "invalid_input"),
        ("list", {"limit": "many"}, "invalid_input"),
        ("list", {"limit": 1e400}, "invalid_input"),
        ("list", {"before": "zz"}, "invalid_input"),
        ("list", {"before": 7}, "invalid_input"),
        ("list", {"states": ["asleep"]}, "invalid_input"),
        ("list", {"states": [3]}, "invalid_input"),
        ("list", {"states": 3}, "invalid_input"),
        ("list", {"queue": {}}, "invalid_input"),
    ],
)
def test_what_cannot_be_answered(question: str, parameters: dict[str, object], code: str) -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        await client.keep(stage.spec(), stage.spec())
        reply = await client.ask(question, **parameters)
        assert reply.code == code
        assert reply.text

    perform(play)


def test_an_ambiguous_prefix_names_two() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        await client.keep(one := stage.spec(), two := stage.spec())
        reply = await client.ask("status", task=id_text(one.id)[:8])
        assert reply.code == "unknown_task"
        assert id_text(one.id) in reply.text
        assert id_text(two.id) in reply.text

    perform(play)


def test_an_answer_that_no_frame_holds_says_so() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        payload = Payload(Encoding.JSON, b"[]")
        for _ in range(12):
            specs = [stage.spec("m:" + "f" * 400, payload=payload) for _ in range(50)]
            await client.keep(*specs)
        reply = await client.ask("list", limit=1000)
        assert reply.code == "too_large"
        assert "with a lower limit" in reply.text
        assert len((await client.ask("list", limit=100)).data) == 100

    perform(play)


def test_a_question_that_meets_damage_is_answered_and_ends_the_coordinator() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()

        async def broken() -> dict[str, int]:
            raise StoreCorruptError("store.db is damaged")

        stage.reader.counts = broken  # type: ignore[method-assign]
        reply = await client.ask("stats")
        assert (reply.code, reply.text) == ("store", "store.db is damaged")
        assert stage.running is not None
        await asyncio.wait([stage.running])

    with pytest.raises(StoreCorruptError):
        perform(play)


def test_a_story_that_no_frame_holds_begins_and_ends_as_it_was() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        await client.keep(spec := stage.spec(queue="none"))
        turn = await stage.store.inner.last_turn()
        told = [
            Event(spec.id, stage.clock.ms + number, "noted", 0, "", f"{number} " + "x" * 8000)
            for number in range(100)
        ]
        await stage.store.inner.commit(Changes(turn=turn, events=told))
        reply = await client.ask("story", task=id_text(spec.id))
        assert reply.code == ""
        lines = reply.data
        assert [line["what"] for line in lines[:3]] == ["submitted", "left out", "noted"]
        shown = len(lines) - 2
        assert 20 < shown < 100
        assert lines[1]["detail"].startswith(f"{100 - shown} lines from here on")
        assert [line["detail"].split()[0] for line in lines[2:]] == [
            str(number) for number in range(100 - shown, 100)
        ]

    perform(play)


def test_what_a_story_tells_is_bounded_in_bytes() -> None:
    async def play(stage: Stage) -> None:
        client, worker = await stage.client(), await stage.worker()
        await client.keep(spec := stage.spec())
        order = await worker.assigned()
        failure = Failure(("E",), message="\N{EURO SIGN}" * 10_000)
        await worker.say(Ended(order.task, order.token, OutcomeKind.RAISED, None, failure))
        await stage.quiet()
        (event,) = await stage.events(spec.id)
        assert event.detail.startswith("E: \N{EURO SIGN}")
        size = len(event.detail.encode())
        assert ERROR_TEXT_BYTES_MAX - 3 < size <= ERROR_TEXT_BYTES_MAX

    perform(play)


def test_what_does_not_come_in_parts_does_not_pretend_to() -> None:
    async def play(stage: Stage) -> None:
        tags = tuple(f"{number:0500}" for number in range(500))
        worker = await stage.worker(tags=tags)
        other = await stage.worker("other", tags=tags)
        client = await stage.client()
        reply = await client.ask("workers")
        assert reply.code == "too_large"
        assert "limit" not in reply.text
        assert (worker.epoch, other.epoch) == (1, 1)

    perform(play)
