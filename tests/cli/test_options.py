"""How answers are shown: JSON that is JSON, tables, fields, times."""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import pytest

from holdfast import wiring
from holdfast.cli import options
from holdfast.cli.app import Exit
from holdfast.cli.options import at, show_fields, show_json, show_result, show_table
from tests.cli.conftest import CommandLine
from tests.conftest import Eventually


def test_who_waits_for_a_coordinator_is_told_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    said: list[str] = []

    def connect(url: str | None, *, state_dir: object) -> nullcontext[str]:
        if url == "slow":
            eventually("it is said", lambda: said.append(capsys.readouterr().err) or any(said))
        return nullcontext("client")

    monkeypatch.setattr(options, "_PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(wiring, "connect", connect, raising=False)
    command = click.command()(options.with_client(lambda client: click.echo("done")))
    assert command.main(["--url", "slow"], standalone_mode=False) is None
    assert "no coordinator answers yet" in "".join(said)
    assert capsys.readouterr().out == "done\n"
    assert command.main(["--url", "fast"], standalone_mode=False) is None
    told = capsys.readouterr()
    assert (told.out, told.err) == ("done\n", "")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([1, None, "ü"], {"id": "t", "result": [1, None, "ü"]}),
        (float("nan"), {"id": "t", "repr": "nan"}),
        ([float("inf")], {"id": "t", "repr": "[inf]"}),
        (b"\x00", {"id": "t", "repr": r"b'\x00'"}),
        ("\ud800", {"id": "t", "result": "\ud800"}),
    ],
)
def test_a_result_is_valid_json_or_told_apart(
    value: object, told: object, capsys: pytest.CaptureFixture[str]
) -> None:
    show_result(value, "t", as_json=True)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    out = capsys.readouterr().out
    out.encode()
    assert json.loads(out, parse_constant=refuse) == told


def test_a_result_that_contains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    value: list[object] = []
    value.append(value)
    show_result(value, "t", as_json=True)
    assert json.loads(capsys.readouterr().out)["repr"] == "[[...]]"


class Unshown:
    """What Python cannot write: user code, so that anything may be raised."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __repr__(self) -> str:
        raise self._error


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise KeyError


@pytest.mark.parametrize("as_json", [False, True])
def test_a_long_number_is_shown_in_full(
    as_json: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sys.get_int_max_str_digits()
    show_result(10**6000, "t", as_json=as_json)
    assert "1" + "0" * 6000 in capsys.readouterr().out
    assert sys.get_int_max_str_digits() == before
    # What the user has allowed himself is not taken back.
    monkeypatch.setattr(options, "_DIGITS_MAX", 5000)
    sys.set_int_max_str_digits(0)
    try:
        show_result([10**6000], "t", as_json=as_json)
    finally:
        sys.set_int_max_str_digits(before)
    assert "1" + "0" * 6000 in capsys.readouterr().out


def test_a_number_without_measure_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "_DIGITS_MAX", 5000)
    show_result(10**6000, "t", as_json=False)
    out = capsys.readouterr().out
    assert out.startswith("<builtins.int, whose repr raises ValueError: Exceeds the limit (5000 ")
    show_result([10**6000], "t", as_json=True)
    assert json.loads(capsys.readouterr().out)["repr"].startswith("<builtins.list, whose repr")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("no"), "RuntimeError: no"),
        (SystemExit(3), "SystemExit: 3"),
        (Unspeakable(), "Unspeakable: <str() of the exception raises KeyError>"),
    ],
)
def test_a_result_that_cannot_be_written_is_named(
    error: BaseException, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    value = Unshown(error)
    told = f"<tests.cli.test_options.Unshown, whose repr raises {text}>"
    show_result(value, "t", as_json=False)
    assert capsys.readouterr().out == f"{told}\n"
    show_result(value, "t", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"id": "t", "repr": told}


def test_a_dict_whose_own_code_raises_is_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    class Moody(dict[str, int]):
        def items(self) -> Any:
            raise RuntimeError

    show_result(Moody(a=1), "t", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"id": "t", "repr": "{'a': 1}"}


@pytest.mark.parametrize("as_json", [False, True])
def test_a_result_of_any_depth_is_shown(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    # Newer releases of Python count the depth of their own code apart, and go deeper.
    for depth in (*range(sys.getrecursionlimit() - 200, sys.getrecursionlimit() + 10), 100_000):
        value: list[Any] = []
        for _ in range(depth):
            value = [value]
        show_result(value, "t", as_json=as_json)
    assert "whose repr raises RecursionError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "text"), [("a b", "a b\n"), (["a"], "['a']\n"), (None, "None\n")]
)
def test_a_result_for_a_person(
    value: object, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show_result(value, "t", as_json=False)
    assert capsys.readouterr().out == text


def test_json_is_one_line_in_its_own_letters(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"größe": "a\nb"})
    assert capsys.readouterr().out == '{"größe": "a\\nb"}\n'


def test_a_table_has_a_head_on_a_terminal_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("a", "long one"), ("bcd", "")]
    show_table(rows, ("id", "name"))
    assert capsys.readouterr().out == "a    long one\nbcd\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show_table(rows, ("id", "name"))
    assert capsys.readouterr().out.startswith("ID   NAME\n")
    show_table([], ("id", "name"))


def test_fields_without_a_value_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    show_fields((("id", "x"), ("none", None), ("tags", ["a", "b"]), ("zero", 0)))
    assert capsys.readouterr().out == "id    x\ntags  a, b\n"
    show_fields(())


def test_times_are_local_and_name_the_day_where_it_is_another() -> None:
    assert at(0) == ""
    now = int(time.time() * 1000)
    assert at(now).endswith(f".{now % 1000:03d}")
    assert at(1).startswith(("1970-01-01 ", "1969-12-31 "))


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("submit", "m:f"), "--key"),
        (("ls",), "--function"),
        (("ls",), "--queue"),
        (("ls",), "--tag"),
        (("ls",), "--key"),
        (("ls",), "--before"),
        (("worker",), "--name"),
        (("worker",), "--queues"),
        (("worker",), "--tags"),
    ],
)
def test_a_name_that_is_empty_is_none_left_out(
    words: tuple[str, ...], option: str, cli: CommandLine
) -> None:
    said = cli(*words, option, "")
    assert (said.code, said.out, cli.where) == (Exit.USAGE, "", [])
    assert f"{option}': it is empty" in said.err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("ls", "--state-dir"),
        ("up", "--state-dir"),
        ("coordinator", "--state-dir"),
        ("worker", "--home"),
        ("bench", "--json"),
    ],
)
def test_a_path_that_is_empty_is_not_the_current_directory(
    command: str, option: str, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = cli(command, option, "")
    assert (said.code, said.out, cli.where) == (Exit.USAGE, "", [])
    assert f"{option}': it is empty" in said.err
    assert list(tmp_path.iterdir()) == []
