"""`gatewayd bindings`: the addresses that registered subscribers have at present."""

from __future__ import annotations

import click

from gatewayd.api.parameters import DEFAULT_LIMIT, HIGHEST_LIMIT
from gatewayd.api.subscriber_views import BindingPage, BindingView
from gatewayd.cli.client import Endpoint, daemon_options
from gatewayd.cli.output import count, place, print_json, print_table, some, span


@click.command("bindings")
@click.option("--registration", metavar="ID", help="Only those of this registration's subscriber.")
@click.option("--address", metavar="A", help="Only those that cover this address or prefix.")
@click.option("--limit", type=click.IntRange(1, HIGHEST_LIMIT), help=f"At most.  [default: {DEFAULT_LIMIT}]")
@daemon_options
def command(
    endpoint: Endpoint, registration: str | None, address: str | None, limit: int | None, as_json: bool
) -> None:
    """List the addresses of registered subscribers, and who told of them when."""
    body = endpoint.get("/v1/bindings", {"registration": registration, "address": address, "limit": limit})
    page = endpoint.parse(body, BindingPage)
    if as_json:
        print_json(body)
        return
    if page.items:
        print_table(
            ("address", "registrations", "in kernel", "told by", "session", "since", "confirmed"),
            [
                (
                    place(binding.prefix, binding.ports),
                    some(binding.registrations, none="-"),
                    {True: "yes", False: "NO", None: "-"}[binding.in_kernel],
                    binding.nas,
                    binding.session,
                    binding.since or "-",
                    confirmed(binding),
                )
                for binding in page.items
            ],
        )
    for binding in page.items:
        if binding.also_of:
            click.echo(
                f"{place(binding.prefix, binding.ports)} is also in a prefix of {', '.join(binding.also_of)}"
            )
    if len(page.items) < page.total:
        click.echo(f"{len(page.items):,} of {page.total:,} shown; --limit, --registration or --address for others")
    else:
        click.echo(count(page.total, "binding"))


def confirmed(binding: BindingView) -> str:
    """How long ago; before a restart is worth a word of its own."""
    age = f"{span(binding.age_s)} ago"
    return f"{age}, before the restart" if binding.restored else age
