"""What a person is told on stderr while a command waits for a task.

Owns the thread that asks why the task is not done yet. It never delays the command: neither an
answer that is late nor one that does not come is waited for.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from holdfast.cli.options import why_line
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.client.client import Client

_ASK_SECONDS = 2.0
_PASSING = re.compile(r"(; tried again in )?\d+\.\d+ s\b|tried (once|\d+ times)")
"""What becomes other by itself while a task waits for one thing."""


@contextmanager
def telling_why(client: Client, task: str) -> Iterator[None]:
    """Say in the words of `holdfast why` why a task waits, once it has for a while.

    It is said again where it is another reason. That a task runs is nothing to say, but where
    something else was said before.
    """
    teller = _Teller(client, task)
    threading.Thread(target=teller.run, name="holdfast-why", daemon=True).start()
    try:
        yield
    finally:
        teller.stop()


class _Teller:
    """Asks on a thread of its own: an answer may take long where a coordinator is in trouble."""

    def __init__(self, client: Client, task: str) -> None:
        self._client = client
        self._task = task
        self._over = threading.Event()
        self._saying = threading.Lock()
        self._said = ""

    def run(self) -> None:
        """Ask until it is over."""
        while not self._over.wait(_ASK_SECONDS):
            try:
                line = self._line()
            except (HoldfastError, TimeoutError):
                # Who waits for the task is told what is wrong, and this is asked again.
                continue
            with self._saying:
                if not self._over.is_set():
                    self._say(line)

    def stop(self) -> None:
        """Say nothing after this."""
        with self._saying:
            self._over.set()

    def _line(self) -> str:
        """Return what there is to say now, "" for nothing."""
        if self._client.held_back:
            # A question would be kept until a coordinator is back, and closing would wait for it.
            return self._client.held_back
        told = self._client.why(self._task)
        return "" if told["state"] == "running" and not self._said else why_line(told)

    def _say(self, line: str) -> None:
        reason = _PASSING.sub("", line)
        if line and reason != self._said:
            self._said = reason
            click.echo(f"holdfast: {line}", err=True)
