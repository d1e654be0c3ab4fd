"""`holdfast bench`: what this machine does, beside what it should do."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import click

from holdfast import wiring
from holdfast.cli.app import Exit
from holdfast.cli.options import named_path
from holdfast.lab.bench import report
from holdfast.lab.bench.catalogue import FAMILIES, chosen, measure
from holdfast.lab.bench.machine import describe, file_system
from holdfast.lab.bench.stage import Bench


@click.command()
@click.option(
    "--json",
    "target",
    type=click.Path(dir_okay=False, allow_dash=True),
    callback=named_path,
    help="Write one flat JSON object to this file; - prints it in place of the table.",
)
@click.option("--quick", is_flag=True, help="Fewer and smaller rounds: a look, not a measurement.")
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    type=click.Choice(list(FAMILIES)),
    help=f"Only these figures: {', '.join(FAMILIES)}.",
)
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the databases stand while they are measured [the directory for temporary files].",
)
def bench(target: Path | None, quick: bool, only: tuple[str, ...], directory: Path | None) -> None:
    """Measure this machine, with the defaults that a user gets.

    Everything shares its cores: client, coordinator and workers. Exit code 1 where a figure is
    below what it has to be at least.
    """
    place = directory or Path(tempfile.gettempdir())
    if file_system(place) in ("tmpfs", "ramfs"):
        click.echo(f"{place} is in memory, where nothing is durable: see --directory", err=True)
    machine = describe(place)
    begun = time.monotonic()

    def tell(text: str) -> None:
        click.echo(f"  {time.monotonic() - begun:5.0f} s  {text}", err=True)

    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=place) as folder:
        workplace = Bench(wiring.connect, Path(folder), quick=quick, tell=tell)
        samples = measure(workplace, chosen(only, quick=quick))
    lines = report.lines_of(samples)
    text = json.dumps(report.as_data(samples, machine), indent=2, ensure_ascii=False)
    if target == Path("-"):
        click.echo(text)
    else:
        parts = (report.table(lines), report.budget_table(samples), report.others(samples))
        click.echo("\n\n".join(part for part in parts if part))
        if target is not None:
            target.write_text(f"{text}\n")
    if not report.is_enough(lines):
        raise click.exceptions.Exit(Exit.FAILED)
