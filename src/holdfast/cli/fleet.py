"""Commands about workers and about the release."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import click

from holdfast import __version__
from holdfast.cli import completing
from holdfast.cli.options import json_option, show_json, show_table, with_client

if TYPE_CHECKING:
    from holdfast.client.client import Client


@click.command()
@json_option
@with_client
def workers(client: Client, as_json: bool) -> None:
    """List the workers that are connected, or that hold tasks."""
    told = client.workers()
    if as_json:
        show_json(told)
        return
    rows = [
        (
            w["name"],
            w["state"],
            f"{w['holds']}/{w['slots']}",
            w["mode"],
            ",".join(w["queues"]) or "all",
            ",".join(w["tags"]),
            f"{w['host']}:{w['pid']}",
            f"{w['heard_seconds_ago']:.1f} s ago",
        )
        for w in told
    ]
    show_table(rows, ("name", "state", "holds", "mode", "queues", "tags", "process", "heard"))


@click.command()
@click.argument("worker", shell_complete=completing.workers)
@json_option
@with_client
def drain(client: Client, worker: str, as_json: bool) -> None:
    """Let a worker finish what it runs, return the rest, and leave."""
    told = client.drain(worker)
    show_json(told) if as_json else click.echo(f"{told['worker']} is draining")


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version."""
    python = platform.python_version()
    if as_json:
        show_json({"holdfast": __version__, "python": python})
    else:
        click.echo(f"holdfast {__version__} (Python {python})")
