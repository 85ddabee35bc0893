"""Registrations by company, for `gatewayd registrations --by registrant`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
import msgspec

from gatewayd.api.views import RegistrationView
from gatewayd.cli.output import count, print_table, some


class Company(msgspec.Struct):
    """`until`: the end of the window that ends first; None: all are open."""

    registrant: str | None
    registrations: int = 0
    effective: int = 0
    provisional: int = 0
    endpoints: int = 0
    categories: list[str] = []
    until: str | None = None


def companies_of(views: Iterable[RegistrationView]) -> list[Company]:
    """By company, the largest first; those that name none are together."""
    found: dict[str | None, Company] = {}
    for each in views:
        company = found.setdefault(each.registrant, Company(each.registrant))
        company.registrations += 1
        company.effective += each.effective
        company.provisional += each.provisional
        company.endpoints += len(each.endpoints)
        if each.category not in company.categories:
            company.categories.append(each.category)
        if each.effective and each.valid_until is not None:
            company.until = min(company.until or each.valid_until, each.valid_until)
    return sorted(found.values(), key=lambda each: (-each.registrations, each.registrant or ""))


def print_companies(found: Sequence[Company]) -> None:
    """A line for each."""
    columns = ("registrant", "registrations", "effective", "provisional", "endpoints", "categories", "first end")
    rows = [
        (
            each.registrant or "-", f"{each.registrations:,}", f"{each.effective:,}", f"{each.provisional:,}",
            f"{each.endpoints:,}", some(each.categories), each.until or "open",
        )
        for each in found
    ]  # fmt: skip
    if rows:
        print_table(columns, rows)
    click.echo(count(sum(each.registrant is not None for each in found), "registrant"))
