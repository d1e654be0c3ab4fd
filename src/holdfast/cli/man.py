"""`holdfast man`: the manual, through `man` at a terminal and as plain text elsewhere."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from holdfast.cli.app import EXIT_TEXT, holdfast
from holdfast.cli.manual import Page, as_roff, as_text, page_of, whole_page

_WIDTH_MAX = 100


@click.command()
@click.argument(
    "command",
    required=False,
    metavar="[COMMAND]",
    type=click.Choice(holdfast.list_commands(click.Context(holdfast))),
)
@click.option("--roff", is_flag=True, help="Print the source of the page, as packages ship it.")
def man(command: str | None, roff: bool) -> None:
    """Show the manual: of one command, or of all of them.

    At a terminal that has man it is shown there; elsewhere it is printed as plain text.
    """
    exits = {int(code): text for code, text in EXIT_TEXT.items()}
    page = page_of(holdfast, command, exits) if command else whole_page(holdfast, exits)
    if roff:
        click.echo(as_roff(page), nl=False)
    elif not (sys.stdout.isatty() and _shown_by_man(page)):
        width = min(shutil.get_terminal_size().columns, _WIDTH_MAX)
        click.echo(as_text(page, width=width), nl=False)


def _shown_by_man(page: Page) -> bool:
    """Show a page through `man`; whether it did."""
    program = shutil.which("man")
    if program is None:
        return False
    with _left_to_the_pager():
        done = subprocess.run([program, "-l", "-"], input=as_roff(page).encode(), check=False)
    return done.returncode == 0


@contextmanager
def _left_to_the_pager() -> Iterator[None]:
    """Go on at Ctrl-C: it is for the pager, which shares our terminal and stays."""
    # A handler, unlike SIG_IGN, is not inherited.
    former = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
