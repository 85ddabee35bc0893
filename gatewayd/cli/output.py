"""How commands print: on a terminal with rich, elsewhere plain and aligned. The words are the same in both.

Whatever comes from outside goes through `printable`: an error of a web server must not move the cursor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import TYPE_CHECKING, Final

import click
import msgspec

from gatewayd.api.text import BAD as BAD
from gatewayd.api.text import DOUBTFUL as DOUBTFUL
from gatewayd.api.text import GOOD as GOOD
from gatewayd.api.text import IN_KERNEL as IN_KERNEL
from gatewayd.api.text import Line as Line
from gatewayd.api.text import ago as ago
from gatewayd.api.text import by_number as by_number
from gatewayd.api.text import count as count
from gatewayd.api.text import numbers_of as numbers_of
from gatewayd.api.text import place as place
from gatewayd.api.text import size as size
from gatewayd.api.text import some as some
from gatewayd.api.text import span as span
from gatewayd.errors import MissingPrerequisite

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_LABEL_WIDTH: Final = 15
_GAP: Final = "  "


def print_json(body: bytes) -> None:
    """What the API said, indented."""
    click.echo(msgspec.json.format(body, indent=2))


def print_value(value: object) -> None:
    """As JSON, indented."""
    print_json(msgspec.json.encode(value))


def print_words(*values: tuple[str, object]) -> None:
    """A line `word value` each, for scripts."""
    for word, value in values:
        click.echo(printable(f"{word} {value}"))


def print_headline(text: str, style: str) -> None:
    """The first line: what there is to know if nothing else is read."""
    _print(headline_text(text, style))


def print_lines(lines: Iterable[Line]) -> None:
    """Labels in one column, texts in the next."""
    for line in lines:
        _print(line_text(line))


def headline_text(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(printable(text), style=style)


def line_text(line: Line) -> Text:
    """A label as wide as the column has its blank too."""
    from rich.text import Text

    label = f"{line.label:<{_LABEL_WIDTH - 1}} "
    return Text.assemble((label, "bold" if line.label else ""), (printable(line.text), line.style))


def drawable_console(option: str, otherwise: str) -> Console:
    """For what draws a screen. Raises MissingPrerequisite where there is no terminal that can."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        raise MissingPrerequisite(f"{option} draws on a terminal, and the output is none", otherwise)
    if console.is_dumb_terminal:
        raise MissingPrerequisite(f"{option} draws on a terminal, and TERM is dumb", otherwise)
    return console


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """On a terminal, cells that do not fit go on in the next line, between two words: no id or prefix is ever cut.
    Where that is not enough, lines are longer than the terminal. Elsewhere each row is one line."""
    cells = [[printable(cell) for cell in row] for row in rows]
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        for row in [list(columns), *cells]:
            click.echo(_aligned(row, widths))
        return
    widths = _widths([list(columns), *cells], console.width)
    for number, row in enumerate([list(columns), *cells]):
        wrapped = [_wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
        for line in zip_longest(*wrapped, fillvalue=""):
            text = Text(_aligned(line, widths), style="bold" if number == 0 else "")
            console.print(text, soft_wrap=True, highlight=False)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Of the columns, together `width` at most if their longest words let them; the widest gives way first."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    least = [max(len(word) for cell in column for word in (cell.split() or [""])) for column in columns]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        wide = [number for number in range(len(widths)) if widths[number] > least[number]]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _wrap(cell: str, width: int) -> list[str]:
    return wrap(cell, max(width, 1), break_long_words=False, break_on_hyphens=False) or [""]


def _print(text: Text) -> None:
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        console.print(text, soft_wrap=True, highlight=False)
    else:
        click.echo(text.plain.rstrip())


def printable(text: str) -> str:
    """`text` with a sign in the place of everything that is not one."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else "�" for sign in text)


def print_unshown(shown: int, total: int) -> None:
    """Below a page of a list that has more."""
    if shown < total:
        click.echo(f"{shown:,} of {total:,} shown; --limit or --offset for others")


def print_event(at: str, name: str, text: str, style: str) -> None:
    """A line of something that happened; `style` is of the name."""
    from rich.text import Text

    _print(Text.assemble((f"{at:<24} ", ""), (f"{printable(name):<26} ", style), (printable(text), "")))
