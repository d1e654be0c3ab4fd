"""The witness file: what is written by many, what is read of it, and who still lives."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.lab import witness as room
from holdfast.lab.witness import (
    RECORD_BYTES_MAX,
    Record,
    Run,
    Witness,
    WitnessReader,
    boottime_ns,
    may_live,
)

SOURCE = Path(room.__file__).parents[2]

WRITE_AND_STAY = """
    import sys
    from holdfast.lab.witness import Witness
    Witness(sys.argv[1]).begin("stays", 1)
    sys.stdin.read()
    Witness(sys.argv[1]).end("stays", 1)
"""

WRITE_MANY = """
    import sys
    from holdfast.lab.witness import Witness
    witness = Witness(sys.argv[1])
    for number in range(300):
        with witness.running(f"{sys.argv[2]}-{number}", number, label="x" * (number % 200)):
            pass
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "witness"


@contextmanager
def child(program: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ended_count(reader: WitnessReader, task: str) -> int:
    return sum(run.ended_ns is not None for run in reader.runs(task))


def own_run(path: Path) -> Run:
    """Return a run of this process, to be varied."""
    Witness(path).begin("own", 1)
    return WitnessReader(path).runs("own")[0]


def test_a_run_is_a_begin_and_its_end(path: Path) -> None:
    before = boottime_ns()
    with Witness(path).running("a", 3, label='tab\tline\nquote" é \udcff'):
        (open_run,) = WitnessReader(path).runs()
        assert open_run.ended_ns is None
    (run,) = WitnessReader(path).runs()
    assert (run.task, run.fence, run.pid) == ("a", 3, os.getpid())
    assert run.label == 'tab\tline\nquote" é \udcff'
    assert run.ended_ns is not None
    assert before <= run.begun_ns <= run.ended_ns <= boottime_ns()
    assert run.start_ticks > 0
    assert run == open_run._replace(ended_ns=run.ended_ns)


def test_the_end_is_written_when_the_block_fails(path: Path) -> None:
    with pytest.raises(KeyError), Witness(path).running("a", 1):
        raise KeyError
    assert ended_count(WitnessReader(path), "a") == 1


def test_a_missing_file_is_an_empty_one(path: Path) -> None:
    reader = WitnessReader(path)
    for answer in (reader.runs(), reader.records(), reader.stray_ends(), reader.busy()):
        assert answer == []
    assert not reader.begun_twice()
    Witness(path).begin("a", 1)
    assert reader.begun_count("a") == 1


def test_counts_and_questions_follow_the_file(path: Path) -> None:
    writer, reader = Witness(path), WitnessReader(path)
    writer.begin("a", 1)
    writer.begin("b", 1)
    assert not reader.begun_twice()
    writer.end("a", 1)
    writer.begin("a", 2)
    assert (reader.begun_count("a"), ended_count(reader, "a")) == (2, 1)
    assert (reader.begun_count("b"), reader.begun_count("c")) == (1, 0)
    assert [run.fence for run in reader.begun_twice()["a"]] == [1, 2]
    assert set(reader.begun_twice()) == {"a"}
    assert [(run.task, run.fence) for run in reader.busy()] == [("b", 1), ("a", 2)]
    assert [record.kind for record in reader.records()] == ["begin", "begin", "end", "begin"]


def test_an_end_belongs_to_the_youngest_open_begin(path: Path) -> None:
    writer = Witness(path)
    with writer.running("a", 1, label="outer"), writer.running("a", 1, label="inner"):
        pass
    outer, inner = WitnessReader(path).runs()
    assert (outer.label, inner.label) == ("outer", "inner")
    assert outer.ended_ns is not None
    assert inner.ended_ns is not None
    assert outer.begun_ns <= inner.begun_ns <= inner.ended_ns <= outer.ended_ns


def test_an_end_without_a_begin_is_told(path: Path) -> None:
    Witness(path).begin("a", 1)
    Witness(path).end("a", 2)
    reader = WitnessReader(path)
    assert [(end.task, end.fence) for end in reader.stray_ends()] == [("a", 2)]
    assert ended_count(reader, "a") == 0


def test_a_torn_last_line_is_left_for_later(path: Path) -> None:
    Witness(path).begin("a", 1)
    Witness(path).begin("b", 1)
    whole = path.read_bytes()
    first = whole.index(b"\n\n") + 1
    reader = WitnessReader(path)
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        assert [run.task for run in WitnessReader(path).runs()] == ["a"]
        # One that was there before sees it grow.
        assert [run.task for run in reader.runs()] == ["a"]
    path.write_bytes(whole)
    assert [run.task for run in reader.runs()] == ["a", "b"]
    assert reader.torn_count == 0


def test_a_torn_record_spoils_no_other(path: Path) -> None:
    Witness(path).begin("a", 1)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    Witness(path).begin("b", 1)
    reader = WitnessReader(path)
    assert [run.task for run in reader.runs()] == ["a", "b"]
    assert reader.torn_count == 1


@pytest.mark.parametrize(
    "change",
    [{"kind": "middle"}, {"fence": "1"}, {"pid": True}, {"task": None}, {"unknown": 1}],
)
def test_a_line_that_is_no_record_counts_as_torn(path: Path, change: dict[str, object]) -> None:
    Witness(path).begin("a", 1)
    record = {**WitnessReader(path).records()[0]._asdict(), **change}
    path.write_text(f"{json.dumps(record)}\n[]\n3\n\n\xff\n", encoding="latin-1")
    reader = WitnessReader(path)
    assert reader.records() == []
    assert reader.torn_count == 4


def test_a_record_has_a_bound(path: Path) -> None:
    with pytest.raises(ValueError, match=str(RECORD_BYTES_MAX)):
        Witness(path).begin("a", 1, label="x" * RECORD_BYTES_MAX)
    assert not path.exists()


def test_a_short_write_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
    with pytest.raises(OSError, match="took 20 of"):
        Witness(path).begin("a", 1)
    monkeypatch.undo()
    Witness(path).begin("b", 1)
    reader = WitnessReader(path)
    assert [run.task for run in reader.runs()] == ["b"]
    assert reader.torn_count == 1


def test_a_witness_travels_in_a_pickle(path: Path) -> None:
    pickle.loads(pickle.dumps(Witness(path))).begin("a", 1)
    assert WitnessReader(path).begun_count("a") == 1


def test_records_of_many_processes_never_mix(path: Path) -> None:
    with child(WRITE_MANY, path, "a") as a, child(WRITE_MANY, path, "b") as b:
        reader = WitnessReader(path)
        while a.poll() is None or b.poll() is None:
            reader.runs()
        assert (a.returncode, b.returncode) == (0, 0)
    for each in (reader, WitnessReader(path)):
        runs = each.runs()
        assert len(runs) == 600
        assert len({run.pid for run in runs}) == 2
        assert all(run.ended_ns is not None for run in runs)
        assert all(run.label == "x" * (run.fence % 200) for run in runs)
        assert (each.torn_count, each.stray_ends(), each.begun_twice()) == (0, [], {})


@pytest.mark.parametrize("reaped", [False, True])
def test_a_killed_process_is_not_busy(path: Path, reaped: bool) -> None:
    reader = WitnessReader(path)
    with child(WRITE_AND_STAY, path) as process:
        reader.wait_until("it has begun", lambda seen: seen.begun_count("stays") == 1)
        (run,) = reader.busy()
        assert run.pid == process.pid
        process.send_signal(signal.SIGKILL)
        if reaped:
            process.wait()
        else:
            # The parent has not waited: the process stays a zombie.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert reader.busy() == []
        assert ended_count(reader, "stays") == 0


def test_a_stopped_process_is_busy_and_one_that_ended_is_not(path: Path) -> None:
    reader = WitnessReader(path)
    with child(WRITE_AND_STAY, path) as process:
        reader.wait_until("it has begun", lambda seen: seen.begun_count("stays") == 1)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert len(reader.busy()) == 1
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=10)
        assert reader.busy() == []
        assert ended_count(reader, "stays") == 1


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        (lambda run: run, True),
        (lambda run: run._replace(start_ticks=run.start_ticks + 1), False),
        (lambda run: run._replace(boot="another"), False),
        (lambda run: run._replace(pid_space="pid:[1]", pid=2**22 + 1), True),
        (lambda run: run._replace(pid=2**22 + 1), False),
    ],
    ids=["own", "reused pid", "earlier boot", "another pid namespace", "no such pid"],
)
def test_who_may_live(path: Path, vary: Callable[[Run], Run], expected: bool) -> None:
    assert may_live(vary(own_run(path))) is expected


def test_a_wait_in_vain_says_for_what(path: Path) -> None:
    Witness(path).begin("a", 1)
    reader = WitnessReader(path)
    with pytest.raises(TimeoutError, match=r"until it rains; 1 runs, 0 torn lines(?s:.*)task='a'"):
        reader.wait_until("it rains", lambda _: False, timeout_seconds=0.01)
    with pytest.raises(TimeoutError, match="last: none"):
        WitnessReader(path.with_name("none")).wait_until(
            "it rains", lambda _: False, timeout_seconds=0.01
        )


def test_it_is_light_to_import(path: Path) -> None:
    program = """
        import sys
        before = set(sys.modules)
        import holdfast.lab.witness
        loaded = set(sys.modules) - before
        heavy = {"asyncio", "dataclasses", "inspect", "logging", "msgspec", "pathlib", "socket"}
        sys.exit(" ".join(sorted(heavy & loaded)) or None)
    """
    with child(program) as process:
        assert process.wait(10) == 0


def test_records_and_runs_name_the_same_process() -> None:
    # The reader joins by what stands between kind and time.
    assert Record._fields[1:7] == ("task", "fence", "pid", "start_ticks", "boot", "pid_space")
    assert set(Record._fields[1:7]) < set(Run._fields)
