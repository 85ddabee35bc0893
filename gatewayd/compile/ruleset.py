"""Settings and a moment → the policy; policy and masks in use → the table's chains as nft text. No I/O.

The same input gives the same text, for nft 1.0.2 and newer.

The chains, in the order a packet meets them:

    forward         flows known as registered, or judged; what a bridge only switches; the interfaces; the rest
                    leaves
    scope           one look-up of the protocol, one of the port; the rest leaves
    uncrossed       packets with a service in scope between interfaces that are not inside and outside: counted
    judge           in reply direction the client's packet goes on, the rest leaves
    answer          a new flow *from* a port in scope goes to the last of the look-ups
    look_up         and the stages behind it (`lookups`): registered if the packet or its reverse is
    endpoints4/6    where there are any: registered if it is to an endpoint, left alone if from one (`endpoints`)
    missed          nothing registers it. Left alone, or: counted (`counting`), marked as judged, logged (`note`,
                    `note_near`), and on to unregistered
    registered      set the mark, ask for conntrack events, count, accept
    unregistered    what the mode says
    judged          a flow judged before: before anything is done to a packet of it, it is looked up again
    in_policy       … and so is whether the policy is about it

Which way a packet goes. From chain to chain by `goto`, and a chain that looks something up ends in a `goto` to the
next. So a way that ends early, in a chain that another program flushed, ends in the policy of `forward`: accept.
Nothing is refused, limited or marked as judged but at the end of the whole way. `jump` is for counting and logging
alone. The kernel lets a way have 16 chains, with `goto` like with `jump` (NFT_JUMP_STACK_SIZE): no way of ours has
more. Before 6.19 it walks every way when it checks rules (nft_chain_validate), a million rules in some 10 ms.

All that look something up share one way with one end. `missed` tells them apart: a flow known as judged by its
mark, a packet in reply direction by that, a packet of `answer` by its destination port. In `limit` the rules of the
rate are there twice: those for flows known as judged come before the look-ups, and no way may lead in a circle.

Who judges a flow. Its fate is that of its client's packet, whichever packet made the conntrack entry: after a
reboot, a failover, a flush or an idle hour it is the far end's. Then the client's packets run in reply direction,
and the far end's go to a port that is no service's. So

- a packet and its reverse are registered or not together: every look-up is made in both roles and, behind the
  destination port, by the source port as well;
- packets in reply direction that come from inside are judged like those in original direction. Where the interfaces
  do not tell inside from outside, these packets can make a flow registered and nothing else;
- a new flow from a port in scope to another port may be a far end's answer: likewise;
- a packet from a provider's endpoint makes no flow registered, and is not refused where it may be an answer: the
  client's packet decides;
- an answer of a server inside (source port below 1024 and out of scope) to somebody whose own port happens to be
  in scope is no client's packet.

No packet is refused on the word of a mark: it may have come with the connection from another gateway, be another
program's, or be older than the registration. In `reject` and `limit` a flow known as judged is looked up again
where a packet of it would be refused, and so is whether the policy is about it at all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

from gatewayd.compile.counting import counting_chains, counting_rules
from gatewayd.compile.effects import downstream, registered_chain, unregistered_chains
from gatewayd.compile.endpoints import endpoint_chains, ends_of_lookups
from gatewayd.compile.judging import (
    answers_before_endpoints,
    as_hex,
    asks_again,
    interface_tests,
    judging_chains,
    scope_chains,
    uncrossed_chain,
)
from gatewayd.compile.lookups import chain, lookup_chains
from gatewayd.compile.rule_sets import flushed_sets_of, rule_sets_of
from gatewayd.model.flow import Mode
from gatewayd.model.mask import ANY_PEER, Mask, parse_set_name
from gatewayd.model.moment import earliest_of, latest_of
from gatewayd.model.policy import MarkLayout, Policy, Stage
from gatewayd.model.transaction import Ruleset, RulesTag
from gatewayd.settings.model import PolicySettings, Settings

COUNTERS = (
    "registered_flows",
    "registered_packets",
    "unregistered_flows",
    "unregistered_packets",
    "unlogged_flows",
    "unlogged_near_flows",
    "uncrossed_packets",
    "limited_packets",
    "unfollowed_packets",
    "rejected_packets",
    "reclassified_flows",
    "unplaced_flows",
    "repeated_packets",
    "uncertain_packets",
    "over_limit_packets",
)
"""Named counters; they outlive a replacement of the rules."""

_TAG_PLACE = "@tag@"
_MODES: dict[str, Mode] = {"observe": "observe", "mark": "mark", "limit": "limit", "reject": "reject"}
_REFERENCE = re.compile(r"@(?!nh,)(\w+)")
OTHER_TABLE = "gatewayd_rehearsal"


def policy_in_force(settings: Settings, now: float) -> Policy:
    """The policy of the file at a moment."""
    return policy_of(settings, Stage(effective_mode(settings.policy, now), settings.policy.canary_percent))


def policy_of(settings: Settings, stage: Stage) -> Policy:
    """At a stage, whatever the time is."""
    policy, kernel = settings.policy, settings.kernel
    limit = policy.on_unregistered.limit
    return Policy(
        mode=stage.mode,
        scope=policy.scope,
        mark_layout=MarkLayout(kernel.ct_mark_mask),
        priority=kernel.priority,
        inside=policy.interfaces.inside,
        outside=policy.interfaces.outside,
        canary_percent=stage.canary_percent,
        registered_dscp=policy.on_registered.dscp,
        registered_mark=policy.on_registered.mark,
        unregistered_dscp=policy.on_unregistered.dscp,
        unregistered_mark=policy.on_unregistered.mark,
        limit_bytes_s=limit.bytes_per_second if limit is not None else 0,
        log_group=kernel.nflog_group,
        log_packets_s=kernel.nflog_rate_per_s,
        counts=settings.watch.unregistered != "off",
        shadows_limit=settings.watch.shadow_limit and limit is not None,
        near_group=kernel.near_miss_group,
        near_packets_s=kernel.near_miss_rate_per_s,
    )


def effective_mode(policy: PolicySettings, now: float, *, is_armed: bool = False) -> Mode:
    """Of the file at a moment: observe before `enforce_from` and from `enforce_until` on.

    `now` may be a Moment. Where it is not certain, the side of observe wins at either end: nothing is armed before
    its time has certainly come, and none stays armed once its end may have come. Enforcement that ends early harms
    nobody; what outlasts its order does. `is_armed`: a mode is in force already, and stays while it may have begun.
    """
    return "observe" if schedule_of(policy, now, is_armed=is_armed) != "in force" else policy.mode


def schedule_of(
    policy: PolicySettings, now: float, *, is_armed: bool = False
) -> Literal["in force", "not begun", "over"]:
    """Where a moment lies between `enforce_from` and `enforce_until`, as `effective_mode` judges it."""
    begins_s, ends_s = policy.enforce_from, policy.enforce_until
    if ends_s is not None and ends_s <= latest_of(now):
        return "over"
    has_begun = begins_s is None or begins_s <= (latest_of(now) if is_armed else earliest_of(now))
    return "in force" if has_begun else "not begun"


def compile_ruleset(table: str, policy: Policy, hooks: Mapping[Mask, str], epoch: int) -> Ruleset:
    """The ruleset that looks into the set named for each mask in `hooks`, in this order."""
    names = frozenset(hooks.values())
    chains = [
        *_forward(policy, epoch),
        *lookup_chains(hooks, ends_of_lookups(hooks)),
        *endpoint_chains(policy, hooks, answers_before_endpoints(policy, epoch)),
        *judging_chains(
            policy,
            epoch,
            {mask: name for mask, name in hooks.items() if mask.is_near},
            counting_rules(policy),
        ),
        *counting_chains(policy),
        *registered_chain(policy),
        *unregistered_chains(policy),
    ]
    body = "\n".join(("\t" + line) if line else "" for line in [*_objects(policy), *chains])
    digest = _digest(table, body)
    fingerprint = policy_digest(policy)
    tag = f"gatewayd epoch={epoch} mode={policy.mode} policy={fingerprint} rules={digest}"
    text = f"table inet {table} {{\n{body.replace(_TAG_PLACE, tag)}\n}}\n"
    text += "".join(f"flush set inet {table} {name}\n" for name in flushed_sets_of(policy))
    return Ruleset(text, fingerprint, epoch, names, tag)


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


def policy_digest(policy: Policy) -> str:
    """Equal for policies under which every flow meets the same fate."""
    unlike = replace(
        policy, log_group=0, log_packets_s=0, near_group=0, near_packets_s=0, counts=True, shadows_limit=False
    )
    return _digest(repr(unlike))


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


def _objects(policy: Policy) -> list[str]:
    lines = [line for name in COUNTERS for line in (f"counter {name} {{", "}")]
    return [*lines, *(line for each in rule_sets_of(policy) for line in each.lines())]


def _forward(policy: Policy, epoch: int) -> list[str]:
    layout = policy.mark_layout
    registered, judged = as_hex(layout.registered), as_hex(layout.judged(epoch))
    known = "judged" if asks_again(policy) else "unregistered"
    repaint = downstream(policy.registered_dscp, policy.registered_mark)
    count = "counter name registered_packets"
    lines = [
        f"type filter hook forward priority {policy.priority}; policy accept;",
        f"ct mark & {registered} == {registered} {'goto registered_packet' if repaint else f'{count} accept'}"
        f' comment "{_TAG_PLACE}"',
        _switched(),
        f"ct mark & {as_hex(layout.epoch_mask)} == {judged} goto {known}",
        *interface_tests(policy),
    ]
    chains = chain("forward", lines)
    if repaint:
        chains += chain("registered_packet", [count, *repaint, "accept"])
    return chains + uncrossed_chain(policy) + scope_chains(policy)


def _switched() -> str:
    """Where br_netfilter is on (Docker, Kubernetes and libvirt turn it on), a frame that a bridge only switches
    meets the forward hook too, as a packet that comes in and goes out by the bridge itself: it leaves. An answer to
    it may have no way back, and it is not known which of the bridge's ports is a customer.

    nft compares with constants alone, so the two indexes are compared a hexadecimal digit at a time. What is routed
    back out by the bridge that it came in by looks the same, and leaves too.
    """
    tests = []
    for shift in range(0, 32, 4):
        # An index is a positive int: the last digit is 7 at most, and nft takes no other for one.
        mask = (0xF << shift) & 0x7FFFFFFF
        pairs = (f"{value} . {value}" for value in range(0, mask + 1, 1 << shift))
        tests.append(f"meta iif & 0x{mask:08x} . meta oif & 0x{mask:08x} {{ {', '.join(pairs)} }}")
    return f'meta iifkind "bridge" meta oifkind "bridge" {" ".join(tests)} accept'


def rehearsal_script(text: str, table: str, *, is_present: bool) -> str:
    """The `text` of a ruleset for `table`, such that nft and the kernel can judge it by itself.

    `is_present`: the table is in the kernel; another name is used.
    """
    name = OTHER_TABLE if is_present else table
    text = text.replace(f"table inet {table} {{", f"table inet {name} {{")
    text = text.replace(f"flush set inet {table} ", f"flush set inet {name} ")
    lines = [f"add table inet {name}"]
    for set_name in sorted(set(_REFERENCE.findall(text))):
        parsed = parse_set_name(set_name)
        if parsed is not None:
            lines.append(f"add set inet {name} {set_name} {{ type {key_type(parsed[0])}; }}")
    return "\n".join([*lines, text])


def key_type(mask: Mask) -> str:
    """A set's key in nft's words: `ipv4_addr . inet_proto . inet_service`."""
    address = "ipv4_addr" if mask.family == 4 else "ipv6_addr"
    parts = [address] if mask.peer_length == ANY_PEER else [address, address]
    ports = (mask.port_length > 0) + (mask.source_bits > 0)
    return " . ".join(parts + ["inet_proto"] * mask.has_protocol + ["inet_service"] * ports)
