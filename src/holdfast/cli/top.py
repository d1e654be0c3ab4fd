"""`holdfast top`: the coordinator, its workers and its tasks, live in the terminal.

Owns the loop. One thread asks the coordinator and one reads the keys, so that an answer that does
not come holds up neither a `q` nor what is said about it.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click
from click.core import ParameterSource

from holdfast.cli.options import json_option, show_json, with_client
from holdfast.cli.overview import Frame, Reading, as_data, frame_of, read
from holdfast.errors import ConnectionLostError, HoldfastError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

    from holdfast.client.client import Client

_LOOK_SECONDS = 0.25
"""How often it is looked whether the coordinator is reached, between two answers."""
_WIDTH = 100
"""Of frames that no terminal shows."""
_QUIT = "q"
_AGAIN = "the coordinator answers again"

News = Reading | HoldfastError | TimeoutError | str


class Face(Protocol):
    """What shows frames to somebody."""

    def show(self, frame: Frame | None, trouble: str) -> None:
        """Show the newest frame, None for none yet, and what is wrong, "" for nothing."""
        ...


@click.command()
@click.option(
    "--interval",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.1),
    help="Seconds from one look to the next.",
)
@click.option("--once", is_flag=True, help="Show one frame, and end.")
@json_option
@with_client
@click.pass_context
def top(context: click.Context, client: Client, interval: float, once: bool, as_json: bool) -> None:
    """Show what runs, live: tasks by state, rates, workers, what waits, slow and failing functions.

    It goes on until q or Ctrl-C. Where stdout is no terminal it shows one frame, and goes on only
    with --interval. Functions are those of the last 1,000 tasks that ended.
    """
    given = context.get_parameter_source("interval") is ParameterSource.COMMANDLINE
    terminal = sys.stdout.isatty()
    if once or not (terminal or given):
        face: Face = _Json() if as_json else _Lines()
        face.show(frame_of(_reading(client), None), "")
        return
    try:
        if as_json or not terminal or _console().is_dumb_terminal:
            _watch(client, interval, _Json() if as_json else _Lines(), queue.SimpleQueue())
        else:
            with _live() as live, _keys() as news:
                _watch(client, interval, _Screen(live), news)
    except KeyboardInterrupt:
        # That is how one leaves it.
        return
    finally:
        # A question that nobody answers is not waited for.
        client.close(0)


def _reading(client: Client) -> Reading:
    return read(client, now=time.monotonic(), at_ms=int(time.time() * 1000))


def _watch(client: Client, interval: float, face: Face, news: queue.SimpleQueue[News]) -> None:
    """Show what comes, until somebody has had enough. Raises what ends the client for good."""
    over = threading.Event()
    asking = threading.Thread(
        target=_ask, args=(client, interval, news, over), name="holdfast-top", daemon=True
    )
    asking.start()
    frame, trouble = None, ""
    try:
        while True:
            try:
                told = news.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                trouble = client.held_back or trouble
                face.show(frame, trouble)
                continue
            if isinstance(told, Reading):
                frame, trouble = frame_of(told, frame.reading if frame else None), ""
            elif isinstance(told, ConnectionLostError):
                raise told
            elif isinstance(told, str):
                if told == _QUIT:
                    return
                continue
            else:
                trouble = str(told)
            face.show(frame, trouble)
    finally:
        over.set()


def _ask(
    client: Client, interval: float, news: queue.SimpleQueue[News], over: threading.Event
) -> None:
    """Ask again and again; of what goes wrong only the end of the client is an end."""
    while not over.is_set():
        try:
            news.put(_reading(client))
        except (HoldfastError, TimeoutError) as error:
            news.put(error)
            if isinstance(error, ConnectionLostError):
                return
        over.wait(interval)


class _Json:
    """One JSON object for each reading."""

    def __init__(self) -> None:
        self._talk = _Talk()
        self._shown: Frame | None = None

    def show(self, frame: Frame | None, trouble: str) -> None:
        """See `Face`."""
        self._talk.say(trouble)
        if frame is not None and frame is not self._shown:
            self._shown = frame
            show_json(as_data(frame))
            sys.stdout.flush()


class _Lines:
    """One frame after another, as text."""

    def __init__(self) -> None:
        self._talk = _Talk()
        self._shown: Frame | None = None

    def show(self, frame: Frame | None, trouble: str) -> None:
        """See `Face`."""
        self._talk.say(trouble)
        if frame is None or frame is self._shown:
            return
        from holdfast.cli.screen import picture

        console = _console()
        if self._shown is not None:
            console.print()
        self._shown = frame
        console.print(picture(frame, "", width=console.width, height=0))
        sys.stdout.flush()


class _Screen:
    """The whole terminal."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, frame: Frame | None, trouble: str) -> None:
        """See `Face`."""
        from holdfast.cli.screen import picture

        width, height = self._live.console.size
        text = f"{trouble}; trying again" if trouble else ""
        self._live.update(picture(frame, text, width=width, height=height), refresh=True)


class _Talk:
    """What is wrong, on stderr, once until it is something else."""

    def __init__(self) -> None:
        self._said = ""

    def say(self, trouble: str) -> None:
        if trouble != self._said:
            click.echo(f"holdfast: {trouble or _AGAIN}", err=True)
        self._said = trouble


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)


@contextmanager
def _live() -> Iterator[Live]:
    from rich.live import Live

    with Live(
        console=_console(), screen=True, auto_refresh=False, vertical_overflow="crop"
    ) as live:
        yield live


@contextmanager
def _keys() -> Iterator[queue.SimpleQueue[News]]:
    """Have each key come at once, and unseen; as text among the news."""
    news: queue.SimpleQueue[News] = queue.SimpleQueue()
    if not sys.stdin.isatty():
        yield news
        return
    import termios
    import tty

    side = sys.stdin.fileno()
    former = termios.tcgetattr(side)
    tty.setcbreak(side)
    threading.Thread(
        target=_read_keys, args=(side, news), name="holdfast-keys", daemon=True
    ).start()
    try:
        yield news
    finally:
        termios.tcsetattr(side, termios.TCSADRAIN, former)


def _read_keys(side: int, news: queue.SimpleQueue[News]) -> None:
    try:
        while key := os.read(side, 1):
            news.put(key.decode(errors="replace").lower())
    except OSError:
        # The terminal is gone, and SIGHUP says so to all of us.
        return
