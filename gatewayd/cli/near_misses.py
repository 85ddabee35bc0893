"""`gatewayd impact near-misses` and `impact ack`: registrations whose customers will call, and who was called."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

import click

from gatewayd.api.near_misses import NearMissLineView, NearMissList
from gatewayd.cli.arguments import limit_options
from gatewayd.cli.client import Endpoint, daemon_options, socket_options
from gatewayd.cli.output import BAD, GOOD, count, print_headline, print_json, print_table, print_unshown

_COLUMNS: Final = ("company", "id", "category", "flows", "first seen", "last seen", "why", "mend")
_YEAR_S: Final = 366 * 86_400.0


@click.command("near-misses")
@click.option("--all", "with_acknowledged", is_flag=True, help="Those that were acknowledged too.")
@limit_options
@daemon_options
def near_misses(
    endpoint: Endpoint, with_acknowledged: bool, limit: int | None, offset: int | None, as_json: bool
) -> None:
    """List the registrations to call about, each with the one change that mends it.

    A near miss is a flow in scope that no registration lets pass, from an address that a registration has, or had
    until a moment ago. `gatewayd impact ack ID` takes one off the list.
    """
    body = endpoint.get(
        "/v1/near-misses", {"all": "1" if with_acknowledged else None, "limit": limit, "offset": offset}
    )
    found = endpoint.parse(body, NearMissList)
    if as_json:
        print_json(body)
        return
    if not found.total:
        print_headline("No near misses.", GOOD)
        return
    print_headline(f"{count(found.total, 'line')} of near misses, the latest first", BAD)
    print_table(_COLUMNS, [_row(each) for each in by_company(found.items)])
    print_unshown(len(found.items), found.total)


def by_company(lines: Sequence[NearMissLineView]) -> list[NearMissLineView]:
    """In their order, those of a company beside its first: it is one call."""
    groups: dict[str | int, list[NearMissLineView]] = {}
    for number, each in enumerate(lines):
        groups.setdefault(each.registrant or number, []).append(each)
    return [each for group in groups.values() for each in group]


def _row(view: NearMissLineView) -> tuple[str, ...]:
    off = f" (acknowledged until {view.acknowledged_until})" if view.acknowledged_until else ""
    off = " (acknowledged)" if view.for_good else off
    return (
        view.registrant or "-",
        view.id,
        view.category,
        f"{view.flows:,}",
        view.first_seen or "-",
        view.last_seen or "-",
        view.why + off,
        view.mend,
    )


@click.command("ack")
@click.argument("registration_id", metavar="ID")
@click.option("--until", metavar="TIME", help="Such as 7d or 2026-01-31T00:00:00Z. Default: for good.")
@socket_options
def acknowledge(endpoint: Endpoint, registration_id: str, until: str | None, as_json: bool) -> None:
    """Take the near misses of a registration off the list: somebody has called.

    They go on counting. Another reason for the same registration is a new line of the list.
    """
    given = {"id": registration_id} | ({} if until is None else {"until": _until(until)})
    body = endpoint.post(f"/v1/near-misses/acknowledge?{urlencode(given)}")
    if as_json:
        print_json(body)
    else:
        print_headline(f"The near misses of {registration_id} are off the list.", GOOD)


def _until(text: str) -> str:
    """A length of time, from now on, as a moment; else as it is, for the daemon to judge."""
    from gatewayd.model.moment import format_time
    from gatewayd.settings.values import parse_duration

    try:
        return str(format_time(time.time() + parse_duration(text, 0.0, _YEAR_S)))
    except ValueError:
        return text
