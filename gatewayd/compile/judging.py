"""The way of a packet until it is known as registered or not: nft text of these chains. Pure.

Interfaces, protocol and ports decide whether the policy is about it. Then it is looked up in the sets of all masks
in use (`lookups`). The effects of either result are in `effects`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gatewayd.compile.endpoints import MISSED
from gatewayd.compile.interfaces import client_tests, crossing, no_client_test
from gatewayd.compile.lookups import FAMILIES, answer_ways, chain, masked
from gatewayd.model.mask import Mask
from gatewayd.model.policy import Policy
from gatewayd.model.prefix import Family
from gatewayd.model.service import PROTOCOLS_WITH_PORTS, Service

SHARES = 20
"""Of the log's rate one source has a twentieth at most."""
_LOG_COPY = 128
"""Bytes of a packet that NFLOG copies: headers, IPv6 extension headers included, of which we read addresses,
protocol and ports."""


def client_at(family: Family, end: str) -> str:
    """The client at an end of a packet, `saddr` or `daddr`, as a key of a set: an IPv4 address, or an IPv6 /64.

    A line has a /64 at least (RFC 7421 §2), and all of it is the same customer's.
    """
    return f"ip {end}" if family == 4 else f"ip6 {end} & ffff:ffff:ffff:ffff::"


def as_hex(value: int) -> str:
    return f"0x{value:08x}"


def interface_tests(policy: Policy) -> list[str]:
    """Traffic that does not cross between inside and outside leaves."""
    tests = crossing(policy)
    return [*(f"{test} goto scope" for test in tests), "goto uncrossed"] if tests else ["goto scope"]


def uncrossed_chain(policy: Policy) -> list[str]:
    """Packets with a service in scope, at either port, that no named interface brings between inside and outside: a
    misspelt name is seen by their number. Where no side is named there are none."""
    if not crossing(policy):
        return []
    whole, ports = _scope_by_protocol(policy.scope)
    count = "counter name uncrossed_packets accept"
    lines = [f"meta l4proto {{ {', '.join(map(str, sorted(whole)))} }} {count}"] if whole else []
    for protocol, listed in sorted(ports.items()):
        lines += [f"meta l4proto {protocol} th {port} {listed} {count}" for port in ("dport", "sport")]
    return chain("uncrossed", [*lines, "accept"])


def in_policy(policy: Policy, verdict: str) -> list[str]:
    """Go to the chain `verdict` if a packet is between inside and outside and has a service in scope at either end,
    else accept. A mark alone never brings anything else before the policy."""
    whole, ports = _scope_by_protocol(policy.scope)
    ways = {protocol: verdict for protocol in whole} | {protocol: f"in_scope_{protocol}" for protocol in ports}
    lines = []
    if ways:
        targets = ", ".join(f"{protocol} : goto {way}" for protocol, way in sorted(ways.items()))
        lines.append(f"meta l4proto vmap {{ {targets} }}")
    chains = []
    for protocol, listed in sorted(ports.items()):
        either = [f"th {port} {listed} goto {verdict}" for port in ("dport", "sport")]
        chains += chain(f"in_scope_{protocol}", [*either, "accept"])
    chains += chain("in_scope", [*lines, "accept"])
    tests = [f"{test} goto in_scope" for test in crossing(policy)]
    return chains + chain("in_policy", [*tests, "accept"] if tests else ["goto in_scope"])


def scope_chains(policy: Policy) -> list[str]:
    """One look-up of the protocol; ports are looked at for protocols that have some in scope."""
    whole, ports = _scope_by_protocol(policy.scope)
    judge = "judge" if client_tests(policy) else "look_up"
    ways = {protocol: judge for protocol in whole} | {protocol: f"scope_{protocol}" for protocol in ports}
    if not ways:
        return chain("scope", [])
    targets = ", ".join(f"{protocol} : goto {target}" for protocol, target in sorted(ways.items()))
    chains = chain("scope", [f"meta l4proto vmap {{ {targets} }}"])
    for protocol, listed in sorted(ports.items()):
        # `new` is every packet of a flow until it was answered.
        answer = f"ct state new,untracked th sport {listed} goto answer"
        chains += chain(f"scope_{protocol}", [f"th dport {listed} goto {judge}", answer])
    return chains


def _scope_by_protocol(scope: tuple[Service, ...]) -> tuple[set[int], dict[int, str]]:
    """Protocols that are in scope whole; of others their ports, as an nft set."""
    whole = {service.protocol for service in scope if (service.low, service.high) == (0, 65535)}
    ports: dict[int, list[str]] = {}
    for service in sorted(scope):
        if service.protocol not in whole:
            single = service.low == service.high
            ports.setdefault(service.protocol, []).append(
                f"{service.low}" if single else f"{service.low}-{service.high}"
            )
    return whole, {protocol: f"{{ {', '.join(values)} }}" for protocol, values in ports.items()}


def judging_chains(policy: Policy, epoch: int, near: Mapping[Mask, str], counting: Sequence[str] = ()) -> list[str]:
    """`near`: the sets of prefixes that clients of registrations lie in. `counting`: rules for a flow that is
    unregistered, before it has its mark."""
    layout = policy.mark_layout
    judged = as_hex(layout.judged(epoch))
    chains: list[str] = []
    if client_tests(policy):
        chains += chain("judge", [*_replies(policy), "goto look_up"])
    if _scope_by_protocol(policy.scope)[1]:
        chains += chain("answer", answer_ways())
    missed = [
        *([f"ct mark & {as_hex(layout.epoch_mask)} == {judged} goto in_policy"] if asks_again(policy) else []),
        *([] if client_tests(policy) else ["ct direction reply accept"]),
        *_left_alone(policy.scope),
        *counting,
        f"ct mark set ct mark & {as_hex(layout.others)} | {judged}",
        "counter name unregistered_flows",
        "jump note",
        "goto unregistered",
    ]
    return [*chains, *chain(MISSED, missed), *_note(policy, near)]


def asks_again(policy: Policy) -> bool:
    """Whether a packet of a flow known as judged is looked up again, where its mode would do something to it."""
    return policy.mode in ("reject", "limit") or (policy.mode == "observe" and policy.shadows_limit)


def answers_before_endpoints(policy: Policy, epoch: int) -> list[str]:
    """Accept what comes from a port in scope alone, before it is looked up among endpoints."""
    lines = _left_alone(policy.scope)
    if not asks_again(policy):
        return lines
    layout = policy.mark_layout
    unknown = f"ct mark & {as_hex(layout.epoch_mask)} != {as_hex(layout.judged(epoch))}"
    return [f"{test} {line}" for line in lines for test in (unknown, "ct state untracked")]


def _left_alone(scope: tuple[Service, ...]) -> list[str]:
    """Accept what has no service in scope at its destination port: it came by `answer`."""
    ports = _scope_by_protocol(scope)[1]
    return [f"meta l4proto {protocol} th dport != {listed} accept" for protocol, listed in sorted(ports.items())]


def _replies(policy: Policy) -> list[str]:
    """In reply direction the client's packet is judged alone."""
    servers = [f"ct direction reply {line}" for line in _server_answers(policy.scope)]
    return [*servers, f"ct direction reply {no_client_test(policy)} accept"]


def _note(policy: Policy, near: Mapping[Mask, str]) -> list[str]:
    """Log the packet, within its source's rate and within the rate of all: a noisy source leaves the others room.

    Packets from prefixes in which clients of registrations lie have a group and a rate of their own: strangers
    leave these room, however many they are. A source for which the set has no place is within the rate of all
    alone.
    """
    lookups = [
        f"{masked('ip' if mask.family == 4 else 'ip6', 'saddr', mask.family, mask.client_length)}"
        f" @{name} goto note_near"
        for mask, name in near.items()
    ]
    chains = chain("note", [*lookups, *_logging("noted", policy.log_packets_s, policy.log_group, "unlogged_flows")])
    if lookups:
        logging = _logging("nearby", policy.near_packets_s, policy.near_group, "unlogged_near_flows")
        chains += chain("note_near", logging)
    return chains


def _logging(noted: str, most: int, group: int, unlogged: str) -> list[str]:
    own, counter = max(1, most // SHARES), f"counter name {unlogged}"
    over = f"limit rate over {own}/second burst {own} packets"
    return [
        *(
            f"update @{noted}{family} {{ {client_at(family, 'saddr')} {over} }} {counter} return"
            for family in FAMILIES
        ),
        f"limit rate {most}/second burst {most} packets "
        f"log group {group} snaplen {_LOG_COPY} queue-threshold 1 return",
        counter,
    ]


def _server_answers(scope: tuple[Service, ...]) -> list[str]:
    """Accept the answers of servers inside to somebody whose own port happens to be in scope: the server's port is
    a system port, and no service in scope."""
    lines = []
    for protocol in sorted({each.protocol for each in scope if each.protocol in PROTOCOLS_WITH_PORTS}):
        taken = [(each.low, each.high) for each in scope if each.protocol == protocol]
        free = ", ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in _gaps(taken))
        if free:
            lines.append(f"meta l4proto {protocol} th sport {{ {free} }} accept")
    return lines


_LAST_SERVER_PORT = 1023
"""Ports that no client takes for itself (RFC 6335 §6: system ports)."""


def _gaps(taken: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What is left of 1..1023."""
    low = 1
    for first, last in (*sorted(taken), (_LAST_SERVER_PORT + 1, _LAST_SERVER_PORT + 1)):
        high = min(first - 1, _LAST_SERVER_PORT)
        if low <= high:
            yield low, high
        low = max(low, last + 1)
