"""The bounds of the rules: a client is an IPv4 address or an IPv6 /64; a full set, a noisy source, a wrong name."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from gatewayd.compile.rule_sets import MAX_CLIENTS
from gatewayd.lab.lab import Lab
from gatewayd.lab.traffic import flow_of
from gatewayd.model import Flow, parse_services
from gatewayd.model.flow import Mode
from gatewayd.model.policy import MarkLayout, Policy
from tests.support.talk import Talk
from tests.support.worlds import TABLE, World

pytestmark = pytest.mark.kernel

FAR, FAR6 = "198.51.100.7", "2a00:1450::7"
_ports = count(20000)


def policy(mode: Mode, **changes: Any) -> Policy:
    scope = parse_services(["ipsec", "wireguard"])
    made = Policy(mode, scope, MarkLayout(0xFF000000), inside=("inside*",), outside=("outside0",))
    return replace(made, **changes)


def flow(client: str, service: str = "udp/51820") -> Flow:
    return flow_of(client, FAR6 if ":" in client else FAR, service, next(_ports))


def elements_of(lab: Lab, name: str) -> int:
    listed = lab.gateway.run(["nft", "list", "set", "inet", TABLE, name]).stdout
    return listed.count("expires")


def fill(lab: Lab, name: str) -> None:
    """With clients that are none of the lab's."""
    if name.endswith("6"):
        keys = (f"2001:db8:{number:x}::" for number in range(MAX_CLIENTS))
    else:
        keys = (f"10.0.{number >> 8}.{number & 255}" for number in range(MAX_CLIENTS))
    elements = ", ".join(f"{key} timeout 1h" for key in keys)
    lab.gateway.run(["nft", "-f", "-"], input=f"add element inet {TABLE} {name} {{ {elements} }}\n")


@pytest.mark.parametrize("inside", [("inside*",), ()], ids=["named", "bare"])
def test_a_limit_is_of_a_64_and_not_of_each_of_its_addresses(lab: Lab, talk: Talk, inside: tuple[str, ...]) -> None:
    talk.put(World([], policy("limit", limit_bytes_s=1000, inside=inside, outside=())))
    said = []
    for number in range(1, 30):
        said.append(talk.say("customers", flow(f"2400:adc1:9:1::{number:x}"), 500))
        if said[-1] != "passed":
            break
    assert said[-1] == "lost"
    assert talk.counter("limited_packets") == 1
    assert (elements_of(lab, "followed6"), elements_of(lab, "limiter6")) == (1, 1)
    assert talk.say("customers", flow("2400:adc1:9:2::1"), 500) == "passed", "another /64 has a limit of its own"


@pytest.mark.parametrize(("family", "client"), [(4, "39.32.9.{}"), (6, "2400:adc1:9:{}::1")])
@pytest.mark.parametrize("inside", [("inside*",), ()], ids=["named", "bare"])
def test_where_the_set_is_full_new_clients_share_a_limit(
    lab: Lab, talk: Talk, family: int, client: str, inside: tuple[str, ...]
) -> None:
    talk.put(World([], policy("limit", limit_bytes_s=2000, inside=inside, outside=())))
    assert talk.say("customers", flow(client.format(1)), 500) == "passed"
    lab.gateway.run(["nft", "flush", "set", "inet", TABLE, f"followed{family}"])
    fill(lab, f"followed{family}")
    said = []
    for number in range(2, 40):
        said.append(talk.say("customers", flow(client.format(number)), 500))
        if said[-1] != "passed":
            break
    assert said[0] == "passed"
    assert said[-1] == "lost"
    assert talk.counter("unfollowed_packets") == len(said)
    assert talk.counter("limited_packets") == 1
    assert elements_of(lab, f"followed{family}") == MAX_CLIENTS


@pytest.mark.parametrize(
    ("noisy", "quiet"), [("39.32.9.1", "39.32.9.2"), ("2400:adc1:9:1::{:x}", "2400:adc1:9:2::1")]
)
def test_a_noisy_source_leaves_others_their_part_of_the_log(talk: Talk, noisy: str, quiet: str) -> None:
    talk.put(World([], policy("observe", log_packets_s=20)))
    for number in range(1, 41):
        assert talk.client(flow(noisy.format(number))) == "passed"
    unlogged = talk.counter("unlogged_flows")
    assert 20 < unlogged < 40
    assert talk.client(flow(quiet)) == "passed"
    assert talk.counter("unlogged_flows") == unlogged
    assert talk.counter("unregistered_flows") == 41


def test_where_the_set_of_sources_is_full_the_log_has_its_bound_still(lab: Lab, talk: Talk) -> None:
    talk.put(World([], policy("observe", log_packets_s=20)))
    fill(lab, "noted4")
    for number in range(1, 61):
        assert talk.client(flow(f"39.32.9.{number}")) == "passed"
    assert 0 < talk.counter("unlogged_flows") <= 40


@pytest.mark.parametrize(
    ("inside", "outside", "counted"),
    [
        (("inside*",), ("outside0",), 0),
        ((), (), 0),
        (("ppp0",), ("outside0",), 3),
        (("inside*",), ("eth9",), 3),
        (("ppp0",), (), 3),
    ],
)
def test_packets_in_scope_that_cross_no_named_side_are_counted(
    talk: Talk, inside: tuple[str, ...], outside: tuple[str, ...], counted: int
) -> None:
    talk.put(World([], policy("reject", inside=inside, outside=outside)))
    others = flow("39.32.9.1", "udp/9999"), flow("39.32.9.1", "ipv6")
    assert [talk.client(each) for each in others] == ["passed"] * 2
    tunnels = flow("39.32.9.1"), flow("39.32.9.1", "esp")
    said = [talk.client(tunnels[0]), talk.far_end(tunnels[0]), talk.client(tunnels[1])]
    assert said == (["passed"] * 3 if counted else ["rejected", "passed", "rejected"])
    assert talk.counter("uncrossed_packets") == counted
