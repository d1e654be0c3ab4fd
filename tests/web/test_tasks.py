"""REST for tasks: what is kept, what is told, and what each refusal is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from holdfast.coordinator import desk
from holdfast.errors import StoreDoubtError, StoreFullError
from holdfast.model.ids import parse_id
from holdfast.model.messages import Assign
from holdfast.model.outcome import Encoding, OutcomeKind, Payload
from holdfast.model.task import State
from tests.web.kit import ADD, Web, play


def test_a_task_is_kept_run_and_told_of(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        worker = await web.stage.worker()
        task = await web.keep(queue="q", tags=["b", "a", "a"], meta={"run": "7"}, priority=3)
        row = await web.stage.row(parse_id(task))
        assert row.spec.tags == ("a", "b")
        assert row.spec.meta == (("run", "7"),)
        assert row.spec.payload.data == b"[[1,2],{}]"
        assert (await web.get(f"/v1/tasks/{task}"))["state"] == "queued"
        assert (await web.get(f"/v1/tasks/{task}/result", 202))["state"] == "queued"
        worker = await web.stage.worker("able", tags=("a", "b"))
        waiting = asyncio.create_task(web.get(f"/v1/tasks/{task}/result", params={"wait": 20}))
        order = await worker.assigned()
        await worker.start(order)
        await worker.end(order, result=Payload(Encoding.JSON, b'{"x":[1]}', size_bytes=9))
        told = await waiting
        assert (told["state"], told["encoding"], told["value"]) == ("succeeded", "json", {"x": [1]})
        assert await web.get(f"/v1/tasks/{task}/result") == told
        (attempt,) = (await web.get(f"/v1/tasks/{task}/attempts"))["attempts"]
        assert (attempt["run"], attempt["worker"], attempt["ended"]) == (1, "able", "spent")
        story = (await web.get(f"/v1/tasks/{task}/story"))["story"]
        assert [line["what"] for line in story] == ["submitted", "assigned", "started", "succeeded"]
        assert "succeeded in run 1" in (await web.get(f"/v1/tasks/{task}/why"))["why"]

    play(tmp_path, scene)


def test_a_failed_task_tells_its_error(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        worker = await web.stage.worker()
        task = await web.keep()
        await worker.settle(await worker.assigned(), OutcomeKind.RAISED)
        told = await web.get(f"/v1/tasks/{task}/result")
        assert (told["state"], told["encoding"], told["error"]) == (
            *("failed", "none"),
            "it did not work",
        )
        assert told["error_type"] == "builtins.ValueError"

    play(tmp_path, scene)


def test_a_submission_may_be_said_again(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        made = "01a21a9a-9079-7000-822f-b9d85598f3d5"
        new = ADD | {"id": made}
        assert await web.post("/v1/tasks", new, 201) == {"id": made, "known": False}
        both = await asyncio.gather(*(web.post("/v1/tasks", new, 201) for _ in range(2)))
        assert both == [{"id": made, "known": False}] * 2
        conflict = await web.post("/v1/tasks", new | {"args": [3]}, 409)
        assert conflict["code"] == "key_conflict"
        first = await web.post("/v1/tasks", ADD | {"key": "k"}, 201)
        again = await web.post("/v1/tasks", ADD | {"key": "k"}, 200)
        assert again == {"id": first["id"], "known": True}

    play(tmp_path, scene)


def test_a_batch_is_kept_in_few_transactions_each_by_itself(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        tasks = [ADD | {"args": [n, n]} for n in range(600)]
        tasks[5] = {"function_id": "01a21a9a-9079-7000-822f-b9d85598f3d5"}
        tasks[7] = ADD | {"key": "k"}
        tasks[9] = ADD | {"key": "k", "args": [8]}
        before = len(web.stage.store.commits)
        told = await web.post("/v1/bulk/submit", {"tasks": tasks})
        assert (told["accepted"], told["refused"]) == (598, 2)
        assert told["tasks"][5]["code"] == "unknown_function"
        assert told["tasks"][9]["code"] == "key_conflict"
        assert len({each["id"] for each in told["tasks"] if "id" in each}) == 598
        assert len(web.stage.store.commits) - before <= 5

    play(tmp_path, scene)


def test_large_arguments_become_a_blob_before_the_row(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        task = await web.keep(args=["x" * 100_000])
        payload = (await web.stage.row(parse_id(task))).spec.payload
        assert payload.digest
        assert await web.blobs.has(payload.digest)
        answer = await web.client.get(f"/v1/blobs/{payload.digest.hex()}")
        assert answer.content == msgspec.json.encode([["x" * 100_000], {}])

    play(tmp_path, scene)


def test_lists_choose_and_go_on_page_after_page(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        ids = [await web.keep(meta={"n": str(n % 2)}, queue=f"q{n % 3}") for n in range(9)]
        found: list[str] = []
        further: dict[str, str] = {}
        while True:
            page = await web.get("/v1/tasks", params={"limit": "4", **further})
            found += [task["id"] for task in page["tasks"]]
            if page["next"] is None:
                break
            further = {"cursor": page["next"]}
        assert found == ids[::-1]
        for query, chosen in (
            ({"meta": "n=1"}, ids[1::2]),
            ({"queue": "q2"}, ids[2::3]),
            ({"queue": "q2", "meta": "n=0"}, [ids[2], ids[8]]),
            ({"state": ["failed", "running"]}, []),
            ({"function": "operator:add", "state": "queued"}, ids),
            ({"since_ms": web.stage.clock.wall_ms() + 1}, []),
            ({"until_ms": web.stage.clock.wall_ms() + 1}, ids),
        ):
            page = await web.get("/v1/tasks", params=query)
            assert [task["id"] for task in page["tasks"]] == chosen[::-1], query
        told = await web.get("/v1/tasks", 422, params={"stat": "failed"})
        assert "did you mean 'state'" in told["detail"]

    play(tmp_path, scene)


def test_a_version_that_is_known_is_not_sent_again(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        task = await web.keep()
        answer = await web.client.get(f"/v1/tasks/{task}")
        tag = answer.headers["etag"]
        again = await web.client.get(f"/v1/tasks/{task}", headers={"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"")
        lost = {"if-match": '"7"'}
        told = await web.post(f"/v1/tasks/{task}/cancel", status=412, headers=lost)
        assert told["code"] == "version"
        done = await web.post(f"/v1/tasks/{task}/cancel", headers={"if-match": tag})
        assert (done["said"], done["state"]) == ("done", "cancelled")
        await web.post(f"/v1/tasks/{task}/cancel", status=412, headers={"if-match": "x"})

    play(tmp_path, scene)


def test_wishes_for_one_task(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        task = await web.keep()
        assert (await web.post(f"/v1/tasks/{task}/pause"))["state"] == "paused"
        assert (await web.post(f"/v1/tasks/{task}/resume"))["state"] == "queued"
        worker = await web.stage.worker()
        order = await worker.assigned()
        await worker.start(order)
        said = await web.post(f"/v1/tasks/{task}/cancel")
        assert (said["said"], said["state"], said["wanted"]) == ("asked", "running", "cancel")
        told = await web.post(f"/v1/tasks/{task}/resume", status=409)
        assert told["code"] == "being_cancelled"

    play(tmp_path, scene)


def test_what_has_ended_can_be_removed_and_is_gone(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        task = await web.keep(id="01a21a9a-9079-7000-822f-b9d85598f3d5")
        assert (await web.ask("DELETE", f"/v1/tasks/{task}", 409))["code"] == "running"
        await web.post(f"/v1/tasks/{task}/cancel")
        await web.ask("DELETE", f"/v1/tasks/{task}", 204)
        for path in ("", "/result", "/story", "/why", "/attempts"):
            assert (await web.get(f"/v1/tasks/{task}{path}", 410))["code"] == "pruned"
        await web.ask("DELETE", f"/v1/tasks/{task}", 410)
        await web.post(f"/v1/tasks/{task}/cancel", status=410)
        # Said again by who lost the answer: it has run, and does not run again.
        await web.post("/v1/tasks", ADD | {"id": task}, 410)

    play(tmp_path, scene)


@pytest.mark.parametrize("verb", ["GET", "DELETE"])
def test_ids_that_name_nothing(verb: str, tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        unknown = "01a21a9a-9079-7000-822f-b9d85598f3d5"
        assert (await web.ask(verb, f"/v1/tasks/{unknown}", 404))["code"] == "unknown_task"
        assert (await web.ask(verb, "/v1/tasks/0192", 422))["code"] == "invalid_input"
        assert (await web.ask(verb, "/v1/nothing", 404))["code"] == "unknown_path"

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{", 400, "JSON"),
        (b"[]", 422, "dictionary"),
        (b'{"function": "operator:add", "args": [NaN]}', 400, "JSON"),
        (b'{"function": "operator:add", "args": ["\\ud800"]}', 400, "JSON"),
        (b'{"function": "no path"}', 422, "function"),
        (b'{"function": "operator:add", "functon_id": "x"}', 422, "did you mean 'function_id'?"),
        (b'{"function": "operator:add", "queue": "a+b"}', 422, "queue"),
        (b'{"function": "operator:add", "queue": 5}', 422, "queue"),
        (b'{"function": "operator:add", "priority": 5000}', 422, "priority"),
        (b'{"function": "operator:add", "priority": 1e400}', 400, "JSON"),
        (b'{"function": "operator:add", "delay": -1}', 422, "delay"),
        (b'{"function": "operator:add", "id": "x"}', 422, "id"),
        (b'{"function": "operator:add", "meta": {"a": 5}}', 422, "meta"),
        (b'{"function": "operator:add", "meta": {"\\u0000": "x"}}', 422, "meta"),
        (b"{}", 422, "exactly one"),
    ],
)
def test_what_cannot_be_a_task(body: bytes, status: int, text: str, tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        kind = {"content-type": "application/json"}
        told = await web.ask("POST", "/v1/tasks", status, content=body, headers=kind)
        assert text in told["detail"]
        assert told["type"] == f"urn:holdfast:problem:{told['code']}"
        assert not web.stage.store.commits

    play(tmp_path, scene)


def test_without_room_a_submitter_is_told_when_to_come_again(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        web.stage.store.before.append(StoreFullError("no room"))
        answer = await web.client.post("/v1/tasks", json=ADD)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["code"] == "no_room"
        web.stage.room.free_bytes = 0
        large = await web.client.post("/v1/tasks", json=ADD | {"args": ["x" * 100_000]})
        assert (large.status_code, large.json()["code"]) == (503, "no_room")

    play(tmp_path, scene)


def test_too_many_at_once_are_told_when_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "SUBMISSIONS_MAX", 2)
    monkeypatch.setattr(desk, "WAITERS_MAX", 1)

    async def scene(web: Web) -> None:
        web.stage.store.gate = asyncio.Event()
        kept = [asyncio.create_task(web.keep()) for _ in range(2)]
        await web.stage.store.reached.wait()
        answer = await web.client.post("/v1/tasks", json=ADD)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        web.stage.store.gate.set()
        first, second = await asyncio.gather(*kept)
        waits = asyncio.create_task(web.get(f"/v1/tasks/{first}/result", 202, params={"wait": 0.3}))
        await asyncio.sleep(0.05)
        await web.get(f"/v1/tasks/{second}/result", 429, params={"wait": 0.1})
        await waits
        assert not web.stage.coordinator.state.watchers

    play(tmp_path, scene)


def test_a_store_in_doubt_is_told_of_once_nobody_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "ANSWER_SECONDS", 0.05)

    async def scene(web: Web) -> None:
        web.stage.store.gate = asyncio.Event()
        told = await web.post("/v1/tasks", ADD, 503)
        assert told["code"] == "in_doubt"
        web.stage.store.gate.set()
        await web.stage.quiet()

    play(tmp_path, scene)


def test_a_commit_that_broke_off_is_answered_by_what_became_of_it(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        web.stage.store.after.append(StoreDoubtError("broke off"))
        task = await web.keep()
        assert (await web.stage.row(parse_id(task))).life.state is State.QUEUED

    play(tmp_path, scene)


def test_many_wait_for_one_task_and_who_leaves_is_forgotten(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        task = await web.keep()
        path = f"/v1/tasks/{task}/result"
        waits = [asyncio.create_task(web.get(path, params={"wait": 20})) for _ in range(20)]
        gone = asyncio.create_task(web.get(path, params={"wait": 20}))
        await asyncio.sleep(0.05)
        gone.cancel()
        worker = await web.stage.worker()
        await worker.settle(await worker.assigned())
        told = await asyncio.gather(*waits)
        assert {each["state"] for each in told} == {"succeeded"}
        assert not web.stage.coordinator.state.watchers

    play(tmp_path, scene)


def test_tasks_of_the_web_are_not_watched_by_themselves(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        await asyncio.gather(*(web.keep() for _ in range(20)))
        assert not web.stage.coordinator.state.watchers
        worker = await web.stage.worker(slots=2)
        assert isinstance(await worker.assigned(), Assign)

    play(tmp_path, scene)


def test_msgpack_is_taken_and_given(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        kind = {"content-type": "application/msgpack", "accept": "application/msgpack"}
        body = msgspec.msgpack.encode(ADD)
        answer = await web.client.post("/v1/tasks", content=body, headers=kind)
        assert (answer.status_code, answer.headers["content-type"]) == (201, "application/msgpack")
        told = msgspec.msgpack.decode(answer.content)
        row = await web.stage.row(parse_id(told["id"]))
        assert row.spec.function == "operator:add"
        broken = await web.client.post("/v1/tasks", content=b"\xc1", headers=kind)
        assert broken.status_code == 400
        assert msgspec.msgpack.decode(broken.content)["code"] == "invalid_request"

    play(tmp_path, scene)


def test_an_error_of_ours_is_a_problem_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: object) -> None:
        raise RuntimeError("a bug of ours")

    async def scene(web: Web) -> None:
        monkeypatch.setattr(web.intake, "spec", broken)
        assert (await web.post("/v1/tasks", ADD, 500))["code"] == "internal"

    play(tmp_path, scene)
    assert "a bug of ours" in caplog.text
