"""The lab tells what a gateway does: nothing at all, a refusal, a silent drop; and leaves nothing behind."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gatewayd.errors import ServiceInvalid
from gatewayd.lab import namespace as namespace_module
from gatewayd.lab.lab import Lab, Side
from gatewayd.lab.namespace import Namespace, entered
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.model import Flow, parse_prefix, reverse_flow

pytestmark = pytest.mark.kernel

CUSTOMERS = (parse_prefix("39.32.0.0/11"), parse_prefix("2400:adc0::/32"))
PAIRS = (("39.32.0.1", "198.51.100.7"), ("2400:adc0::1", "2001:db8::7"))
SERVICES = ("udp/51820", "udp/500", "tcp/443", "tcp/1723", "esp", "ah", "gre", "l2tpv3", "ipip", "udplite/7")
SO_NETNS_COOKIE = 71


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(CUSTOMERS) as made:
        yield made


def flows_of(*services: str, source_port: int = 40000) -> list[Flow]:
    return [flow_of(*pair, service, source_port) for pair in PAIRS for service in services]


def load_rules(lab: Lab, *rules: str) -> None:
    body = "\n".join(rules)
    lab.gateway.run(
        ["nft", "-f", "-"],
        input=f"""flush ruleset
table inet test {{
chain forward {{
type filter hook forward priority filter; policy accept
{body}
}}
}}
""",
    )


def holds_within(condition: Callable[[], bool], deadline_s: float = 10.0) -> bool:
    deadline = time.monotonic() + deadline_s
    while not (held := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return held


def test_every_protocol_passes_a_gateway_without_rules_in_both_families(lab: Lab) -> None:
    assert probe(lab, flows_of(*SERVICES)) == ["passed"] * 2 * len(SERVICES)


def test_every_protocol_is_answered_from_the_far_end(lab: Lab) -> None:
    assert probe(lab, flows_of(*SERVICES), answered=True) == ["passed"] * 2 * len(SERVICES)


def test_the_far_end_can_initiate(lab: Lab) -> None:
    flows = [reverse_flow(flow) for flow in flows_of("esp", "gre")]
    flows += [flow_of(far, customer, "udp/500") for customer, far in PAIRS]
    flows += [flow_of(far, customer, "tcp/443") for customer, far in PAIRS]
    assert set(probe(lab, flows, start="internet")) == {"passed"}
    assert set(probe(lab, flows, start="internet", answered=True)) == {"passed"}


def test_many_sources_destinations_and_ports_are_told_apart(lab: Lab) -> None:
    load_rules(lab, "udp dport 1007 drop")
    flows = [
        flow_of(
            f"39.33.{number % 250}.{number % 9}",
            f"203.0.113.{number % 200}",
            f"udp/{1000 + number % 10}",
            number,
        )
        for number in range(1, 2000)
    ]
    outcomes = probe(lab, flows, deadline_s=2.0)
    expected = ["lost" if flow.destination_port == 1007 else "passed" for flow in flows]
    assert outcomes == expected


def test_more_handshakes_than_are_made_at_once_all_pass(lab: Lab) -> None:
    flows = [flow_of(*PAIRS[number % 2], f"tcp/{2000 + number % 7}", 20000 + number) for number in range(230)]
    assert set(probe(lab, flows)) == {"passed"}


def test_a_refusal_by_icmp_is_rejected_for_every_protocol_that_the_kernel_answers(lab: Lab) -> None:
    load_rules(lab, "reject with icmpx admin-prohibited")
    services = ("udp/51820", "tcp/443", "esp", "gre")
    assert probe(lab, flows_of(*services), deadline_s=5.0) == ["rejected"] * 8


def test_a_tcp_reset_is_rejected(lab: Lab) -> None:
    load_rules(lab, "tcp dport 443 reject with tcp reset")
    assert probe(lab, flows_of("tcp/443", "tcp/1723"), deadline_s=5.0) == ["rejected", "passed"] * 2


def test_a_silent_drop_is_lost_and_touches_no_other_flow(lab: Lab) -> None:
    load_rules(lab, "udp dport 500 drop", "tcp dport 443 drop", "meta l4proto esp drop")
    flows = flows_of("udp/500", "udp/51820", "tcp/443", "tcp/1723", "esp", "gre")
    assert probe(lab, flows, deadline_s=5.0) == ["lost", "passed"] * 6


def test_an_answer_that_is_dropped_makes_the_answered_probe_lost(lab: Lab) -> None:
    load_rules(lab, 'iifname "outside0" udp sport 500 drop')
    assert probe(lab, flows_of("udp/500")) == ["passed", "passed"]
    assert probe(lab, flows_of("udp/500"), answered=True, deadline_s=0.2) == ["lost", "lost"]


def test_a_refusal_other_than_prohibition_is_not_taken_for_one(lab: Lab) -> None:
    load_rules(lab, "udp dport 500 reject with icmpx port-unreachable")
    assert probe(lab, flows_of("udp/500"), deadline_s=0.2) == ["lost", "lost"]


def test_the_tuples_at_the_gateway_are_those_of_the_flows(lab: Lab) -> None:
    load_rules(
        lab,
        "ip saddr 39.32.0.1 ip daddr 198.51.100.7 udp sport 40001 udp dport 51820 "
        "reject with icmpx admin-prohibited",
        "ip6 saddr 2400:adc0::1 ip6 daddr 2001:db8::7 tcp sport 40001 tcp dport 443 reject with tcp reset",
    )
    flows = flows_of("udp/51820", "tcp/443", source_port=40001)
    assert probe(lab, flows, deadline_s=5.0) == ["rejected", "passed", "passed", "rejected"]


def test_a_customer_prefix_can_be_routed_later(lab: Lab) -> None:
    late = flow_of("203.0.113.9", "198.51.100.7", "udp/500")
    assert probe(lab, [late]) == ["passed"]
    assert probe(lab, [late], answered=True, deadline_s=0.2) == ["lost"]
    lab.route_customers([parse_prefix("203.0.113.0/24")])
    assert probe(lab, [late], answered=True) == ["passed"]


def test_all_prefixes_announced_in_pakistan_are_routed_by_default() -> None:
    with Lab() as lab:
        flows = [
            flow_of("202.141.242.5", "198.51.100.7", "esp"),
            flow_of("2407:d000::1", "2001:db8::7", "esp"),
        ]
        assert probe(lab, flows, answered=True) == ["passed", "passed"]


def test_a_word_that_means_several_flows_is_refused() -> None:
    for service in ("ipsec", "udp/500-600", "udp"):
        with pytest.raises(ServiceInvalid):
            flow_of(*PAIRS[0], service)


@pytest.mark.parametrize("start", ["customers", "internet"])
def test_a_stream_through_a_quiet_gateway_loses_nothing(lab: Lab, start: Side) -> None:
    flows = flows_of("udp/51820", "esp")
    flows = flows if start == "customers" else [reverse_flow(flow) for flow in flows]
    with Stream(lab, flows, rate_pps=500, start=start, answered=True) as stream:
        assert stream.wait_for_arrivals(200, 30)
    report = stream.stop()
    assert report.lost == ()
    assert report.arrived == report.sent == report.answered >= 200
    assert report.rejected == ()


def test_a_stream_names_the_packets_that_were_dropped_and_counts_those_refused(lab: Lab) -> None:
    flows = [flow_of(*PAIRS[0], "udp/1"), flow_of(*PAIRS[0], "udp/2"), flow_of(*PAIRS[0], "udp/3")]
    load_rules(lab, "udp dport 2 drop", "udp dport 3 reject with icmpx admin-prohibited")
    with Stream(lab, flows) as stream:
        assert stream.wait_for_arrivals(10, 30)
    report = stream.stop()
    assert report.lost == tuple(number for number in range(report.sent) if number % 3)
    assert report.rejected == tuple(number for number in report.lost if number % 3 == 2)


def test_a_stream_is_of_single_packets(lab: Lab) -> None:
    with pytest.raises(ValueError, match="single packets"):
        Stream(lab, flows_of("tcp/443"))


def test_a_stream_that_cannot_send_says_so(lab: Lab) -> None:
    lab.customers.configure(lambda ip: ip.route("del", dst="default", family=socket.AF_INET))
    stream = Stream(lab, [flow_of(*PAIRS[0], "udp/500")])
    with pytest.raises(OSError, match="unreachable"), stream:
        assert not stream.wait_for_arrivals(1, 30)


def test_everything_works_while_an_event_loop_runs() -> None:
    async def scenario() -> None:
        with Lab(CUSTOMERS) as lab:
            with Stream(lab, flows_of("udp/51820")) as stream:
                outcomes = await asyncio.to_thread(probe, lab, flows_of("udp/500", "tcp/443"))
                assert await asyncio.to_thread(stream.wait_for_arrivals, 10, 30)
            assert set(outcomes) == {"passed"}
            assert stream.stop().lost == ()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_the_callers_namespace_is_as_it_was(lab: Lab) -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    with lab.gateway.entered():
        assert os.readlink("/proc/thread-self/ns/net") != before
        assert "inside0" in {name for _, name in socket.if_nameindex()}
    assert os.readlink("/proc/thread-self/ns/net") == before


def test_a_request_that_the_kernel_refuses_is_an_error_with_its_number(lab: Lab) -> None:
    with pytest.raises(OSError, match="namespace gateway") as caught:
        lab.gateway.configure(lambda ip: ip.route("del", dst="203.0.113.0/24"))
    assert caught.value.errno == errno.ESRCH


def test_a_command_that_fails_says_what_it_wrote(lab: Lab) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        lab.gateway.run(["nft", "list", "table", "inet", "absent"])
    assert "No such file" in caught.value.__notes__[0]
    assert lab.gateway.run(["nft", "list", "table", "inet", "absent"], check=False).returncode == 1


def test_closing_the_lab_ends_its_processes_and_lets_go_of_its_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace_module, "STOP_PATIENCE_S", 0.1)
    descriptors = open_descriptors()
    lab = Lab(CUSTOMERS)
    cookies = {cookie_of(namespace) for namespace in (lab.customers, lab.gateway, lab.internet)}
    polite = lab.gateway.popen(["sleep", "1000"])
    deaf_command = ["sh", "-c", "trap '' TERM; echo ready; exec sleep 1000"]
    deaf = lab.customers.popen(deaf_command, stdout=subprocess.PIPE)
    assert deaf.stdout is not None
    assert deaf.stdout.readline() == b"ready\n"
    assert cookies <= cookies_held()
    lab.close()
    lab.close()
    assert polite.returncode == -signal.SIGTERM
    assert deaf.returncode == -signal.SIGKILL
    assert holds_within(lambda: not cookies & cookies_held())
    assert open_descriptors() == descriptors


HELD_BY_ANOTHER = """
import sys
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of
lab = Lab(())
child = lab.gateway.popen(["sleep", "1000"])
with Stream(lab, [flow_of("39.32.0.1", "198.51.100.7", "esp")]) as stream:
    stream.wait_for_arrivals(1, 30)
    print(child.pid, *(f"/proc/{__import__('os').getpid()}/fd/{n.descriptor}"
          for n in (lab.customers, lab.gateway, lab.internet)), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_lab_whose_process_is_killed_leaves_no_process_and_no_namespace(number: Any) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HELD_BY_ANOTHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with holder:
        assert holder.stdout is not None
        child, *paths = holder.stdout.readline().decode().split()
        cookies = {cookie_at(path) for path in paths}
        assert cookies <= cookies_held()
        holder.send_signal(number)
        holder.wait()
    assert holds_within(lambda: not is_running(int(child)))
    assert holds_within(lambda: not cookies & cookies_held())


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def is_running(pid: int) -> bool:
    """Not a zombie: in a container, nobody may be there to reap an orphan."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def cookie_of(namespace: Namespace) -> int:
    return cookie_at(namespace.path)


def cookie_at(path: str) -> int:
    """The kernel's number of a namespace, never used again; inode numbers are, and tests run side by side."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with entered(descriptor), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe_socket:
            return int.from_bytes(probe_socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)
    finally:
        os.close(descriptor)


def cookies_held() -> set[int]:
    """Of all the network namespaces that a process is in or has open."""
    places: dict[str, Path] = {}
    for pattern in ("[0-9]*/task/*/ns/net", "[0-9]*/fd/*"):
        for place in Path("/proc").glob(pattern):
            try:
                target = os.readlink(place)
            except OSError:
                continue
            if target.startswith("net:["):
                places[target] = place
    cookies = set()
    for place in places.values():
        try:
            cookies.add(cookie_at(str(place)))
        except OSError:
            continue
    return cookies
