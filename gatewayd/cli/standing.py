"""`gatewayd held` and `changes`: removals that wait for a decision, and what came, went and changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from gatewayd.api.standing import ChangeList, HeldList, HeldRemovalView, StepView
from gatewayd.cli.arguments import limit_options
from gatewayd.cli.client import Endpoint, daemon_options, moment_of
from gatewayd.cli.output import (
    BAD,
    DOUBTFUL,
    GOOD,
    Line,
    count,
    print_headline,
    print_json,
    print_lines,
    print_table,
    print_unshown,
    some,
)

MAX_REGISTRANTS: Final = 20
"""Companies that `held` names; `--json` has all."""
MAX_IDS_A_LINE: Final = 20
"""Of a step; `--json` has more."""


@click.command("held")
@limit_options
@daemon_options
def held(endpoint: Endpoint, limit: int | None, offset: int | None, as_json: bool) -> None:
    """Show the removals that the guard holds, before `gatewayd accept` lets them go.

    They are in force as before. `flows` are alive: these would be drained and refused after.
    """
    body = endpoint.get("/v1/held", {"limit": limit, "offset": offset})
    found = endpoint.parse(body, HeldList)
    if as_json:
        print_json(body)
        return
    if not found.total and not found.elements and not found.endpoints:
        print_headline("Nothing is held.", GOOD)
        return
    if found.total:
        accept = f"gatewayd accept {found.serial} lets them go"
        print_headline(f"{count(found.total, 'removal')} held: {found.reason}; {accept}", BAD)
        print_table(
            ("id", "registrant", "category", "flows", "since", "taken away by", "prefixes that go"),
            list(map(_held_row, found.items)),
        )
        print_unshown(len(found.items), found.total)
        for each in found.registrants[:MAX_REGISTRANTS]:
            what = "all of its" if each.is_whole else f"{each.held:,} of its"
            click.echo(f"{each.registrant}: {what} {count(each.of, 'registration')} would go")
    if found.endpoints:
        accept = f"gatewayd accept {found.endpoints_serial} lets them in"
        print_headline(f"not in force: {found.endpoints_reason}; {accept}", BAD)
        print_table(
            ("id", "registrant", "since", "brought by", "services", "endpoints", "in force now"),
            [
                (
                    each.id, each.registrant or "-", each.since or "-", each.cause, some(each.services),
                    some(each.endpoints), some(each.replaces, none="nothing"),
                )
                for each in found.endpoints
            ],
        )  # fmt: skip
    if found.elements:
        what = f"{count(found.elements, 'element')} that a start found in the kernel, and no registration wants"
        print_headline(f"{what}; gatewayd accept {found.elements_serial} lets them go", BAD)


def _held_row(view: HeldRemovalView) -> tuple[str, ...]:
    prefixes = " ".join(view.prefixes) or "by subscriber"
    return (
        view.id,
        view.registrant or "-",
        view.category,
        f"{view.flows:,}",
        view.since or "-",
        view.cause,
        prefixes,
    )


@click.command("changes")
@click.option("--since", metavar="TIME", help="Such as 2h, 7d or 2026-01-31T00:00:00Z. Default: since the start.")
@daemon_options
def changes(endpoint: Endpoint, since: str | None, as_json: bool) -> None:
    """Show which registrations came, went and changed, by which source or whose word.

    Since the start of the daemon, and the latest of them where there are many.
    """
    body = endpoint.get("/v1/changes", {"since": moment_of(since)})
    found = endpoint.parse(body, ChangeList)
    if as_json:
        print_json(body)
        return
    if found.dropped:
        print_headline(f"{count(found.dropped, 'older step')} forgotten", DOUBTFUL)
    for step in found.items:
        print_lines(_describe_step(step))
    if not found.items:
        asked = (
            "in this run of the daemon" if since is None else "since then, as far back as this run of the daemon"
        )
        click.echo(f"no change {asked}; gatewayd report has those of earlier runs")


def _describe_step(step: StepView) -> Iterator[Line]:
    by = f", accepted by {step.by}" if step.by else ""
    yield Line(step.at or "-", f" {step.cause}, serial {step.serial}{by}")
    for word, ids in (("came", step.came), ("went", step.went), ("changed", step.changed)):
        if ids:
            more = f" and {len(ids) - MAX_IDS_A_LINE:,} more" if len(ids) > MAX_IDS_A_LINE else ""
            yield Line("", f"{word} {len(ids):,}: {' '.join(ids[:MAX_IDS_A_LINE])}{more}")
    if step.omitted:
        yield Line("", f"and {step.omitted:,} not listed")
