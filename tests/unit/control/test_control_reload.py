"""A reload has the effect that a restart with the same file would have, key by key; or it is refused, by name.

Each key of the schema stands in CHANGED. What the daemon does is observed of three rigs: the former file, the
former file and then a reload of the new one, the new file from the start on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatewayd.control import controller as controller_module
from gatewayd.control import reload as reload_module
from gatewayd.control.controller import Controller
from gatewayd.control.reload import LocalFiles, Reloaded, Reloader, ReloadOutcome, SourceTasks
from gatewayd.control.report_queries import ReportQueries
from gatewayd.control.trip_evidence import TripEvidence
from gatewayd.kernel.fake import FakeTables
from gatewayd.log import setup_logging
from gatewayd.model.prefix import parse_prefix
from gatewayd.settings import RegistrySettings, Settings, SourceSettings, read_settings
from gatewayd.settings.model import SETTINGS
from gatewayd.settings.readers import ListOf, OrNull, Reader
from gatewayd.settings.schema import section_in
from gatewayd.sources.files import read_overrides
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.runner import Tools
from gatewayd.sources.update import SourceUpdate
from gatewayd.subscribers.service import SubscriberService
from gatewayd.systemd import Notifier
from tests.support.fake_conntrack import FakeConntrack
from tests.support.manual_clock import START_S, Time, until
from tests.support.owning import Owning, flow, registration

DAY_S = 86400.0
BASE: dict[str, Any] = {
    "registry": {
        "sources": [
            {"name": "lab", "url": "file:DIR/lab", "allow_unsigned": True},
            {"name": "far", "url": "https://r.example/notification.jws", "keys": ["DIR/one.pub"]},
        ],
        "local": "DIR/local",
        "shrink_guard": {"min_removed": 20},
    },
    "policy": {"mode": "limit", "canary": "50%", "interfaces": {"inside": ["in0"]}},
    "subscribers": {
        "pepper_file": "DIR/pepper",
        "nas": [{"name": "bng-1", "profile": {"missed_interims": 9}}],
        "radius": {"clients": [{"address": "10.0.0.0/24", "secret_file": "DIR/secret"}]},
    },
    "state_dir": "DIR/state",
    "log": {"format": "json"},
}
PROFILE = {
    "interim": "snapshot", "identity": "user-name", "country_code": "92", "nat_side": "outside",
    "session_ids": "digest", "interim_interval": "5m", "missed_interims": 7, "min_session_timeout": "20m",
    "session_timeout": "2d", "restart_grace": "5m", "single_session": True,
}  # fmt: skip
RECORDS = [registration(f"R-{n}", f"39.32.{n}.1/32") for n in range(200)]
CHANGED: dict[str, Any] = {
    "registry.sources.0.name": "office",
    "registry.sources.0.url": "file:DIR/other",
    "registry.sources.1.keys": ["DIR/two.pub"],
    "registry.sources.1.allow_unsigned": True,
    "registry.sources.0.allow_empty": True,
    "registry.sources.0.allow_endpoints": True,
    "registry.sources.0.format": "csv",
    "registry.sources.0.max_bytes": "1MiB",
    "registry.sources.1.proxy": "http://proxy.example:3128",
    "registry.sources.1.ca_file": "DIR/ca.pem",
    "registry.refresh": "5m",
    "registry.retry": "20s",
    "registry.expire": "1d",
    "registry.local": "DIR/local2",
    "registry.max_elements": 100_000,
    "registry.max_added_endpoints": 3,
    "registry.shrink_guard.max_removed": "40%",
    "registry.shrink_guard.min_removed": "60",
    "registry.shrink_guard.protected": {"bpo": 0},
    "registry.on_stale": "observe",
    "policy.mode": "reject",
    "policy.enforce_from": "2030-01-01T00:00:00Z",
    "policy.enforce_until": "2020-01-01T00:00:00Z",
    "policy.trip.late_admissions": 600,
    "policy.trip.near_misses": 30,
    "policy.trip.failing_assertions": 3,
    "policy.trip.unprogrammed": 10,
    "policy.canary": "10%",
    "policy.drain": "5m",
    "policy.scope": ["wireguard"],
    "policy.interfaces.inside": ["in1"],
    "policy.interfaces.outside": ["out0"],
    "policy.on_registered.dscp": "ef",
    "policy.on_registered.mark": 7,
    "policy.on_unregistered.dscp": "cs1",
    "policy.on_unregistered.mark": 9,
    "policy.on_unregistered.limit": "1mbit/s",
    "subscribers.pepper_file": "DIR/pepper2",
    "subscribers.sessions_file": "DIR/sessions.csv",
    "subscribers.max_sessions": 5000,
    "subscribers.element_timeout": "1h",
    **{f"subscribers.profile.{name}": value for name, value in PROFILE.items()},
    "subscribers.nas.0.name": "bng-2",
    "subscribers.nas.0.profile": PROFILE,
    "subscribers.radius.clients.0.address": "10.1.0.0/24",
    "subscribers.radius.clients.0.secret_file": "DIR/secret2",
    "subscribers.radius.clients.0.require_message_authenticator": True,
    "subscribers.radius.clients.0.response_message_authenticator": True,
    "subscribers.radius.clients.0.proxy": True,
    "subscribers.radius.clients.0.require_event_timestamp": True,
    "subscribers.radius.clients.0.nas": ["bng-1"],
    "subscribers.radius.clients.0.addresses": ["10.0.0.0/8"],
    "subscribers.radius.clients.0.profile": PROFILE,
    "subscribers.radius.listen": ["127.0.0.1:1899"],
    "kernel.table": "other",
    "kernel.priority": -20,
    "kernel.ct_mark_mask": "0x0f000000",
    "kernel.verify_every": "1m",
    "kernel.nflog_group": 7,
    "kernel.nflog_rate": 50,
    "kernel.near_miss_group": 8,
    "kernel.near_miss_rate": 60,
    "watch.shadow_limit": True,
    "watch.unregistered": "off",
    "http.listen": "127.0.0.1:9999",
    "http.socket": "DIR/other.sock",
    "http.names": ["gw.example"],
    "state_dir": "DIR/state2",
    "isp.prefixes": ["203.0.113.0/24"],
    "isp.pools": ["100.64.0.0/10"],
    "log.level": "debug",
    "log.format": "console",
}
IN_OBSERVE = {"watch.shadow_limit"}
"""Keys that have an effect in this mode alone."""


def keys_in(reader: Reader, path: str, restart: bool = False) -> Iterator[tuple[str, bool]]:
    """Each key of the schema with its path in the document, the first of a list; whether it needs a restart."""
    inner = reader.reader if isinstance(reader, OrNull) else reader
    section = section_in(inner.item if isinstance(inner, ListOf) else inner)
    if section is None or path.endswith((".nas.*.profile", ".clients.*.profile")):
        yield path, restart
        return
    for name, key in section.keys.items():
        place = f"{path}.*" if isinstance(inner, ListOf) else path
        yield from keys_in(key.reader, f"{place}.{name}".lstrip("."), key.restart)


KEYS = dict(keys_in(SETTINGS, ""))


async def verified(controller: Controller) -> tuple[str, ...]:
    """What a list that the ISP signs does not say, and its verdicts."""
    page = await ReportQueries(controller, None, clock=lambda: START_S).verify(0.0, 0, 100)
    return (*page.notes, *(f"{each.ours} {each.pools}" for each in page.items))


def schema_key(path: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in path.split("."))


def test_every_key_of_the_schema_is_tried() -> None:
    assert {schema_key(path) for path in CHANGED} == KEYS.keys()


# -- the rig -----------------------------------------------------------------------------------------------------


def with_change(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed = deepcopy(document)
    *parents, last = path.split(".")
    place: Any = changed
    for part in parents:
        place = place[int(part)] if part.isdigit() else place.setdefault(part, {})
    place[last] = value
    return changed


def write(directory: Path, document: dict[str, Any]) -> Path:
    path = directory / "gatewayd.yaml"
    path.write_text(yaml.safe_dump(document).replace("DIR", str(directory)))
    return path


class StubRunner:
    """A runner that asks nobody. `made_with`: what it was made with."""

    def __init__(self, source: SourceSettings, registry: RegistrySettings) -> None:
        self.made_with = (source, registry.refresh_s, registry.retry_s)

    async def run(self) -> None:
        await asyncio.Event().wait()


class Rig:
    def __init__(self, it: Owning, sources: SourceTasks, reloader: Reloader, parts: Reloaded) -> None:
        self.it = it
        self.sources = sources
        self.reloader = reloader
        self.parts = parts

    async def observe(self) -> dict[str, Any]:
        """What the daemon does by its settings. It is another one afterwards."""
        it, controller = self.it, self.it.controller
        await it.in_sync()
        await until(lambda: it.reconciler.policy_in_force == controller.policy(it.clock()))
        thresholds = TripEvidence(controller, it.gate).thresholds()
        subscribers = self.parts.subscribers
        assert subscribers is not None
        assert subscribers.listener is not None
        later = it.clock() + 2 * DAY_S
        client = subscribers.listener._clients.find(parse_prefix("10.0.0.9/32").packed)
        other = subscribers.listener._clients.find(parse_prefix("10.1.0.9/32").packed)
        terms = [subscribers._terms_of(name) for name in ("bng-1", "bng-2", "another")]
        profiles = [subscribers.profiles.profile_by_name(name) for name in ("bng-1", "bng-2", "another")]
        gatewayd = logging.getLogger("gatewayd")
        ours = [each for each in logging.getLogger().handlers if hasattr(each.formatter, "_has_priority")]
        record = gatewayd.makeRecord("gatewayd", logging.INFO, "", 0, "event", (), None)
        seen: dict[str, Any] = {
            "rules": it.reconciler.policy_in_force,
            "in 2030": controller.policy(START_S + 10 * 365 * DAY_S).mode,
            "budget": controller.registry.budget.max_elements,
            "drain": it.core.requests.drain_s,
            "trip": dict(thresholds),
            "doors": controller.registry.settings.max_added_endpoints,
            "runners": [
                each.made_with for _, each in sorted(self.sources.runners.items()) if isinstance(each, StubRunner)
            ],
            "freshness": {name: each.word for name, each in controller.freshness(later).items()},
            "when stale": controller.policy(it.clock() + 60 * DAY_S).mode,
            "local": sorted(each.id for each in controller.allowlist if each.id.startswith("PIN")),
            "verify": it.reconciler._verifier._verify_every_s,
            "clients": (client, other),
            "ours, for registry verify": await verified(controller),
            "sessions": (terms, profiles, it.core.scanner.grace.longest_s),
            "log": (gatewayd.level, [each.format(record).startswith("{") for each in ours]),
        }
        it.watch.on_packets([flow("203.0.113.9")])
        seen["unregistered"] = [(each.prefix, each.flows) for each in it.controller.aggregate.top(5)]
        seen["held"] = [await self._held(removed) for removed in (10, 50, 110)]
        return seen

    async def _held(self, removed: int) -> int:
        """Of 200 registrations the first so many go: how many of these are held."""
        for rest in (RECORDS, RECORDS[removed:]):
            by_id = {each.id: each for each in rest}
            for name in self.it.controller.sources:
                await self.it.controller.deliver(SourceUpdate(name, self.it.clock(), registrations=by_id))
        held = sum(each.count for each in self.it.controller.holds())
        for each in self.it.controller.holds():
            await self.it.controller.accept(each.serial)
        return held


@asynccontextmanager
async def running(time: Time, directory: Path, document: dict[str, Any]) -> AsyncIterator[Rig]:
    path = write(directory, document)
    settings = read_settings(path)
    it = Owning(time.clock, settings, FakeTables(), FakeConntrack())
    setup_logging(settings.log.level, settings.log.format)
    assert settings.subscribers is not None
    service = SubscriberService(
        settings.subscribers, directory, it.controller.allowlist, it.programmer,
        clock=time.clock, monotonic=time.clock.monotonic,
    )  # fmt: skip
    store = LastGood(directory / "state", clock=time.clock, monotonic=time.clock.monotonic)
    sources, local, notifier = SourceTasks(Tools()), LocalFiles(it.gate), Notifier({})
    await local.use(await local.open(settings.registry.local))
    parts = Reloaded(it.controller, sources, local, store, it.host_time, service, it.gate, it.trials)
    notes: list[str | None] = []
    reloader = Reloader(settings, path, parts, notifier, notes.append)
    async with asyncio.TaskGroup() as group:
        works = (it.reconciler.run(), it.scanner.run(), it.controller.keep_time(), it.trials.run())
        tasks = [group.create_task(work) for work in (*works, reloader.run(group))]
        sources.use(settings.registry, it.controller, group)
        local.watch(group)
        reloader.begin()
        for name in it.controller.sources:
            await it.read(name, *RECORDS)
        yield Rig(it, sources, reloader, parts)
        for task in tasks:
            task.cancel()
        sources.cancel()
        local.cancel()
    await service.journal.close()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    def make_runner(source: SourceSettings, registry: RegistrySettings, *_: object) -> StubRunner:
        return StubRunner(source, registry)

    async def in_this_thread(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(reload_module, "make_runner", make_runner)
    # Time passes while a thread is waited for: here nothing is.
    monkeypatch.setattr(asyncio, "to_thread", in_this_thread)
    with Time() as made:
        yield made
    setup_logging()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, text in (
        ("pepper", "a pepper that is long enough for the tests of it\n"),
        ("pepper2", "another pepper that is long enough for the tests\n"),
        ("secret", "one secret of RADIUS\n"), ("secret2", "another secret of RADIUS\n"),
        ("sessions.csv", ""),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    for name in ("local", "local2", "state"):
        (tmp_path / name).mkdir()
    pin = {"id": "PIN-2", "category": "bpo", "status": "active", "clients": ["192.0.2.0/29"]}
    (tmp_path / "local2" / "pins.yaml").write_text(yaml.safe_dump({"pins": [{**pin, "comment": "a test"}]}))
    return tmp_path


async def reload(rig: Rig, directory: Path, document: dict[str, Any], by: str = "SIGHUP") -> ReloadOutcome:
    write(directory, document)
    outcome = await rig.reloader.ask(by)
    for name in rig.it.controller.unread_sources():
        await rig.it.read(name, *RECORDS)
    return outcome


@pytest.mark.parametrize("path", [path for path in CHANGED if not KEYS[schema_key(path)]])
def test_a_key_that_can_be_reloaded_has_its_effect(time: Time, directory: Path, path: str) -> None:
    base = with_change(BASE, "policy.mode", "observe") if path in IN_OBSERVE else BASE
    new = with_change(base, path, CHANGED[path])

    async def scenario() -> None:
        async with running(time, directory, base) as rig:
            before = await rig.observe()
        async with running(time, directory, base) as rig:
            outcome = await reload(rig, directory, new)
            assert outcome == ReloadOutcome(is_done=True)
            reloaded = await rig.observe()
        async with running(time, directory, new) as rig:
            restarted = await rig.observe()
        assert reloaded == restarted
        assert reloaded != before

    time.run(scenario())


@pytest.mark.parametrize("path", [path for path in CHANGED if KEYS[schema_key(path)]])
def test_a_key_that_needs_a_restart_is_named_and_changes_nothing(time: Time, directory: Path, path: str) -> None:
    async def scenario() -> None:
        async with running(time, directory, BASE) as rig:
            before: Settings = rig.it.controller.settings
            changed = with_change(with_change(BASE, "policy.canary", "1%"), path, CHANGED[path])
            assert await reload(rig, directory, changed) == ReloadOutcome(is_done=False, needs_restart=(path,))
            assert rig.it.controller.settings is before

    time.run(scenario())


# -- what is refused -----------------------------------------------------------------------------------------------


def test_a_fault_changes_nothing_and_is_answered_with_its_place(time: Time, directory: Path) -> None:
    async def scenario() -> None:
        async with running(time, directory, BASE) as rig:
            before = rig.it.controller.settings
            (directory / "local2" / "pins.yaml").write_text("pins: 7\n")
            changes: list[tuple[str, object, str]] = [
                ("policy.mode", "refuse", "policy.mode"), ("registry.local", "DIR/local2", "pins.yaml"),
            ]  # fmt: skip
            for path, value, place in changes:
                outcome = await reload(rig, directory, with_change(BASE, path, value))
                assert not outcome.is_done
                assert place in outcome.faults[0]
                assert outcome.error == outcome.faults[0]
                assert rig.it.controller.settings is before

    time.run(scenario())


def test_local_files_go_and_come_with_their_key(time: Time, directory: Path) -> None:
    async def scenario() -> None:
        def pins() -> list[str]:
            return [each.id for each in rig.it.controller.allowlist if each.id.startswith("PIN")]

        unguarded = with_change(BASE, "registry.shrink_guard", {"protected": {}})
        async with running(time, directory, with_change(unguarded, "registry.local", "DIR/local2")) as rig:
            await until(lambda: pins() == ["PIN-2"])
            assert (await reload(rig, directory, with_change(unguarded, "registry.local", None))).is_done
            assert pins() == []
            assert (await reload(rig, directory, with_change(unguarded, "registry.local", "DIR/local2"))).is_done
            assert pins() == ["PIN-2"]

    time.run(scenario())


ASSERTED = """
must_pass:
  - {name: hbl, source: 39.32.0.1, destination: 198.51.100.7, service: ipsec, comment: "HBL"}
"""


def test_a_reload_that_breaks_an_assertion_changes_nothing_unless_it_is_forced(time: Time, directory: Path) -> None:
    (directory / "local" / "asserted.yaml").write_text(ASSERTED)
    observing = with_change(BASE, "policy.mode", "observe")
    new = with_change(BASE, "policy.mode", "reject")

    async def scenario() -> None:
        async with running(time, directory, observing) as rig:
            before = rig.it.controller.settings
            outcome = await reload(rig, directory, new)
            assert not outcome.is_done
            assert outcome.broken[0].startswith("must_pass hbl (asserted.yaml:3): udp/500: ")
            assert str(outcome.error).startswith("it would break an assertion: must_pass hbl")
            assert rig.it.controller.settings is before
            assert await rig.reloader.ask("uid 0", True) == ReloadOutcome(is_done=True)
            assert rig.it.controller.settings.policy.mode == "reject"
            assert (rig.it.gate.refused, rig.it.gate.forced) == (1, 1)
            # It was cut before: nothing is broken that was whole.
            assert await reload(rig, directory, new) == ReloadOutcome(is_done=True)

    time.run(scenario())


def test_local_files_that_wait_are_tried_again_by_a_reload(time: Time, directory: Path) -> None:
    (directory / "local" / "asserted.yaml").write_text(ASSERTED)
    pin = {"id": "PIN", "category": "bpo", "clients": ["39.32.0.0/24"], "comment": "a test"}
    pins = directory / "local" / "pins.yaml"
    pins.write_text(yaml.safe_dump({"pins": [pin]}))

    async def scenario() -> None:
        async with running(time, directory, BASE) as rig:
            gate = rig.it.gate
            await gate.deliver(read_overrides(directory / "local"))
            pins.write_text("pins: []\n")
            await gate.deliver(read_overrides(directory / "local"))
            assert "PIN" in rig.it.controller.allowlist
            outcome = await reload(rig, directory, BASE)
            assert outcome.is_done
            assert len(outcome.broken) == 1
            assert "PIN" in rig.it.controller.allowlist
            assert await rig.reloader.ask("uid 0", True) == ReloadOutcome(is_done=True)
            assert "PIN" not in rig.it.controller.allowlist

    time.run(scenario())


@pytest.mark.parametrize("turns", [1, 2, 5, 10, 20, 40])
def test_a_reload_ends_no_reading_on_its_way_into_force(
    time: Time, directory: Path, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """The registry had it, and the allowlist only a part: the next reading brought nothing new."""
    reading = {
        each.id: each for each in (*RECORDS, *(registration(f"N-{n}", f"10.0.{n}.1/32") for n in range(256)))
    }

    async def scenario() -> None:
        begin = asyncio.Event()

        async def ask(self: StubRunner) -> None:
            await begin.wait()
            source = self.made_with[0].name
            await rig.it.controller.deliver(SourceUpdate(source, time.clock(), registrations=reading))
            await asyncio.Event().wait()

        async def judge_long(by: str, *, is_forced: bool) -> tuple[()]:
            begin.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            return ()

        monkeypatch.setattr(controller_module, "SLICE", 10)
        monkeypatch.setattr(StubRunner, "run", ask)
        async with running(time, directory, BASE) as rig:
            monkeypatch.setattr(rig.it.gate, "try_again", judge_long)
            assert (await reload(rig, directory, with_change(BASE, "registry.refresh", "5m"))).is_done
            await until(lambda: all(map(rig.it.controller.allowlist.get, reading)))

    time.run(scenario())


def test_all_who_ask_at_once_are_answered_by_one_reload(
    time: Time, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with running(time, directory, BASE) as rig:
            write(directory, with_change(BASE, "policy.mode", "observe"))
            asked = [rig.reloader.ask(by) for by in ("SIGHUP", "uid 0", "SIGHUP", "uid 7")]
            outcomes = await asyncio.gather(*asked)
            assert outcomes == [ReloadOutcome(is_done=True)] * 4
            await until(lambda: rig.it.reconciler.mode_in_force == "observe")
            await until(lambda: policies(caplog)[-1]["mode"] == "observe")
            assert policies(caplog)[-1]["by"] == "SIGHUP, uid 0, uid 7"

    time.run(scenario())


# -- what the log says of the policy in force ----------------------------------------------------------------------


def policies(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(each)["fields"] for each in caplog.records if each.getMessage() == "policy.in_force"]


Change = Callable[[Owning], None]


def test_each_policy_that_comes_into_force_is_said_with_what_was_and_who_brought_it(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.support.owning import owning, settings_of

    caplog.set_level(logging.INFO, "gatewayd")

    async def scenario() -> None:
        settings = settings_of("national", mode="observe")
        settings = replace(settings, registry=replace(settings.registry, on_stale="observe", expire_s=300.0))
        async with owning(time.clock, settings) as it:
            await it.read("national", registration("BANK-1", "39.32.0.0/28"))
            await it.in_sync()

            async def said(mode: str, by: str) -> dict[str, Any]:
                await until(lambda: [(each["mode"], each["by"]) for each in policies(caplog)][-1:] == [(mode, by)])
                return policies(caplog)[-1]

            first = await said("observe", "start")
            assert first["was"] == "no rules of ours in the kernel"
            new = replace(it.controller.settings.policy, mode="reject", enforce_from=time.clock() + 100.0)
            it.controller.reload(replace(it.controller.settings, policy=new), "uid 0")
            await asyncio.sleep(100.0)
            armed = await said("reject", "schedule")
            assert armed["was"] == first["policy"]
            assert armed["policy"].startswith("reject, canary 100%, scope ")
            it.configure(drain_s=5.0)
            drained = await said("reject", "reload")
            assert (drained["was"], drained["policy"][-9:]) == (armed["policy"], "drain 5 s")
            await asyncio.sleep(400.0)
            await said("observe", "staleness")
            await it.read("national", registration("BANK-1", "39.32.0.0/28"))
            await said("reject", "staleness")
            it.configure(mode="observe")
            await said("observe", "reload")
            assert it.controller.policy_in_force is not None
            assert it.controller.policy_in_force.by == "reload"
            assert len(policies(caplog)) == 6

    time.run(scenario())
