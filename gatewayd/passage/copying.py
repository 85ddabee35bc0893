"""Rulesets as they are copied from one network namespace to another, message by message. Pure.

A listed object of nf_tables is nearly the request that makes it (include/uapi/linux/netfilter/nf_tables.h). So a
copy needs to know none of the expressions: rules of iptables-nft, whose matches no nft prints, go over like ours.
These differ: handles, which name an object that is there; a set needs an id; one without a name gets one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from gatewayd.compile.rule_sets import RULE_SETS
from gatewayd.compile.ruleset import parse_tag
from gatewayd.kernel import attributes as nl
from gatewayd.kernel import tables_codec as codec
from gatewayd.kernel.external_codec import FAMILIES
from gatewayd.model.mask import parse_set_name

KINDS: Final = {"table": codec.GETTABLE, "chain": codec.GETCHAIN, "set": codec.GETSET, "object": codec.GETOBJ,
    "flowtable": codec.GETFLOWTABLE, "rule": codec.GETRULE}  # fmt: skip
"""What is listed, in the order in which it is made."""
HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting", "ingress")

_NAME_OF: Final = {"table": 1, "chain": 3, "set": 2, "object": 2, "flowtable": 2}
_TABLE_FLAGS, _TABLE_OWNER, _TABLE_PERSIST = 2, 0x2, 0x4
_CHAIN_HANDLE, _CHAIN_HOOK, _CHAIN_USE, _CHAIN_COUNTERS, _CHAIN_FLAGS, _CHAIN_USERDATA = 2, 4, 6, 8, 10, 12
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICE, _HOOK_DEVICES = 1, 2, 3, 4
_RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_COMPAT = 2, 3, 4, 5
_RULE_POSITION, _RULE_USERDATA, _RULE_PAD = 6, 7, 8
_COMPAT_PROTOCOL, _COMPAT_FLAGS = 1, 2
_SET_FLAGS, _SET_ID, _SET_PAD, _SET_HANDLE, _SET_TYPE, _SET_COUNT, _SET_ANONYMOUS = 3, 10, 14, 16, 19, 20, 0x1
_OBJECT_TYPE, _OBJECT_HELPER, _OBJECT_USE, _OBJECT_HANDLE, _OBJECT_PAD = 3, 3, 5, 6, 7
_EXPRESSION_NAME, _EXPRESSION_DATA, _EXTENSION_NAME = 1, 2, 1
_EXTENSIONS: Final = frozenset({"match", "target"})
"""Of iptables (net/netfilter/nft_compat.c)."""
_NETDEV: Final = 5
_NLM_F_APPEND: Final = 0x800

DOUBTS: Final = {
    "queue": "asks a program in user space, which is not asked here",
    "NFQUEUE": "asks a program in user space, which is not asked here",
    "socket": "looks for a socket of the host",
    "tproxy": "looks for a socket of the host",
    "TPROXY": "looks for a socket of the host",
    "synproxy": "answers the handshake itself",
    "SYNPROXY": "answers the handshake itself",
    "fwd": "sends the packet elsewhere",
    "dup": "sends a copy elsewhere",
    "TEE": "sends a copy elsewhere",
    "limit": "has a rate of its own, which begins anew in the copy",
    "hashlimit": "has a rate of its own, which begins anew in the copy",
    "connlimit": "counts connections, of which the copy has none",
    "recent": "remembers packets, which the copy does not",
    "numgen": "is of chance or of a count",
    "statistic": "is of chance or of a count",
    "xfrm": "looks at IPsec policies, of which the copy has none",
    "policy": "looks at IPsec policies, of which the copy has none",
    "physdev": "looks at a port of a bridge",
    "BPF": "runs a program",
    "bpf": "runs a program",
    "osf": "guesses the operating system of the client",
}
"""Expressions, and matches and targets of iptables, whose answer for a single packet in a copy may be another."""


class Place(NamedTuple):
    """A chain."""

    family: int
    table: str
    chain: str

    def __str__(self) -> str:
        return f"{FAMILIES.get(self.family, self.family)} {self.table} {self.chain}"


@dataclass(frozen=True, slots=True)
class Listed:
    """An object that the kernel lists: its attributes in order, by number."""

    kind: str
    family: int
    attributes: tuple[tuple[int, bytes], ...]

    def get(self, number: int) -> bytes:
        return next((payload for kind, payload in self.attributes if kind & nl.NLA_TYPE_MASK == number), b"")

    @property
    def table(self) -> str:
        return nl.string_of(self.get(1))

    @property
    def name(self) -> str:
        """Of a rule: its chain."""
        return nl.string_of(self.get(_NAME_OF.get(self.kind, _RULE_CHAIN)))

    @property
    def place(self) -> Place:
        return Place(self.family, self.table, self.name)

    @property
    def handle(self) -> int:
        return nl.uint_of(self.get(_RULE_HANDLE))


def read_listed(kind: str, datagram: bytes) -> Iterator[Listed]:
    """The objects in a datagram of a dump. Raises EventMalformed."""
    for number, _, _, start, end in nl.iter_messages(datagram):
        if number in (nl.NLMSG_DONE, nl.NLMSG_ERROR):
            continue
        found = []
        for _, low, high in nl.iter_attributes(datagram, start + 4, end):
            _, attribute = nl.ATTRIBUTE_HEADER.unpack_from(datagram, low - 4)  # its flags too
            found.append((attribute, datagram[low:high]))
        yield Listed(kind, datagram[start], tuple(found))


class Expression(NamedTuple):
    """`name`: of an extension of iptables its own name."""

    name: str
    is_extension: bool
    content: bytes


def expressions_of(rule: Listed) -> Iterator[Expression]:
    raw = rule.get(_RULE_EXPRESSIONS)
    for _, low, high in nl.iter_attributes(raw, 0, len(raw)):
        fields = nl.attributes_of(raw, low, high)
        name, content = nl.string_of(fields.get(_EXPRESSION_NAME, b"")), fields.get(_EXPRESSION_DATA, b"")
        if name in _EXTENSIONS:
            name = nl.string_of(nl.attributes_of(content, 0, len(content)).get(_EXTENSION_NAME, b""))
            yield Expression(name, True, content)
        else:
            yield Expression(name, False, content)


@dataclass(frozen=True, slots=True)
class BaseChain:
    """`hook`: in words. `devices`: of an ingress chain; empty elsewhere."""

    place: Place
    hook: str
    priority: int
    devices: tuple[str, ...] = ()


def base_chain_of(chain: Listed) -> BaseChain | None:
    """None for a chain that others jump to."""
    raw = chain.get(_CHAIN_HOOK)
    if not raw:
        return None
    fields = nl.attributes_of(raw, 0, len(raw))
    number = nl.uint_of(fields.get(_HOOK_NUMBER, b""))
    is_ingress = chain.family == _NETDEV or number >= len(HOOKS) - 1
    hook = ("ingress", "egress")[min(number, 1)] if chain.family == _NETDEV else HOOKS[min(number, len(HOOKS) - 1)]
    priority = int.from_bytes(fields.get(_HOOK_PRIORITY, b""), "big", signed=True)
    return BaseChain(chain.place, hook, priority, tuple(dict.fromkeys(_devices_in(fields))) if is_ingress else ())


def _devices_in(hook: dict[int, bytes]) -> Iterator[str]:
    """A chain of one device has it in both forms."""
    if _HOOK_DEVICE in hook:
        yield nl.string_of(hook[_HOOK_DEVICE])
    raw = hook.get(_HOOK_DEVICES, b"")
    yield from (nl.string_of(raw[low:high]) for _, low, high in nl.iter_attributes(raw, 0, len(raw)))


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What a network namespace has, by kind. `elements`: messages of each set that is copied whole, as listed.
    `found`: elements of the sets of an allowlist, by table, set and key."""

    listed: dict[str, tuple[Listed, ...]]
    elements: dict[Place, tuple[Listed, ...]]
    found: tuple[tuple[Place, bytes], ...] = ()


def own_tables(rules: Iterable[Listed]) -> frozenset[tuple[int, str]]:
    """Tables whose rules say that they are ours, whatever their names are."""
    return frozenset((rule.family, rule.table) for rule in rules if parse_tag(_comment_of(rule)) is not None)


def _comment_of(rule: Listed) -> str:
    return codec.decode_comment(rule.get(_RULE_USERDATA)) or ""


def is_allowlist(place: Place) -> bool:
    """A set of a table of ours that is copied with the packet's elements alone."""
    return parse_set_name(place.chain) is not None


def is_left_empty(place: Place) -> bool:
    """A set of a table of ours that its rules fill."""
    return place.chain in RULE_SETS


def select(ruleset: Ruleset, devices: frozenset[str], *, is_ipv6: bool) -> Ruleset:
    """What an IP packet of a family can meet that crosses these devices."""
    families = (1, _NETDEV, 10 if is_ipv6 else 2)
    listed = {
        kind: tuple(each for each in objects if each.family in families) for kind, objects in ruleset.listed.items()
    }
    chains = []
    for each in listed["chain"]:
        base = base_chain_of(each)
        if base is None or base.hook not in ("ingress", "egress") or devices & set(base.devices):
            chains.append(each)
    places = {each.place for each in chains}
    listed["chain"] = tuple(chains)
    listed["rule"] = tuple(each for each in listed["rule"] if each.place in places)
    elements = {place: found for place, found in ruleset.elements.items() if place.family in families}
    return Ruleset(listed, elements, ruleset.found)


def by_place(objects: Iterable[Listed]) -> dict[Place, list[Listed]]:
    """Rules by chain, in their order."""
    found: dict[Place, list[Listed]] = {}
    for each in objects:
        found.setdefault(each.place, []).append(each)
    return found


# -- requests ------------------------------------------------------------------------------------------------------


def request_of(each: Listed, sequence: int, devices: frozenset[str], *, is_last: bool) -> bytes:
    """The request that makes it in another namespace. `devices`: those that are there. The last of a batch asks for
    an acknowledgement."""
    kind, attributes = _MAKERS[each.kind](each, sequence, devices)
    flags = nl.NLM_F_REQUEST | nl.NLM_F_CREATE | (nl.NLM_F_ACK if is_last else 0)
    if each.kind == "rule":
        flags |= _NLM_F_APPEND
    body = [nl.attribute(number, payload) for number, payload in attributes]
    return nl.message(kind, flags, sequence, each.family, 0, *body)


Made = tuple[int, list[tuple[int, bytes]]]


def _without(each: Listed, *numbers: int) -> list[tuple[int, bytes]]:
    return [(kind, payload) for kind, payload in each.attributes if kind & nl.NLA_TYPE_MASK not in numbers]


def _changed(each: Listed, number: int, mask: int) -> tuple[int, bytes]:
    """A flags attribute without some bits."""
    return number, (nl.uint_of(each.get(number)) & ~mask).to_bytes(4, "big")


def _make_table(each: Listed, _: int, __: frozenset[str]) -> Made:
    flags = _changed(each, _TABLE_FLAGS, _TABLE_OWNER | _TABLE_PERSIST)
    return codec.NEWTABLE, [(1, each.get(1)), flags]


def _make_chain(each: Listed, _: int, devices: frozenset[str]) -> Made:
    base = base_chain_of(each)
    attributes = _without(
        each, _CHAIN_HANDLE, _CHAIN_USE, _CHAIN_COUNTERS, _CHAIN_FLAGS, _CHAIN_HOOK, _CHAIN_USERDATA
    )
    if base is not None:
        hook = [
            (kind, payload)
            for kind, payload in _nested(each.get(_CHAIN_HOOK))
            if kind in (_HOOK_NUMBER, _HOOK_PRIORITY)
        ]
        here = [name for name in base.devices if name in devices]
        body = b"".join(nl.attribute(kind, payload) for kind, payload in hook)
        if here:
            names = (nl.attribute(1, name.encode() + b"\0") for name in here)
            body += nl.nest(_HOOK_DEVICES, *names) if len(here) > 1 else nl.text(_HOOK_DEVICE, here[0])
        attributes.append((_CHAIN_HOOK | nl.NLA_F_NESTED, body))
    return codec.NEWCHAIN, attributes


def _nested(raw: bytes) -> list[tuple[int, bytes]]:
    return [(kind, raw[low:high]) for kind, low, high in nl.iter_attributes(raw, 0, len(raw))]


def _make_set(each: Listed, sequence: int, _: frozenset[str]) -> Made:
    attributes = _without(each, _SET_FLAGS, _SET_ID, _SET_PAD, _SET_HANDLE, _SET_TYPE, _SET_COUNT)
    flags = _changed(each, _SET_FLAGS, _SET_ANONYMOUS)
    return codec.NEWSET, [*attributes, flags, (_SET_ID, sequence.to_bytes(4, "big"))]


def _make_object(each: Listed, _: int, __: frozenset[str]) -> Made:
    return codec.NEWOBJ, _without(each, _OBJECT_USE, _OBJECT_HANDLE, _OBJECT_PAD)


def _make_elements(each: Listed, _: int, __: frozenset[str]) -> Made:
    return codec.NEWSETELEM, list(each.attributes)


def _make_rule(each: Listed, _: int, __: frozenset[str]) -> Made:
    attributes = _without(each, _RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_POSITION, _RULE_PAD)
    expressions = b"".join(
        nl.attribute(kind | nl.NLA_F_NESTED, payload)
        for kind, payload in _nested(each.get(_RULE_EXPRESSIONS))
        if nl.string_of(nl.attributes_of(payload, 0, len(payload)).get(_EXPRESSION_NAME, b"")) != "flow_offload"
    )
    attributes.append((_RULE_EXPRESSIONS | nl.NLA_F_NESTED, expressions))
    if any(expression.is_extension for expression in expressions_of(each)):
        # Not listed, and some extensions refuse a rule without it (net/netfilter/nft_compat.c: nft_parse_compat).
        protocol = protocol_of(each)
        body = nl.be32(_COMPAT_PROTOCOL, protocol) + nl.be32(_COMPAT_FLAGS, 0)
        attributes.append((_RULE_COMPAT | nl.NLA_F_NESTED, body))
    return codec.NEWRULE, attributes


def protocol_of(rule: Listed) -> int:
    """The protocol that a rule asks for with `==`; 0: any."""
    is_protocol = False
    for name, is_extension, content in expressions_of(rule):
        fields = nl.attributes_of(content, 0, len(content)) if not is_extension else {}
        if name == "cmp" and is_protocol:
            raw = fields.get(3, b"")
            value = nl.attributes_of(raw, 0, len(raw)).get(1, b"")
            if nl.uint_of(fields.get(2, b"")) == 0 and len(value) == 1:
                return value[0]
        base, offset, size = (nl.uint_of(fields.get(number, b"")) for number in (2, 3, 4))
        is_protocol = (name == "meta" and nl.uint_of(fields.get(2, b"")) == 16) or (
            name == "payload" and (base, size) == (1, 1) and offset == (9 if rule.family == 2 else 6)
        )
    return 0


_MAKERS = {
    "table": _make_table,
    "chain": _make_chain,
    "set": _make_set,
    "object": _make_object,
    "elements": _make_elements,
    "rule": _make_rule,
}
