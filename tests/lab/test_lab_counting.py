"""Unregistered flows as the kernel counts them, packet by packet, against what was sent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from gatewayd.compile import compile_ruleset
from gatewayd.compile.effects import canary_bucket
from gatewayd.impact.counting import SETS, Counting, PrefixService, ServiceBucket, Step
from gatewayd.kernel.counts import CountReader
from gatewayd.kernel.tables import KernelTables
from gatewayd.lab.lab import Lab
from gatewayd.lab.traffic import flow_of
from gatewayd.model import Flow, Registration, parse_address, parse_prefix, parse_services
from gatewayd.model.flow import Mode
from gatewayd.model.policy import MarkLayout, Policy
from tests.support.talk import Talk
from tests.support.worlds import TABLE, World

pytestmark = pytest.mark.kernel

FAR, FAR6 = "198.51.100.7", "2a00:1450::7"
CLIENT, CLIENT6 = "39.32.9.77", "2400:adc1:9:4::5"
OBSERVE = Policy(
    "observe", parse_services(["ipsec", "wireguard", "pptp"]), MarkLayout(0xFF000000), inside=("inside0",)
)
BANK = Registration("BANK", "bank", "active", clients=(parse_prefix("39.33.0.0/24"),))
_ports = count(30000)


def flow(client: str = CLIENT, service: str = "udp/51820", port: int | None = None) -> Flow:
    return flow_of(client, FAR6 if ":" in client else FAR, service, next(_ports) if port is None else port)


class Counts:
    """What the kernel has counted since the last look."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._counting = Counting()

    def look(self) -> Step:
        async def read() -> Step:
            tables, reader = KernelTables.open(TABLE), CountReader.open(TABLE)
            try:
                incarnation = str(await reader.read_handle())
                counters = await tables.read_counters()
                comparison = self._counting.compare(incarnation, 0.0)
                for number, name in enumerate(SETS):
                    async for piece in reader.read_counts(name):
                        comparison.take(number, piece)
                step = self._counting.finish(incarnation, comparison, counters)
                self._counting.accept(step)
                return step
            finally:
                tables.close()
                reader.close()

        with self._lab.gateway.entered():
            return asyncio.run(read())


def prefix_of(client: str) -> bytes:
    packed = parse_address(client)
    return packed[:3] if len(packed) == 4 else packed[:6]


def begin(lab: Lab, talk: Talk, policy: Policy = OBSERVE, registrations: tuple[Registration, ...] = ()) -> Counts:
    talk.put(World(registrations, policy))
    counts = Counts(lab)
    counts.look()
    return counts


def again(lab: Lab, policy: Policy, epoch: int) -> None:
    """Other rules in place of those that are there."""

    async def run() -> None:
        tables = KernelTables.open(TABLE)
        try:
            await tables.replace_rules(compile_ruleset(TABLE, policy, {}, epoch))
        finally:
            tables.close()

    with lab.gateway.entered():
        asyncio.run(run())


@pytest.mark.parametrize(
    ("client", "service", "key"),
    [
        (CLIENT, "udp/51820", (17, 51820)),
        (CLIENT, "udp/500", (17, 500)),
        (CLIENT, "esp", (50, 0)),
        (CLIENT, "gre", (47, 0)),
        (CLIENT6, "udp/4500", (17, 4500)),
        (CLIENT6, "esp", (50, 0)),
    ],
)
def test_a_flow_counts_for_the_clients_prefix_the_service_and_its_bucket(
    lab: Lab, talk: Talk, client: str, service: str, key: tuple[int, int]
) -> None:
    counts = begin(lab, talk)
    said = flow(client, service)
    for _ in range(3):
        assert talk.client(said) == "passed"
    step = counts.look()
    assert step.prefixes == {PrefixService(prefix_of(client), *key): 1}
    assert step.services == {ServiceBucket(*key, canary_bucket(parse_address(client))): 1}
    assert step.packets["unregistered_flows"] == 1


def test_the_client_is_the_end_inside_whoever_speaks_first(lab: Lab, talk: Talk) -> None:
    counts = begin(lab, talk)
    opened_inwards = Flow(17, parse_address(FAR), parse_address(CLIENT), 40000, 51820)
    assert talk.say("internet", opened_inwards) == "passed"
    assert list(counts.look().prefixes) == [PrefixService(prefix_of(CLIENT), 17, 51820)]
    said = flow()
    assert talk.far_end(said) == "passed", "the far end's packet is judged with the client's"
    assert talk.client(said) == "passed"
    assert counts.look().prefixes == {PrefixService(prefix_of(CLIENT), 17, 51820): 1}


def test_a_registered_flow_is_not_counted(lab: Lab, talk: Talk) -> None:
    counts = begin(lab, talk, replace(OBSERVE, mode="reject"), (BANK,))
    assert talk.client(flow("39.33.0.9")) == "passed"
    step = counts.look()
    assert not step.prefixes
    assert "unregistered_flows" not in step.packets


def test_a_refused_flow_counts_once_however_often_it_is_repeated(lab: Lab, talk: Talk) -> None:
    counts = begin(lab, talk, replace(OBSERVE, mode="reject"))
    for client, service in ((CLIENT, "udp/51820"), (CLIENT6, "udp/500"), (CLIENT, "esp")):
        said = flow(client, service)
        for _ in range(4):
            assert talk.client(said) == "rejected"
        step = counts.look()
        assert list(step.prefixes.values()) == [1]
        assert step.packets["repeated_packets"] == 3
    assert talk.client(flow()) == "rejected"
    assert list(counts.look().prefixes.values()) == [1], "another port is another flow"


def test_a_flow_that_another_policy_judges_again_is_no_new_one(lab: Lab, talk: Talk) -> None:
    counts = begin(lab, talk)
    said = flow()
    assert talk.client(said) == "passed"
    assert list(counts.look().prefixes.values()) == [1]
    again(lab, replace(OBSERVE, mode="reject"), epoch=2)
    assert talk.client(said) == "rejected"
    step = counts.look()
    assert not step.prefixes
    assert step.packets["reclassified_flows"] == 1


def test_untracked_packets_of_a_flow_count_once(lab: Lab, talk: Talk) -> None:
    counts = begin(lab, talk)
    said = flow()
    with talk.beside("prerouting priority raw", "notrack"):
        for _ in range(3):
            assert talk.client(said) == "passed"
    step = counts.look()
    assert list(step.prefixes.values()) == [1]
    assert step.packets["repeated_packets"] == 2


def test_counts_go_on_where_the_rules_are_replaced(lab: Lab, talk: Talk) -> None:
    counts = begin(lab, talk)
    assert talk.client(flow()) == "passed"
    again(lab, replace(OBSERVE, log_packets_s=7), epoch=1)
    assert talk.client(flow()) == "passed"
    assert list(counts.look().prefixes.values()) == [2]


@pytest.mark.parametrize("inside", [("inside0", "ppp*"), ("inside*", "wan7")])
def test_with_several_names_inside_flows_count_by_interface(lab: Lab, talk: Talk, inside: tuple[str, ...]) -> None:
    counts = begin(lab, talk, replace(OBSERVE, inside=inside))
    assert talk.client(flow()) == "passed"
    assert talk.say("internet", Flow(17, parse_address(FAR), parse_address(CLIENT), 40001, 500)) == "passed"
    assert counts.look().interfaces == {"inside0": 2}


def test_where_the_set_is_full_what_has_no_place_is_counted_as_that(lab: Lab, talk: Talk) -> None:
    counts = begin(lab, talk)
    elements = ", ".join(f"10.{number >> 8}.{number & 255}.0 . udp . 53" for number in range(65536))
    lab.gateway.run(["nft", "-f", "-"], input=f"add element inet {TABLE} prefix_flows4 {{ {elements} }}\n")
    assert talk.client(flow()) == "passed"
    step = counts.look()
    assert not step.prefixes
    assert list(step.services.values()) == [1], "the service is known"
    assert step.packets["unplaced_flows"] == step.packets["unregistered_flows"] == 1


MODES: tuple[Mode, ...] = ("observe", "mark", "limit", "reject")


@pytest.mark.parametrize("mode", MODES)
def test_what_a_canary_would_refuse_is_what_a_canary_refuses(lab: Lab, talk: Talk, mode: Any) -> None:
    """Of the same clients, seen in this mode, and then refused."""
    clients = [f"39.32.{number}.{number * 3 % 250}" for number in range(12)]
    counts = begin(lab, talk, replace(OBSERVE, mode=mode, limit_bytes_s=100_000))
    for client in clients:
        talk.client(flow(client))
    foreseen = sum(flows for key, flows in counts.look().services.items() if key.bucket < 40)
    talk.put(World((), replace(OBSERVE, mode="reject", canary_percent=40)))
    assert sum(talk.client(flow(client)) == "rejected" for client in clients) == foreseen
    assert 0 < foreseen < len(clients)


def test_observing_counts_the_packets_that_a_limit_drops(lab: Lab, talk: Talk) -> None:
    limit = replace(OBSERVE, mode="limit", limit_bytes_s=2000)
    talk.put(World((), limit))
    said = flow()
    while talk.say("customers", said, 500) == "passed":
        pass
    assert talk.counter("limited_packets") == 1
    talk.put(World((), replace(limit, mode="observe", shadows_limit=True)))
    said = flow()
    while talk.counter("over_limit_packets") == 0:
        assert talk.say("customers", said, 500) == "passed"
    assert talk.counter("limited_packets") == 0
