"""New registered flows: how many one core takes in, matches and attributes, and whether it says what it lost."""

from __future__ import annotations

import os
import shutil
import signal
import time

import msgspec

from gatewayd.allowlist import Allowlist
from gatewayd.errors import MissingPrerequisite
from gatewayd.feed.record import registration_of
from gatewayd.kernel.conntrack_codec import decode_connections
from gatewayd.kernel.netlink import open_netfilter_socket
from gatewayd.lab.lab import Lab
from gatewayd.watch.attribute import Attribution
from gatewayd.watch.source import DATAGRAMS_PER_WAKEUP, NFNLGRP_CONNTRACK_NEW
from tests.bench.burst import Burst, when_quiet
from tests.bench.daemon import cpu_of, fed_daemon
from tests.bench.material import snapshot
from tests.bench.registrants import registered_sources
from tests.bench.row import Context, Figures, Measure, Row, Subject, check

SOURCES = 5000
FLOWS, RATE = 100_000, 20_000
"""Five seconds, and fewer than a gateway tracks."""
FLOOD = 200_000
CAPTURED = 50_000
BUFFER_BYTES = 64 << 20
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
TRACKED = """
table inet bench {
  chain forward {
    type filter hook forward priority 0
    ct mark set 0xa1000000
  }
}
"""


def gatewayd(context: Context) -> Figures:
    """The whole daemon at a steady rate."""
    return _whole(context, FLOWS, RATE)


def gatewayd_flooded(context: Context) -> Figures:
    """The whole daemon under as many as the sender can make."""
    return _whole(context, FLOOD, 0)


def _whole(context: Context, count: int, rate: int) -> Figures:
    sources = registered_sources(context.material, context.size, SOURCES)
    with fed_daemon(context) as daemon:
        daemon.start_ready()
        daemon.wait_saved()
        burst = Burst(daemon.lab, context.scratch, sources)
        before, cpu_s = daemon.status()["watch"], daemon.cpu_s()
        made = burst.send(count, rate)
        when_quiet(lambda: daemon.status()["watch"]["connections"])
        cpu_s = daemon.cpu_s() - cpu_s
        watch = daemon.status()["watch"]
    taken = watch["connections"] - before["connections"]
    overruns = watch["overruns"] - before["overruns"]
    attributed = watch["flows_tracked"] - before["flows_tracked"] + watch["flows_evicted"] - before["flows_evicted"]
    check(attributed >= taken, f"{attributed} of {taken} flows attributed")
    return {
        "per_core": taken / cpu_s,
        "cpu_s": cpu_s / taken,
        "made": made,
        "lost": made - taken,
        "unreported": max(0, made - taken - overruns),
    }


def gatewayd_offline(context: Context) -> Figures:
    """Decoded, matched and attributed as the daemon does, of bytes that the kernel sent; no socket, no loop."""
    allowlist, attribution = Allowlist(), Attribution()
    for line in snapshot(context.material, context.size).read_bytes().splitlines():
        allowlist.upsert(registration_of(msgspec.json.decode(line)))
    datagrams = _capture(context)
    taken = 0
    began = time.process_time()
    for start in range(0, len(datagrams), DATAGRAMS_PER_WAKEUP):
        now = time.time()
        for event in decode_connections(b"".join(datagrams[start : start + DATAGRAMS_PER_WAKEUP])).events:
            attribution.opened(event, allowlist.matching(event.flow, now), now)
            taken += 1
    cpu_s = time.process_time() - began
    check(attribution.live_count == taken, f"{attribution.live_count} of {taken} flows attributed")
    return {"per_core": taken / cpu_s, "cpu_s": cpu_s / taken}


def pyroute2_offline(context: Context) -> Figures:
    """The same bytes decoded; nothing matched, nothing attributed."""
    from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg

    datagrams = _capture(context)[:5000]
    began = time.process_time()
    for datagram in datagrams:
        message = nfct_msg(datagram)
        message.decode()
    cpu_s = time.process_time() - began
    return {"per_core": len(datagrams) / cpu_s, "cpu_s": cpu_s / len(datagrams)}


def conntrack_tool(context: Context) -> Figures:
    """`conntrack -E` of Debian, as text into a file; nothing matched, nothing attributed."""
    if shutil.which("conntrack", path=os.defpath + ":/usr/sbin:/sbin") is None:
        raise MissingPrerequisite("conntrack is not installed", "install the Debian package conntrack")
    path = context.scratch / "events"
    sources = registered_sources(context.material, context.size, SOURCES)
    with Lab() as lab, path.open("wb") as output:
        lab.gateway.run(["nft", "-f", "-"], input=TRACKED)
        burst = Burst(lab, context.scratch, sources)
        command = ["conntrack", "-E", "-e", "NEW", "-b", str(BUFFER_BYTES)]
        with (context.scratch / "words").open("wb") as words:
            child = lab.gateway.popen(command, stdout=output, stderr=words)
        time.sleep(1.0)
        cpu_s = cpu_of(child.pid)
        made = burst.send(FLOWS, RATE)
        when_quiet(lambda: path.stat().st_size)
        cpu_s = cpu_of(child.pid) - cpu_s
        child.send_signal(signal.SIGINT)
        child.wait()
    taken = path.read_bytes().count(b"\n")
    check(taken > 0, (context.scratch / "words").read_text())
    return {"per_core": taken / cpu_s, "cpu_s": cpu_s / taken, "made": made, "lost": made - taken}


def _capture(context: Context) -> list[bytes]:
    """Events of new flows, one a datagram."""
    sources = registered_sources(context.material, context.size, SOURCES)
    datagrams: list[bytes] = []
    with Lab() as lab:
        lab.gateway.run(["nft", "-f", "-"], input=TRACKED)
        burst = Burst(lab, context.scratch, sources)
        with lab.gateway.entered():
            opened = open_netfilter_socket(BUFFER_BYTES)
        with opened:
            opened.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, NFNLGRP_CONNTRACK_NEW)
            opened.settimeout(0.2)
            burst.send(CAPTURED, RATE)
            try:
                while True:
                    datagrams.append(opened.recv(1 << 16))
            except TimeoutError:
                pass
    check(len(datagrams) == CAPTURED, f"{len(datagrams)} events of {CAPTURED} flows")
    return datagrams


FLOODED = "gatewayd, flooded"

FLOWS_ROW = Row(
    "flows",
    "new registered flows taken in, matched among N and attributed",
    (
        Measure("per_core", "/s", "flows/s of one core", more_is_better=True),
        Measure("cpu_s", "s", "processor time each"),
        Measure("made", "", "flows made"),
        Measure("lost", "", "events lost"),
        Measure("unreported", "", "of them unreported"),
    ),
    (
        Subject("gatewayd", gatewayd, needs="gcc"),
        Subject(FLOODED, gatewayd_flooded, needs="gcc"),
        Subject("gatewayd, decode and attribute alone", gatewayd_offline, needs="gcc"),
        Subject("conntrack -E, to text", conntrack_tool, needs="gcc"),
        Subject("pyroute2, decode alone", pyroute2_offline, needs="gcc"),
    ),
    least_size=31_000,
    max_runs=3,
)
