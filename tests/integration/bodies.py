"""What the tasks of these tests do, well or badly."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from holdfast import current
from holdfast.lab.witness import Witness

_LOOK_SECONDS = 0.02


def add(a: int, b: int) -> int:
    return a + b


def join(first: bytes, second: bytes) -> bytes:
    return first + second


def seen(number: int, witness: str, seconds: float = 0.0) -> int:
    """Run under the eyes of the witness, so long."""
    attempt = current()
    with Witness(witness).running(attempt.id, attempt.fence):
        time.sleep(seconds)
    return number


def large(size: int, witness: str) -> bytes:
    """Run under the eyes of the witness, and return so many bytes."""
    attempt = current()
    with Witness(witness).running(attempt.id, attempt.fence):
        return b"x" * size


def hold(number: int, witness: str, until: str, seconds_max: float = 30.0) -> int:
    """Run under the eyes of the witness until a file appears."""
    attempt = current()
    with Witness(witness).running(attempt.id, attempt.fence):
        deadline = time.monotonic() + seconds_max
        while not Path(until).exists() and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
    return number


def crash(witness: str) -> None:
    """Die by a segmentation fault, as native code does."""
    attempt = current()
    Witness(witness).begin(attempt.id, attempt.fence)
    os.write(2, b"about to touch what is not ours\n")
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(10)


async def seen_to_sleep(number: int, witness: str, seconds: float) -> int:
    """Run under the eyes of the witness beside others, so long."""
    attempt = current()
    with Witness(witness).running(attempt.id, attempt.fence):
        await asyncio.sleep(seconds)
    return number


async def stop_loop() -> None:
    """Stop the event loop that is not ours alone."""
    asyncio.get_running_loop().stop()
    await asyncio.sleep(10)


def kill_above(name: str) -> None:
    """SIGKILL the nearest process above us that has this name; "": the one right above us."""
    pid = os.getppid()
    while name and Path(f"/proc/{pid}/comm").read_text().strip() != name:
        stat = Path(f"/proc/{pid}/stat").read_text()
        pid = int(stat.rpartition(")")[2].split()[1])
    os.kill(pid, signal.SIGKILL)
    time.sleep(10)


def leave(status: int) -> None:
    os._exit(status)


def brood(pids: str) -> int:
    """Leave children behind: one beside us, one in a session of its own, and a daemon of that."""
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    daemon = (
        "import os, sys, subprocess, time; os.setsid(); "
        f"p = subprocess.Popen({sleeper!r}, start_new_session=True); "
        "print(os.getpid(), p.pid, flush=True); os.close(1); time.sleep(600)"
    )
    plain = subprocess.Popen(sleeper)
    apart = subprocess.Popen([sys.executable, "-c", daemon], stdout=subprocess.PIPE, text=True)
    assert apart.stdout is not None
    told = apart.stdout.readline()
    Path(pids).with_suffix(".making").write_text(f"{os.getpid()} {plain.pid} {told}")
    Path(pids).with_suffix(".making").rename(pids)
    return os.getpid()


def brood_and_wait(pids: str) -> None:
    brood(pids)
    time.sleep(60)


def prattle(megabytes: int) -> int:
    """Print megabytes, on both streams."""
    piece = "x" * 1023 + "\n"
    sys.stdout.write(piece)
    for _ in range(megabytes * 512):
        sys.stdout.write(piece)
        sys.stderr.write(piece)
    return megabytes


def deaf_and_dumb() -> str:
    """Close the standard streams, and their descriptors."""
    for stream in (sys.stdin, sys.stdout):
        stream.close()
    for descriptor in (0, 1):
        try:
            os.close(descriptor)
        except OSError:
            continue
    return "went on"


def much(megabytes: int) -> bytes:
    """Return so much of what is no hole in memory: each page of it was written."""
    return b"x" * (megabytes << 20)


def in_result() -> dict[str, object]:
    return {"fine": 1, "lock": threading.Lock()}


def in_exception() -> None:
    raise ValueError("with a socket", socket.socket)


def hoard(mebibytes: int) -> int:
    """Keep memory for ever, as a leak does; return who did."""
    _HOARD.append(b"x" * (mebibytes << 20))
    return os.getpid()


_HOARD: list[bytes] = []
