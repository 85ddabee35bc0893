from __future__ import annotations

from math import inf

import pytest

from gatewayd.allowlist import words
from gatewayd.model import Extension, Flow, Registration, Status, parse_services
from gatewayd.model.service import ESP, UDP


def registration(
    id: str = "PK-1", status: Status = "active", opens: float = -inf, closes: float = inf, services: str = "ipsec"
) -> Registration:
    listed = parse_services(services.split())
    return Registration(id, "bank", status, (), services=listed, valid_from_s=opens, valid_until_s=closes)


FLOW = Flow(UDP, bytes(4), bytes(4), 500, 51820)


def test_some_are_named_and_the_rest_is_counted() -> None:
    some = [registration(f"PK-{number}") for number in range(5)]
    assert words.name_some(some[:2]) == "PK-0, PK-1"
    assert words.name_some(some) == "PK-0, PK-1, PK-2 and 2 more"


def test_the_word_of_a_service_is_the_one_that_the_registration_has() -> None:
    assert words.flow_service(FLOW) == "udp/51820"
    assert words.flow_service(Flow(ESP, bytes(4), bytes(4))) == "esp"
    assert words.matching_word(parse_services(["udp/51820"]), FLOW) == "udp/51820"
    assert words.matching_word(parse_services(["ipsec"]), FLOW) == "ipsec, answered from the source port"


@pytest.mark.parametrize(
    ("age_s", "text"), [(-1, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (2e5, "2 days")]
)
def test_an_age_has_the_unit_that_fits(age_s: float, text: str) -> None:
    assert words.format_age(age_s) == text


@pytest.mark.parametrize(
    ("one", "failures"),
    [
        (registration(), []),
        (registration(status="suspended"), ["is suspended"]),
        (registration(opens=20.0), ["its window opens at 1970-01-01T00:00:20Z"]),
        (registration(closes=10.0), ["its window closed at 1970-01-01T00:00:10Z"]),
    ],
)
def test_why_one_is_not_effective(one: Registration, failures: list[str]) -> None:
    assert list(words.standing_failures(one, 10.0)) == failures


def test_other_services_and_the_providers_name() -> None:
    assert words.other_services(registration(), FLOW) == "its services are ipsec, not udp/51820"
    assert words.provider_name(registration()) == "PK-1"
    of_company = Registration("PK-2", "bank", "active", (), extension=Extension("co-9"))
    assert words.provider_name(of_company) == "PK-2 of co-9"
