"""Queues that are paused: nothing of them is claimed, and all of it is once they go on."""

from __future__ import annotations

from holdfast.model.messages import Assign, Reply, SetQueue
from tests.coordinator.stage import Client, Stage, perform


async def pause(client: Client, queue: str = "default", *, paused: bool = True) -> Reply:
    await client.send(SetQueue(1, queue, paused))
    return await client.next(Reply)


def test_nothing_of_a_paused_queue_is_claimed_until_it_goes_on() -> None:
    async def scene(stage: Stage) -> None:
        client = await stage.client()
        worker = await stage.worker(slots=4)
        reply = await pause(client)
        assert reply.data == {"queue": "default", "paused": True}
        waits, other = stage.spec(), stage.spec(queue="other")
        await client.keep(waits, other)
        assert (await worker.assigned()).task == other.id
        assert not [m for m in await worker.hears() if isinstance(m, Assign)]
        told = (await client.ask("why", task=waits.id.hex())).data["why"]
        assert told == "queued: its queue 'default' is paused"
        await pause(client, paused=False)
        assert (await worker.assigned()).task == waits.id

    perform(scene)


def test_what_waited_before_the_pause_waits_on_and_what_runs_goes_on() -> None:
    async def scene(stage: Stage) -> None:
        client = await stage.client()
        worker = await stage.worker(slots=1)
        first, second = stage.spec(), stage.spec()
        await client.keep(first, second)
        order = await worker.assigned()
        await pause(client)
        await worker.start(order)
        await worker.settle(order)
        assert not [m for m in await worker.hears() if isinstance(m, Assign)]
        await pause(client, paused=False)
        assert (await worker.assigned()).task == second.id

    perform(scene)


def test_a_pause_outlives_the_coordinator() -> None:
    async def scene(stage: Stage) -> None:
        client = await stage.client()
        await pause(client)
        await pause(client)
        await pause(client, "gone")
        await pause(client, "gone", paused=False)
        await stage.restart()
        assert stage.coordinator.state.crew.paused == {"default"}
        client = await stage.client()
        worker = await stage.worker()
        spec = stage.spec()
        await client.keep(spec)
        assert not [m for m in await worker.hears() if isinstance(m, Assign)]
        told = (await client.ask("queues")).data
        assert [(each["name"], each["paused"], each["queued"]) for each in told] == [
            ("default", True, 1)
        ]
        await pause(client, paused=False)
        assert (await worker.assigned()).task == spec.id
        told = (await client.ask("queues")).data
        assert [(each["name"], each["paused"], each["running"]) for each in told] == [
            ("default", False, 1)
        ]

    perform(scene)


def test_a_name_that_no_queue_can_have_is_refused() -> None:
    async def scene(stage: Stage) -> None:
        client = await stage.client()
        for queue in ("", "a+b", "x" * 600):
            assert (await pause(client, queue)).code == "invalid_input"

    perform(scene)
