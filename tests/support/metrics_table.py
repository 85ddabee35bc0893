"""The tables of docs/metrics.md, from what the status declares. `python -m tests.support.metrics_table` writes them
anew; headings and text stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

from gatewayd.api.metrics import declared_in
from gatewayd.api.status import StatusView
from gatewayd.model.metric import Metric

DOC = Path(__file__).parents[2] / "docs" / "metrics.md"
SECTIONS = {
    "The daemon": (),
    "Registrations and sources": ("registrations", "sources", "held", "overrides"),
    "The kernel": ("kernel",),
    "Traffic": ("counters",),
    "Watching": ("watch",),
    "Surroundings": ("interfaces", "interfaces_unmatched", "conntrack", "marks"),
    "Subscribers": ("subscribers",),
}
"""The fields of the status in each section, the first those that are in no other."""

Row = tuple[Metric, tuple[str, ...]]
"""With the labels that its place gives it."""


def declared(view: type, labels: tuple[str, ...] = (), only: tuple[str, ...] = ()) -> Iterator[Row]:
    """All that is declared in a view and in its parts; `only`: in these fields of it."""
    for field, metrics, parts, each in declared_in(view):
        if only and field not in only:
            continue
        yield from ((metric, labels) for metric in metrics)
        for part in parts:
            yield from declared(part, labels if each is None else (*labels, each.label))


def rows_of(section: str) -> list[Row]:
    fields = SECTIONS[section]
    if not fields:
        taken = {name for names in SECTIONS.values() for name in names}
        fields = tuple(name for name in get_type_hints(StatusView) if name not in taken)
    return [row for name in fields for row in declared(StatusView, only=(name,))]


def names_of(metric: Metric) -> list[str]:
    """As they stand on the page."""
    endings = {"counter": ("_total",), "summary": ("_sum", "_count"), "histogram": ("_bucket", "_sum", "_count")}
    return [f"gatewayd_{metric.name}{ending}" for ending in endings.get(metric.kind, ("",))]


def tables_of(section: str) -> str:
    lines = ["| metric | labels | meaning | worth a look |", "| --- | --- | --- | --- |"]
    kinds: list[str] = []
    families: dict[str, list[Row]] = {}
    for row in rows_of(section):
        families.setdefault(row[0].name, []).append(row)
    for rows in families.values():
        metric, labels = rows[0]
        words = [each.word for each, _ in rows if each.word]
        meanings = [each for each, _ in rows if each.meaning]
        shown = [*labels, *filter(None, [metric.label]), *(["le"] if metric.kind == "histogram" else [])]
        cell = ", ".join(f"`{each}`" for each in shown)
        if meanings:
            cell += ": see below"
            kinds += [
                "",
                f"Kinds of `{names_of(metric)[0]}`:",
                "",
                f"| {metric.label} | meaning |",
                "| --- | --- |",
            ]
            kinds += [f"| {each.word} | {each.meaning} |" for each in meanings]
        elif words:
            cell += f": {', '.join(words)}"
        names = ", ".join(f"`{each}`" for each in names_of(metric))
        lines.append(f"| {names} | {cell} | {metric.help} | {metric.watch_for} |".replace("  ", " "))
    return "\n".join([*lines, *kinds])


def renewed(text: str) -> str:
    """The document with the tables as they are declared."""
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    written = [head]
    for section in sections:
        title = section.partition("\n")[0]
        if title in SECTIONS:
            table = re.compile(r"^\| metric \|.*?(?=^[^|\nK]|\Z)", re.MULTILINE | re.DOTALL)
            section, found = table.subn(lambda _, title=title: tables_of(title) + "\n\n", section)
            assert found == 1, title
            section = section.rstrip("\n") + "\n\n"
        written.append(section)
    return "## ".join(written).rstrip("\n") + "\n"


if __name__ == "__main__":
    DOC.write_text(renewed(DOC.read_text()))
