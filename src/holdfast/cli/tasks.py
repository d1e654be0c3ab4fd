"""Commands about tasks: submit, ls, status, result, cancel, story, why."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.app import Exit
from holdfast.cli.options import (
    at,
    json_option,
    show_fields,
    show_json,
    show_table,
    with_client,
)
from holdfast.client.calls import call_by_name
from holdfast.client.options import DEFAULTS, options_with

if TYPE_CHECKING:
    from holdfast.client.client import Client

_FINISHED = ("succeeded", "failed", "cancelled")


@click.command()
@click.argument("function", metavar="MODULE:FUNCTION")
@click.option("--args", "arguments", default="[]", help="JSON array of arguments [[]].")
@click.option("--kwargs", "keywords", default="{}", help="JSON object of keyword arguments [{}].")
@click.option("--queue", default="default", show_default=True, help="Queue.")
@click.option("--tag", "tags", multiple=True, help="A tag that the worker must have.")
@click.option("--priority", default=0, show_default=True, help="Higher goes first.")
@click.option("--key", default="", help="A name of yours: a second submission finds the first.")
@click.option("--delay", default=0.0, help="Seconds before it may start.")
@click.option("--wait/--no-wait", default=False, help="Wait and print the result.")
@click.option("--timeout", type=float, help="Seconds to wait at most.")
@json_option
@with_client
def submit(
    client: Client,
    function: str,
    arguments: str,
    keywords: str,
    queue: str,
    tags: tuple[str, ...],
    priority: int,
    key: str,
    delay: float,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Submit a function by its import path; print the id of the task.

    The function is imported by the worker, never here.
    """
    given = {"queue": queue, "tags": tags, "priority": priority, "key": key, "delay": delay}
    call = call_by_name(function, options_with(DEFAULTS, given))
    future = client.start(
        call, tuple(_json("--args", arguments, list)), _json("--kwargs", keywords, dict)
    )
    future.wait_accepted(timeout)
    if not wait:
        show_json({"id": future.id}) if as_json else click.echo(future.id)
        return
    click.echo(f"task {future.id}", err=True)
    _print_result(future.result(timeout), future.id, as_json)


def _json(option: str, text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{option} is not JSON: {error}") from None
    if not isinstance(value, kind):
        word = "array" if kind is list else "object"
        raise click.BadParameter(f"{option} is not a JSON {word}")
    return value


def _print_result(value: Any, task: str, as_json: bool) -> None:
    if as_json:
        show_json({"id": task, "result": value if _is_json(value) else repr(value)})
    else:
        click.echo(value if isinstance(value, str) else repr(value))


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


@click.command()
@click.option("--state", "states", multiple=True, help="queued, running, paused, succeeded, …")
@click.option("--function", default="", help="Import path of the function.")
@click.option("--queue", default="", help="Queue.")
@click.option("--tag", default="", help="Tag.")
@click.option("--key", default="", help="Key.")
@click.option("--limit", default=50, show_default=True, help="How many at most.")
@click.option("--before", default="", help="Older than this id, for the next page.")
@json_option
@with_client
def ls(client: Client, as_json: bool, **chosen: Any) -> None:
    """List tasks, newest first."""
    tasks = client.list(**{name: value for name, value in chosen.items() if value})
    if as_json:
        show_json(tasks)
        return
    rows = [
        (t["id"], t["state"], t["function"], t["queue"], at(t["submitted_ms"]), t["worker"])
        for t in tasks
    ]
    show_table(rows, ("id", "state", "function", "queue", "submitted", "worker"))


@click.command()
@click.argument("task")
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
@click.argument("task")
@click.option("--timeout", type=float, help="Seconds to wait at most.")
@json_option
@with_client
def result(client: Client, task: str, timeout: float | None, as_json: bool) -> None:
    """Print the result of a task, waiting for it. A failed task's traceback goes to stderr."""
    future = client.future(task)
    try:
        value = future.result(timeout)
    except TimeoutError:
        raise
    except Exception:
        told = client.status(future.id)
        if told["state"] not in _FINISHED:
            raise
        _print_failure(told, as_json)
    else:
        _print_result(value, future.id, as_json)


def _print_failure(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(told)
    click.echo(told["traceback"] or told["evidence"] or told["error"], err=True)
    if told["state"] == "cancelled":
        click.echo(f"task {told['id']} was cancelled", err=True)
        raise click.exceptions.Exit(Exit.CANCELLED)
    click.echo(f"task {told['id']} failed: {told['reason']}", err=True)
    raise click.exceptions.Exit(Exit.FAILED)


@click.command()
@click.argument("tasks", nargs=-1, required=True)
@json_option
@with_client
def cancel(client: Client, tasks: tuple[str, ...], as_json: bool) -> None:
    """Cancel tasks: what has not started at once, what runs within its grace."""
    told = []
    for task in tasks:
        client.cancel(task)
        told.append(client.status(task))
    if as_json:
        show_json([{"id": t["id"], "state": t["state"], "wanted": t["wanted"]} for t in told])
        return
    for t in told:
        asked = t["wanted"] == "cancel" and t["state"] not in _FINISHED
        click.echo(f"{t['id']}  {'being cancelled' if asked else t['state']}")


@click.command()
@click.argument("task")
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
@click.argument("task")
@json_option
@with_client
def why(client: Client, task: str, as_json: bool) -> None:
    """Say in one line why a task is where it is."""
    told = client.why(task)
    show_json(told) if as_json else click.echo(told["why"])
