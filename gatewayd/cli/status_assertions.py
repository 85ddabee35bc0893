"""What `gatewayd status` says of assertions, before all else: which fail, why, and for whom they are there."""

from __future__ import annotations

from collections.abc import Iterator

from gatewayd.assertions.states import AssertionsView
from gatewayd.cli.output import BAD, DOUBTFUL, Line, ago, count

MAX_NAMED = 3
"""Failing assertions that the first line names."""
MAX_LISTED = 5
"""Failing assertions that stand on the screen, a line each. `--json` has more."""


def failing_in_a_word(view: AssertionsView) -> str:
    """For the first line; nothing where all hold."""
    if not view.failing:
        return ""
    names = ", ".join(each.name for each in view.examples[:MAX_NAMED])
    more = f" +{view.failing - MAX_NAMED}" if view.failing > MAX_NAMED else ""
    return f"FAILING ASSERTION: {names}{more}; "


def describe_assertions(now: str, view: AssertionsView) -> Iterator[Line]:
    for each in view.examples[:MAX_LISTED]:
        since = f"for {ago(now, each.since).removesuffix(' ago')}" if each.since else ""
        yield Line("ASSERTION FAILS", f"{each.kind} {each.name} {since}: {each.reason}", BAD)
        yield Line("", f"  it is there for: {each.comment} ({each.place})")
    if view.failing > MAX_LISTED:
        yield Line("", f"and {view.failing - MAX_LISTED:,} more", BAD)
    if view.total:
        text = f"{count(view.total - view.failing, 'assertion')} of {view.total:,} hold"
        yield Line("assertions", f"{text}, looked up in the kernel {ago(now, view.looked_at)}")
    if view.ignored:
        yield Line(
            "", f"{count(view.ignored, 'assertion')} not looked at: past the bound, or named twice", DOUBTFUL
        )
