"""Network namespaces without a name, in which a copy of the host's ruleset is asked with a real packet.

    near ──near0┄┄┄IN── gateway ──OUT┄┄┄far0── far

The middle one has the ruleset, and the two interfaces that the packet crosses, by the host's names and indexes.
The kernel takes all of it back with the last descriptor, however this process ends.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Self

from pyroute2 import IPRoute

from gatewayd.kernel import attributes as nl
from gatewayd.kernel.netlink import NetlinkChannel, RefusedAt
from gatewayd.kernel.tables_codec import BATCH_BEGIN, BATCH_END, SUBSYSTEM, encode_elements
from gatewayd.kernel.trace import TraceSocket
from gatewayd.lab.lab import End, quiet, wait_until_up
from gatewayd.lab.namespace import IFA_F_NODAD, Namespace
from gatewayd.lab.packets import refused_packet
from gatewayd.lab.tap import Tap, send_frame
from gatewayd.model.flow import AF_INET, AF_INET6, Flow
from gatewayd.model.prefix import format_address
from gatewayd.passage.copying import Listed, Place, Ruleset, by_place, request_of
from gatewayd.passage.host import Interface, Way, list_objects
from gatewayd.passage.packet import TOKEN_BYTES, build_frame
from gatewayd.passage.trace import PROBE_TABLE, Event, read_events
from gatewayd.passage.views import CannotProbe

DEADLINE_S: Final = 5.0
"""For a packet that no rule took and that does not arrive; no time is spent otherwise."""
SETTLE_S: Final = 0.2
MAX_REFUSED: Final = 64
IFA_F_NOPREFIXROUTE: Final = 0x200
"""include/uapi/linux/if_addr.h."""
_FIRST: Final = -1_000_000
_BATCH_BYTES, _BATCH_MESSAGES = 1 << 17, 256
_INSIDE, _OUTSIDE = "02:67:77:00:03:01", "02:67:77:00:03:02"
_NEAR, _FAR = "02:67:77:00:03:03", "02:67:77:00:03:04"


@dataclass(frozen=True, slots=True)
class Refused:
    """An object that the copy does not have, and why."""

    listed: Listed
    why: str


@dataclass(slots=True)
class Observation:
    """`arrived`: at the far end. `refused`: an ICMP error or a reset came back."""

    events: list[Event] = field(default_factory=list)
    arrived: bool = False
    refused: bool = False


class Scratch:
    """Ready for one packet once `load` is done. Close it, or use `with`. Raises MissingPrerequisite."""

    def __init__(self, way: Way, flow: Flow, *, seen: Flow) -> None:
        """`seen`: the flow as the forward hook sees it, behind DNAT."""
        self._flow = flow
        self._incoming = way.incoming.name
        self._handles: dict[tuple[Place, int], int] = {}
        self._devices = frozenset({way.incoming.name, *([way.outgoing.name] if way.outgoing is not None else ())})
        with ExitStack() as stack:
            self.gateway = stack.enter_context(Namespace("gateway"))
            self._near = stack.enter_context(Namespace("near"))
            self._far = stack.enter_context(Namespace("far"))
            for namespace in (self.gateway, self._near, self._far):
                quiet(namespace)
            self.gateway.sysctl("net.ipv4.ip_forward", "1")
            self.gateway.sysctl("net.ipv6.conf.all.forwarding", "1")
            self._near_end = End(self._near, "near0")
            _join(self.gateway, way.incoming, _INSIDE, self._near_end, _NEAR)
            is_hairpin = way.outgoing is None or way.outgoing.index == way.incoming.index
            self._far_end = self._near_end if is_hairpin else End(self._far, "far0")
            if not is_hairpin and way.outgoing is not None:
                _join(self.gateway, way.outgoing, _OUTSIDE, self._far_end, _FAR)
            ends = (End(self.gateway, name) for name in self._devices)
            wait_until_up([self._near_end, self._far_end, *ends])
            out = way.incoming if way.outgoing is None else way.outgoing
            self._route(flow, seen, way.incoming, out, is_local=way.outgoing is None or seen != flow)
            self._stack = stack.pop_all()

    def _route(self, flow: Flow, seen: Flow, incoming: Interface, outgoing: Interface, *, is_local: bool) -> None:
        family = AF_INET if len(flow.source) == 4 else AF_INET6
        length = len(flow.source) * 8

        def add(ip: IPRoute) -> None:
            for address, index in ((seen.source, incoming.index), (seen.destination, outgoing.index)):
                ip.route("replace", family=family, dst=f"{format_address(address)}/{length}", oif=index)
            ip.route("replace", family=family, dst="default", oif=outgoing.index)
            if is_local and flow.destination != seen.destination:
                loopback = ip.link_lookup(ifname="lo")[0]
                ip.route("replace", family=family, dst=f"{format_address(flow.destination)}/{length}",
                    type="local", scope="host", oif=loopback, table=255)  # fmt: skip

        self.gateway.configure(add)

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the ruleset ---------------------------------------------------------------------------------------------

    async def load(self, ruleset: Ruleset) -> list[Refused]:
        """What the kernel does not take here is left out, and returned."""
        with self.gateway.entered():
            channel = NetlinkChannel.open()
        try:
            refused: list[Refused] = []
            listed = ruleset.listed
            for objects in (listed["table"], listed["chain"], listed["set"], listed["object"]):
                refused += await self._make(channel, objects)
            for messages in ruleset.elements.values():
                refused += await self._make(channel, messages)
            refused += await self._make(channel, _found_elements(ruleset))
            refused += await self._make(channel, listed["rule"])
            absent = {id(each.listed) for each in refused}
            await self._map_handles(channel, [each for each in listed["rule"] if id(each) not in absent])
        finally:
            channel.close()
        return refused

    async def _make(self, channel: NetlinkChannel, objects: Iterable[Listed]) -> list[Refused]:
        refused: list[Refused] = []
        for batch in _batches(objects):
            left = list(batch)
            while left:
                try:
                    await self._commit(channel, left)
                    break
                except RefusedAt as error:
                    at = error.sequence - self._first
                    if not 0 <= at < len(left) or len(refused) >= MAX_REFUSED:
                        raise CannotProbe(f"the ruleset cannot be copied: {error}") from None
                    why = os.strerror(error.errno) + (f", {error.detail}" if error.detail else "")
                    refused.append(Refused(left.pop(at), why))
        return refused

    async def _commit(self, channel: NetlinkChannel, objects: list[Listed]) -> None:
        first = self._first = channel.take_sequences(len(objects))
        last = first + len(objects) - 1
        messages = [
            request_of(each, number, self._devices, is_last=number == last)
            for number, each in enumerate(objects, first)
        ]
        begin = nl.message(BATCH_BEGIN, nl.NLM_F_REQUEST, first, 0, SUBSYSTEM >> 8)
        end = nl.message(BATCH_END, nl.NLM_F_REQUEST, last, 0, SUBSYSTEM >> 8)
        await channel.exchange(b"".join([begin, *messages, end]), first, last, f"copy {objects[0].kind}s")

    async def _map_handles(self, channel: NetlinkChannel, rules: Sequence[Listed]) -> None:
        """The copy's rules of a chain are in the order of the host's."""
        copied = by_place(await list_objects(channel, "rule"))
        for place, hosts in by_place(rules).items():
            for copy, host in zip(copied.get(place, ()), hosts, strict=True):
                self._handles[place, copy.handle] = host.handle

    def host_handle(self, place: Place, handle: int) -> int | None:
        return self._handles.get((place, handle))

    def rule_text(self, place: Place, handle: int | None) -> str:
        """As nft prints it; of the policy where there is no handle. Empty where nft does not print it."""
        said = self.gateway.run(["nft", "-a", "list", "chain", *str(place).split(" ")], check=False).stdout
        for line in said.splitlines():
            text, _, number = line.strip().rpartition(" # handle ")
            if handle is not None and number == str(handle):
                return text
            if handle is None and line.strip().startswith("type "):
                return line.strip().rpartition("; ")[2].rstrip(";")
        return ""

    # -- the packet ----------------------------------------------------------------------------------------------

    def send(self, *, from_ingress: bool) -> Observation:
        """One packet; what the kernel said of it, and whether it arrived. `from_ingress`: traced from there on."""
        self.gateway.nft(_tracing(self._flow, self._incoming, from_ingress=from_ingress))
        with self.gateway.entered():
            trace = TraceSocket()
        token = os.urandom(TOKEN_BYTES)
        with trace, Tap(self._far_end) as far, Tap(self._near_end) as near:
            send_frame(
                self._near_end, build_frame(self._flow, token, to=_hardware(_INSIDE), sender=_hardware(_NEAR))
            )
            return _observe(trace, far, near, token)


def _observe(trace: TraceSocket, far: Tap, near: Tap, token: bytes) -> Observation:
    """Until the packet has arrived, was refused or dropped. The kernel tells of a chain before what comes after."""
    found = Observation()
    deadline = time.monotonic() + DEADLINE_S
    while True:
        for datagram in trace.datagrams():
            found.events += read_events(datagram)
        if found.arrived or found.refused:
            return found
        if found.events and found.events[-1].verdict in ("drop", "queue", "stolen"):
            # A refusal is sent before the verdict is told of.
            deadline = min(deadline, time.monotonic() + SETTLE_S)
        found.arrived = any(token in packet and refused_packet(packet) is None for packet in far.packets())
        found.refused = any(_refuses(packet, token) for packet in near.packets())
        left_s = deadline - time.monotonic()
        if not (found.arrived or found.refused) and left_s <= 0:
            return found
        if not (found.arrived or found.refused):
            select.select([each.fileno() for each in (trace, far, near)], [], [], left_s)


def _refuses(packet: bytes, token: bytes) -> bool:
    """An ICMP refusal that quotes it, or a TCP reset that answers it."""
    quoted = refused_packet(packet)
    if quoted is not None:
        return token in quoted
    return (int.from_bytes(token, "big") + 1).to_bytes(4, "big") in packet


def _tracing(flow: Flow, device: str, *, from_ingress: bool) -> str:
    """Rules that come before all others, at the earliest hook that there is a chain for."""
    word = "ip" if len(flow.source) == 4 else "ip6"
    only = f"{word} saddr {format_address(flow.source)} meta nftrace set 1"
    ingress = f"""table netdev {PROBE_TABLE} {{
	chain ingress {{
		type filter hook ingress device "{device}" priority {_FIRST};
		{only}
	}}
}}
"""
    return f"""{ingress if from_ingress else ""}table inet {PROBE_TABLE} {{
	chain prerouting {{
		type filter hook prerouting priority {_FIRST};
		{only}
	}}
	chain forward {{
		type filter hook forward priority {_FIRST};
	}}
}}
"""


def _hardware(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _join(gateway: Namespace, like: Interface, hardware: str, end: End, end_hardware: str) -> None:
    """An interface of the gateway with the name, index and addresses of the host's, wired to `end`. A bridge is a
    bridge, and anything else an Ethernet wire."""
    is_bridge = like.kind == "bridge"
    peer = {"ifname": end.interface, "address": end_hardware, "net_ns_fd": end.namespace.descriptor}

    def add(ip: IPRoute) -> None:
        wire: dict[str, Any] = {"ifname": like.name, "index": like.index, "address": hardware}
        if is_bridge:
            ip.link("add", kind="bridge", **wire)
            wire = {"ifname": "gatewayd-port"}
        ip.link("add", kind="veth", peer=peer, **wire)
        if is_bridge:
            port = ip.link_lookup(ifname="gatewayd-port")[0]
            ip.link("set", index=port, master=like.index, state="up")
        for address in like.addresses:
            length = 128 if ":" in address else 32
            flags = IFA_F_NODAD | IFA_F_NOPREFIXROUTE
            ip.addr("add", index=like.index, address=address, prefixlen=length, flags=flags)
        # Without ARP nothing is asked for on the wire, and every packet goes out at once.
        ip.link("set", index=like.index, state="up", arp=False)

    gateway.configure(add)
    end.namespace.bring_up(end.interface)


def _batches(objects: Iterable[Listed]) -> Iterator[list[Listed]]:
    batch: list[Listed] = []
    size = 0
    for each in objects:
        batch.append(each)
        size += sum(len(payload) + 8 for _, payload in each.attributes) + 32
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_MESSAGES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _found_elements(ruleset: Ruleset) -> Iterator[Listed]:
    for place, key in ruleset.found:
        (elements,) = encode_elements((key,))
        names = ((1, place.table.encode() + b"\0"), (2, place.chain.encode() + b"\0"))
        yield Listed("elements", place.family, (*names, (3 | nl.NLA_F_NESTED, elements[4:])))
