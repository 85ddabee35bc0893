"""Facts about a gateway's host, as frozen values. Pure.

A field is None where the host was not asked or did not say; then no check speaks about it. What could not be read,
though it was asked for, is in `unread`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from gatewayd.compile.interfaces import names_like
from gatewayd.model.service import Service
from gatewayd.model.transaction import ConntrackSize
from gatewayd.settings.model import Settings

Hook = Literal["ingress", "prerouting", "input", "forward", "output", "postrouting", "egress"]
Order = Literal["before", "same", "after"]
"""When a forwarded packet meets another program's chain: earlier than our chain, or later. *same*: the kernel goes
by which of them was registered first."""
Version = tuple[int, int, int]


class Question(msgspec.Struct, frozen=True):
    """The configuration, as far as the host matters to it.

    `mask`: our bits of the ct mark. `groups`: our NFLOG groups. `is_daemon`: the daemon asks, which has its groups,
    its rules and few rights: what it may not read, root asks for with `gatewayd doctor`.
    """

    table: str
    priority: int
    mask: int
    mode: str
    state_dir: str
    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    is_daemon: bool = False
    scope: tuple[Service, ...] = ()

    @property
    def registered(self) -> int:
        """The bit that says registered: model.policy.MarkLayout."""
        return 1 << (self.mask.bit_length() - 1)


def question_of(settings: Settings, *, is_daemon: bool = False) -> Question:
    kernel, policy = settings.kernel, settings.policy
    return Question(
        kernel.table,
        kernel.priority,
        kernel.ct_mark_mask,
        policy.mode,
        settings.state_dir,
        policy.interfaces.inside,
        policy.interfaces.outside,
        () if is_daemon else (kernel.nflog_group, kernel.near_miss_group),
        is_daemon,
        policy.scope,
    )


@dataclass(frozen=True, slots=True)
class Link:
    """`kind`: of a virtual interface, as `ip -d link` says. `master`: the bridge, bond or VRF that it is a port of;
    `master_kind` its kind."""

    name: str
    kind: str = ""
    master: str = ""
    master_kind: str = ""
    is_up: bool = True


class Chain(msgspec.Struct, frozen=True):
    """A base chain of another program that forwarded packets meet. `drops`: rules in it that drop or reject, with
    its policy. `drops_all`: it drops what none of its rules accepts. `admits`: it accepts flows by our mark.
    `drops_invalid`: it drops packets that belong to no connection. Rules of chains that it jumps to with every
    packet are among its rules."""

    family: str
    table: str
    name: str
    hook: Hook
    priority: int
    order: Order
    drops: int = 0
    drops_all: bool = False
    admits: bool = False
    drops_invalid: bool = False

    @property
    def is_iptables(self) -> bool:
        """Made by iptables-nft, which wants it left to iptables."""
        return self.family in ("ip", "ip6") and self.name.isupper()

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


@dataclass(frozen=True, slots=True)
class BaseChain:
    """As the kernel lists it. `drops`: by policy."""

    family: str
    table: str
    name: str
    hook: Hook
    priority: int
    drops: bool


Deed = Literal[
    "accepts_all",
    "accepts_registered",
    "drops",
    "drops_all",
    "drops_invalid",
    "goes",
    "jumps",
    "notrack",
    "offloads",
    "returns",
    "zone",
]
"""*accepts_all*, *drops_all*, *goes*, *jumps*, *returns*: with every packet."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of another program that does one of the `deeds`, or touches the ct mark: the bits that it `writes`,
    and those that it `leaks` into the packet mark. `number`: its place in its chain, from 1. `flowtable`: the name,
    of one that offloads. `is_bare`: it does so to every packet. `is_target`: by a target of iptables. `into`: the
    chain that it jumps or goes to."""

    family: str
    table: str
    chain: str
    handle: int
    number: int = 1
    deeds: frozenset[Deed] = frozenset()
    writes: int = 0
    leaks: int = 0
    flowtable: str = ""
    is_bare: bool = False
    is_target: bool = False
    into: str = ""

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.chain} handle {self.handle}"


@dataclass(frozen=True, slots=True)
class Flowtable:
    family: str
    table: str
    name: str
    devices: tuple[str, ...]
    is_hardware: bool = False

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


@dataclass(frozen=True, slots=True)
class Listener:
    """Of an NFLOG group. `pid` 0, `command` "": of a process that is not seen. `unit`: its service of systemd."""

    group: int
    pid: int = 0
    command: str = ""
    unit: str = ""
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class LegacyTable:
    """Of the iptables before iptables-nft. `rules`: None where its program is not there to ask. `dropping`: chains
    whose policy is to drop."""

    family: str
    table: str
    rules: int | None = None
    dropping: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Disk:
    path: str
    size_bytes: int
    free_bytes: int
    files: int
    files_free: int


@dataclass(frozen=True, slots=True)
class Versions:
    """`release`: as uname says. `kernel`: the upstream version that it stands for; None of a kernel whose maker
    takes faults out by its own numbers."""

    release: str = ""
    kernel: Version | None = None
    nft: Version | None = None
    python: Version | None = None
    systemd: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """`sysctls`: by name, those that there are. `dropping`: packets that connection tracking dropped while it was
    watched. `default_routes`: of IPv4. `has_ipv6`: an interface has a global address. `missing`: parts of the
    kernel that are not there, by module. `refusal`: what nft has against the rules of the policy. `unread`:
    subject, reason, and whether rights are wanting."""

    question: Question
    sysctls: Mapping[str, int] = field(default_factory=dict)
    conntrack: ConntrackSize | None = None
    dropping: int = 0
    links: tuple[Link, ...] | None = None
    default_routes: int = 0
    has_ipv6: bool = False
    chains: tuple[BaseChain, ...] = ()
    rules: tuple[Rule, ...] = ()
    flowtables: tuple[Flowtable, ...] = ()
    legacy: tuple[LegacyTable, ...] = ()
    listeners: tuple[Listener, ...] = ()
    is_synced: bool | None = None
    disk: Disk | None = None
    versions: Versions = Versions()
    missing: tuple[str, ...] = ()
    refusal: str | None = None
    unread: tuple[tuple[str, str, bool], ...] = ()

    def named(self, patterns: tuple[str, ...]) -> tuple[Link, ...]:
        """Interfaces that a name of `policy.interfaces` means."""
        links = self.links or ()
        meant = {name for each in patterns for name in names_like(each, (link.name for link in links))}
        return tuple(link for link in links if link.name in meant)

    @property
    def others(self) -> tuple[Chain, ...]:
        """Chains of other programs on the way of forwarded packets, in the order in which a packet meets them."""
        rules: _Rules = {}
        for rule in sorted(self.rules, key=lambda each: each.number):
            rules.setdefault((rule.family, rule.table, rule.chain), []).append(rule)
        return tuple(sorted((self._chain(each, rules) for each in self.chains), key=_place))

    def _chain(self, each: BaseChain, rules: _Rules) -> Chain:
        course = _Course(rules)
        # What stands behind a rule that ends every packet's way is never reached, the policy included.
        drops_last = not course.follow(each.family, each.table, each.name) and each.drops
        return Chain(
            each.family,
            each.table,
            each.name,
            each.hook,
            each.priority,
            self._order(each),
            course.drops + each.drops,
            course.drops_all or drops_last,
            course.admits,
            course.drops_invalid,
        )

    def _order(self, each: BaseChain) -> Order:
        if each.hook != "forward":
            return "before" if each.hook in ("ingress", "prerouting") else "after"
        # A bridge's own hook comes before that of IP, which br_netfilter calls from it.
        if each.family == "bridge" or each.priority < self.question.priority:
            return "before"
        return "same" if each.priority == self.question.priority else "after"


_Rules = dict[tuple[str, str, str], list[Rule]]


class _Course:
    """The way of every packet through a chain, and through those that it jumps to without a condition. `drops`:
    rules on it that drop some or all."""

    def __init__(self, rules: _Rules) -> None:
        self._rules = rules
        self._entered: set[str] = set()
        self.drops = 0
        self.drops_all = False
        self.admits = False
        self.drops_invalid = False

    def follow(self, family: str, table: str, chain: str) -> bool:
        """Whether every packet's way ends in the chain. A chain that was entered before has ended none."""
        for rule in self._rules.get((family, table, chain), ()):
            deeds = rule.deeds
            self.drops += "drops" in deeds
            self.drops_all |= "drops_all" in deeds
            self.admits |= "accepts_registered" in deeds
            self.drops_invalid |= "drops_invalid" in deeds
            if "accepts_all" in deeds or "drops_all" in deeds:
                return True
            if rule.into and rule.into not in self._entered:
                self._entered.add(rule.into)
                if self.follow(family, table, rule.into):
                    return True
            if "returns" in deeds or "goes" in deeds:
                return False
        return False


_HOOKS: tuple[Hook, ...] = ("ingress", "prerouting", "forward", "postrouting", "egress")


def _place(chain: Chain) -> tuple[int, int, str]:
    return _HOOKS.index(chain.hook), chain.priority, str(chain)
