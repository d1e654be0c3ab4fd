"""The process engine with real processes: what an attempt may do, and what is told of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.engines.codefiles import CODE_FILES_MAX
from holdfast.engines.lane import Life
from holdfast.model.limits import INLINE_BYTES_MAX
from holdfast.model.outcome import Encoding, OutcomeKind, Payload
from holdfast.payloads import encode_function
from tests.engines.rig import BODIES, Rig


def play(folder: Path, scene: Callable[[Rig], Awaitable[None]], **settings: Any) -> None:
    """Run a scene with an open engine."""

    async def main() -> None:
        async with Rig(folder, **settings) as rig:
            await scene(rig)

    asyncio.run(main())


@pytest.mark.parametrize("lane", [0, 2])
def test_a_child_that_a_task_has_spoilt_fails_one_other_and_no_more(
    lane: int, tmp_path: Path
) -> None:
    async def scene(rig: Rig) -> None:
        spoilt = await rig.value("lose_path", lane=lane)
        ended = await rig.run("colorsys:rgb_to_yiq", 0, 0, 0, lane=lane)
        assert ended.kind is OutcomeKind.ENVIRONMENT
        assert await rig.value("colorsys:rgb_to_yiq", 0, 0, 0, lane=lane) == (0.0, 0.0, 0.0)
        assert await rig.value("pid", lane=lane) != spoilt
        assert not rig.deaths

    play(tmp_path, scene)


def test_files_that_are_named_like_modules_of_python_hide_none_from_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "types", "ssl", "socket", "msgspec", "select", "traceback"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the file of the user')")
    monkeypatch.chdir(tmp_path)

    async def scene(rig: Rig) -> None:
        assert await rig.value("echo", 1) == [[1], {}]
        assert await rig.value("echo", b"pickled", lane=2) == [[b"pickled"], {}]

    play(tmp_path, scene)


def test_attempts_of_all_kinds(tmp_path: Path) -> None:
    """One engine for all, because a start costs most: each kind must leave the lane usable."""

    async def scene(rig: Rig) -> None:
        assert await rig.value("echo", 1, "x") == [[1, "x"], {}]
        assert await rig.value("echo", b"pickled") == [[b"pickled"], {}]
        assert (await rig.value("where_am_i"))[2] == f"{BODIES}:where_am_i"

        ended = await rig.run("fail", "wrong")
        assert ended.kind is OutcomeKind.RAISED
        assert ended.failure is not None
        assert ended.failure.types[0] == "builtins.ValueError"
        assert ended.failure.message == "wrong"
        assert "raise ValueError(text)" in ended.failure.traceback
        assert "child.py" not in ended.failure.traceback

        for name, argument, kind in (
            ("leave", [3], OutcomeKind.RAISED),
            ("interrupt_key", [], OutcomeKind.RAISED),
            ("run_out", [], OutcomeKind.OUT_OF_MEMORY),
            ("bad_result", [], OutcomeKind.INVALID),
            ("not_a_function", [], OutcomeKind.INVALID),
            ("no_such_function", [], OutcomeKind.ENVIRONMENT),
            ("no_such_module:f", [], OutcomeKind.ENVIRONMENT),
            ("nothing", [1], OutcomeKind.RAISED),
            ("no_colon_at_all:", [], OutcomeKind.INVALID),
            ("__main__:f", [], OutcomeKind.INVALID),
            ("fail_later", ["x"], OutcomeKind.RAISED),
        ):
            ended = await rig.run(name, *argument)
            assert ended.kind is kind, (name, ended)
            assert ended.failure is not None
            assert ended.failure.message or name in ("interrupt_key", "run_out")
        assert not rig.deaths, "none of them cost a child"

    play(tmp_path, scene)


def test_payloads_that_cannot_be_used_here(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        def pickled(data: bytes) -> Payload:
            return Payload(Encoding.PICKLE, data, size_bytes=len(data))

        missing = pickled(b"cno_such_module\nf\n.")
        assert (await rig.run("echo", payload=missing)).kind is OutcomeKind.ENVIRONMENT
        assert (await rig.run("echo", payload=pickled(b"\x80"))).kind is OutcomeKind.INVALID
        broken = Payload(Encoding.JSON, b"{", size_bytes=1)
        assert (await rig.run("echo", payload=broken)).kind is OutcomeKind.INVALID
        gone = str(tmp_path / "gone")
        assert (await rig.run("echo", payload_path=gone)).kind is OutcomeKind.ENVIRONMENT

        ended = await rig.run("echo", b"", python="2.7")
        assert ended.kind is OutcomeKind.ENVIRONMENT
        assert ended.failure is not None
        assert "2.7" in ended.failure.message
        assert f"{sys.version_info.major}.{sys.version_info.minor}" in ended.failure.message
        assert await rig.value("echo", 1, python="2.7") == [[1], {}], "JSON is of no version"

    play(tmp_path, scene)


def test_functions_by_value_small_and_large(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        for ballast in ("", "x" * (INLINE_BYTES_MAX + 1)):
            name, code, python = encode_function(lambda n, held=ballast: n + len(held))
            for number in (1, 2):
                value = await rig.value(name, number, code=code, python=python)
                assert value == number + len(ballast)

    play(tmp_path, scene)


def test_the_file_of_a_function_outlives_the_orders_that_name_it(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        go, mark = tmp_path / "go", tmp_path / "mark"
        rig.start("wait_for", str(go), str(mark))
        await rig.until("the first one runs", mark.exists)
        tokens = []
        for number in range(CODE_FILES_MAX + 6):
            ballast = f"{number}" + "x" * (INLINE_BYTES_MAX + 1)
            name, code, python = encode_function(lambda held=ballast: len(held))
            tokens.append(rig.start(name, code=code, python=python))
        go.touch()
        kinds = [(await rig.outcome(token)).kind for token in tokens]
        assert kinds == [OutcomeKind.SUCCEEDED] * len(tokens)

    play(tmp_path, scene, recycle_tasks=40)


def test_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"bad\xff")
    folder.mkdir()

    async def scene(rig: Rig) -> None:
        large = b"x" * (4 * INLINE_BYTES_MAX)
        assert rig.order("echo", large).payload_path.startswith(str(folder))
        assert await rig.value("echo", large) == [[large], {}]
        name, code, python = encode_function(lambda held=large: len(held))
        assert await rig.value(name, code=code, python=python) == len(large)
        ended = await rig.run("echo", payload_path=str(folder / "gone"))
        assert ended.kind is OutcomeKind.ENVIRONMENT
        assert ended.failure is not None
        assert r"bad\udcff" in ended.failure.message

    play(folder, scene)


def test_a_large_result_comes_by_file(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        size = 3_000_000
        ended = await rig.run("large_result", size)
        results = tmp_path / "state" / "engine" / "results"
        (path,) = results.iterdir()
        assert str(path) == rig.ended[ended.token][2]
        assert ended.result is not None
        assert ended.result.data == b""
        assert ended.result.digest == hashlib.sha256(path.read_bytes()).digest()
        assert ended.result.size_bytes == path.stat().st_size > size
        assert await rig.value("echo", "y" * 100_000) == [["y" * 100_000], {}]

    play(tmp_path, scene)


def test_where_a_child_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOLDFAST_SECRET", "HOLDFAST_TOKEN_FILE", "HOLDFAST_URL"):
        monkeypatch.setenv(name, "x")

    async def scene(rig: Rig) -> None:
        seen = await rig.value("surroundings")
        assert seen["cwd"] == seen["path"] == str(Path.cwd())
        assert seen["group"] is True
        assert seen["stdin"] == "/dev/null"
        assert seen["environment"] == ["HOLDFAST_URL"]
        # The last one is the listing itself.
        assert len(seen["descriptors"]) == 6, seen["descriptors"]

    play(tmp_path, scene)


def test_what_is_taken_back_surely_did_not_run(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        go, mark, ran = (tmp_path / name for name in ("go", "mark", "ran"))
        blocking = rig.start("wait_for", str(go), str(mark))
        await rig.until("the first one runs", mark.exists)
        waiting = [rig.start("witness", str(ran)) for _ in range(50)]
        assert rig.engine.take_back(0) == waiting
        assert rig.engine.take_back(0) == []
        go.touch()
        assert (await rig.outcome(blocking)).kind is OutcomeKind.SUCCEEDED
        assert (await rig.run("nothing")).kind is OutcomeKind.SUCCEEDED
        assert not ran.exists()
        assert len(rig.ended) == 2

    play(tmp_path, scene)


def test_each_order_is_either_run_or_taken_back(tmp_path: Path) -> None:
    """The kernel decides: while a child reads as fast as it can, nothing is had twice or lost."""

    async def scene(rig: Rig) -> None:
        await rig.run("nothing")
        ran = tmp_path / "ran"
        ran.touch()
        orders = {}
        taken = []
        for number in range(40):
            before = len(rig.ended)
            for _ in range(10):
                order = rig.order("witness", str(ran))
                assert rig.engine.hand(0, order)
                orders[order.token] = order.fence
            if number % 2:
                await rig.until("one has run", lambda before=before: len(rig.ended) > before)
            taken += rig.engine.take_back(0)
        await rig.until("all are over", lambda: len(rig.ended) - 1 + len(taken) == len(orders))
        witnessed = [int(line) for line in ran.read_text(encoding="utf-8").split()]
        assert sorted([*witnessed, *(orders[token] for token in taken)]) == sorted(orders.values())

    play(tmp_path, scene)


def test_a_full_lane_says_so_and_when_it_has_room(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        go, mark = tmp_path / "go", tmp_path / "mark"
        rig.start("wait_for", str(go), str(mark))
        await rig.until("the first one runs", mark.exists)
        handed = 1
        while rig.engine.hand(0, rig.order("echo", "x" * 60_000)):
            handed += 1
            assert handed < 1000, "a lane is bounded"
        assert not rig.engine.hand(0, rig.order("nothing"))
        go.touch()
        await rig.until("the lane has room", lambda: rig.writable == [0])
        await rig.until("all have run", lambda: len(rig.ended) == handed)
        assert (await rig.run("nothing")).kind is OutcomeKind.SUCCEEDED

    play(tmp_path, scene)


def test_an_interrupt_hits_its_own_attempt_only(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        go, mark, other = (tmp_path / name for name in ("go", "mark", "other"))
        meant = rig.start("wait_stubbornly", str(go), str(mark))
        next_one = rig.start("wait_for", str(go), str(other))
        await rig.until("it runs", mark.exists)
        rig.engine.interrupt(1, meant)
        rig.engine.interrupt(0, meant)
        ended = await rig.outcome(meant)
        assert ended.kind is OutcomeKind.RAISED
        assert ended.failure is not None
        assert ended.failure.types[0] == "holdfast.engines.current.TaskCancelled"
        assert mark.read_text(encoding="utf-8") == "cancelled"
        await rig.until("the next one runs", other.exists)
        rig.engine.interrupt(0, meant)
        go.touch()
        assert (await rig.outcome(next_one)).kind is OutcomeKind.SUCCEEDED
        assert not rig.deaths

    play(tmp_path, scene)


def test_a_coroutine_in_a_sequential_lane_is_interrupted(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        mark = tmp_path / "mark"
        token = rig.start("forever", str(mark))
        await rig.until("it runs", mark.exists)
        rig.engine.interrupt(0, token)
        ended = await rig.outcome(token)
        assert ended.failure is not None
        assert ended.failure.types[0] == "holdfast.engines.current.TaskCancelled"
        assert (await rig.run("leave_later", 3)).kind is OutcomeKind.RAISED

    play(tmp_path, scene)


def test_interrupts_at_every_moment_never_stray(tmp_path: Path) -> None:
    """Interrupts race with the end of the attempt they mean: only that one may show them."""

    async def scene(rig: Rig) -> None:
        await rig.run("nothing")
        meant = set()
        tokens = []
        for number in range(300):
            token = rig.start("nothing")
            tokens.append(token)
            if number % 3 == 0:
                meant.add(token)
                rig.engine.interrupt(0, token)
            if number % 7 == 0:
                await asyncio.sleep(0)
        for token in tokens:
            ended = await rig.outcome(token)
            assert ended.kind is OutcomeKind.SUCCEEDED or token in meant
        assert not rig.deaths

    play(tmp_path, scene)


def test_megabytes_printed_are_passed_on(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        ended = await rig.run("chatter", 30_000)
        assert ended.kind is OutcomeKind.SUCCEEDED
        await rig.until("all is read", lambda: rig.out[False].count(b"\n") == 30_000)
        await rig.until("errors too", lambda: rig.out[True] == b"the end\n")

    play(tmp_path, scene)


def test_who_prints_waits_while_nobody_reads_and_others_do_not(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        rig.engine.read_printed(False)
        token = rig.start("chatter", 30_000)
        for _ in range(20):
            assert (await rig.run("nothing", lane=1)).kind is OutcomeKind.SUCCEEDED
        # A child that is born meanwhile is not read either.
        rig.start("chatter", 1, lane=2)
        await rig.until("it has printed", lambda: len(rig.ended) == 21)
        assert not rig.out[False]
        assert token not in rig.ended
        rig.engine.read_printed(True)
        assert (await rig.outcome(token)).kind is OutcomeKind.SUCCEEDED
        await rig.until("all is read", lambda: rig.out[False].count(b"\n") == 30_001)

    play(tmp_path, scene)


def test_what_was_printed_before_the_end_is_passed_on(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        rig.engine.read_printed(False)
        await rig.run("chatter", 100)
        await rig.engine.close()
        assert rig.out[False].count(b"\n") == 100
        assert rig.out[True] == b"the end\n"

    play(tmp_path, scene)


def test_async_attempts_share_a_child(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        folder = tmp_path / "met"
        folder.mkdir()
        tokens = [rig.start("meet", 20, str(folder), f"n{n}", lane=2) for n in range(20)]
        results = [await rig.outcome(token) for token in tokens]
        texts = {ended.result.data for ended in results if ended.result}
        assert texts == {b'"n%d of %d"' % (n, n + 1) for n in range(20)}, "each its own context"

        mark = tmp_path / "mark"
        token = rig.start("forever", str(mark), lane=2)
        beside = rig.start("wait_for", str(mark), lane=2)
        await rig.until("it runs", mark.exists)
        rig.engine.interrupt(2, token)
        ended = await rig.outcome(token)
        assert ended.failure is not None
        assert ended.failure.types[0] == "holdfast.engines.current.TaskCancelled"
        assert (await rig.outcome(beside)).kind is OutcomeKind.SUCCEEDED, "plain ones run too"
        assert (await rig.run("fail_later", "x", lane=2)).kind is OutcomeKind.RAISED
        assert (await rig.run("leave_later", 3, lane=2)).kind is OutcomeKind.RAISED
        assert (await rig.run("no_such_thing", lane=2)).kind is OutcomeKind.ENVIRONMENT
        assert not rig.deaths

    play(tmp_path, scene)


def test_a_concurrent_lane_takes_up_a_bounded_number(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        tokens = [rig.start("forever", str(tmp_path / f"m{n}"), lane=2) for n in range(80)]
        last = tmp_path / "m63"
        await rig.until("it is full", last.exists)
        assert rig.engine.take_back(2) == tokens[64:]
        rig.engine.interrupt(2, tokens[0])
        await rig.outcome(tokens[0])
        assert (await rig.run("nothing", lane=2)).kind is OutcomeKind.SUCCEEDED

    play(tmp_path, scene)


def test_a_child_is_recycled_between_two_tasks(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        tokens = [rig.start("pid") for _ in range(25)]
        pids = [(await rig.outcome(token)).result for token in tokens]
        assert len({each.data for each in pids if each}) == 3
        assert [pids.count(each) for each in dict.fromkeys(pids)] == [10, 10, 5]
        assert not rig.deaths

    play(tmp_path, scene, recycle_tasks=10)


def test_a_concurrent_child_is_recycled_where_nothing_runs_in_it(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        folder = tmp_path / "meeting"
        folder.mkdir()
        long = rig.start("meet", 2, str(folder), "long", lane=2)
        pids = [await rig.value("pid", lane=2) for _ in range(12)]
        assert len(set(pids)) == 1  # It is spent, and still somebody's.
        (folder / "end").touch()
        assert (await rig.outcome(long)).kind is OutcomeKind.SUCCEEDED
        assert await rig.value("pid", lane=2) not in pids
        assert not rig.deaths

    play(tmp_path, scene, recycle_tasks=10)


def test_a_concurrent_child_that_grew_is_recycled(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        pids = [await rig.value("pid", lane=2) for _ in range(3)]
        assert len(set(pids)) == 3
        assert not rig.deaths

    play(tmp_path, scene, recycle_rss_bytes=1)


def test_what_a_fresh_child_has_no_room_for_is_told_as_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = Life.hand

    def narrow(self: Life, packet: bytes) -> bool:
        # The first two are those that the engine opened with.
        return (self.serial <= 2 or len(self.handed) < 3) and hand(self, packet)

    monkeypatch.setattr(Life, "hand", narrow)

    async def scene(rig: Rig) -> None:
        tokens = [rig.start("pid") for _ in range(25)]
        death = await rig.death()
        assert (death.begun, death.untouched) == ((), tuple(tokens[13:]))
        pids = [(await rig.outcome(token)).result for token in tokens[:13]]
        assert len({each.data for each in pids if each}) == 2
        assert rig.engine.take_back(0) == []

    play(tmp_path, scene, recycle_tasks=10)


def test_a_child_that_grew_is_recycled(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        pids = [await rig.value("pid") for _ in range(3)]
        assert len(set(pids)) == 3
        assert not rig.deaths

    play(tmp_path, scene, recycle_rss_bytes=1)
