"""`gatewayd registrations`: a list of them, or one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args
from urllib.parse import quote

import click

from gatewayd.api.parameters import DEFAULT_LIMIT, HIGHEST_LIMIT
from gatewayd.api.views import RegistrationPage, RegistrationView
from gatewayd.cli.client import Endpoint, daemon_options
from gatewayd.cli.output import BAD, Line, count, print_json, print_lines, print_table, size, some
from gatewayd.model import Status


@click.command("registrations")
@click.argument("registration_id", metavar="[ID]", required=False)
@click.option("--category", help="Only those of this category.")
@click.option("--status", type=click.Choice(get_args(Status)), help="Only those of this status.")
@click.option("--search", metavar="TEXT", help="Part of an id, or an address or prefix.")
@click.option("--limit", type=click.IntRange(1, HIGHEST_LIMIT), help=f"At most.  [default: {DEFAULT_LIMIT}]")
@daemon_options
def command(
    endpoint: Endpoint,
    registration_id: str | None,
    category: str | None,
    status: str | None,
    search: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List registrations, or show all of the one with ID."""
    filters = {"category": category, "status": status, "q": search, "limit": limit}
    if registration_id is None:
        _list(endpoint, filters, as_json)
    elif any(value is not None for value in filters.values()):
        raise click.UsageError("give ID or options that select, not both")
    else:
        _show(endpoint, registration_id, as_json)


def _list(endpoint: Endpoint, filters: dict[str, str | int | None], as_json: bool) -> None:
    body = endpoint.get("/v1/registrations", filters)
    page = endpoint.parse(body, RegistrationPage)
    if as_json:
        print_json(body)
        return
    if page.items:
        print_table(
            ("id", "category", "status", "in kernel", "clients", "peers", "services"),
            [
                (
                    view.id,
                    view.category,
                    standing(view),
                    presence(view),
                    some(view.clients, none="by subscriber"),
                    some(view.peers),
                    some(view.services),
                )
                for view in page.items
            ],
        )
    if len(page.items) < page.total:
        click.echo(f"{len(page.items):,} of {page.total:,} shown; --limit or --search for others")
    else:
        click.echo(count(page.total, "registration"))


def _show(endpoint: Endpoint, registration_id: str, as_json: bool) -> None:
    body = endpoint.get(f"/v1/registrations/{quote(registration_id, safe='')}")
    view = endpoint.parse(body, RegistrationView)
    if as_json:
        print_json(body)
    else:
        print_lines(describe_registration(view))


def describe_registration(view: RegistrationView) -> Iterator[Line]:
    """All that is known of one."""
    yield Line("id", view.id)
    yield Line("category", view.category)
    yield Line("status", standing(view))
    yield Line("window", f"{view.valid_from or 'open'} to {view.valid_until or 'open'}")
    yield from _listed("clients", view.clients, "by subscriber alone")
    if view.subscriber and view.clients:
        yield Line("", "and the addresses of a subscriber")
    yield from _listed("peers", view.peers, "any")
    yield Line("services", ", ".join(view.services) or "any")
    missing = view.effective and view.in_kernel is False
    yield Line("in kernel", presence(view), BAD if missing or view.unprogrammed else "")
    seen = f", last seen {view.last_seen_at}" if view.last_seen_at else ", not seen yet"
    yield Line("traffic", f"{count(view.flows, 'flow')}, {size(view.bytes)}{seen}")


def standing(view: RegistrationView) -> str:
    """The status, and whether the window is closed."""
    closed = view.status == "active" and not view.effective
    return f"{view.status}, outside of its window" if closed else view.status


def presence(view: RegistrationView) -> str:
    """Whether the kernel has it, and why not."""
    if view.unprogrammed:
        return f"NO: {view.unprogrammed}"
    if view.in_kernel is None:
        return "-"
    if view.in_kernel:
        return "yes"
    return "NO" if view.effective else "no"


def _listed(label: str, words: tuple[str, ...], none: str) -> Iterator[Line]:
    yield Line(label, words[0] if words else none)
    for word in words[1:]:
        yield Line("", word)
