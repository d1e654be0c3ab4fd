"""Commands that run until they are stopped: up, coordinator, worker."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from holdfast import config, wiring
from holdfast.cli.options import state_option
from holdfast.model.limits import LEASE_SECONDS

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def _log() -> None:
    logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT, stream=sys.stderr)


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
@click.option("--embedded", is_flag=True, hidden=True)
@click.option("--workers", default=0, hidden=True)
@click.option("--slots", default=0, hidden=True)
@click.option("--path", "paths", multiple=True, hidden=True)
@click.option("--ready-fd", default=-1, hidden=True)
def coordinator(
    state_dir: Path | None,
    host: str,
    port: int,
    durability: str,
    lease_seconds: float,
    embedded: bool,
    workers: int,
    slots: int,
    paths: tuple[str, ...],
    ready_fd: int,
) -> None:
    """Run a coordinator: the store, and the door to it.

    Workers join with `holdfast worker --url http://HOST:PORT`.
    """
    _log()
    settings = config.CoordinatorSettings(
        state_dir=config.place(None, state_dir).state_dir,
        host=host,
        port=-1 if embedded else port,
        durability=durability,
        lease_seconds=lease_seconds,
        embedded=embedded,
        workers=workers,
        slots=slots,
        path=paths,
        ready_fd=ready_fd,
    )
    wiring.run(wiring.coordinate(settings))


@click.command()
@state_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=config.PORT, show_default=True, help="Port; 0: a free one.")
@click.option("--workers", default=1, show_default=True, help="Workers to run beside it.")
@click.option("--slots", default=0, help="Tasks at once for each worker [processors].")
def up(state_dir: Path | None, host: str, port: int, workers: int, slots: int) -> None:
    """Run a coordinator and a worker here, until Ctrl-C."""
    _log()
    settings = config.CoordinatorSettings(
        state_dir=config.place(None, state_dir).state_dir,
        host=host,
        port=port,
        workers=workers,
        slots=slots,
        path=tuple(sys.path),
    )
    wiring.run(wiring.coordinate(settings))


@click.command()
@click.option("--url", "urls", multiple=True, help="Coordinator; more than one may be given.")
@click.option("--name", default="", help="Name of this worker [host name and directory].")
@click.option("--mode", type=click.Choice(["push", "pull"]), default="push", show_default=True)
@click.option("--slots", default=0, help="Tasks at once [processors].")
@click.option("--queues", default="", help="Queues that it serves, with commas [all].")
@click.option("--tags", default="", help="Tags that it offers, with commas.")
@click.option(
    "--home", type=click.Path(path_type=Path), help="Its state directory [./.holdfast/worker]."
)
@click.option("--path", "paths", multiple=True, hidden=True)
@click.option("--orphan-seconds", default=0.0, hidden=True)
@click.option("--log-to", type=click.Path(path_type=Path), hidden=True)
def worker(
    urls: tuple[str, ...],
    name: str,
    mode: str,
    slots: int,
    queues: str,
    tags: str,
    home: Path | None,
    paths: tuple[str, ...],
    orphan_seconds: float,
    log_to: Path | None,
) -> None:
    """Run a worker: it takes tasks until SIGTERM, then finishes what runs and leaves."""
    settings = config.WorkerSettings(
        urls=urls,
        state_dir=home or Path(config.STATE_DIR) / "worker",
        name=name,
        slots=slots,
        pull=mode == "pull",
        queues=_words(queues),
        tags=_words(tags),
        path=paths,
        orphan_seconds=orphan_seconds,
        log_to=log_to,
    )
    if log_to is None:
        _log()
    wiring.run(wiring.work(settings))


def _words(text: str) -> tuple[str, ...]:
    return tuple(sorted({word.strip() for word in text.split(",") if word.strip()}))
