"""Options that several commands share, and how their answers are shown."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from holdfast import wiring

F = TypeVar("F", bound=Callable[..., Any])

_PATIENCE_SECONDS = 1.5
_DIGITS_MAX = 100_000
"""Of a number that is shown: it takes Python 3.11 a fifth of a second, and ten times as many take
a hundred times as long."""
_WAITING = "holdfast: no coordinator answers yet; waiting for one (Ctrl-C to leave)"


def named_path(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> Path | None:
    """Read an option that names a file or a directory: `Path` takes "" for the current one."""
    if text == "":
        raise click.BadParameter("it is empty: leave it out, or say where")
    return None if text is None else Path(text)


def named(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str:
    """Read an option that names something; what is not given is "".

    Given as "" it is what a shell makes of a variable that is not set, and would be taken for all,
    or for none.
    """
    if text == "":
        raise click.BadParameter("it is empty: leave it out, or give one")
    return text or ""


url_option = click.option("--url", help="The coordinator: http://host:port or unix:/path.")
state_option = click.option(
    "--state-dir",
    type=click.Path(),
    callback=named_path,
    help="State directory [./.holdfast].",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")


def with_client(command: F) -> F:
    """Give a command `client`, connected as `--url` and `--state-dir` say."""

    @url_option
    @state_option
    @wraps(command)
    def connected(*args: Any, url: str | None, state_dir: Path | None, **words: Any) -> Any:
        with _patience():
            client = wiring.connect(url, state_dir=state_dir)
        with client:
            return command(*args, client=client, **words)

    return connected  # type: ignore[return-value]  # the same command, with two more options


@contextmanager
def _patience() -> Iterator[None]:
    """Say why nothing happens, where nobody answers at once: it may be one that restarts."""
    waiting = threading.Timer(_PATIENCE_SECONDS, click.echo, (_WAITING,), {"err": True})
    waiting.daemon = True
    waiting.start()
    try:
        yield
    finally:
        waiting.cancel()


def show_json(value: Any) -> None:
    """Print a value as JSON, one line; escaped where the output cannot show its letters."""
    click.echo(_json(value))


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, allow_nan=False)
    return text


def show_result(value: Any, task: str, *, as_json: bool) -> None:
    """Print what a task returned: a text as it is, anything else as Python writes it.

    As JSON: `result`, or `repr` where the value is nothing that JSON has. What Python cannot write
    is named, with the reason, in angle brackets: the task has succeeded all the same.
    """
    with _long_numbers():
        if not as_json:
            text = value if isinstance(value, str) else _written(value)
        else:
            try:
                text = _json({"id": task, "result": value})
            except Exception:
                # The methods of a dict or a float may be the user's.
                text = _json({"id": task, "repr": _written(value)})
    click.echo(text)


def _written(value: Any) -> str:
    """Return a value as Python writes it: user code, which may raise anything."""
    try:
        return repr(value)
    except (Exception, SystemExit) as error:
        # They cost more to import than all else that a command needs.
        from holdfast.payloads.describing import name_of
        from holdfast.payloads.failures import failure_of

        why = failure_of(error, with_pickle=False)
        return f"<{name_of(type(value))}, whose repr raises {type(error).__name__}: {why.message}>"


@contextmanager
def _long_numbers() -> Iterator[None]:
    """Let Python write numbers that are longer than it will by itself, but not for minutes."""
    before = sys.get_int_max_str_digits()
    if before:  # 0 is without a bound.
        sys.set_int_max_str_digits(max(before, _DIGITS_MAX))
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


def show_table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> None:
    """Print rows in columns; the head goes with them only on a terminal."""
    lines = [list(map(str, row)) for row in rows]
    if sys.stdout.isatty():
        lines.insert(0, [word.upper() for word in head])
    widths = [max((len(line[i]) for line in lines), default=0) for i in range(len(head))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def show_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, those without a value left out."""
    kept = [(name, value) for name, value in fields if value not in ("", 0, [], {}, None)]
    width = max((len(name) for name, _ in kept), default=0)
    for name, value in kept:
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        click.echo(f"{name.ljust(width)}  {text}")


def why_line(told: dict[str, Any]) -> str:
    """Return in one line why a task is where it is, with the time of day where it has one."""
    due = f", at {at(told['due_ms'])}" if told.get("due_ms") else ""
    return f"{told['why']}{due}"


def at(milliseconds: int) -> str:
    """Return a local time of day with milliseconds, with the date where it is not today."""
    if not milliseconds:
        return ""
    moment = time.localtime(milliseconds / 1000)
    today = time.strftime("%Y-%m-%d") == time.strftime("%Y-%m-%d", moment)
    form = "%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S"
    return f"{time.strftime(form, moment)}.{milliseconds % 1000:03d}"
