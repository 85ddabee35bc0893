"""`gatewayd registrations --rejected`: records of the sources that are not usable, by their place."""

from __future__ import annotations

from collections.abc import Mapping

import click

from gatewayd.api.standing import RejectedList, RejectedView
from gatewayd.cli.client import Endpoint
from gatewayd.cli.output import DOUBTFUL, GOOD, count, print_headline, print_json, print_table, print_unshown


def show_rejected(endpoint: Endpoint, filters: Mapping[str, str | int | None], *, as_json: bool) -> None:
    """The list, and how many are not in it."""
    body = endpoint.get("/v1/rejected", filters)
    found = endpoint.parse(body, RejectedList)
    if as_json:
        print_json(body)
        return
    if not found.total:
        print_headline("No record is rejected.", GOOD)
        return
    print_headline(f"{count(found.total, 'record')} rejected since each source was last read whole", DOUBTFUL)
    print_table(("source", "place", "id", "reason", "field"), list(map(_row, found.items)))
    print_unshown(len(found.items), found.listed)
    if found.listed < found.total:
        click.echo(f"{found.total - found.listed:,} are counted and not listed, or mended since")


def _row(view: RejectedView) -> tuple[str, ...]:
    reading = "a delta to serial" if view.is_delta else "serial"
    return view.source, f"line {view.line}, {reading} {view.serial}", view.id or "-", view.code, view.field or "-"
