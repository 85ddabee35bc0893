"""A plan that the running daemon makes: asked for over its Unix socket, and printed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import click
import msgspec

from gatewayd.api.plan import FlowCounts, PlanRequest, PlanView
from gatewayd.cli.client import Endpoint, NotOffered
from gatewayd.cli.output import BAD, DOUBTFUL, GOOD, Line, count, print_headline, print_lines, some
from gatewayd.compile import interface_warnings
from gatewayd.errors import DaemonNotReachable, SettingsInvalid
from gatewayd.kernel.links import read_interfaces
from gatewayd.model import Mode
from gatewayd.settings import Settings, read_text

PATIENCE_S: Final = 5.0
"""`check` waits no longer for a daemon: it runs before each start too."""
MAX_NAMED: Final = 5
"""Ids of a kind on one line."""


def ask_plan(settings: Settings, config_path: str, mode: Mode | None, canary: int | None) -> PlanView | None:
    """None where no daemon answers on the socket that the file names. Raises SettingsInvalid for faults that the
    daemon finds: of local files too, which it reads itself."""
    endpoint = Endpoint(settings.http.socket)
    request = PlanRequest(read_text(config_path), config_path, mode, canary)
    try:
        body = endpoint.post("/v1/plan", body=msgspec.json.encode(request))
    except NotOffered:
        return None  # a daemon of an earlier version
    except DaemonNotReachable as error:
        if os.path.exists(settings.http.socket):
            click.echo(f"gatewayd: {error}; this is what a start would do", err=True)
        return None
    view = endpoint.parse(body, PlanView)
    if view.faults:
        raise SettingsInvalid(view.faults)
    return view


def ask_broken(settings: Settings, text: str, filename: str) -> tuple[str, ...]:
    """Assertions for which the running daemon would refuse the file; none where it cannot be asked."""
    body = msgspec.json.encode(PlanRequest(text, filename, counts_flows=False))
    endpoint = Endpoint(settings.http.socket)
    try:
        answer = endpoint.post("/v1/plan", body=body, timeout_s=PATIENCE_S)
        return endpoint.parse(answer, PlanView).broken
    except (DaemonNotReachable, click.ClickException):
        return ()


def print_asked(
    view: PlanView, settings: Settings, *, as_json: bool, show_rules: bool, is_mode_given: bool
) -> None:
    warnings = interface_warnings(settings.policy.interfaces, read_interfaces())
    if as_json:
        document = {"daemon": True, **msgspec.to_builtins(view), "warnings": warnings}
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))
        return
    print_headline(*headline(view))
    print_lines(describe_asked(view, warnings, is_mode_given=is_mode_given))
    if show_rules and view.ruleset is not None:
        click.echo(view.ruleset)


def headline(view: PlanView) -> tuple[str, str]:
    """What there is to know if nothing else is read, and its style."""
    if view.needs_restart:
        return f"A reload would be refused: {', '.join(view.needs_restart)} need a restart.", BAD
    if view.broken:
        return f"{count(len(view.broken), 'assertion')} would break, so the change would be refused.", BAD
    if view.unprogrammed:
        words = "would not be in the kernel as registered."
        return f"{count(len(view.unprogrammed), 'registration')} {words}", BAD
    changes = view.registrations
    if view.ruleset is None and not (changes.came or changes.went or changes.changed):
        return "Nothing would change.", DOUBTFUL if view.held else GOOD
    number = changes.came + changes.went + changes.changed
    parts = [count(number, "registration")] if number else []
    parts += ["the rules"] if view.ruleset else []
    text = f"{' and '.join(parts)} would change."
    return text[0].upper() + text[1:], DOUBTFUL


def describe_asked(view: PlanView, warnings: tuple[str, ...], *, is_mode_given: bool) -> Iterator[Line]:
    for each in view.broken:
        yield Line("WOULD BREAK", each, BAD)
    for each in view.failing:
        yield Line("FAILS NOW", each, BAD)
    for id, reason in view.unprogrammed.items():
        yield Line("NOT PROGRAMMED", f"{id}: {reason}", BAD)
    for held in view.held:
        causes = ", ".join(f"{cause} ({removals})" for cause, removals in sorted(held.by_cause.items()))
        yield Line("HELD", f"{held.reason}; by {causes}; until gatewayd accept", DOUBTFUL)
    for number, warning in enumerate(warnings):
        yield Line("" if number else "WARNING", warning, BAD)
    if view.clock_doubt is not None:
        yield Line("clock", f"not believed: {view.clock_doubt}", DOUBTFUL)
    if view.ruleset is not None or is_mode_given:
        yield Line("policy", view.policy)
    yield from _describe_registry(view)
    if view.ruleset is not None:
        yield Line("rules", "would be replaced (--rules shows them)")
    if is_mode_given or view.ruleset is not None or _has_changes(view.flows):
        yield from _describe_flows(view.flows, view.mode)


def _describe_registry(view: PlanView) -> Iterator[Line]:
    for name in view.waits_for:
        yield Line("waits for", f"source {name}: what it brings and takes is known once it was read", DOUBTFUL)
    changes = view.registrations
    for label, number, ids in (
        ("come", changes.came, changes.came_ids),
        ("go", changes.went, changes.went_ids),
        ("change", changes.changed, changes.changed_ids),
    ):
        if number:
            rest = f" +{number - MAX_NAMED:,}" if number > MAX_NAMED else ""
            yield Line(label, f"{count(number, 'registration')}: {', '.join(ids[:MAX_NAMED])}{rest}")
    for number, mask in enumerate(view.new_masks):
        yield Line("" if number else "new sets", mask)
    for label, elements in (("add", view.added), ("remove", view.removed)):
        for number, (mask, size) in enumerate((elements or {}).items()):
            yield Line("" if number else label, f"{count(size, 'element')} in {mask}")
    if view.added is None:
        yield Line("elements", "not counted: the changes are too many", DOUBTFUL)


def _has_changes(flows: FlowCounts) -> bool:
    return bool(flows.loses or flows.gains or flows.enters or flows.leaves)


def _describe_flows(flows: FlowCounts, mode: Mode) -> Iterator[Line]:
    """Of connection tracking, as they are now."""
    unregistered = [
        f"{number:,} {word}"
        for number, word in (
            (flows.refused, "refused"),
            (flows.limited, "dropped above the limit"),
            (flows.marked, "marked"),
            (flows.passed, "passed" if mode == "observe" else "passed, beyond the canary"),
        )
        if number
    ]
    text = f"{flows.registered:,} registered, which pass; unregistered: {some(unregistered, 4, 'none')}"
    yield Line("live flows", text, BAD if flows.refused or flows.limited else "")
    for number, words, style in (
        (flows.loses, "would be registered no longer (they drain first)", BAD),
        (flows.gains, "would become registered", GOOD),
        (flows.enters, "without a registration would come into scope", DOUBTFUL),
        (flows.leaves, "would leave the scope", ""),
    ):
        if number:
            yield Line("", f"{count(number, 'flow')} {words}", style)
    if not flows.is_complete:
        yield Line("", f"of the first {flows.looked_at:,} that were looked at; there are more", DOUBTFUL)
