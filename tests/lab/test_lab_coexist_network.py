"""Policy routing, bridges, asymmetric routing and lines that come and go, under registered traffic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from socket import AF_INET, AF_INET6

import pytest
from pyroute2 import IPRoute

from gatewayd.demo.cast import FAR, FAR_IPV6, STRANGER, STRANGER_IPV6
from gatewayd.lab.lab import INSIDE, OUTSIDE, End, Lab, wait_until_up
from gatewayd.lab.namespace import Namespace
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.model import parse_prefix
from tests.support.lab_daemon import LabDaemon, daemon_in
from tests.support.neighbours import ADMIT, HOUSE, HOUSE_IPV6, examine, restore, start, strangers, traffic

pytestmark = pytest.mark.kernel

CUSTOMERS = (parse_prefix("39.32.0.0/11"), parse_prefix("2400:adc0::/31"))
BOTH = ((AF_INET, 4, "39.32.0.0/11", "0.0.0.0/0"), (AF_INET6, 6, "2400:adc0::/31", "::/0"))
"""Family, version, the customers' networks, everything."""
LINES = 300


@pytest.fixture
def daemon(kernel: None, tmp_path: Path) -> Iterator[LabDaemon]:
    """In a lab of its own: its links and routes change."""
    with Lab(CUSTOMERS) as lab, daemon_in(lab, tmp_path, warm=True) as made:
        yield made


# -- routing -------------------------------------------------------------------------------------------------------


def route_by_tables(gateway: Namespace) -> None:
    """A table for each side, chosen by the interface, as a router with VRFs has them; then no other route."""

    def configure(ip: IPRoute) -> None:
        for family, version, inside, everything in BOTH:
            for table, interface, network, wire in (
                (10, "inside0", everything, OUTSIDE),
                (20, "outside0", inside, INSIDE),
            ):
                via = wire.end_addresses[version]  # type: ignore[index]
                ip.route("add", family=family, dst=network, gateway=via, table=table)
                ip.rule("add", family=family, iifname=interface, table=table, priority=table)
            ip.route("del", family=family, dst=inside, gateway=INSIDE.end_addresses[version])  # type: ignore[index]

    gateway.configure(configure)


def test_a_table_for_each_side_changes_nothing(daemon: LabDaemon) -> None:
    lab = start(daemon)
    with traffic(lab) as flows:
        route_by_tables(lab.gateway)
        flows.goes_on()
        flows.is_whole()
    known = [flow_of(HOUSE, FAR, "udp/51820", 40001), flow_of(HOUSE_IPV6, FAR_IPV6, "udp/51820", 40001)]
    assert probe(lab, known, answered=True) == ["passed"] * 2


def test_routing_by_a_restored_mark_works_with_a_mask_and_fails_without(daemon: LabDaemon) -> None:
    """The rule of the site: what has its mark goes by its table, and everything else nowhere."""
    lab = start(daemon)

    def configure(ip: IPRoute) -> None:
        for family, version, _, everything in BOTH:
            via = OUTSIDE.end_addresses[version]  # type: ignore[index]
            ip.route("add", family=family, dst=everything, gateway=via, table=30)
            ip.rule("add", family=family, fwmark=7, iifname="inside0", table=30, priority=30)
            ip.rule("add", family=family, iifname="inside0", action="blackhole", priority=31)

    def mangle(mask: str) -> str:
        restored, masked = f"CONNMARK --restore-mark{mask}", f"CONNMARK --save-mark{mask or ' --mask 0x00ffffff'}"
        rules = restored, "MARK --set-mark 7 -i inside0 -m mark --mark 0", masked
        return "\n".join(["*mangle", *(f"-A PREROUTING -j {each}" for each in rules), "COMMIT", ""])

    lab.gateway.configure(configure)
    restore(lab.gateway, mangle(" --mask 0x00ffffff"))
    with traffic(lab) as flows:
        flows.goes_on()
        flows.is_whole()
    restore(lab.gateway, mangle(""))
    known = [flow_of(HOUSE, FAR, "udp/51820", 40001)]
    assert probe(lab, known, deadline_s=0.5) == ["lost"]
    for each in examine(daemon)["mark-leaked"]:
        assert each.command is not None
        lab.gateway.run(["sh", "-ec", each.command])
    assert probe(lab, known) == ["passed"]


# -- asymmetric routing --------------------------------------------------------------------------------------------


def bypass(lab: Lab, side: str) -> None:
    """A wire between the two ends, by which one direction goes past the gateway: the answers, or the questions."""

    def add(ip: IPRoute) -> None:
        ip.link(
            "add", ifname="bypass0", kind="veth", peer={"ifname": "bypass1", "net_ns_fd": lab.internet.descriptor}
        )

    lab.customers.configure(add)
    for namespace, interface, host in ((lab.customers, "bypass0", 1), (lab.internet, "bypass1", 2)):
        namespace.bring_up(interface, f"192.168.77.{host}/24")

        def accept(ip: IPRoute, interface: str = interface) -> None:
            ip.rule("add", family=AF_INET, priority=90, iifname=interface, table=100)

        namespace.configure(accept)
    away, host = (lab.internet, 1) if side == "answers" else (lab.customers, 2)
    away.configure(lambda ip: ip.route("replace", family=AF_INET, dst="0.0.0.0/0", gateway=f"192.168.77.{host}"))


@pytest.mark.parametrize("side", ["answers", "questions"])
def test_registered_tcp_of_which_one_direction_is_seen_goes_on_and_strangers_are_judged_by_theirs(
    daemon: LabDaemon, side: str
) -> None:
    lab = start(daemon)
    bypass(lab, side)
    known = [flow_of(HOUSE, FAR, "tcp/1194", port) for port in range(41000, 41020)]
    assert probe(lab, known) == ["passed"] * len(known)
    unknown = flow_of(STRANGER, FAR, "tcp/1194", 41000)
    assert probe(lab, [unknown]) == ["rejected" if side == "answers" else "passed"]


def test_a_rule_that_drops_what_is_invalid_cuts_registered_tcp_of_which_one_direction_is_seen(
    daemon: LabDaemon,
) -> None:
    """Such a packet has no connection, so no mark either: a rule by our mark before it does not help."""
    lab = start(daemon)
    bypass(lab, "answers")
    known = [flow_of(HOUSE, FAR, "tcp/1194", 41100)]
    restore(
        lab.gateway, f"*filter\n-A FORWARD {ADMIT}\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n"
    )
    assert probe(lab, known, deadline_s=1.0) == ["lost"]
    assert "invalid-drop" in examine(daemon)
    restore(lab.gateway, "*filter\nCOMMIT\n")
    assert "invalid-drop" not in examine(daemon)
    assert probe(lab, [flow_of(HOUSE, FAR, "tcp/1194", 41101)]) == ["passed"]


@pytest.mark.parametrize("start_side", ["customers", "internet"])
def test_packets_of_one_direction_alone_are_registered_or_judged(daemon: LabDaemon, start_side: str) -> None:
    """UDP: the gateway never sees the other direction."""
    lab = start(daemon)
    pairs = (
        (HOUSE, FAR, "passed"),
        (HOUSE_IPV6, FAR_IPV6, "passed"),
        (STRANGER, FAR, "rejected"),
        (STRANGER_IPV6, FAR_IPV6, "rejected"),
    )
    for near, far, expected in pairs:
        ends = (near, far) if start_side == "customers" else (far, near)
        flow = flow_of(*ends, "udp/51820", 42000)
        for _ in range(3):
            assert probe(lab, [flow], start=start_side) == [expected]  # type: ignore[arg-type]


# -- a bridge, and lines -------------------------------------------------------------------------------------------


@pytest.fixture
def bare(kernel: None, tmp_path: Path) -> Iterator[LabDaemon]:
    """In a lab whose customers have no route yet."""
    with Lab(()) as lab, daemon_in(lab, tmp_path, warm=True) as made:
        yield made


def lead_to_customers(lab: Lab, interface: str) -> None:
    """By this interface, which has what inside0 had."""
    for version, length in ((4, 30), (6, 64)):
        here, there = INSIDE.gateway_addresses[version], INSIDE.end_addresses[version]  # type: ignore[index]
        lab.gateway.run(
            ["ip", "addr", "replace", f"{here}/{length}", "dev", interface, *["nodad"] * (version == 6)]
        )
        lab.gateway.run(["ip", "neigh", "replace", there, "lladdr", INSIDE.end_hardware, "dev", interface])
    lab.route_customers(CUSTOMERS)


def test_customers_behind_a_bridge_lose_nothing_as_br_netfilter_is_turned_on_and_off(bare: LabDaemon) -> None:
    lab, gateway = bare.lab, bare.lab.gateway
    steps = (
        f"link add br-in address {INSIDE.gateway_hardware} type bridge", "link set br-in up",
        "addr flush dev inside0", "link set inside0 master br-in",
    )  # fmt: skip
    gateway.run(["ip", "-batch", "-"], input="\n".join(steps))
    lead_to_customers(lab, "br-in")
    start(bare, policy={"interfaces": {"inside": ["br-in"], "outside": ["outside0"]}})
    with traffic(lab) as flows:
        for value in ("1", "0", "1"):
            for version in ("ip", "ip6"):
                gateway.sysctl(f"net.bridge.bridge-nf-call-{version}tables", value)
            flows.goes_on(10)
            flows.refuses()
        flows.is_whole()


def test_hundreds_of_lines_come_and_go_and_nothing_is_lost(bare: LabDaemon) -> None:
    lab, gateway = bare.lab, bare.lab.gateway
    renaming = ("link set inside0 down", "link set inside0 name ppp1000", "link set ppp1000 up")
    gateway.run(["ip", "-batch", "-"], input="\n".join(renaming))
    wait_until_up([End(gateway, "ppp1000"), lab.inside])
    lead_to_customers(lab, "ppp1000")
    start(bare, policy={"interfaces": {"inside": ["ppp*"], "outside": ["outside0"]}})
    with traffic(lab) as flows:
        names = [f"ppp{number}" for number in range(LINES)]
        made = [f"tuntap add dev {name} mode tun\nlink set {name} up" for name in names]
        gateway.run(["ip", "-batch", "-"], input="\n".join(made))
        bare.wait(lambda: lines_of(bare) == LINES + 1, "the lines are seen")
        flows.refuses()
        gateway.run(["ip", "-batch", "-"], input="\n".join(f"link del {name}" for name in names))
        bare.wait(lambda: lines_of(bare) == 1, "the lines are gone")
        flows.goes_on()
        flows.is_whole()


def lines_of(daemon: LabDaemon) -> int:
    return int(daemon.status()["interfaces"]["inside"][0]["count"])


def test_a_customers_line_that_comes_again_by_another_name_goes_on_as_registered(bare: LabDaemon) -> None:
    """A line that is down carries nothing. Back, each flow passes with its first packet, also one of before."""
    lab, gateway = bare.lab, bare.lab.gateway
    start(bare, policy={"interfaces": {"inside": ["ppp*"], "outside": ["outside0"]}})
    known = [flow_of(HOUSE, FAR, "udp/51820", 43000), flow_of(HOUSE_IPV6, FAR_IPV6, "udp/51820", 43000)]
    name = "inside0"
    for following in ("ppp7", "ppp812", "ppp3"):
        steps = (f"link set {name} down", f"link set {name} name {following}", f"link set {following} up")
        gateway.run(["ip", "-batch", "-"], input="\n".join(steps))
        wait_until_up([End(gateway, following), lab.inside])
        lead_to_customers(lab, following)
        name = following
        assert probe(lab, known, answered=True) == ["passed"] * 2
        assert set(probe(lab, strangers())) == {"rejected"}
