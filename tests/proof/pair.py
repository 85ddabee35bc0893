"""A pair of gateways under registered traffic: a case as a value, and the row that comes of it.

    def act(world):
        world.fail_over()          keepalived of the master is stopped; traffic has come through the other since
        world.fail_back()          the other way round

Each case runs once without gatewayd, which shows VRRP's own gap, and once with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

from gatewayd.demo.cast import (
    BANK,
    ELSEWHERE,
    EMBASSY,
    FAR,
    FAR_IPV6,
    SOFTWARE_HOUSE,
    STRANGER,
    STRANGER_IPV6,
    registration,
)
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.lab.world import DEMO_PEPPER, mobile_number, subscriber_of
from gatewayd.model import reverse_flow
from gatewayd.model.policy import MarkLayout
from gatewayd.model.service import UDP
from tests.support.lab_daemon import holds, mark_of
from tests.support.nas import Nas, write_secrets
from tests.support.pair import Member, Pair
from tests.support.pair_connections import ConnectionReport, PairConnections, Service
from tests.support.pair_traffic import Lane, PairReport, PairTraffic

LAYOUT: Final = MarkLayout(0xFF000000)
FREELANCER: Final = registration(
    "PK-FREELANCER", "freelancer", [], subscriber=subscriber_of(1), services=["wireguard"]
)
NUMBER, HOME = f"+{mobile_number(1)}", "39.41.0.7"
LATECOMER: Final = registration(
    "PK-LATECOMER", "software_house", ["39.35.200.16/29", "2400:adc1:200::/56"], services=["wireguard"]
)
LATE, LATE_IPV6 = "39.35.200.17", "2400:adc1:200::7"
EARLIER: Final = (BANK, SOFTWARE_HOUSE, EMBASSY, FREELANCER)
RECORDS: Final = (*EARLIER, LATECOMER)
HOUSE, HOUSE_IPV6, BRANCH, BRANCH_IPV6 = "39.32.64.10", "2400:adc0:100::9", "39.32.0.3", "2400:adc0:12::3"
ROUNDS: Final = 8
"""Packets of each registered flow, and as many answers, before and after what a case does."""
TRACKED: Final = """table inet site {
  chain forward {
    type filter hook forward priority 0
    ct state established accept
  }
}
"""
"""Without a rule that asks conntrack a gateway tracks nothing."""
_ports = itertools.count(33_000)


class _Kind(TypedDict, total=False):
    is_new: bool
    is_registered: bool


def _customer(name: str, source: str, service: str, port: int | None = None, **more: Unpack[_Kind]) -> Lane:
    return Lane(name, flow_of(source, FAR_IPV6 if ":" in source else FAR, service, port), **more)


def _far_end(name: str, target: str, service: str, port: int | None = None, **more: Unpack[_Kind]) -> Lane:
    return Lane(name, flow_of(FAR_IPV6 if ":" in target else FAR, target, service, port), "internet", **more)


LATE_LANES: Final = (
    _customer("latecomer, IPv4", LATE, "udp/51820", 19_006),
    _customer("latecomer, IPv6", LATE_IPV6, "udp/51820", 19_006),
)
SUBSCRIBER: Final = _customer("subscriber", HOME, "udp/51820", 19_004)
NEW_OF_SUBSCRIBER: Final = _customer("new of the subscriber", HOME, "udp/51820", is_new=True)
STRANGERS: Final = _customer("unregistered, IPv4", STRANGER, "udp/51820", 19_005, is_registered=False)
NEAR_MISS: Final = Lane("to another peer", flow_of(BRANCH, ELSEWHERE, "udp/500", 500), is_registered=False)
EARLIER_LANES: Final = (
    _customer("WireGuard, IPv4", HOUSE, "udp/51820", 19_001),
    _customer("WireGuard, IPv6", HOUSE_IPV6, "udp/51820", 19_001),
    _customer("IKE, IPv4", BRANCH, "udp/500", 500),
    _customer("NAT-T, IPv6", BRANCH_IPV6, "udp/4500", 4500),
    _customer("ESP, IPv4", BRANCH, "esp"),
    _customer("ESP, IPv6", BRANCH_IPV6, "esp"),
    _customer("AH, IPv4", BRANCH, "ah"),
    _customer("GRE, IPv4", HOUSE, "gre"),
    _customer("GRE, IPv6", HOUSE_IPV6, "gre"),
    _customer("new, IPv4", HOUSE, "udp/51820", is_new=True),
    _customer("new, IPv6", HOUSE_IPV6, "udp/51820", is_new=True),
    _far_end("opened by the far end, IPv4", HOUSE, "udp/51820", 19_002),
    _far_end("opened by the far end, IPv6", HOUSE_IPV6, "udp/51820", 19_002),
    _far_end("new of the far end, IPv4", HOUSE, "udp/1194", is_new=True),
    _far_end("new of the far end, IPv6", HOUSE_IPV6, "udp/1194", is_new=True),
    _far_end("from the service's port, IPv4", HOUSE, "udp/19003", 51820),
    SUBSCRIBER,
    NEW_OF_SUBSCRIBER,
    STRANGERS,
    _customer("unregistered, new, IPv4", STRANGER, "udp/51820", is_new=True, is_registered=False),
    _customer("unregistered, new, IPv6", STRANGER_IPV6, "udp/51820", is_new=True, is_registered=False),
)
LANES: Final = (*LATE_LANES, *EARLIER_LANES)
SERVICES: Final = (
    Service("OpenVPN, IPv4", HOUSE, FAR, 1194),
    Service("PPTP, IPv6", HOUSE_IPV6, FAR_IPV6, 1723),
    Service("opened by the far end, IPv4", FAR, "39.32.64.11", 1194, "internet"),
    Service("opened by the far end, IPv6", FAR_IPV6, "2400:adc0:100::a", 1194, "internet"),
)
CARRIED: Final = tuple(
    lane for lane in EARLIER_LANES if lane.is_registered and not lane.is_new and lane.flow.protocol == UDP
)
"""Flows that conntrackd carries, and that are registered in every case."""


@dataclass(frozen=True, slots=True)
class PairRow:
    """`vrrp_lost`, `vrrp_s`: without gatewayd. With it: `gap_lost`, `gap_s` of packets that reached no gateway;
    `beyond` of all others; `excused`, those of them that `bounded` is about; `refused`; connections of TCP, and
    those that broke; `leaked`: unregistered packets that passed. `seen`: what was looked at, and is so."""

    name: str
    why: str
    vrrp_lost: int
    vrrp_s: float
    sent: int
    gap_lost: int
    gap_s: float
    beyond: int
    excused: int
    refused: int
    connections: int
    broken: int
    leaked: int
    seen: tuple[str, ...]
    bounded: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        return not self.leaked and not self.broken and self.beyond == self.excused and bool(self.seen)


@dataclass(frozen=True, slots=True)
class PairCase:
    """`prepare`: in place of two daemons that reject, with the same registry. `may_lose`: lanes of which packets
    may be lost, and `bounded` says why no design can avoid it, and what bounds it. `observes`: unregistered traffic
    may pass, until the case says `enforced`."""

    name: str
    why: str
    act: Callable[[PairWorld], None]
    prepare: Callable[[PairWorld], None] = lambda world: world.start_daemons()
    lanes: tuple[Lane, ...] = LANES
    may_lose: tuple[str, ...] = ()
    bounded: str = ""
    observes: bool = False


class PairWorld:
    """Both gateways under traffic. Without `has_daemons` they only forward, and what a case asks of a daemon is not
    done."""

    def __init__(self, directory: Path, *, has_daemons: bool) -> None:
        self.has_daemons = has_daemons
        self.seen: list[str] = []
        self._traffic: PairTraffic | None = None
        with ExitStack() as stack:
            self.pair = stack.enter_context(Pair(directory))
            self.both = self.first, self.second = self.pair.members
            self.master, self.backup = self.both
            self._nas = {
                each.number: stack.enter_context(
                    Nas(self.pair.inside.namespace, server=(each.own_address, 1813), source="198.18.1.2")
                )
                for each in self.both
            }
            self._stack = stack.pop_all()

    # -- daemons -----------------------------------------------------------------------------------------------

    def configure(
        self, member: Member, mode: str = "reject", *, records: Sequence[Any] = RECORDS, **policy: Any
    ) -> None:
        """Its files. A daemon that runs reads them by `sync` and `reload`."""
        daemon = member.daemon
        section = write_secrets(daemon.directory, pepper=DEMO_PEPPER)
        client = {"address": "198.18.1.2/32", "secret_file": str(daemon.directory / "radius.secret")}
        section["radius"] = {"listen": [f"{member.own_address}:1813"], "clients": [client]}
        interfaces = {"inside": ["inside0"], "outside": ["outside0"]}
        daemon.write_registry("national", records)
        daemon.configure(mode, subscribers=section, policy={"interfaces": interfaces, "drain": "0s"} | policy)

    def start_daemon(self, member: Member, *, is_told: bool = True) -> None:
        """It is ready, and knows the subscriber if it `is_told`, when this returns."""
        member.daemon.start()
        member.daemon.wait_ready()
        if is_told:
            self.account(member)

    def start_daemons(self, mode: str = "reject", **options: Any) -> None:
        for each in self.both:
            self.configure(each, mode, **options)
            self.start_daemon(each)

    def account(self, member: Member) -> None:
        """The subscriber's Start reaches this one."""
        self._nas[member.number].start("s1", NUMBER, HOME)
        member.daemon.wait_in_kernel(SUBSCRIBER.flow)

    def ask(self, member: Member, *words: str) -> str:
        """What a command of gatewayd prints. Raises AssertionError where it fails."""
        done = member.daemon.ask(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def see(self, what: str, condition: Callable[[], bool], patience_s: float = 60.0) -> None:
        """It is so, or will be; goes into the row. Without daemons nothing is looked at. Raises AssertionError."""
        if self.has_daemons:
            assert holds(condition, patience_s), f"not seen: {what}\n{self.master.daemon.log_text()[-3000:]}"
            if what not in self.seen:
                self.seen.append(what)

    # -- the pair ----------------------------------------------------------------------------------------------

    def through(self, member: Member | None = None) -> None:
        """Traffic has come through this gateway since, or through the master."""
        assert self._traffic is not None
        self._traffic.wait_through(member or self.master, ROUNDS)

    def passes(self, *lanes: Lane) -> None:
        """Packets of these arrive now."""
        assert self._traffic is not None
        for each in lanes:
            self._traffic.wait_arrivals(each)

    def wait_synchronised(self) -> None:
        """The backup has all connections that conntrackd carries."""
        wanted = [f"sport={lane.flow.source_port} dport={lane.flow.destination_port}" for lane in CARRIED]

        def is_there() -> bool:
            listed = self.backup.conntrackd("-e")
            return all(each in listed for each in wanted)

        assert holds(is_there), self.backup.conntrackd("-e")

    def fail_over(self, *, is_synchronised: bool = True) -> None:
        """keepalived of the master is stopped; the backup takes over."""
        if is_synchronised:
            self.wait_synchronised()
        self.master.stop("keepalived")
        self._take_over()

    def lose_box(self) -> None:
        """The master is gone from one moment to the next."""
        assert self._traffic is not None
        self.wait_synchronised()
        self._traffic.note_gone(self.master)
        self.master.power_off()
        self._take_over()

    def _take_over(self) -> None:
        self.master, self.backup = self.backup, self.master
        self.through()
        assert holds(lambda: self.pair.masters == [self.master])

    def rejoin(self) -> None:
        """The one that was master before is the backup now."""
        assert self._traffic is not None
        if not self.backup.is_conntrackd_running:
            self.backup.power_on()
            self._traffic.note_back(self.backup)
            if self.has_daemons:
                self.start_daemon(self.backup)
            else:
                self.backup.gateway.nft(TRACKED)
            self.backup.start("conntrackd")
        self.backup.start_backup()
        self.through()

    def fail_back(self) -> None:
        self.rejoin()
        self.fail_over()

    def see_marks(self, lanes: Sequence[Lane] = CARRIED, *, is_counted: bool = True) -> None:
        """Flows that conntrackd carried are registered at the new master, by their marks. The entry of one may be
        of the far end's packet, where that came before what conntrackd has. `is_counted`: a daemon was there when
        they came."""

        def is_marked(lane: Lane) -> bool:
            marks = (mark_of(self.master, lane.flow), mark_of(self.master, reverse_flow(lane.flow)))
            return LAYOUT.registered in marks

        self.see("flows carried over are marked registered", lambda: all(map(is_marked, lanes)))
        if is_counted:
            self.see("status: marks.carried", lambda: self.master.daemon.status()["marks"]["carried"] > 0)

    @contextmanager
    def under_traffic(self, lanes: Sequence[Lane]) -> Iterator[list[Any]]:
        """Until the block ends; then the list has both reports."""
        reports: list[Any] = []
        with PairTraffic(self.pair, lanes) as self._traffic, PairConnections(self.pair, SERVICES) as connections:
            self.through()
            yield reports
            self.through()
            reports += [self._traffic.stop(), connections.stop()]

    def enforced(self, since_s: float | None = None) -> None:
        """From now on, or since then, unregistered packets are refused. Without daemons nothing is."""
        assert self._traffic is not None
        self._traffic.note_enforced(since_s if self.has_daemons else inf)

    def is_stranger_refused(self) -> bool:
        """Whether new flows are, of both families."""
        pairs = ((STRANGER, FAR), (STRANGER_IPV6, FAR_IPV6))
        flows = [flow_of(*each, "udp/51820", next(_ports)) for each in pairs]
        return probe(self.master, flows) == ["rejected"] * 2

    def __enter__(self) -> PairWorld:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def run(
    directory: Path, case: PairCase, *, has_daemons: bool
) -> tuple[PairReport, ConnectionReport, tuple[str, ...]]:
    """The case once: what became of packets and connections, and what was seen."""
    with PairWorld(directory, has_daemons=has_daemons) as world:
        if has_daemons:
            case.prepare(world)
        else:
            for each in world.both:
                each.gateway.nft(TRACKED)
        world.pair.start()
        with world.under_traffic(case.lanes) as reports:
            world.enforced(inf if case.observes or not has_daemons else 0.0)
            case.act(world)
            if not case.observes:
                world.see("a stranger is refused", world.is_stranger_refused)
        traffic, connections = reports
        return traffic, connections, tuple(world.seen)


def row_of(directory: Path, case: PairCase) -> PairRow:
    alone, _, _ = run(directory / "alone", case, has_daemons=False)
    traffic, connections, seen = run(directory / "pair", case, has_daemons=True)
    excused = sum(traffic.beyond[each] for each in case.may_lose)
    notes = [f"{name}: {count} lost" for name, count in traffic.beyond.items()]
    notes += [f"{name}: {count} refused" for name, count in traffic.refused.items()]
    notes += [f"TCP, {name}: {count}" for name, count in connections.failed.items()]
    notes += [f"{name}: {count} passed" for name, count in traffic.leaked.items()]
    return PairRow(
        case.name,
        case.why,
        alone.gap,
        round(alone.gap_s, 3),
        traffic.sent,
        traffic.gap,
        round(traffic.gap_s, 3),
        traffic.beyond.total(),
        excused,
        traffic.refused.total(),
        connections.held + connections.new,
        connections.failed.total(),
        traffic.leaked.total(),
        seen,
        case.bounded,
        tuple(notes),
    )
