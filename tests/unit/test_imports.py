"""The house rules about imports, read with `ast`: one direction, and no I/O in what is pure.

A new module must be put into PURE, IO or COMPOSITION here; a new arrow between packages into MAY_IMPORT.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import gatewayd

ROOT = Path(gatewayd.__file__).parent

MAY_IMPORT: dict[str, str] = {
    # In the order of the data: a package imports from those above it alone. `gatewayd` is the version.
    "gatewayd": "",
    "errors": "",
    "log": "",
    "systemd": "",
    "listen": "log",
    "filesystem": "",
    "model": "errors",
    "state_file": "errors filesystem log model",
    "settings": "errors model",
    "feed": "errors model",
    "sources": "gatewayd errors filesystem log model settings feed",
    "registry": "errors model settings feed sources",
    "activity": "model state_file",
    "allowlist": "model",
    "subscribers": "errors filesystem listen log model state_file settings allowlist",
    "trial": "errors model",
    "compile": "model settings",
    "assertions": "errors model allowlist compile",
    "kernel": "errors model compile assertions",
    "doctor": "errors log model settings compile kernel",
    "reconcile": "errors log model compile",
    "watch": "doctor errors log model compile kernel allowlist reconcile",
    "impact": "errors log model state_file compile",
    "near_miss": "errors log model state_file allowlist compile",
    "api": "doctor errors impact listen log model trial state_file activity registry subscribers assertions "
    "reconcile watch near_miss",
    "page": "errors model trial registry api",
    "control": "gatewayd doctor errors filesystem impact log model state_file activity settings feed sources "
    "registry allowlist subscribers trial compile assertions kernel reconcile watch near_miss api systemd",
    "daemon": "gatewayd doctor errors impact log systemd model trial settings sources kernel watch api page "
    "control subscribers",
    "top": "model api",
    "authority": "errors filesystem listen model feed",
    "lab": "errors model",
    "passage": "errors model compile assertions kernel lab",
    "demo": "errors model feed authority lab",
    "cli": "gatewayd errors filesystem impact log model state_file activity allowlist settings feed sources "
    "registry compile assertions doctor reconcile kernel subscribers trial watch api control daemon top authority "
    "lab demo passage",
    "__main__": "cli",
}

PURE = """
    allowlist allowlist.allowlist allowlist.by_subscriber allowlist.endpoints allowlist.match allowlist.radix
    allowlist.schedule allowlist.words api api.metrics api.process
    api.event_stream api.html log.ring state_file.view activity.days activity.rows activity.verify
    api.registration_text api.report api.report_page api.text api.explanation api.history
    api.arming settings.edit
    api.near_misses compile.near near_miss near_miss.findings near_miss.former near_miss.reasons
    api.queries api.standing api.status api.views authority.layout authority.readers compile compile.desired
    assertions assertions.judge assertions.lookups assertions.overlay assertions.states compile.counting
    api.impact_page compile.effects compile.endpoints compile.interfaces compile.judging compile.keys
    compile.lookups compile.masks compile.rule_sets compile.ruleset control control.trusted_time demo errors
    doctor doctor.diagnosis doctor.facts doctor.findings doctor.host_checks doctor.kernel_faults
    doctor.neighbour_checks doctor.rules_codec doctor.settings_checks
    feed feed.addresses feed.canonical feed.csv_dialect feed.files feed.notification feed.reading feed.record
    impact.buckets impact.counting impact.report kernel.counts_codec kernel.passage_codec
    gatewayd kernel kernel.attributes kernel.conntrack_codec kernel.external_codec kernel.fake
    kernel.tables_codec lab.packets log.event log.events log.host_events log.provider_events
    model
    model.accounting model.assertion model.decoding model.flow model.mask
    model.metric model.moment model.msisdn model.policy model.prefix model.registration model.service
    model.transaction reconcile.dataplane reconcile.findings reconcile.set_state reconcile.steps reconcile.tracker
    registry.budget registry.endpoint_guard registry.ends registry.extended registry.freshness registry.guard
    registry.guard_record registry.history registry.lookups
    registry.layers registry.limits registry.standing registry.state settings.load settings.model
    settings.readers settings.schema settings.subscribers settings.values sources.client sources.client_plan
    sources.last_good sources.override_file sources.update
    registry.rehearsal
    page page.answer page.html page.markup page.overview page.plots page.problems page.question
    top top.flows top.tables
    api.plan control.flow_changes compile.element_changes
    subscribers subscribers.journal_rows subscribers.radius subscribers.radius.accounting
    subscribers.radius.attributes subscribers.radius.clients subscribers.radius.flood subscribers.radius.packet
    subscribers.radius.senders subscribers.session_list subscribers.sessions subscribers.sessions.changes
    subscribers.sessions.index subscribers.sessions.naming subscribers.sessions.nas subscribers.sessions.nas_clock
    subscribers.sessions.restoring subscribers.sessions.tombstones subscribers.sessions.session
    subscribers.sessions.sessions trial trial.record trial.stages trial.state trial.trip trial.views watch
    watch.interfaces watch.repeats watch.aggregate watch.attribute watch.decode
    passage passage.copying passage.packet passage.trace passage.views
"""
"""No clock, file, socket, process, randomness or environment; takes `now` and bytes as arguments. A package whose
`__init__` gathers shells too is under IO."""

IO = """
    passage.host passage.scratch activity activity.store api.report_routes api.streaming
    impact impact.keeper impact.store kernel.counts log.tap state_file
    state_file.file near_miss.store api.arming_routes control.trial_store
    api.app api.reads api.listening api.middleware authority authority.database authority.disk authority.importing
    authority.publishing authority.serving control.host_time demo.acts demo.cast demo.gateway demo.registry
    demo.scenario
    doctor.__main__ doctor.keeper doctor.readings
    kernel.claim kernel.clock kernel.conntrack kernel.external kernel.links kernel.netlink kernel.nft kernel.passage
    kernel.trace
    kernel.tables lab lab.lab lab.namespace lab.stream lab.tap lab.traffic lab.world
    log log.journald log.lines log.logger log.queued reconcile
    api.plan_routes page.routes
    reconcile.loop reconcile.scan_requests reconcile.verify reconcile.writer registry settings sources sources.fetch
    sources.files sources.last_good_file sources.last_good_store sources.plain_source sources.runner
    subscribers.journal subscribers.journal_file subscribers.radius.listener subscribers.radius.sockets
    subscribers.secret_files subscribers.service filesystem listen listen.ahead listen.connections systemd
    watch.links watch.source
"""

COMPOSITION = """
    cli.completions cli.manual cli.nearest cli.status_watch cli.top cli.top_screen
    cli.mode cli.mode_file control.arming_queries control.trial_gateway control.trial_keeper
    control.trip_evidence control.trial_report
    cli.events cli.registry_in_force cli.registry_verify cli.report control.activity_keeper control.report_queries
    __main__ cli cli.arguments cli.changes cli.check cli.client cli.companies cli.doctor cli.explain cli.listings
    cli.output cli.plan cli.registry
    cli.registry_authoring cli.registry_reading cli.service cli.service_user cli.standing cli.status
    cli.status_subscribers
    control.controller control.core control.companies control.explain control.extended_log control.guard_keeper
    control.policy
    control.queries
    control.assertion_gate control.assertion_watch cli.status_assertions
    control.planner cli.plan_asked
    control.registry_queries control.reload control.status control.subscriber_queries control.vitals daemon
    cli.rejected cli.impact cli.near_misses control.drain_keeper control.history_keeper
    control.near_miss_queries near_miss.keeper
    reconcile.connections watch.handler watch.surroundings cli.private cli.probe passage.probe
"""

TOUCHES_THE_WORLD = """
    asyncio concurrent ctypes fcntl glob http importlib io logging mmap multiprocessing os pathlib platform
    queue random resource sched secrets select selectors shutil signal socket socketserver sqlite3 ssl stat
    subprocess sys syslog tempfile threading time uuid
"""
"""Modules of the standard library that no pure module imports."""

HARMLESS = {"io": {"BytesIO", "StringIO"}, "os": {"strerror"}, "sys": {"byteorder"}}
"""What pure modules may use of those, name by name."""

THIRD_PARTY: dict[str, str] = {
    "aiohttp": "sources.fetch sources.runner authority.serving api.app listen.connections api.middleware "
    "cli.client api.arming_routes api.plan_routes api.reads api.report_routes api.streaming page.routes",
    "click": "cli.*",
    "cryptography": "sources.fetch",
    "joserfc": "feed.notification",
    "msgspec": "*",
    "prometheus_client": "api.metrics api.reads",
    "pyrad": "subscribers.radius.packet demo.gateway",
    "pyroute2": "doctor.readings kernel.* lab.* passage.host passage.scratch",
    "pytricia": "allowlist.radix",
    "rich": "cli.* demo.*",
    "structlog": "log.*",
    "textual": "cli.top_screen",
    "uvloop": "cli.service",
    "watchfiles": "sources.files",
    "yaml": "settings.load settings.edit",
    "yarl": "sources.fetch sources.runner",
}
"""Where each library may be imported."""
PURE_LIBRARIES = frozenset({"cryptography", "joserfc", "msgspec", "prometheus_client", "pyrad", "pytricia", "yaml"})

WRONG_TODAY: set[tuple[str, str]] = set()
"""Pure modules that import a shell; may only become fewer."""


def source_files() -> dict[str, Path]:
    """Every module under gatewayd by its short name: `compile.masks`, `compile` for the package, `gatewayd`."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join(parts) or "gatewayd"] = path
    return found


MODULES = source_files()


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(), str(MODULES[module]))


def imported_names(module: str) -> Iterator[str]:
    """Absolute names as written: `os.path`; for `from a.b import c` both `a.b` and `a.b.c`."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    """Modules of gatewayd that `module` imports; a package only where something of its `__init__` is taken."""
    found = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found |= {short_name(alias.name) for alias in node.names if is_ours(alias.name)}
        elif isinstance(node, ast.ImportFrom) and node.module and is_ours(node.module):
            for alias in node.names:
                whole = short_name(f"{node.module}.{alias.name}")
                found.add(whole if whole in MODULES else short_name(node.module))
    return found - {module}


def foreign_imports(module: str) -> set[str]:
    """Top-level names of what is not ours."""
    tops = {name.partition(".")[0] for name in imported_names(module) if not is_ours(name)}
    return tops - {"__future__", "_typeshed"}


def is_ours(name: str) -> bool:
    return name.partition(".")[0] == "gatewayd"


def short_name(name: str) -> str:
    return name.removeprefix("gatewayd.")


def package_of(module: str) -> str:
    return module.partition(".")[0]


def is_named(module: str, patterns: str) -> bool:
    return any(
        pattern in ("*", module) or (pattern.endswith(".*") and package_of(module) == pattern[:-2])
        for pattern in patterns.split()
    )


def uses_of(module: str, library: str) -> set[str]:
    """What is taken of an imported library: `os.strerror` and `from os import strerror` give strerror."""
    names = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == library:
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == library:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            assert not any(alias.asname for alias in node.names if alias.name == library), "rename it nowhere"
    return names


def test_every_module_is_either_pure_or_a_shell_or_composition() -> None:
    listed = [*PURE.split(), *IO.split(), *COMPOSITION.split()]
    assert len(listed) == len(set(listed)), "a module is listed twice"
    assert set(listed) - MODULES.keys() == set(), "these are listed and do not exist"
    assert MODULES.keys() - set(listed) == set(), "list these in PURE, IO or COMPOSITION"


def test_the_table_of_arrows_is_complete_and_points_one_way() -> None:
    assert {package_of(module) for module in MODULES} == set(MAY_IMPORT)
    above: set[str] = set()
    for package, others in MAY_IMPORT.items():
        assert set(others.split()) <= above, f"{package} is to import from what stands below it"
        above.add(package)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_arrow_points_upward(module: str) -> None:
    package = package_of(module)
    packages = {package_of(each) for each in own_imports(module)} - {package}
    assert packages <= set(MAY_IMPORT[package].split())


@pytest.mark.parametrize("module", sorted(PURE.split()))
def test_a_pure_module_imports_pure_modules_alone(module: str) -> None:
    shells = own_imports(module) - set(PURE.split())
    assert {(module, shell) for shell in shells} <= WRONG_TODAY


def test_what_is_wrong_today_still_is() -> None:
    """Whoever puts one right takes it off the list."""
    assert all(shell in own_imports(module) for module, shell in WRONG_TODAY)


@pytest.mark.parametrize("module", sorted(PURE.split()))
def test_a_pure_module_does_no_io(module: str) -> None:
    foreign = foreign_imports(module)
    for library in foreign & set(TOUCHES_THE_WORLD.split()):
        assert library in HARMLESS
        assert uses_of(module, library) <= HARMLESS[library]
    assert foreign - set(sys.stdlib_module_names) <= PURE_LIBRARIES


@pytest.mark.parametrize("module", sorted(PURE.split()))
def test_a_pure_module_asks_no_clock_and_opens_nothing(module: str) -> None:
    for node in ast.walk(tree_of(module)):
        assert not isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith) or module == "kernel.fake"
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute):
                assert called.attr not in ("now", "today", "utcnow"), f"line {node.lineno}"
            elif isinstance(called, ast.Name):
                assert called.id not in ("open", "print", "input", "breakpoint"), f"line {node.lineno}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_library_is_imported_where_it_belongs_and_nowhere_else(module: str) -> None:
    for library in foreign_imports(module) - set(sys.stdlib_module_names):
        assert library in THIRD_PARTY, f"{library} has no place yet"
        assert is_named(module, THIRD_PARTY[library]), f"{library} belongs in {THIRD_PARTY[library]}"


def test_the_tests_of_these_rules_see_what_they_look_for() -> None:
    assert "gatewayd.model.mask" in set(imported_names("compile.masks"))
    assert own_imports("kernel.tables_codec") >= {"kernel.attributes", "model.mask"}
    assert package_of("compile.masks") == "compile"
    assert foreign_imports("sources.fetch") >= {"aiohttp", "contextlib"}
    assert uses_of("errors", "os") == {"strerror"}
    assert is_named("cli.plan", "cli.*")
    assert not is_named("cli.plan", "cli.client kernel.*")
