"""Checks of other programs in netfilter: chains, flowtables, marks, zones, listeners, the old iptables. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gatewayd.doctor.facts import Chain, Deed, Facts, Rule
from gatewayd.doctor.findings import Finding
from gatewayd.model.service import PROTOCOL_NAMES, PROTOCOLS_WITH_PORTS, Service

_ALL: Final = 0xFFFFFFFF
_MIN_BITS, _USUAL_BITS = 4, 8
"""Of kernel.ct_mark_mask: a run of at least so many."""
_EARLIEST: Final = -400
"""Of kernel.priority: settings.model."""


def chain_order(facts: Facts) -> Iterator[Finding]:
    """A chain at our own hook and priority."""
    priority = facts.question.priority
    for chain in facts.others:
        if chain.order == "same":
            taken = {each.priority for each in facts.others if each.hook == "forward"}
            free = next(
                (each for each in range(priority - 1, _EARLIEST - 1, -1) if each not in taken), priority + 1
            )
            yield Finding(
                "chain-order",
                "warning",
                f"the chain {chain} is on forward at priority {priority}, as ours is",
                "which of the two sees a packet first depends on which was made first, and changes at a restart",
                setting=f"kernel.priority: {free}",
            )


def dropping_chain(facts: Facts) -> Iterator[Finding]:
    """A chain that drops what it does not accept: our accept ends our chain alone. One before ours has to come
    after it first: then there is a mark by which it can accept."""
    bit, priority = facts.question.registered, facts.question.priority
    for chain in facts.others:
        if not _is_obstacle(chain):
            continue
        is_early = chain.order != "after"
        if chain.admits and not is_early:
            continue
        if _is_firewalld(chain):
            yield from _firewalld(facts, chain)
            continue
        place = f"{chain.hook}, priority {chain.priority}, {'before our chain' if is_early else 'after ours'}"
        yield Finding(
            "dropping-chain",
            "warning",
            f"the chain {chain} ({place}) drops what it does not accept, and does not know registered flows",
            "an accept in our chain does not override another chain's drop: registered flows pass only as far as"
            f" that chain accepts them{'; both changes are needed' if is_early else ''}",
            _admit(chain, bit),
            f"kernel.priority: {max(min(priority, chain.priority) - 10, _EARLIEST)}" if is_early else None,
        )


def _is_obstacle(chain: Chain) -> bool:
    """Whether registered flows need a rule in it. What drops all else before routing is a list of what may come in
    at all, and an engineer's own."""
    return chain.drops_all and chain.hook in ("forward", "postrouting")


def _admit(chain: Chain, bit: int) -> str:
    if chain.is_iptables:
        program = "iptables" if chain.family == "ip" else "ip6tables"
        return f"{program} -t {chain.table} -I {chain.name} -m connmark --mark {bit:#010x}/{bit:#010x} -j ACCEPT"
    return f"nft insert rule {chain} 'ct mark & {bit:#010x} == {bit:#010x} accept'"


_FIREWALLD: Final = "filter_FWD_policy_gatewayd"
"""The chain of the policy, in the table of firewalld."""


def _is_firewalld(chain: Chain) -> bool:
    return (chain.family, chain.table) == ("inet", "firewalld")


def _firewalld(facts: Facts, chain: Chain) -> Iterator[Finding]:
    """It makes a new table at each reload, and newer ones own it: no rule of nft stays there. It cannot match a
    mark: a policy accepts the services in scope, and those of them that are unregistered are judged before."""
    if any(rule.into == _FIREWALLD for rule in facts.rules if (rule.family, rule.table) == ("inet", chain.table)):
        return
    yield Finding(
        "dropping-chain",
        "warning",
        f"the chain {chain} ({chain.hook}, priority {chain.priority}) drops what the policies of firewalld do not"
        " accept, and none of them is named gatewayd",
        "an accept in our chain does not override another chain's drop: a policy of firewalld has to accept the"
        " services in scope, and our rules judge those before it",
        firewalld_policy(facts.question.scope),
    )


def firewalld_policy(scope: tuple[Service, ...]) -> str:
    """The command that makes a policy for these services, packets to them and from them."""
    ports = [(each, PROTOCOL_NAMES[each.protocol]) for each in scope if each.protocol in PROTOCOLS_WITH_PORTS]
    words = [f"{each.low}-{each.high}/{name}" for each, name in ports]
    others = [str(each.protocol) for each in scope if each.protocol not in PROTOCOLS_WITH_PORTS]
    options = [
        ["--set-priority=-10"],
        ["--add-ingress-zone=ANY"],
        ["--add-egress-zone=ANY"],
        [f"--add-protocol={each}" for each in others],
        [f"--add-port={each}" for each in words],
        [f"--add-source-port={each}" for each in words],
    ]
    change = "firewall-cmd --permanent --policy=gatewayd"
    changes = [f"{change} {' '.join(each)}" for each in options if each]
    steps = ["firewall-cmd --permanent --new-policy=gatewayd", *changes, "firewall-cmd --reload"]
    return " && ".join(steps)


def other_drops(facts: Facts) -> Iterator[Finding]:
    """Rules that drop some packets: known to an engineer who asks why a registered flow does not pass."""
    for chain in facts.others:
        if chain.drops and not _is_obstacle(chain) and not chain.admits:
            yield Finding(
                "other-drops",
                "note",
                f"the chain {chain} ({chain.hook}, priority {chain.priority}, {chain.order} ours) has rules that"
                f" drop: {chain.drops}",
                "what they drop does not pass, registered or not",
                f"nft -a list chain {chain}",
            )


def invalid_drops(facts: Facts) -> Iterator[Finding]:
    """Packets without a connection have no mark: no rule by our mark lets them pass."""
    for chain in facts.others:
        if chain.drops_invalid:
            yield Finding(
                "invalid-drop",
                "note",
                f"the chain {chain} ({chain.hook}, priority {chain.priority}) drops packets of the state INVALID",
                "where the gateway sees one direction of a TCP connection alone, most of its packets are INVALID:"
                " registered ones are dropped too, and our mark does not help",
                f"nft -a list chain {chain}",
            )


def offloading(facts: Facts) -> Iterator[Finding]:
    named = {link.name for link in facts.named((*facts.question.inside, *facts.question.outside))}
    for table in facts.flowtables:
        rules = [
            rule
            for rule in facts.rules
            if "offloads" in rule.deeds
            and (rule.family, rule.table, rule.flowtable) == (table.family, table.table, table.name)
        ]
        is_used = bool(rules) and (not named or bool(named & set(table.devices)))
        deleting = [*(f"delete rule {rule}" for rule in rules), f"delete flowtable {table}"]
        yield Finding(
            "flowtable",
            "fault" if is_used else "warning",
            f"the flowtable {table} takes flows of {', '.join(table.devices) or 'no device'} past the forward hook"
            f"{' in hardware' if table.is_hardware else ''}",
            "an offloaded flow meets none of our rules: it is not counted, and no mode, limit, revocation or drain"
            " reaches it",
            f"nft '{'; '.join(deleting)}'",
        )


def written_marks(facts: Facts) -> Iterator[Finding]:
    mask = facts.question.mask
    free = free_mask(facts)
    for rule in facts.rules:
        if rule.writes & mask:
            yield Finding(
                "mark-written",
                "fault",
                f"the rule {rule} sets bits of the ct mark that are ours ({rule.writes & mask:#010x})",
                "registered flows may be refused, or strangers pass as registered",
                f"nft delete rule {rule}",
                None if free is None else f'kernel.ct_mark_mask: "{free:#010x}"',
            )


def leaked_marks(facts: Facts) -> Iterator[Finding]:
    mask = facts.question.mask
    for rule in facts.rules:
        if rule.leaks & mask:
            yield Finding(
                "mark-leaked",
                "warning",
                f"the rule {rule} copies our bits of the ct mark into the packet mark",
                "routing and shaping by packet mark (ip rule, tc) meet values that they do not know, in every mode",
                _masked_copy(rule, _ALL & ~mask),
            )


def _masked_copy(rule: Rule, others: int) -> str:
    if rule.is_target and rule.is_bare and rule.family in ("ip", "ip6"):
        program = "iptables" if rule.family == "ip" else "ip6tables"
        masks = f"--nfmask {others:#010x} --ctmask {others:#010x}"
        return f"{program} -t {rule.table} -R {rule.chain} {rule.number} -j CONNMARK --restore-mark {masks}"
    if rule.is_bare:
        return f"nft replace rule {rule} 'meta mark set ct mark & {others:#010x}'"
    return f"nft delete rule {rule}"


def free_mask(facts: Facts) -> int | None:
    """Bits that no rule of another program writes or copies: the highest run of eight, or at least of four."""
    taken = 0
    for rule in facts.rules:
        taken |= rule.writes | rule.leaks
    for width in (_USUAL_BITS, _MIN_BITS):
        for low in range(32 - width, -1, -1):
            mask = ((1 << width) - 1) << low
            if not mask & taken:
                return mask
    return None


def zones(facts: Facts) -> Iterator[Finding]:
    yield from _rules(
        facts,
        "zone",
        "conntrack-zone",
        "puts connections into a conntrack zone",
        "two customers may have the same addresses in two zones: what we know of a connection by its addresses may"
        " be the other's",
    )


def notrack(facts: Facts) -> Iterator[Finding]:
    yield from _rules(
        facts,
        "notrack",
        "notrack",
        "keeps packets from connection tracking",
        "an untracked flow has no mark: each packet is judged by itself, it is not counted as a flow, and it does"
        " not drain",
    )


def _rules(facts: Facts, deed: Deed, check: str, does: str, why: str) -> Iterator[Finding]:
    for rule in facts.rules:
        if deed in rule.deeds:
            yield Finding(check, "warning", f"the rule {rule} {does}", why, f"nft delete rule {rule}")


def listeners(facts: Facts) -> Iterator[Finding]:
    for each in facts.listeners:
        if each.is_ours:
            continue
        who = f"{each.command} (process {each.pid})" if each.pid else "a process that is not seen from here"
        stop = f"kill {each.pid}" if each.pid else None
        yield Finding(
            "nflog-group",
            "fault",
            f"the NFLOG group {each.group} belongs to {who}",
            "a group has one listener: the daemon does not start beside it",
            f"systemctl stop {each.unit}" if each.unit else stop,
            _other_group(facts, each.group),
        )


def _other_group(facts: Facts, group: int) -> str | None:
    """A group that is neither ours nor listened to."""
    if group not in facts.question.groups:
        return None
    taken = {*facts.question.groups, *(each.group for each in facts.listeners)}
    free = next(number for number in range(group + 1, group + 2 + len(taken)) if number not in taken)
    key = ("nflog_group", "near_miss_group")[facts.question.groups.index(group)]
    return f"kernel.{key}: {free}"


def legacy_tables(facts: Facts) -> Iterator[Finding]:
    """Of those with rules, or a policy to drop. The command moves them to where nft shows them."""
    for each in facts.legacy:
        if each.rules == 0 and not each.dropping:
            continue
        old = f"{'iptables' if each.family == 'ip' else 'ip6tables'}-legacy"
        new = old.replace("legacy", "nft")
        policies = "".join(f" && {old} -t {each.table} -P {chain} ACCEPT" for chain in each.dropping)
        yield Finding(
            "legacy-iptables",
            "warning",
            f"the old iptables has the table {each.family} {each.table}, which nft does not show",
            "its chains are on the same hooks as ours, and what they drop does not pass; two firewalls on a host"
            " hide each other's rules",
            f"{old}-save -t {each.table} | {new}-restore -n && {old} -t {each.table} -F{policies}",
        )


CHECKS: Final = {
    "chain-order": chain_order,
    "dropping-chain": dropping_chain,
    "other-drops": other_drops,
    "invalid-drop": invalid_drops,
    "flowtable": offloading,
    "mark-written": written_marks,
    "mark-leaked": leaked_marks,
    "conntrack-zone": zones,
    "notrack": notrack,
    "nflog-group": listeners,
    "legacy-iptables": legacy_tables,
}
