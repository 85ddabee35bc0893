"""Registrations by company, as a table."""

from __future__ import annotations

import pytest

from gatewayd.api.views import RegistrationView, registration_view
from gatewayd.cli.companies import companies_of, print_companies
from gatewayd.model import Extension, Registration, parse_prefix, parse_services


def view(id: str, extension: Extension | None, category: str = "bank", until_s: float = 2e9) -> RegistrationView:
    made = Registration(
        id, category, "active", (), services=parse_services(["ipsec"]), valid_until_s=until_s, extension=extension
    )
    return registration_view(made, 1e9)


VIEWS = [
    view("A", Extension("co-1")),
    view("B", Extension("co-1", is_provisional=True), "bpo", 1.5e9),
    view("P", Extension("co-2", endpoints=(parse_prefix("198.51.100.0/24"),)), "provider"),
    view("N", None, until_s=float("inf")),
]


def test_a_company_is_one_line_and_the_largest_comes_first() -> None:
    first, second, third = companies_of(VIEWS)
    assert (first.registrant, second.registrant, third.registrant) == ("co-1", None, "co-2")
    assert (first.registrations, first.effective, first.provisional) == (2, 2, 1)
    assert (first.categories, first.until) == (["bank", "bpo"], "2017-07-14T02:40:00Z")
    assert (third.endpoints, second.until) == (1, None)


def test_the_table_says_how_many_companies_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_companies(companies_of(VIEWS))
    assert "2 registrants" in capsys.readouterr().out
