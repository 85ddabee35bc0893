"""`gatewayd registry verify`: the list that an ISP signs, of every registration in force."""

from __future__ import annotations

import asyncio
import csv
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from gatewayd.activity import store
from gatewayd.activity.verify import FINDINGS, Overlaps, Verdict, Verifier, notes_of
from gatewayd.allowlist import Allowlist
from gatewayd.api.queries import HIGHEST_LIMIT
from gatewayd.api.report import VerifyPage
from gatewayd.cli.check import DEFAULT_CONFIG
from gatewayd.cli.client import LONG_READ_TIMEOUT_S, Endpoint, moment_of, socket_options
from gatewayd.cli.output import BAD, DOUBTFUL, GOOD, count, print_headline, print_table, print_value
from gatewayd.cli.registry_in_force import read_registry
from gatewayd.control.host_time import open_host_time
from gatewayd.errors import DaemonNotReachable
from gatewayd.model.moment import parse_time
from gatewayd.settings import Settings, read_settings
from gatewayd.state_file.file import StateFileUnusable, read_state_file

COLUMNS: Final = (
    "id", "registrant", "category", "status", "effective", "provisional", "by", "addresses", "ours", "not_ours",
    "pools", "overlaps", "last_seen_at", "findings",
)  # fmt: skip
MAX_ROWS: Final = 100
"""On a terminal; `--json` and `--csv` have all."""


@click.command("verify")
@click.option(
    "--config", metavar="PATH", default=DEFAULT_CONFIG, show_default=True, help="Where no daemon answers: its file."
)
@click.option("--since", default="30d", show_default=True, metavar="TIME", help="In use since then.")
@click.option("--csv", "as_csv", is_flag=True, help="Each registration, as CSV.")
@socket_options
def verify(endpoint: Endpoint, config: str, since: str, as_csv: bool, as_json: bool) -> None:
    """Say of each registration whether its addresses are ours, in a pool, another company's, and in use.

    `isp.prefixes` and `isp.pools` of the configuration say which addresses are ours and which change hands. Asks
    the daemon; where none answers, reads the last good and the activity on disk, and no source.

    Exit status: 0 nothing found, 1 something found, 2 usage or configuration.
    """
    if as_csv and as_json:
        raise click.UsageError("give one of --csv and --json")
    moment = moment_of(since)
    try:
        notes, verdicts = _ask(endpoint, moment)
    except DaemonNotReachable as error:
        click.echo(f"gatewayd: {error}; from the last good on disk", err=True)
        notes, verdicts = verify_offline(read_settings(config), _since(moment))
    if as_json:
        print_value({"notes": notes, "items": verdicts})
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(map(csv_row, verdicts))
    else:
        _print(notes, verdicts)
    if any(each.findings for each in verdicts):
        click.get_current_context().exit(1)


def _ask(endpoint: Endpoint, since: str | None) -> tuple[tuple[str, ...], list[Verdict]]:
    verdicts: list[Verdict] = []
    while True:
        asked = {"since": since, "offset": len(verdicts), "limit": HIGHEST_LIMIT}
        page = endpoint.parse(endpoint.get("/v1/verify", asked, LONG_READ_TIMEOUT_S), VerifyPage)
        verdicts += page.items
        if not page.items or len(verdicts) >= page.total:
            return page.notes, verdicts


def _since(moment: str | None) -> float:
    try:
        return parse_time(str(moment))
    except ValueError:
        raise click.UsageError(f"--since: {moment!r} is no time, expected such as 30d") from None


def verify_offline(settings: Settings, since_s: float) -> tuple[tuple[str, ...], list[Verdict]]:
    """From what is on disk; the sources are not asked. Raises SourceFailed, SettingsInvalid."""
    host_time = open_host_time(Path(settings.state_dir), has_signed=settings.registry.has_signed)
    _, in_force, _ = asyncio.run(read_registry(settings, host_time, asks_sources=False))
    allowlist = Allowlist()
    for registration in in_force.values():
        allowlist.upsert(registration)
    overlaps = Overlaps(allowlist.covering)
    for registration in allowlist:
        overlaps.take(registration)
    seen, first_day, notes = dict[str, int](), None, list[str]()
    try:
        path, now = Path(settings.state_dir) / store.FILE_NAME, time.time()
        seen = read_state_file(path, store.SCHEMA, lambda each: store.read_last_seen(each, None, now))
        first_day = read_state_file(path, store.SCHEMA, store.read_first_day)
    except StateFileUnusable as error:
        notes.append(str(error))
    isp, moment = settings.isp, host_time.moment()
    notes += notes_of(isp.prefixes, isp.pools, first_day, since_s)
    verifier = Verifier(isp.prefixes, isp.pools, overlaps, since_s)
    return tuple(notes), [verifier.judge(each, seen.get(each.id), moment) for each in allowlist]


def csv_row(verdict: Verdict) -> Iterator[str]:
    """In the order of COLUMNS; several words of a cell are separated by blanks."""
    yield from (verdict.id, verdict.registrant or "", verdict.category, verdict.status)
    yield from ("yes" if each else "no" for each in (verdict.effective, verdict.provisional))
    yield from (verdict.by, " ".join(verdict.addresses), verdict.ours or "", " ".join(verdict.foreign))
    yield from (" ".join(verdict.pools), _overlaps(verdict), verdict.last_seen_at or "", " ".join(verdict.findings))


def _print(notes: tuple[str, ...], verdicts: list[Verdict]) -> None:
    for note in notes:
        print_headline(note, DOUBTFUL)
    found = [each for each in verdicts if each.findings]
    counts = Counter(finding for each in found for finding in each.findings)
    if found:
        print_headline(f"{len(found):,} of {count(len(verdicts), 'registration')} to look at", BAD)
    else:
        print_headline(f"{count(len(verdicts), 'registration')}, nothing found", GOOD)
    for finding, meaning in FINDINGS.items():
        if counts[finding]:
            click.echo(f"{counts[finding]:>9,}  {finding:<9} {meaning}")
    without = sum(each.by == "subscriber" for each in verdicts)
    if without:
        click.echo(f"{without:>9,}  by subscriber alone: no addresses, so nothing is said of any")
    providers = sum(each.by == "provider" for each in verdicts)
    if providers:
        click.echo(f"{providers:>9,}  licensed providers: endpoints, and no addresses of clients")
    if found:
        click.echo()
        print_table(("id", "registrant", "last seen", "found", "what"), list(map(_row, found[:MAX_ROWS])))
    if len(found) > MAX_ROWS:
        click.echo(f"{MAX_ROWS:,} of {len(found):,} shown; --csv or --json for all")


def _row(verdict: Verdict) -> tuple[str, ...]:
    what = [
        *(f"not ours: {each}" for each in verdict.foreign),
        *(f"pool {each}" for each in verdict.pools),
        *((f"overlaps {_overlaps(verdict)}",) if verdict.overlaps else ()),
    ]
    last_seen = (verdict.last_seen_at or "never")[:10]
    return verdict.id, verdict.registrant or "-", last_seen, ", ".join(verdict.findings), "; ".join(what) or "-"


def _overlaps(verdict: Verdict) -> str:
    return " ".join(verdict.overlaps) + (" ..." if verdict.more_overlaps else "")
