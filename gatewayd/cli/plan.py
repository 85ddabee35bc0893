"""`gatewayd plan`: what a start with this configuration would change in the kernel. Reads, never writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import click
import msgspec

from gatewayd.assertions.judge import in_force as in_force_at
from gatewayd.assertions.overlay import failing_of
from gatewayd.cli.arguments import Percent
from gatewayd.cli.check import config_option
from gatewayd.cli.nearest import Choice
from gatewayd.cli.output import BAD, DOUBTFUL, GOOD, Line, count, print_headline, print_lines
from gatewayd.cli.plan_asked import ask_plan, print_asked
from gatewayd.cli.registry_in_force import read_registry
from gatewayd.compile import DesiredSets, interface_warnings
from gatewayd.compile.desired import elements_of
from gatewayd.compile.keys import Keys
from gatewayd.compile.near import NearClients
from gatewayd.compile.ruleset import compile_ruleset, parse_tag, policy_in_force, policy_of, rehearsal_script
from gatewayd.control.host_time import open_host_time
from gatewayd.control.policy import describe_change, describe_schedule
from gatewayd.errors import DumpInterrupted
from gatewayd.kernel.links import read_interfaces
from gatewayd.kernel.nft import check_script, find_nft
from gatewayd.kernel.tables import KernelTables
from gatewayd.model import Mode
from gatewayd.model.mask import parse_set_name
from gatewayd.model.policy import Stage
from gatewayd.model.registration import Registration, run_slices
from gatewayd.model.transaction import TableReading
from gatewayd.reconcile.set_state import masks_of
from gatewayd.reconcile.steps import Forecast, forecast
from gatewayd.reconcile.tracker import SetTracker
from gatewayd.reconcile.verify import read_keys
from gatewayd.registry.limits import judge_remainder
from gatewayd.registry.state import ENDPOINTS, KERNEL, RegistryState
from gatewayd.settings import Settings, read_settings


@dataclass(frozen=True, slots=True)
class HeldRemovals:
    """Removals that the shrink guard would hold until `gatewayd accept`: how many, by what brought them about
    (registrations, or elements of the kernel), and why."""

    by_cause: Mapping[str, int]
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """`kernel` would change so; `held` would not go yet. `clock_doubt`: why this host's clock is not believed.
    `warnings`: interfaces that are not there. `policy`: what its rules change, and for which flows."""

    kernel: Forecast
    held: list[HeldRemovals]
    clock_doubt: str | None = None
    warnings: tuple[str, ...] = ()
    policy: str = ""
    failing: tuple[str, ...] = ()
    """Assertions that would not hold."""


@click.command("plan")
@config_option
@click.option("--mode", type=Choice(get_args(Mode)), help="As if this mode were in force.")
@click.option("--canary", type=Percent(), metavar="N%", help="As if for this share of the clients.")
@click.option("--start", "is_start", is_flag=True, help="As a start would, though the daemon runs.")
@click.option("--rules", "show_rules", is_flag=True, help="Print the new rules too, as nft text.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    config_path: str, mode: Mode | None, canary: int | None, is_start: bool, show_rules: bool, as_json: bool
) -> None:
    """Show what would change in the kernel; touch nothing.

    Where the daemon runs it says what `gatewayd reload` of the file would do, on its own registry: what comes and
    goes, what the guard would hold, which assertions would break, and how many live flows would change. With --mode
    it says what arming would do to the flows that are alive.

    Without a daemon, or with --start, it begins with the last good, as a start does, reads every source once, and
    compares with the table that is there.

    Exit status 0 whether or not there is a difference; 1 where a registration would not be in the kernel, by its id
    and why, where an assertion would break, or when nft would refuse the new rules, in its own words (nft -c).
    """
    settings = read_settings(config_path)
    asked = None if is_start else ask_plan(settings, config_path, mode, canary)
    if asked is not None:
        print_asked(
            asked, settings, as_json=as_json, show_rules=show_rules, is_mode_given=(mode, canary) != (None, None)
        )
        ruleset, is_present, is_bad = asked.ruleset, True, bool(asked.unprogrammed or asked.broken)
    else:
        stage = Stage(mode or settings.policy.mode, settings.policy.canary_percent if canary is None else canary)
        result = asyncio.run(make_plan(settings, None if mode is None and canary is None else stage))
        print_plan(result, as_json=as_json, show_rules=show_rules)
        ruleset, is_present = result.kernel.ruleset, not result.kernel.creates_table
        is_bad = bool(result.kernel.unprogrammed)
    if ruleset is not None:
        asyncio.run(rehearse(ruleset, settings.kernel.table, is_present=is_present))
    if is_bad:
        raise SystemExit(1)


def print_plan(result: Plan, *, as_json: bool, show_rules: bool) -> None:
    if as_json:
        document = {
            **msgspec.to_builtins(result.kernel),
            "held": msgspec.to_builtins(result.held),
            "clock_doubt": result.clock_doubt,
            "policy": result.policy,
            "warnings": result.warnings,
            "failing": result.failing,
        }
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))
    else:
        _print(result)
        if show_rules and result.kernel.ruleset is not None:
            click.echo(result.kernel.ruleset)


def _print(result: Plan) -> None:
    kernel = result.kernel
    if kernel.unprogrammed:
        words = "would not be in the kernel as registered."
        print_headline(f"{count(len(kernel.unprogrammed), 'registration')} {words}", BAD)
    elif kernel.is_empty:
        print_headline("Nothing would change.", DOUBTFUL if result.held else GOOD)
    else:
        print_headline(f"{count(kernel.transactions, 'transaction')} would be committed.", DOUBTFUL)
    print_lines(describe(result))


def describe(result: Plan) -> Iterator[Line]:
    kernel = result.kernel
    for id, reason in kernel.unprogrammed.items():
        stays = "; what the kernel has of its addresses stays" if id in kernel.in_former_form else ""
        yield Line("NOT PROGRAMMED", f"{id}: {reason}{stays}", BAD)
    for failing in result.failing:
        yield Line("WOULD FAIL", failing, BAD)
    for each in result.held:
        causes = ", ".join(f"{cause} ({removals})" for cause, removals in sorted(each.by_cause.items()))
        yield Line("HELD", f"{each.reason}; by {causes}; until gatewayd accept", DOUBTFUL)
    for number, warning in enumerate(result.warnings):
        yield Line("" if number else "WARNING", warning, BAD)
    if result.clock_doubt is not None:
        yield Line("clock", f"not believed: {result.clock_doubt}", DOUBTFUL)
    if kernel.ruleset is not None:
        yield Line("policy", result.policy)
    if not kernel.is_empty:
        yield from _describe_changes(kernel)


def _describe_changes(kernel: Forecast) -> Iterator[Line]:
    if kernel.creates_table:
        yield Line("table", "would be made")
    for label, names in (("new sets", kernel.created_sets), ("sets removed", kernel.deleted_sets)):
        for number, name in enumerate(names):
            yield Line("" if number else label, name)
    for label, elements in (("add", kernel.added), ("remove", kernel.removed)):
        for number, (name, size) in enumerate(sorted(elements.items())):
            yield Line("" if number else label, f"{count(size, 'element')} in {name}")
    yield Line("rules", "stay as they are" if kernel.ruleset is None else "would be replaced (--rules shows them)")


async def rehearse(text: str, table: str, *, is_present: bool) -> None:
    """Ask nft and the kernel whether they would take the rules. Raises RulesetRefused, ReplyMissing."""
    await check_script(find_nft(), rehearsal_script(text, table, is_present=is_present))


async def make_plan(settings: Settings, stage: Stage | None = None) -> Plan:
    """`stage`: in the place of the file's. Raises SourceFailed when a source cannot be read, MissingPrerequisite
    when the kernel cannot be asked. Where another program never ceases to change the kernel, DumpInterrupted."""
    host_time = open_host_time(Path(settings.state_dir), has_signed=settings.registry.has_signed)
    tables = KernelTables.open(settings.kernel.table)
    try:
        await tables.check()
        desired = DesiredSets(protected={each.category for each in settings.registry.shrink_guard.protected})
        table_reading = await tables.read_table()
        desired.reserve(masks_of(table_reading))
        state, in_force, assertions = await read_registry(settings, host_time)
        now = host_time.moment()
        near = NearClients()
        for registration in in_force.values():
            near.add(registration.clients)
            if registration.is_effective(now):
                desired.add(registration)
        tracker = SetTracker(desired)
        tracker.take_near(*near.take(len(near)))
        tracker.findings.retain()
        await _observe(tracker, tables, table_reading)
    finally:
        tables.close()
    held = list(_held_by_guard(state))
    closed = [each for each in in_force.values() if each.status == "active" and each.valid_until_s <= now]
    remainder = release_remainder(tracker, closed, settings, lost_files=state.lost_files)
    if remainder is not None:
        held.append(remainder)
    policy = policy_in_force(settings, now) if stage is None else policy_of(settings, stage)
    table = settings.kernel.table
    tag = table_reading.tag
    if tag is not None:
        same = compile_ruleset(table, policy, tracker.hooks(), tag.epoch)
        if parse_tag(same.tag) == tag:
            tracker.hooked(same.set_names, same.text, tag)
    doubt = host_time.doubt()
    warnings = interface_warnings(settings.policy.interfaces, read_interfaces())
    change = describe_change(None if tag is None else tag.mode, policy)
    change += "" if stage is not None else describe_schedule(settings.policy, now)
    armed = policy_of(settings, stage or settings.policy.stage)
    failing = tuple(map(str, failing_of(in_force.values(), in_force_at(assertions, now), armed, now)))
    why = None if doubt is None else doubt.why
    return Plan(forecast(tracker, policy, table), held, why, warnings, change, failing)


async def _observe(tracker: SetTracker, tables: KernelTables, table_reading: TableReading) -> None:
    """All that the kernel has, into the tracker."""
    bound: dict[str, Keys] = {}
    for found in table_reading.sets:
        # Who has which address only the daemon knows: what is there of bindings stays.
        parsed = parse_set_name(found.name) if found.regular else None
        if parsed is not None and parsed[0].is_bound:
            tracker.use_element_timeout(found.timeout_s)
            # An empty one may be ready for who comes next.
            tracker.desired.prepare(parsed[0])
            bound[found.name], _ = await read_keys(tables, found.name)
            for key in bound[found.name]:
                tracker.desired.want(parsed[0], key)
        elif parsed is not None and parsed[0].is_near:
            # Addresses of a moment ago are there too, of which only the daemon knows.
            tracker.desired.adopt(parsed[0], past_bound=True)
            bound[found.name], _ = await read_keys(tables, found.name)
            for key in bound[found.name] - tracker.desired.keys(parsed[0]):
                tracker.desired.want(parsed[0], key)
    for state, _ in tracker.start_reading(table_reading):
        if state.name in bound:
            tracker.observe_elements(state, bound[state.name])
            continue
        keys, whole = await read_keys(tables, state.name)
        if not whole:
            raise DumpInterrupted(f"list elements of {state.name}")
        tracker.observe_elements(state, keys)


def _held_by_guard(state: RegistryState) -> Iterator[HeldRemovals]:
    """Removals of the registry, and endpoints of providers, that would wait for `gatewayd accept`."""
    held, endpoints = state.held(), state.endpoints.held()
    if held is not None:
        yield HeldRemovals(dict(held.by_cause), str(held.decision))
    if endpoints is not None:
        yield HeldRemovals({ENDPOINTS: len(endpoints.held)}, str(endpoints))


def release_remainder(
    tracker: SetTracker, closed: Iterable[Registration], settings: Settings, *, lost_files: bool
) -> HeldRemovals | None:
    """The elements that nobody registers would go, unless they are more than the guard lets go: then they are held.

    `closed`: registrations whose windows have closed, which explain theirs.
    """
    explained = {element for each in closed for element in elements_of(each)}
    left, found = run_slices(tracker.findings.sort_retained_in_slices(explained)), tracker.findings.count()
    decision = judge_remainder(found, left, settings.registry.shrink_guard, lost_files=lost_files)
    tracker.release(tracker.findings.count_retained() - (left if decision.is_held else 0))
    return HeldRemovals({KERNEL: left}, str(decision)) if decision.is_held else None
