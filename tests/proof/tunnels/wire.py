"""What is on the wires at both sides of the gateway, of each tunnel: refusals, packets, their DSCP and rate."""

from __future__ import annotations

import select
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from gatewayd.lab.lab import Lab
from gatewayd.lab.packets import parse_flow, refused_packet
from gatewayd.lab.tap import Tap
from gatewayd.model import parse_address
from gatewayd.model.service import TCP
from tests.proof.tunnels.tunnel import Tunnel
from tests.support.lab_daemon import dscp_of

_LOOK_EVERY_S: Final = 0.1
_TCP_RESET: Final = 0x04
ICMP_REFUSAL, RESET = "ICMP", "TCP reset"


@dataclass(slots=True)
class Seen:
    """Of one tunnel. `refusals`: at the customer, by kind. `arrived`: times and lengths of the customer's packets
    beyond the gateway, IP header included. `dscp`: of those, and of the packets to the customer, by direction."""

    refusals: Counter[str] = field(default_factory=Counter)
    arrived: list[tuple[float, int]] = field(default_factory=list)
    dscp: Counter[tuple[str, int | None]] = field(default_factory=Counter)

    def bytes_s(self, since_s: float, until_s: float) -> float:
        """Over the time between two moments of the monotonic clock."""
        found = sum(length for when, length in self.arrived if since_s <= when < until_s)
        return found / (until_s - since_s)


class Wire:
    """Watches the packets of customers' addresses that are in no registration; use `with`."""

    def __init__(self, lab: Lab, tunnels: Sequence[Tunnel]) -> None:
        self._lab = lab
        self.seen = {each.name: Seen() for each in tunnels}
        self._by_pair = {
            (parse_address(each.plan.stray), parse_address(each.plan.far)): self.seen[each.name] for each in tunnels
        }
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)

    def _run(self) -> None:
        try:
            with Tap(self._lab.inside) as near, Tap(self._lab.outside) as far:
                self._ready.set()
                while not self._stopping.is_set():
                    if select.select([near, far], [], [], _LOOK_EVERY_S)[0]:
                        self._at_customers(near.packets())
                        self._at_far_end(far.packets(), time.monotonic())
        except BaseException as failure:
            self._failure = failure
            self._ready.set()

    def _at_customers(self, packets: Iterable[bytes]) -> None:
        for packet in packets:
            quoted = refused_packet(packet)
            flow = parse_flow(packet if quoted is None else quoted)
            if flow is None:
                continue
            if quoted is not None:
                if found := self._by_pair.get((flow.source, flow.destination)):
                    found.refusals[ICMP_REFUSAL] += 1
            elif found := self._by_pair.get((flow.destination, flow.source)):
                found.dscp["in", dscp_of(packet)] += 1
                if flow.protocol == TCP and _flags_of(packet) & _TCP_RESET:
                    found.refusals[RESET] += 1

    def _at_far_end(self, packets: Iterable[bytes], now: float) -> None:
        for packet in packets:
            flow = parse_flow(packet)
            if flow is not None and (found := self._by_pair.get((flow.source, flow.destination))):
                found.arrived.append((now, _length_of(packet)))
                found.dscp["out", dscp_of(packet)] += 1

    def __enter__(self) -> Self:
        self._ready = threading.Event()
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        if self._failure is not None and kind is None:
            raise self._failure


def _flags_of(packet: bytes) -> int:
    return packet[((packet[0] & 0xF) * 4 if packet[0] >> 4 == 4 else 40) + 13]


def _length_of(packet: bytes) -> int:
    """By its header: a tap captures the beginning alone."""
    return int.from_bytes(packet[2:4], "big") if packet[0] >> 4 == 4 else 40 + int.from_bytes(packet[4:6], "big")
