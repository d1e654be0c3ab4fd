"""The witness: what user code really did, written down outside the system under test.

Owns the shape of the witness file and the questions that are asked of it. Never asks the system
under test anything, and never guesses: what cannot be judged counts as still running.

A workload writes `begin` before it does anything and `end` after; a process that is killed leaves
a begin without an end, and whether it still runs is asked of `/proc`. Each record is one JSON
object on a line of its own, written by a single `write` on a descriptor opened with `O_APPEND`, so
that records of many processes never mix. The line break stands before a record as well as behind
it: a record that was torn spoils none but itself. Nothing is fsynced: the page cache outlives
every process, and the witness is not asked about the death of its machine.

Everything here is imported by child processes, therefore named tuples and no heavy imports. The
two sides are `Witness`, which only writes and may travel in a pickle, and `WitnessReader`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

RECORD_BYTES_MAX = 4096
POLL_SECONDS = 0.01
TAIL_RUNS_MAX = 20
"""How many runs an error shows."""

_KINDS = ("begin", "end")


class Record(NamedTuple):
    """One line of the witness file.

    `start_ticks` is the start time of the process as `/proc/self/stat` has it, so that a reused
    pid is told from the first; `boot` and `pid_space` say where the pid means anything.
    """

    kind: str
    task: str
    fence: int
    pid: int
    start_ticks: int
    boot: str
    pid_space: str
    at_ns: int
    label: str


class Run(NamedTuple):
    """A begin and the end that belongs to it, if there is one. Times are CLOCK_BOOTTIME."""

    task: str
    fence: int
    pid: int
    start_ticks: int
    boot: str
    pid_space: str
    label: str
    begun_ns: int
    ended_ns: int | None


def boottime_ns() -> int:
    """Return the time since boot with suspends in it, the same clock for all processes."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Witness:
    """The writing side. It holds no descriptor, only the path: cheap to make, safe to pickle."""

    __slots__ = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def begin(self, task: str, fence: int, *, label: str = "") -> None:
        """Write that this process begins the task. Raise OSError if it cannot be written."""
        self._write("begin", task, fence, label)

    def end(self, task: str, fence: int, *, label: str = "") -> None:
        """Write that this process has ended the task. Raise OSError if it cannot be written."""
        self._write("end", task, fence, label)

    @contextmanager
    def running(self, task: str, fence: int, *, label: str = "") -> Iterator[None]:
        """Write a begin, and an end however the block is left."""
        self.begin(task, fence, label=label)
        try:
            yield
        finally:
            self.end(task, fence, label=label)

    def _write(self, kind: str, task: str, fence: int, label: str) -> None:
        record = Record(
            kind=kind,
            task=task,
            fence=fence,
            pid=os.getpid(),
            start_ticks=_own_start_ticks(),
            boot=_boot_id(),
            pid_space=_pid_space(),
            at_ns=boottime_ns(),
            label=label,
        )
        line = b"\n" + json.dumps(record._asdict()).encode() + b"\n"
        if len(line) > RECORD_BYTES_MAX:
            raise ValueError(f"a witness record has at most {RECORD_BYTES_MAX} bytes; shorten it")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o666)
        try:
            written = os.write(descriptor, line)
        finally:
            os.close(descriptor)
        if written != len(line):
            raise OSError(f"the witness file {self.path} took {written} of {len(line)} bytes")


class WitnessReader:
    """The reading side. Every question reads first what was written since the last one.

    A missing file is an empty one. A last line without its end is left for later; any other line
    that is no record is counted in `torn_count` and told in no run, so that a checker which sees
    one can answer "unknown".
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.torn_count = 0
        self._offset = 0
        self._tail = b""
        self._records: list[Record] = []
        self._runs: list[Run] = []
        self._stray_ends: list[Record] = []
        self._open: dict[tuple[str | int, ...], list[int]] = {}

    def records(self) -> list[Record]:
        """Return all records, in the order in which they were written."""
        self._read()
        return list(self._records)

    def runs(self, task: str | None = None) -> list[Run]:
        """Return the runs, of one task or of all, in the order of their begins.

        An end belongs to the youngest open begin of the same task, fence and process.
        """
        self._read()
        return [run for run in self._runs if task is None or run.task == task]

    def stray_ends(self) -> list[Record]:
        """Return the ends without a begin: a fault of the workload or of the file."""
        self._read()
        return list(self._stray_ends)

    def busy(self) -> list[Run]:
        """Return the runs that go on: begun, not ended, and not known to be dead."""
        return [run for run in self.runs() if run.ended_ns is None and may_live(run)]

    def begun_count(self, task: str) -> int:
        """Return how often a task was begun."""
        return len(self.runs(task))

    def begun_twice(self) -> dict[str, list[Run]]:
        """Return the tasks that were begun more than once, each with all its runs."""
        by_task: dict[str, list[Run]] = {}
        for run in self.runs():
            by_task.setdefault(run.task, []).append(run)
        return {task: runs for task, runs in by_task.items() if len(runs) > 1}

    def wait_until(
        self,
        what: str,
        condition: Callable[[WitnessReader], object],
        *,
        timeout_seconds: float = 10.0,
    ) -> None:
        """Wait until a condition on what was witnessed holds.

        Raise TimeoutError, with `what` was waited for and the last runs.
        """
        deadline = time.monotonic() + timeout_seconds
        while not condition(self):
            if time.monotonic() > deadline:
                runs = self.runs()
                seen = "".join(f"\n  {run}" for run in runs[-TAIL_RUNS_MAX:])
                raise TimeoutError(
                    f"waited {timeout_seconds} s in vain until {what}; "
                    f"{len(runs)} runs, {self.torn_count} torn lines, last:{seen or ' none'}"
                )
            time.sleep(POLL_SECONDS)

    def _read(self) -> None:
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return
        self._offset += len(new)
        *lines, self._tail = (self._tail + new).split(b"\n")
        for line in lines:
            if line:
                self._take(line)

    def _take(self, line: bytes) -> None:
        record = _parsed(line)
        if record is None:
            self.torn_count += 1
            return
        self._records.append(record)
        key = record[1:7]  # task, fence and the process: all that a begin and its end share
        if record.kind == "begin":
            self._open.setdefault(key, []).append(len(self._runs))
            self._runs.append(
                Run(
                    task=record.task,
                    fence=record.fence,
                    pid=record.pid,
                    start_ticks=record.start_ticks,
                    boot=record.boot,
                    pid_space=record.pid_space,
                    label=record.label,
                    begun_ns=record.at_ns,
                    ended_ns=None,
                )
            )
        elif begun := self._open.get(key):
            index = begun.pop()
            if not begun:
                del self._open[key]
            self._runs[index] = self._runs[index]._replace(ended_ns=record.at_ns)
        else:
            self._stray_ends.append(record)


def may_live(run: Run) -> bool:
    """Return whether the process of a run may still live.

    A zombie is dead; so is a process of an earlier boot, and one whose pid has gone to another. A
    process in another pid namespace cannot be judged from here: it may live.
    """
    if run.boot != _boot_id():
        return False
    if run.pid_space != _pid_space():
        return True
    stat = _stat(run.pid)
    return stat is not None and stat[0] not in (b"Z", b"X") and stat[1] == run.start_ticks


def _stat(pid: int | str) -> tuple[bytes, int] | None:
    """Return state and start time of a process, None when it is gone.

    See proc_pid_stat(5): fields 3 and 22, after the name, which may hold anything.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[19])


def _own_start_ticks() -> int:
    stat = _stat("self")
    assert stat is not None, "whoever asks is there"
    return stat[1]


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _pid_space() -> str:
    return os.readlink("/proc/self/ns/pid")


def _parsed(line: bytes) -> Record | None:
    try:
        record = Record(**json.loads(line))
    except (ValueError, TypeError):
        return None
    types = (str, str, int, int, int, str, str, int, str)
    typed = all(type(value) is kind for value, kind in zip(record, types, strict=True))
    return record if typed and record.kind in _KINDS else None
