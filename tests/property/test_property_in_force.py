"""Whatever happens to the registry in force, in any order: nobody protected loses anything that nobody accepted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatewayd.model import Registration, parse_prefix, parse_services
from gatewayd.model.registration import Changes, run_slices
from gatewayd.registry.guard_record import decode_record, encode_record
from gatewayd.registry.limits import is_loss
from gatewayd.registry.state import RegistryState
from gatewayd.settings import RegistrySettings, RemovalLimit, ShrinkGuardSettings, SourceSettings
from gatewayd.sources.last_good import Restored
from gatewayd.sources.override_file import OverrideFile, parse_overrides
from gatewayd.sources.update import FeedPosition, SourceUpdate
from tests.support.changes import construct_changes

NOW = 1_700_000_000.0
GUARD = ShrinkGuardSettings(RemovalLimit(fraction=0.05), 2)
PROTECTED = {"bank"}


def shape(category: str, *clients: str, services: tuple[str, ...] = (), **fields: Any) -> Registration:
    made = Registration(
        "x",
        category,
        "active",
        tuple(sorted(parse_prefix(text) for text in clients)),
        services=parse_services(services),
    )
    return msgspec.structs.replace(made, **fields)


SHAPES = [
    shape("bank", "203.0.113.0/24"),
    shape("bank", "203.0.113.0/28"),
    shape("bank", "203.0.113.0/24", services=("ipsec",)),
    shape("bank", "203.0.113.0/24", status="suspended"),
    shape("bpo", "203.0.113.0/24"),
    shape("bpo", "198.51.100.0/24"),
    shape("ngo", "203.0.113.64/26", valid_until_s=NOW + 500),
]
IDS = [f"r{number}" for number in range(8)]
NAMES = ("a", "b", "c")


def files(text: str) -> tuple[OverrideFile, ...]:
    return (parse_overrides(text, "desk.yaml", "desk.yaml"),)


OVERRIDES: list[tuple[OverrideFile, ...]] = [
    (),
    files('filters:\n  - {prefix: 203.0.113.0/25, comment: "x"}\n'),
    files('filters:\n  - {id: r0, comment: "x"}\n  - {id: r1, comment: "x"}\n'),
    files('pins:\n  - {id: r2, category: bank, clients: [192.0.2.0/28], services: [ipsec], comment: "x"}\n'),
]
NAMED = {"r0", "r1", "r2"}
"""Ids that some local file names: an operator's word."""

readings = st.dictionaries(st.sampled_from(IDS), st.integers(0, len(SHAPES) - 1), max_size=8)
sources = st.lists(st.sampled_from(NAMES), unique=True, min_size=1).map(tuple)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.sampled_from(NAMES), readings),
        st.tuples(st.just("delta"), st.sampled_from(NAMES), readings),
        st.tuples(st.just("sources"), sources),
        st.tuples(st.just("restart"), sources),
        st.tuples(st.just("crash"), sources),
        st.tuples(st.just("overrides"), st.integers(0, len(OVERRIDES) - 1)),
        st.tuples(st.just("accept")),
        st.tuples(st.just("wait"), st.integers(1, 400)),
    ),
    max_size=10,
)


class World:
    """A registry in force, its disk, and beside it what an allowlist would have: every change applied."""

    def __init__(self) -> None:
        self.now = NOW
        self.sources: tuple[str, ...] = ("a", "b")
        self.files: tuple[OverrideFile, ...] = ()
        self.disk: dict[str, dict[str, Registration]] = {}
        self.disk_before = self.disk
        self.record = b""
        self.serial = 0
        self.read_now: dict[str, dict[str, Registration]] = {}
        self.allowlist: dict[str, Registration] = {}
        self.is_up_to_date = False
        self.begin()

    def begin(self) -> None:
        settings = tuple(SourceSettings(name, f"file:/{name}") for name in self.sources)
        self.registry = RegistryState(RegistrySettings(settings, shrink_guard=GUARD))
        run_slices(self.registry.use_overrides(self.files, self.now))
        record = decode_record(self.record or None)
        known = {*self.sources, *(record.sources or ())}
        readings = {name: reading for name, reading in self.disk.items() if name in known}
        self.read_now = {name: reading for name, reading in readings.items() if name in self.sources}
        self.is_up_to_date = False
        found = {name: Restored(reading, FeedPosition("", 1)) for name, reading in readings.items()}
        self.apply(run_slices(self.registry.restore(record, found, self.now)))

    def apply(self, changes: Changes | None) -> None:
        if not self.registry.is_loaded:
            return
        if not self.is_up_to_date:
            self.allowlist = {}
        self.is_up_to_date = True
        self.change(changes)
        self.save()

    def change(self, changes: Changes | None) -> None:
        if changes is not None:
            self.allowlist.update({each.id: each for each in changes.upserts})
            for id in changes.withdrawals:
                self.allowlist.pop(id, None)

    def save(self) -> None:
        if self.registry.is_loaded:
            self.record = encode_record(self.registry.record())

    def step(self, kind: str, *what: Any) -> None:
        if kind in ("read", "delta") and what[0] in self.sources:
            self.read(what[0], what[1], is_delta=kind == "delta")
        elif kind == "sources":
            self.sources = what[0]
            self.read_now = {name: each for name, each in self.read_now.items() if name in self.sources}
            self.apply(run_slices(self.registry.use_sources(self.sources, self.now)))
        elif kind in ("restart", "crash"):
            if kind == "crash":
                self.disk = self.disk_before  # what is held was saved, the last reading was not
            self.sources = what[0]
            self.begin()
        elif kind == "overrides":
            self.files = OVERRIDES[what[0]]
            self.apply(run_slices(self.registry.use_overrides(self.files, self.now)))
        elif kind == "wait":
            self.now += what[0]
            if self.registry.next_end() <= self.now:
                self.change(run_slices(self.registry.end_windows(self.now)))
                self.save()

    def read(self, name: str, reading: Mapping[str, int], *, is_delta: bool) -> None:
        new = {id: msgspec.structs.replace(SHAPES[number], id=id) for id, number in reading.items()}
        self.serial += 1
        old = self.read_now.get(name)
        delta = (construct_changes(old, new) or Changes((), ())) if is_delta and old is not None else None
        self.read_now[name] = new
        where = FeedPosition("session", self.serial)
        update = SourceUpdate(name, self.now, registrations=new, changes=delta, position=where)
        self.apply(run_slices(self.registry.apply(update, self.now)))
        self.disk_before = self.disk
        if self.registry.is_loaded:
            self.disk = self.disk | {name: new for name, new in self.read_now.items()}

    def saved(self, *, is_crash: bool) -> list[Registration]:
        """What a new run can know of. What no disk has, the kernel has, and it is judged there."""
        held = self.registry.held()
        found = [each for versions in held.versions.values() for each in versions] if held is not None else []
        if not is_crash:
            return found + [each for reading in self.disk.values() for each in reading.values()]
        merged: dict[str, Registration] = {}
        for name in reversed(decode_record(self.record or None).sources or ()):
            merged |= self.disk_before.get(name, {})
        return found + list(merged.values())

    def registered(self) -> dict[str, Registration]:
        """All that is, the slow way; every source was read."""
        merged: dict[str, Registration] = {}
        for name in reversed(self.sources):
            merged |= self.read_now[name]
        overrides = self.registry.layer.overrides
        found = {id: overrides.in_force(id, merged.get(id)) for id in {*merged, *overrides.pins}}
        return {id: each for id, each in found.items() if each is not None}


def covered(old: Registration, allowlist: Mapping[str, Registration], now: float) -> bool:
    base = old.id.partition("#")[0]
    return any(
        not is_loss(old, other, now, PROTECTED) for id, other in allowlist.items() if id.partition("#")[0] == base
    )


@settings(max_examples=300)
@given(steps)
@example(
    [
        ("sources", ("a",)),
        ("read", "a", {"r0": 0, "r1": 0, "r2": 0, "r3": 1}),
        ("read", "a", {"r0": 0, "r1": 0, "r3": 0}),
        ("crash", ("a",)),
    ]
)
@example(
    [
        ("sources", ("c", "a")),
        ("read", "a", {"r0": 0, "r1": 0, "r2": 0, "r3": 0}),
        ("read", "c", {"r0": 0, "r1": 0, "r2": 0, "r3": 1}),
        ("sources", ("a", "b")),
        ("restart", ("c",)),
    ]
)
def test_nobody_protected_is_cut_and_never_more_than_half(steps: list[tuple[Any, ...]]) -> None:
    world = World()
    before: dict[str, Registration] = {}
    for kind, *what in steps:
        if world.is_up_to_date:
            before = dict(world.allowlist)
        if kind == "accept":
            held = world.registry.held()
            if held is not None:
                world.change(run_slices(world.registry.accept(held.serial, world.now)))
                world.save()
                before = dict(world.allowlist)
            continue
        if kind in ("crash", "restart"):
            saved = world.saved(is_crash=kind == "crash")
            before = {
                id: each
                for id, each in before.items()
                if any(covered(each, {other.id: other}, world.now) for other in saved)
            }
        world.step(kind, *what)
        if not world.is_up_to_date:
            continue
        lost = [each for each in before.values() if not covered(each, world.allowlist, world.now)]
        lost = [each for each in lost if is_loss(each, None, world.now)]
        unasked = [each for each in lost if each.id.partition("#")[0] not in NAMED]
        assert not [each for each in unasked if each.category == "bank"], (kind, what)
        active = [each for each in before.values() if each.status == "active"]
        assert len(unasked) <= max(1, len(active) // 2), (kind, what)
        if not world.registry.unread():
            wanted = world.registered()
            beside = world.registry.guard.in_force(wanted)
            assert world.allowlist == {**wanted, **beside}
            assert world.registry.merged.registrations.keys() == {
                id for name in world.sources for id in world.read_now[name]
            }
