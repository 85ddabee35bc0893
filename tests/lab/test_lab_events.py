"""Connection and packet events of the real kernel, in namespaces of their own, under asyncio and uvloop."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import pytest
import uvloop

from gatewayd.errors import MissingPrerequisite
from gatewayd.lab.namespace import Namespace
from gatewayd.model import Flow, parse_address
from gatewayd.model.flow import ConnectionEvent
from tests.support.events import MARK_TUNNELS, Heard, Sender, flush_connections, send_raw, until
from tests.support.planes import fresh_namespace

pytestmark = pytest.mark.kernel


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with fresh_namespace(MARK_TUNNELS) as made:
        yield made


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner.run


def is_new(heard: Heard, flow: Flow) -> bool:
    return flow in heard.flows("new")


def is_logged(heard: Heard, flow: Flow) -> bool:
    return flow in heard.packets


@pytest.mark.parametrize(("source", "destination"), [("127.0.0.1", "127.0.0.2"), ("::1", "::1")])
def test_a_wireguard_flow_is_one_new_event_and_one_destroy_event(
    run: Any, namespace: Namespace, source: str, destination: str
) -> None:
    async def scenario() -> None:
        async with Heard(namespace) as heard:
            with Sender(namespace, source) as sender:
                sender.send(destination, 51820, 51820, 51820)
                sender.send(destination, 51899)
                last = sender.flow(destination, 51899)
                await until(lambda: last in heard.flows("new"))
                assert heard.flows("new") == [sender.flow(destination, 51820), last]
                flush_connections(namespace)
                await until(lambda: len(heard.flows("destroy")) == 2)
                assert sorted(heard.flows("destroy"), key=lambda flow: flow.destination_port) == [
                    sender.flow(destination, 51820), last,
                ]  # fmt: skip
                assert {event.mark for event in heard.connections} == {0xA1000007}
                assert heard.lost == []

    run(scenario())


@pytest.mark.parametrize("address", ["127.0.0.2", "::1"])
@pytest.mark.parametrize(
    ("protocol", "raw"),
    [
        pytest.param(50, struct.pack(">II", 0xABC, 1) + bytes(16), id="esp"),
        pytest.param(47, struct.pack(">HHHHI", 0x3001, 0x880B, 0, 77, 1), id="gre"),
    ],
)
def test_a_flow_without_ports_is_one_new_event(
    run: Any, namespace: Namespace, protocol: int, raw: bytes, address: str
) -> None:
    async def scenario() -> None:
        async with Heard(namespace) as heard:
            send_raw(namespace, protocol, address, raw)
            send_raw(namespace, protocol, address, raw)
            with Sender(namespace) as sender:
                sender.send("127.0.0.2", 51899)
                await until(lambda: sender.flow("127.0.0.2", 51899) in heard.flows("new"))
            (flow,) = heard.flows("new")[:-1]
            assert (flow.protocol, flow.source_port, flow.destination_port) == (protocol, 0, 0)
            assert flow.destination == parse_address(address)

    run(scenario())


def test_ah_in_ipv6_is_tracked_by_what_it_carries(run: Any, namespace: Namespace) -> None:
    """A kernel fact to live with: nft's l4proto is AH (so the rule marked the flow), conntrack's is not."""
    header = struct.pack(">BBHII", 17, 4, 0, 0xABC, 1) + bytes(12)

    async def scenario() -> None:
        async with Heard(namespace) as heard:
            send_raw(namespace, 51, "::1", header + struct.pack(">HHHH", 1000, 2000, 8, 0))
            await until(lambda: bool(heard.connections))
            assert heard.flows("new") == [Flow(17, parse_address("::1"), parse_address("::1"), 1000, 2000)]

    run(scenario())


def test_events_of_unmarked_flows_stay_in_the_kernel(run: Any, namespace: Namespace) -> None:
    async def scenario() -> None:
        async with Heard(namespace) as heard:
            with Sender(namespace) as sender:
                sender.send("127.0.0.2", *range(20000, 20100), 40000, 51820, *range(20100, 20200), 51821)
                await until(lambda: sender.flow("127.0.0.2", 51821) in heard.flows("new"))
                assert heard.flows("new") == [sender.flow("127.0.0.2", port) for port in (51820, 51821)]
                assert heard.source.stats["conntrack"].received == 2
                assert heard.source.stats["conntrack"].overruns == 0

    run(scenario())


def test_a_filter_for_mark_zero_passes_flows_without_mark(run: Any, namespace: Namespace) -> None:
    async def scenario() -> None:
        async with Heard(namespace, mark=0) as heard:
            with Sender(namespace) as sender:
                sender.send("127.0.0.2", 51820, 20001)
                await until(lambda: bool(heard.connections))
                assert heard.flows("new") == [sender.flow("127.0.0.2", 20001)]

    run(scenario())


@pytest.mark.parametrize(("source", "destination"), [("127.0.0.1", "127.0.0.2"), ("::1", "::1")])
@pytest.mark.parametrize("queue_threshold", [1, 8])
def test_a_logged_packet_arrives_with_its_flow(
    run: Any, namespace: Namespace, source: str, destination: str, queue_threshold: int
) -> None:
    async def scenario() -> None:
        async with Heard(namespace, queue_threshold=queue_threshold) as heard:
            with Sender(namespace, source) as sender:
                sender.send(destination, 40000, 40000)
                await until(lambda: len(heard.packets) == 2)
                assert heard.packets[0] == sender.flow(destination, 40000)

    run(scenario())


def test_packets_logged_before_start_are_not_forgotten(run: Any, namespace: Namespace) -> None:
    async def scenario() -> None:
        heard = Heard(namespace)
        with Sender(namespace) as sender:
            sender.send("127.0.0.2", 40000, 51820)
            async with heard:
                await until(lambda: bool(heard.packets and heard.connections))

    run(scenario())


def test_a_flow_over_a_veth_pair_is_seen_where_it_arrives(run: Any, namespace: Namespace) -> None:
    rules = """
table inet lab {
  chain in {
    type filter hook input priority 0
    udp dport 51820 ct mark set 0xa1000007 log prefix "in" group 77
  }
}
"""

    async def scenario(far: Namespace) -> None:
        peer = {"ifname": "lab1", "net_ns_fd": far.descriptor}
        namespace.configure(lambda ip: ip.link("add", ifname="lab0", kind="veth", peer=peer))
        for place, link, host in ((namespace, "lab0", 1), (far, "lab1", 2)):
            place.bring_up(link, f"192.0.2.{host}/24", f"2001:db8::{host}/64")
        async with Heard(far) as heard:
            for near, there in (("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")):
                with Sender(namespace, near) as sender:
                    wanted = sender.flow(there, 51820)
                    sender.send(there, 51820)
                    await until(partial(is_new, heard, wanted))
                    assert heard.flows("new").count(wanted) == 1
                    await until(partial(is_logged, heard, wanted))

    with fresh_namespace(rules) as far:
        run(scenario(far))


def test_an_overrun_is_reported_with_its_number_and_events_go_on(run: Any, namespace: Namespace) -> None:
    """Under uvloop a socket that reports ENOBUFS is never read again: hence NETLINK_NO_ENOBUFS."""

    async def scenario() -> None:
        async with Heard(namespace, receive_buffer_bytes=4096) as heard:
            with Sender(namespace) as sender, Sender(namespace) as second:
                sender.send("127.0.0.2", *range(51820, 51890))
                for _ in range(50):
                    second.send("127.0.0.2", 40000)
                await until(lambda: {"conntrack", "nflog"} <= set(heard.lost))
                connections, packets = heard.source.stats["conntrack"], heard.source.stats["nflog"]
                # The flow of `second` is marked otherwise: filtered, which is not a loss.
                await until(lambda: connections.received + connections.overruns == 70)
                await until(lambda: packets.received + packets.overruns == 50)
                sender.send("127.0.0.2", 51899)
                await until(lambda: sender.flow("127.0.0.2", 51899) in heard.flows("new"))

    run(scenario())


def test_a_buffer_smaller_than_asked_for_is_said(
    run: Any, namespace: Namespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Without CAP_NET_ADMIN in the initial user namespace it is net.core.rmem_max at the most.
    monkeypatch.setattr("gatewayd.kernel.netlink._SO_RCVBUFFORCE", socket.SO_RCVBUF)

    async def scenario() -> None:
        async with Heard(namespace, receive_buffer_bytes=1 << 29):
            said = [record.fields for record in caplog.records if record.message == "watch.small_buffer"]  # type: ignore[attr-defined]
            assert {each["source"] for each in said} == {"conntrack", "nflog", "near"}
            assert all(each["size_bytes"] < each["wanted_bytes"] == 1 << 29 for each in said)

    run(scenario())


def test_a_wakeup_takes_a_bounded_batch(run: Any, namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewayd.watch.source.DATAGRAMS_PER_WAKEUP", 16)

    async def scenario() -> None:
        with Sender(namespace) as sender, Sender(namespace) as second:
            heard = Heard(namespace)
            for source in (sender, second):
                source.send("127.0.0.2", *range(51840, 51890))
            sizes: list[int] = []

            def take(events: list[ConnectionEvent]) -> int:
                sizes.append(len(events))
                return len(events)

            heard.take = take
            async with heard:
                await until(lambda: sum(sizes) == 100)
            assert max(sizes) <= 16
            assert heard.lost == []

    run(scenario())


def test_a_group_that_is_taken_is_a_missing_prerequisite(namespace: Namespace) -> None:
    first = Heard(namespace)
    try:
        with pytest.raises(MissingPrerequisite, match="NFLOG group 77 is in use"):
            Heard(namespace)
    finally:
        first.source.close()
    Heard(namespace).source.close()


def test_without_the_capability_it_is_a_missing_prerequisite() -> None:
    script = """
import os, sys
from gatewayd.errors import MissingPrerequisite
from gatewayd.watch.source import EventSource, PacketLog
source = EventSource(
    logs=(PacketLog("nflog", 77, len),), mark=0, mask=0, on_connections=len, on_lost=print
)
try:
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
except OSError:
    sys.exit(77)
try:
    source.open()
except MissingPrerequisite as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77:
        pytest.skip("cannot give up root here")
    assert "CAP_NET_ADMIN" in done.stdout, done.stderr


def test_events_that_a_turn_has_no_time_for_come_again_in_their_order(run: Any, namespace: Namespace) -> None:
    async def scenario() -> None:
        with Sender(namespace) as sender:
            heard = Heard(namespace)
            sender.send("127.0.0.2", *range(51820, 51880))
            turns: list[int] = []

            def take(events: list[ConnectionEvent]) -> int:
                turns.append(len(events))
                return min(7, len(events))

            heard.take = take
            async with heard:
                await until(lambda: len(heard.connections) == 60)
            assert [event.flow.destination_port for event in heard.connections] == list(range(51820, 51880))
            assert heard.lost == []
            assert heard.source.stats["conntrack"].postponed == sum(size > 7 for size in turns) >= 8

    run(scenario())
