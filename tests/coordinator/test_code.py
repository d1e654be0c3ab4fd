"""Functions that travel with their tasks: kept before them, known again, refused with them."""

from __future__ import annotations

import hashlib

import pytest

from holdfast.coordinator import state
from holdfast.model.messages import Accepted, PutCode, Refused, Submit
from tests.coordinator.stage import Stage, perform


def function(name: str, size_bytes: int = 20) -> PutCode:
    """Return a function as it travels."""
    data = name.encode().ljust(size_bytes, b".")
    return PutCode(hashlib.sha256(data).digest(), data)


def test_a_task_whose_function_is_nowhere_is_not_kept_for_now() -> None:
    async def play(stage: Stage) -> None:
        client, code = await stage.client(), function("f")
        lost, plain = stage.spec(code=code.digest), stage.spec()
        await client.submit(lost, plain)
        refused = await client.next(Refused)
        assert (refused.task, refused.code) == (lost.id, "no_code")
        assert refused.retry_after_seconds > 0
        assert (await client.next(Accepted)).tasks == (plain.id,)
        await client.send(Submit((lost,)), code)
        assert (await client.next(Refused)).code == "no_code", "its function came behind it"
        assert (await client.keep(lost)).tasks == (lost.id,)

    perform(play)


def test_a_kept_task_is_answered_as_kept_whatever_became_of_its_function() -> None:
    async def play(stage: Stage) -> None:
        client, code = await stage.client(), function("f")
        await client.send(code, Submit((kept := stage.spec(code=code.digest),)))
        await client.next(Accepted)
        stage.disk.execute("DELETE FROM code")
        await stage.restart()
        back = await stage.client()
        await back.submit(kept, again=True)
        assert (await back.next(Accepted)).tasks == (kept.id,)

    perform(play)


def test_a_function_is_known_that_another_client_brought_or_a_former_life_kept() -> None:
    async def play(stage: Stage) -> None:
        one, code = await stage.client("one"), function("f")
        await one.send(code, Submit((stage.spec(code=code.digest),)))
        await one.next(Accepted)
        two = await stage.client("two")
        await two.keep(stage.spec(code=code.digest))
        commits = len(stage.store.commits)
        await two.send(code)
        await stage.quiet()
        assert len(stage.store.commits) == commits, "nothing to write"
        assert stage.store.code_asked == []
        await stage.restart()
        back = await stage.client("back")
        await back.keep(stage.spec(code=code.digest), stage.spec(code=code.digest))
        await back.keep(stage.spec(code=code.digest))
        assert stage.store.code_asked == [[code.digest]], "the store is asked once"

    perform(play)


def test_the_store_is_not_asked_for_what_comes_with_its_task_or_before() -> None:
    async def play(stage: Stage) -> None:
        client = await stage.client()
        for code in map(function, "fgh"):
            await client.send(code, Submit((stage.spec(code=code.digest),)))
            await client.next(Accepted)
        before = function("i")
        await client.send(before)
        await stage.quiet()
        await client.keep(stage.spec(code=before.digest))
        assert stage.store.code_asked == []

    perform(play)


def test_only_so_many_functions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "CODE_KNOWN_MAX", 2)

    async def play(stage: Stage) -> None:
        client = await stage.client()
        first, *others = map(function, "fghi")
        for code in (first, *others):
            await client.send(code, Submit((stage.spec(code=code.digest),)))
            await client.next(Accepted)
        assert list(stage.coordinator.state.code) == [code.digest for code in others[1:]]
        await client.keep(stage.spec(code=first.digest))
        assert stage.store.code_asked == [[first.digest]]

    perform(play)
