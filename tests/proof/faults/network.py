"""What the network does: a link that goes, more flows than the kernel tracks, more events than the daemon reads."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from gatewayd.demo.cast import ELSEWHERE, FAR
from gatewayd.kernel.tables import KernelTables
from gatewayd.lab.lab import OUTSIDE, End, wait_until_up
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of, probe
from tests.proof.faults.flood import HOUSE, STRANGERS, flooding
from tests.proof.faults.kernel import refusing
from tests.proof.harness import Fault, World
from tests.support.lab_daemon import TABLE, holds

DOWN_S: Final = 1.0
ANSWERED_PPS: Final = 60.0
_CONNTRACK: Final = Path("/proc/sys/net/netfilter")
_SPARE: Final = 1000
"""Entries past the maximum that are tried."""


# -- a link --------------------------------------------------------------------------------------------------------


@contextmanager
def named_interfaces(world: World) -> Iterator[None]:
    world.sections["policy"] = {"interfaces": {"inside": ["inside0"], "outside": [OUTSIDE.gateway_interface]}}
    yield


@contextmanager
def link_down(world: World) -> Iterator[None]:
    """And up again; the host's own programs put addresses and routes back."""
    gateway, name = world.lab.gateway, OUTSIDE.gateway_interface
    gateway.run(["ip", "link", "set", name, "down"])
    down_s = time.monotonic()
    try:
        done = world.daemon.cli("doctor", "--config", str(world.daemon.config_path))
        world.learns("doctor: interface-down", is_told="interface-down" in done.stdout)
        time.sleep(max(0.0, DOWN_S - (time.monotonic() - down_s)))
    finally:
        # Other rows have the same lab.
        _put_up(world)
    world.mark()
    yield


def _put_up(world: World) -> None:
    gateway, name = world.lab.gateway, OUTSIDE.gateway_interface
    gateway.run(["ip", "link", "set", name, "up"])
    for family, address in OUTSIDE.end_addresses.items():
        hop = ["ip", "neigh", "replace", address, "lladdr", OUTSIDE.end_hardware, "dev", name, "nud", "permanent"]
        if family == 6:
            gateway.run(["ip", "addr", "add", f"{OUTSIDE.gateway_addresses[6]}/64", "dev", name, "nodad"])
        gateway.run(hop)
        gateway.run(["ip", f"-{family}", "route", "replace", "default", "via", address])
    wait_until_up([End(gateway, name), world.lab.outside])


# -- connection tracking -------------------------------------------------------------------------------------------


def _conntrack(world: World, name: str) -> int:
    with world.lab.gateway.entered():
        return int((_CONNTRACK / f"nf_conntrack_{name}").read_text())


@contextmanager
def full_conntrack(world: World) -> Iterator[None]:
    """Of flows that were answered: the kernel gives up none of these for a new one."""
    known = [
        flow_of("39.32.0.7", FAR, "udp/4500", 700),
        flow_of("39.32.64.13", ELSEWHERE, "udp/51820", 700),
        flow_of("39.36.0.1", ELSEWHERE, "udp/500", 700),
    ]
    with Stream(world.lab, known, rate_pps=ANSWERED_PPS, answered=True) as tunnels:
        assert holds(lambda: _count_assured(world) >= len(known))
        _fill(world)
        # The traffic of the row may have no new flow at all: some come with the fault, as on any gateway.
        numbers = count()
        assert holds(lambda: _is_any_dropped(world, next(numbers)))
        assert holds(lambda: tunnels.wait_for_arrivals(100))
        yield
        world.hears("conntrack.filling")
        world.hears("conntrack.dropping")
        world.sees("conntrack.dropped", lambda status: status["conntrack"]["dropped"] > 0)
        assert tunnels.wait_for_arrivals(100)
        world.lab.gateway.run(["conntrack", "-D", "-p", "udp", "--dport", "33000"], check=False)
        world.mark()
    report = tunnels.report()
    assert (report.lost, report.answered) == ((), report.sent), "a tunnel that was known lost a packet"


def _is_any_dropped(world: World, number: int) -> bool:
    """Of new flows, registered ones. A few get the entry of a flow without an answer, which the kernel gives up."""
    ports = (40_000 + (32 * number + each) % 25_000 for each in range(32))
    flows = [flow_of("39.32.64.14", ELSEWHERE, "udp/51820", port) for port in ports]
    return "lost" in probe(world.lab, flows, deadline_s=1.0)


def _count_assured(world: World) -> int:
    listed = world.lab.gateway.run(["conntrack", "-L", "-p", "udp", "--orig-port-src", "700"]).stdout
    return listed.count("[ASSURED]")


def _fill(world: World) -> None:
    """With entries of a program, as fast as it can put them in."""
    path = world.directory / "entries"
    with path.open("w") as file:
        for number in range(_conntrack(world, "max") + _SPARE):
            client, port = f"39.60.{number >> 8 & 255}.{number & 255}", 1024 + (number >> 16)
            file.write(
                f"-A -p udp -t 600 -u SEEN_REPLY,ASSURED -s {client} -d {ELSEWHERE} --sport {port} --dport 33000"
                f" -r {ELSEWHERE} -q {client} --reply-port-src 33000 --reply-port-dst {port}\n"
            )
    done = world.lab.gateway.run(["conntrack", "--load-file", str(path)], check=False)
    assert "not enough memory" in done.stderr.lower(), done.stderr
    assert _conntrack(world, "count") >= _conntrack(world, "max")


# -- events --------------------------------------------------------------------------------------------------------


@contextmanager
def overrun(world: World) -> Iterator[None]:
    """The daemon does not read for a moment: all of its buffers run over, those of registered flows, of logged
    packets, and of other programs' commits. One of these commits is in our table."""
    gateway, before = world.lab.gateway, world.daemon.status()["watch"]["overruns"]
    elements = ", ".join(f"10.{number >> 8}.{number & 255}.1" for number in range(20_000))
    with flooding(world.lab, world.directory) as flood:
        os.kill(world.daemon.pid, signal.SIGSTOP)
        try:
            flood.begin(HOUSE, 40_000, 0)
            flood.begin(STRANGERS, 20_000, 20_000)
            gateway.nft(
                f"table inet other {{\n set many {{\n  type ipv4_addr\n  elements = {{ {elements} }}\n }}\n}}\n"
            )
            gateway.nft("delete table inet other\nadd element inet gatewayd c4_32 { 192.0.2.77 }\n")
            flood.finish()
        finally:
            os.kill(world.daemon.pid, signal.SIGCONT)
        world.mark()
        yield
    world.hears("watch.overrun")
    world.hears("reconcile.notifications_lost")
    world.sees("watch.overruns", lambda status: status["watch"]["overruns"] > before)
    world.sees("watch.resyncs", lambda status: status["watch"]["resyncs"] > 0)
    world.sees("kernel.notifications_lost", lambda status: status["kernel"]["notifications_lost"] > 0)


FLOOD_S: Final = 5
FLOOD_PER_S: Final = 110_000
"""So that 100,000 are reached."""
REGISTERED_PER_S: Final = 20_000


@contextmanager
def flood_of_flows(world: World) -> Iterator[None]:
    """Of strangers, which are refused and not tracked; a fifth are registered, and tracked."""
    with flooding(world.lab, world.directory) as flood:
        before = _count_new(world)
        began_s = time.monotonic()
        flood.begin(STRANGERS, FLOOD_S * (FLOOD_PER_S - REGISTERED_PER_S), FLOOD_PER_S - REGISTERED_PER_S)
        flood.begin(HOUSE, FLOOD_S * REGISTERED_PER_S, REGISTERED_PER_S)
        sent = sum(each.flows for each in flood.finish())
        took_s = time.monotonic() - began_s
        world.mark()
        assert _count_new(world) - before >= sent, "the gateway saw less than was sent"
        world.learns(f"status: {sent / took_s:,.0f} new flows/s", is_told=True)
        yield


def _count_new(world: World) -> int:
    """Flows that the rules counted. Not by nft: it lists every element before it lists a counter."""
    with world.lab.gateway.entered():
        tables = KernelTables.open(TABLE)
    try:
        counters = asyncio.run(tables.read_counters())
    finally:
        tables.close()
    return counters["registered_flows"].packets + counters["unregistered_flows"].packets


FAULTS: Final = (
    Fault(
        "interface down and up",
        "The link to the internet goes for a second, and its routes with it.",
        link_down,
        prepare=named_interfaces,
        bounded="There is no way for a packet while the link is down. Nothing is lost before and after.",
        max_share=0.6,
    ),
    Fault(
        "conntrack table full",
        "Answered flows take every entry. The kernel drops new flows before any rule sees them.",
        full_conntrack,
        lasts=True,
        bounded="The kernel has no entry for a new flow and drops its packet itself (nf_conntrack: table full). "
        "Flows that were answered keep theirs and lose nothing: a stream of these is held to that. "
        "`nf_conntrack_max` bounds it.",
        max_share=0.8,
    ),
    Fault(
        "netlink buffer overrun",
        "Buffers of 100 KiB and a daemon that does not read, while 60,000 flows begin and other programs commit.",
        overrun,
        prepare=refusing("receive-buffers"),
    ),
    Fault(
        "100,000 new flows/s",
        "Five seconds of them, a fifth registered.",
        flood_of_flows,
    ),
)
