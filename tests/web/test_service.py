"""The function service to the letter: four endpoints, their words, and their dialects."""

from __future__ import annotations

import asyncio
import math
import pickle
from base64 import b64encode, encodebytes
from pathlib import Path

import dill
import pytest

from holdfast.model.ids import parse_id
from holdfast.model.limits import CODE_BYTES_MAX
from holdfast.model.outcome import Encoding, OutcomeKind, Payload
from tests.web.kit import Web, play, read, told

CALL = ((1, 2), {"start": 3})
UNKNOWN = "01a21a9a-9079-7000-822f-b9d85598f3d5"


async def register(web: Web, function: object = math.factorial) -> str:
    answer = await web.post("/register_function", {"name": "f", "payload": told(function)})
    return str(answer["function_id"])


async def execute(web: Web, function: str, call: object = CALL, status: int = 200) -> str:
    body = {"function_id": function, "payload": told(call)}
    answer = await web.post("/execute_function", body, status)
    return str(answer.get("task_id", answer.get("detail")))


def test_a_function_is_registered_executed_and_its_result_told(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        assert await web.get("/") == {"message": "Holdfast is up"}
        function = await register(web)
        task = await execute(web, function)
        assert await web.get(f"/status/{task}") == {"task_id": task, "status": "QUEUED"}
        waiting = {"task_id": task, "status": "QUEUED", "result": ""}
        assert await web.get(f"/result/{task}") == waiting
        worker = await web.stage.worker()
        order = await worker.assigned()
        assert order.payload == Payload(
            Encoding.SERVICE, pickle.dumps(CALL), size_bytes=len(pickle.dumps(CALL))
        )
        assert order.python == ""
        assert await web.stage.store.inner.load_code(order.code) == pickle.dumps(math.factorial)
        await worker.start(order)
        assert (await web.get(f"/status/{task}"))["status"] == "RUNNING"
        data = pickle.dumps({"x": 1})
        await worker.end(order, result=Payload(Encoding.SERVICE, data, size_bytes=len(data)))
        await web.stage.quiet()
        done = await web.get(f"/result/{task}")
        assert done["status"] == "COMPLETED"
        assert read(done["result"]) == {"x": 1}

    play(tmp_path, scene)


@pytest.mark.parametrize("dialect", ["", "error=object"])
def test_a_failed_task_tells_the_text_or_the_exception(dialect: str, tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        worker = await web.stage.worker()
        task = await execute(web, await register(web))
        await worker.settle(await worker.assigned(), OutcomeKind.RAISED)
        answer = await web.get(f"/result/{task}")
        assert answer["status"] == "FAILED"
        told_of = read(answer["result"])
        assert str(told_of) == "it did not work"
        assert isinstance(told_of, Exception if dialect else str)

    play(tmp_path, scene, dialect=dialect)


def test_other_services_say_it_otherwise(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        function = await register(web)
        await execute(web, UNKNOWN, status=400)
        await web.get(f"/status/{UNKNOWN}", 400)
        await web.get(f"/result/{UNKNOWN}", 400)
        task = await execute(web, function)
        await web.get(f"/result/{task}", 404)
        worker = await web.stage.worker()
        await worker.settle(await worker.assigned())
        assert (await web.get(f"/status/{task}"))["status"] == "COMPLETE"

    play(tmp_path, scene, dialect="unknown=400,completed=COMPLETE,unfinished=404")


def test_what_is_refused_and_how(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        function = await register(web)
        whole = pickle.dumps(CALL)
        for payload in ("!", "gA", b64encode(whole[:-3]).decode(), b64encode(b"junk").decode(), ""):
            await web.post("/register_function", {"name": "f", "payload": payload}, 400)
            call = {"function_id": function, "payload": payload}
            await web.post("/execute_function", call, 400)
        for value in ("text", 5, None, [len], {"f": len}, (len,), {1}, b"bytes"):
            await web.post("/register_function", {"name": "f", "payload": told(value)}, 400)
        for value in ("text", 5, (1, 2), ([1], {}), ((1,), [2]), ((1,), {}, 3), {}, [(), {}]):
            await execute(web, function, value, 400)
        for body in ({"name": "f"}, {"payload": told(len)}, {"name": 5, "payload": "x"}, []):
            await web.post("/register_function", body, 422)
        await web.post("/execute_function", {"function_id": "x", "payload": told(CALL)}, 422)
        await web.post("/execute_function", {"function_id": function}, 422)
        await execute(web, UNKNOWN, status=404)
        for path in ("/status", "/result"):
            await web.get(f"{path}/{UNKNOWN}", 404)
            await web.get(f"{path}/not-an-id", 422)
        large = {"name": "f", "payload": told(b"x" * CODE_BYTES_MAX)}
        await web.post("/register_function", large, 400)

    play(tmp_path, scene)


def test_payloads_of_dill_with_newlines_and_of_what_only_workers_have(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        factor = 3
        payload = encodebytes(dill.dumps(lambda n: n * factor)).decode()
        assert "\n" in payload.strip()
        await web.post("/register_function", {"name": "f", "payload": payload})
        elsewhere = b"\x80\x04\x8c\x10only_the_workers\x94\x8c\x04work\x94\x93\x94."
        body = {"name": "g", "payload": b64encode(elsewhere).decode()}
        function = (await web.post("/register_function", body))["function_id"]
        # It would run a shell, were it loaded here; it is bytes.
        evil = b"cos\nsystem\n(S'touch " + bytes(tmp_path / "pwned") + b"'\ntR."
        await web.post("/register_function", {"name": "h", "payload": b64encode(evil).decode()})
        await execute(web, function, ((), {}))
        assert not (tmp_path / "pwned").exists()

    play(tmp_path, scene)


def test_ten_megabytes_there_and_back(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        worker = await web.stage.worker()
        large = bytes(range(256)) * 40_000
        task = await execute(web, await register(web), ((large,), {}))
        order = await worker.assigned()
        assert order.payload.encoding is Encoding.SERVICE
        data = pickle.dumps(((large,), {}))
        assert (await web.client.get(f"/v1/blobs/{order.payload.digest.hex()}")).content == data
        result = pickle.dumps(large)
        kept = await web.blobs.put(_one(result), bytes_max=len(result))
        payload = Payload(Encoding.SERVICE, b"", kept.digest, len(result))
        await worker.end(order, result=payload)
        await web.stage.quiet()
        assert read((await web.get(f"/result/{task}"))["result"]) == large

    play(tmp_path, scene)


async def _one(data: bytes):  # type: ignore[no-untyped-def]  # of the test alone
    yield data


def test_results_of_tasks_that_came_by_another_door(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        worker = await web.stage.worker()
        task = await web.keep()
        await worker.end(
            await worker.assigned(), result=Payload(Encoding.JSON, b'{"a":[1]}', size_bytes=9)
        )
        await web.stage.quiet()
        assert read((await web.get(f"/result/{task}"))["result"]) == {"a": [1]}
        assert (await web.stage.row(parse_id(task))).spec.payload.encoding is Encoding.JSON

    play(tmp_path, scene)


def test_forty_at_once(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        function = await register(web)
        tasks = await asyncio.gather(*(execute(web, function) for _ in range(40)))
        assert len(set(tasks)) == 40

    play(tmp_path, scene)
