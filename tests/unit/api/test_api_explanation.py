from __future__ import annotations

import msgspec
import pytest

from gatewayd.api.explanation import (
    MATCH_COLUMNS,
    describe_explanation,
    effect_of,
    explain_view,
    match_row,
    match_view,
    verdict,
)
from gatewayd.api.text import BAD, DOUBTFUL, GOOD, Line
from gatewayd.api.views import MatchView, bound_view
from gatewayd.model import Decision, Flow, Mode, Registration, parse_address, parse_prefix
from gatewayd.model.flow import DecisionWord, Effect
from tests.support.fake_queries import BANK, FREELANCER, HOME, NOW, SHARED

INSIDE, PEER, OTHER = (parse_address(text) for text in ("203.0.113.5", "198.51.100.7", "192.0.2.9"))
OUT = Flow(17, INSIDE, PEER, 40000, 51820)


@pytest.mark.parametrize(
    ("word", "mode", "canary", "in_kernel", "said", "style"),
    [
        ("out_of_scope", "reject", None, None, "PASSES: the policy does not look at this service", GOOD),
        ("registered", "reject", None, True, "PASSES: it is registered and in the kernel", GOOD),
        ("registered", "reject", None, None, "WHETHER THE KERNEL HAS IT IS NOT KNOWN", DOUBTFUL),
        ("registered", "reject", None, False, "NOT IN THE KERNEL: until it is there, it is rejected", BAD),
        ("registered", "reject", "out", False, "it passes because it is only observed", BAD),
        ("unregistered", "reject", None, None, "IS REJECTED: it is not registered", BAD),
        ("unregistered", "limit", "in", None, "IS LIMITED: it is not registered", BAD),
        ("unregistered", "mark", None, None, "PASSES, but is not registered: it is marked", DOUBTFUL),
        ("unregistered", "mark", "out", None, "it is only observed", DOUBTFUL),
        ("unregistered", "reject", "source", None, "if 192.0.2.2 is the end inside, it is only observed", DOUBTFUL),
        (
            "unregistered",
            "limit",
            "destination",
            None,
            "if 192.0.2.1 is the end inside, it is only observed",
            DOUBTFUL,
        ),
        ("unregistered", "observe", "source", None, "is not registered: it is only observed", DOUBTFUL),
    ],
)
def test_the_verdict_is_a_sentence(
    word: DecisionWord, mode: Mode, canary: str | None, in_kernel: bool | None, said: str, style: str
) -> None:
    flow = Flow(50, parse_address("192.0.2.1"), parse_address("192.0.2.2"))
    view = explain_view(flow, Decision(word, (), ""), mode=mode, canary=canary, in_kernel=in_kernel)  # type: ignore[arg-type]
    sentence, found = verdict(view)
    assert sentence.endswith(said)
    assert found == style


def test_what_passes_by_the_kernel_alone_is_not_said_to_be_refused() -> None:
    flow = Flow(50, parse_address("192.0.2.1"), parse_address("192.0.2.2"))
    view = explain_view(flow, Decision("unregistered", (), ""), mode="reject", canary=None, in_kernel=None)
    sentence, style = verdict(msgspec.structs.replace(view, effect="pass", in_kernel=True))
    assert sentence.endswith("PASSES, but is not registered: an element in the kernel has it")
    assert style == DOUBTFUL


def test_a_registered_flow_that_the_kernel_cannot_be_told_of_gets_the_effect_in_the_answer() -> None:
    flow = Flow(50, parse_address("192.0.2.1"), parse_address("192.0.2.2"))
    view = explain_view(flow, Decision("registered", (), ""), mode="mark", canary=None, in_kernel=False)
    sentence, _ = verdict(msgspec.structs.replace(view, effect="limit"))
    assert sentence.endswith("it is limited")


def test_what_is_behind_the_verdict_is_said_line_by_line() -> None:
    flow = Flow(50, parse_address("192.0.2.1"), parse_address("192.0.2.2"))
    restored = msgspec.structs.replace(bound_view(SHARED, NOW), restored=True)
    view = explain_view(
        flow, Decision("registered", (), "it is"), mode="reject", canary="in", in_kernel=True,
        bindings=(bound_view(HOME, NOW), restored),
    )  # fmt: skip
    assert list(describe_explanation(msgspec.structs.replace(view, notes=("a pin", "a filter")))) == [
        Line("reason", "it is"),
        Line("note", "a pin", DOUBTFUL),
        Line("", "a filter", DOUBTFUL),
        Line("decision", "registered"),
        Line("effect", "pass"),
        Line("in kernel", "yes"),
        Line("through", "10.1.2.3/32, reported by bng-1 12s ago"),
        Line(
            "through",
            "192.0.2.77/32 ports 1024-2047, reported by cgn-2 1h ago, before a restart of gatewayd and not since",
            DOUBTFUL,
        ),
        Line("mode", "reject, this client is in the canary"),
    ]


@pytest.mark.parametrize(
    ("word", "mode", "canary", "effect"),
    [
        ("registered", "reject", None, "pass"),
        ("out_of_scope", "reject", "in", "pass"),
        ("unregistered", "observe", None, "observe"),
        ("unregistered", "mark", "in", "mark"),
        ("unregistered", "limit", None, "limit"),
        ("unregistered", "reject", "out", "observe"),
        ("unregistered", "reject", "destination", "reject"),
    ],
)
def test_the_effect_follows_the_mode_for_unregistered_flows_alone(
    word: DecisionWord, mode: Mode, canary: str | None, effect: Effect
) -> None:
    assert effect_of(word, mode, canary) == effect  # type: ignore[arg-type]


def test_an_explanation_names_what_matches() -> None:
    view = explain_view(OUT, Decision("registered", (BANK,), "because"), mode="reject", canary="in", in_kernel=True)
    assert msgspec.to_builtins(view) == {
        "decision": "registered",
        "effect": "pass",
        "registrations": ("PK-2024-000123",),
        "in_kernel": True,
        "reason": "because",
        "src": "203.0.113.5",
        "dst": "198.51.100.7",
        "service": "udp/51820",
        "sport": 40000,
        "mode": "reject",
        "canary": "in",
        "notes": (),
        "crosses": None,
        "matches": (
            {
                "id": "PK-2024-000123",
                "category": "bank",
                "role": "source",
                "client": "203.0.113.0/28",
                "peers": ("198.51.100.7/32",),
                "services": ("ipsec", "udp/51820"),
                "valid_until": None,
            },
        ),
        "bindings": (),
    }


def test_an_explanation_has_the_bindings_that_it_is_given() -> None:
    through = bound_view(SHARED, NOW)
    decision = Decision("registered", (FREELANCER,), "because")
    view = explain_view(OUT, decision, mode="reject", canary=None, in_kernel=True, bindings=(through,))
    assert msgspec.to_builtins(view)["bindings"] == (
        {
            "prefix": "192.0.2.77/32",
            "ports": (1024, 2047),
            "nas": "cgn-2",
            "since": "2024-11-03T02:00:00Z",
            "confirmed": "2024-11-04T02:00:00Z",
            "age_s": 3600.0,
            "restored": True,
        },
    )


def test_a_connection_in_from_the_far_end_has_the_registrant_as_destination() -> None:
    match = match_view(BANK, Flow(17, PEER, INSIDE, 1, 500))
    assert (match.role, match.client) == ("destination", "203.0.113.0/28")


@pytest.mark.parametrize(
    ("peers", "role"), [((), "source"), (("203.0.113.0/24",), "source"), (("192.0.2.9/32",), "destination")]
)
def test_with_both_ends_among_the_clients_the_peers_say_who_is_the_registrant(
    peers: tuple[str, ...], role: str
) -> None:
    clients = (parse_prefix("203.0.113.0/24"), parse_prefix("203.0.113.0/28"), parse_prefix("192.0.2.9/32"))
    registration = Registration("a", "bank", "active", clients, peers=tuple(parse_prefix(peer) for peer in peers))
    there = parse_address("203.0.113.200") if role == "source" else INSIDE
    source = INSIDE if role == "source" else OTHER
    match = match_view(registration, Flow(50, source, there))
    assert (match.role, match.client) == (role, "203.0.113.0/28")


def test_a_match_by_a_binding_has_no_client_prefix() -> None:
    match = match_view(FREELANCER, OUT)
    assert (match.role, match.client, match.peers, match.services) == ("source", None, (), ())


def test_a_match_is_a_row_for_the_command_and_the_page() -> None:
    match = MatchView("PK-1", "bank", "source", "203.0.113.0/28", ("198.51.100.7/32",), ("ipsec",), None)
    row = ("PK-1", "bank", "source", "203.0.113.0/28", "198.51.100.7/32", "ipsec", "open")
    assert match_row(match) == row
    assert len(MATCH_COLUMNS) == len(row)
    bound = msgspec.structs.replace(match, client=None, peers=(), valid_until="2026-12-01T00:00:00Z")
    assert match_row(bound)[3:] == ("by binding", "any", "ipsec", "2026-12-01T00:00:00Z")
