"""`gatewayd flows`: the registered flows that are alive."""

from __future__ import annotations

import click

from gatewayd.api.parameters import DEFAULT_LIMIT, HIGHEST_LIMIT
from gatewayd.api.views import FlowPage
from gatewayd.cli.client import Endpoint, daemon_options
from gatewayd.cli.output import count, print_json, print_table, size, some


@click.command("flows")
@click.option("--registration", metavar="ID", help="Only those of this registration.")
@click.option("--limit", type=click.IntRange(1, HIGHEST_LIMIT), help=f"At most.  [default: {DEFAULT_LIMIT}]")
@daemon_options
def command(endpoint: Endpoint, registration: str | None, limit: int | None, as_json: bool) -> None:
    """List the registered flows that are alive, with the registrations they pass by."""
    body = endpoint.get("/v1/flows", {"registration": registration, "limit": limit})
    page = endpoint.parse(body, FlowPage)
    if as_json:
        print_json(body)
        return
    if page.items:
        print_table(
            ("source", "destination", "service", "registrations", "packets", "size", "since"),
            [
                (
                    _end(flow.src, flow.sport),
                    flow.dst,
                    flow.service,
                    some(flow.registrations, none="-"),
                    f"{flow.packets:,}",
                    size(flow.bytes),
                    flow.first_seen_at or "-",
                )
                for flow in page.items
            ],
        )
    if len(page.items) < page.total:
        click.echo(f"{len(page.items):,} of {page.total:,} shown; --limit or --registration for others")
    else:
        click.echo(count(page.total, "registered flow"))


def _end(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
