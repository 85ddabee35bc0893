"""`gatewayd plan`: what a start with this configuration would change in the kernel. Reads, never writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import click
import msgspec

from gatewayd.cli.check import DEFAULT_CONFIG
from gatewayd.cli.output import BAD, DOUBTFUL, GOOD, Line, count, print_headline, print_lines
from gatewayd.compile import DesiredSets
from gatewayd.compile.keys import Keys
from gatewayd.compile.policy import policy_in_force
from gatewayd.compile.ruleset import compile_ruleset, parse_tag, rehearsal_script
from gatewayd.errors import DumpInterrupted, SettingsInvalid, SourceFailed
from gatewayd.kernel.nft import check_script, find_nft
from gatewayd.kernel.tables import KernelTables
from gatewayd.model.mask import parse_set_name
from gatewayd.model.registration import Registration
from gatewayd.reconcile.set_state import masks_of
from gatewayd.reconcile.steps import Forecast, forecast
from gatewayd.reconcile.tracker import SetTracker
from gatewayd.reconcile.verify import read_keys
from gatewayd.registry.merge import SourceSet
from gatewayd.registry.overrides import Overrides
from gatewayd.settings import Settings, read_settings
from gatewayd.sources.fetch import open_session
from gatewayd.sources.overrides_dir import OverridesReading, read_overrides
from gatewayd.sources.runners import Delivery, make_runner
from gatewayd.sources.sources import SourceReading


@click.command("plan")
@click.option("--config", "config_path", default=DEFAULT_CONFIG, show_default=True, help="The configuration file.")
@click.option("--rules", "show_rules", is_flag=True, help="Print the new rules too, as nft text.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(config_path: str, show_rules: bool, as_json: bool) -> None:
    """Show what would change in the kernel; touch nothing.

    Reads every source once, compares with the table that is there, and lists the difference. Exit status 0
    whether or not there is one; 1 where a registration would not be in the kernel, by its id and why, or when nft
    would refuse the new rules, in its own words (nft -c).
    """
    settings = read_settings(config_path)
    result = asyncio.run(make_plan(settings))
    print_plan(result, as_json=as_json, show_rules=show_rules)
    if result.ruleset is not None:
        asyncio.run(rehearse(result.ruleset, settings.kernel.table, is_present=not result.creates_table))
    if result.unprogrammed:
        raise SystemExit(1)


def print_plan(result: Forecast, *, as_json: bool, show_rules: bool) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(result), indent=2))
    else:
        _print(result)
        if show_rules and result.ruleset is not None:
            click.echo(result.ruleset)


def _print(result: Forecast) -> None:
    if result.unprogrammed:
        words = "would not be in the kernel as registered."
        print_headline(f"{count(len(result.unprogrammed), 'registration')} {words}", BAD)
    elif result.is_empty:
        print_headline("Nothing would change.", GOOD)
        return
    else:
        print_headline(f"{count(result.transactions, 'transaction')} would be committed.", DOUBTFUL)
    print_lines(describe(result))


def describe(result: Forecast) -> Iterator[Line]:
    for id, reason in result.unprogrammed.items():
        kept = "; what the kernel has of its addresses stays" if id in result.in_former_form else ""
        yield Line("NOT PROGRAMMED", f"{id}: {reason}{kept}", BAD)
    if result.is_empty:
        return
    if result.creates_table:
        yield Line("table", "would be made")
    for label, names in (("new sets", result.created_sets), ("sets removed", result.deleted_sets)):
        for number, name in enumerate(names):
            yield Line("" if number else label, name)
    for label, elements in (("add", result.added), ("remove", result.removed)):
        for number, (name, size) in enumerate(sorted(elements.items())):
            yield Line("" if number else label, f"{count(size, 'element')} in {name}")
    yield Line("rules", "stay as they are" if result.ruleset is None else "would be replaced (--rules shows them)")


async def rehearse(text: str, table: str, *, is_present: bool) -> None:
    """Ask nft and the kernel whether they would take the rules. Raises RulesetRefused, ReplyMissing."""
    await check_script(find_nft(), rehearsal_script(text, table, is_present=is_present))


async def make_plan(settings: Settings) -> Forecast:
    """Raises SourceFailed when a source cannot be read, MissingPrerequisite when the kernel cannot be asked.
    Where another program never ceases to change the kernel, DumpInterrupted."""
    now = time.time()
    desired = DesiredSets(protected={each.category for each in settings.registry.shrink_guard.protected})
    tracker = SetTracker(desired)
    tables = KernelTables.open(settings.kernel.table)
    try:
        await tables.check()
        table_reading = await tables.read_table()
        desired.reserve(masks_of(table_reading))
        readings = SourceSet(each.name for each in settings.registry.sources)
        async for reading in _read_sources(settings):
            readings.put(reading.name, reading.registrations)
        for registration in _in_force(settings, readings.merge().registrations, now):
            if registration.is_effective(now):
                desired.add(registration)
        bound: dict[str, Keys] = {}
        for found in table_reading.sets:
            # Who has which address only the daemon knows: what is there of bindings stays.
            parsed = parse_set_name(found.name) if found.regular else None
            if parsed is not None and parsed[0].is_bound:
                tracker.use_element_timeout(found.timeout_s)
                # An empty one may be ready for who comes next.
                desired.prepare(parsed[0])
                bound[found.name], _ = await read_keys(tables, found.name)
                for key in bound[found.name]:
                    desired.want(parsed[0], key)
        for state, _ in tracker.start_reading(table_reading):
            if state.name in bound:
                tracker.observe_elements(state, bound[state.name])
                continue
            keys, whole = await read_keys(tables, state.name)
            if not whole:
                raise DumpInterrupted(f"list elements of {state.name}")
            tracker.observe_elements(state, keys)
    finally:
        tables.close()
    policy, table = policy_in_force(settings, now), settings.kernel.table
    tag = table_reading.tag
    if tag is not None:
        same = compile_ruleset(table, policy, tracker.hooks(), tag.epoch)
        if parse_tag(same.tag) == tag:
            tracker.hooked(same.set_names, same.text, tag)
    return forecast(tracker, policy, table)


def _in_force(settings: Settings, merged: Mapping[str, Registration], now: float) -> Iterator[Registration]:
    """The merged registry with the local overrides laid over it. Raises SettingsInvalid for faults in them."""
    local = settings.registry.local
    reading = read_overrides(Path(local)) if local is not None else OverridesReading(())
    if reading.faults:
        raise SettingsInvalid(reading.faults)
    overrides = Overrides(reading.files, now)
    for name in {**dict.fromkeys(merged), **dict.fromkeys(overrides.pins)}:
        registration = overrides.in_force(name, merged.get(name))
        if registration is not None:
            yield registration


async def _read_sources(settings: Settings) -> AsyncIterator[SourceReading]:
    results: list[SourceReading | SourceFailed] = []

    async def deliver(result: Delivery) -> None:
        if isinstance(result, SourceReading | SourceFailed):
            results.append(result)

    async with open_session() as session:
        for each in settings.registry.sources:
            runner = make_runner(each, settings.registry, deliver=deliver, session=session)
            await runner.attempt()
    for result in results:
        if isinstance(result, SourceFailed):
            raise result
        yield result
