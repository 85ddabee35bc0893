"""A registration in words, as the commands and the page say it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gatewayd.api.registration_text import condition, describe_registration, presence
from gatewayd.api.standing import OverrideView, StandingView
from gatewayd.api.text import BAD, DOUBTFUL
from gatewayd.api.views import registration_view
from tests.support.fake_queries import BANK, FREELANCER, NOW

SINCE = "2024-11-04T02:56:00Z"
FILTER = OverrideView("filter", "BANK-1", "desk.yaml", 4, "compromised", None)
PIN = OverrideView("pin", "BANK-1", "desk.yaml", 2, "by phone", "2099-01-01T00:00:00Z")


def test_it_says_why_the_kernel_does_not_have_it() -> None:
    bank = registration_view(BANK, NOW, in_kernel=True)
    assert presence(bank) == "yes"
    assert presence(replace(bank, in_kernel=False)) == "NO"
    assert presence(replace(bank, in_kernel=False, unprogrammed="too many")) == "NO: too many"
    assert presence(replace(bank, in_kernel=False, effective=False)) == "no"
    assert (
        condition(replace(bank, effective=False, provisional=True)) == "active, provisional, outside of its window"
    )
    found = {line.text: line for line in describe_registration(replace(bank, in_kernel=False, subscriber=True))}
    assert found["NO"].style == BAD
    assert "and the addresses of a subscriber" in found


def test_by_subscriber_alone() -> None:
    texts = [line.text for line in describe_registration(registration_view(FREELANCER, NOW))]
    assert texts[4:8] == ["by subscriber alone", "any", "any", "-"]
    assert texts[8] == "0 flows, 0 B, not seen yet"


def test_a_company_is_named_and_a_provider_is_no_client() -> None:
    bank = replace(registration_view(BANK, NOW), registrant="khyber", last_seen_at=SINCE)
    found = {line.label: line for line in describe_registration(replace(bank, endpoints=("192.0.2.1/32",)))}
    assert found["registrant"].text == "khyber"
    assert found["PROVIDER"].style == DOUBTFUL
    assert found["endpoints"].text == "192.0.2.1/32"
    assert found["traffic"].text.endswith(f"last seen {SINCE}")
    assert "clients" not in found


@pytest.mark.parametrize(
    ("view", "word", "lines"),
    [
        (StandingView("national"), "active", ["national"]),
        (
            StandingView("national", ("desk",)),
            "active",
            ["national, and desk, which does not count"],
        ),
        (
            StandingView("national", filters=(FILTER,), dropped=True),
            "active, dropped by a filter",
            ["national", "filter of BANK-1 in desk.yaml:4 (compromised): takes it away"],
        ),
        (
            StandingView("national", filters=(FILTER,), trimmed=True, clients=("203.0.113.0/28", "10.0.0.0/28")),
            "active, trimmed by a filter",
            [
                "national",
                "filter of BANK-1 in desk.yaml:4 (compromised): takes prefixes away",
                "the source has 203.0.113.0/28, 10.0.0.0/28",
            ],
        ),
        (
            StandingView(None, pin=PIN, filters=(FILTER,)),
            "active, pinned",
            [
                "no source; a local file alone",
                f"{PIN}: it counts, not what a source says",
                "filter of BANK-1 in desk.yaml:4 (compromised)",
            ],
        ),
        (
            StandingView(None, held_since=SINCE, held_cause="national"),
            "active, held",
            ["no source; a local file alone", f"its removal by national is held since {SINCE}; gatewayd held"],
        ),
    ],
)
def test_a_registration_is_told_with_what_stands_behind_it(view: StandingView, word: str, lines: list[str]) -> None:
    shown = registration_view(BANK, NOW, standing=view)
    assert condition(shown) == word
    told = [line.text for line in describe_registration(shown)]
    start = told.index(lines[0])
    assert told[start : start + len(lines)] == lines
