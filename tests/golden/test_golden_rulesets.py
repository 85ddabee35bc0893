"""A configuration and registrations in, the exact sets and nft text out.

`cases/NAME/` has config.yaml, registrations.ndjson and expected.nft, and where subscribers have addresses
bindings.ndjson. The sets are made over netlink; they stand as comments above the text that `nft -f` gets. After a
change that is meant: `pytest tests/golden --update-golden`, then read the diff.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gatewayd.compile import DesiredSets, compile_ruleset, parse_tag
from gatewayd.compile.ruleset import key_type, policy_in_force, rehearsal_script
from gatewayd.errors import RulesetRefused
from gatewayd.feed.reading import NdjsonReader
from gatewayd.kernel.nft import check_script, find_nft
from gatewayd.kernel.tables import KernelTables
from gatewayd.lab.namespace import Namespace
from gatewayd.model import BoundRegistration, Prefix, parse_prefix
from gatewayd.model.mask import ANY_PEER, NOT_BOUND, Mask, describe_key, set_name
from gatewayd.model.transaction import AddElements, CreateSet, CreateTable, Ruleset, Transaction
from gatewayd.settings import load_settings
from tests.support.planes import fresh_namespace, run_nft

CASES = Path(__file__).parent / "cases"
NAMES = sorted(case.name for case in CASES.iterdir())
NOW = 1750000000.0
"""2025-06-15T15:06:40Z, whatever the clock says."""
EPOCH = 1
LEAST_CASES = 8
ELEMENT_TIMEOUT_S = 7200


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a case compiles to."""

    table: str
    sets: DesiredSets
    hooks: dict[Mask, str]
    ruleset: Ruleset

    def text(self) -> str:
        header = [f"# {line}\n" for line in self._describe_sets()]
        return "".join(header) + self.ruleset.text

    def _describe_sets(self) -> Iterator[str]:
        for mask in self.sets.masks():
            keys = self.sets.keys(mask)
            timeout = f", {ELEMENT_TIMEOUT_S} s" if mask.is_bound else ""
            yield f"set {self.hooks[mask]}: {key_type(mask)}{timeout}"
            yield from (f"  {describe_key(self.hooks[mask], key)}" for key in sorted(keys))
        yield from (f"not programmed: {id}: {reason}" for id, reason in sorted(self.sets.unprogrammed().items()))
        yield f"{len(self.hooks)} sets, {self.sets.count()} elements"

    def transaction(self) -> Transaction:
        create = [
            CreateSet(name, mask, 0, ELEMENT_TIMEOUT_S) if mask.is_bound else CreateSet(name, mask, 1024)
            for mask, name in self.hooks.items()
        ]
        add = [AddElements(name, sorted(self.sets.keys(mask))) for mask, name in self.hooks.items()]
        return Transaction((CreateTable(), *create, *add), "golden")


def compile_case(name: str) -> Compiled:
    case = CASES / name
    settings = load_settings((case / "config.yaml").read_text(), f"{name}/config.yaml")
    reader = NdjsonReader(name)
    reader.feed((case / "registrations.ndjson").read_bytes())
    reader.finish()
    assert reader.rejections == []
    places = read_bindings(case / "bindings.ndjson")
    sets = DesiredSets()
    for registration in reader.registrations.values():
        if registration.is_effective(NOW):
            sets.add(registration)
            for prefix, ports in places.get(registration.subscriber, ()):
                sets.add(BoundRegistration(registration, prefix, ports))
    hooks = {mask: set_name(mask, 0) for mask in sets.masks()}
    table = settings.kernel.table
    return Compiled(table, sets, hooks, compile_ruleset(table, policy_in_force(settings, NOW), hooks, EPOCH))


Place = tuple[Prefix, tuple[int, int] | None]


def read_bindings(path: Path) -> dict[bytes | None, list[Place]]:
    """By subscriber: where it is. None of all where there is no such file."""
    places: dict[bytes | None, list[Place]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        held = json.loads(line)
        subscriber = bytes.fromhex(held["subscriber"].removeprefix("hmac-sha256:"))
        ports = tuple(held["ports"]) if "ports" in held else None
        places.setdefault(subscriber, []).append((parse_prefix(held["prefix"]), ports))
    return places


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_and_registrations_become_this_very_text(name: str, is_update: bool) -> None:
    expected = CASES / name / "expected.nft"
    text = compile_case(name).text()
    if is_update:
        expected.write_text(text)
    assert text == expected.read_text()


def test_the_cases_are_enough_and_differ() -> None:
    texts = {compile_case(name).ruleset.text for name in NAMES}
    assert len(texts) == len(NAMES) >= LEAST_CASES


def test_every_kind_of_mask_is_among_the_cases() -> None:
    masks = [mask for name in NAMES for mask in compile_case(name).hooks]
    kinds = Counter(
        (mask.family, mask.peer_length != ANY_PEER, "port<16" if 0 < mask.port_length < 16 else mask.selector)
        for mask in masks
    )
    selectors = ("", "proto", "port16", "port<16", "ipsec", "wireguard", "openvpn", "pptp", "l2tp")
    wanted = {(family, peers, each) for family in (4, 6) for peers in (False, True) for each in selectors}
    assert wanted <= kinds.keys()


def test_every_kind_of_mask_of_bindings_is_among_the_cases() -> None:
    masks = [mask for name in NAMES for mask in compile_case(name).hooks]
    kinds = {(mask.family, mask.source_bits, mask.selector) for mask in masks if mask.is_bound}
    assert {(4, 0, ""), (6, 0, ""), (4, 8, ""), (4, 0, "proto"), (4, 0, "port16"), (6, 0, "port16")} <= kinds
    assert {(4, 16, "proto"), (4, 4, "port16"), (4, 16, "port16"), (4, 4, "proto")} <= kinds
    for bundle in ("ipsec", "wireguard", "openvpn", "pptp", "l2tp"):
        assert {(4, 0, bundle), (6, 0, bundle), (4, 8, bundle)} <= kinds
    assert any(mask.is_bound and mask.peer_length != ANY_PEER and mask.source_bits == 8 for mask in masks)
    assert any(mask.source_bits == NOT_BOUND for mask in masks)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with fresh_namespace() as made, made.entered():
        yield made


@asynccontextmanager
async def opened(table: str) -> AsyncIterator[KernelTables]:
    tables = KernelTables.open(table)
    try:
        yield tables
    finally:
        tables.close()


async def hold_in_kernel(tables: KernelTables, wanted: Compiled) -> None:
    """The kernel has the sets with their elements, and says the tag of the rules."""
    reading = await tables.read_table()
    assert reading.tag == parse_tag(wanted.ruleset.tag)
    counts = {found.name: found.count for found in reading.sets if found.regular}
    for mask, name in wanted.hooks.items():
        keys = {key async for piece in tables.read_elements(name) for key in piece}
        assert keys == wanted.sets.keys(mask)
        assert counts[name] in (len(keys), None)


@pytest.mark.kernel
@pytest.mark.parametrize("name", NAMES)
def test_this_kernel_takes_the_sets_and_this_nft_takes_the_text(namespace: Namespace, name: str) -> None:
    async def run() -> None:
        wanted = compile_case(name)
        async with opened(wanted.table) as tables:
            await tables.commit(wanted.transaction())
            await tables.replace_rules(wanted.ruleset)
            await hold_in_kernel(tables, wanted)

    asyncio.run(run())


@pytest.mark.kernel
@pytest.mark.parametrize("name", NAMES)
def test_this_nft_is_asked_of_the_text_and_the_kernel_keeps_nothing(namespace: Namespace, name: str) -> None:
    async def run() -> None:
        wanted = compile_case(name)
        text = wanted.ruleset.text
        async with opened(wanted.table) as tables:
            before = await tables.read_generation()
            await check_script(find_nft(), rehearsal_script(text, wanted.table, is_present=False))
            spoiled = text.replace("policy accept;", "policy maybe;")
            with pytest.raises(RulesetRefused, match="syntax error"):
                await check_script(find_nft(), rehearsal_script(spoiled, wanted.table, is_present=False))
            assert await tables.read_generation() == before
            assert not (await tables.read_table()).present
            await tables.commit(wanted.transaction())
            await tables.replace_rules(wanted.ruleset)
            before = await tables.read_generation()
            await check_script(find_nft(), rehearsal_script(text, wanted.table, is_present=True))
            assert await tables.read_generation() == before
            await hold_in_kernel(tables, wanted)

    asyncio.run(run())


@pytest.mark.kernel
def test_any_ruleset_replaces_any_other_and_a_return_to_the_first_is_the_first(namespace: Namespace) -> None:
    """Every ordered pair of the cases stands in the sequence; all are for the table of the first."""

    async def run() -> None:
        cases = [compile_case(name) for name in NAMES]
        cases = [case for case in cases if case.table == cases[0].table]
        assert len(cases) >= LEAST_CASES
        async with opened(cases[0].table) as tables:
            known: set[str] = set()
            for case in cases:
                operations = [
                    each
                    for each in case.transaction().operations
                    if not isinstance(each, CreateSet) or each.name not in known
                ]
                known.update(case.hooks.values())
                await tables.commit(Transaction(tuple(operations), "golden"))
            seen: dict[str, str] = {}
            for step in range(1, len(cases)):
                for start in range(len(cases)):
                    case = cases[(start * step + step) % len(cases)]
                    await tables.replace_rules(case.ruleset)
                    reading = await tables.read_table()
                    assert reading.tag == parse_tag(case.ruleset.tag)
                    assert seen.setdefault(case.ruleset.tag, reading.rules) == reading.rules
            assert len(set(seen.values())) == len(cases)

    asyncio.run(run())


SOMEBODYS = """
table inet firewall {
    set servers { type ipv4_addr; elements = { 192.0.2.1 }; }
    counter dropped { }
    chain filtering {
        type filter hook forward priority 0
        ip daddr @servers counter name dropped drop
    }
}
"""


@pytest.mark.kernel
def test_other_tables_of_the_host_are_neither_read_nor_written(namespace: Namespace) -> None:
    async def run() -> None:
        wanted = compile_case(NAMES[0])
        async with opened(wanted.table) as tables:
            await tables.commit(wanted.transaction())
            await tables.replace_rules(wanted.ruleset)
            alone = await tables.read_table()
            counters = await tables.read_counters()
            run_nft(namespace, SOMEBODYS)
            before = namespace.run(["nft", "list", "table", "inet", "firewall"]).stdout
            beside = await tables.read_table()
            assert (beside.sets, beside.rules, beside.tag) == (alone.sets, alone.rules, alone.tag)
            assert await tables.read_counters() == counters
            await tables.replace_rules(wanted.ruleset)
            assert namespace.run(["nft", "list", "table", "inet", "firewall"]).stdout == before

    asyncio.run(run())
