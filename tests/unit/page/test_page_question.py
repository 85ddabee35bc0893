from __future__ import annotations

import pytest
from msgspec.structs import replace

from gatewayd.model import Flow, parse_address
from gatewayd.page.question import (
    AddressQuestion,
    DigestQuestion,
    FlowQuestion,
    IdQuestion,
    NoQuestion,
    Question,
    read_question,
)

FLOW = Flow(17, parse_address("203.0.113.5"), parse_address("198.51.100.7"), 0, 500)
DIGEST = "0f" * 32


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("", None),
        (" \t ", None),
        (" 203.0.113.5\n", AddressQuestion("203.0.113.5")),
        ("203.0.113.0/24", AddressQuestion("203.0.113.0/24")),
        ("2001:DB8::1", AddressQuestion("2001:db8::1")),
        (f"hmac-sha256:{DIGEST}", DigestQuestion(f"hmac-sha256:{DIGEST}")),
        (DIGEST.upper(), DigestQuestion(f"hmac-sha256:{DIGEST}")),
        ("PK-2024-000123", IdQuestion("PK-2024-000123")),
        ("2024.17", IdQuestion("2024.17")),
        ("203.0.113.5 198.51.100.7 udp/500", FlowQuestion(FLOW)),
        ("203.0.113.5 -> 198.51.100.7, udp/500", FlowQuestion(FLOW)),
        (
            "203.0.113.5 → 198.51.100.7 udp/500 4500",
            FlowQuestion(replace(FLOW, source_port=4500)),
        ),
    ],
)
def test_a_text_is_a_question(text: str, asked: Question | None) -> None:
    assert read_question(text) == asked


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("203.0.113.1/24", "host bits are set; meant 203.0.113.0/24?"),
        ("203.0.113.256", "not an IPv4 or IPv6 address"),
        ("203.0.113.5 198.51.100.7", "a flow is SRC DST SERVICE"),
        ("203.0.113.5 198.51.100.7 udp/500 1 2", "a flow is SRC DST SERVICE"),
        ("203.0.113.5 198.51.100.7 ipsec", "ask for one of its services"),
        ("203.0.113.5 2001:db8::1 esp", "must both be IPv4 or both be IPv6"),
        ("a\x00b", "cannot be printed"),
        ("x" * 201, "longer than 200 characters"),
    ],
)
def test_what_cannot_be_asked_is_answered_with_the_reason(text: str, why: str) -> None:
    asked = read_question(text)
    assert isinstance(asked, NoQuestion)
    assert why in asked.why
    assert not asked.is_private


@pytest.mark.parametrize(
    "text",
    ["03001234567", "923001234567", "+92 300 1234567", "0300 1234567", "PK-0300-7654321", "35202-1234567-1"],
)
def test_a_mobile_number_is_never_asked_and_never_repeated(text: str) -> None:
    asked = read_question(text)
    assert isinstance(asked, NoQuestion)
    assert asked.is_private
    assert text not in asked.why
