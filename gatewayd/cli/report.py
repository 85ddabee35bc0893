"""`gatewayd report`: which registrations are used, which never were, what changed and what was held."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from gatewayd.api.html import render_page
from gatewayd.api.queries import HIGHEST_LIMIT
from gatewayd.api.report import ActivityPage, ReportView
from gatewayd.api.report_page import (
    COLUMNS,
    EVENT_COLUMNS,
    GROUP_COLUMNS,
    MISS_COLUMNS,
    PROVISIONAL_COLUMNS,
    RECORD_COLUMNS,
    REJECTED_COLUMNS,
    STEP_COLUMNS,
    TITLE,
    csv_row,
    event_row,
    facts_of,
    group_row,
    miss_row,
    parts_of,
    provisional_row,
    record_row,
    rejected_rows,
    step_row,
    subtitle_of,
)
from gatewayd.cli.client import LONG_READ_TIMEOUT_S, Endpoint, daemon_options, moment_of
from gatewayd.cli.output import DOUBTFUL, print_headline, print_json, print_table, size
from gatewayd.filesystem import write_output
from gatewayd.model.moment import format_time

_NAME_WIDTH: Final = 27
MAX_ROWS: Final = 20
"""Of each table on a terminal; `--json`, `--csv` and `--html` have more."""


@click.command("report")
@click.option(
    "--since", default="30d", show_default=True, metavar="TIME", help="Such as 7d or 2026-01-31T00:00:00Z."
)
@click.option("--csv", "as_csv", is_flag=True, help="Each registration and its use, as CSV.")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page to this file.")
@daemon_options
def command(endpoint: Endpoint, since: str, as_csv: bool, page: Path | None, as_json: bool) -> None:
    """Show the use of registrations: which are used, which never were, what changed, what was held.

    By registrant; it has no address, no subscriber, and nothing of unregistered traffic. The daemon keeps 400 days.
    """
    if sum((as_csv, as_json, page is not None)) > 1:
        raise click.UsageError("give one of --csv, --html and --json")
    moment = moment_of(since)
    if as_csv:
        _print_csv(endpoint, moment)
        return
    body = endpoint.get("/v1/report", {"since": moment}, LONG_READ_TIMEOUT_S)
    view = endpoint.parse(body, ReportView)
    if as_json:
        print_json(body)
    elif page is not None:
        text = render_page(TITLE, subtitle_of(view), list(parts_of(view)), lambda at_s: str(format_time(at_s))[:10])
        try:
            write_output(page, [text.encode()])
        except OSError as error:
            raise click.ClickException(f"{page}: {error.strerror}") from None
        click.echo(f"{click.format_filename(page)} is written")
    else:
        _print(view)


def _print_csv(endpoint: Endpoint, since: str | None) -> None:
    """Page by page: what changes meanwhile may be in it twice, or not."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for page in _pages(endpoint, since):
        writer.writerows(map(csv_row, page.items))


def _pages(endpoint: Endpoint, since: str | None) -> Iterator[ActivityPage]:
    offset = 0
    while True:
        asked = {"since": since, "offset": offset, "limit": HIGHEST_LIMIT}
        body = endpoint.get("/v1/activity", asked, LONG_READ_TIMEOUT_S)
        page = endpoint.parse(body, ActivityPage)
        yield page
        offset += len(page.items)
        if not page.items or offset >= page.total:
            return


def _print(view: ReportView) -> None:
    click.echo(subtitle_of(view))
    for note in view.notes:
        print_headline(note, DOUBTFUL)
    for gap in view.unwatched:
        print_headline(f"no daemon watched from {gap.since} to {gap.until}", DOUBTFUL)
    for name, value in facts_of(view):
        click.echo(f"{name:<{_NAME_WIDTH}}{_shown(value)}")
    _table("By registrant", GROUP_COLUMNS, [_sized(group_row(each)) for each in view.groups], view.groups_total)
    unseen = [
        (each.id, each.registrant or "-", each.category, each.last_seen_on or "never") for each in view.unseen
    ]
    _table("Effective and not used", ("id", "registrant", "category", "last seen"), unseen, view.counts.unseen)
    provisional = [provisional_row(each) for each in view.provisional]
    _table("Provisional", PROVISIONAL_COLUMNS, provisional, view.counts.provisional)
    _table("Near misses", MISS_COLUMNS, [miss_row(each) for each in view.near_misses], len(view.near_misses))
    rejected = rejected_rows(view)
    _table("Rejected records", REJECTED_COLUMNS, rejected, len(rejected))
    records = [record_row(each) for each in view.rejected_records]
    _table("Where they stand", RECORD_COLUMNS, records, sum(each.total for each in view.rejected))
    _table("Held", EVENT_COLUMNS, [event_row(each) for each in view.holds], len(view.holds), newest=True)
    steps = [step_row(each) for each in view.changes]
    _table("Changes", STEP_COLUMNS, steps, view.change_counts.steps, newest=True)


def _table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], total: int, *, newest: bool = False
) -> None:
    if not rows:
        return
    shown = rows[-MAX_ROWS:] if newest else rows[:MAX_ROWS]
    click.echo(f"\n{title}")
    print_table(columns, [[_shown(cell) for cell in row] for row in shown])
    if len(shown) < total:
        which = "the newest " if newest else ""
        click.echo(f"{which}{len(shown):,} of {total:,}; --json or --html for more")


def _sized(row: Sequence[str | int]) -> Sequence[str | int]:
    """With the bytes in words."""
    *first, size_bytes, last_seen = row
    return (*first, size(int(size_bytes)), last_seen)


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
