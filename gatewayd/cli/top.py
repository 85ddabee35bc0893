"""`gatewayd top`: live flows and registrations by rate, near misses, unregistered flows; and why one passes."""

from __future__ import annotations

import click

from gatewayd.cli.client import Endpoint, daemon_options
from gatewayd.cli.output import drawable_console
from gatewayd.errors import MissingPrerequisite


@click.command("top")
@daemon_options
def command(endpoint: Endpoint, as_json: bool) -> None:
    """Show flows and registrations by rate, near misses and unregistered flows, as they change.

    1 to 4 choose a table, the arrows a line, and Enter asks about it: of a registration its flows, of a flow why it
    passes or not. s sorts by rate or by total, space holds the screen still, Escape goes back, q ends.

    The daemon counts bytes of a flow every 30 s, so its rate is an average over that time. `-` is not known yet.
    Without a screen: gatewayd flows, gatewayd impact near-misses.
    """
    if as_json:
        raise click.UsageError("top draws a screen; for JSON: gatewayd flows --json")
    drawable_console("gatewayd top", "use: gatewayd flows, or gatewayd status")
    try:
        from gatewayd.cli.top_screen import TopScreen
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        remedy = "pip install 'gatewayd[top]', or use: gatewayd status --watch"
        raise MissingPrerequisite("gatewayd top needs textual, which is not installed", remedy) from None
    endpoint.get("/v1/status")  # a daemon that does not answer is said here, with its exit status
    TopScreen(endpoint).run(mouse=False)
