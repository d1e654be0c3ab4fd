"""Commands that run until they are stopped: up, coordinator, worker."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from holdfast import config, wiring
from holdfast.cli.options import named, named_path, show_json, state_option
from holdfast.client.embedded import module_path
from holdfast.errors import ConfigurationError
from holdfast.model.limits import LEASE_SECONDS

ready_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON line to stdout once it is there."
)


dialect_option = click.option(
    "--dialect",
    callback=named,
    help="How the function service speaks: unknown=400, completed=COMPLETE, error=object, …",
)


@click.command()
@state_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=config.PORT, show_default=True, help="Port; 0: a free one.")
@click.option(
    "--durability",
    type=click.Choice(["full", "normal"]),
    default="full",
    show_default=True,
    help="normal: a power cut may lose the newest turns.",
)
@click.option(
    "--lease",
    "lease_seconds",
    default=LEASE_SECONDS,
    show_default=True,
    help="Seconds of silence after which a worker's tasks go back.",
)
@dialect_option
@ready_option
def coordinator(
    state_dir: Path | None,
    host: str,
    port: int,
    durability: str,
    lease_seconds: float,
    dialect: str,
    as_json: bool,
) -> None:
    """Run a coordinator: the store, and the door to it.

    Workers join with `holdfast worker --url http://HOST:PORT`.
    """
    settings = config.CoordinatorSettings(
        state_dir=config.place(None, state_dir).state_dir,
        host=host,
        port=config.checked_port(port),
        durability=durability,
        lease_seconds=lease_seconds,
        dialect=dialect,
    )
    _coordinate(settings, as_json=as_json)


@click.command()
@state_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=config.PORT, show_default=True, help="Port; 0: a free one.")
@click.option("--workers", default=1, show_default=True, help="Workers to run beside it.")
@click.option("--slots", default=0, help="Tasks at once for each worker [processors].")
@dialect_option
@ready_option
def up(
    state_dir: Path | None,
    host: str,
    port: int,
    workers: int,
    slots: int,
    dialect: str,
    as_json: bool,
) -> None:
    """Run a coordinator and a worker here, until Ctrl-C."""
    settings = config.CoordinatorSettings(
        state_dir=config.place(None, state_dir).state_dir,
        host=host,
        port=config.checked_port(port),
        workers=workers,
        slots=slots,
        path=tuple(module_path()),
        dialect=dialect,
    )
    _coordinate(settings, as_json=as_json)


def _coordinate(settings: config.CoordinatorSettings, *, as_json: bool) -> None:
    def announce(urls: Sequence[str]) -> None:
        state = settings.state_dir.resolve()
        if as_json:
            show_json({"urls": [*urls], "state_dir": str(state), "pid": os.getpid()})
            return
        click.echo(
            f"Holdfast listens at {' and '.join(urls)}; state in {state}.\n"
            "There is no secret, so that only this machine reaches it. A worker joins with:\n"
            f"  holdfast worker --url {shlex.quote(urls[-1])} --home DIRECTORY",
            err=True,
        )

    wiring.log_to_stderr()
    wiring.run(wiring.coordinate(settings, announce))


_MIB = 1 << 20


@click.command()
@click.option("--url", "urls", multiple=True, help="Coordinator; more than one may be given.")
@click.option("--name", callback=named, help="Name of this worker [host name and directory].")
@click.option("--mode", type=click.Choice(["push", "pull"]), default="push", show_default=True)
@click.option("--slots", default=0, help="Tasks at once [processors].")
@click.option("--queues", callback=named, help="Queues that it serves, with commas [all].")
@click.option("--tags", callback=named, help="Tags that it offers, with commas.")
@state_option
@click.option(
    "--home",
    type=click.Path(),
    callback=named_path,
    help="Its own directory [`worker` in the state directory].",
)
@click.option(
    "--recycle-tasks",
    default=config.RECYCLE_TASKS,
    show_default=True,
    help="A process is replaced after so many tasks.",
)
@click.option(
    "--recycle-memory",
    "recycle_mib",
    type=click.IntRange(min=1),
    help="And between two tasks above so many MiB [its share of what there is].",
)
@click.option("--path", "paths", multiple=True, hidden=True)
@ready_option
def worker(
    urls: tuple[str, ...],
    name: str,
    mode: str,
    slots: int,
    queues: str,
    tags: str,
    state_dir: Path | None,
    home: Path | None,
    recycle_tasks: int,
    recycle_mib: int | None,
    paths: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run a worker: it takes tasks until SIGTERM, then finishes what runs and leaves."""
    settings = config.WorkerSettings(
        urls=urls or ((wiring.nearby(state_dir),) if state_dir else ()),
        state_dir=home or config.place(None, state_dir).state_dir / "worker",
        name=name,
        slots=slots,
        pull=mode == "pull",
        queues=_words("--queues", queues),
        tags=_words("--tags", tags),
        recycle_tasks=recycle_tasks,
        recycle_bytes=(recycle_mib or 0) * _MIB,
        path=paths,
    )
    if as_json:
        home_text = str(settings.state_dir.resolve())
        show_json({"urls": [*urls], "home": home_text, "pid": os.getpid()})
    streams = wiring.log_to_stderr()
    wiring.run(wiring.work(settings, streams))


def _words(option: str, text: str) -> tuple[str, ...]:
    if not text:
        return ()
    words = sorted({word.strip() for word in text.split(",")})
    if "" in words:
        # What a shell makes of a variable that is not set; none would be taken for all.
        raise ConfigurationError(f"{option} {text!r} has an empty name in it")
    return tuple(words)
