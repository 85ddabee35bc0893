"""Local overrides: files, what they do to a registration, and the directory they are in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import OverridesInvalid
from gatewayd.model import Prefix, Registration, parse_prefix, parse_services
from gatewayd.model.registration import Changes, run_slices
from gatewayd.registry import overrides as overrides_module
from gatewayd.registry.overrides import (
    NO_OVERRIDES,
    OverrideCounts,
    OverrideLayer,
    Overrides,
    PrefixSet,
    ids_within_in_slices,
)
from gatewayd.sources import overrides_dir as dir_module
from gatewayd.sources.override_file import Filter, OverrideFile, Pin, parse_overrides
from gatewayd.sources.overrides_dir import OverridesDir, OverridesReading, read_overrides
from tests.support.changes import construct_changes
from tests.support.strategies import prefix_sets, prefixes, registrations

NOW = 1_700_000_000.0
DIGEST = "hmac-sha256:" + "ab" * 32


def parse(text: str) -> OverrideFile:
    return parse_overrides(text, "a.yaml", "a.yaml")


def faults_of(text: str) -> list[str]:
    with pytest.raises(OverridesInvalid) as error:
        parse(text)
    return list(error.value.faults)


# -- files -------------------------------------------------------------------------------------------------


def test_a_file_has_pins_and_filters() -> None:
    file = parse(
        """
pins:
  - {id: LOCAL-1, category: bank, clients: [203.0.113.0/28], services: [ipsec],
     comment: "agreed by phone 2024-11-03, ticket 4711", until: 2025-01-01T00:00:00Z}
  - id: LOCAL-2
    category: freelancer
    status: suspended
    subscriber: hmac-sha256:abababababababababababababababababababababababababababababababab
    peers: [198.51.100.7/32]
    valid_from: 2024-11-01T00:00:00Z
    valid_until: null
    comment: waits for papers
filters:
  - {id: PK-2024-000123, comment: "compromised", until: null}
  - {prefix: 198.51.100.0/24, comment: "hijacked"}
"""
    )
    assert file == OverrideFile(
        "a.yaml",
        (
            Pin(
                Registration(
                    "LOCAL-1",
                    "bank",
                    "active",
                    (parse_prefix("203.0.113.0/28"),),
                    services=parse_services(("ipsec",)),
                ),
                "agreed by phone 2024-11-03, ticket 4711",
                1735689600.0,
                3,
            ),
            Pin(
                Registration(
                    "LOCAL-2",
                    "freelancer",
                    "suspended",
                    (),
                    bytes.fromhex("ab" * 32),
                    (parse_prefix("198.51.100.7"),),
                    valid_from_s=1730419200.0,
                ),
                "waits for papers",
                inf,
                5,
            ),
        ),
        (
            Filter("PK-2024-000123", None, "compromised", inf, 14),
            Filter(None, parse_prefix("198.51.100.0/24"), "hijacked", inf, 15),
        ),
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "pins:\nfilters:\n", "pins: []\n", "{}\n"])
def test_a_file_may_say_nothing(text: str) -> None:
    assert parse(text) == OverrideFile("a.yaml")


def test_every_fault_of_a_file_is_told_in_one_go() -> None:
    assert faults_of(
        """pins:
  - {id: a b, category: Bank, clients: [203.0.113.1/28, x], services: [vpn], comment: ""}
  - {id: B, category: bank, clients: [203.0.113.0/28]}
  - {id: C, category: bank, comment: c, until: 2025-01-01}
  - {id: D, category: bank, comment: d}
  - {id: D, category: bank, clients: [203.0.113.0/28], comment: d, valid_from: 2025-01-01T00:00:00Z,
     valid_until: 2024-01-01T00:00:00Z, phone: "+923001234567"}
  - {id: E, category: bank, clients: [203.0.113.0/28], comment: e, valid_from: 2025-01-01T00:00:00Z,
     valid_until: 2024-01-01T00:00:00Z}
filters:
  - {comment: f}
  - {id: F, prefix: 198.51.100.0/24, comment: f}
  - {prefix: 198.51.100.1/24, comment: f}
  - F
filter: []
"""
    ) == [
        "a.yaml:2:10: pins[0].id: 'a b' is refused (bad_id): must be 1 to 64 of A-Z a-z 0-9 . _ : -, "
        "expected 1 to 64 of A-Z a-z 0-9 . _ : -",
        "a.yaml:2:25: pins[0].category: 'Bank' is refused (bad_category): must be a lower-case word of at "
        "most 32 characters, expected a lower-case word such as bank",
        "a.yaml:2:41: pins[0].clients[0]: '203.0.113.1/28' is refused (prefix_host_bits): host bits are set; "
        "meant 203.0.113.0/28?, expected a prefix such as 203.0.113.0/28",
        "a.yaml:2:57: pins[0].clients[1]: this value is refused (prefix_syntax): a prefix: not an IPv4 or "
        "IPv6 address, expected a prefix such as 203.0.113.0/28",
        "a.yaml:2:72: pins[0].services[0]: 'vpn' is refused (bad_service): unknown protocol or bundle; known: "
        "tcp, udp, gre, esp, ah, ipip, ipv6, sctp, udplite, l2tpv3, ipsec, wireguard, openvpn, pptp, l2tp, "
        "expected a service such as ipsec or udp/51820",
        "a.yaml:2:87: pins[0].comment: '' says nothing, expected why it is here, who agreed, when",
        "a.yaml:3:5: pins[1].comment: is missing, expected why it is here, who agreed, when",
        "a.yaml:4:48: pins[2].until: '2025-01-01' is not a date and time, expected a time with its offset such "
        "as 2025-01-01T00:00:00Z, or null",
        "a.yaml:5:5: pins[3]: is refused (no_client_or_subscriber): needs `clients`, `subscriber` or both",
        "a.yaml:6:5: pins[4]: id 'D' is given twice, expected it once (first at line 5)",
        "a.yaml:7:41: pins[4].phone: unknown key, expected one of id, category, status, clients, subscriber, "
        "peers, services, valid_from, valid_until, comment, until",
        "a.yaml:9:19: pins[5].valid_until: is refused (window_empty): must be after `valid_from`",
        "a.yaml:11:5: filters[0]: has neither id nor prefix, expected one of them",
        "a.yaml:12:5: filters[1]: has both id and prefix, expected one of them",
        "a.yaml:13:14: filters[2].prefix: '198.51.100.1/24' is not a prefix: host bits are set; meant "
        "198.51.100.0/24?, expected a prefix such as 203.0.113.0/28",
        "a.yaml:14:5: filters[3]: is a single value, expected a mapping of id, prefix, comment, until",
        "a.yaml:15:1: filter: unknown key, expected filters",
    ]


def test_a_text_that_is_no_yaml_is_a_fault() -> None:
    (fault,) = faults_of("pins: [\n")
    assert fault.startswith("a.yaml:2:1: (file): is not valid YAML")


def test_a_comment_has_an_end() -> None:
    (fault,) = faults_of(f"filters: [{{id: a, comment: {'x' * 1001}}}]\n")
    assert "is longer than 1000 characters" in fault


@pytest.mark.parametrize(
    "pin",
    [
        "{id: a, category: bank, comment: c, subscriber: '+923001234567'}",
        "{id: a, category: bank, comment: c, clients: ['+923001234567']}",
        "{id: a, category: bank, comment: c, clients: [923001234567]}",
        "{id: a, category: bank, comment: c, clients: [203.0.113.0/28], peers: [923001234567]}",
    ],
)
def test_a_number_in_the_wrong_place_is_not_repeated(pin: str) -> None:
    (fault,) = faults_of(f"pins: [{pin}]\n")
    assert "3001234567" not in fault


# -- what they do ------------------------------------------------------------------------------------------


def registration(id: str = "a", *clients: str, subscriber: bytes | None = None) -> Registration:
    parsed = tuple(sorted(parse_prefix(text) for text in clients or ("203.0.113.0/28",)))
    return Registration(id, "bpo", "active", parsed, subscriber)


def pin(registration: Registration, until_s: float = inf) -> Pin:
    return Pin(registration, "agreed", until_s, 1)


def drop(what: str, until_s: float = inf) -> Filter:
    is_prefix = "/" in what
    return Filter(None if is_prefix else what, parse_prefix(what) if is_prefix else None, "bad", until_s, 1)


def overrides(*all: Pin | Filter, now: float = NOW) -> Overrides:
    return Overrides([file_of("a.yaml", *all)], now)


def file_of(name: str, *all: Pin | Filter) -> OverrideFile:
    return OverrideFile(
        name,
        tuple(each for each in all if isinstance(each, Pin)),
        tuple(each for each in all if isinstance(each, Filter)),
    )


def test_without_overrides_a_registration_is_what_it_is() -> None:
    one = registration()
    assert NO_OVERRIDES.apply_to(one) is one
    assert NO_OVERRIDES.in_force("a", one) is one
    assert NO_OVERRIDES.in_force("a", None) is None
    assert not NO_OVERRIDES


def test_a_filter_drops_a_registration_by_its_id() -> None:
    assert overrides(drop("a")).apply_to(registration("a")) is None
    one = registration("b")
    assert overrides(drop("a")).apply_to(one) is one


@pytest.mark.parametrize(
    ("filtered", "clients", "left"),
    [
        ("203.0.113.0/24", ["203.0.113.0/28"], None),
        ("203.0.113.0/28", ["203.0.113.0/28"], None),
        ("203.0.113.0/24", ["203.0.113.0/28", "198.51.100.0/28"], ["198.51.100.0/28"]),
        ("203.0.113.0/29", ["203.0.113.0/28"], ["203.0.113.0/28"]),
        ("203.0.113.16/28", ["203.0.113.0/28"], ["203.0.113.0/28"]),
        ("2001:db8::/32", ["2001:db8:1::/48", "203.0.113.0/28"], ["203.0.113.0/28"]),
        ("2001:db8::/32", ["203.0.113.0/28"], ["203.0.113.0/28"]),
    ],
)
def test_a_filter_drops_the_client_prefixes_that_lie_in_it(
    filtered: str, clients: list[str], left: list[str] | None
) -> None:
    expected = None if left is None else registration("a", *left)
    assert overrides(drop(filtered)).apply_to(registration("a", *clients)) == expected


def test_a_registration_with_a_subscriber_outlives_its_client_prefixes() -> None:
    one = registration(subscriber=bytes(32))
    left = overrides(drop("203.0.113.0/24")).apply_to(one)
    assert left == msgspec.structs.replace(one, clients=())


def test_a_pin_wins_over_the_registry_and_over_filters() -> None:
    mine = registration("a", "203.0.113.16/28")
    all = overrides(pin(mine), drop("a"), drop("203.0.113.0/24"))
    assert all.apply_to(registration("a")) is mine
    assert all.in_force("a", None) is mine
    assert [each.id or str(each.prefix) for each in all.filters_of(mine)] == ["a", "203.0.113.0/24"]
    assert all.filters_of(registration("b", "192.0.2.0/28")) == ()


def test_the_earlier_file_has_the_pin_while_it_lasts() -> None:
    early, late = registration("a", "192.0.2.0/28"), registration("a", "192.0.2.16/28")
    files = [file_of("1.yaml", pin(early, NOW + 10)), file_of("2.yaml", pin(late))]
    both = Overrides(files, NOW)
    assert both.in_force("a", None) is early
    assert (both.shadowed, both.expired, both.next_change()) == (1, 0, NOW + 10)
    after = Overrides(files, NOW + 10)
    assert after.in_force("a", None) is late
    assert (after.shadowed, after.expired, after.next_change()) == (0, 1, None)


def test_filters_end_on_time() -> None:
    all = [drop("a", NOW + 5), drop("203.0.113.0/24", NOW + 7)]
    assert overrides(*all).next_change() == NOW + 5
    later = overrides(*all, now=NOW + 5)
    assert later.apply_to(registration("a")) is None
    assert later.apply_to(registration("a", "192.0.2.0/28")) is not None
    assert not overrides(*all, now=NOW + 7)


@given(prefix_sets(maximum=4), prefixes())
def test_a_prefix_set_agrees_with_a_scan(some: tuple[Prefix, ...], asked: Prefix) -> None:
    covering = [each for each in some if each.length <= asked.length and each.covers(asked.packed)]
    expected = min(covering, key=lambda each: each.length, default=None)
    assert PrefixSet(some).cover_of(asked) == expected


# -- the layer ---------------------------------------------------------------------------------------------


class Layered:
    """A registry with overrides over it, and beside it what is in force by the changes given."""

    def __init__(self, *all: Registration) -> None:
        self.layer = OverrideLayer()
        self.registry: dict[str, Registration] = {}
        self.in_force: dict[str, Registration] = {}
        self.take({each.id: each for each in all})

    def take(self, new: dict[str, Registration]) -> Changes | None:
        changes = construct_changes(self.registry, new)
        self.registry = new
        return self.apply(run_slices(self.layer.amend_in_slices(changes)) if changes else None)

    def switch(self, new: Overrides) -> Changes | None:
        return self.apply(run_slices(self.layer.switch_in_slices(new, self.registry)))

    def apply(self, changes: Changes | None) -> Changes | None:
        if changes is not None:
            self.in_force.update({each.id: each for each in changes.upserts})
            for id in changes.withdrawals:
                self.in_force.pop(id, None)
        expected = {
            id: in_force
            for id in self.registry.keys() | self.layer.overrides.pins.keys()
            if (in_force := self.layer.overrides.in_force(id, self.registry.get(id))) is not None
        }
        assert self.in_force == expected
        return changes


def test_changes_of_the_registry_become_changes_of_what_is_in_force() -> None:
    layered = Layered(registration("a"), registration("b"))
    mine = registration("p", "192.0.2.0/28")
    assert layered.switch(overrides(pin(mine), drop("b"))) == Changes((mine,), ("b",))
    assert layered.take({"c": registration("c"), "b": registration("b", "192.0.2.0/28")}) == Changes(
        (registration("c"),), ("b", "a")
    )
    layered.take({"p": registration("p")})
    assert layered.in_force == {"p": mine}
    layered.take({})
    assert layered.in_force == {"p": mine}


def test_only_what_is_touched_is_looked_at_again() -> None:
    layered = Layered(registration("a"), registration("b", "192.0.2.0/28"), registration("c", "10.0.0.0/28"))
    old = overrides(drop("192.0.2.0/24"), drop("x"), pin(registration("p")), pin(registration("q")))
    new = overrides(drop("203.0.113.0/24"), drop("x", NOW + 1), pin(registration("p")), drop("y"))
    layered.switch(old)
    looked_at: list[str] = []

    class Watched(dict[str, Registration]):
        def get(self, id: str, default: object = None) -> Any:
            looked_at.append(id)
            return super().get(id, default)

    run_slices(layered.layer.switch_in_slices(new, Watched(layered.registry)))
    assert set(looked_at) == {"a", "b", "q", "y"}
    assert run_slices(ids_within_in_slices(layered.registry, [parse_prefix("192.0.2.0/24")])) == {"b"}


def test_overrides_are_counted() -> None:
    layered = Layered(
        registration("a"),
        registration("b", "203.0.113.0/28", "192.0.2.0/28"),
        registration("c", "192.0.2.0/28"),
        registration("same", "192.0.2.0/28"),
    )
    layered.switch(
        overrides(
            drop("203.0.113.0/24"),
            drop("p"),
            drop("old", NOW),
            pin(registration("p", "198.51.100.0/28")),
            pin(registration("c", "198.51.100.0/28")),
            pin(registration("same", "192.0.2.0/28")),
        )
    )
    assert layered.layer.counts() == OverrideCounts(
        pins=3, filters=2, filtered=1, trimmed=1, conflicts=2, shadowed=0, expired=1
    )
    assert layered.layer.filtered == {"a"}
    layered.switch(NO_OVERRIDES)
    assert layered.layer.counts() == OverrideCounts(0, 0, 0, 0, 0, 0, 0)


def test_a_registry_that_does_not_show_through_is_no_change() -> None:
    layered = Layered()
    mine = registration("p")
    layered.switch(overrides(pin(mine)))
    layered.take({"p": registration("p", "192.0.2.0/28")})
    assert layered.take({}) is None
    assert layered.switch(overrides(pin(mine), drop("z"))) is None


def test_long_work_yields_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overrides_module, "SLICE", 1)
    all = {id: registration(id) for id in "abc"}
    layer = OverrideLayer()
    assert len(list(layer.switch_in_slices(overrides(drop("203.0.113.0/24")), all))) == 6
    assert len(list(layer.amend_in_slices(Changes(tuple(all.values()), ("x", "y"))))) == 5


ids = st.sampled_from("abcde")
pins = st.builds(pin, registrations(ids), st.just(inf) | st.sampled_from([NOW - 1, NOW + 1]))
filters = st.builds(
    lambda what, until_s: Filter(
        what if isinstance(what, str) else None, what if isinstance(what, Prefix) else None, "c", until_s, 1
    ),
    ids | prefixes(),
    st.just(inf) | st.sampled_from([NOW - 1, NOW + 1]),
)
files = st.builds(
    lambda all_pins, all_filters: OverrideFile("a", tuple(all_pins), tuple(all_filters)),
    st.lists(pins, max_size=2, unique_by=lambda each: each.id),
    st.lists(filters, max_size=3),
)
registries = st.lists(registrations(ids), max_size=5, unique_by=lambda each: each.id).map(
    lambda all: {each.id: each for each in all}
)


@given(st.lists(registries, max_size=3), st.lists(st.lists(files, max_size=3), max_size=3))
def test_overrides_taken_away_again_leave_the_registry(
    readings: list[dict[str, Registration]], stages: list[list[OverrideFile]]
) -> None:
    layered = Layered()
    for number in range(max(len(readings), len(stages))):
        if number < len(readings):
            layered.take(readings[number])
        if number < len(stages):
            layered.switch(Overrides(stages[number], NOW))
    layered.switch(NO_OVERRIDES)
    assert layered.in_force == layered.registry
    assert layered.layer.counts() == OverrideCounts(0, 0, 0, 0, 0, 0, 0)


@given(st.lists(files, max_size=4), st.randoms(use_true_random=False), registries)
def test_the_order_of_files_matters_only_to_pins_of_the_same_id(
    some: list[OverrideFile], random: object, registry: dict[str, Registration]
) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = Overrides(some, NOW), Overrides(shuffled, NOW)
    assert one.pins.keys() == other.pins.keys()
    assert (one.shadowed, one.expired, one.next_change()) == (other.shadowed, other.expired, other.next_change())
    for id, each in registry.items():
        if id not in one.pins:
            assert one.in_force(id, each) == other.in_force(id, each)


# -- the directory -----------------------------------------------------------------------------------------

GOOD = "filters: [{id: a, comment: c}]\n"
OTHER = "filters: [{id: b, comment: c}]\n"


def ids_of(reading: OverridesReading) -> list[str | None]:
    return [each.id for file in reading.files for each in file.filters]


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def test_every_yaml_file_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    write(tmp_path / "2.yaml", GOOD)
    write(tmp_path / "1.yaml", OTHER)
    for name in ("3.yml", "4.yaml.bak", ".5.yaml"):
        write(tmp_path / name, "nonsense")
    reading = await OverridesDir(tmp_path).read()
    assert [file.name for file in reading.files] == ["1.yaml", "2.yaml"]
    assert ids_of(reading) == ["b", "a"]
    assert reading.faults == ()
    assert read_overrides(tmp_path) == reading


async def test_a_faulty_file_changes_nothing_that_was_in_force_from_it(tmp_path: Path) -> None:
    directory = OverridesDir(tmp_path)
    write(tmp_path / "1.yaml", GOOD)
    write(tmp_path / "2.yaml", OTHER)
    await directory.read()
    write(tmp_path / "1.yaml", "filters: [{id: zz}]\n")
    write(tmp_path / "2.yaml", "pins: x\n")
    write(tmp_path / "3.yaml", "filters: [{id: c, comment: c}]\n")
    reading = await directory.read()
    assert ids_of(reading) == ["a", "b", "c"]
    assert [fault.removeprefix(f"{tmp_path}/").split(":")[:3] for fault in reading.faults] == [
        ["1.yaml", "1", "11"],
        ["2.yaml", "1", "7"],
    ]
    assert await directory.read() == reading
    (tmp_path / "1.yaml").unlink()
    write(tmp_path / "2.yaml", GOOD + "# mended\n")
    reading = await directory.read()
    assert ids_of(reading) == ["a", "c"]
    assert reading.faults == ()


async def test_a_file_that_cannot_be_read_is_a_fault_of_it(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").symlink_to("nowhere")
    (tmp_path / "2.yaml").write_bytes(b"# \xff\n")
    write(tmp_path / "3.yaml", GOOD)
    reading = await OverridesDir(tmp_path).read()
    assert ids_of(reading) == ["a"]
    assert len(reading.faults) == 2


async def test_no_directory_is_no_override_and_one_that_vanishes_takes_nothing_with_it(tmp_path: Path) -> None:
    path = tmp_path / "local.d"
    directory = OverridesDir(path)
    assert await directory.read() == OverridesReading(())
    path.mkdir()
    write(path / "1.yaml", GOOD)
    assert ids_of(await directory.read()) == ["a"]
    path.rename(tmp_path / "elsewhere")
    reading = await directory.read()
    assert ids_of(reading) == ["a"]
    assert "cannot be read: No such file" in reading.faults[0]
    path.mkdir()
    assert await directory.read() == OverridesReading(())


async def test_what_is_no_directory_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path / "local.d", GOOD)
    reading = await OverridesDir(tmp_path / "local.d").read()
    assert (reading.files, len(reading.faults)) == ((), 1)


async def test_too_many_files_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dir_module, "MAX_FILES", 1)
    directory = OverridesDir(tmp_path)
    write(tmp_path / "2.yaml", GOOD)
    await directory.read()
    write(tmp_path / "1.yaml", OTHER)
    reading = await directory.read()
    assert ids_of(reading) == ["a"]
    assert "has 2 files, expected at most 1" in reading.faults[0]


@asynccontextmanager
async def watching(path: Path) -> AsyncGenerator[asyncio.Queue[OverridesReading], None]:
    delivered: asyncio.Queue[OverridesReading] = asyncio.Queue()
    task = asyncio.create_task(OverridesDir(path).watch(delivered.put, debounce_ms=10, recheck_s=0.1))
    try:
        yield delivered
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(delivered: asyncio.Queue[OverridesReading], ids: list[str]) -> OverridesReading:
    """Waits for a reading; states in between may be told too."""
    async with asyncio.timeout(20):
        while ids_of(reading := await delivered.get()) != ids:
            pass
    return reading


async def test_the_watch_tells_every_change(tmp_path: Path) -> None:
    path = tmp_path / "local.d"
    async with watching(path) as delivered:
        await until(delivered, [])
        path.mkdir()
        write(path / "1.yaml", GOOD)
        await until(delivered, ["a"])
        write(path / "new", OTHER)
        (path / "new").replace(path / "2.yaml")
        await until(delivered, ["a", "b"])
        (path / "1.yaml").unlink()
        await until(delivered, ["b"])
        path.rename(tmp_path / "old")
        while not (await until(delivered, ["b"])).faults:
            pass
        path.mkdir()
        write(path / "1.yaml", GOOD)
        await until(delivered, ["a"])


def test_the_example_file_is_read_without_a_fault() -> None:
    path = Path(__file__).parents[3] / "config" / "local.example.yaml"
    file = parse_overrides(path.read_text(), path.name, str(path))
    assert (len(file.pins), len(file.filters)) == (1, 2)
