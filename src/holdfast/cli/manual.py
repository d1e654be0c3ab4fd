"""The manual, made of what the commands say of themselves: pages, as roff and as plain text.

Owns the shape of a page and its two forms. Nothing is told here that `--help` does not know, but
the exit codes, the environment and the files, which are those of all commands.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import click

from holdfast import __version__

_INDENT = 7
_TERM_INDENT = _INDENT + 7
_WIDTH_MIN = 40

ENVIRONMENT = (
    ("HOLDFAST_URL", "The coordinator, where neither --url nor --state-dir is given."),
    ("HOLDFAST_STATE_DIR", "The state directory, where none of the others is given."),
)
FILES = (
    ("./.holdfast", "The state directory: the database, large payloads, locks, the log."),
    ("./.holdfast/coordinator.log", "What an embedded coordinator has to say."),
)


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with paragraphs, and then terms with what they mean; `inner` is one below."""

    title: str
    paragraphs: tuple[str, ...] = ()
    terms: tuple[tuple[str, str], ...] = ()
    inner: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the manual."""

    name: str
    sections: tuple[Section, ...]


def whole_page(root: click.Group, exits: dict[int, str]) -> Page:
    """Return the page `holdfast(1)`: all commands with all their options. Imports every one."""
    context = _context(root)
    commands = [(name, root.get_command(context, name)) for name in root.list_commands(context)]
    return Page(
        "holdfast",
        (
            _name("holdfast", root),
            Section("SYNOPSIS", ("holdfast COMMAND [OPTIONS]", "holdfast man [COMMAND]")),
            Section("DESCRIPTION", _paragraphs(root)),
            Section("OPTIONS", terms=_options(root, context)),
            Section("COMMANDS"),
            *(_as_section(name, each, context) for name, each in commands if each is not None),
            *_ends(exits),
        ),
    )


def page_of(root: click.Group, name: str, exits: dict[int, str]) -> Page:
    """Return the page of one command, `holdfast-NAME(1)`. Raises KeyError where there is none."""
    parent = _context(root)
    command = root.get_command(parent, name)
    if command is None:
        raise KeyError(name)
    context = click.Context(command, info_name=name, parent=parent)
    return Page(
        f"holdfast-{name}",
        (
            _name(f"holdfast-{name}", command),
            Section("SYNOPSIS", (_usage(command, context),)),
            Section("DESCRIPTION", _paragraphs(command)),
            Section("OPTIONS", terms=_options(command, context)),
            *_ends(exits),
            Section("SEE ALSO", ("holdfast(1)",)),
        ),
    )


def _context(root: click.Group) -> click.Context:
    return click.Context(root, info_name="holdfast", **root.context_settings)


def _name(name: str, command: click.Command) -> Section:
    first = _paragraphs(command)[0]
    return Section("NAME", (f"{name} - {first[:1].lower()}{first[1:].rstrip('.')}",))


def _as_section(name: str, command: click.Command, parent: click.Context) -> Section:
    context = click.Context(command, info_name=name, parent=parent)
    usage = _usage(command, context)
    return Section(usage, _paragraphs(command), _options(command, context), inner=True)


def _usage(command: click.Command, context: click.Context) -> str:
    return " ".join((context.command_path, *command.collect_usage_pieces(context)))


def _paragraphs(command: click.Command) -> tuple[str, ...]:
    text = textwrap.dedent(command.help or "").strip()
    return tuple(" ".join(part.split()) for part in text.split("\n\n"))


def _options(command: click.Command, context: click.Context) -> tuple[tuple[str, str], ...]:
    """Return options with what they mean; arguments say nothing of themselves but in the usage."""
    records = (each.get_help_record(context) for each in command.params)
    told = (record for record in records if record is not None)
    asking = (", ".join(context.help_option_names), "Show what it does and its options.")
    return (*((term, " ".join(text.split())) for term, text in told if text), asking)


def _ends(exits: dict[int, str]) -> tuple[Section, ...]:
    told = tuple((str(code), _sentence(text)) for code, text in exits.items())
    return (
        Section("EXIT STATUS", terms=told),
        Section("ENVIRONMENT", terms=ENVIRONMENT),
        Section("FILES", terms=FILES),
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


# As roff, for `man`.


def as_roff(page: Page) -> str:
    """Return the source of a page, in the macros of man(7)."""
    title = _escaped(page.name.upper())
    lines = [f'.TH {title} 1 "" "Holdfast {__version__}" "Holdfast"', ".nh", ".ad l"]
    for section in page.sections:
        macro = ".SS" if section.inner else ".SH"
        lines.append(f'{macro} "{_escaped(section.title)}"')
        for number, paragraph in enumerate(section.paragraphs):
            lines += [".PP"] * (number > 0)
            lines.append(_line(paragraph))
        for term, text in section.terms:
            lines += [".TP", _line(_marked(term), raw=True), _line(text)]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Return a text in which nothing is taken for an order; a hyphen stays what one can type."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")


def _line(text: str, *, raw: bool = False) -> str:
    shown = text if raw else _escaped(text)
    # At the beginning of a line these two would make it an order.
    return f"\\&{shown}" if shown.startswith((".", "'")) else shown


def _marked(term: str) -> str:
    """Return an option with its name in bold, and what it takes in italics."""
    words = []
    for word in term.split():
        shown = _escaped(word)
        bare = word.strip("[]|,/")
        if bare.startswith("-") or not bare.isupper():
            words.append(f"\\fB{shown}\\fR" if bare else shown)
        else:
            words.append(f"\\fI{shown}\\fR")
    return " ".join(words)


# As plain text.


def as_text(page: Page, *, width: int) -> str:
    """Return a page as `man` would set it, in lines of at most `width` where words allow it."""
    width = max(width, _WIDTH_MIN)
    title = f"{page.name.upper()}(1)"
    lines = [f"{title}{f'Holdfast {__version__}'.rjust(width - len(title))}"]
    for section in page.sections:
        lines += ["", f"{' ' * 3 if section.inner else ''}{section.title}"]
        for number, paragraph in enumerate(section.paragraphs):
            lines += [""] * (number > 0)
            lines += _filled(paragraph, _INDENT, width)
        for number, (term, text) in enumerate(section.terms):
            lines += [""] * (number > 0 or bool(section.paragraphs))
            told = _filled(text, _TERM_INDENT, width)
            if len(term) < _TERM_INDENT - _INDENT and told:
                # It stands beside what it means, as roff sets it.
                told[0] = f"{' ' * _INDENT}{term}".ljust(_TERM_INDENT) + told[0].lstrip()
                lines += told
            else:
                lines += [*_filled(term, _INDENT, width), *told]
    return "\n".join(lines) + "\n"


def _filled(text: str, indent: int, width: int) -> list[str]:
    margin = " " * indent
    return textwrap.wrap(
        text,
        width,
        initial_indent=margin,
        subsequent_indent=margin,
        break_on_hyphens=False,
        break_long_words=False,
    )
