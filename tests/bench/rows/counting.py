"""New flows of clients that nobody registered: what it costs the rules to count them."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Final

from gatewayd.lab.lab import Lab
from tests.bench.gateways import start_daemon
from tests.bench.material import snapshot
from tests.bench.registered import unregistered_flows
from tests.bench.row import Context, Figures, Measure, Row, Subject
from tests.bench.rows.forwarding import new_flows
from tests.bench.sending import PASSES, Traffic, build_sender, compare

ALONE: Final = "gatewayd, counting"
SOURCES: Final = 8_000
"""Clients that the flows are from, of 200 prefixes; each has many source ports."""


def _observing(context: Context, stack: ExitStack, lab: Lab, name: str, watch: dict[str, object]) -> None:
    registry = snapshot(context.material, context.size)
    start_daemon(stack, lab, registry, context.scratch, name=name, mode="observe", watch=watch, listens=False)


def _counting(watch: dict[str, object], context: Context) -> Figures:
    """Beside the same rules without the counting."""
    kept: list[ExitStack] = []

    def prepare(stack: ExitStack, lab: Lab) -> None:
        kept.append(stack)
        _observing(context, stack, lab, "counting", watch)

    def refer(lab: Lab) -> None:
        _observing(context, kept[0], lab, "plain", {"unregistered": "off"})

    return compare(build_sender(context.material), _traffic(context), prepare, refer)


def _traffic(context: Context) -> Traffic:
    flows = unregistered_flows(context.material, SOURCES)
    return Traffic(flows.there, flows.back, new_flows(), is_new=True)


COUNTING = Row(
    "counting",
    f"every packet the first of an unregistered flow; {PASSES} passes, rules alone",
    (
        Measure("pps", "", "packets/s", more_is_better=True),
        Measure("share", "%", "of the same without it", more_is_better=True),
        Measure("extra_ns", "ns", "more a flow than that"),
    ),
    (
        Subject(ALONE, partial(_counting, {"unregistered": "aggregate"}), needs="gcc"),
        Subject("gatewayd, counting nothing", partial(_counting, {"unregistered": "off"}), needs="gcc"),
        Subject(
            "gatewayd, counting and shadowing limit",
            partial(_counting, {"unregistered": "aggregate", "shadow_limit": True}),
            needs="gcc",
        ),
    ),
    max_runs=3,
    least_size=31_000,
)
