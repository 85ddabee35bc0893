"""What a real daemon in a real gateway does to real packets."""

from __future__ import annotations

import socket
import sys
import time
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest

from gatewayd.demo.cast import (
    BANK,
    EMBASSY,
    FAR,
    FAR_IPV6,
    FREELANCER,
    SOFTWARE_HOUSE,
    STRANGER,
    STRANGER_IPV6,
)
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.model import Flow, reverse_flow
from gatewayd.model.policy import MarkLayout
from tests.support.lab_daemon import LabDaemon, decode, dscp_of, elements, holds, mark_of, seen_at_far_end

pytestmark = pytest.mark.kernel

CAST = [BANK, SOFTWARE_HOUSE, EMBASSY, FREELANCER]
HOUSE, HOUSE_IPV6 = "39.32.64.10", "2400:adc0:100::10"
EF, CS1 = 46, 8
LAYOUT = MarkLayout(0xFF000000)
_ports = count(20000)


def wireguard(source: str, destination: str | None = None, service: str = "udp/51820") -> Flow:
    """A flow that conntrack has not seen yet."""
    far = FAR_IPV6 if ":" in source else FAR
    return flow_of(source, destination or far, service, next(_ports))


def run(daemon: LabDaemon, mode: str, records: list[Any] | None = None, **sections: Any) -> Lab:
    daemon.write_registry("national", CAST if records is None else records)
    daemon.configure(mode, **sections)
    daemon.start()
    daemon.wait_ready()
    return daemon.lab


@pytest.fixture
def strangers() -> list[Flow]:
    return [
        wireguard(STRANGER),
        wireguard(STRANGER_IPV6),
        wireguard(STRANGER, service="esp"),
        wireguard(STRANGER, service="tcp/1194"),
    ]


# -- modes ---------------------------------------------------------------------------------------------------------


def test_observe_blocks_nothing_and_counts_strangers_by_their_neighbourhood(
    daemon: LabDaemon, strangers: list[Flow]
) -> None:
    lab = run(daemon, "observe")
    assert probe(lab, strangers) == ["passed"] * 4
    assert holds(lambda: len(daemon.status()["unregistered"]) == 2)
    status = daemon.status()
    assert {line["prefix"] for line in status["unregistered"]} == {"39.40.9.0/24", "2400:adc1:9::/48"}
    assert daemon.get("/v1/flows")["total"] == 0
    # Not one of their addresses is anywhere in what is told or written.
    told = str(status) + daemon.log_text()
    assert STRANGER not in told
    assert STRANGER_IPV6 not in told


def test_reject_refuses_strangers_and_lets_the_registered_pass(daemon: LabDaemon, strangers: list[Flow]) -> None:
    lab = run(daemon, "reject")
    registered = [
        wireguard(HOUSE),
        wireguard(HOUSE_IPV6),
        wireguard("39.32.0.5", service="esp"),
        wireguard("39.32.64.11", service="tcp/1194"),
    ]
    assert probe(lab, registered) == ["passed"] * 4
    assert probe(lab, strangers) == ["rejected"] * 4
    assert probe(lab, [wireguard("39.32.0.5", "203.0.113.99", "udp/500")]) == ["rejected"]


def test_out_of_scope_is_never_touched(daemon: LabDaemon) -> None:
    lab = run(daemon, "reject")
    flows = [wireguard(STRANGER, service=word) for word in ("udp/53", "tcp/443", "udp/51821", "ipip")]
    assert probe(lab, flows) == ["passed"] * 4
    assert all(mark_of(lab, each) in (0, None) for each in flows)


def test_mark_paints_strangers_for_boxes_downstream_and_nobody_else(daemon: LabDaemon) -> None:
    policy = {"on_unregistered": {"dscp": "cs1"}, "on_registered": {"dscp": "ef"}}
    lab = run(daemon, "mark", policy=policy)
    for registered in (wireguard(HOUSE), wireguard(HOUSE_IPV6)):
        # The first packet is classified, the second one known by its mark.
        assert [dscp_of(seen_at_far_end(lab, registered)) for _ in range(2)] == [EF, EF]
    for stranger in (wireguard(STRANGER), wireguard(STRANGER_IPV6)):
        assert [dscp_of(seen_at_far_end(lab, stranger)) for _ in range(2)] == [CS1, CS1]
    assert dscp_of(seen_at_far_end(lab, wireguard(STRANGER, service="udp/53"))) == 0


def test_observe_paints_no_stranger(daemon: LabDaemon) -> None:
    lab = run(daemon, "observe", policy={"on_unregistered": {"dscp": "cs1"}, "on_registered": {"dscp": "ef"}})
    assert dscp_of(seen_at_far_end(lab, wireguard(STRANGER))) == 0
    assert dscp_of(seen_at_far_end(lab, wireguard(HOUSE))) == EF


@pytest.mark.parametrize("source", [STRANGER, STRANGER_IPV6], ids=["ipv4", "ipv6"])
def test_limit_drops_above_the_rate_and_nothing_below_it_nor_of_the_registered(
    daemon: LabDaemon, source: Any
) -> None:
    lab = run(daemon, "limit", policy={"on_unregistered": {"limit": "4kbyte/s"}})
    slow_source = "39.40.77.7" if source == STRANGER else "2400:adc1:77::7"
    with (
        Stream(lab, [wireguard(source)], rate_pps=400) as fast,
        Stream(lab, [wireguard(slow_source)], rate_pps=20) as slow,
        Stream(lab, [wireguard(HOUSE), wireguard(HOUSE_IPV6)], rate_pps=400) as registered,
    ):
        assert registered.wait_for_arrivals(800, 30)
    assert fast.report().arrived > 0
    assert len(fast.report().lost) > 100
    assert slow.report().lost == ()
    assert slow.report().sent > 10
    assert registered.report().lost == ()
    assert daemon.wait(lambda: daemon.status()["counters"]["limited_packets"]["packets"] > 100, "counters") >= 0


# -- who and where -------------------------------------------------------------------------------------------------


def test_the_far_end_may_open_a_registered_flow_and_no_other(daemon: LabDaemon) -> None:
    lab = run(daemon, "reject")
    flows = [
        flow_of(FAR, "39.32.0.9", "udp/500", next(_ports)),
        flow_of(FAR_IPV6, "2400:adc0:12::9", "esp"),
        flow_of("203.0.113.99", "39.32.0.9", "udp/500", next(_ports)),
        flow_of(FAR, STRANGER, "udp/51820", next(_ports)),
    ]
    assert probe(lab, flows, start="internet") == ["passed", "passed", "rejected", "rejected"]


def test_answers_of_a_registered_flow_pass_both_ways(daemon: LabDaemon) -> None:
    lab = run(daemon, "reject")
    assert probe(lab, [wireguard(HOUSE), wireguard(HOUSE_IPV6)], answered=True) == ["passed"] * 2
    inward = flow_of(FAR, "39.32.0.9", "udp/4500", next(_ports))
    assert probe(lab, [inward], start="internet", answered=True) == ["passed"]


def test_a_reply_of_a_flow_that_was_never_judged_leaves_the_chain(daemon: LabDaemon) -> None:
    lab = daemon.lab
    flow = wireguard(STRANGER)
    # Tracked by a rule of somebody else's, before we come.
    track = "add rule inet other f ct state new counter\n"
    lab.gateway.run(["nft", "-f", "-"], input="add table inet other\nadd chain inet other f "
                    "{ type filter hook forward priority 0; }\n" + track)  # fmt: skip
    assert probe(lab, [flow]) == ["passed"]
    run(daemon, "reject")
    assert probe(lab, [reverse_flow(flow)], start="internet") == ["passed"]
    assert mark_of(lab, flow) == 0
    assert probe(lab, [flow]) == ["rejected"]
    # Judged now, in both directions.
    assert probe(lab, [reverse_flow(flow)], start="internet") == ["rejected"]


def test_only_what_crosses_between_inside_and_outside_is_judged(daemon: LabDaemon) -> None:
    back = flow_of(STRANGER, "39.41.1.1", "udp/51820", next(_ports))
    crossing = {"interfaces": {"inside": ["inside0"], "outside": ["outside0"]}}
    lab = run(daemon, "reject", policy=crossing)
    assert seen_at_far_end(lab, back, turn_back=True) is not None
    assert probe(lab, [wireguard(STRANGER)]) == ["rejected"]
    assert probe(lab, [flow_of(FAR, STRANGER, "udp/51820", next(_ports))], start="internet") == ["rejected"]
    # Without interfaces everything that is forwarded is judged.
    daemon.configure("reject")
    daemon.reload()
    daemon.wait_log("reload.done")
    daemon.wait(lambda: bool(daemon.status().get("ready")), "ready")
    assert holds(
        lambda: (
            seen_at_far_end(
                lab, flow_of(STRANGER, "39.41.1.1", "udp/51820", next(_ports)), turn_back=True, deadline_s=1.0
            )
            is None
        )
    )


def test_an_interface_pattern_is_a_pattern(daemon: LabDaemon) -> None:
    lab = run(daemon, "reject", policy={"interfaces": {"inside": ["ins*"], "outside": []}})
    assert probe(lab, [wireguard(STRANGER)]) == ["rejected"]
    assert probe(lab, [wireguard(HOUSE)]) == ["passed"]


def test_untracked_packets_are_judged_one_by_one(daemon: LabDaemon) -> None:
    lab = run(daemon, "reject")
    lab.gateway.run(["nft", "-f", "-"], input="add table inet other\nadd chain inet other pre "
                    "{ type filter hook prerouting priority raw; }\n"
                    "add rule inet other pre udp dport { 51820, 500 } notrack\n"
                    "add rule inet other pre udp sport { 51820, 500 } notrack\n")  # fmt: skip
    registered, stranger = wireguard(HOUSE), wireguard(STRANGER)
    assert probe(lab, [registered, wireguard(HOUSE_IPV6)] * 3) == ["passed"] * 6
    assert probe(lab, [stranger, wireguard(STRANGER_IPV6)] * 3) == ["rejected"] * 6
    assert mark_of(lab, registered) is None
    # From the far end: no port of the answer is in scope, so it leaves the chain.
    assert probe(lab, [reverse_flow(registered)], start="internet") == ["passed"]


def test_a_canary_enforces_for_its_addresses_only_and_explain_knows_which(daemon: LabDaemon) -> None:
    lab = run(daemon, "reject", policy={"canary": "40%"})
    flows = [wireguard(f"39.40.{n}.{n}") for n in range(1, 60)]
    flows += [wireguard(f"2400:adc1:1{n:02x}::{n:x}") for n in range(1, 30)]
    expected = {"reject": "rejected", "observe": "passed"}
    effects = [daemon.explain(each)["effect"] for each in flows]
    assert probe(lab, flows) == [expected[effect] for effect in effects]
    assert set(effects) == {"reject", "observe"}


def test_the_bits_of_the_mark_that_are_not_ours_are_kept(daemon: LabDaemon) -> None:
    lab = run(daemon, "mark")
    lab.gateway.run(["nft", "-f", "-"], input="add table inet other\nadd chain inet other pre "
                    "{ type filter hook prerouting priority mangle; }\n"
                    "add rule inet other pre ct state new ct mark set ct mark or 0x42\n")  # fmt: skip
    registered, stranger = wireguard(HOUSE), wireguard(STRANGER)
    assert probe(lab, [registered, stranger]) == ["passed", "passed"]
    assert mark_of(lab, registered) == LAYOUT.registered | 0x42
    assert mark_of(lab, stranger) == LAYOUT.judged(daemon.status()["epoch"]) | 0x42


# -- registrations that come and go --------------------------------------------------------------------------------


def test_a_window_opens_and_closes_on_time_and_its_live_flow_is_drained(daemon: LabDaemon) -> None:
    def moment(at_s: float) -> str:
        return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")

    lab = run(daemon, "reject", policy={"drain": "3s"})
    opens, closes = time.time() + 4, time.time() + 12
    timed = SOFTWARE_HOUSE | {"id": "TIMED", "clients": ["39.36.1.0/24"]}
    daemon.write_registry("national", [*CAST, timed | {"valid_from": moment(opens), "valid_until": moment(closes)}])
    flow = wireguard("39.36.1.7")
    daemon.wait(lambda: daemon.get("/v1/registrations/TIMED").get("effective") is False, "the registration")
    assert probe(lab, [wireguard("39.36.1.8")]) == ["rejected"]
    assert time.time() < opens
    with Stream(lab, [flow], rate_pps=200) as stream:
        assert stream.wait_for_arrivals(1, 20)
        assert time.time() >= opens
        daemon.wait_decision(flow, "unregistered")
        assert time.time() >= closes
        # Drained: live flows go on for a while, new ones do not begin.
        assert stream.wait_for_arrivals(100, 5)
        assert holds(lambda: probe(lab, [wireguard("39.36.1.9")]) == ["rejected"])
        assert holds(lambda: not stream.wait_for_arrivals(1, 0.5), 10)
    assert "window.opened" in daemon.log_text()
    assert "window.closed" in daemon.log_text()


def test_a_withdrawal_with_no_drain_cuts_its_flows_at_once_and_no_other(daemon: LabDaemon) -> None:
    lab = run(daemon, "reject", policy={"drain": "0s"})
    gone, stays = wireguard(HOUSE), wireguard("39.33.7.5")
    with Stream(lab, [stays], rate_pps=200) as other, Stream(lab, [gone], rate_pps=200) as stream:
        assert stream.wait_for_arrivals(20)
        daemon.write_registry("national", [BANK, EMBASSY, FREELANCER])
        assert holds(lambda: not stream.wait_for_arrivals(1, 0.5), 10)
        assert other.wait_for_arrivals(20)
    assert other.report().lost == ()


def test_a_flow_judged_before_its_registration_passes_after_it(daemon: LabDaemon) -> None:
    """In mode mark the flow is tracked and remembered as judged; the sweep must find it."""
    lab = run(daemon, "mark", policy={"on_unregistered": {"dscp": "cs1"}})
    flow, gre = wireguard("39.36.1.7"), flow_of("39.36.1.7", FAR, "gre")
    assert [dscp_of(seen_at_far_end(lab, each)) for each in (flow, gre)] == [CS1, CS1]
    latecomer = SOFTWARE_HOUSE | {"id": "LATE", "clients": ["39.36.1.0/24"]}
    daemon.write_registry("national", [*CAST, latecomer])
    assert holds(lambda: [dscp_of(seen_at_far_end(lab, each)) for each in (flow, gre)] == [0, 0])
    assert mark_of(lab, flow) == LAYOUT.registered


def test_the_kernel_holds_the_registry_element_for_element(daemon: LabDaemon) -> None:
    lab = run(daemon, "reject")
    sets = elements(lab)
    assert sum(map(len, sets.values())) == daemon.status()["kernel"]["elements_desired"]
    keys = frozenset().union(*sets.values())
    assert socket.inet_aton("39.32.64.8") in {key[:4] for key in keys}
    assert socket.inet_aton(HOUSE) not in {key[:4] for key in keys}


# -- what it says --------------------------------------------------------------------------------------------------


@pytest.fixture
def running(daemon: LabDaemon) -> LabDaemon:
    run(daemon, "reject")
    return daemon


def test_the_commands_ask_the_daemon_in_text_and_in_json(running: LabDaemon) -> None:
    flow = wireguard(HOUSE)
    assert probe(running.lab, [flow, wireguard(STRANGER)]) == ["passed", "rejected"]
    running.wait(lambda: running.get("/v1/flows")["total"] == 1, "the flow")
    status = running.ask("status")
    assert (status.returncode, status.stderr) == (0, "")
    assert status.stdout.startswith("READY\n")
    assert decode(running.ask("status", "--json").stdout)["ready"] is True

    explain = running.ask("explain", HOUSE, FAR, "udp/51820")
    assert explain.returncode == 0
    assert "DEMO-SOFTWARE-HOUSE" in explain.stdout
    answer = decode(running.ask("explain", STRANGER, FAR, "esp", "--json").stdout)
    assert (answer["decision"], answer["effect"]) == ("unregistered", "reject")

    listed = running.ask("registrations")
    assert all(each["id"] in listed.stdout for each in CAST)
    one = decode(running.ask("registrations", "DEMO-BANK", "--json").stdout)
    assert (one["id"], one["in_kernel"]) == ("DEMO-BANK", True)

    assert HOUSE in running.ask("flows").stdout
    page = decode(running.ask("flows", "--json").stdout)
    assert [line["registrations"] for line in page["items"]] == [["DEMO-SOFTWARE-HOUSE"]]
    assert STRANGER not in running.ask("flows").stdout

    running.write_registry("national", [*CAST, SOFTWARE_HOUSE | {"id": "SYNCED", "clients": ["39.37.0.0/24"]}])
    assert running.ask("sync").returncode == 0
    # "When it is in the kernel": at once.
    assert probe(running.lab, [wireguard("39.37.0.5")]) == ["passed"]


def test_a_command_without_a_daemon_says_so(daemon: LabDaemon) -> None:
    asked = daemon.ask("status")
    assert asked.returncode == 3
    assert "is the service running?" in asked.stderr
    assert asked.stderr.count("\n") == 1


def test_what_changes_anything_is_not_on_the_port(running: LabDaemon) -> None:
    curl = (
        "import http.client as h; c = h.HTTPConnection('127.0.0.1', 9480); c.request('POST', '/v1/sync'); "
        "print(c.getresponse().status)"
    )
    assert running.lab.gateway.run([sys.executable, "-c", curl]).stdout.strip() in ("404", "405")
    assert running.socket_path.stat().st_mode & 0o777 == 0o660
