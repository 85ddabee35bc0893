"""Policy and masks in use → the table's chains as nft text (nft 1.0.6 and newer). No I/O; equal in, equal out.

The chains, in the order a packet meets them:

    forward       flows known as registered or judged; the interfaces; the rest leaves
    scope         one look-up of the protocol, one of the port; the rest leaves
    judge         original direction only; classify, else mark as judged, log, go on to unregistered
    classify4/6   a map to the bundle's look-ups, one for every set and role; then single services; then any service
    registered    set the mark, ask for conntrack events, count, accept
    unregistered  what the mode says
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

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
        for family, word in ((4, "ip"), (6, "ip6")):
            lines += [
                f"set limited{family} {{",
                f"\ttypeof ct original {word} saddr",
                "\tsize 65536",
                "\tflags dynamic,timeout",
                "\ttimeout 1m",
                "}",
            ]
    return lines


def _forward(policy: Policy, epoch: int) -> list[str]:
    layout = policy.mark_layout
    registered, judged = _hex(layout.registered), _hex(layout.judged(epoch))
    repaint = _downstream(policy.registered_dscp, policy.registered_mark)
    count = "counter name registered_packets"
    lines = [
        f"type filter hook forward priority {policy.priority}; policy accept;",
        f"ct mark & {registered} == {registered} {'goto registered_packet' if repaint else f'{count} accept'}"
        f' comment "{_TAG_PLACE}"',
        f"ct mark & {_hex(layout.epoch_mask)} == {judged} goto unregistered",
        *_interface_test(policy),
    ]
    chains = _chain("forward", lines)
    if repaint:
        chains += _chain("registered_packet", [count, *repaint, "accept"])
    return chains + _scope(policy.scope)


def _interface_test(policy: Policy) -> list[str]:
    """Traffic that does not cross between inside and outside leaves; a side without names is any interface."""
    inside, outside = _interface_set(policy.inside), _interface_set(policy.outside)
    if inside and outside:
        crossing = [f"iifname {inside} oifname {outside}", f"iifname {outside} oifname {inside}"]
    elif inside or outside:
        crossing = [f"iifname {inside or outside}", f"oifname {inside or outside}"]
    else:
        return ["goto scope"]
    return [f"{test} goto scope" for test in crossing]


def _interface_set(names: tuple[str, ...]) -> str:
    return "{ " + ", ".join(f'"{name}"' for name in sorted(names)) + " }" if names else ""


def _scope(scope: tuple[Service, ...]) -> list[str]:
    """One look-up of the protocol; ports are looked at for protocols that have some in scope."""
    whole = {service.protocol for service in scope if (service.low, service.high) == (0, 65535)}
    ports: dict[int, list[str]] = {}
    for service in sorted(scope):
        if service.protocol not in whole:
            single = service.low == service.high
            ports.setdefault(service.protocol, []).append(
                f"{service.low}" if single else f"{service.low}-{service.high}"
            )
    ways = {protocol: "judge" for protocol in whole} | {protocol: f"scope_{protocol}" for protocol in ports}
    if not ways:
        return _chain("scope", [])
    targets = ", ".join(f"{protocol} : goto {target}" for protocol, target in sorted(ways.items()))
    chains = _chain("scope", [f"meta l4proto vmap {{ {targets} }}"])
    for protocol, values in sorted(ports.items()):
        chains += _chain(f"scope_{protocol}", [f"th dport {{ {', '.join(values)} }} goto judge"])
    return chains


def _judge(policy: Policy, epoch: int) -> list[str]:
    layout = policy.mark_layout
    lines = [
        "ct direction reply accept",
        "meta nfproto vmap { ipv4 : jump classify4, ipv6 : jump classify6 }",
        f"ct mark set ct mark & {_hex(layout.others)} | {_hex(layout.judged(epoch))}",
        "counter name unregistered_flows",
        f"limit rate {policy.log_packets_s}/second burst {policy.log_packets_s} packets "
        f"log group {policy.log_group} snaplen {_LOG_COPY} queue-threshold 1",
        "goto unregistered",
    ]
    return _chain("judge", lines)


def _classify(family: Family, hooks: Mapping[Mask, str]) -> list[str]:
    """`classifyN` goes to the look-ups of the flow's own bundle by one map, then to those of protocols and ports in
    use, and last to those for any service.

    A test for each bundle in turn costs a new flow more than the look-ups behind it: 1.7 × as many new flows a
    second with the map, at 31 k registrations and 298 look-ups (6.18).
    """
    groups: dict[str, list[Mask]] = {}
    for mask in hooks:
        if mask.family == family:
            group = mask.selector if mask.selector in BUNDLES else ("ports" if mask.port_length else mask.selector)
            groups.setdefault(group, []).append(mask)
    chains: list[str] = []
    for group in sorted(groups.keys() - {""}):
        chains += _chain(f"classify{family}_{group}", _lookups(groups[group], hooks))
    lines = _to_bundles(family, sorted(groups.keys() & BUNDLES.keys()))
    if "ports" in groups:
        lines.append(f"meta l4proto {_PORT_PROTOCOLS} jump classify{family}_ports")
    if "proto" in groups:
        lines.append(f"jump classify{family}_proto")
    lines += _lookups(groups.get("", []), hooks)
    return chains + _chain(f"classify{family}", lines)


def _to_bundles(family: Family, names: Iterable[str]) -> list[str]:
    """No service is in two bundles, so a flow is in one at most."""
    ports: dict[tuple[int, int], str] = {}
    protocols: dict[int, str] = {}
    for name in names:
        for service in BUNDLES[name]:
            if service.low == service.high:
                ports[service.protocol, service.low] = name
            else:
                protocols[service.protocol] = name
    lines = []
    for key, pairs in (
        ("meta l4proto . th dport", {f"{protocol} . {port}": name for (protocol, port), name in ports.items()}),
        ("meta l4proto", {f"{protocol}": name for protocol, name in protocols.items()}),
    ):
        if pairs:
            ways = ", ".join(f"{value} : jump classify{family}_{name}" for value, name in pairs.items())
            lines.append(f"{key} vmap {{ {ways} }}")
    return lines


def _lookups(masks: Sequence[Mask], hooks: Mapping[Mask, str]) -> list[str]:
    """The look-ups of the masks' sets: first for the client as source, then as destination of a connection from the
    far end, which is rarer, and which an address that a subscriber has for a while is never registered for."""
    return [
        f"{_guard(mask)}{_key(mask, client, peer)} @{hooks[mask]} goto registered"
        for client, peer in (("saddr", "daddr"), ("daddr", "saddr"))
        for mask in masks
        if client == "saddr" or not mask.is_bound
    ]


def _guard(mask: Mask) -> str:
    """Other protocols have something else where a source port would be."""
    needs_one = mask.source_bits > 0 and not mask.port_length
    return f"meta l4proto {_PORT_PROTOCOLS} " if needs_one else ""


def _key(mask: Mask, client: str, peer: str) -> str:
    word = "ip" if mask.family == 4 else "ip6"
    key = _masked(word, client, mask.family, mask.client_length)
    if mask.peer_length != ANY_PEER:
        key += " . " + _masked(word, peer, mask.family, mask.peer_length)
    if mask.has_protocol:
        key += " . meta l4proto"
    if mask.port_length:
        key += " . " + _masked_port("dport", mask.port_length)
    if mask.source_bits > 0:
        key += " . " + _masked_port("sport", mask.source_bits)
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
    lines = ["counter name unregistered_packets"]
    if policy.mode != "observe":
        lines += _canary(policy.canary_percent)
    if policy.mode in ("mark", "limit"):
        lines += _downstream(policy.unregistered_dscp, policy.unregistered_mark)
    if policy.mode == "limit":
        rate = f"limit rate over {policy.limit_bytes_s} bytes/second burst {policy.limit_bytes_s} bytes"
        for family, word in ((4, "ip"), (6, "ip6")):
            drop = f"{rate} }} counter name limited_packets drop"
            lines.append(f"update @limited{family} {{ ct original {word} saddr {drop}")
            lines.append(f"ct state untracked update @limited{family} {{ {word} saddr {drop}")
    elif policy.mode == "reject":
        lines += [
            "counter name rejected_packets",
            "meta l4proto tcp reject with tcp reset",
            "reject with icmpx admin-prohibited",
        ]
    return _chain("unregistered", [*lines, "accept"])


def _canary(percent: int) -> list[str]:
    """Packets beyond the canary leave: by who opened the flow, or by their source where no flow is known."""
    if percent >= 100:
        return []
    beyond = f"saddr mod 100 seed 0x{CANARY_SEED:x} >= {percent} accept"
    return [
        f"meta nfproto ipv4 jhash ct original ip {beyond}",
        f"meta nfproto ipv6 jhash ct original ip6 {beyond}",
        f"meta nfproto ipv4 ct state untracked jhash ip {beyond}",
        f"meta nfproto ipv6 ct state untracked jhash ip6 {beyond}",
    ]


def _downstream(dscp: int | None, mark: int | None) -> list[str]:
    """What boxes behind us see: the DSCP (RFC 2474) and the packet mark."""
    lines = []
    if dscp is not None:
        lines += [f"ip dscp set {dscp}", f"ip6 dscp set {dscp}"]
    if mark is not None:
        lines.append(f"meta mark set {_hex(mark)}")
    return lines
