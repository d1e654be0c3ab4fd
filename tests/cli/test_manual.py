"""The manual: complete, and what a reader of roff and of plain text expects of it."""

from __future__ import annotations

import re
import shutil
import subprocess

import click
import pytest

from holdfast.cli.app import EXIT_TEXT, holdfast
from holdfast.cli.manual import Page, Section, as_roff, as_text, page_of, whole_page

EXITS = {int(code): text for code, text in EXIT_TEXT.items()}
NAMES = holdfast.list_commands(click.Context(holdfast))
HEADINGS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"]


def options_of(name: str) -> list[str]:
    command = holdfast.get_command(click.Context(holdfast), name)
    assert command is not None
    options = (each for each in command.params if isinstance(each, click.Option))
    shown = (each for each in options if not each.hidden)
    return [word for each in shown for word in (*each.opts, *each.secondary_opts)]


def is_in(option: str, text: str) -> bool:
    return bool(re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text))


def plain(roff: str) -> str:
    """Return what the source says, without what it says to roff."""
    return re.sub(r"\\f[BIR]|\\&", "", roff).replace("\\-", "-").replace("\\(dq", '"')


@pytest.mark.parametrize("name", NAMES)
def test_a_command_has_a_page_with_all_its_options(name: str) -> None:
    page = page_of(holdfast, name, EXITS)
    assert [section.title for section in page.sections][:4] == HEADINGS
    for text in (as_text(page, width=80), plain(as_roff(page))):
        assert f"holdfast-{name} - " in text
        assert f"holdfast {name}" in text
        assert all(is_in(option, text) for option in (*options_of(name), "-h", "--help"))


def test_the_whole_page_has_every_command_option_and_exit_code() -> None:
    page = whole_page(holdfast, EXITS)
    parts = {section.title.split()[1]: section for section in page.sections if section.inner}
    assert list(parts) == NAMES
    for name, section in parts.items():
        terms = " ".join(term for term, _ in section.terms)
        assert all(is_in(option, terms) for option in options_of(name)), name
        assert section.paragraphs
    text = as_text(page, width=80)
    assert all(f"{code} " in text for code in EXITS)
    assert "HOLDFAST_STATE_DIR" in text


def test_a_page_of_nothing() -> None:
    with pytest.raises(KeyError):
        page_of(holdfast, "no-such", EXITS)


STRANGE = Page(
    "a-b",
    (
        Section("NAME", ("a-b - is \\ odd",)),
        Section("TEXT", (".not an order", "'nor this", 'a "quoted" - word')),
        Section("a [X-Y]", terms=((".x --long FILE", "told"), ("7", "short")), inner=True),
    ),
)


def test_roff_takes_no_text_for_an_order() -> None:
    assert as_roff(STRANGE).splitlines()[3:] == [
        '.SH "NAME"',
        "a\\-b \\- is \\e odd",
        '.SH "TEXT"',
        "\\&.not an order",
        ".PP",
        "\\&'nor this",
        ".PP",
        "a \\(dqquoted\\(dq \\- word",
        '.SS "a [X\\-Y]"',
        ".TP",
        "\\fB.x\\fR \\fB\\-\\-long\\fR \\fIFILE\\fR",
        "told",
        ".TP",
        "\\fB7\\fR",
        "short",
    ]


def test_plain_text_is_set_like_a_page() -> None:
    assert as_text(STRANGE, width=44).splitlines()[1:] == [
        "",
        "NAME",
        "       a-b - is \\ odd",
        "",
        "TEXT",
        "       .not an order",
        "",
        "       'nor this",
        "",
        '       a "quoted" - word',
        "",
        "   a [X-Y]",
        "       .x --long FILE",
        "              told",
        "",
        "       7      short",
    ]


def test_plain_text_keeps_within_its_width() -> None:
    lines = as_text(whole_page(holdfast, EXITS), width=72).splitlines()
    long = [line for line in lines if len(line) > 72]
    assert all(len(line.split()) == 1 or line.startswith("   holdfast") for line in long), long


def test_groff_has_nothing_to_say_against_it() -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("there is no groff here")
    done = subprocess.run(
        [groff, "-man", "-ww", "-Tutf8", "-Kutf8"],
        input=as_roff(whole_page(holdfast, EXITS)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "holdfast status [OPTIONS] TASK" in re.sub(r".\x08|\x1b\[\d*m", "", done.stdout)
