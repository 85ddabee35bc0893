"""What the demo prints: acts, findings, promises kept or broken, and the summary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Promise:
    """Something that was to be so, and whether it was."""

    text: str
    kept: bool
    detail: str


class Stage:
    """Prints to a console; keeps the promises for the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._act = 0
        self.promises: list[Promise] = []

    def act(self, title: str) -> None:
        self._act += 1
        self._console.print()
        self._console.print(Text(f"{self._act}. {title}", style="bold"))

    def say(self, text: str) -> None:
        self._console.print(Text("   " + text))

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """A spinner on a terminal; elsewhere the line alone."""
        if self._console.is_terminal:
            with self._console.status(text):
                yield
        else:
            self._console.print(Text(f"   … {text}"))
            yield

    def promise(self, text: str, kept: bool, detail: str = "") -> None:
        """Print and keep one."""
        self.promises.append(Promise(text, kept, detail))
        sign = Text("   ✓ ", style="bold green") if kept else Text("   ✗ ", style="bold red")
        self._console.print(sign + Text(text) + Text(f"  {detail}" if detail else "", style="dim"))

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], bad: frozenset[int] = frozenset()
    ) -> None:
        """`bad`: numbers of the rows that are not as promised."""
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        table.add_column("")
        for number, column in enumerate(columns):
            # The last column gives way where the terminal is narrow.
            width = max(len(column), *(len(row[number]) for row in rows)) if number < len(columns) - 1 else None
            table.add_column(column, no_wrap=True, overflow="ellipsis", min_width=width)
        for number, row in enumerate(rows):
            style = "bold red" if number in bad else ""
            table.add_row("  ✗" if number in bad else "   ", *(Text(cell, style=style) for cell in row))
        self._console.print(table)

    def summary(self) -> bool:
        """Whether every promise was kept."""
        broken = [promise for promise in self.promises if not promise.kept]
        self._console.print()
        if broken:
            self._console.print(
                Text(f"{len(broken)} of {len(self.promises)} promises were broken:", style="bold red")
            )
            for promise in broken:
                self._console.print(Text(f"   ✗ {promise.text}  {promise.detail}"))
        else:
            self._console.print(Text(f"All {len(self.promises)} promises were kept.", style="bold green"))
        return not broken
