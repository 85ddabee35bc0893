"""Registered tunnels, idle for longer than connection tracking remembers, whose far end then speaks first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gatewayd.lab.lab import Lab
from gatewayd.model import parse_address
from gatewayd.model.service import TCP
from tests.proof.tunnels.fleet import Fleet
from tests.proof.tunnels.numbered import Way
from tests.proof.tunnels.pptp import Pptp
from tests.proof.tunnels.tunnel import until
from tests.support.lab_daemon import connections

SHORT: Final = {
    "udp_timeout": 1, "udp_timeout_stream": 2, "gre_timeout": 1, "gre_timeout_stream": 2, "generic_timeout": 2,
    "tcp_timeout_established": 3,
}  # fmt: skip
"""Seconds, of net.netfilter.nf_conntrack_*."""
FORGOTTEN_S: Final = 90.0
FAR_END_FIRST: Final[tuple[Way, Way]] = ("in", "out")
ROUNDS: Final = 3
WORDS: Final = 3
"""Datagrams of the far end, before the customer answers with as many."""


@contextmanager
def short_memory(lab: Lab) -> Iterator[None]:
    """Connection tracking of the gateway forgets what is idle within seconds."""
    before = {}
    with lab.gateway.entered():
        for name in SHORT:
            with open(f"/proc/sys/net/netfilter/nf_conntrack_{name}") as file:
                before[name] = file.read().strip()
    try:
        for name, value in SHORT.items():
            lab.gateway.sysctl(f"net.netfilter.nf_conntrack_{name}", str(value))
        yield
    finally:
        for name, text in before.items():
            lab.gateway.sysctl(f"net.netfilter.nf_conntrack_{name}", text)


def woken(fleet: Fleet) -> dict[str, tuple[int, int]]:
    """By tunnel, datagrams and how many of them were lost, after some rounds. The tunnels were begun within
    `short_memory`: an entry keeps the timeout that it got with its last packet. Raises AssertionError where a
    tunnel is not forgotten, or has a new handshake."""
    before, since = fleet.handshakes(), fleet.numbered.marks()
    for _ in range(ROUNDS):
        until(lambda: not _remembered(fleet), "the gateway forgets", FORGOTTEN_S)
        for way in FAR_END_FIRST:
            for each in fleet.tunnels:
                for _ in range(WORDS):
                    fleet.numbered.once(each.name, way)
            for each in fleet.tunnels:
                fleet.numbered.score(each.name, since)
    assert fleet.handshakes() == before
    scores = {each.name: fleet.numbered.score(each.name, since) for each in fleet.tunnels}
    return {name: (score.sent, len(score.lost)) for name, score in scores.items()}


def _remembered(fleet: Fleet) -> list[str]:
    """Tunnels that the gateway still tracks. PPTP's control connection is asked once a second, and never idle."""
    pairs = {frozenset((parse_address(each.outer), parse_address(each.plan.far))): each for each in fleet.tunnels}
    found = []
    for event in connections(fleet.lab):
        flow = event.flow
        each = pairs.get(frozenset((flow.source, flow.destination)))
        if each is not None and not (isinstance(each, Pptp) and flow.protocol == TCP):
            found.append(each.name)
    return found
