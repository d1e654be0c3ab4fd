"""Where a person types: a notebook's kernel, and the interpreter's own prompt at a terminal.

What is defined there has no module that a worker could import, is defined again and again, and is
interrupted in the middle of waiting.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

from tests.conftest import Eventually

_SECONDS = 30.0

CONNECT = """
import time
from pathlib import Path
import holdfast
hf = holdfast.connect()
"""
DEFINE = """
def scaled(n):
    return 2 * n
"""
DEFINE_AGAIN = """
factor = 5
def scaled(n):
    return factor * n
"""
DEFINE_ERROR = """
class Unlucky(Exception):
    pass

def fails(n):
    raise Unlucky(f"not {n}")
"""
# It has to be the very class that was typed, not one that looks like it.
CAUGHT = """
try:
    hf.submit(fails, 8).result(20)
except Unlucky as error:
    print("caught:", error)
"""
DEFINE_HOLD = """
def hold(until):
    Path(until + ".begun").touch()
    while not Path(until).exists():
        time.sleep(0.02)
    return "held until released"
"""
WAIT = """
future = hf.submit(hold, {release!r})
Path({release!r} + ".asked").touch(); future.result()
"""


class Kernel:
    """A kernel, of which a test asks cells as a notebook does."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self.client = client

    def run(self, cell: str) -> str:
        """Run a cell; return what it has printed, and the error that it ended with."""
        told: list[str] = []

        def note(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream" and content["name"] == "stdout":
                told.append(content["text"])
            elif message["msg_type"] == "error":
                told.append(f"{content['ename']}: {content['evalue']}")

        # An error aborts no cell that is asked for right after it.
        reply = self.client.execute_interactive(
            cell, timeout=_SECONDS, output_hook=note, stop_on_error=False
        )
        assert reply["content"]["status"] in ("ok", "error")
        return "".join(told)


@pytest.fixture
def manager(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[KernelManager]:
    """A kernel in a folder of its own, with no settings of this user's."""
    own = tmp_path_factory.mktemp("jupyter")
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(own / name.lower()))
    manager = KernelManager()
    manager.start_kernel(cwd=str(folder))
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(manager: KernelManager) -> Iterator[Kernel]:
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=_SECONDS)
    yield Kernel(client)
    client.stop_channels()


def test_a_notebook(
    kernel: Kernel, manager: KernelManager, folder: Path, eventually: Eventually
) -> None:
    assert kernel.run(CONNECT) == ""
    kernel.run(DEFINE)
    assert kernel.run("print(hf.submit(scaled, 21).result(20))") == "42\n"
    kernel.run(DEFINE_AGAIN)
    assert kernel.run("print(hf.submit(scaled, 21).result(20))") == "105\n"
    assert kernel.run("print(sum(hf.map(scaled, range(10))))") == "225\n"

    kernel.run(DEFINE_ERROR)
    assert kernel.run("hf.submit(fails, 7).result(20)") == "Unlucky: not 7"
    assert kernel.run(CAUGHT) == "caught: not 8\n"

    kernel.run(DEFINE_HOLD)
    release = folder / "release"
    asked = kernel.client.execute(WAIT.format(release=str(release)), stop_on_error=False)
    eventually("the task runs", Path(f"{release}.begun").exists, within_seconds=20)
    eventually("it is waited for", Path(f"{release}.asked").exists)
    manager.interrupt_kernel()
    reply = kernel.client.get_shell_msg(timeout=_SECONDS)
    assert reply["parent_header"]["msg_id"] == asked
    assert reply["content"]["ename"] == "KeyboardInterrupt"

    assert kernel.run("print(hf.submit(scaled, 2).result(20), future.done())") == "10 False\n"
    release.touch()
    assert kernel.run("print(future.result(20))") == "held until released\n"
    kernel.run("hf.close()")


class Terminal:
    """The interpreter at a terminal of its own, and what it has shown so far."""

    def __init__(self, side: int) -> None:
        self._side = side
        self._shown = b""

    def type(self, text: str) -> None:
        os.write(self._side, text.encode())

    def shows(self, text: str) -> None:
        """Wait until it has shown a text since the last one that was waited for."""
        deadline = time.monotonic() + _SECONDS
        while text.encode() not in self._shown:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self._side], [], [], left)[0], (text, self._shown.decode())
            self._shown += os.read(self._side, 65536)
        self._shown = self._shown.partition(text.encode())[2]


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(folder: Path) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-i", "-q"],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        # The plain prompt of every Python, without colours and cursor keys.
        env={**os.environ, "TERM": "dumb", "PYTHON_BASIC_REPL": "1", "PYTHON_COLORS": "0"},
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(theirs)
    yield Terminal(ours)
    process.kill()
    process.wait()
    os.close(ours)


def test_the_prompt_of_a_terminal(terminal: Terminal, folder: Path, eventually: Eventually) -> None:
    for lines in (CONNECT, DEFINE, DEFINE_ERROR, DEFINE_HOLD):
        terminal.type(f"{lines}\n")
    terminal.type("print('first', hf.submit(scaled, 21).result(20))\n")
    terminal.shows("first 42")
    terminal.type(f"{DEFINE_AGAIN}\n")
    terminal.type("print('second', hf.submit(scaled, 21).result(20))\n")
    terminal.shows("second 105")
    terminal.type("hf.submit(fails, 7).result(20)\n")
    terminal.shows("Unlucky: not 7\r\n>>> ")
    terminal.type(f"{CAUGHT}\n\n")
    terminal.shows("caught: not 8")

    release = folder / "release"
    terminal.type(WAIT.format(release=str(release)))
    eventually("the task runs", Path(f"{release}.begun").exists, within_seconds=20)
    eventually("it is waited for", Path(f"{release}.asked").exists)
    # Ctrl-C as the terminal sends it: to all that run in its foreground.
    terminal.type("\x03")
    terminal.shows("KeyboardInterrupt")
    terminal.type("print('third', hf.submit(scaled, 2).result(20), future.done())\n")
    terminal.shows("third 10 False")
    release.touch()
    terminal.type("print('fourth', future.result(20))\n")
    terminal.shows("fourth held until released")
    terminal.type("hf.close()\nprint('the', 'end')\n")
    terminal.shows("the end")
