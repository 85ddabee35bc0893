"""Sets that the rules fill themselves: no part of the allowlist. Pure.

Another shape needs another name: the kernel refuses to add a set that is there in another one (nf_tables_api.c:
nft_set_is_same).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gatewayd.model.policy import Policy

MAX_CLIENTS = 65536
"""Clients of a family that the rules follow, for their rate in the log and in mode limit; others share a rate."""
MAX_COUNTED = 65536
"""Elements of a set of counts: client prefixes with a service, of a family; services with a share of the canary."""
MAX_RECENT = 262_144
"""Flows of a family that are known by their addresses and ports, for a minute: those without a ct mark."""
COUNTED_TIMEOUT_S = 3600
"""An element of a set of counts goes when it has counted nothing for so long."""

Use = Literal["log", "limit", "count"]
_KEY_BYTES = {"ipv4_addr": 4, "ipv6_addr": 16, "inet_proto": 4, "inet_service": 4, "mark": 4, "ifname": 16}
"""Of a datatype in a concatenation, whose fields are padded to 4 bytes."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """`key`: its type in nft's words. `use`: of the rules that fill it."""

    name: str
    key: str
    size: int
    timeout: str
    use: Use

    def lines(self) -> Iterator[str]:
        """Its declaration."""
        yield f"set {self.name} {{"
        yield f"\ttype {self.key}"
        yield f"\tsize {self.size}"
        yield "\tflags dynamic,timeout"
        yield f"\ttimeout {self.timeout}"
        yield "}"


_FAMILIES = (("4", "ipv4_addr"), ("6", "ipv6_addr"))
_COUNTED = f"{COUNTED_TIMEOUT_S // 3600}h"

PREFIX_FLOWS = ("prefix_flows4", "prefix_flows6")
SERVICE_FLOWS, INTERFACE_FLOWS = "service_flows", "interface_flows"
UNFOLLOWED = "unfollowed"
COUNTED_SETS = (*PREFIX_FLOWS, SERVICE_FLOWS, INTERFACE_FLOWS)
"""Each element has a counter of flows (compile.counting)."""

_ALL = (
    *(
        RuleSet(f"{name}{number}", address, MAX_CLIENTS, "10s", "log")
        for name in ("noted", "nearby")
        for number, address in _FAMILIES
    ),
    # `limiter` has a place for each client of `followed`, and for those of a minute ago that are not removed yet.
    *(RuleSet(f"followed{number}", address, MAX_CLIENTS, "1m", "limit") for number, address in _FAMILIES),
    *(RuleSet(f"limiter{number}", address, 2 * MAX_CLIENTS, "1m", "limit") for number, address in _FAMILIES),
    # One element: the rate of all clients together that have no place.
    RuleSet(UNFOLLOWED, "mark", 16, "1m", "limit"),
    *(
        RuleSet(f"prefix_flows{number}", f"{address} . inet_proto . inet_service", MAX_COUNTED, _COUNTED, "count")
        for number, address in _FAMILIES
    ),
    RuleSet(SERVICE_FLOWS, "inet_proto . inet_service . mark", MAX_COUNTED, _COUNTED, "count"),
    RuleSet(INTERFACE_FLOWS, "ifname", MAX_COUNTED, _COUNTED, "count"),
    *(
        RuleSet(
            f"recent{number}",
            f"{address} . {address} . inet_proto . inet_service . inet_service",
            MAX_RECENT,
            "1m",
            "count",
        )
        for number, address in _FAMILIES
    ),
)
RULE_SETS = frozenset(each.name for each in _ALL)


def rule_sets_of(policy: Policy) -> list[RuleSet]:
    """Those that the rules of a policy use, in order of name."""
    uses: set[Use] = {"log"}
    if policy.mode == "limit" or policy.shadows_limit:
        uses.add("limit")
    if policy.counts:
        uses.add("count")
    return sorted((each for each in _ALL if each.use in uses), key=lambda each: each.name)


def flushed_sets_of(policy: Policy) -> list[str]:
    """Sets whose elements begin again with the rules: an element keeps the limiter that it was made with.

    Those of the log go by themselves; to flush them, perhaps 65,536, would make as many notifications whenever the
    rules change. Counts stay.
    """
    return [each.name for each in rule_sets_of(policy) if each.use == "limit"]


def key_bytes(key: str) -> int:
    """Length of a set's keys by its type: what a set in memory needs to know."""
    return sum(_KEY_BYTES[part] for part in key.split(" . "))
