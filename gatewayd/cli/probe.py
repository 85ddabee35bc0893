"""`gatewayd explain --probe`: what all tables of this host make of a packet, the last word first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from gatewayd.cli.output import (
    BAD,
    DOUBTFUL,
    GOOD,
    Line,
    count,
    print_headline,
    print_lines,
    print_table,
    print_value,
)
from gatewayd.model.flow import Flow
from gatewayd.passage.views import ChainView, ProbeView

_OUTCOMES = {
    "passes": ("PASSES", GOOD),
    "rejected": ("IS REJECTED", BAD),
    "dropped": ("IS DROPPED", BAD),
    "for the host": ("IS NOT FORWARDED", DOUBTFUL),
    "not known": ("CANNOT BE SAID", DOUBTFUL),
}


def print_probe(flow: Flow, service: str, incoming: str | None, outgoing: str | None, *, as_json: bool) -> None:
    """Ask, and print. Raises CannotProbe, KernelError, MissingPrerequisite."""
    from gatewayd.passage.probe import probe

    view = asyncio.run(probe(flow, service, incoming, outgoing))
    if as_json:
        print_value(view)
        return
    print_headline(*headline(view))
    print_lines(describe(view))
    if view.chains:
        print_table(("hook", "priority", "table", "chain", "verdict", "by"), [_row(each) for each in view.chains])


def headline(view: ProbeView) -> tuple[str, str]:
    word, style = _OUTCOMES[view.outcome]
    reason = view.reason.removeprefix(f"{view.outcome} ")
    joined = f" {reason}" if reason != view.reason else f": {view.reason}"
    text = f"{view.service} from {view.src} to {view.dst} {word}{joined}"
    return (text, style) if view.is_certain else (f"{text}; NOT CERTAIN, see the notes", DOUBTFUL)


def describe(view: ProbeView) -> Iterator[Line]:
    """Everything between the verdict and the chains."""
    yield Line("interfaces", f"{view.incoming} to {view.outgoing or 'this host'}")
    if view.translated is not None:
        yield Line("translated", f"the destination becomes {view.translated}")
    for number, note in enumerate(view.notes):
        yield Line("" if number else "note", note, DOUBTFUL)
    copied = view.copied
    what = f"{count(copied.tables, 'table')}, {count(copied.chains, 'chain')}, {count(copied.rules, 'rule')}"
    yield Line("copied", f"{what} into a scratch namespace; nothing was sent through this host")
    if copied.left_empty:
        found = count(copied.found, "element")
        rest = f"{found} that this packet can match; other elements of these sets stay on the host"
        yield Line("", f"of {count(copied.left_empty, 'set')} of gatewayd, {rest}")
    yield Line("", "asked for a flow that is new to connection tracking")


def _row(each: ChainView) -> tuple[str, ...]:
    rule = "policy" if each.by.handle is None else f"{each.by.chain} rule {each.by.handle}"
    text = "" if each.by.handle is None or not each.by.text else f": {each.by.text}"
    return each.hook, str(each.priority), f"{each.family} {each.table}", each.chain, each.verdict, rule + text
