"""What a process is made of: its loop, its signals, its log."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from holdfast.wiring.process import boot_id, log_to_stderr, loop_factory, on_signals

IMPATIENT = """
import asyncio, os, signal
from holdfast.wiring.process import on_signals, run

async def main():
    asked = asyncio.Event()
    on_signals(asked.set)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    await asked.wait()

run(main())
os.kill(os.getpid(), signal.SIGINT)
os.kill(os.getpid(), signal.SIGTERM)
print("ended in good order")
"""


def test_signals_end_a_process_in_good_order_and_late_ones_do_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(IMPATIENT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended in good order\n", "")


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.mark.usefixtures("terminal")
def test_every_signal_is_told() -> None:
    async def scene() -> int:
        told: list[None] = []
        on_signals(lambda: told.append(None))
        try:
            for number in SIGNALS:
                seen = len(told)
                os.kill(os.getpid(), number)
                async with asyncio.timeout(5):
                    while len(told) == seen:  # noqa: ASYNC110 - the kernel's word
                        await asyncio.sleep(0.001)
        finally:
            for number in SIGNALS:
                asyncio.get_running_loop().remove_signal_handler(number)
        return len(told)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        assert runner.run(scene()) == len(SIGNALS)


@pytest.mark.usefixtures("terminal")
def test_who_was_started_to_outlive_its_terminal_does() -> None:
    async def scene() -> None:
        on_signals(lambda: pytest.fail("it was told"))
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.01)
        for number in SIGNALS[:2]:
            asyncio.get_running_loop().remove_signal_handler(number)

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(scene())


def test_the_web_server_keeps_its_lines_to_itself() -> None:
    server = logging.getLogger("uvicorn")
    before = server.level
    try:
        log_to_stderr()
        assert not logging.getLogger("uvicorn.error").isEnabledFor(logging.INFO)
        assert logging.getLogger("uvicorn.error").isEnabledFor(logging.WARNING)
    finally:
        server.setLevel(before)


CHATTY = """
import asyncio, logging
from holdfast.wiring.process import log_to_stderr, run

async def main():
    log = logging.getLogger("holdfast")
    for number in range(20_000):
        log.info("line %d \\udcff", number)
    print("it goes on", flush=True)

log_to_stderr()
run(main())
"""


def test_a_log_that_nobody_reads_holds_up_nobody() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CHATTY], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"it goes on\n"
    assert process.wait(10) == 0
    process.stdout.close()
    process.stderr.close()


def test_what_was_logged_is_written_before_the_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHATTY], capture_output=True, check=True, timeout=10
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 20_000
    assert lines[-1].endswith(b"INFO holdfast: line 19999 \\udcff")


def test_this_boot_has_a_name_that_stays() -> None:
    assert boot_id() == boot_id() != ""
