"""Exit codes, and what is left of a command whose reader or terminal is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from holdfast import errors
from holdfast.cli.app import EXIT_TEXT, Exit, exit_code, holdfast
from tests.cli.conftest import CommandLine

HOLDFAST = [sys.executable, "-m", "holdfast"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UnknownTaskError("x"), Exit.UNKNOWN_TASK),
        (errors.NoCoordinatorError("x"), Exit.NO_COORDINATOR),
        (errors.ConnectionLostError("x"), Exit.NO_COORDINATOR),
        (errors.ConfigurationError("x"), Exit.USAGE),
        (errors.NotSerializableError("x"), Exit.USAGE),
        (errors.RefusedError("x"), Exit.REFUSED),
        (errors.KeyConflictError("x"), Exit.REFUSED),
        (errors.StoreVersionError("x"), Exit.REFUSED),
        (errors.StoreCorruptError("x"), Exit.REFUSED),
        (errors.TaskCancelledError("x"), Exit.CANCELLED),
        (errors.EngineLostError("x"), Exit.ENGINE_LOST),
        (errors.TaskFailedError("x"), Exit.FAILED),
        (errors.ResultUnreadableError("x"), Exit.UNREADABLE),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(
    error: errors.HoldfastError, code: Exit, cli: CommandLine
) -> None:
    assert exit_code(error) is code

    def fail(**_: object) -> None:
        raise error

    said = cli("ls", "--json", list=fail)
    assert (said.code, said.out, said.err) == (code, "", "holdfast: x\n")


def test_other_ends_have_their_codes(cli: CommandLine) -> None:
    def late(**_: object) -> None:
        raise TimeoutError

    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    assert cli("ls", list=late).code == Exit.UNFINISHED
    assert cli("ls", list=interrupt).code == Exit.INTERRUPTED
    assert cli("ls", list=full).code == Exit.FAILED
    assert cli("ls", "surplus").code == Exit.USAGE
    assert cli("no-such-command").code == Exit.USAGE
    assert cli("--help").code == Exit.OK


def test_every_exit_code_and_every_command_is_explained(cli: CommandLine) -> None:
    assert set(EXIT_TEXT) == set(Exit)
    told = cli("--help").out
    context = click.Context(holdfast)
    for name in holdfast.list_commands(context):
        assert name in told
        command = holdfast.get_command(context, name)
        assert command is not None
        assert command.help


def test_where_to_connect_is_passed_on(cli: CommandLine) -> None:
    cli("ls", "--url", "unix:/x", list=lambda **_: [])
    assert cli.where == ["unix:/x", None]
    cli("ls", "--state-dir", "/there", list=lambda **_: [])
    assert cli.where == [None, Path("/there")]


def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as gone:
        done = subprocess.run(
            [*HOLDFAST, "version"], stdout=gone, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_output_that_is_full_is_told() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*HOLDFAST, "version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == Exit.FAILED
    assert done.stderr == "holdfast: [Errno 28] No space left on device\n"


def run_without(closed: str) -> subprocess.CompletedProcess[str]:
    line = f'exec "{sys.executable}" -m holdfast version {closed}'
    return subprocess.run(["sh", "-c", line], check=False, capture_output=True, text=True)


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_without_standard_streams(closed: str) -> None:
    done = run_without(closed)
    assert (done.returncode, done.stderr) == (Exit.OK, "")
    assert done.stdout.startswith("holdfast ")


def test_an_output_that_is_closed_is_told() -> None:
    done = run_without(">&-")
    told = "holdfast: [Errno 9] Bad file descriptor\n"
    assert (done.returncode, done.stderr) == (Exit.FAILED, told)
    assert run_without("<&- >&- 2>&-").returncode == Exit.FAILED


def test_sigterm_is_as_orderly_as_ctrl_c() -> None:
    program = (
        "import os, signal, sys\n"
        "from holdfast.cli import app, main\n"
        "app.run = lambda: os.kill(os.getpid(), signal.SIGTERM) or signal.pause()\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_the_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from holdfast.cli.app import run\n"
        "sys.argv = ['holdfast', '--help']\n"
        "run()\n"
        "heavy = ('asyncio', 'cloudpickle', 'msgspec', 'rich', 'sqlite3', 'websockets')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")
