"""Who speaks first does not matter: after a reboot, a failover, a flush or an idle hour the far end's packet may
make the conntrack entry, and the client's run in reply direction. The rules alone, without a daemon, on packets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import count, product
from typing import Any, Final

import pytest
from _pytest.mark.structures import ParameterSet

from gatewayd.compile.effects import canary_bucket
from gatewayd.lab.lab import Lab, Side
from gatewayd.lab.traffic import flow_of
from gatewayd.model import (
    Binding,
    Flow,
    Registration,
    parse_address,
    parse_prefix,
    parse_services,
    reverse_flow,
)
from gatewayd.model.flow import Mode
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.model.service import GRE
from tests.support.lab_daemon import connections, holds
from tests.support.talk import Connection, Talk, read
from tests.support.worlds import World

pytestmark = pytest.mark.kernel

CLIENT, CLIENT6, STRANGER = "39.32.0.1", "2400:adc1::1", "39.32.9.9"
FAR, FAR6 = "198.51.100.7", "2a00:1450::7"
DIGEST = b"\1" * 32
SCOPE = parse_services(["ipsec", "wireguard", "openvpn", "pptp", "l2tp", "udp/443"])
_ports = count(30000)


def policy(mode: Mode = "reject", *, named: bool = True, **changes: Any) -> Policy:
    made = Policy(
        mode, SCOPE, MarkLayout(0xFF000000),
        inside=("inside*",) if named else (), outside=("outside0",) if named else (),
    )  # fmt: skip
    return replace(made, **changes)


def static(*words: str, peers: Sequence[str] = ()) -> World:
    """The client by its addresses."""
    return World([_registration((CLIENT, CLIENT6), None, words, peers)], policy())


def bound(*words: str, ports: tuple[int, int] | None = None, peers: Sequence[str] = ()) -> World:
    """The client as a subscriber who has the addresses for a while."""
    bindings = [_binding(CLIENT, ports)] + ([] if ports else [_binding(CLIENT6, None)])
    return World([_registration((), DIGEST, words, peers)], policy(), bindings)


def under(world: World, policy: Policy) -> World:
    """The same registrations and bindings under another policy."""
    return World(list(world.allowlist), policy, list(world.allowlist.bindings))


def _registration(
    clients: Sequence[str], subscriber: bytes | None, words: Sequence[str], peers: Sequence[str]
) -> Registration:
    return Registration(
        "PK-1", "bank", "active", tuple(parse_prefix(_whole(each)) for each in clients), subscriber,
        tuple(sorted(parse_prefix(_whole(each)) for each in peers)), parse_services(words),
    )  # fmt: skip


def _whole(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _binding(address: str, ports: tuple[int, int] | None) -> Binding:
    return Binding(
        subscriber=DIGEST, prefix=parse_prefix(_whole(address)), ports=ports, since_s=1.0, confirmed_s=1.0,
        nas="bras-1", session="s-1",
    )  # fmt: skip


def client_flow(service: str, port: int | None = None, client: str = CLIENT, far: str | None = None) -> Flow:
    return flow_of(client, far or (FAR6 if ":" in client else FAR), service, port)


TUNNELS = {
    "IKE": ("ipsec", "udp/500", 500),
    "NAT-T": ("ipsec", "udp/4500", 4500),
    "WireGuard, fixed ports": ("wireguard", "udp/51820", 51820),
    "WireGuard, any port": ("wireguard", "udp/51820", 40123),
    "WireGuard, a port of another service": ("wireguard", "udp/51820", 4500),
    "OpenVPN": ("udp/1194", "udp/1194", 1194),
    "OpenVPN, any port": ("udp/1190-1200", "udp/1194", 40124),
    "a wide range": ("udp/1-51820", "udp/443", 40125),
    "ESP": ("ipsec", "esp", None),
    "AH": ("ah", "ah", None),
    "GRE": ("pptp", "gre", None),
    "any service": (None, "udp/4500", 40126),
}
HOLDERS: Final[dict[str, Callable[..., World]]] = {
    "static": static,
    "bound": bound,
    "block": partial(bound, ports=(32768, 49151)),
    "low block": partial(bound, ports=(0, 8191)),
}


def cases() -> Iterator[ParameterSet]:
    for (name, (word, service, port)), holder, peers, named in (
        (tunnel, holder, peers, named)
        for tunnel in TUNNELS.items()
        for holder in HOLDERS
        for peers in ((), (FAR, FAR6))
        for named in (True, False)
    ):
        block = {"block": range(32768, 49152), "low block": range(8192)}.get(holder)
        if block is not None and (port is None or port not in block):
            continue
        for client in (CLIENT,) if block is not None else (CLIENT, CLIENT6):
            words = () if word is None else (word,)
            yield pytest.param(
                HOLDERS[holder](*words, peers=peers), client_flow(service, port, client), named,
                id=f"{name}-{holder}-{'peers' if peers else 'any'}-{6 if ':' in client else 4}"
                f"-{'named' if named else 'bare'}",
            )  # fmt: skip


CASES: Final = list(cases())


def cases_named(word: str) -> list[ParameterSet]:
    return [case for case in CASES if word in str(case.id)]


@pytest.mark.parametrize(("world", "flow", "named"), CASES)
def test_a_registered_flow_passes_and_is_known_whoever_speaks_first(
    talk: Talk, world: World, flow: Flow, named: bool
) -> None:
    talk.put(under(world, policy(named=named)))
    for first in ("far end", "client"):
        talk.forget()
        before = talk.counter("registered_flows")
        turns = [talk.far_end, talk.client] if first == "far end" else [talk.client, talk.far_end]
        assert [turn(flow) for turn in turns * 2] == ["passed"] * 4
        # To conntrack the two directions of GRE are two flows: their keys differ.
        assert talk.counter("registered_flows") - before == (2 if flow.protocol == GRE else 1)
    assert talk.counter("unregistered_flows") == 0


@pytest.mark.parametrize(("world", "flow", "named"), [case for case in CASES if case not in cases_named("-peers-")])
def test_no_packet_of_a_registered_flow_is_limited_whoever_speaks_first(
    talk: Talk, world: World, flow: Flow, named: bool
) -> None:
    talk.put(under(world, policy("limit", named=named, limit_bytes_s=100)))
    assert talk.far_end(flow) == "passed"
    assert [talk.client(flow) for _ in range(5)] == ["passed"] * 5
    assert [talk.far_end(flow) for _ in range(5)] == ["passed"] * 5


@pytest.mark.parametrize(("world", "flow", "named"), cases_named("-named"))
def test_untracked_packets_of_a_registered_flow_pass_both_ways(
    talk: Talk, world: World, flow: Flow, named: bool
) -> None:
    talk.put(world)
    with talk.beside("prerouting priority raw", "notrack"):
        assert [talk.far_end(flow), talk.client(flow), talk.far_end(flow)] == ["passed"] * 3


@pytest.mark.parametrize("mode", ["observe", "mark", "limit", "reject"])
def test_of_an_unregistered_flow_the_clients_packet_decides_whoever_speaks_first(talk: Talk, mode: Mode) -> None:
    talk.put(World([], policy(mode)))
    flow = client_flow("udp/51820", next(_ports), STRANGER)
    refused = "rejected" if mode == "reject" else "passed"
    # Nobody can tell that this is no answer to something out of scope; it is judged with the client's packet.
    assert talk.far_end(flow) == "passed"
    assert talk.counter("unregistered_flows") == 0
    assert talk.client(flow) == refused
    assert talk.counter("unregistered_flows") == 1
    # From then on the flow is known, in both directions.
    assert talk.say("internet", reverse_flow(flow)) == refused
    assert talk.client(flow) == refused
    assert talk.counter("unregistered_flows") == 1


@pytest.mark.parametrize("client", [STRANGER, "2400:adc1:9::9"])
@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        pair
        for pair in product([("inside0",), ("inside*",), ()], [("outside0", "eth9"), ("outside*",), ()])
        if pair != ((), ())
    ],
)
def test_an_unregistered_flow_opened_from_far_is_no_way_round_where_a_side_is_named(
    talk: Talk, client: Any, inside: Any, outside: Any
) -> None:
    talk.put(World([], replace(policy(), inside=inside, outside=outside)))
    flow = client_flow("udp/51820", next(_ports), client)
    assert [talk.far_end(flow), talk.client(flow), talk.client(flow)] == ["passed", "rejected", "rejected"]


def test_without_named_interfaces_a_flow_opened_from_far_is_registered_or_not_judged(talk: Talk) -> None:
    talk.put(World(list(static("wireguard").allowlist), policy(named=False)))
    known, unknown = client_flow("udp/51820", next(_ports)), client_flow("udp/51820", next(_ports), STRANGER)
    assert [talk.far_end(known), talk.client(known)] == ["passed"] * 2
    assert talk.counter("registered_flows") == 1
    assert [talk.far_end(unknown), talk.client(unknown)] == ["passed"] * 2
    assert talk.counter("unregistered_flows") == 0
    assert talk.client(client_flow("udp/51820", next(_ports), STRANGER)) == "rejected"


@pytest.mark.parametrize("named", [True, False])
def test_an_answer_to_a_client_whose_own_port_is_in_scope_is_not_judged(talk: Talk, named: bool) -> None:
    """51820 is what the client's system happened to choose for a flow to some other service."""
    talk.put(World([], policy(named=named)))
    flow = client_flow("udp/8801", 51820, STRANGER)
    assert [talk.client(flow), talk.far_end(flow), talk.client(flow)] == ["passed"] * 3
    assert talk.counter("unregistered_flows") == 0


@pytest.mark.parametrize("named", [True, False])
def test_what_a_server_inside_answers_to_a_port_in_scope_is_not_judged(talk: Talk, named: bool) -> None:
    talk.put(World([], policy(named=named)))
    flow = flow_of(FAR, STRANGER, "udp/53", 51820)
    assert talk.say("internet", flow) == "passed"
    assert talk.say("customers", reverse_flow(flow)) == "passed"
    assert talk.counter("unregistered_flows") == 0


@pytest.mark.parametrize("side", ["customers", "internet"])
def test_where_one_direction_alone_is_seen_a_registered_flow_is_known_all_the_same(talk: Talk, side: Side) -> None:
    """Asymmetric paths: the other direction takes another gateway."""
    talk.put(static("wireguard"))
    flow = client_flow("udp/51820", next(_ports))
    packet = flow if side == "customers" else reverse_flow(flow)
    assert [talk.say(side, packet) for _ in range(3)] == ["passed"] * 3
    assert talk.counter("registered_flows") == 1


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("side", "flow", "judged"),
    [
        ("customers", client_flow("udp/51820", 40127, STRANGER), True),
        ("internet", flow_of(FAR, STRANGER, "udp/51820", 40127), True),
        ("internet", reverse_flow(client_flow("udp/51820", 40127, STRANGER)), False),
        ("customers", reverse_flow(flow_of(FAR, STRANGER, "udp/500", 40127)), False),
    ],
    ids=["client to a service", "far end to a service", "from a service", "from a service inside"],
)
def test_where_one_direction_alone_is_seen_an_unregistered_flow_is_judged_by_what_goes_to_a_service(
    talk: Talk, side: Side, flow: Flow, judged: bool, named: bool
) -> None:
    talk.put(World([], policy(named=named)))
    assert [talk.say(side, flow) for _ in range(3)] == ["rejected" if judged else "passed"] * 3
    assert (talk.counter("unregistered_flows") > 0) == judged


def test_a_firewall_that_accepts_by_our_mark_passes_a_registered_flow_that_the_far_end_wakes(talk: Talk) -> None:
    talk.put(static("wireguard"))
    flow = client_flow("udp/51820", 40123)
    by_our_mark = "ct mark & 0x80000000 == 0x80000000 accept"
    with talk.beside("forward priority filter; policy drop", by_our_mark):
        assert [talk.far_end(flow), talk.client(flow), talk.far_end(flow)] == ["passed"] * 3
        talk.forget()
        assert [talk.client(flow), talk.far_end(flow)] == ["passed"] * 2


@pytest.mark.parametrize("mode", ["reject", "limit"])
@pytest.mark.parametrize(("world", "flow", "named"), cases_named("-any-"))
def test_a_mark_of_somebody_else_refuses_no_packet_of_a_registered_flow(
    talk: Talk, world: World, flow: Flow, named: bool, mode: Mode
) -> None:
    """ "Judged unregistered" in our own epoch: another gateway's word for the flow, or another program's number."""
    talk.put(under(world, policy(mode, named=named, limit_bytes_s=100)))
    with talk.beside("prerouting priority mangle", "ct mark set 0x01000000"):
        said = [turn(flow) for _ in range(5) for turn in (talk.client, talk.far_end)]
        assert said == ["passed"] * 10


@pytest.mark.parametrize("mode", ["reject", "limit"])
@pytest.mark.parametrize("named", [True, False])
def test_a_mark_of_somebody_else_brings_nothing_out_of_scope_before_the_policy(
    talk: Talk, mode: Mode, named: bool
) -> None:
    talk.put(World([], policy(mode, named=named, limit_bytes_s=100)))
    with talk.beside("prerouting priority mangle", "ct mark set 0x01000000"):
        for service in ("udp/9999", "ipv6"):
            flow = client_flow(service, next(_ports), STRANGER)
            assert [turn(flow) for _ in range(5) for turn in (talk.client, talk.far_end)] == ["passed"] * 10
        # What the policy is about is refused all the same.
        flow = client_flow("udp/51820", next(_ports), STRANGER)
        assert "passed" not in [talk.say("customers", flow, 200) for _ in range(3)][1:]


def test_a_limit_is_of_the_client_whoever_speaks_first(talk: Talk) -> None:
    """Many far ends: all is the traffic of one client, in one limiter."""
    talk.put(World([], policy("limit", limit_bytes_s=1000)))
    said = []
    for number in range(1, 30):
        flow = client_flow("udp/4500", 4500, STRANGER, f"198.51.100.{number}")
        said.append(talk.say("internet", reverse_flow(flow), 500))
        if said[-1] != "passed":
            break
    assert said[0] == "passed"
    assert said[-1] == "lost"
    assert talk.counter("limited_packets") == 1


@pytest.mark.parametrize(
    ("clients", "fars"), [("39.32.9.{}", "198.51.100.{}"), ("2400:adc1:9:{}::1", "2a00:1450:0:{}::1")]
)
def test_a_canary_is_of_the_client_whoever_speaks_first(talk: Talk, clients: str, fars: str) -> None:
    talk.put(World([], policy(canary_percent=50)))
    seen = set()
    for number in range(1, 25):
        client, far = clients.format(number), fars.format(number)
        inside, outside = (canary_bucket(parse_address(each)) < 50 for each in (client, far))
        seen.add((inside, outside))
        verdict = "rejected" if inside else "passed"
        flow = client_flow("udp/4500", next(_ports), client, far)
        assert [talk.far_end(flow), talk.client(flow), talk.far_end(flow)] == ["passed", verdict, verdict]
        flow = client_flow("udp/4500", 4500, client, far)
        assert [talk.far_end(flow), talk.client(flow)] == [verdict] * 2
        assert talk.client(client_flow("udp/4500", next(_ports), client, far)) == verdict
        assert talk.say("internet", flow_of(far, client, "udp/4500", next(_ports))) == verdict
    assert len(seen) == 4


def test_tcp_taken_up_in_the_middle_is_the_clients(lab: Lab, talk: Talk) -> None:
    """The far end sends on a connection that conntrack has forgotten."""
    for client, passes in ((CLIENT, True), (STRANGER, False)):
        talk.put(World([], policy("observe")))
        with Connection(lab, client, FAR, 1194) as (near, far):
            talk.put(static("openvpn"))
            far.sendall(b"from the far end")
            assert read(near) == b"from the far end"
            if passes:
                near.sendall(b"from the client")
                assert read(far) == b"from the client"
                assert talk.counter("registered_flows") == 1
            else:
                # Its acknowledgement was refused already, or what it sends now is.
                with suppress(ConnectionResetError):
                    near.sendall(b"from the client")
                assert read(near) == b""
                assert talk.counter("unregistered_flows") == 1


# -- an idle hour --------------------------------------------------------------------------------------------------

TIMEOUTS = {
    "udp_timeout": 30, "udp_timeout_stream": 120, "gre_timeout": 30, "gre_timeout_stream": 180,
    "generic_timeout": 600, "tcp_timeout_established": 432_000,
}  # fmt: skip
"""nf_conntrack_…, in seconds, with the kernel's defaults."""


@contextmanager
def running_out(lab: Lab) -> Iterator[None]:
    """What is tracked in the block has run out at its end: nobody flushed anything."""
    try:
        for name in TIMEOUTS:
            lab.gateway.sysctl(f"net.netfilter.nf_conntrack_{name}", "1")
        yield
    finally:
        for name, default_s in TIMEOUTS.items():
            lab.gateway.sysctl(f"net.netfilter.nf_conntrack_{name}", str(default_s))
    assert holds(lambda: not connections(lab))


@pytest.mark.parametrize("holder", [static, bound])
def test_registered_flows_that_ran_out_are_known_again_by_the_far_ends_packets(
    lab: Lab, talk: Talk, holder: Any
) -> None:
    talk.put(holder(*(word for word, _, _ in TUNNELS.values() if word)))
    flows = [client_flow(service, port) for _, service, port in TUNNELS.values()]
    with running_out(lab):
        for flow in flows:
            assert [talk.client(flow), talk.far_end(flow), talk.client(flow)] == ["passed"] * 3
    for flow in flows:
        before = talk.counter("registered_flows")
        assert [talk.far_end(flow) for _ in range(2)] == ["passed"] * 2
        assert talk.counter("registered_flows") == before + 1
        assert [talk.client(flow), talk.far_end(flow)] == ["passed"] * 2
    assert talk.counter("unregistered_flows") == 0


def test_an_unregistered_flow_that_ran_out_is_judged_again_by_its_clients_packet(lab: Lab, talk: Talk) -> None:
    talk.put(World([], policy()))
    flow = client_flow("udp/51820", next(_ports), STRANGER)
    for _ in range(2):
        with running_out(lab):
            assert [talk.far_end(flow), talk.client(flow)] == ["passed", "rejected"]
    assert [talk.far_end(flow), talk.client(flow), talk.far_end(flow)] == ["passed", "rejected", "rejected"]


@pytest.mark.parametrize(("client", "counted"), [(CLIENT, "registered_flows"), (STRANGER, "unregistered_flows")])
def test_tcp_that_ran_out_is_the_clients_although_the_far_end_sends_first(
    lab: Lab, talk: Talk, client: Any, counted: str
) -> None:
    """Its connection stands at both ends; conntrack takes it up in the middle."""
    talk.put(under(static("openvpn"), policy("observe")))
    with running_out(lab):
        connected = Connection(lab, client, FAR, 1194)
    with connected as (near, far):
        before = talk.counter(counted)
        far.sendall(b"from the far end")
        assert read(near) == b"from the far end"
        near.sendall(b"from the client")
        assert read(far) == b"from the client"
        assert talk.counter(counted) == before + 1
