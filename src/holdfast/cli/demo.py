"""`holdfast demo`: the main job, under fire, on files of yours."""

from __future__ import annotations

import sys
import sysconfig
import tempfile
from pathlib import Path

import click

from holdfast import wiring
from holdfast.cli.app import Exit
from holdfast.cli.options import json_option, show_json
from holdfast.lab.cluster import Cluster
from holdfast.lab.demonstration import KINDS, Kill, Report, compare, run_under_fire
from holdfast.lab.workloads.indexing import files_of


@click.command()
@click.option(
    "--input",
    "tree",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of text files [the standard library's sources].",
)
@click.option("--workers", default=3, show_default=True, type=click.IntRange(1), help="Workers.")
@click.option("--slots", default=2, show_default=True, type=click.IntRange(1), help="Slots each.")
@click.option("--kills", default=3, show_default=True, help="Kills of each kind at least.")
@click.option("--seed", default=1, show_default=True, help="Seed of the kills.")
@json_option
def demo(tree: Path | None, workers: int, slots: int, kills: int, seed: int, as_json: bool) -> None:
    """Index a tree of files while children, workers and the coordinator are killed.

    At the end every result is compared with the same work done in one plain process. Exit code 1
    where anything differs.
    """
    tree = (tree or Path(sysconfig.get_path("stdlib"))).resolve()
    files = files_of(tree)
    if not files:
        raise click.UsageError(f"no text files below {tree}")
    click.echo(f"{len(files)} files below {tree}; {workers} workers × {slots} slots", err=True)
    with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as directory:
        report = _run(Path(directory), files, workers, slots, kills, seed)
    if as_json:
        show_json(_as_data(report))
    else:
        _show(report)
    if not report.is_valid:
        raise click.exceptions.Exit(Exit.FAILED)


def _run(
    directory: Path, files: list[str], workers: int, slots: int, kills: int, seed: int
) -> Report:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    progress = Progress(*columns, TimeElapsedColumn(), console=console)
    with Cluster(directory) as cluster:
        cluster.start_coordinator()
        for number in range(workers):
            cluster.start_worker(f"worker-{number}", "--slots", str(slots))
        with wiring.connect(cluster.url) as client, progress:
            bar = progress.add_task("indexing", total=len(files))

            def tell(kill: Kill) -> None:
                progress.console.print(f"  SIGKILL  {kill.kind:<12} {kill.name}", highlight=False)

            report, entries, sums = run_under_fire(
                cluster,
                client,
                files,
                witness=directory / "witness",
                blows_each=kills,
                seed=seed,
                done=lambda number: progress.update(bar, completed=number),
                tell=tell,
            )
    click.echo("the same work in one plain process …", err=True)
    compare(report, files, entries, sums)
    return report


def _show(report: Report) -> None:
    sums = report.sums
    click.echo(
        f"{report.files} files, {sums['lines']:,} lines, {sums['words']:,} words, "
        f"{sums['functions']:,} functions, {sums['classes']:,} classes "
        f"in {report.seconds:.1f} s under fire ({report.plain_seconds:.1f} s in a plain process)"
    )
    for kind in KINDS:
        blows = [kill for kill in report.kills if kill.kind == kind]
        struck = sum(len(kill.struck) for kill in blows)
        times = sorted(report.begun_again_ms.get(kind, []))
        again = ", ".join(f"{ms:.0f}" for ms in times)
        text = f"  killed {len(blows)} × {kind}"
        if kind == "coordinator":
            text += "; what ran went on"
        else:
            text += f"; {struck} tasks interrupted"
            if times:
                text += f", started again after {again} ms"
        click.echo(text)
    unstruck = len(report.begun_twice_unstruck)
    click.echo(
        f"  tasks that began twice: {report.begun_twice}, of them not interrupted: {unstruck}"
    )
    if report.is_valid:
        click.echo("  lost: 0. Every result is the one of the plain process.")
    else:
        click.echo(f"  LOST: {len(report.lost)}, DIFFERENT: {len(report.differing)}")
        for path in (*report.lost, *report.differing)[:20]:
            click.echo(f"    {path}")
    sys.stdout.flush()


def _as_data(report: Report) -> dict[str, object]:
    return {
        "files": report.files,
        "seconds": report.seconds,
        "plain_seconds": report.plain_seconds,
        "kills": {kind: sum(kill.kind == kind for kill in report.kills) for kind in KINDS},
        "interrupted": sum(len(kill.struck) for kill in report.kills),
        "started_again_ms": report.begun_again_ms,
        "began_twice": report.begun_twice,
        "began_twice_not_interrupted": len(report.begun_twice_unstruck),
        "lost": report.lost,
        "differing": report.differing,
        "sums": report.sums,
    }
