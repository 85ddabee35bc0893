"""`python -m gatewayd.cli.manual DIR`: the man pages and the completions, for a package to carry.

They are made from the commands and from the declarations of the keys, so they cannot say something else than
`--help` and the example file. The same source writes the same bytes: a page has no date. DIR is laid out as
/usr/share. Signs outside ASCII stand as groff's `\\[uXXXX]`, so that a terminal without UTF-8 gets a likeness.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from gatewayd import __version__
from gatewayd.cli import COMMANDS, main
from gatewayd.cli.completions import bash, completables, fish, root_context, walk, zsh
from gatewayd.settings.load import write_value
from gatewayd.settings.model import SETTINGS
from gatewayd.settings.readers import Key, ListOf, OrNull, Section
from gatewayd.settings.schema import section_in

_FILES: Final = (
    ("/etc/gatewayd/gatewayd.yaml", "The configuration: gatewayd.yaml(5)."),
    ("/etc/gatewayd/local.d", "Overrides and assertions of this ISP."),
    ("/run/gatewayd/api.sock", "The socket that the commands ask."),
    ("/var/lib/gatewayd", "The last good registry, and what a restart needs."),
)
_EXIT_STATUS: Final = (
    ("0", "The command did its work."),
    ("1", "It failed, or its answer is no."),
    ("2", "The arguments or the configuration are wrong."),
    ("3", "The daemon cannot be reached."),
    ("130", "It was interrupted."),
)
_SIGNALS: Final = (
    ("SIGHUP", "The daemon reads its configuration again, as `gatewayd reload` does."),
    ("SIGTERM, SIGINT", "The daemon stops. The table stays in the kernel, and registered traffic passes."),
)
_SMALLEST: Final = (
    "registry:",
    "  sources:",
    '    - {name: lab, url: "file:/etc/gatewayd/lab.ndjson", allow_unsigned: true}',
)
_ABOUT: Final = """\
It keeps the registered VPNs of an ISP in sets of nftables on the gateway, so that registered traffic passes without
a break. It decides by addresses, protocols and ports alone. Without arguments for it, the mode is observe: the
daemon counts, and blocks nothing.

The commands below ask the running daemon over its Unix socket, or look at files. Each has a page of its own."""


def write(directory: Path) -> list[Path]:
    """Writes everything below `directory`; returns the files."""
    commands = completables(main)
    files = {
        "man/man5/gatewayd.yaml.5": settings_page(),
        "man/man8/gatewayd.8": program_page(),
        "bash-completion/completions/gatewayd": bash(commands),
        "zsh/vendor-completions/_gatewayd": zsh(commands),
        "fish/vendor_completions.d/gatewayd.fish": fish(commands),
    }
    context = root_context(main)
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        files[f"man/man8/gatewayd-{name}.8"] = command_page(name, command, context)
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [directory / name for name in sorted(files)]


# -- pages -----------------------------------------------------------------------------------------------------


def program_page() -> str:
    lines = [
        *_beginning("gatewayd", 8, "keep registered VPN traffic passing"),
        ".SH SYNOPSIS",
        r".B gatewayd",
        r"[\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGUMENTS\fR]",
        ".SH DESCRIPTION",
        *_paragraphs(_ABOUT),
        ".SH COMMANDS",
        *_list((f"gatewayd-{name}(8)", line) for name, line in COMMANDS.items()),
        ".SH OPTIONS",
        *_options(main, root_context(main)),
        ".SH SIGNALS",
        *_list(_SIGNALS),
        ".SH EXIT STATUS",
        *_list(_EXIT_STATUS),
        ".SH FILES",
        *_list(_FILES),
        ".SH SEE ALSO",
        r"\fBgatewayd.yaml\fR(5), \fBnft\fR(8), \fBconntrack\fR(8)",
    ]
    return "\n".join(lines) + "\n"


def command_page(name: str, command: click.Command, parent: click.Context) -> str:
    """Commands below it stand on its page."""
    context = click.Context(command, info_name=name, parent=parent)
    lines = _beginning(f"gatewayd-{name}", 8, COMMANDS[name].rstrip("."))
    lines += [".SH SYNOPSIS", *_synopsis(command, context), ".SH DESCRIPTION", *_paragraphs(command.help or "")]
    lines += [".SH OPTIONS", *_options(command, context)]
    _, *below = walk(command, context)
    if below:
        lines.append(".SH COMMANDS")
    for inner, inside in below:
        lines += [f".SS {inside.command_path}", *_synopsis(inner, inside), ".PP"]
        lines += [*_paragraphs(inner.help or ""), *_options(inner, inside)]
    lines += [".SH EXIT STATUS", *_list(_EXIT_STATUS), ".SH SEE ALSO", r"\fBgatewayd\fR(8), \fBgatewayd.yaml\fR(5)"]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    lines = [
        *_beginning("gatewayd.yaml", 5, "configuration of gatewayd"),
        ".SH DESCRIPTION",
        *_paragraphs(
            "A YAML file, /etc/gatewayd/gatewayd.yaml. A key left out has its default. Only registry.sources must "
            "be given. Unknown keys are faults. `gatewayd check` prints every fault of a file.\n\n"
            "Durations are a number and ms, s, m, h, d or w. A reload takes a change of each key, except where "
            "this page says restart. Beside a key stands its default, or an example where the default is empty."
        ),
        ".SH KEYS",
        *(line for name, each in SETTINGS.keys.items() for line in _key(name, each, set())),
        ".SH EXAMPLE",
        *_paragraphs("The smallest file:"),
        *(".RS 4", ".nf", *map(_escaped, _SMALLEST), ".fi", ".RE"),
        ".SH SEE ALSO",
        r"\fBgatewayd\fR(8), \fBgatewayd\-check\fR(8), \fBgatewayd\-reload\fR(8)",
    ]
    return "\n".join(lines) + "\n"


def _key(path: str, key: Key, shown: set[type]) -> Iterator[str]:
    """A section and its keys below it. A section that comes again, as `profile` does, is shown once."""
    section, several = _section_of(key), isinstance(key.reader, ListOf)
    if section is None or section.cls in shown:
        yield from _list([(f"{path}: {write_value(key.example)}", _about(key))])
        return
    shown.add(section.cls)
    yield f".SS {_escaped(path)}"
    yield from _paragraphs(_about(key))
    inner = f"{path}[]" if several else path
    for wanted in (False, True):  # keys of its own first: after a heading they would belong to that
        for name, each in section.keys.items():
            if (_section_of(each) is not None) is wanted:
                yield from _key(f"{inner}.{name}", each, shown)


def _section_of(key: Key) -> Section[Any] | None:
    return section_in(key.reader.item if isinstance(key.reader, ListOf) else key.reader)


def _about(key: Key) -> str:
    """The sentence, the values that may stand there, and whether a reload takes a change."""
    facts = [key.sentence]
    if _section_of(key) is None:
        facts.append(f"  Expected: {key.reader.expected}")
    elif isinstance(key.reader, ListOf):
        facts.append("A list.")
    elif isinstance(key.reader, OrNull):
        facts.append("The section may be left out.")
    facts.append("A change needs a restart." if key.restart else "")
    return "\n".join(fact[0].upper() + fact[1:] + ("" if fact[-1] in ".)" else ".") for fact in facts if fact)


# -- man(7) ----------------------------------------------------------------------------------------------------


def _beginning(name: str, section: int, line: str) -> list[str]:
    title = f'.TH {_escaped(name.upper())} {section} "" "gatewayd {__version__}" "gatewayd"'
    return [title, ".SH NAME", rf"{_escaped(name)} \- {_escaped(line[0].lower() + line[1:])}"]


def _synopsis(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f".B {_escaped(context.command_path)}"
    yield _escaped(" ".join(command.collect_usage_pieces(context)))


def _options(command: click.Command, context: click.Context) -> list[str]:
    """As `--help` has them, in its order."""
    options = (each for each in command.get_params(context) if isinstance(each, click.Option))
    records = (each.get_help_record(context) for each in options)
    return _list(record for record in records if record is not None)


def _list(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [line for tag, text in rows for line in (".TP", f".B {_escaped(tag)}", *_lines(text))]


def _paragraphs(text: str) -> list[str]:
    """Text of a docstring; what stands further in keeps its lines, as in `--help` after a `\\b`."""
    lines: list[str] = []
    for number, paragraph in enumerate(inspect.cleandoc(text).split("\n\n")):
        lines += [".PP"] if number else []
        if paragraph.startswith("\b\n"):
            lines += [".nf", *map(_escaped, paragraph[2:].splitlines()), ".fi"]
        else:
            lines += _lines(paragraph)
    return lines


def _lines(text: str) -> list[str]:
    """Lines that begin further in stand each on its own; a form feed ends the text, as in click."""
    lines: list[str] = []
    for line in text.partition("\f")[0].splitlines():
        lines += [".br"] if line.startswith("  ") and lines else []
        lines.append(_escaped(line.strip()))
    return lines


def _escaped(text: str) -> str:
    """Text as it is meant: a backslash, a dot that begins a line, a hyphen that a reader may copy, and what is not
    ASCII, by its code point (groff_char(7))."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("…", "...")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    text = "".join(sign if sign.isascii() else f"\\[u{ord(sign):04X}]" for sign in text)
    return rf"\&{text}" if text.startswith((".", "'", " ")) else text


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m gatewayd.cli.manual DIR")
    write(Path(sys.argv[1]))
