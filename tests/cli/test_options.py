"""How answers are shown: JSON that is JSON, tables, fields, times."""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext

import click
import pytest

from holdfast import wiring
from holdfast.cli import options
from holdfast.cli.options import at, show_fields, show_json, show_result, show_table
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
