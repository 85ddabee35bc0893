"""`gatewayd run`: the daemon, in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from gatewayd.cli.check import DEFAULT_CONFIG
from gatewayd.settings import read_settings


@click.command()
@click.option("--config", "config_path", default=DEFAULT_CONFIG, show_default=True, help="The configuration file.")
def command(config_path: str) -> None:
    """Run the daemon in the foreground.

    Stopping it leaves the kernel as it is; `gatewayd teardown` removes the table.
    """
    import uvloop

    from gatewayd.daemon import run_daemon

    settings = read_settings(config_path)
    run_daemon(settings, Path(config_path), uvloop.run)
