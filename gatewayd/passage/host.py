"""What the probe needs to know of the host, by netlink: its ruleset, and the way of a packet. Nothing is written.

A million elements of an allowlist stay where they are: of those sets the kernel is asked for the few keys by which
this packet could be found (compile.masks: keys_of). A dump of all of them would take seconds and hundreds of MB.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from gatewayd.assertions.lookups import elements_for
from gatewayd.errors import DumpInterrupted, OperationRefused
from gatewayd.kernel import attributes as nl
from gatewayd.kernel import tables_codec as codec
from gatewayd.kernel.netlink import NetlinkChannel
from gatewayd.kernel.passage import KernelPassage
from gatewayd.model.flow import AF_INET, AF_INET6, Flow
from gatewayd.model.prefix import format_address
from gatewayd.passage.copying import (
    KINDS,
    Listed,
    Place,
    Ruleset,
    is_allowlist,
    is_left_empty,
    own_tables,
    read_listed,
)
from gatewayd.passage.views import CannotProbe

if TYPE_CHECKING:
    from pyroute2 import IPRoute

ATTEMPTS: Final = 20
"""At a list that commits keep interrupting: a busy registrar of addresses commits thousands of times a second."""
MAX_ELEMENT_BYTES: Final = 64 << 20
"""Of the sets of other programs together."""
MAX_ADDRESSES: Final = 16
_LOCAL, _UNICAST = 2, 1
_LEGACY: Final = {4: "ip_tables_names", 6: "ip6_tables_names"}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Interface:
    """`kind`: as rtnetlink says; empty for hardware. `master`: the bridge or VRF that it is a port of."""

    name: str
    index: int
    kind: str
    master: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Way:
    """By which interfaces the host would route a packet. `outgoing` None: it is for the host itself."""

    incoming: Interface
    outgoing: Interface | None


async def read_ruleset(flow: Flow) -> Ruleset:
    """As the packet of the flow would meet it. Raises KernelError, CannotProbe."""
    channel = NetlinkChannel.open()
    try:
        listed = {kind: await list_objects(channel, kind) for kind in KINDS}
        ours = own_tables(listed["rule"])
        elements: dict[Place, tuple[Listed, ...]] = {}
        budget = MAX_ELEMENT_BYTES
        for each in listed["set"]:
            place = each.place
            if (place.family, place.table) in ours and (is_allowlist(place) or is_left_empty(place)):
                continue
            elements[place] = await list_objects(channel, "elements", each)
            budget -= sum(len(payload) for part in elements[place] for _, payload in part.attributes)
            if budget < 0:
                raise CannotProbe(f"sets of other programs are larger than {MAX_ELEMENT_BYTES >> 20} MiB")
    finally:
        channel.close()
    return Ruleset(listed, elements, await _find(ours, listed["set"], flow))


async def list_objects(channel: NetlinkChannel, kind: str, of: Listed | None = None) -> tuple[Listed, ...]:
    names = () if of is None else (nl.attribute(1, of.get(1)), nl.attribute(2, of.get(2)))
    number = codec.GETSETELEM if of is not None else KINDS[kind]
    for attempt in range(ATTEMPTS):
        sequence = channel.take_sequences(1)
        family = 0 if of is None else of.family
        request = nl.message(number, nl.NLM_F_REQUEST | nl.NLM_F_DUMP, sequence, family, 0, *names)
        found: list[Listed] = []
        try:
            async for datagram in channel.dump(request, sequence, f"list {kind}s"):
                found += read_listed(kind, datagram)
        except DumpInterrupted:
            if attempt == ATTEMPTS - 1:
                raise
        except OperationRefused as error:
            if kind == "flowtable" and error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                return ()  # a kernel without them
            raise
        else:
            return tuple(found)
    raise AssertionError("unreachable")


async def _find(
    ours: frozenset[tuple[int, str]], sets: Sequence[Listed], flow: Flow
) -> tuple[tuple[Place, bytes], ...]:
    found: list[tuple[Place, bytes]] = []
    for family, table in sorted(ours):
        passage = KernelPassage.open(table)
        try:
            names = [each.name for each in sets if (each.family, each.table) == (family, table)]
            there = await passage.find_elements(tuple(elements_for(flow, names)))
        finally:
            passage.close()
        found += ((Place(family, table, name), key) for name, key in sorted(there))
    return tuple(found)


def read_way(flow: Flow, incoming: str | None, outgoing: str | None) -> Way:
    """Interfaces that are not given are those of the host's routes. Raises CannotProbe."""
    _check_forwarding(is_ipv6=len(flow.source) == 16)
    return _with_rtnetlink(lambda ip: _read_way(ip, flow, incoming, outgoing))


def read_legacy_tables(*, is_ipv6: bool) -> tuple[str, ...]:
    """Tables of iptables-legacy, which nf_tables does not list."""
    try:
        return tuple(Path("/proc/thread-self/net", _LEGACY[6 if is_ipv6 else 4]).read_text().split())
    except OSError:
        return ()


def has_mark_rules(*, is_ipv6: bool) -> bool:
    """Whether the host routes by packet mark."""
    family = AF_INET6 if is_ipv6 else AF_INET
    return _with_rtnetlink(lambda ip: any(rule.get("fwmark") for rule in ip.get_rules(family=family)))


def _check_forwarding(*, is_ipv6: bool) -> None:
    name = "net.ipv6.conf.all.forwarding" if is_ipv6 else "net.ipv4.ip_forward"
    if Path("/proc/sys", *name.split(".")).read_text().strip() == "0":
        raise CannotProbe(f"this host forwards nothing: sysctl {name} is 0")


def _with_rtnetlink(work: Callable[[IPRoute], _T]) -> _T:
    """In a thread of its own: IPRoute runs an event loop, and the caller may run one."""
    from pyroute2 import IPRoute

    def run() -> _T:
        with IPRoute() as ip:
            return work(ip)

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(run).result()


def _read_way(ip: IPRoute, flow: Flow, incoming: str | None, outgoing: str | None) -> Way:
    source, destination = format_address(flow.source), format_address(flow.destination)
    if incoming is None:
        index, kind = _route(ip, "from the source", source)
        if kind == _LOCAL:
            raise CannotProbe(f"{source} is an address of this host: its packets are not forwarded")
    else:
        index = _index_of(ip, incoming)
    first = _interface(ip, index, flow)
    if outgoing is not None:
        return Way(first, _interface(ip, _index_of(ip, outgoing), flow))
    way, kind = _route(ip, f"by {first.name} to the destination", destination, src=source, iif=index)
    return Way(first, None if kind == _LOCAL else _interface(ip, way, flow))


_NO_ROUTE: Final = {
    errno.EXDEV: "the reverse path filter (rp_filter) drops it, for the way back leads elsewhere",
    errno.EACCES: "a route prohibits it",
    errno.EINVAL: "a route drops it (blackhole), or the address is none that is forwarded",
}


def _route(ip: IPRoute, what: str, address: str, **more: object) -> tuple[int, int]:
    """Interface and type. Raises CannotProbe."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        found = ip.route("get", dst=address, **more)[0]
    except NetlinkError as error:
        why = _NO_ROUTE.get(error.code, "the host has no route")
        raise CannotProbe(f"{why} ({what}, {address})") from None
    return int(found.get("oif") or 0), int(found["type"])


def _index_of(ip: IPRoute, name: str) -> int:
    found = ip.link_lookup(ifname=name)
    if not found:
        raise CannotProbe(f"this host has no interface {name}")
    return int(found[0])


def _interface(ip: IPRoute, index: int, flow: Flow) -> Interface:
    (link,) = ip.link("get", index=index)
    family = AF_INET if len(flow.source) == 4 else AF_INET6
    addresses = [each.get("address") or each.get("local") for each in ip.get_addr(index=index, family=family)]
    master = link.get("master")
    return Interface(
        link.get("ifname"),
        index,
        link.get(("linkinfo", "kind")) or "",
        ip.link("get", index=master)[0].get("ifname") if master else "",
        tuple(addresses[:MAX_ADDRESSES]),
    )
