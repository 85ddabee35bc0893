"""Address translation on the gateway itself: what the rules see and what the daemon matches are one tuple.

The rules stand in the forward hook, after DNAT and before SNAT. Conntrack's original tuple is from before both.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from gatewayd.demo.cast import BANK, EMBASSY, FAR, SOFTWARE_HOUSE, STRANGER
from gatewayd.kernel.conntrack import Conntrack
from gatewayd.lab.lab import Lab
from gatewayd.lab.tap import Tap
from gatewayd.lab.traffic import flow_of
from gatewayd.model import Flow, Registration, format_address, parse_address, reverse_flow
from gatewayd.model.flow import ConnectionEvent
from gatewayd.model.policy import MarkLayout
from gatewayd.reconcile.connections import ConnectionScanner
from gatewayd.reconcile.scan_requests import Grace, ScanRequests
from gatewayd.watch.attribute import Attribution
from tests.support.lab_daemon import LabDaemon, connections, holds
from tests.support.talk import Talk

pytestmark = pytest.mark.kernel

LAYOUT = MarkLayout(0xFF000000)
HOUSE, BANK_OFFICE = "39.32.64.10", "39.32.0.5"
VIRTUAL, PUBLIC = "192.0.2.9", "198.51.100.200"
"""An address of nobody that is translated to the far end; one under which an inside client is reached."""
MASQUERADE = 'oifname "outside0" masquerade'
DNAT = f"ip daddr {VIRTUAL} dnat to {FAR}"
PORT_DNAT = f"ip daddr {VIRTUAL} udp dport 51999 dnat to {FAR}:51820"
INWARD = f"ip daddr {PUBLIC} dnat to 39.32.0.9"
_ports = count(23000)


def translate(lab: Lab, before: str = "", behind: str = "") -> None:
    """NAT rules of somebody else's table."""
    lab.gateway.run(
        ["nft", "-f", "-"],
        input=f"""
        table ip nat {{
          chain pre {{ type nat hook prerouting priority dstnat; {before}; }}
          chain post {{ type nat hook postrouting priority srcnat; {behind}; }}
        }}
        """.replace("; ;", ";"),
    )


def tracked(lab: Lab, flow: Flow) -> ConnectionEvent | None:
    """The connection that a packet of this flow made: by its source, which no DNAT changes."""
    return next(
        (
            each
            for each in connections(lab)
            if (each.flow.source, each.flow.source_port) == (flow.source, flow.source_port)
        ),
        None,
    )


def send(lab: Lab, flow: Flow, *, inward: bool = False) -> ConnectionEvent:
    with Tap(lab.outside if inward else lab.inside) as tap:
        tap.send(flow, b"x")
    assert holds(lambda: tracked(lab, flow) is not None)
    found = tracked(lab, flow)
    assert found is not None
    return found


CASES = {
    "masquerade": (("", MASQUERADE), flow_of(HOUSE, FAR, "udp/51820", next(_ports)), "udp/51820", FAR),
    "dnat": ((DNAT, ""), flow_of(BANK_OFFICE, VIRTUAL, "udp/4500", next(_ports)), "udp/4500", FAR),
    "dnat of ports": ((PORT_DNAT, ""), flow_of(HOUSE, VIRTUAL, "udp/51999", next(_ports)), "udp/51820", FAR),
    "both": ((DNAT, MASQUERADE), flow_of(BANK_OFFICE, VIRTUAL, "udp/4500", next(_ports)), "udp/4500", FAR),
    "both, esp": ((DNAT, MASQUERADE), flow_of(BANK_OFFICE, VIRTUAL, "esp"), "esp", FAR),
    "inward": ((INWARD, ""), flow_of(FAR, PUBLIC, "udp/500", next(_ports)), "udp/500", "39.32.0.9"),
}


@pytest.mark.parametrize("case", CASES)
def test_withdrawing_somebody_else_leaves_a_translated_flow_registered(daemon: LabDaemon, case: str) -> None:
    (before, behind), flow, service, seen_as = CASES[case]
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE, EMBASSY])
    daemon.configure("reject", policy={"drain": "0s"})
    daemon.start()
    daemon.wait_ready()
    lab = daemon.lab
    translate(lab, before, behind)
    assert send(lab, flow, inward=case == "inward").mark == LAYOUT.registered
    embassys = flow_of("39.33.7.1", FAR, "udp/51820", next(_ports))
    daemon.wait(lambda: daemon.get("/v1/flows")["total"] == 1, "the flow in the list")
    (line,) = daemon.get("/v1/flows")["items"]
    send(lab, embassys)
    assert (line["dst"], line["service"]) == (seen_as, service)
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE])
    daemon.sync()
    daemon.wait(lambda: daemon.status()["registrations"]["total"] == 2, "the withdrawal")
    daemon.wait_in_sync()
    assert holds(lambda: (gone := tracked(lab, embassys)) is not None and gone.mark == 0)
    found = tracked(lab, flow)
    assert found is not None
    assert found.mark == LAYOUT.registered
    explained = daemon.get("/v1/explain", src=format_address(found.flow.source), dst=seen_as, service=service)
    assert explained["decision"] == "registered"


def test_the_end_of_a_translated_flow_is_attributed(daemon: LabDaemon) -> None:
    daemon.write_registry("national", [BANK])
    daemon.configure("reject")
    daemon.start()
    daemon.wait_ready()
    lab = daemon.lab
    translate(lab, DNAT, MASQUERADE)
    send(lab, flow_of(BANK_OFFICE, VIRTUAL, "udp/4500", next(_ports)))
    daemon.wait(lambda: daemon.get("/v1/registrations/DEMO-BANK")["flows"] == 1, "one flow of the bank")
    assert daemon.get("/v1/flows")["items"][0]["registrations"] == ["DEMO-BANK"]


def test_a_judged_translated_flow_that_becomes_registered_is_cleared(daemon: LabDaemon) -> None:
    """DNAT and SNAT at once: neither of conntrack's tuples is the one that the rules see."""
    daemon.write_registry("national", [SOFTWARE_HOUSE])
    daemon.configure("observe")
    daemon.start()
    daemon.wait_ready()
    lab = daemon.lab
    translate(lab, DNAT, MASQUERADE)
    flow = flow_of(BANK_OFFICE, VIRTUAL, "udp/4500", next(_ports))
    assert send(lab, flow).mark == LAYOUT.judged(daemon.status()["epoch"])
    daemon.write_registry("national", [SOFTWARE_HOUSE, BANK])
    daemon.sync()

    def is_cleared() -> bool:
        found = tracked(lab, flow)
        return found is not None and found.mark == 0

    assert holds(is_cleared)


@pytest.mark.parametrize("case", CASES)
def test_a_packet_that_was_logged_leads_to_its_connection(shared_lab: Lab, case: str) -> None:
    """Late admission knows the packet as the rules saw it, and must find the mark to clear."""
    (before, behind), flow, _, seen_as = CASES[case]
    lab = shared_lab
    with rules(lab, before, behind):
        found = send(lab, flow, inward=case == "inward")
        assert found.mark == LAYOUT.judged(3)
        assert format_address(found.flow.destination) == seen_as
        for logged in (found.flow, reverse_flow(found.flow)):
            asyncio.run(_admit_late(lab, logged))
            after = tracked(lab, flow)
            assert after is not None
            assert after.mark == 0, logged
            again = send(lab, flow, inward=case == "inward")
            assert again.mark == LAYOUT.judged(3)


@contextlib.contextmanager
def rules(lab: Lab, before: str, behind: str) -> Iterator[Any]:
    translate(lab, before, behind)
    lab.gateway.run(
        ["nft", "-f", "-"],
        input="""
        table inet judging {
          chain forward {
            type filter hook forward priority -10
            ct mark set 0x03000000
          }
        }
        """,
    )
    try:
        yield
    finally:
        lab.gateway.run(["nft", "flush", "ruleset"])


class _Nobody:
    """No flow is registered."""

    def matching(self, flow: Flow, now: float) -> tuple[Registration, ...]:
        return ()

    programmed = matching

    def is_in_scope(self, flow: Flow) -> bool:
        return True


async def _admit_late(lab: Lab, logged: Flow) -> None:
    conntrack = Conntrack()
    with lab.gateway.entered():
        conntrack.open()

    requests = ScanRequests(60.0)
    scanner = ConnectionScanner(
        conntrack, LAYOUT, _Nobody(), requests, clock=time.time, flow_table=Attribution(), grace=Grace()
    )
    task = asyncio.ensure_future(scanner.run())
    try:
        requests.settle(3)
        requests.note_late(logged, in_kernel=True)
        async with asyncio.timeout(20):
            while not scanner.reclassified:  # noqa: ASYNC110 - what is waited for happens in the kernel
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        conntrack.close()


def test_a_stranger_behind_the_same_translation_stays_one(daemon: LabDaemon) -> None:
    daemon.write_registry("national", [BANK])
    daemon.configure("observe")
    daemon.start()
    daemon.wait_ready()
    lab = daemon.lab
    translate(lab, DNAT, MASQUERADE)
    found = send(lab, flow_of(STRANGER, VIRTUAL, "udp/4500", next(_ports)))
    assert found.mark == LAYOUT.judged(daemon.status()["epoch"])


def test_after_a_flush_the_far_ends_packet_makes_the_entry_of_a_flow_behind_dnat(daemon: LabDaemon) -> None:
    """It meets no rule of the translation, so that conntrack takes the two directions for two flows. The client's
    is judged; the far end's alone is registered or left alone."""
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE])
    daemon.configure("reject", policy={"drain": "0s", "interfaces": {"inside": ["inside0"]}})
    daemon.start()
    daemon.wait_ready()
    translate(daemon.lab, DNAT)
    known, unknown = (flow_of(each, VIRTUAL, "udp/4500", 40000) for each in (BANK_OFFICE, STRANGER))
    answers = [reverse_flow(flow_of(each, FAR, "udp/4500", 40000)) for each in (BANK_OFFICE, STRANGER)]
    bank = parse_address(BANK_OFFICE)

    def marks() -> list[int]:
        found = connections(daemon.lab)
        return [each.mark for each in found if bank in (each.flow.source, each.flow.destination)]

    with Talk(daemon.lab) as talk:
        for _ in range(2):
            talk.forget()
            assert [talk.say("internet", answers[0]), talk.client(known)] == ["passed"] * 2
            for _ in range(2):
                assert [talk.say("internet", answers[1]), talk.client(unknown)] == ["passed", "rejected"]
        # Somebody else's withdrawal leaves what the far end woke; its own ends it.
        daemon.write_registry("national", [BANK])
        daemon.sync()
        daemon.wait_in_sync()
        assert marks() == [LAYOUT.registered] * 2
        daemon.write_registry("national", [SOFTWARE_HOUSE])
        daemon.sync()
        assert holds(lambda: talk.client(known) == "rejected")
        assert holds(lambda: LAYOUT.registered not in marks())


def test_after_a_flush_an_inside_client_reached_by_dnat_is_known_whoever_speaks_first(daemon: LabDaemon) -> None:
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE])
    daemon.configure("reject", policy={"drain": "0s"})
    daemon.start()
    daemon.wait_ready()
    translate(daemon.lab, INWARD)
    to_public = flow_of(FAR, PUBLIC, "udp/500", 500)
    from_inside = flow_of("39.32.0.9", FAR, "udp/500", 500)
    with Talk(daemon.lab) as talk:
        for turns in ("client first", "far end first"):
            talk.forget()
            said = [talk.say("internet", to_public), talk.say("customers", from_inside)]
            assert said == ["passed"] * 2, turns
