"""Task functions that the children of the tests import."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from holdfast.engines.current import TaskCancelled, current

SLEEP = "import time; time.sleep(300)"
DAEMON = """
import os, time
if os.fork(): os._exit(0)
os.setsid()
pid = os.fork()
if pid: print(pid, flush=True); os._exit(0)
os.closerange(0, 3)
time.sleep(300)
"""

not_a_function = 3


def nothing() -> None:
    """Do nothing."""


def echo(*args: Any, **kwargs: Any) -> Any:
    return [list(args), kwargs]


def lose_path() -> int:
    """Leave a process in which nothing more can be imported."""
    sys.path.clear()
    return os.getpid()


def pid() -> int:
    return os.getpid()


def where_am_i() -> list[Any]:
    seen = current()
    return [seen.id, seen.fence, seen.function]


def surroundings() -> dict[str, Any]:
    return {
        "cwd": os.getcwd(),
        "path": sys.path[0],
        "group": os.getpgid(0) == os.getpid(),
        "stdin": os.readlink("/proc/self/fd/0"),
        "descriptors": sorted(map(int, os.listdir("/proc/self/fd"))),
        "environment": sorted(name for name in os.environ if name.startswith("HOLDFAST")),
    }


def fail(text: str) -> NoReturn:
    raise ValueError(text)


def leave(status: int) -> NoReturn:
    sys.exit(status)


def interrupt_key() -> NoReturn:
    raise KeyboardInterrupt


def run_out() -> NoReturn:
    raise MemoryError


def bad_result() -> Any:
    return {"a": [1, threading.Lock()]}


def large_result(size: int) -> bytes:
    return b"x" * size


def witness(path: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{current().fence}\n")


def touch(path: str) -> None:
    Path(path).touch()


def wait_for(path: str, mark: str = "") -> None:
    """Run until a file exists; `mark` is made first."""
    if mark:
        Path(mark).touch()
    while not Path(path).exists():
        time.sleep(0.005)


def wait_stubbornly(path: str, mark: str) -> str:
    """Run until a file exists, and clean up when cancelled."""
    try:
        wait_for(path, mark)
    except TaskCancelled:
        Path(mark).write_text("cancelled", encoding="utf-8")
        raise
    return "ran on"


def exit_now(status: int) -> None:
    sys.stderr.write("last words\n")
    os._exit(status)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def segfault() -> None:
    ctypes.string_at(0)


def close_sockets(first: int, then: str) -> None:
    """Close all descriptors from one on, and go on, return or become another program."""
    sys.stderr.write("my own words\n")
    sys.stderr.flush()
    if then == "exec":
        os.execv(sys.executable, [sys.executable, "-S", "-c", SLEEP])
    os.closerange(first, 1000)
    if then == "go on":
        time.sleep(60)


def flood() -> None:
    """Write garbage wherever something is open."""
    for descriptor in range(3, 200):
        try:
            os.write(descriptor, b"\xff" * 100_000)
        except OSError:
            continue
    time.sleep(60)


def fork_twice() -> int:
    """Both come back from here."""
    return os.fork()


def kill_parent(path: str) -> None:
    near = subprocess.Popen([sys.executable, "-S", "-c", SLEEP])
    Path(path).write_text(str(near.pid), encoding="utf-8")
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def wait_so_long(seconds: float) -> None:
    time.sleep(seconds)


def start_family(path: str, then: str) -> None:
    """Start a process of the group, one of another session, and a daemon; write their pids."""
    sleeper = [sys.executable, "-S", "-c", SLEEP]
    near = subprocess.Popen(sleeper)
    far = subprocess.Popen(sleeper, start_new_session=True)
    daemon = subprocess.run(
        [sys.executable, "-S", "-c", DAEMON], stdout=subprocess.PIPE, check=True
    )
    unfinished = Path(path + ".part")
    unfinished.write_text(f"{near.pid} {far.pid} {int(daemon.stdout)}", encoding="utf-8")
    unfinished.rename(path)
    if then == "hold":
        time.sleep(300)
    if then.startswith("die"):
        os._exit(int(then.removeprefix("die ")))
    if then == "cut":
        os.closerange(3, 1000)
    near.returncode = far.returncode = 0


class Fatal:
    def __reduce__(self) -> NoReturn:
        os._exit(1)


def die_while_pickled(size: int) -> Any:
    return [b"x" * size, Fatal()]


def chatter(lines: int) -> None:
    for number in range(lines):
        sys.stdout.write(f"line {number} {'x' * 80}\n")
    sys.stderr.write("the end\n")


async def meet(count: int, folder: str, name: str) -> str:
    """Wait until `count` of us are here."""
    touch(os.path.join(folder, name))
    for _ in range(2000):
        if len(os.listdir(folder)) >= count:
            break
        await asyncio.sleep(0.005)
    return f"{name} of {current().fence}"


async def forever(mark: str) -> None:
    touch(mark)
    await asyncio.Event().wait()


async def stop_loop() -> None:
    asyncio.get_running_loop().stop()


async def stop_loop_and_wait() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.Event().wait()


async def exit_beside() -> None:
    """Leave from a task of our own, whose exception nobody can catch."""
    await asyncio.create_task(leave_later(3))


async def cancel_everybody() -> None:
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.Event().wait()


async def cancel_myself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def fail_later(text: str) -> NoReturn:
    await asyncio.sleep(0)
    raise ValueError(text)


async def leave_later(status: int) -> NoReturn:
    await asyncio.sleep(0)
    sys.exit(status)
