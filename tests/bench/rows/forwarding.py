"""Packets through the gateway: of flows that are known, of flows that are new, and of new ones over many masks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from gatewayd.lab.lab import Lab
from tests.bench.gateways import admit_intervals, start_daemon, track
from tests.bench.material import client_prefixes, snapshot
from tests.bench.registered import registered_flows, registry_of_masks
from tests.bench.row import Context, Figures, Measure, Row, Subject
from tests.bench.sending import PASSES, Traffic, build_sender, compare

KNOWN_FLOWS = 1_000
KNOWN_PACKETS = 300_000
NEW_FLOWS = 25_000
"""In a pass (sending.py)."""
MASKS = (1, 4, 16, 64)
"""In use. The rules look into each twice, for either end as the client."""

_MAX_TRACKED = Path("/proc/sys/net/netfilter/nf_conntrack_max")

Prepare = Callable[[Context, ExitStack, Lab], None]


def _nothing(context: Context, stack: ExitStack, lab: Lab) -> None:
    """A router."""


def _tracking(context: Context, stack: ExitStack, lab: Lab) -> None:
    track(lab)


def _intervals(context: Context, stack: ExitStack, lab: Lab) -> None:
    admit_intervals(lab, client_prefixes(context.material, context.size), context.scratch)


def _gatewayd(context: Context, stack: ExitStack, lab: Lab) -> None:
    start_daemon(stack, lab, snapshot(context.material, context.size), context.scratch)


def _gatewayd_deaf(context: Context, stack: ExitStack, lab: Lab) -> None:
    start_daemon(stack, lab, snapshot(context.material, context.size), context.scratch, listens=False)


def _known(prepare: Prepare, context: Context) -> Figures:
    flows = registered_flows(context.material, context.size, KNOWN_FLOWS)
    traffic = Traffic(flows.there, flows.back, KNOWN_PACKETS, is_new=False)
    return compare(build_sender(context.material), traffic, partial(prepare, context), track)


def _new(prepare: Prepare, context: Context) -> Figures:
    flows = registered_flows(context.material, context.size, PASSES * NEW_FLOWS)
    traffic = Traffic(flows.there, flows.back, new_flows(), is_new=True)
    return compare(build_sender(context.material), traffic, partial(prepare, context), track)


def _masks(context: Context) -> Figures:
    registry, flows = registry_of_masks(context.material, context.size)
    traffic = Traffic(flows.there, flows.back, new_flows(), is_new=True)

    def prepare(stack: ExitStack, lab: Lab) -> None:
        start_daemon(stack, lab, registry, context.scratch, listens=False)

    return compare(build_sender(context.material), traffic, prepare, track)


def new_flows() -> int:
    """As many as connection tracking has room for, and some to spare."""
    most = int(_MAX_TRACKED.read_text()) if _MAX_TRACKED.exists() else NEW_FLOWS
    return min(NEW_FLOWS, most // 2)


_MEASURES = (
    Measure("pps", "", "packets/s", more_is_better=True),
    Measure("share", "%", "of plain connection tracking", more_is_better=True),
    Measure("extra_ns", "ns", "more a packet than that"),
)

FORWARDING = Row(
    "forwarding",
    f"{KNOWN_FLOWS:,} flows of registered clients, known, sent and forwarded on one core",
    _MEASURES,
    (
        Subject("gatewayd", partial(_known, _gatewayd), needs="gcc"),
        Subject("plain connection tracking", partial(_known, _tracking), needs="gcc"),
        Subject("one interval set", partial(_known, _intervals), needs="gcc"),
        Subject("plain forwarding", partial(_known, _nothing), needs="gcc"),
    ),
    max_runs=3,
    least_size=31_000,
)
NEW = Row(
    "newflows",
    "every packet the first of a registered flow",
    _MEASURES,
    (
        Subject("gatewayd", partial(_new, _gatewayd), needs="gcc"),
        Subject("gatewayd, its rules alone", partial(_new, _gatewayd_deaf), needs="gcc"),
        Subject("plain connection tracking", partial(_new, _tracking), needs="gcc"),
        Subject("one interval set", partial(_new, _intervals), needs="gcc"),
    ),
    max_runs=3,
    least_size=31_000,
)
MASKS_IN_USE = Row(
    "masks",
    "every packet the first of a flow that is in the last of N masks; 31,000 registrations, rules alone",
    _MEASURES,
    (Subject("gatewayd", _masks, needs="gcc"),),
    own_sizes=MASKS,
    max_runs=3,
)
