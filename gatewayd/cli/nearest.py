"""The nearest right word for a wrong one: commands, choices, services. For options, click has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

import click

_MAX_LENGTH: Final = 64
"""Of a word that is compared; the time that it takes grows with the square."""


def did_you_mean(word: str, words: Iterable[str] | Mapping[str, str]) -> str:
    """` Did you mean 'status'?`, or nothing where no word is like it. A mapping: what to say for each."""
    said = words if isinstance(words, Mapping) else {each: each for each in words}
    found = get_close_matches(word[:_MAX_LENGTH].lower(), said, 1)
    return f" Did you mean {said[found[0]]!r}?" if found else ""


def nearest_command(main: click.Group, context: click.Context, word: str) -> str:
    """Also of those below others: `near-misses` is `impact near-misses`."""
    from gatewayd.cli.completions import walk

    program = context.command_path  # of several words where it is `python -m gatewayd`
    found = (inside.command_path.removeprefix(program).split() for _, inside in walk(main, context))
    paths = sorted(found, key=len, reverse=True)
    return did_you_mean(word, {path[-1]: " ".join(path) for path in paths if path})


class Choice(click.Choice[str]):
    """One of a few words."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(error.message + did_you_mean(value, self.choices), param, ctx)
