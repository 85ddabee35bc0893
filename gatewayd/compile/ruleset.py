"""Policy and masks in use → the table's chains as nft text (nft 1.0.2 and newer). No I/O; equal in, equal out.

The chains, in the order a packet meets them:

    forward       flows known as registered, or judged; the interfaces; the rest leaves
    bridged       what a bridge only switches leaves, where br_netfilter sends it here
    scope         one look-up of the protocol, one of the port; the rest leaves
    judge         look up; else mark as judged, log, go on to unregistered
    reply         a packet in reply direction: the client's is judged like any other, the rest leaves
    answer        a new flow *from* a port in scope: registered, or left alone
    look_up       registered if the packet or its reverse is
    classify4/6   the bundle's look-ups, one for every set and role; then single services; then any service
    answered4/6   the same by the source port
    registered    set the mark, ask for conntrack events, count, accept
    judged        a flow judged before: before a packet of it is refused, it is looked up again
    unregistered  what the mode says

Who judges a flow. Its fate is that of its client's packet, whichever packet made the conntrack entry: after a
reboot, a failover, a flush or an idle hour it is the far end's. Then the client's packets run in reply direction,
and the far end's go to a port that is nobody's service. So

- a packet and its reverse are registered or not together: every look-up is made in both roles and, behind the
  destination port, by the source port as well;
- packets in reply direction that come from inside are judged like those in original direction. Where the interfaces
  do not tell inside from outside, these packets can make a flow registered and nothing else;
- a new flow from a port in scope to another port may be a far end's answer: likewise;
- an answer of a server inside (source port below 1024 and out of scope) to somebody whose own port happens to be
  in scope is no client's packet.

No packet is refused on the word of a mark: it may have come with the connection from another gateway, be another
program's, or be older than the registration. In `reject` and `limit` a flow known as judged is looked up again
where a packet of it would be refused, and so is whether the policy is about it at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from gatewayd.model.flow import Mode
from gatewayd.model.mask import ANY_PEER, Mask
from gatewayd.model.policy import Policy
from gatewayd.model.prefix import Family, format_address, mask_bytes
from gatewayd.model.service import BUNDLES, PROTOCOLS_WITH_PORTS, Service
from gatewayd.model.transaction import Ruleset, RulesTag

COUNTERS = (
    "registered_flows",
    "registered_packets",
    "unregistered_flows",
    "unregistered_packets",
    "limited_packets",
    "rejected_packets",
)
"""Named counters; they outlive a replacement of the rules."""

RULE_SETS = frozenset({"limited4", "limited6"})
"""Sets that the rules declare and fill themselves (mode limit); not part of the allowlist."""

CANARY_SEED = 0x67617465
"""Fixed, so that the same client addresses are in the canary on every gateway and after every restart."""

CONNTRACK_EVENTS = 0x7BF
"""`ct event set`: all of enum ip_conntrack_events but helper and synproxy. conntrackd needs the updates of
registered flows too; nft 1.0.6 has no words for mark and label here, hence the number."""

_PORT_PROTOCOLS = "{ " + ", ".join(str(number) for number in sorted(PROTOCOLS_WITH_PORTS)) + " }"
_LOG_COPY = 128
"""Bytes of a packet that NFLOG copies: headers, IPv6 extension headers included, of which we read addresses,
protocol and ports."""


def compile_ruleset(table: str, policy: Policy, hooks: Mapping[Mask, str], epoch: int) -> Ruleset:
    """The ruleset that looks into the set named for each mask in `hooks`, in this order."""
    names = frozenset(hooks.values())
    chains = [
        *_forward(policy, epoch),
        *_judge(policy, epoch),
        *_classify(4, hooks),
        *_classify(6, hooks),
        *_registered(policy),
        *_unregistered(policy),
    ]
    body = "\n".join(("\t" + line) if line else "" for line in [*_objects(policy), *chains])
    digest = _digest(table, body)
    fingerprint = policy_digest(policy)
    tag = f"gatewayd epoch={epoch} mode={policy.mode} policy={fingerprint} rules={digest}"
    text = f"table inet {table} {{\n{body.replace(_TAG_PLACE, tag)}\n}}\n"
    if policy.mode == "limit":
        # An element keeps the limiter it was made with: another limit begins with none.
        text += "".join(f"flush set inet {table} {name}\n" for name in sorted(RULE_SETS))
    return Ruleset(text, fingerprint, epoch, names, tag)


_TAG_PLACE = "@tag@"


def parse_tag(comment: str) -> RulesTag | None:
    """What the comment of the first rule says; None if it is not ours."""
    words = comment.split()
    if len(words) != 5 or words[0] != "gatewayd":
        return None
    fields = dict(word.partition("=")[::2] for word in words[1:])
    try:
        mode = _MODES[fields["mode"]]
        return RulesTag(int(fields["epoch"]), fields["policy"], fields["rules"], mode)
    except (KeyError, ValueError):
        return None


_MODES: dict[str, Mode] = {"observe": "observe", "mark": "mark", "limit": "limit", "reject": "reject"}


def policy_digest(policy: Policy) -> str:
    """Equal for policies under which every flow meets the same fate."""
    return _digest(repr(replace(policy, log_group=0, log_packets_s=0)))


def replace_script(ruleset: Ruleset, table: str, chains: Iterable[str]) -> str:
    """One nft transaction that puts `ruleset` in place of the `chains` that are there.

    All chains go and come in the same commit, so a base chain with another priority or a chain that somebody
    added costs no special case. Sets and counters stay.
    """
    names = sorted(chains)
    flush = [f"flush chain inet {table} {name}\n" for name in names]
    delete = [f"delete chain inet {table} {name}\n" for name in names]
    return "".join([*flush, *delete, ruleset.text])


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _hex(value: int) -> str:
    return f"0x{value:08x}"


def _chain(name: str, lines: Iterable[str]) -> list[str]:
    return ["", f"chain {name} {{", *(f"\t{line}" for line in lines), "}"]


def _objects(policy: Policy) -> list[str]:
    lines = [line for name in COUNTERS for line in (f"counter {name} {{", "}")]
    if policy.mode == "limit":
        for family, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
            lines += [
                f"set limited{family} {{",
                f"\ttype {kind}",
                "\tsize 65536",
                "\tflags dynamic,timeout",
                "\ttimeout 1m",
                "}",
            ]
    return lines


def _forward(policy: Policy, epoch: int) -> list[str]:
    layout = policy.mark_layout
    registered, judged = _hex(layout.registered), _hex(layout.judged(epoch))
    known = "judged" if policy.mode == "reject" else "unregistered"
    repaint = _downstream(policy.registered_dscp, policy.registered_mark)
    count = "counter name registered_packets"
    lines = [
        f"type filter hook forward priority {policy.priority}; policy accept;",
        f"ct mark & {registered} == {registered} {'goto registered_packet' if repaint else f'{count} accept'}"
        f' comment "{_TAG_PLACE}"',
        'meta iifkind "bridge" meta oifkind "bridge" jump bridged',
        f"ct mark & {_hex(layout.epoch_mask)} == {judged} goto {known}",
        *_interface_test(policy),
    ]
    chains = _chain("forward", lines) + _bridged()
    if repaint:
        chains += _chain("registered_packet", [count, *repaint, "accept"])
    return chains + _scope(policy.scope)


def _bridged() -> list[str]:
    """Where br_netfilter is on (Docker, Kubernetes and libvirt turn it on), a frame that a bridge only switches
    meets the forward hook too, as a packet that comes in and goes out by the bridge itself: it leaves. An answer to
    it may have no way back, and nobody told us which of the bridge's ports is a customer.

    nft compares with constants alone, so the two indexes are compared a hexadecimal digit at a time. What is routed
    back out by the bridge that it came in by looks the same, and leaves too.
    """
    lines = []
    for shift in range(0, 32, 4):
        # An index is a positive int: the last digit is 7 at most, and nft takes no other for one.
        mask = (0xF << shift) & 0x7FFFFFFF
        pairs = (f"{value} . {value}" for value in range(0, mask + 1, 1 << shift))
        lines.append(f"meta iif & 0x{mask:08x} . meta oif & 0x{mask:08x} != {{ {', '.join(pairs)} }} return")
    return _chain("bridged", [*lines, "accept"])


def _interface_test(policy: Policy) -> list[str]:
    """Traffic that does not cross between inside and outside leaves."""
    crossing = _crossing(policy)
    return [f"{test} goto scope" for test in crossing] if crossing else ["goto scope"]


def _crossing(policy: Policy) -> list[str]:
    """Tests, one of which is true of a packet between inside and outside; a side without names is any interface.
    None where neither side has names."""
    inside, outside = _interfaces(policy.inside), _interfaces(policy.outside)
    if inside and outside:
        pairs = [*product(inside, outside), *product(outside, inside)]
        return list(dict.fromkeys(f"iifname {incoming} oifname {outgoing}" for incoming, outgoing in pairs))
    return [f"{word} {names}" for word in ("iifname", "oifname") for names in inside or outside]


def _in_policy(policy: Policy) -> list[str]:
    """Return if a packet is between inside and outside and has a service in scope at either end, else accept. A
    mark alone never brings anything else before the policy."""
    whole, ports = _scope_by_protocol(policy.scope)
    ways = {protocol: "return" for protocol in whole} | {
        protocol: f"goto in_scope_{protocol}" for protocol in ports
    }
    lines = []
    if ways:
        targets = ", ".join(f"{protocol} : {way}" for protocol, way in sorted(ways.items()))
        lines.append(f"meta l4proto vmap {{ {targets} }}")
    chains = []
    for protocol, listed in sorted(ports.items()):
        either = [f"th {port} {listed} return" for port in ("dport", "sport")]
        chains += _chain(f"in_scope_{protocol}", [*either, "accept"])
    chains += _chain("in_scope", [*lines, "accept"])
    crossing = [f"{test} goto in_scope" for test in _crossing(policy)]
    return chains + _chain("in_policy", [*crossing, "accept"] if crossing else ["goto in_scope"])


def _interfaces(names: tuple[str, ...]) -> list[str]:
    """Values to compare an interface's name with. Before 1.0.3 nft refuses a wildcard in a set."""
    wild = sorted(f'"{name}"' for name in names if name.endswith("*"))
    plain = sorted(f'"{name}"' for name in names if not name.endswith("*"))
    return ([f"{{ {', '.join(plain)} }}"] if plain else []) + wild


def knows_inside(policy: Policy) -> bool:
    """Whether the rules can tell a packet's end inside from the one outside."""
    return bool(_from_client(policy))


def _from_client(policy: Policy) -> list[str]:
    """Tests, one of which is true of a packet that a client sent, among those that cross; none where that cannot be
    told: no interface is named, or one is named for both sides."""
    if _may_meet(policy.inside, policy.outside):
        return []
    if policy.inside:
        return [f"iifname {names}" for names in _interfaces(policy.inside)]
    return [f"oifname {names}" for names in _interfaces(policy.outside)]


def _may_meet(inside: Iterable[str], outside: Iterable[str]) -> bool:
    """Whether an interface may have a name of both sides; a `*` at the end stands for anything."""
    return any(
        (one.endswith("*") and other.startswith(one[:-1]))
        or (other.endswith("*") and one.startswith(other[:-1]))
        or one == other
        for one, other in product(inside, outside)
    )


def _scope(scope: tuple[Service, ...]) -> list[str]:
    """One look-up of the protocol; ports are looked at for protocols that have some in scope."""
    whole, ports = _scope_by_protocol(scope)
    ways = {protocol: "judge" for protocol in whole} | {protocol: f"scope_{protocol}" for protocol in ports}
    if not ways:
        return _chain("scope", [])
    targets = ", ".join(f"{protocol} : goto {target}" for protocol, target in sorted(ways.items()))
    chains = _chain("scope", [f"meta l4proto vmap {{ {targets} }}"])
    for protocol, listed in sorted(ports.items()):
        # `new` is every packet of a flow until it was answered.
        answer = f"ct state new,untracked th sport {listed} goto answer"
        chains += _chain(f"scope_{protocol}", [f"th dport {listed} goto judge", answer])
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


def _judge(policy: Policy, epoch: int) -> list[str]:
    layout = policy.mark_layout
    judge = ["ct direction reply goto reply", "goto judge_packet"]
    judge_packet = [
        "jump look_up",
        f"ct mark set ct mark & {_hex(layout.others)} | {_hex(layout.judged(epoch))}",
        "counter name unregistered_flows",
        f"limit rate {policy.log_packets_s}/second burst {policy.log_packets_s} packets "
        f"log group {policy.log_group} snaplen {_LOG_COPY} queue-threshold 1",
        "goto unregistered",
    ]
    from_client = _from_client(policy)
    if from_client:
        reply = [*_server_answers(policy.scope), *(f"{test} goto judge_packet" for test in from_client), "accept"]
    else:
        reply = ["jump look_up", "accept"]
    answer = [
        *_by_family("jump answered{}"),
        *_by_family("jump classify{}_rest"),
        "accept",
    ]
    look_up = [
        *_by_family("jump classify{}"),
        f"meta l4proto != {_PORT_PROTOCOLS} return",
        *_by_family("jump answered{}"),
    ]
    return [
        *_chain("judge", judge),
        *_chain("judge_packet", judge_packet),
        *_chain("reply", reply),
        *(_chain("answer", answer) if _has_ports(policy.scope) else []),
        *_chain("look_up", look_up),
    ]


def _by_family(way: str) -> list[str]:
    """No map: see _to_bundle."""
    return [f"meta nfproto ipv{family} {way.format(family)}" for family in (4, 6)]


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


def _has_ports(scope: tuple[Service, ...]) -> bool:
    """Whether the scope has single ports of a protocol, rather than all of them."""
    return any((each.low, each.high) != (0, 65535) for each in scope)


def _classify(family: Family, hooks: Mapping[Mask, str]) -> list[str]:
    """`classifyN` goes to the look-ups of the packet's own bundle (`classifyN_bundle`), then to those of protocols
    and ports in use, and last to those for any service.

    A test for each bundle in turn, without a map before them, costs a new flow more than the look-ups behind it:
    1.7 × as many new flows a second with the map, at 31 k registrations and 298 look-ups (6.18).

    `answeredN` is what depends on the port once more, the source port being the service's.
    """
    groups: dict[str, list[Mask]] = {}
    for mask in hooks:
        if mask.family == family:
            group = mask.selector if mask.selector in BUNDLES else ("ports" if mask.port_length else mask.selector)
            groups.setdefault(group, []).append(mask)
    chains: list[str] = []
    for group in sorted(groups.keys() & {*BUNDLES, "proto"}):
        chains += _chain(f"classify{family}_{group}", _lookups(groups[group], hooks))
    bundles = sorted(groups.keys() & BUNDLES.keys())
    ways: dict[str, list[str]] = {}
    for name, port in (("classify", "dport"), ("answered", "sport")):
        to_bundle = _to_bundle(family, bundles, port)
        chains += _chain(f"{name}{family}_bundle", to_bundle) if to_bundle else []
        ways[port] = [f"jump {name}{family}_bundle"] if to_bundle else []
        if "ports" in groups:
            chains += _chain(f"{name}{family}_ports", _lookups(groups["ports"], hooks, port))
            ways[port].append(f"meta l4proto {_PORT_PROTOCOLS} jump {name}{family}_ports")
    rest = [f"jump classify{family}_proto"] if "proto" in groups else []
    rest += _lookups(groups.get("", []), hooks)
    chains += _chain(f"classify{family}_rest", rest)
    chains += _chain(f"classify{family}", [*ways["dport"], f"goto classify{family}_rest"])
    return chains + _chain(f"answered{family}", ways["sport"])


def _to_bundle(family: Family, names: Sequence[str], port: str) -> list[str]:
    """Go to the look-ups of the packet's bundle. No service is in two, so a packet is in one at most by a port of
    it; by a protocol, all of which is of a bundle, its `dport` look-ups stand for both roles.

    A map is never all: while rules are replaced, a packet that is on its way through the old ones finds their maps
    empty (the kernel makes the elements of a map inactive in the next generation, nf_tables_api.c:
    nft_mapelem_deactivate, since 6.10 and in stable kernels). Seen on 6.18: 6 of a million registered flows refused
    in 450 replacements. Sets that are no maps keep theirs, so behind each map the same is asked of sets.
    """
    by_port = {
        name: [f"{each.protocol} . {each.low}" for each in sorted(BUNDLES[name]) if each.low == each.high]
        for name in names
    }
    by_protocol = {
        name: [f"{each.protocol}" for each in sorted(BUNDLES[name]) if each.low != each.high]
        for name in names
        if port == "dport"
    }
    key = f"meta l4proto . th {port}"
    return [*_map_and_sets(family, key, by_port), *_map_and_sets(family, "meta l4proto", by_protocol)]


def _map_and_sets(family: Family, key: str, bundles: Mapping[str, list[str]]) -> list[str]:
    """`bundles`: values of the key by the name of their bundle."""
    found = {name: values for name, values in bundles.items() if values}
    if not found:
        return []
    ways = ", ".join(f"{each} : goto classify{family}_{name}" for name, values in found.items() for each in values)
    return [
        f"{key} vmap {{ {ways} }}",
        *(f"{key} {{ {', '.join(values)} }} goto classify{family}_{name}" for name, values in found.items()),
    ]


def _lookups(masks: Sequence[Mask], hooks: Mapping[Mask, str], service: str = "dport") -> list[str]:
    """The look-ups of the masks' sets: first for the client as source, then as destination of what comes from the
    far end. `service`: the port that is the service's."""
    return [
        f"{_guard(mask)}{_key(mask, client, peer, service)} @{hooks[mask]} goto registered"
        for client, peer in (("saddr", "daddr"), ("daddr", "saddr"))
        for mask in masks
    ]


def _guard(mask: Mask) -> str:
    """Other protocols have something else where a port would be."""
    needs_one = mask.source_bits > 0 and not mask.port_length
    return f"meta l4proto {_PORT_PROTOCOLS} " if needs_one else ""


def _key(mask: Mask, client: str, peer: str, service: str) -> str:
    """A block of ports is the client's: the source port of what it sends, the destination port of what it gets."""
    word = "ip" if mask.family == 4 else "ip6"
    key = _masked(word, client, mask.family, mask.client_length)
    if mask.peer_length != ANY_PEER:
        key += " . " + _masked(word, peer, mask.family, mask.peer_length)
    if mask.has_protocol:
        key += " . meta l4proto"
    if mask.port_length:
        key += " . " + _masked_port(service, mask.port_length)
    if mask.source_bits > 0:
        key += " . " + _masked_port("sport" if client == "saddr" else "dport", mask.source_bits)
    return key


def _masked_port(field: str, bits: int) -> str:
    return f"th {field}" if bits == 16 else f"th {field} & 0x{(0xFFFF << (16 - bits)) & 0xFFFF:04x}"


def _masked(word: str, field: str, family: Family, length: int) -> str:
    width = 4 if family == 4 else 16
    if length == width * 8:
        return f"{word} {field}"
    return f"{word} {field} & {format_address(mask_bytes(width, length))}"


def _registered(policy: Policy) -> list[str]:
    layout = policy.mark_layout
    lines = [
        f"ct event set 0x{CONNTRACK_EVENTS:x}",
        f"ct mark set ct mark & {_hex(layout.others)} | {_hex(layout.registered)}",
        "counter name registered_flows",
        "counter name registered_packets",
        *_downstream(policy.registered_dscp, policy.registered_mark),
        "accept",
    ]
    return _chain("registered", lines)


def _unregistered(policy: Policy) -> list[str]:
    """In `reject`, `judged` is for flows known as judged: they are looked up again before a packet is refused."""
    count = "counter name unregistered_packets"
    canary = _canary(policy)
    enforced = ["jump canary"] if canary else []
    if policy.mode in ("mark", "limit"):
        enforced += _downstream(policy.unregistered_dscp, policy.unregistered_mark)
    chains = _chain("canary", canary) if canary else []
    if policy.mode == "limit":
        chains += _limit(policy)
        enforced.append("goto throttle")
    elif policy.mode == "reject":
        refuse = [
            "counter name rejected_packets",
            "meta l4proto tcp reject with tcp reset",
            "reject with icmpx admin-prohibited",
        ]
        chains += _chain("refuse", refuse)
        chains += _in_policy(policy)
        chains += _chain("judged", [count, *enforced, "jump look_up", "jump in_policy", "goto refuse"])
        enforced.append("goto refuse")
    else:
        enforced.append("accept")
    return chains + _chain("unregistered", [count, *(enforced if policy.mode != "observe" else ["accept"])])


def _limit(policy: Policy) -> list[str]:
    """A rate for each client address."""
    rate = f"limit rate over {policy.limit_bytes_s} bytes/second burst {policy.limit_bytes_s} bytes"

    def limit(address: str, before: str = "") -> list[str]:
        return [
            f"{before}update @limited{family} {{ {address.format(word)} {rate} }} goto over_limit"
            for family, word in ((4, "ip"), (6, "ip6"))
        ]

    from_client = _from_client(policy)
    if from_client:
        chains = _chain(
            "throttle", [*(f"{test} goto throttle_source" for test in from_client), *limit("{} daddr"), "accept"]
        )
        chains += _chain("throttle_source", [*limit("{} saddr"), "accept"])
    else:
        chains = _chain(
            "throttle", [*limit("ct original {} saddr"), *limit("{} saddr", "ct state untracked "), "accept"]
        )
    drop = "counter name limited_packets drop"
    return _in_policy(policy) + _chain("over_limit", ["jump look_up", "jump in_policy", drop]) + chains


def _canary(policy: Policy) -> list[str]:
    """Packets of clients beyond the canary are accepted. The client is the end inside; where that cannot be told,
    the end that opened the flow, or the source where no flow is known."""
    percent = policy.canary_percent
    if percent >= 100 or policy.mode == "observe":
        return []
    beyond = f"mod 100 seed 0x{CANARY_SEED:x} >= {percent} accept"
    families = (("ipv4", "ip"), ("ipv6", "ip6"))
    from_client = _from_client(policy)
    if not from_client:
        return [
            f"meta nfproto {family} {state}jhash {address.format(word)} {beyond}"
            for state, address in (("", "ct original {} saddr"), ("ct state untracked ", "{} saddr"))
            for family, word in families
        ]
    return [
        *(
            f"{test} meta nfproto {family} jhash {word} saddr {beyond}"
            for test in from_client
            for family, word in families
        ),
        *(f"{test} return" for test in from_client),
        *(f"meta nfproto {family} jhash {word} daddr {beyond}" for family, word in families),
    ]


def _downstream(dscp: int | None, mark: int | None) -> list[str]:
    """What boxes behind us see: the DSCP (RFC 2474) and the packet mark."""
    lines = []
    if dscp is not None:
        lines += [f"ip dscp set {dscp}", f"ip6 dscp set {dscp}"]
    if mark is not None:
        lines.append(f"meta mark set {_hex(mark)}")
    return lines
