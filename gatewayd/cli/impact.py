"""`gatewayd impact`: unregistered flows that were counted, what a policy would do to them, and who was called."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from gatewayd.api import impact_page as page
from gatewayd.api.html import Cell, render_page
from gatewayd.api.queries import HIGHEST_LIMIT
from gatewayd.cli.arguments import Percent
from gatewayd.cli.client import Endpoint, daemon_options, moment_of
from gatewayd.cli.near_misses import acknowledge, near_misses
from gatewayd.cli.output import DOUBTFUL, print_headline, print_json, print_table
from gatewayd.filesystem import write_output
from gatewayd.impact.report import ImpactReport
from gatewayd.model.moment import format_time

DEFAULT_TOP: Final = 20
_NAME_WIDTH: Final = 30


@click.group("impact", invoke_without_command=True)
@click.option("--since", default="24h", show_default=True, metavar="TIME", help="Such as 1h, 7d, 30d or a time.")
@click.option("--top", type=click.IntRange(1, HIGHEST_LIMIT), help=f"Prefixes at most.  [default: {DEFAULT_TOP}]")
@click.option("--canary", type=Percent(), default="10%", show_default=True, metavar="N%", help="Of the clients.")
@click.option("--csv", "as_csv", is_flag=True, help="Services, interfaces and prefixes as CSV.")
@click.option("--html", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write a page to this file.")
@daemon_options
@click.pass_context
def command(
    context: click.Context,
    endpoint: Endpoint,
    since: str,
    top: int | None,
    canary: int,
    as_csv: bool,
    file: Path | None,
    as_json: bool,
) -> None:
    """Show unregistered flows by service, inside interface and client prefix.

    The kernel counts each once, none is sampled. Says what reject, limit and a canary would do to the same flows,
    since when they are counted, and how much is not known. Up to 8 days by the hour, else by the day, for 400 days.
    """
    if context.invoked_subcommand is not None:
        return
    if sum((as_csv, as_json, file is not None)) > 1:
        raise click.UsageError("give one of --csv, --html and --json")
    most = top or (HIGHEST_LIMIT if as_csv or as_json or file is not None else DEFAULT_TOP)
    body = endpoint.get("/v1/impact", {"since": moment_of(since), "top": most, "canary": canary})
    report = endpoint.parse(body, ImpactReport)
    if as_json:
        print_json(body)
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(page.CSV_COLUMNS)
        writer.writerows(page.csv_rows(report))
    elif file is not None:
        write_page(file, report)
        click.echo(f"{file} is written")
    else:
        _print(report)


command.add_command(near_misses)
command.add_command(acknowledge)


def write_page(file: Path, report: ImpactReport) -> None:
    """Raises click.ClickException where it cannot be written."""
    text = render_page(page.TITLE, page.subtitle_of(report), list(page.parts_of(report)), _say_time)
    try:
        write_output(file, [text.encode()])
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None


def _say_time(at_s: float) -> str:
    return str(format_time(at_s))[:16].replace("T", " ")


def _print(report: ImpactReport) -> None:
    click.echo(page.subtitle_of(report))
    for warning in page.warnings_of(report):
        print_headline(warning, DOUBTFUL)
    for name, value in page.facts_of(report):
        click.echo(f"{name:<{_NAME_WIDTH}}{_shown(value)}")
    _table("By service", page.service_columns(report), page.service_rows(report))
    _table("By inside interface", page.INTERFACE_COLUMNS, page.interface_rows(report))
    _table("By client prefix", page.PREFIX_COLUMNS, page.prefix_rows(report))
    if len(report.prefixes) < report.prefix_count:
        click.echo(f"{len(report.prefixes):,} of {report.prefix_count:,} prefixes; --top for more")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    if rows:
        click.echo(f"\n{title}")
        print_table(columns, [[_shown(cell) for cell in row] for row in rows])


def _shown(value: Cell) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
