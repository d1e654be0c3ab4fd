"""REST for functions, workers, queues and many tasks at once."""

from __future__ import annotations

import pickle
from pathlib import Path

from holdfast.model.ids import parse_id
from holdfast.model.limits import CODE_BYTES_MAX
from holdfast.model.outcome import OutcomeKind
from tests.web.kit import ADD, Web, play, told

NOBODY = "01a21a9a-9079-7000-822f-b9d85598f3d5"


def test_functions_are_registered_listed_and_run(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        by_path = await web.post("/v1/functions", {"name": "add", "function": "operator:add"}, 201)
        assert (by_path["function"], by_path["pickled"]) == ("operator:add", False)
        pickled = {"name": "mine", "pickle": told(len), "python": "3.11"}
        by_value = await web.post("/v1/functions", pickled, 201)
        assert (by_value["function"], by_value["pickled"]) == ("mine", True)
        listed = await web.get("/v1/functions")
        assert listed == {"functions": [by_value, by_path], "next": None}
        page = await web.get("/v1/functions", params={"limit": 1})
        rest = await web.get("/v1/functions", params={"limit": 1, "cursor": page["next"]})
        assert [page["functions"], rest["functions"]] == [[by_value], [by_path]]
        assert (await web.get("/v1/functions", params={"name": "add"}))["functions"] == [by_path]
        assert await web.get(f"/v1/functions/{by_value['id']}") == by_value
        new = {"function_id": by_value["id"], "args": [[1, 2]]}
        task = await web.post("/v1/tasks", new, 201)
        spec = (await web.stage.row(parse_id(task["id"]))).spec
        assert (spec.function, spec.python) == ("mine", "3.11")
        assert await web.stage.store.inner.load_code(spec.code) == pickle.dumps(len)
        assert (await web.get(f"/v1/functions/{NOBODY}", 404))["code"] == "unknown_function"

    play(tmp_path, scene)


def test_what_cannot_be_a_function(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        for body, status in (
            ({"name": "f"}, 422),
            ({"name": "f", "function": "a:b", "pickle": "gA=="}, 422),
            ({"name": "f", "function": "no path"}, 422),
            ({"name": "f", "pickle": "not base64!"}, 422),
            ({"name": "", "function": "a:b"}, 422),
            ({"name": "f", "pickle": told("x" * CODE_BYTES_MAX)}, 413),
        ):
            await web.post("/v1/functions", body, status)
        assert not web.stage.store.commits

    play(tmp_path, scene)


def test_queues_and_workers_are_told_of(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        worker = await web.stage.worker("w1", queues=("a",))
        await web.keep(queue="a")
        await web.keep(queue="b")
        await web.keep(queue="b", delay=100)
        await worker.assigned()
        queues = (await web.get("/v1/queues"))["queues"]
        assert [(q["name"], q["queued"], q["delayed"], q["running"]) for q in queues] == [
            ("a", 0, 0, 1),
            ("b", 1, 1, 0),
        ]
        told_of = (await web.get("/v1/workers"))["workers"]
        assert [(each["name"], each["holds"]) for each in told_of] == [("w1", 1)]
        paused = await web.post("/v1/queues/b/pause")
        assert (paused["paused"], paused["queued"]) == (True, 1)
        assert (await web.get("/v1/queues/b"))["paused"]
        assert not (await web.post("/v1/queues/b/resume"))["paused"]
        assert (await web.get("/v1/queues/never%20heard"))["queued"] == 0
        assert await web.post("/v1/workers/w1/drain") == {"worker": "w1", "draining": True}
        assert (await web.post("/v1/workers/nobody/drain", status=404))["code"] == "unknown_task"
        stats = await web.get("/v1/stats")
        assert stats["workers"] == 1
        assert (await web.get("/healthz"))["up"]
        assert (await web.get("/readyz"))["ready"]

    play(tmp_path, scene)


def test_a_coordinator_without_room_is_not_ready(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        web.stage.room.is_short = True
        web.stage.coordinator.look_at_room()
        assert (await web.get("/readyz", 503))["why"] == "the disk is nearly full"
        assert (await web.get("/healthz"))["up"]

    play(tmp_path, scene)


def test_a_verb_for_many_reaches_what_the_filter_chooses(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        mine = [await web.keep(meta={"run": "7"}) for _ in range(5)]
        other = await web.keep(meta={"run": "8"})
        bulk = {"filter": {"meta": {"run": "7"}}}
        dry = await web.post("/v1/bulk/cancel", bulk | {"dry_run": True})
        assert (dry["matched"], dry["done"], dry["dry_run"]) == (5, 5, True)
        assert sorted(dry["sample"]) == sorted(mine)
        assert (await web.get(f"/v1/tasks/{mine[0]}"))["state"] == "queued"
        paused = await web.post("/v1/bulk/pause", bulk | {"limit": 2})
        assert (paused["matched"], paused["done"], paused["more"]) == (2, 2, True)
        assert (await web.post("/v1/bulk/resume", bulk))["done"] == 2
        assert (await web.post("/v1/bulk/cancel", bulk))["done"] == 5
        assert (await web.post("/v1/bulk/cancel", bulk))["matched"] == 0
        assert (await web.get(f"/v1/tasks/{other}"))["state"] == "queued"
        removed = await web.post("/v1/bulk/remove", bulk)
        assert (removed["matched"], removed["done"]) == (5, 5)
        await web.get(f"/v1/tasks/{mine[0]}", 410)
        states = {"filter": {"states": ["queued"]}}
        assert (await web.post("/v1/bulk/cancel", states))["done"] == 1

    play(tmp_path, scene)


def test_a_verb_for_many_is_not_meant_for_all_by_accident(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        await web.keep()
        for body in (
            {"filter": {}},
            {"filter": {"queue": ""}},
            {"filter": {"quue": "a"}},
            {"queue": "a"},
            {},
        ):
            await web.post("/v1/bulk/cancel", body, 422)
        ended = {"filter": {"states": ["failed"]}}
        assert (await web.post("/v1/bulk/cancel", ended))["matched"] == 0

    play(tmp_path, scene)


def test_a_running_task_is_not_removed_by_a_verb_for_many(tmp_path: Path) -> None:
    async def scene(web: Web) -> None:
        worker = await web.stage.worker()
        running = await web.keep(queue="q")
        order = await worker.assigned()
        chosen = {"filter": {"queue": "q"}}
        assert (await web.post("/v1/bulk/remove", chosen))["matched"] == 0
        await worker.settle(order, OutcomeKind.RAISED)
        assert (await web.post("/v1/bulk/remove", chosen))["done"] == 1
        await web.get(f"/v1/tasks/{running}", 410)
        assert ADD

    play(tmp_path, scene)
