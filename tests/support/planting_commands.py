"""Each command of `gatewayd`, by its own table, asked with a person in each of its places."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import click

from gatewayd.cli import main
from tests.support.leaks import spellings
from tests.support.planting import EMAIL, HOME, IDENTITY, NUMBER, STRANGERS

DATABASE: Final = "{directory}/authority.sqlite"
SOCKET: Final = ("--socket", "{socket}")
CONFIG: Final = ("--config", "{config}")
KEPT: Final = ("--database", DATABASE)

CASES: Final[Mapping[str, tuple[str, ...]]] = {
    "run": ("--config", "{directory}/missing.yaml"),
    "check": CONFIG,
    "plan": CONFIG,
    "status": SOCKET,
    "top": (*SOCKET, "--json"),
    "explain": (HOME, "203.0.113.9", "udp/51820", *SOCKET),
    "registrations": SOCKET,
    "flows": SOCKET,
    "bindings": SOCKET,
    "sync": SOCKET,
    "held": SOCKET,
    "reload": SOCKET,
    "mode": ("observe", *SOCKET),
    "confirm": SOCKET,
    "revert": SOCKET,
    "trial": SOCKET,
    "rearm": SOCKET,
    "accept": ("1", *SOCKET),
    "changes": SOCKET,
    "doctor": CONFIG,
    "impact": SOCKET,
    "impact ack": ("PK-CODER", *SOCKET),
    "impact near-misses": SOCKET,
    "report": SOCKET,
    "events": SOCKET,
    "registry check": ("{directory}/national.ndjson",),
    "registry export": ("{directory}/exported.ndjson", *KEPT),
    "registry history": KEPT,
    "registry import": ("{directory}/national.ndjson", "--dry-run", *KEPT),
    "registry keygen": ("{directory}/national.ndjson", "--kid", "k1"),
    "registry list": KEPT,
    "registry publish": ("--key", "{directory}/missing.key", "--directory", "{directory}/feed", *KEPT),
    "registry revoke": ("NO-SUCH", *KEPT),
    "registry serve": ("--directory", "{directory}/missing"),
    "registry show": ("NO-SUCH", *KEPT),
    "registry upsert": ("{{}}", *KEPT),
    "registry verify": (*CONFIG, *SOCKET),
    "teardown": ("--config", "{directory}/missing.yaml"),
    "demo": ("--registrations", "x", "--listen", "x"),
}
"""Words with which a command answers, and touches nothing that a test still needs."""

ASKS: Final = frozenset(name for name, words in CASES.items() if set(SOCKET) <= set(words))
"""Those that ask a daemon."""

WORDS: Final = (*spellings(NUMBER), spellings(STRANGERS)[3], IDENTITY, EMAIL)
PATHS: Final = (click.Path, click.File)
"""Kinds of parameters that are names of files. They are the operator's, and are shown as they are."""
PLACES: Final = frozenset({"--config", "--socket", "--url"})
"""Options that are places too: of a file, of a socket, of a server."""


@dataclass(frozen=True)
class Leaf:
    name: str
    command: click.Command

    @property
    def parameters(self) -> list[click.Parameter]:
        """Those that take a word of the operator's."""
        return [
            each
            for each in self.command.params
            if not getattr(each, "is_flag", False)
            and not isinstance(each.type, PATHS)
            and not PLACES & set(each.opts)
        ]


def leaves() -> Iterator[Leaf]:
    """All that can be called, groups that answer by themselves too."""
    context = click.Context(main)

    def walk(command: click.Command, path: tuple[str, ...], context: click.Context) -> Iterator[Leaf]:
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                yield from walk(below, (*path, name), click.Context(below, info_name=name, parent=context))
        if path and (not isinstance(command, click.Group) or command.invoke_without_command):
            yield Leaf(" ".join(path), command)

    yield from walk(main, (), context)


def asked(leaf: Leaf, places: Mapping[str, str]) -> Iterator[tuple[str, Sequence[str]]]:
    """As it is, as JSON, and with a person in each parameter, as an argument too many and as an option. Of the
    words each has its turn."""
    turns = itertools.cycle(WORDS)
    base = [each.format_map(places) for each in CASES[leaf.name]]
    name = leaf.name.split()
    yield leaf.name, [*name, *base]
    yield f"{leaf.name} --json", [*name, *base, "--json"]
    arguments = [each for each in leaf.command.params if isinstance(each, click.Argument)]
    for each in leaf.parameters:
        for word in itertools.islice(turns, 3):
            label = f"{leaf.name} {each.opts[0]}={word}"
            if each in arguments:
                at = arguments.index(each)
                yield label, [*name, *base[:at], word, *base[at + 1 :]] if len(base) > at else [*name, word]
            else:
                yield label, [*name, *base, f"{each.opts[-1]}={word}"]
    for word in itertools.islice(turns, 2):
        yield f"{leaf.name} and {word}", [*name, *base, "x", "y", "z", word]
        yield f"{leaf.name} --{word}", [*name, *base, f"--{word}"]
        yield f"{leaf.name} --json={word}", [*name, *base, f"--json={word}"]
        if not (arguments and isinstance(arguments[0].type, PATHS)):
            yield f"{leaf.name} after a dash", [*name, "--", word]
