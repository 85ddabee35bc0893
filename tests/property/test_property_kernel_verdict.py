"""Our decision against the kernel's verdict, on one real packet of each of many flows.

A *world* is some registrations and a scope, armed in mode reject, drawn from the universe of
tests/support/strategies.py by a seed: there hypothesis would draw mostly worlds in which everything passes, and it
cannot shrink against a kernel. Customers are 10.0.0.0/16 and 2001:db8::/48, the internet is the rest; registered
prefixes lie on both sides and across, and flows start on either side. A *bound world* has subscribers as well, who
have addresses, prefixes and port blocks on both sides.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, product
from math import inf
from random import Random

import msgspec
import pytest

from gatewayd.compile import DesiredSets
from gatewayd.compile.effects import canary_bucket
from gatewayd.kernel.tables import KernelTables
from gatewayd.lab.lab import Lab, Side
from gatewayd.lab.traffic import Outcome, probe
from gatewayd.model import (
    Binding,
    BoundRegistration,
    Extension,
    Family,
    Flow,
    Prefix,
    Registration,
    Service,
    format_address,
    parse_address,
    parse_prefix,
    parse_services,
)
from gatewayd.model.flow import DecisionWord
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.model.prefix import mask_address
from gatewayd.model.service import AH, BUNDLES, ESP, GRE, TCP, UDP
from gatewayd.reconcile import Reconciler
from tests.support.worlds import NOW, TABLE, World, forget_connections, program

pytestmark = pytest.mark.kernel

EVERYTHING = parse_services(["tcp", "udp", "esp", "ah", "gre"])
SCOPES = (
    EVERYTHING,
    parse_services(["ipsec", "wireguard", "openvpn", "pptp", "l2tp"]),
    parse_services(["udp/500-1194", "tcp/443", "gre"]),
    (),
)
PORTS = (443, 499, 500, 501, 1194, 1701, 1723, 4499, 4500, 4501, 51820)
FLOWS_A_WORLD = 200
ANSWER_DEADLINE_S = 10.0
"""For outcomes that show themselves; spent only where the kernel did not do what was decided."""
SILENCE_DEADLINE_S = 0.05
"""For what the kernel refuses without a word: AH over IPv6 (see `probe`). That it did not pass is then read from
the kernel's own counter as well."""

CUSTOMERS = (parse_prefix("10.0.0.0/16"), parse_prefix("2001:db8::/48"))
INSIDE = {
    4: [bytes((10, 0, *rest)) for rest in product((0, 1), (0, 1, 2, 3, 128))],
    6: [parse_address(f"2001:db8:0:{net}::{host}") for net, host in product((0, 1), (0, 1, 2, 3))],
}
OUTSIDE = {
    4: [
        parse_address("198.51.100.9"),
        *(bytes((10, 1, *rest)) for rest in product((0, 1), (0, 1, 2, 3, 128))),
    ],
    6: [
        parse_address("2400:cb00::9"),
        *(parse_address(f"2001:db8:1:{net}::{host}") for net, host in product((0, 1), (0, 1, 2, 3))),
    ],
}
SIDES: tuple[Side, Side] = ("customers", "internet")

source_ports = count(10000)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A flow and the side that opens it."""

    start: Side
    flow: Flow


def reject_policy(scope: tuple[Service, ...] = EVERYTHING, canary_percent: int = 100) -> Policy:
    return Policy(
        "reject", scope, MarkLayout(0xFF000000), inside=("inside*",), outside=("outside0",),
        canary_percent=canary_percent,
    )  # fmt: skip


def draw_attempts(random: Random, size: int = FLOWS_A_WORLD) -> list[Attempt]:
    """Flows that are new to connection tracking: a source port of their own, or else a pair of ends. Some come from
    a port that is a service's, as a far end's answers do."""
    attempts: list[Attempt] = []
    known: set[tuple[int, bytes, bytes, int, int]] = set()
    while len(attempts) < size:
        family = random.choice((4, 6))
        customer, stranger = random.choice(INSIDE[family]), random.choice(OUTSIDE[family])
        start = random.choice(SIDES)
        ends = (customer, stranger) if start == "customers" else (stranger, customer)
        protocol = random.choice((UDP, UDP, TCP, ESP, AH, GRE))
        if protocol in (UDP, TCP):
            ports = (10000 + next(source_ports) % 50000, random.choice(PORTS))
            if random.random() < 0.3 and protocol == UDP:
                ports = (random.choice(PORTS), random.choice((ports[0], random.choice(PORTS))))
        else:
            ports = (0, 0)
        # Whoever opens it, to connection tracking it is one flow.
        inside_ports = ports if start == "customers" else ports[::-1]
        if (protocol, customer, stranger, *inside_ports) in known:
            continue
        known.add((protocol, customer, stranger, *inside_ports))
        attempts.append(Attempt(start, Flow(protocol, *ends, *ports)))
    return attempts


def send(lab: Lab, attempts: Sequence[Attempt], deadline_s: float) -> Iterator[tuple[Attempt, Outcome]]:
    for side in SIDES:
        some = [attempt for attempt in attempts if attempt.start == side]
        flows = [attempt.flow for attempt in some]
        yield from zip(some, probe(lab, flows, start=side, deadline_s=deadline_s), strict=True)


def is_silent(flow: Flow) -> bool:
    return flow.protocol == AH and len(flow.source) == 16


def complaints(lab: Lab, attempts: Sequence[Attempt], expected: Mapping[Attempt, bool], why: World) -> list[str]:
    """What the kernel did otherwise than `expected` (whether it passes)."""
    silent = [each for each in attempts if is_silent(each.flow) and not expected[each]]
    loud = [each for each in attempts if not is_silent(each.flow) or expected[each]]
    outcomes = [*send(lab, loud, ANSWER_DEADLINE_S), *send(lab, silent, SILENCE_DEADLINE_S)]
    assert len(outcomes) == len(attempts)
    wrong = []
    for attempt, outcome in outcomes:
        wanted = "passed" if expected[attempt] else ("lost" if is_silent(attempt.flow) else "rejected")
        if outcome != wanted:
            flow = attempt.flow
            service = Service(flow.protocol, flow.destination_port, flow.destination_port or 65535)
            wrong.append(
                f"{format_address(flow.source)} → {format_address(flow.destination)} {service} from the "
                f"{attempt.start}: {outcome} instead of {wanted}; {why.decision(flow).reason}"
            )
    return wrong


@pytest.fixture(scope="module")
def lab(kernel: None) -> Iterator[Lab]:
    """With the calling thread in the gateway's namespace: asyncio and nft run there."""
    with Lab(CUSTOMERS) as made, made.gateway.entered():
        yield made


SERVICE_WORDS = (
    *BUNDLES, "esp", "ah", "gre", "udp", "tcp/443", "udp/500", "udp/500-4500", "tcp/1190-1200", "udp/4490-4500",
    "udp/1-51819", "tcp/1-65535",
)  # fmt: skip
"""All kinds of masks: bundles, protocols, ports, narrow ranges that are listed and wide ones cut into blocks."""
LENGTHS: dict[Family, tuple[int, ...]] = {
    4: (8, 15, 16, 23, 24, 25, 30, 31, 32, 32, 32),
    6: (16, 32, 47, 48, 63, 64, 126, 127, 128, 128, 128),
}
ALL_ARE_WIDE: dict[Family, int] = {4: 23, 6: 48}
"""Prefixes up to this length cover a side of the universe; they get few services, or every flow would pass."""
FAMILIES: tuple[tuple[Family, ...], ...] = ((4,), (6,), (4, 6))
WORLDS = 20
REGISTRATIONS_A_WORLD = 30


def draw_prefix(random: Random, family: Family) -> Prefix:
    length = random.choice(LENGTHS[family])
    return Prefix(mask_address(random.choice(INSIDE[family] + OUTSIDE[family]), length), length)


def draw_registration(random: Random, number: int) -> Registration:
    families = random.choice(FAMILIES)
    clients = {draw_prefix(random, family) for family in families for _ in range(random.choice((1, 1, 2)))}
    peers = {draw_prefix(random, random.choice((4, 6))) for _ in range(random.choice((0, 0, 0, 1, 2, 4)))}
    is_wide = any(prefix.length <= ALL_ARE_WIDE[prefix.family] for prefix in clients)
    words = random.sample(SERVICE_WORDS, 1 if is_wide else random.choice((0, 1, 2, 3)))
    return Registration(
        f"PK-{number}",
        "bank",
        random.choice(("active",) * 6 + ("suspended", "revoked")),
        tuple(sorted(clients)),
        peers=tuple(sorted(peers)),
        services=parse_services(words),
        valid_from_s=random.choice((-inf, -inf, -inf, NOW, NOW + 1)),
        valid_until_s=random.choice((inf, inf, inf, NOW + 1, NOW)),
    )


def draw_world(seed: int) -> tuple[World, list[Attempt]]:
    """Three of four have everything in scope."""
    random = Random(seed)
    some = [draw_registration(random, number) for number in range(REGISTRATIONS_A_WORLD)]
    scope = random.choice(SCOPES[1:]) if seed % 4 == 3 else EVERYTHING
    return World(some, reject_policy(scope)), draw_attempts(random)


def test_the_worlds_leave_flows_of_every_kind_registered_unregistered_and_out_of_scope() -> None:
    kinds = Counter(
        (len(each.flow.source), each.flow.protocol, each.start, world.decision(each.flow).word)
        for world, attempts in map(draw_world, range(WORLDS))
        for each in attempts
    )
    protocols = (UDP, TCP, ESP, AH, GRE)
    words: tuple[DecisionWord, ...] = ("registered", "unregistered", "out_of_scope")
    wanted = set(product((4, 16), protocols, SIDES, words))
    assert {kind for kind in wanted if kinds[kind] < 5} == set()


BLOCKS = ((0, 32767), (32768, 65535), (0, 65535), (16384, 49151), (16383, 49152), (8192, 57343))
BOUND_LENGTHS: dict[Family, tuple[int, ...]] = {4: (24, 30, 32, 32, 32), 6: (48, 63, 64, 64, 128)}
BOUND_WORLDS = 24
SUBSCRIBERS_A_WORLD = 12


def draw_binding(random: Random, subscriber: bytes) -> Binding:
    family: Family = random.choice((4, 4, 6))
    length = random.choice(BOUND_LENGTHS[family])
    prefix = Prefix(mask_address(random.choice(INSIDE[family] + OUTSIDE[family]), length), length)
    ports = random.choice(BLOCKS) if prefix.length == 32 and random.random() < 0.8 else None
    return Binding(
        subscriber=subscriber, prefix=prefix, ports=ports, since_s=1.0, confirmed_s=1.0, nas="bras-1", session="s-1"
    )


def draw_subscribed(random: Random, number: int) -> Registration:
    """Most of a subscriber alone, some with clients of their own beside."""
    drawn = draw_registration(random, number)
    clients = drawn.clients if random.random() < 0.2 else ()
    words = random.sample(SERVICE_WORDS, random.choice((0, 0, 1, 2, 3)))
    return Registration(
        drawn.id, "freelancer", drawn.status, clients, bytes((number % SUBSCRIBERS_A_WORLD,)) * 32,
        drawn.peers, parse_services(words), drawn.valid_from_s, drawn.valid_until_s,
    )  # fmt: skip


def with_source_ports(random: Random, attempts: Sequence[Attempt]) -> list[Attempt]:
    """The same from source ports all over; those of two attempts differ."""
    ports = iter(random.sample(range(1024, 65536), len(attempts)))
    return [
        replace(each, flow=msgspec.structs.replace(each.flow, source_port=next(ports)))
        if each.flow.protocol in (UDP, TCP)
        else each
        for each in attempts
    ]


def draw_bound_world(seed: int) -> tuple[World, list[Attempt]]:
    random = Random(1000 + seed)
    some = [
        *(draw_subscribed(random, number) for number in range(15)),
        *(draw_registration(random, number) for number in range(15, 20)),
    ]
    bindings = [
        draw_binding(random, bytes((number,)) * 32)
        for number in range(SUBSCRIBERS_A_WORLD + 3)
        for _ in range(random.choice((0, 1, 1, 2, 3)))
    ]
    world = World(some, reject_policy(), bindings)
    return world, with_source_ports(random, draw_attempts(random))


def test_the_bound_worlds_leave_flows_of_every_kind_registered_by_a_binding_alone_and_others_not() -> None:
    kinds: Counter[object] = Counter()
    for world, attempts in map(draw_bound_world, range(BOUND_WORLDS)):
        bare = World(list(world.allowlist), world.policy)
        for each in attempts:
            flow, word = each.flow, world.decision(each.flow).word
            by_binding = word == "registered" and bare.decision(flow).word == "unregistered"
            at = world.allowlist.bindings_at(flow.source)
            through = world.decision(flow).bindings
            blocks = bool(through) and all(binding.ports is not None for binding in through)
            shares = any(binding.ports is not None for binding in at)
            inbound = any(binding.prefix.covers(flow.destination) for binding in through)
            kinds["by binding", len(flow.source), flow.protocol, each.start] += by_binding
            kinds["by block", flow.protocol] += by_binding and blocks
            kinds["not from a block", flow.protocol] += word == "unregistered" and shares
            kinds["inbound", len(flow.source)] += by_binding and inbound
            kinds["inbound to a block"] += by_binding and inbound and blocks
    protocols = (UDP, TCP, ESP, AH, GRE)
    wanted: set[object] = set(product(("by binding",), (4, 16), protocols, SIDES))
    wanted |= set(product(("by block",), (UDP, TCP))) | {"inbound to a block"}
    wanted |= set(product(("not from a block",), protocols)) | set(product(("inbound",), (4, 16)))
    assert {kind for kind in wanted if kinds[kind] < 3} == set()
    assert not any(kinds["by block", protocol] for protocol in (ESP, AH, GRE))


PROVIDER_WORLDS = 12
ENDPOINT_LENGTHS: dict[Family, tuple[int, ...]] = {4: (24, 25, 30, 31, 32, 32), 6: (48, 63, 64, 126, 128, 128)}


def draw_provider(random: Random, number: int) -> Registration:
    """Its endpoints are outside: the allowlist does not know which end is inside, and the rules do."""
    endpoints = set()
    for _ in range(random.choice((1, 1, 2, 3))):
        family: Family = random.choice((4, 6))
        length = random.choice(ENDPOINT_LENGTHS[family])
        endpoints.add(Prefix(mask_address(random.choice(OUTSIDE[family]), length), length))
    words = random.sample(SERVICE_WORDS, random.choice((1, 2)))
    return Registration(
        f"VPN-{number}",
        "provider",
        random.choice(("active",) * 5 + ("suspended",)),
        (),
        services=parse_services(words),
        valid_until_s=random.choice((inf, inf, NOW)),
        extension=Extension(endpoints=tuple(sorted(endpoints))),
    )


def draw_provider_world(seed: int) -> tuple[World, list[Attempt]]:
    """Some of the flows are from an endpoint, from a port that may be its service's."""
    random = Random(2000 + seed)
    some = [
        *(draw_provider(random, number) for number in range(10)),
        *(draw_registration(random, number) for number in range(4)),
    ]
    scope = random.choice(SCOPES[1:3]) if seed % 4 == 3 else EVERYTHING
    return World(some, reject_policy(scope)), draw_attempts(random)


def test_the_provider_worlds_leave_flows_to_endpoints_registered_and_never_one_from_them() -> None:
    kinds: Counter[object] = Counter()
    for world, attempts in map(draw_provider_world, range(PROVIDER_WORLDS)):
        bare = World([each for each in world.allowlist if not each.endpoints], world.policy)
        for each in attempts:
            flow, family = each.flow, len(each.flow.source)
            word, without = world.decision(flow).word, bare.decision(flow).word
            if word != without:
                kinds[each.start, family, flow.protocol, without, word] += 1
    protocols = (UDP, TCP, ESP, AH, GRE)
    to = {("customers", family, each, "unregistered", "registered") for family in (4, 16) for each in protocols}
    left = {("internet", family, each, "unregistered", "out_of_scope") for family in (4, 16) for each in protocols}
    left -= {("internet", family, TCP, "unregistered", "out_of_scope") for family in (4, 16)}  # none is from a port
    assert set(kinds) == to | left
    assert {kind for kind in to | left if kinds[kind] < 3} == set()


WORLDS_BY_NAME = [pytest.param(draw_world, seed, id=f"{seed}") for seed in range(WORLDS)] + [
    pytest.param(draw_bound_world, seed, id=f"bound-{seed}") for seed in range(BOUND_WORLDS)
]
WORLDS_BY_NAME += [
    pytest.param(draw_provider_world, seed, id=f"provider-{seed}") for seed in range(PROVIDER_WORLDS)
]


@pytest.mark.parametrize(("draw", "seed"), WORLDS_BY_NAME)
def test_the_kernel_passes_what_is_registered_or_out_of_scope_and_rejects_the_rest(
    lab: Lab, draw: Callable[[int], tuple[World, list[Attempt]]], seed: int
) -> None:
    world, attempts = draw(seed)
    expected = {attempt: world.passes(attempt.flow) for attempt in attempts}

    async def run() -> None:
        tables = KernelTables.open(TABLE)
        try:
            await program(tables, world)
            assert complaints(lab, attempts, expected, world) == []
            counters = await tables.read_counters()
            assert counters["rejected_packets"].packets == sum(not passes for passes in expected.values())
            words = Counter(world.decision(each.flow).word for each in attempts)
            # What an endpoint sends is left alone, and the client's answer to it registers the flow.
            answered = words["out_of_scope"] if world.allowlist.has_providers else 0
            flows = counters["registered_flows"].packets
            assert words["registered"] <= flows <= words["registered"] + answered
        finally:
            tables.close()

    forget_connections()
    asyncio.run(run())


@pytest.mark.parametrize("draw", [draw_world, draw_bound_world, draw_provider_world])
def test_from_world_to_world_the_reconciler_leaves_the_kernel_saying_what_the_last_one_says(
    lab: Lab, draw: Callable[[int], tuple[World, list[Attempt]]]
) -> None:
    async def run() -> None:
        tables = KernelTables.open(TABLE)
        await tables.delete_table()
        in_sync = asyncio.Event()
        # Masks of a world stay in use until the timer: there are two worlds' masks at a time, and more.
        desired = DesiredSets(2048, max_bound_masks=2048, max_endpoint_masks=2048)
        reconciler = Reconciler(
            tables,
            TABLE,
            clock=time.time,
            monotonic=time.monotonic,
            desired=desired,
            on_in_sync=lambda _: in_sync.set(),
        )
        task = asyncio.create_task(reconciler.run())
        held: list[Registration | BoundRegistration] = []
        try:
            for world, attempts in map(draw, range(WORLDS, WORLDS + 6)):
                before, held = held, world.active()
                for each in held:
                    reconciler.add(each)
                for each in before:
                    reconciler.remove(each)
                reconciler.want_policy(world.policy)
                async with asyncio.timeout(60):
                    in_sync.clear()
                    while reconciler.unready() or reconciler.tracker.count_surplus():
                        await in_sync.wait()
                        in_sync.clear()
                assert reconciler.unprogrammed() == {}
                forget_connections()
                expected = {attempt: world.passes(attempt.flow) for attempt in attempts}
                assert complaints(lab, attempts, expected, world) == []
            assert reconciler.stats.failures == 0
        finally:
            task.cancel()
            await asyncio.wait([task])
            tables.close()

    forget_connections()
    asyncio.run(run())


NO_TRACKING = f"""
table inet {TABLE} {{
    chain untrack {{
        type filter hook prerouting priority raw
        notrack
    }}
}}
"""
untracked_too = pytest.mark.parametrize("untracked", [False, True], ids=["tracked", "untracked"])


def run_world(
    lab: Lab, world: World, attempts: Sequence[Attempt], expected: Mapping[Attempt, bool], untracked: bool
) -> None:
    async def run() -> None:
        tables = KernelTables.open(TABLE)
        try:
            await program(tables, world)
            if untracked:
                lab.gateway.run(["nft", "-f", "-"], input=NO_TRACKING)
            assert complaints(lab, attempts, expected, world) == []
        finally:
            tables.close()

    forget_connections()
    asyncio.run(run())


def client_of(attempt: Attempt) -> bytes:
    """The end inside, whoever opens the flow."""
    return attempt.flow.source if attempt.start == "customers" else attempt.flow.destination


@untracked_too
@pytest.mark.parametrize("percent", [0, 25, 60])
def test_a_canary_rejects_for_the_addresses_we_say_are_in_it_and_for_no_other(
    lab: Lab, percent: int, untracked: bool
) -> None:
    random = Random(percent)
    world = World([], reject_policy(canary_percent=percent))
    attempts = [each for each in draw_attempts(random) if each.flow.protocol in (UDP, ESP)]
    expected = {each: canary_bucket(client_of(each)) >= percent for each in attempts}
    assert set(expected.values()) == ({True, False} if percent else {True})
    run_world(lab, world, attempts, expected, untracked)


@untracked_too
def test_untracked_packets_are_judged_one_by_one_by_the_same_sets(lab: Lab, untracked: bool) -> None:
    random = Random(11)
    ipsec = parse_services(["ipsec"])
    world = World(
        [
            Registration("PK-1", "bank", "active", (parse_prefix("10.0.0.0/24"),), services=ipsec),
            Registration("PK-2", "bank", "active", (parse_prefix("2001:db8:0:1::/64"),)),
        ],
        reject_policy(),
    )
    attempts = [each for each in draw_attempts(random) if each.flow.protocol in (UDP, ESP, GRE)]
    expected = {each: world.passes(each.flow) for each in attempts}
    assert set(expected.values()) == {True, False}
    run_world(lab, world, attempts, expected, untracked)
