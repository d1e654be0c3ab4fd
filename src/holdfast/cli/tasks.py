"""Commands about tasks: submit, ls, status, result, cancel, story, why."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from math import isnan
from typing import TYPE_CHECKING, Any

import click

from holdfast import wiring
from holdfast.cli import completing
from holdfast.cli.app import Exit, exit_code
from holdfast.cli.options import (
    at,
    json_option,
    named,
    show_fields,
    show_json,
    show_result,
    show_table,
    why_line,
    with_client,
)
from holdfast.cli.waiting import telling_why
from holdfast.errors import (
    HoldfastError,
    InvalidInputError,
    RefusedError,
    ResultUnreadableError,
    UnknownTaskError,
)

if TYPE_CHECKING:
    from holdfast.client.client import Client
    from holdfast.client.future import Future

_PAGE = 200
"""Tasks that are asked for at a time."""
_FINISHED = ("succeeded", "failed", "cancelled")


def _json(kind: type) -> Callable[[click.Context, click.Parameter, str], Any]:
    """Return what reads an option that holds a JSON array or object."""
    word = "array" if kind is list else "object"

    def read(_context: click.Context, _parameter: click.Parameter, text: str) -> Any:
        try:
            value = json.loads(text, parse_constant=_not_in_json)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(f"it is not JSON: {error}") from None
        if not isinstance(value, kind):
            raise click.BadParameter(f"it is not a JSON {word}")
        return value

    return read


def _no_nan(
    _context: click.Context, _parameter: click.Parameter, seconds: float | None
) -> float | None:
    if seconds is not None and isnan(seconds):
        raise click.BadParameter("it is not a number")
    return seconds


def _with_wait(
    context: click.Context, parameter: click.Parameter, seconds: float | None
) -> float | None:
    if seconds is not None and not context.params["wait"]:
        raise click.BadParameter("it is how long to wait at most: give --wait too")
    return _no_nan(context, parameter, seconds)


def _notes(
    _context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    """Read NAME=VALUE pairs."""
    notes = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE")
        notes[name] = value
    return notes


def _not_in_json(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


@click.command()
@click.argument("function", metavar="MODULE:FUNCTION")
@click.option(
    "--args", "arguments", default="[]", callback=_json(list), help="JSON array of arguments [[]]."
)
@click.option(
    "--kwargs",
    "keywords",
    default="{}",
    callback=_json(dict),
    help="JSON object of keyword arguments [{}].",
)
@click.option(
    "--queue",
    default="default",
    show_default=True,
    shell_complete=completing.queues,
    help="Queue.",
)
@click.option("--tag", "tags", multiple=True, help="A tag that the worker must have.")
@click.option("--priority", default=0, show_default=True, help="Higher goes first.")
@click.option("--key", callback=named, help="A name of yours: a second submission finds the first.")
@click.option("--delay", default=0.0, help="Seconds before it may start.")
@click.option("--meta", multiple=True, metavar="NAME=VALUE", callback=_notes, help="A note on it.")
@click.option("--wait/--no-wait", default=False, is_eager=True, help="Wait and print the result.")
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    callback=_with_wait,
    help="With --wait: seconds to wait at most; inf: without end.",
)
@json_option
@with_client
def submit(
    client: Client,
    function: str,
    arguments: list[Any],
    keywords: dict[str, Any],
    queue: str,
    tags: tuple[str, ...],
    priority: int,
    key: str,
    delay: float,
    meta: dict[str, str],
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Submit a function by its import path; print the id of the task.

    The function is imported by the worker, never here.
    """
    from holdfast.client.calls import call_by_name
    from holdfast.client.options import DEFAULTS, options_with

    given = {
        "queue": queue,
        "tags": tags,
        "priority": priority,
        "key": key,
        "delay": delay,
        "meta": meta,
    }
    call = call_by_name(function, options_with(DEFAULTS, given))
    future = client.start(call, tuple(arguments), keywords)
    future.wait_accepted(timeout)
    if not wait:
        show_json({"id": future.id}) if as_json else click.echo(future.id)
        return
    click.echo(f"task {future.id}", err=True)
    _finish(client, future, timeout, as_json)


@click.command()
@click.option(
    "--state",
    "states",
    multiple=True,
    shell_complete=completing.states,
    help="queued, running, paused, succeeded, …",
)
@click.option(
    "--function",
    callback=named,
    shell_complete=completing.functions,
    help="Import path of the function.",
)
@click.option("--queue", callback=named, shell_complete=completing.queues, help="Queue.")
@click.option("--tag", callback=named, help="Tag.")
@click.option("--key", callback=named, help="Key.")
@click.option("--meta", multiple=True, metavar="NAME=VALUE", callback=_notes, help="A note.")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1), help="How many at most."
)
@click.option("--before", callback=named, help="Older than this id, for the next page.")
@json_option
@with_client
def ls(client: Client, as_json: bool, **chosen: Any) -> None:
    """List tasks, newest first."""
    tasks = _pages(client, **chosen)
    if as_json:
        show_json(tasks)
        return
    rows = [
        (t["id"], t["state"], t["function"], t["queue"], at(t["submitted_ms"]), t["worker"])
        for t in tasks
    ]
    show_table(rows, ("id", "state", "function", "queue", "submitted", "worker"))


def _pages(client: Client, *, limit: int, before: str, **chosen: Any) -> list[dict[str, Any]]:
    """Return up to `limit` tasks, page by page; a page that no frame holds is asked in halves."""
    tasks: list[dict[str, Any]] = []
    size = _PAGE
    while len(tasks) < limit:
        size = min(size, limit - len(tasks))
        try:
            page = client.list(limit=size, before=before, **chosen)
        except RefusedError as error:
            if error.code != "too_large" or size == 1:
                raise
            size //= 2
            continue
        tasks += page
        if len(page) < size:
            break
        before = page[-1]["id"]
    return tasks


@click.command()
@click.argument("task", shell_complete=completing.tasks)
@json_option
@with_client
def status(client: Client, task: str, as_json: bool) -> None:
    """Show one task, by any unique beginning of its id."""
    told = client.status(task)
    if as_json:
        show_json(told)
        return
    charges = {name: count for name, count in told["charges"].items() if count}
    show_fields(
        (
            ("id", told["id"]),
            ("state", told["state"]),
            ("reason", told["reason"]),
            ("function", told["function"]),
            ("queue", told["queue"]),
            ("tags", told["tags"]),
            ("priority", told["priority"]),
            ("key", told["key"]),
            ("meta", [f"{name}={value}" for name, value in told["meta"].items()]),
            ("run", told["run"]),
            ("worker", told["worker"]),
            ("submitted", at(told["submitted_ms"])),
            ("due", at(told["due_ms"])),
            ("started", at(told["started_ms"] or told["claimed_ms"])),
            ("ended", at(told["ended_ms"])),
            ("charged", [f"{name} {count}" for name, count in charges.items()]),
            ("error", f"{told['error_type']} {told['error']}".strip()),
            ("evidence", told["evidence"]),
        )
    )


@click.command()
@click.argument("task", shell_complete=completing.tasks)
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    callback=_no_nan,
    help="Seconds to wait at most; inf: without end.",
)
@json_option
@with_client
def result(client: Client, task: str, timeout: float | None, as_json: bool) -> None:
    """Print the result of a task, waiting for it. A failed task's traceback goes to stderr."""
    _finish(client, client.future(task), timeout, as_json)


def _finish(client: Client, future: Future[Any], timeout: float | None, as_json: bool) -> None:
    """Wait for a task and print how it ended."""
    # The class of a result may live in a module of this folder, as for workers.
    wiring.import_from_here()
    with telling_why(client, future.id):
        future.wait_done(timeout)
    try:
        value = future.result()
    except Exception as error:
        # A task may raise our own errors too: only the coordinator knows whose this one is.
        told = client.status(future.id)
        if told["state"] not in _FINISHED or (
            told["state"] == "succeeded" and isinstance(error, ResultUnreadableError)
        ):
            raise
        if told["state"] == "succeeded":
            # It went well there; what cannot be had is its result, here.
            from holdfast.client.future import unreadable

            raise unreadable(future, error) from error
        _show_failure(told, as_json)
    else:
        show_result(value, future.id, as_json=as_json)


def _show_failure(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(told)
    text = told["traceback"] or told["evidence"] or told["error"]
    if text:
        click.echo(text.rstrip("\n"), err=True)
    if told["state"] == "cancelled":
        click.echo(f"task {told['id']} was cancelled", err=True)
        raise click.exceptions.Exit(Exit.CANCELLED)
    click.echo(f"task {told['id']} failed: {told['reason']}", err=True)
    raise click.exceptions.Exit(Exit.FAILED)


@click.command()
@click.argument("tasks", nargs=-1, required=True, shell_complete=completing.live_tasks)
@json_option
@with_client
def cancel(client: Client, tasks: tuple[str, ...], as_json: bool) -> None:
    """Cancel tasks: what has not started at once, what runs within its grace."""
    told: list[dict[str, Any]] = []
    errors: list[HoldfastError] = []
    try:
        for task in tasks:
            try:
                told.append(client.cancel(task))
            except (UnknownTaskError, InvalidInputError) as error:
                # This one is none; the others are asked for all the same.
                errors.append(error)
    finally:
        # Whatever ends this, some may be cancelled by now.
        _show_cancelled(told, as_json)
    for each in errors:
        click.echo(f"holdfast: {each}", err=True)
    if errors:
        raise click.exceptions.Exit(exit_code(errors[0]))


def _show_cancelled(told: list[dict[str, Any]], as_json: bool) -> None:
    if as_json and told:
        show_json([{"id": t["id"], "state": t["state"], "wanted": t["wanted"]} for t in told])
        return
    for t in told:
        asked = t["wanted"] == "cancel" and t["state"] not in _FINISHED
        click.echo(f"{t['id']}  {'being cancelled' if asked else t['state']}")


@click.command()
@click.argument("task", shell_complete=completing.tasks)
@json_option
@with_client
def story(client: Client, task: str, as_json: bool) -> None:
    """Tell all that happened to a task, in order."""
    lines = client.story(task)
    if as_json:
        show_json(lines)
        return
    begin = lines[0]["at_ms"] if lines else int(time.time() * 1000)
    for line in lines:
        run = f"run {line['run']}" if line["run"] else ""
        detail = line["detail"].splitlines()[0] if line["detail"] else ""
        parts = (run, f"on {line['worker']}" if line["worker"] else "", detail)
        after = f"+{(line['at_ms'] - begin) / 1000:.3f} s"
        text = "  ".join(part for part in parts if part)
        click.echo(f"{at(line['at_ms'])}  {after:>12}  {line['what']:<24}  {text}".rstrip())


@click.command()
@click.argument("task", shell_complete=completing.tasks)
@json_option
@with_client
def why(client: Client, task: str, as_json: bool) -> None:
    """Say in one line why a task is where it is."""
    told = client.why(task)
    if as_json:
        show_json(told)
    else:
        click.echo(why_line(told))
