"""`gatewayd impact`: who is affected, and who was called about it."""

from __future__ import annotations

import click

from gatewayd.cli.near_misses import acknowledge, near_misses


@click.group("impact")
def command() -> None:
    """Show who is affected by the policy, before it is armed and after."""


command.add_command(near_misses)
command.add_command(acknowledge)
