"""The routes beside the sessions: blobs and deaths, each with its status."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.blobs.local import LocalBlobs
from holdfast.coordinator import http
from holdfast.coordinator.http import Routes
from holdfast.errors import StoreFullError
from tests.coordinator.stage import Stage, perform


async def _call(
    routes: Routes,
    method: str,
    path: str,
    chunks: Iterable[bytes] = (b"",),
    *,
    headers: Iterable[tuple[bytes, bytes]] = (),
    cut: bool = False,
) -> tuple[int, bytes]:
    parts = list(chunks)
    events: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": cut or n + 1 < len(parts)}
        for n, part in enumerate(parts)
    ]
    events.append({"type": "http.disconnect"})
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return events.pop(0)

    async def send(event: MutableMapping[str, Any]) -> None:
        sent.append(event)

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    await routes(scope, receive, send)
    return sent[0]["status"], b"".join(event.get("body", b"") for event in sent[1:])


def _spoil(directory: Path) -> None:
    """Turn the x of every file into y."""
    for file in directory.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes().replace(b"x", b"y"))


def test_blobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PAYLOAD_BYTES_MAX", 1000)

    async def play(stage: Stage) -> None:
        blobs = LocalBlobs(tmp_path)
        await blobs.open()
        routes = Routes(stage.gateway, blobs)
        data = b"x" * 900
        path = "/v1/blobs/" + hashlib.sha256(data).hexdigest()
        assert (await _call(routes, "GET", path))[0] == 404
        assert (await _call(routes, "HEAD", path))[0] == 404
        assert (await _call(routes, "PUT", path, [data[:100], data[100:]]))[0] == 201
        assert await _call(routes, "GET", path) == (200, data)
        assert await _call(routes, "HEAD", path) == (200, b"")
        # What is corrupt is read to its end: who asked compares the digest, and asks no more.
        _spoil(tmp_path)
        assert await _call(routes, "GET", path) == (200, b"y" * 900)
        assert (await _call(routes, "PUT", path, [data]))[0] == 201
        assert await _call(routes, "GET", path) == (200, data)
        assert (await _call(routes, "PUT", path, [b"other"]))[0] == 422
        assert (await _call(routes, "PUT", path, [b"y" * 1001]))[0] == 413
        length = [(b"content-length", b"1001")]
        assert (await _call(routes, "PUT", path, headers=length))[0] == 413
        length = [(b"content-length", b"many")]
        assert (await _call(routes, "PUT", path, headers=length))[0] == 413
        assert (await _call(routes, "PUT", path, [b"z"], cut=True))[0] == 413
        assert (await _call(routes, "DELETE", path))[0] == 405
        for name in ("", "ab", "g" * 64):
            assert (await _call(routes, "GET", f"/v1/blobs/{name}"))[0] == 400

        stage.room.free_bytes = 1000
        length = [(b"content-length", b"1000")]
        assert (await _call(routes, "PUT", path, [data], headers=length))[0] == 201
        # It would take what is for outcomes, and be removed again.
        stage.room.free_bytes = 999
        status, text = await _call(routes, "PUT", path, [data], headers=length)
        assert status == 507
        assert b"no room for a payload of 0.1 MiB until 2.6 MiB are free" in text
        stage.coordinator.short = True
        assert (await _call(routes, "PUT", path, [data]))[0] == 507
        stage.coordinator.short = False

        async def full(chunks: object, *, bytes_max: int) -> None:
            raise StoreFullError("no room")

        monkeypatch.setattr(blobs, "put", full)
        assert (await _call(routes, "PUT", path, [b"z"]))[0] == 507

        async def broken(chunks: object, *, bytes_max: int) -> None:
            raise PermissionError(13, "not allowed")

        monkeypatch.setattr(blobs, "put", broken)
        status, text = await _call(routes, "PUT", path, [b"z"])
        assert status == 500
        assert b"not allowed" in text

    perform(play)


def test_other_paths(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        routes = Routes(stage.gateway, LocalBlobs(tmp_path))
        assert await _call(routes, "GET", "/healthz") == (200, b'{"up":true}')
        assert (await _call(routes, "GET", "/nothing"))[0] == 404
        assert (await _call(routes, "GET", "/v1/deaths"))[0] == 404

    perform(play)


def test_deaths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(stage: Stage) -> None:
        routes = Routes(stage.gateway, LocalBlobs(tmp_path))
        worker = await stage.worker()
        assert worker.welcome is not None
        report = {
            "identity": "id-w",
            "incarnation": 1,
            "last_word": worker.welcome.last_word,
            "started": ["00ff"],
            "spooled": [],
        }

        async def post(body: object) -> int:
            data = body if isinstance(body, bytes) else msgspec.json.encode(body)
            return (await _call(routes, "POST", "/v1/deaths", [data]))[0]

        commits = stage.counters.get("commits")
        assert await post(b"{") == 400
        assert await post(report | {"started": ["zz"]}) == 400
        assert await post(report | {"incarnation": "x"}) == 400
        assert await post(report | {"last_word": "wrong"}) == 403
        assert await post(report | {"last_word": "é"}) == 403
        assert await post(report | {"identity": "nobody"}) == 403
        assert await post(b" " * (5 << 20)) == 413
        # Its socket is still open: what it said last may not be read yet.
        monkeypatch.setattr(http, "_JUDGED_SECONDS", 0.01)
        assert await post(report) == 503
        assert stage.counters.get("commits") == commits
        await worker.leave()
        await stage.quiet()
        assert await post(report) == 200
        assert (await _call(routes, "POST", "/v1/deaths", [b"{"], cut=True))[0] == 413

    perform(play)
