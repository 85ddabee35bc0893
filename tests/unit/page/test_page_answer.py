from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from gatewayd.api.explanation import explain_view
from gatewayd.api.registration_text import describe_registration
from gatewayd.api.standing import StandingView
from gatewayd.api.views import (
    BindingPage,
    FlowPage,
    RegistrationPage,
    RegistrationView,
    binding_view,
    registration_view,
)
from gatewayd.model import Decision, Flow, parse_address
from gatewayd.page.answer import answer_flow, answer_registration, answer_search, refuse
from gatewayd.page.problems import Tone
from tests.support.fake_queries import BANK, FREELANCER, HOME, MOBILE, NOW, SHARED, live_flows

FLOW = Flow(17, parse_address("203.0.113.5"), parse_address("198.51.100.7"), 40000, 51820)
NO_FLOWS = FlowPage(0, 0, ())
AT = "2024-11-04T03:00:00Z"


def bank(**fields: Any) -> RegistrationView:
    return replace(registration_view(BANK, NOW, in_kernel=True), **fields)


def rows_of(view: RegistrationView) -> dict[str, tuple[str, str]]:
    return {each.label: (each.text, each.tone) for each in answer_registration("q", AT, view, None, NO_FLOWS).rows}


def test_a_flow_is_answered_as_the_command_does() -> None:
    decision = Decision("registered", (BANK,), "because")
    view = explain_view(FLOW, decision, mode="reject", canary=None, in_kernel=True)
    found = answer_flow("the question", view)
    assert (found.q, found.tone, found.is_short) == ("the question", "good", True)
    assert found.title.endswith("PASSES: it is registered and in the kernel")
    assert [(each.label, each.text) for each in found.rows[:2]] == [
        ("reason", "because"),
        ("decision", "registered"),
    ]
    assert found.tables[0].rows == (
        ("PK-2024-000123", "bank", "source", "203.0.113.0/28", "198.51.100.7/32", "ipsec, udp/51820", "open"),
    )
    refused = replace(view, decision="unregistered", effect="reject", matches=())
    found = answer_flow("q", refused)
    assert (found.tone, found.tables) == ("bad", ())


@pytest.mark.parametrize(
    ("view", "title", "tone"),
    [
        (bank(), "is in force and in the kernel", "good"),
        (bank(in_kernel=None), "is in force; the kernel has nothing of it now", "doubtful"),
        (
            bank(in_kernel=None, subscriber=True),
            "is in force; no address of its subscriber is known now",
            "doubtful",
        ),
        (bank(in_kernel=False), "is in force, but NOT IN THE KERNEL", "bad"),
        (bank(in_kernel=False, unprogrammed="too many"), "is in force, but NOT PROGRAMMED", "bad"),
        (bank(effective=False, status="revoked"), "is NOT IN FORCE: revoked", "doubtful"),
        (bank(effective=False), "is NOT IN FORCE: active, outside of its window", "doubtful"),
    ],
)
def test_a_registration_says_first_whether_it_is_in_force(view: RegistrationView, title: str, tone: Tone) -> None:
    found = answer_registration("q", AT, view, None, NO_FLOWS)
    assert (found.title, found.tone) == (f"PK-2024-000123 {title}", tone)


def test_a_registration_is_told_as_the_command_tells_it() -> None:
    view = bank(registrant="Khyber Bank", unprogrammed="too many", standing=StandingView("national", held_since=AT))
    told = [(line.label, line.text) for line in describe_registration(view)]
    found = answer_registration("q", AT, view, None, NO_FLOWS)
    assert [(row.label, row.text) for row in found.rows] == told
    rows = rows_of(view)
    assert rows["registrant"] == ("Khyber Bank", "plain")
    assert rows["in kernel"] == ("NO: too many", "bad")
    assert rows["HELD"][1] == "bad"


def test_a_subscriber_has_addresses_and_no_digest() -> None:
    view = registration_view(MOBILE, NOW, in_kernel=True)
    bound = binding_view(HOME, NOW, registrations=(MOBILE.id,), in_kernel=True)
    shared = binding_view(SHARED, NOW, registrations=(MOBILE.id,), in_kernel=None)
    found = answer_registration("q", AT, view, BindingPage(30, 0, (bound, shared)), NO_FLOWS)
    assert ("clients", "by subscriber alone") in [(each.label, each.text) for each in found.rows]
    assert found.tables[0].rows == (
        ("10.1.2.3/32", MOBILE.id, "bng-1", "12s ago", "yes"),
        ("192.0.2.77/32 ports 1024-2047", MOBILE.id, "cgn-2", "1h ago, before a restart", "-"),
    )
    assert found.tables[0].note == "2 of 30"
    assert "d2d2" not in str(found)
    assert answer_registration("q", AT, view, BindingPage(0, 0, ()), NO_FLOWS).tables == ()


def test_live_flows_are_listed() -> None:
    found = answer_registration("q", AT, bank(), None, FlowPage(2, 0, live_flows()))
    assert found.tables[0].rows == (
        ("203.0.113.5 port 40000", "198.51.100.7", "udp/51820", "2,000", "4.0 KiB", "5s ago"),
        ("2001:db8:12::1", "2001:db8:ff::1", "esp", "0", "0 B", "never"),
    )
    assert found.tables[0].note == ""


def test_a_search_lists_registrations_and_bindings() -> None:
    views = (bank(registrant="Khyber Bank"), registration_view(FREELANCER, NOW), bank(effective=False, clients=()))
    bound = binding_view(HOME, NOW, registrations=(MOBILE.id,), in_kernel=True)
    found = answer_search("q", "203.0.113.5", RegistrationPage(400, 0, views), BindingPage(1, 0, (bound,)))
    assert found.title == "203.0.113.5: 400 registrations and 1 binding"
    assert [row[:6] for row in found.tables[0].rows] == [
        (BANK.id, "Khyber Bank", "bank", "active", "yes", "203.0.113.0/28, 2001:db8:12::/48"),
        (FREELANCER.id, "-", "freelancer", "suspended", "-", "by subscriber"),
        (BANK.id, "-", "bank", "active, outside of its window", "yes", "by subscriber"),
    ]
    assert (found.tables[0].tones, found.tables[0].note) == (("good", "doubtful", "doubtful"), "3 of 400")
    assert not found.is_short
    only = answer_search("q", "PK", RegistrationPage(1, 0, views[:1]), None)
    assert (only.title, len(only.tables), only.tables[0].note) == ("PK: 1 registration", 1, "")


def test_what_nobody_has_is_said() -> None:
    found = answer_search("q", "192.0.2.9", RegistrationPage(0, 0, ()), BindingPage(0, 0, ()))
    assert (found.title, found.tone) == ("192.0.2.9: no registration and no binding has it", "doubtful")
    alone = BindingPage(1, 0, (binding_view(HOME, NOW, registrations=(), in_kernel=None),))
    assert len(answer_search("q", "10.1.2.3", RegistrationPage(0, 0, ()), alone).tables) == 1


def test_a_question_that_cannot_be_asked_is_answered_with_the_reason() -> None:
    assert (refuse("q", "why").title, refuse("q", "why").tone) == ("why", "doubtful")
