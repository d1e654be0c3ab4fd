"""`holdfast demo`: the main job, under fire, on files of yours."""

from __future__ import annotations

import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast import wiring
from holdfast.cli.app import Exit
from holdfast.cli.options import json_option, show_json
from holdfast.lab.cluster import Cluster
from holdfast.lab.demonstration import KINDS, Answers, Report, compare, run_under_fire
from holdfast.lab.interruption import TOLD, interrupted_once
from holdfast.lab.workloads.indexing import files_of

if TYPE_CHECKING:
    from rich.progress import Progress

    from holdfast.lab.blows import Blow

_SHOWN = 20


@click.command()
@click.option(
    "--input",
    "tree",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of text files [the standard library's sources].",
)
@click.option("--workers", default=3, show_default=True, type=click.IntRange(1), help="Workers.")
@click.option("--slots", default=2, show_default=True, type=click.IntRange(1), help="Slots each.")
@click.option(
    "--kills", default=3, show_default=True, type=click.IntRange(0), help="Kills of each kind."
)
@click.option("--seed", default=1, show_default=True, help="Seed of the kills.")
@json_option
def demo(tree: Path | None, workers: int, slots: int, kills: int, seed: int, as_json: bool) -> None:
    """Index a tree of files while children, workers and the coordinator are killed.

    Each is killed while it runs a task; a kill that comes too late is not counted. At the end every
    result is compared with the same work done in one plain process. Exit code 1 where anything
    differs, where a task that no kill interrupted began twice or did not end, or where there were
    not as many kills as asked for.
    """
    tree = (tree or Path(sysconfig.get_path("stdlib"))).resolve()
    files = files_of(tree)
    if not files:
        raise click.UsageError(f"no text files below {tree}")
    click.echo(f"{len(files)} files below {tree}; {workers} workers × {slots} slots", err=True)
    try:
        with (
            interrupted_once(),
            tempfile.TemporaryDirectory(prefix="holdfast-demo-") as directory,
        ):
            report, answers = _run(Path(directory), files, workers, slots, kills, seed)
            click.echo("the same work in one plain process …", err=True)
            compare(report, files, answers)
    except KeyboardInterrupt:
        click.echo(TOLD, err=True)
        raise click.exceptions.Exit(Exit.INTERRUPTED) from None
    if as_json:
        show_json(_as_data(report))
    else:
        _show(report)
    if not report.is_valid:
        raise click.exceptions.Exit(Exit.FAILED)


class _Screen:
    """The `Audience` at a terminal: a bar that moves, and a line for each blow."""

    def __init__(self, progress: Progress, files: int) -> None:
        self._progress = progress
        self._bar = progress.add_task("indexing", total=files)

    def indexed(self, count: int) -> None:
        """Move the bar."""
        self._progress.update(self._bar, completed=count)

    def once_more(self, tasks: int) -> None:
        """Say why it goes on with a full bar."""
        self._progress.update(self._bar, description=f"{tasks} of them again, slowly")

    def fell(self, blow: Blow, hit: bool) -> None:
        """Show a blow."""
        where = blow.name
        if blow.kind == "child":
            where = f"pid {min(blow.pids)} of {blow.name}"
        late = "" if hit else ", too late: its task had ended"
        self._progress.console.print(f"  SIGKILL  {blow.kind:<12} {where}{late}", highlight=False)


def _run(
    directory: Path, files: list[str], workers: int, slots: int, kills: int, seed: int
) -> tuple[Report, Answers]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    progress = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
    with Cluster(directory) as cluster:
        cluster.start_coordinator()
        for number in range(workers):
            cluster.start_worker(f"worker-{number}", "--slots", str(slots))
        with wiring.connect(cluster.url) as client, progress:
            return run_under_fire(
                cluster,
                client,
                files,
                witness=directory / "witness",
                blows_each=kills,
                seed=seed,
                audience=_Screen(progress, len(files)),
            )


def _show(report: Report) -> None:
    sums = report.sums
    click.echo(
        f"{report.files} files, {sums['lines']:,} lines, {sums['words']:,} words, "
        f"{sums['functions']:,} functions, {sums['classes']:,} classes "
        f"in {report.seconds:.1f} s under fire ({report.plain_seconds:.1f} s in a plain process)"
    )
    if report.indexed_again:
        click.echo(
            f"  indexed once more, slowly, until all blows had fallen: {report.indexed_again}"
        )
    if report.unreadable:
        click.echo(f"  files that cannot be read, here as there: {report.unreadable}")
    for kind in KINDS:
        click.echo(_line(report, kind))
    alive = len(report.begun_twice_alive)
    click.echo(f"  tasks that began twice: {report.begun_twice}, of them not interrupted: {alive}")
    for task in (*report.begun_twice_alive, *report.broken_off_alone)[:_SHOWN]:
        click.echo(f"    {task}")
    if report.lost or report.differing:
        click.echo(f"  LOST: {len(report.lost)}, DIFFERENT: {len(report.differing)}")
        for text in (*report.lost, *report.differing)[:_SHOWN]:
            click.echo(f"    {text}")
    else:
        click.echo("  lost: 0. Every result is the one of the plain process.")
    if report.too_few:
        click.echo(f"  TOO FEW KILLS AT WORK: {', '.join(report.too_few)}")
    sys.stdout.flush()


def _line(report: Report, kind: str) -> str:
    """Return what became of one kind's blows."""
    text = f"  killed {report.struck[kind]} × {kind}"
    late = report.fallen[kind] - report.struck[kind]
    if late:
        text += f" (and {late} too late)"
    if kind == "coordinator":
        text += f"; {_tasks(report.went_on)} at work then went on to the end"
        alone = len(report.broken_off_alone)
        return text + (f", {alone} DID NOT" if alone else "")
    text += f"; {_tasks(report.broken_off[kind])} interrupted"
    times = ", ".join(f"{ms:.0f}" for ms in sorted(report.begun_again_ms[kind]))
    return text + (f", started again after {times} ms" if times else "")


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _as_data(report: Report) -> dict[str, object]:
    return {
        "files": report.files,
        "seconds": report.seconds,
        "plain_seconds": report.plain_seconds,
        "kills": report.struck,
        "kills_too_late": sum(report.fallen.values()) - sum(report.struck.values()),
        "interrupted": sum(report.broken_off.values()),
        "started_again_ms": report.begun_again_ms,
        "went_on_without_coordinator": report.went_on,
        "began_twice": report.begun_twice,
        "began_twice_not_interrupted": len(report.begun_twice_alive),
        "not_interrupted_without_end": len(report.broken_off_alone),
        "indexed_again": report.indexed_again,
        "unreadable": report.unreadable,
        "lost": report.lost,
        "differing": report.differing,
        "sums": report.sums,
    }
