"""Packets through gateways, two at a time: the one in question, and one that plainly tracks connections.

A machine that others use as well, or a virtual one, forwards up to twice as fast in one second as in another. So no
gateway is measured alone: within one process the sender (sender.c) alternates between two labs every tenth of a
millisecond, and what is compared are neighbours. The medians of thousands of such pairs repeat to within half a
percent where the rates themselves differ by half from run to run; the reference is measured against its like as
well, which shows how far to trust them. What is left is a matter of where the entries of connection tracking lie in
memory: one percent for or against the gateway that has its own first. So there are several passes, each with new
entries, made in turns.

Sending, forwarding and dropping happen on one core and in the sender's system call. Spread over two cores by RPS,
so that the path through the gateway alone would be the bottleneck, the figures of equal gateways differ by several
times as soon as somebody else uses a core: the two cores wait for each other. The price is that the sender's own
cost, about half of a forwarded packet's, stands in the rate and dilutes the share; what is more per packet than the
reference is therefore given in nanoseconds too, and there the sender's cost is not in it.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from gatewayd.lab.lab import INSIDE, OUTSIDE, End, Lab
from tests.bench.row import Figures, check
from tests.support.events import flush_connections

SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
"""include/linux/socket.h, include/uapi/linux/if_packet.h."""
SOURCE = Path(__file__).with_name("sender.c")
FLOW_BYTES = 12
BURST_KNOWN, BURST_NEW = 100, 20
"""Packets of a turn: few enough that the scheduler comes between in few turns, which a median does not see."""
PASSES = 6
SOURCE_PORTS = 40_000

# What leaves the gateway has been forwarded, and is worth no more work; the counters of the interface have seen it.
_SINK = """table netdev bench {
    chain sink {
        type filter hook ingress device "far0" priority 0; policy drop;
    }
}
"""


def build_sender(material: Path) -> Path:
    """The sender, compiled once."""
    program = material / "sender"
    if not program.exists():
        fresh = program.with_suffix(".new")
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", str(fresh), str(SOURCE)], check=True)
        fresh.replace(program)
    return program


@dataclass(frozen=True, slots=True)
class Traffic:
    """`flows`: the sender's file of them; `back`: their replies'. `packets`: of each gateway in a pass.

    `is_new`: every packet is of another flow; else each flow has been answered before.
    """

    flows: Path
    back: Path
    packets: int
    is_new: bool

    @property
    def burst(self) -> int:
        return BURST_NEW if self.is_new else BURST_KNOWN


class Road:
    """A lab with its sockets to send by, from the customers and from the internet."""

    def __init__(self, stack: ExitStack, lab: Lab) -> None:
        self.lab = lab
        self.near = stack.enter_context(_packet_socket(lab.inside))
        self.far = stack.enter_context(_packet_socket(lab.outside))
        lab.internet.run(["nft", "-f", "-"], input=_SINK)

    def arrived(self) -> int:
        """Packets that the far end has received from the gateway."""
        return _received(self.lab.outside)

    def answered(self) -> int:
        """Packets that the customers have received."""
        return _received(self.lab.inside)


def compare(
    program: Path, traffic: Traffic, prepare: Callable[[ExitStack, Lab], None], refer: Callable[[Lab], None]
) -> Figures:
    """The figures of a gateway that `prepare` makes of a plain router, beside one that `refer` does.

    Raises RuntimeError if a packet did not arrive.
    """
    with ExitStack() as stack:
        roads = [Road(stack, stack.enter_context(Lab())) for _ in range(2)]
        prepare(stack, roads[0].lab)
        refer(roads[1].lab)
        pairs: list[list[int]] = []
        for number in range(PASSES):
            for road in roads if number % 2 else reversed(roads):
                flush_connections(road.lab.gateway)
                if not traffic.is_new:
                    _establish(program, traffic, road)
            pairs += _measure(program, traffic, roads, number)
    own_ns = median(own for own, _ in pairs) / traffic.burst
    return {
        "pps": 1e9 / own_ns,
        "share": 100.0 * median(reference / own for own, reference in pairs),
        "extra_ns": median(own - reference for own, reference in pairs) / traffic.burst,
    }


@dataclass(frozen=True, slots=True)
class _Turns:
    """What the sender takes, see sender.c."""

    ports: int
    first: int
    burst: int
    rounds: int


def _measure(program: Path, traffic: Traffic, roads: Sequence[Road], number: int) -> list[list[int]]:
    """One pass; the new flows of one are not those of another."""
    rounds = traffic.packets // traffic.burst
    count = rounds * traffic.burst
    turns = _Turns(SOURCE_PORTS if traffic.is_new else 1, number * count, traffic.burst, rounds)
    before = [road.arrived() for road in roads]
    pairs = _send(program, traffic.flows, [road.near for road in roads], turns, INSIDE.gateway_hardware)
    for road, had in zip(roads, before, strict=True):
        came = road.arrived() - had
        check(came >= count, f"{came} of {count} packets arrived")
    return pairs


def _establish(program: Path, traffic: Traffic, road: Road) -> None:
    """A packet of each flow, and its answer."""
    count = traffic.flows.stat().st_size // FLOW_BYTES
    turns = _Turns(ports=1, first=0, burst=count, rounds=1)
    _send(program, traffic.flows, [road.near], turns, INSIDE.gateway_hardware)
    before = road.answered()
    _send(program, traffic.back, [road.far], turns, OUTSIDE.gateway_hardware)
    came = road.answered() - before
    check(came >= count, f"{came} of {count} answers arrived")


def _send(program: Path, flows: Path, sockets: Sequence[socket.socket], turns: _Turns, hop: str) -> list[list[int]]:
    """Nanoseconds of each burst by each socket, round by round. `hop`: the hardware address to send to."""
    descriptors = [each.fileno() for each in sockets]
    core = max(os.sched_getaffinity(0))
    words = [turns.ports, turns.first, turns.burst, turns.rounds, hop, *descriptors]
    done = subprocess.run(
        ["taskset", "--cpu-list", str(core), str(program), str(flows), *map(str, words)],
        pass_fds=descriptors,
        capture_output=True,
        text=True,
        check=False,
    )
    check(done.returncode == 0, done.stderr.strip())
    return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]


def _packet_socket(end: End) -> socket.socket:
    """Bound to the end's wire; protocol 0 receives nothing (packet(7))."""
    with end.namespace.entered():
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        opened.bind((end.interface, 0))
    opened.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    return opened


def _received(end: End) -> int:
    shown = end.namespace.run(["ip", "-json", "-stats", "link", "show", "dev", end.interface]).stdout
    count: int = msgspec.json.decode(shown)[0]["stats64"]["rx"]["packets"]
    return count
