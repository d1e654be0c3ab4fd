"""What every process of ours has: an event loop, signals, a log, a host."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from holdfast.outlet import Outlet, Streams, standard_streams

FLUSH_SECONDS: Final = 1.0
"""How long the end of a process waits for a stream that nobody may be reading."""
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _OutletHandler(logging.Handler):
    """Logs into an outlet: a stream that stalls must not hold up who has something to say."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            self._outlet.put(f"{text}\n".encode(errors="backslashreplace"))

    def flush(self) -> None:
        self._outlet.flush(FLUSH_SECONDS)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a process's main coroutine, on uvloop where it is installed. The process then ends."""
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(main)
    finally:
        for handler in logging.getLogger().handlers:
            handler.flush()
        # What is left is the end of the interpreter: one more Ctrl-C has nothing to stop.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes an event loop: uvloop where it is installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return new_event_loop


def on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` at every SIGTERM and Ctrl-C, and when the terminal is closed (but for nohup)."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop)


def log_to_stderr() -> Streams:
    """Log what a person may want to read; the web server's lines on every socket are not that.

    Return the streams, for what else is to be written there.
    """
    streams = standard_streams()
    logging.basicConfig(
        level=logging.INFO, format=_LOG_FORMAT, handlers=[_OutletHandler(streams.err)]
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return streams


def import_from_here() -> None:
    """Let this process import what lies in its directory, as Python itself and workers do."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        return
    if not {"", here} & set(sys.path):
        sys.path.insert(0, here)


def boot_id() -> str:
    """Return what names this boot and this space of pids, "" where the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
