"""`gatewayd accept`: release the removals that the shrink guard holds."""

from __future__ import annotations

import click

from gatewayd.cli.client import Endpoint, socket_options
from gatewayd.cli.output import print_json, print_lines
from gatewayd.cli.sync import describe_outcome


@click.command("accept")
@click.argument("serial", type=click.IntRange(min=0))
@socket_options
def command(endpoint: Endpoint, serial: int, as_json: bool) -> None:
    """Release removals that the guard holds.

    SERIAL is the one that `gatewayd status` shows beside HELD, so that nobody accepts more than was looked at.
    Exit status 1 when nothing is held under it; what is in force stays then.
    """
    body = endpoint.post(f"/v1/accept?serial={serial}")
    outcome = endpoint.parse(body, dict[str, object])
    if as_json:
        print_json(body)
    else:
        print_lines(describe_outcome(outcome))
