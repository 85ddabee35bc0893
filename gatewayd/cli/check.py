"""`gatewayd check`: every problem of a configuration file in one go."""

from __future__ import annotations

import json
import sys

import click

from gatewayd.errors import SettingsInvalid
from gatewayd.settings import Settings, read_settings

DEFAULT_CONFIG = "/etc/gatewayd/gatewayd.yaml"


def describe_settings(settings: Settings) -> str:
    """One line for an operator who wants to see that it is the file that was meant."""
    count = len(settings.registry.sources)
    policy = settings.policy
    return ", ".join(
        (
            f"{count} source{'s' if count != 1 else ''}",
            f"mode {policy.mode}",
            f"scope {' '.join(policy.scope_words)}",
            f"table {settings.kernel.table}",
            f"http {settings.http.listen}",
        )
    )


@click.command("check")
@click.argument("path", required=False, type=click.Path())
@click.option("--config", type=click.Path(), help=f"The file to check.  [default: {DEFAULT_CONFIG}]")
@click.option("--json", "as_json", is_flag=True, help='Print {"ok": …, "faults": […]}.')
def command(path: str | None, config: str | None, as_json: bool) -> None:
    """Check a configuration file and print every problem of it.

    Each line is FILE:LINE:COLUMN: KEY: what is wrong, what is expected. Exit status 0 when there is none, 2
    otherwise. Nothing but the file itself is looked at.
    """
    if path is not None and config is not None:
        raise click.UsageError("give PATH or --config, not both")
    filename = path or config or DEFAULT_CONFIG
    faults: tuple[str, ...] = ()
    summary = ""
    try:
        summary = describe_settings(read_settings(filename))
    except SettingsInvalid as error:
        faults = error.faults
    if as_json:
        click.echo(json.dumps({"ok": not faults, "faults": faults}))
    elif faults:
        click.echo("\n".join(faults), err=True)
    else:
        click.echo(f"{click.format_filename(filename)}: ok ({summary})")
    if faults:
        sys.exit(2)
