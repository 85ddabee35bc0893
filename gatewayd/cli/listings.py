"""`gatewayd registrations`, `flows` and `bindings`: a page of each, or one registration whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, get_args
from urllib.parse import quote

import click
import msgspec

from gatewayd.api.queries import HIGHEST_LIMIT
from gatewayd.api.registration_text import condition, describe_registration, presence
from gatewayd.api.report import ActivityPage, ActivityView
from gatewayd.api.views import (
    BindingPage,
    BindingView,
    FlowPage,
    FlowView,
    RegistrationPage,
    RegistrationView,
    UnregisteredFlowPage,
    UnregisteredFlowView,
)
from gatewayd.cli.arguments import limit_options
from gatewayd.cli.client import Endpoint, daemon_options
from gatewayd.cli.companies import companies_of, print_companies
from gatewayd.cli.nearest import Choice
from gatewayd.cli.output import (
    IN_KERNEL,
    Line,
    count,
    place,
    print_json,
    print_lines,
    print_table,
    size,
    some,
    span,
)
from gatewayd.cli.rejected import show_rejected
from gatewayd.model import Status
from gatewayd.settings.values import parse_duration

Parameters = Mapping[str, str | int | None]


def page_options(function: Callable[..., None]) -> Callable[..., None]:
    """`--limit`, `--offset` and `--all`; the command gets one Mapping, `page`."""

    @limit_options
    @click.option("--all", "all_of_them", is_flag=True, help="However many there are.")
    @wraps(function)
    def paged(limit: int | None, offset: int | None, all_of_them: bool, **arguments: object) -> None:
        if all_of_them and (limit, offset) != (None, None):
            raise click.UsageError("give --all, or --limit and --offset")
        page = {"limit": HIGHEST_LIMIT, "offset": ALL} if all_of_them else {"limit": limit, "offset": offset}
        function(page=page, **arguments)

    return paged


ALL: Final = -1
"""Stands for the offset of a page that has everything."""


class _AnyPage(msgspec.Struct):
    total: int
    offset: int
    items: list[object]


@dataclass(frozen=True, slots=True)
class _List:
    """How a page is asked for and printed. `options` find those that it does not show."""

    path: str
    page: type[RegistrationPage | FlowPage | UnregisteredFlowPage | BindingPage]
    columns: Sequence[str]
    row: Callable[[Any], Sequence[str]]
    noun: str
    options: str


def _show_page(endpoint: Endpoint, list_: _List, filters: Parameters, as_json: bool) -> None:
    """A table, and under it how many there are."""
    body = _get_all(endpoint, list_, filters) if filters["offset"] == ALL else endpoint.get(list_.path, filters)
    page = endpoint.parse(body, list_.page)
    if as_json:
        print_json(body)
        return
    columns, row, noun, options = list_.columns, list_.row, list_.noun, list_.options
    if page.items:
        print_table(columns, [row(item) for item in page.items])
    for item in page.items:
        if isinstance(item, BindingView) and item.also_of:
            click.echo(f"{place(item.prefix, item.ports)} is also in a prefix of {', '.join(item.also_of)}")
    if len(page.items) < page.total:
        click.echo(f"{len(page.items):,} of {page.total:,} shown; {options} for others")
    else:
        click.echo(count(page.total, noun))


def _get_all(endpoint: Endpoint, list_: _List, filters: Parameters) -> bytes:
    """As one page. What changes meanwhile may be in it twice, or not."""
    items: list[object] = []
    while True:
        body = endpoint.get(list_.path, {**filters, "offset": len(items)})
        page = endpoint.parse(body, _AnyPage)
        items += page.items
        if not page.items or len(items) >= page.total:
            return msgspec.json.encode(_AnyPage(len(items), 0, items))


# -- registrations -------------------------------------------------------------------------------------------------


@click.command("registrations")
@click.argument("registration_id", metavar="[ID]", required=False)
@click.option("--category", help="Only those of this category.")
@click.option("--status", type=Choice(get_args(Status)), help="Only those of this status.")
@click.option("--registrant", metavar="KEY", help="Only those of this company.")
@click.option("--ending", metavar="TIME", help="Effective, and the window ends within such as 7d; soonest first.")
@click.option("--provisional", is_flag=True, help="Only provisional ones.")
@click.option("--search", metavar="TEXT", help="Part of an id, an address or prefix, or the digest of a number.")
@click.option("--rejected", is_flag=True, help="Records of the sources that are not usable, by their place.")
@click.option("--source", help="With --rejected: of this source alone.")
@click.option("--by", type=Choice(["registrant"]), help="A line for each company in place of registrations.")
@page_options
@daemon_options
def registrations(
    endpoint: Endpoint,
    registration_id: str | None,
    category: str | None,
    status: str | None,
    registrant: str | None,
    ending: str | None,
    provisional: bool,
    search: str | None,
    rejected: bool,
    source: str | None,
    by: str | None,
    page: Parameters,
    as_json: bool,
) -> None:
    """List registrations, or show all of the one with ID."""
    filters: Parameters = {
        "category": category, "status": status, "q": search, "registrant": registrant,
        "ending": None if ending is None else _seconds_of(ending), "provisional": 1 if provisional else None,
        **page,
    }  # fmt: skip
    if rejected:
        if registration_id or category or status or search or registrant or ending or provisional or by:
            raise click.UsageError("--rejected goes with --source, --limit and --offset alone")
        show_rejected(endpoint, {"source": source, **page}, as_json=as_json)
        return
    if source is not None:
        raise click.UsageError("--source goes with --rejected")
    if by is not None and registration_id is None:
        show_companies(endpoint, filters, as_json=as_json)
        return
    if registration_id is None:
        _show_page(endpoint, _REGISTRATIONS, filters, as_json)
        return
    if any(value is not None for value in filters.values()):
        raise click.UsageError("give ID or options that select, not both")
    body = endpoint.get(f"/v1/registrations/{quote(registration_id, safe='')}")
    view = endpoint.parse(body, RegistrationView)
    if as_json:
        print_json(body)
        return
    print_lines(describe_registration(view))
    with suppress(click.ClickException):  # the file of activity may be unusable; its report says why
        found = endpoint.parse(endpoint.get("/v1/activity", {"registration": registration_id}), ActivityPage)
        print_lines(map(describe_activity, found.items))


MAX_ENDING_S: Final = 366 * 86_400.0


def _seconds_of(text: str) -> int:
    try:
        return int(parse_duration(text, 1.0, MAX_ENDING_S))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}, expected such as 7d", param_hint="--ending") from None


def show_companies(endpoint: Endpoint, filters: Parameters, *, as_json: bool) -> None:
    """All that the filters select, by company."""
    body = _get_all(endpoint, _REGISTRATIONS, {**filters, "limit": HIGHEST_LIMIT})
    found = companies_of(endpoint.parse(body, RegistrationPage).items)
    if as_json:
        print_json(msgspec.json.encode(found))
        return
    print_companies(found)


def _registration_row(view: RegistrationView) -> Sequence[str]:
    return (
        view.id,
        view.category,
        condition(view),
        presence(view),
        f"to {some(view.endpoints)}" if view.endpoints else some(view.clients, none="by subscriber"),
        some(view.peers),
        some(view.services),
    )


def describe_activity(view: ActivityView) -> Line:
    """Over restarts of the daemon; `traffic` is of its run."""
    text = f"{count(view.flows, 'flow')}, {size(view.bytes)} on {count(view.days, 'day')}"
    return Line("30 days", f"{text}, {f'last seen {view.last_seen_at}' if view.last_seen_at else 'never seen'}")


# -- flows ---------------------------------------------------------------------------------------------------------


@click.command("flows")
@click.option("--registration", metavar="ID", help="Only those of this registration.")
@click.option("--unregistered", is_flag=True, help="The last unregistered ones (`watch.unregistered: flows`).")
@page_options
@daemon_options
def flows(
    endpoint: Endpoint, registration: str | None, unregistered: bool, page: Parameters, as_json: bool
) -> None:
    """List the registered flows that are alive, with the registrations they pass by."""
    if unregistered and registration is not None:
        raise click.UsageError("--unregistered flows have no registration")
    if unregistered:
        _show_page(endpoint, _UNREGISTERED_FLOWS, {**page}, as_json)
        return
    _show_page(endpoint, _FLOWS, {"registration": registration, **page}, as_json)


def _unregistered_row(flow: UnregisteredFlowView) -> Sequence[str]:
    return _source(flow), flow.dst, flow.service, flow.seen_at or "-"


def _source(flow: FlowView | UnregisteredFlowView) -> str:
    source = f"[{flow.src}]" if flow.sport is not None and ":" in flow.src else flow.src
    return source if flow.sport is None else f"{source}:{flow.sport}"


def _flow_row(flow: FlowView) -> Sequence[str]:
    return (
        _source(flow),
        flow.dst,
        flow.service,
        some(flow.registrations, none="-"),
        f"{flow.packets:,}",
        size(flow.bytes),
        flow.first_seen_at or "-",
    )


# -- bindings ------------------------------------------------------------------------------------------------------


@click.command("bindings")
@click.option("--registration", metavar="ID", help="Only those of this registration's subscriber.")
@click.option("--address", metavar="A", help="Only those that cover this address or prefix.")
@page_options
@daemon_options
def bindings(
    endpoint: Endpoint, registration: str | None, address: str | None, page: Parameters, as_json: bool
) -> None:
    """List the addresses of registered subscribers, and which NAS reported them when."""
    filters: Parameters = {"registration": registration, "address": address, **page}
    _show_page(endpoint, _BINDINGS, filters, as_json)


def _binding_row(binding: BindingView) -> Sequence[str]:
    return (
        place(binding.prefix, binding.ports),
        some(binding.registrations, none="-"),
        IN_KERNEL[binding.in_kernel],
        binding.nas,
        binding.session,
        binding.since or "-",
        # Before a restart is worth a word of its own.
        f"{span(binding.age_s)} ago, before the restart" if binding.restored else f"{span(binding.age_s)} ago",
    )


_REGISTRATIONS: Final = _List(
    "/v1/registrations",
    RegistrationPage,
    ("id", "category", "status", "in kernel", "clients", "peers", "services"),
    _registration_row,
    "registration",
    "--all, --limit or --search",
)
_FLOWS: Final = _List(
    "/v1/flows",
    FlowPage,
    ("source", "destination", "service", "registrations", "packets", "size", "since"),
    _flow_row,
    "registered flow",
    "--all, --limit or --registration",
)
_UNREGISTERED_FLOWS: Final = _List(
    "/v1/flows/unregistered",
    UnregisteredFlowPage,
    ("source", "destination", "service", "seen"),
    _unregistered_row,
    "unregistered flow",
    "--limit",
)
_BINDINGS: Final = _List(
    "/v1/bindings",
    BindingPage,
    ("address", "registrations", "in kernel", "reported by", "session", "since", "confirmed"),
    _binding_row,
    "binding",
    "--all, --limit, --registration or --address",
)
