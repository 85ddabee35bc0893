"""What comes of a packet once it is known as registered or unregistered: nft text of these chains. Pure.

Which client addresses are in the canary is computed here too, as the kernel computes nft's `jhash … mod 100`
(include/linux/jhash.h; net/netfilter/nft_hash.c scales with reciprocal_scale).
"""

from __future__ import annotations

import sys

from gatewayd.compile.interfaces import client_tests, knows_inside, no_client_test
from gatewayd.compile.judging import as_hex, asks_again, client_at, in_policy
from gatewayd.compile.lookups import FAMILIES, chain
from gatewayd.compile.rule_sets import UNFOLLOWED
from gatewayd.model.flow import Canary, Flow
from gatewayd.model.policy import Policy
from gatewayd.model.prefix import Family

CANARY_SEED = 0x67617465
"""Fixed, so that the same client addresses are in the canary on every gateway and after every restart."""

CONNTRACK_EVENTS = 0x7BF
"""`ct event set`: all of enum ip_conntrack_events but helper and synproxy. conntrackd needs the updates of
registered flows too; nft 1.0.6 has no words for mark and label here, hence the number."""

_M = 0xFFFFFFFF
_INITIAL = 0xDEADBEEF


def registered_chain(policy: Policy) -> list[str]:
    layout = policy.mark_layout
    lines = [
        f"ct event set 0x{CONNTRACK_EVENTS:x}",
        f"ct mark set ct mark & {as_hex(layout.others)} | {as_hex(layout.registered)}",
        "counter name registered_flows",
        "counter name registered_packets",
        *downstream(policy.registered_dscp, policy.registered_mark),
        "accept",
    ]
    return chain("registered", lines)


def unregistered_chains(policy: Policy) -> list[str]:
    """`unregistered` is for a flow's first packet, behind all look-ups. Where its mode does something to packets,
    `judged` is for flows known as judged: these are looked up again before (`judging.asks_again`), and whether the
    policy is about them is asked then.
    """
    begin = ["counter name unregistered_packets", *_canary(policy)]
    if policy.mode in ("mark", "limit"):
        begin += downstream(policy.unregistered_dscp, policy.unregistered_mark)
    if policy.mode == "reject":
        refuse = [
            "counter name rejected_packets",
            "meta l4proto tcp reject with tcp reset",
            "reject with icmpx admin-prohibited",
        ]
        return [
            *chain("refuse", refuse),
            *in_policy(policy, "refuse"),
            *chain("judged", [*begin, "goto look_up"]),
            *chain("unregistered", [*begin, "goto refuse"]),
        ]
    if not asks_again(policy):
        return chain("unregistered", [*begin, "accept"])
    over = (
        "counter name limited_packets drop" if policy.mode == "limit" else "counter name over_limit_packets accept"
    )
    return [
        *chain("over_limit", [over]),
        *in_policy(policy, "over_limit"),
        *_throttle("judged_", policy, "look_up"),
        *_throttle("", policy, "over_limit"),
        *chain("judged", [*begin, "goto judged_throttle"]),
        *chain("unregistered", [*begin, "goto throttle"]),
    ]


def _throttle(prefix: str, policy: Policy, over: str) -> list[str]:
    """A rate for each client, and one for all clients together that the kernel does not follow: beyond it, to the
    chain `over`. In observe the same rules count what they would drop. All copies share the rates: these are in
    elements of sets.

    Where the set of limiters has no place for a new client, the rule that would add it ends without a match. So it
    does for a client within its rate (net/netfilter/nft_dynset.c: nft_dynset_eval). Another set, half as large and
    with the same timeout, says whether the client has a place.
    """
    tests = client_tests(policy)
    if tests:
        ends = [*((f"{test} ", "_source", "saddr") for test in tests), (f"{no_client_test(policy)} ", "", "daddr")]
    else:
        ends = [("", "", "ct original saddr"), ("ct state untracked ", "_source", "saddr")]
    ways, chains = [], []
    for test, role, end in ends:
        for family in FAMILIES:
            client, name = _limited(family, end), f"{prefix}throttle{role}{family}"
            ways.append(f"{test}update @followed{family} {{ {client} }} goto {name}")
            rules = [f"update @limiter{family} {{ {client} {_rate(policy)} }} goto {over}", "accept"]
            chains.append((name, rules))
    shared = f"update @{UNFOLLOWED} {{ meta mark & 0x00000000 {_rate(policy)} }} goto {over}"
    return [
        *chain(f"{prefix}throttle", [*ways, f"goto {prefix}unfollowed"]),
        *(line for name, rules in dict(chains).items() for line in chain(name, rules)),
        *chain(f"{prefix}unfollowed", ["counter name unfollowed_packets", shared, "accept"]),
    ]


def _limited(family: Family, end: str) -> str:
    """The client at an end of a packet, or of its connection: `ct original saddr`."""
    of, _, field = end.rpartition(" ")
    return f"{of} {client_at(family, field)}" if of else client_at(family, field)


def _rate(policy: Policy) -> str:
    return f"limit rate over {policy.limit_bytes_s} bytes/second burst {policy.limit_bytes_s} bytes"


def _canary(policy: Policy) -> list[str]:
    """Packets of clients beyond the canary are accepted. The client is the end inside; where that cannot be told,
    the end that opened the flow, or the source where no flow is known.

    Of an IPv6 address the first half is hashed, so that all of a client's /64 is in it or beyond it. nft hashes no
    masked value; it loads these 8 bytes from the packet, whose destination in reply direction is the opener's.
    """
    percent = policy.canary_percent
    if percent >= 100 or policy.mode == "observe":
        return []
    source, destination = (
        [f"meta nfproto ipv{family} {bucket_of(family, end)} >= {percent} accept" for family in FAMILIES]
        for end in ("saddr", "daddr")
    )
    from_client = client_tests(policy)
    if not from_client:
        return [
            *(f"ct direction reply {each}" for each in destination),
            *(
                f"{test} {each}"
                for test in ("ct direction original", "ct state invalid,untracked")
                for each in source
            ),
        ]
    return [
        *(f"{test} {each}" for test in from_client for each in source),
        *(f"{no_client_test(policy)} {each}" for each in destination),
    ]


_HALF_SOURCE, _HALF_DESTINATION = "@nh,64,64", "@nh,192,64"
"""Bits of the IPv6 header (RFC 8200 §3): the first half of an address."""


def bucket_of(family: Family, end: str) -> str:
    """The bucket of the client at an end of a packet, 0..99, in nft's words; `canary_bucket` is the same."""
    half = _HALF_SOURCE if end == "saddr" else _HALF_DESTINATION
    return f"jhash {f'ip {end}' if family == 4 else half} mod 100 seed 0x{CANARY_SEED:x}"


def downstream(dscp: int | None, mark: int | None) -> list[str]:
    """What boxes behind us see: the DSCP (RFC 2474) and the packet mark."""
    lines = []
    if dscp is not None:
        lines += [f"ip dscp set {dscp}", f"ip6 dscp set {dscp}"]
    if mark is not None:
        lines.append(f"meta mark set {as_hex(mark)}")
    return lines


def judge_canary(policy: Policy, flow: Flow) -> Canary | None:
    """Whether the client of a flow that its source opened is in the canary; None at 100 %. "source", "destination":
    only this end is in it. The rules go by the end inside then, and which that is only a packet tells."""
    if policy.canary_percent >= 100:
        return None
    source, destination = (canary_bucket(each) < policy.canary_percent for each in (flow.source, flow.destination))
    if source != destination and knows_inside(policy):
        return "source" if source else "destination"
    return "in" if source else "out"


def canary_bucket(address: bytes) -> int:
    """0..99; the address is in a canary of P percent when this is below P. All of an IPv6 /64 has one bucket."""
    return (jhash(address if len(address) == 4 else address[:8], CANARY_SEED) * 100) >> 32


def jhash(raw: bytes, seed: int) -> int:
    """Bob Jenkins' lookup3 as the kernel has it; words in host byte order, as the kernel reads them."""
    length = len(raw)
    a = b = c = (_INITIAL + length + seed) & _M
    offset = 0
    while length > 12:
        a = (a + _word(raw, offset)) & _M
        b = (b + _word(raw, offset + 4)) & _M
        c = (c + _word(raw, offset + 8)) & _M
        a, b, c = _mix(a, b, c)
        length -= 12
        offset += 12
    tail = raw[offset:].ljust(12, b"\0")
    a = (a + int.from_bytes(tail[0:4], "little")) & _M
    b = (b + int.from_bytes(tail[4:8], "little")) & _M
    c = (c + int.from_bytes(tail[8:12], "little")) & _M
    return _final(a, b, c)


def _word(raw: bytes, offset: int) -> int:
    return int.from_bytes(raw[offset : offset + 4], sys.byteorder)


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (32 - bits)) & _M


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    """__jhash_mix: six like steps in which the words change roles."""
    for bits in (4, 6, 8, 16, 19, 4):
        a = ((a - c) & _M) ^ _rotate(c, bits)
        c = (c + b) & _M
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = ((c ^ b) - _rotate(b, 14)) & _M
    a = ((a ^ c) - _rotate(c, 11)) & _M
    b = ((b ^ a) - _rotate(a, 25)) & _M
    c = ((c ^ b) - _rotate(b, 16)) & _M
    a = ((a ^ c) - _rotate(c, 4)) & _M
    b = ((b ^ a) - _rotate(a, 14)) & _M
    return ((c ^ b) - _rotate(b, 24)) & _M
