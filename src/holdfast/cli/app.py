"""The `holdfast` command: its subcommands, loaded when they are called, and its exit codes."""

from __future__ import annotations

import importlib
import io
import os
import sys
from contextlib import suppress
from enum import IntEnum

import click

from holdfast.errors import (
    ConfigurationError,
    EngineLostError,
    HoldfastError,
    IndefiniteError,
    InvalidInputError,
    NoCoordinatorError,
    ResultUnreadableError,
    StoreCorruptError,
    TaskCancelledError,
    TaskError,
    UnknownTaskError,
)
from holdfast.outlet import fill_standard_descriptors


class Exit(IntEnum):
    """The exit codes of every subcommand."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNKNOWN_TASK = 3
    NO_COORDINATOR = 4
    REFUSED = 5
    UNFINISHED = 6
    CANCELLED = 7
    UNREADABLE = 8
    ENGINE_LOST = 9
    INTERRUPTED = 130


EXIT_TEXT = {
    Exit.OK: "it went well",
    Exit.FAILED: "the task failed, what was compared differs, or the output cannot be written",
    Exit.USAGE: "the words of the command are off, or a setting cannot be",
    Exit.UNKNOWN_TASK: "no task, or no single one, has this id",
    Exit.NO_COORDINATOR: "nobody answers at the URL, or none could be started",
    Exit.REFUSED: "the coordinator refused; the text says why",
    Exit.UNFINISHED: "the task is not finished within the time given",
    Exit.CANCELLED: "the task was cancelled",
    Exit.UNREADABLE: "the task succeeded, but its result cannot be loaded here",
    Exit.ENGINE_LOST: "a worker cannot keep the processes that run its tasks; start it again",
    Exit.INTERRUPTED: "Ctrl-C or SIGTERM; tasks go on (up, coordinator and worker end with 0)",
}

COMPLETE_VARIABLE = "_HOLDFAST_COMPLETE"
"""How a shell says that it wants completions, whatever the program is called."""

_COMMANDS = {
    "up": ("holdfast.cli.processes", "up"),
    "coordinator": ("holdfast.cli.processes", "coordinator"),
    "worker": ("holdfast.cli.processes", "worker"),
    "submit": ("holdfast.cli.tasks", "submit"),
    "ls": ("holdfast.cli.tasks", "ls"),
    "status": ("holdfast.cli.tasks", "status"),
    "result": ("holdfast.cli.tasks", "result"),
    "cancel": ("holdfast.cli.tasks", "cancel"),
    "story": ("holdfast.cli.tasks", "story"),
    "why": ("holdfast.cli.tasks", "why"),
    "workers": ("holdfast.cli.fleet", "workers"),
    "drain": ("holdfast.cli.fleet", "drain"),
    "top": ("holdfast.cli.top", "top"),
    "demo": ("holdfast.cli.demo", "demo"),
    "bench": ("holdfast.cli.bench", "bench"),
    "man": ("holdfast.cli.man", "man"),
    "completion": ("holdfast.cli.completion", "completion"),
    "version": ("holdfast.cli.fleet", "version"),
}

_SHORT = {
    "up": "Run a coordinator and a worker here, until Ctrl-C.",
    "coordinator": "Run a coordinator.",
    "worker": "Run a worker.",
    "submit": "Submit a function by its import path.",
    "ls": "List tasks, newest first.",
    "status": "Show one task.",
    "result": "Print the result of a task, waiting for it.",
    "cancel": "Cancel tasks.",
    "story": "Tell all that happened to a task.",
    "why": "Say in one line why a task is where it is.",
    "workers": "List workers.",
    "drain": "Let a worker finish what it runs and leave.",
    "top": "Show what runs, live.",
    "demo": "Index a tree of files while everything is killed; prove that nothing is lost.",
    "bench": "Measure this machine.",
    "man": "Show the manual.",
    "completion": "Print the completion script of a shell.",
    "version": "Print the version.",
}


class Commands(click.Group):
    """The subcommands, each imported when it is called, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand."""
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        command = getattr(importlib.import_module(target[0]), target[1])
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_SHORT.items()))

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[click.shell_completion.CompletionItem[str]]:
        """Offer the subcommands without importing any; after a `-`, the options."""
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=told)
            for name, told in _SHORT.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: "
    + "; ".join(f"{int(code)} {text}" for code, text in EXIT_TEXT.items())
    + ".",
)
def holdfast() -> None:
    """Run Python functions so that nothing you submitted is lost, whatever dies.

    Without --url and --state-dir, commands speak with the coordinator of ./.holdfast, and start
    one where none runs. Any unique beginning of an id will do.
    """


def run() -> int:
    """Run the command line, turn what went wrong into one line, and return the exit code."""
    _stand_on_streams()
    try:
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        # That reader left before the last of it.
        _give_up_output()
        return Exit.OK
    except OSError as error:
        click.echo(f"holdfast: {error}", err=True)
        _give_up_output()
        return Exit.FAILED
    return code


def _give_up_output() -> None:
    """Let go what is buffered, which has nowhere to go; the end of Python would try it again."""
    with suppress(io.UnsupportedOperation):  # It is no file, so that nothing is tried again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run() -> int:
    try:
        # A command that ends with an exit code has it returned here, not raised.
        code = holdfast(standalone_mode=False, complete_var=COMPLETE_VARIABLE)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was submitted goes on", err=True)
        return Exit.INTERRUPTED
    except HoldfastError as error:
        click.echo(f"holdfast: {error}", err=True)
        return exit_code(error)
    except TimeoutError as error:
        click.echo(f"holdfast: {str(error) or 'not finished in time'}", err=True)
        return Exit.UNFINISHED
    except SystemExit:
        # So click ends where the reader of our output left, as `head` does.
        return Exit.OK
    return code if isinstance(code, int) else Exit.OK


def _stand_on_streams() -> None:
    """See that there are three standard streams, and that any text can be written to them.

    What is written to a stdout that was closed is refused, as a full disk refuses it; where nobody
    can read our talk, we are silent.
    """
    fill_standard_descriptors(inheritable=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = sys.stdout or open(os.open(os.devnull, os.O_RDONLY), "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def exit_code(error: HoldfastError) -> Exit:
    """Return the exit code of an error."""
    if isinstance(error, UnknownTaskError):
        return Exit.UNKNOWN_TASK
    if isinstance(error, StoreCorruptError):
        return Exit.REFUSED
    if isinstance(error, NoCoordinatorError | IndefiniteError):
        return Exit.NO_COORDINATOR
    if isinstance(error, ConfigurationError | InvalidInputError):
        return Exit.USAGE
    if isinstance(error, EngineLostError):
        return Exit.ENGINE_LOST
    if isinstance(error, TaskCancelledError):
        return Exit.CANCELLED
    if isinstance(error, ResultUnreadableError):
        return Exit.UNREADABLE
    return Exit.FAILED if isinstance(error, TaskError) else Exit.REFUSED
