"""`gatewayd sync`: read the registry now."""

from __future__ import annotations

import click
import msgspec

from gatewayd.cli.client import Endpoint, socket_options
from gatewayd.cli.output import Line, print_json, print_lines


@click.command("sync")
@socket_options
def command(endpoint: Endpoint, as_json: bool) -> None:
    """Read every source of the registry now, and wait until the kernel has what came of it."""
    body = endpoint.post("/v1/sync")
    outcome = endpoint.parse(body, dict[str, object])
    if as_json:
        print_json(body)
        return
    print_lines(Line(name.replace("_", " "), _words(value)) for name, value in outcome.items())


def _words(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
