"""The reconciler on a real kernel: tampered with by `nft`, grown under the rules, cut short at random.

First the reconciler by itself, the kernel's content being what is looked at; at the end the daemon in the lab's
gateway, where packets say what passes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gatewayd.compile.rule_sets import RULE_SETS
from gatewayd.demo.cast import BANK as DEMO_BANK
from gatewayd.demo.cast import SOFTWARE_HOUSE, STRANGER
from gatewayd.kernel import external
from gatewayd.kernel.tables import KernelTables
from gatewayd.lab.lab import Lab
from gatewayd.lab.namespace import Namespace
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.model import Flow
from gatewayd.model.mask import Mask, parse_set_name
from gatewayd.model.registration import Registration
from gatewayd.model.transaction import Ruleset, Transaction
from gatewayd.reconcile import Reconciler, loop, set_state, steps, verify
from tests.support.lab_daemon import LabDaemon, elements, generation, holds
from tests.support.planes import TABLE, fresh_namespace, kernel_tables, run_nft
from tests.support.reconciling import GUARD_S, hosts, oracle, policy, registered

pytestmark = pytest.mark.kernel

HOSTS = Mask(4, 32)
BANK = registered("bank", "203.0.113.0/28", "2001:db8:12::/48", services=["ipsec", "udp/51820"])
EMBASSY = registered("embassy", "198.51.100.0/24", peers=["192.0.2.0/24"], services=["openvpn", "udp/8000-9000"])


class Site:
    """A kernel, what is wanted of it, and a reconciler; every write is followed by `after_write`."""

    def __init__(self, namespace: Namespace, tables: KernelTables) -> None:
        self.namespace = namespace
        self.tables = tables
        self.wanted: list[Registration] = []
        self.policy = policy("reject")
        self.now = 1000.0
        self.stirred = asyncio.Event()
        self.writes = 0
        self.after_write: Callable[[], Any] | None = None
        self.task: asyncio.Task[None] | None = None
        self.reconciler = self._make()

    def _make(self) -> Reconciler:
        made = Reconciler(
            self, TABLE, clock=lambda: 5000.0, monotonic=lambda: self.now, on_in_sync=lambda _: self.stirred.set()
        )
        for registration in self.wanted:
            made.add(registration)
        return made

    def __getattr__(self, name: str) -> Any:
        """Reading is the kernel's."""
        return getattr(self.tables, name)

    async def commit(self, transaction: Transaction) -> None:
        await self.tables.commit(transaction)
        await self._wrote()

    async def replace_rules(self, ruleset: Ruleset) -> None:
        await self.tables.replace_rules(ruleset)
        await self._wrote()

    async def _wrote(self) -> None:
        self.writes += 1
        if self.after_write is not None:
            await self.after_write()

    def want(self, registrations: list[Registration], wanted_policy: Any = None) -> None:
        for registration in registrations:
            if registration not in self.wanted:
                self.reconciler.add(registration)
        for registration in self.wanted:
            if registration not in registrations:
                self.reconciler.remove(registration)
        self.wanted = registrations
        self.policy = wanted_policy or self.policy
        self.reconciler.want_policy(self.policy)

    async def contents(self) -> dict[str, set[bytes]]:
        return {
            item.name: {key async for piece in self.tables.read_elements(item.name) for key in piece}
            for item in (await self.tables.read_table()).sets
            if item.name not in RULE_SETS
        }

    async def is_in_sync(self) -> bool:
        if self.reconciler.unready() is not None or self.reconciler.tracker.count_surplus():
            return False
        if self.reconciler.tracker.retired or self.reconciler.tracker.rules.tag is None:
            return False
        found = await self.contents()
        parsed = {name: parse_set_name(name) for name in found}
        if None in parsed.values():
            return False
        by_mask = {each[0]: found[name] for name, each in parsed.items() if each is not None and found[name]}
        reading = await self.tables.read_table()
        return by_mask == oracle(self.wanted) and reading.rules == self.reconciler.tracker.rules.fingerprint != ""

    def start(self) -> None:
        self.reconciler.want_policy(self.policy)
        if self.task is None:
            self.task = asyncio.create_task(self.reconciler.run())

    async def settle(self) -> None:
        self.start()
        assert self.task is not None
        async with asyncio.timeout(GUARD_S):
            while not await self.is_in_sync():
                # Not every change is one of ours to be told of; the reconciler's own poll sets the pace.
                await self.tables.read_generation()
                assert not self.task.done(), self.task.result()

    async def abandon(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})
            self.task = None

    async def restart(self) -> None:
        await self.abandon()
        self.reconciler = self._make()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "GENERATION_POLL_S", 0.001)
    monkeypatch.setattr(loop, "FIRST_RETRY_S", 0.0)
    monkeypatch.setattr(loop, "MAX_RETRY_S", 0.0)
    monkeypatch.setattr(loop, "HURRIED_RETRY_S", 0.0)
    monkeypatch.setattr(verify, "COMPARE_AT_MOST_S", 0.0)
    monkeypatch.setattr(set_state, "MIN_CAPACITY", 4)
    monkeypatch.setattr(steps, "MAX_BYTES", 128)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with fresh_namespace() as made:
        yield made


@pytest_asyncio.fixture
async def site(namespace: Namespace, tmp_path: Path) -> AsyncIterator[Site]:
    with kernel_tables(namespace, tmp_path) as tables:
        made = Site(namespace, tables)
        yield made
        await made.abandon()


TAMPERINGS = {
    "flush ruleset": "flush ruleset",
    "delete table": f"delete table inet {TABLE}",
    "flush table": f"flush table inet {TABLE}",
    "empty table": f"delete table inet {TABLE}\nadd table inet {TABLE}",
    "delete element": f"delete element inet {TABLE} c4_32 {{ 10.0.0.3 }}",
    "swap element": f"delete element inet {TABLE} c4_32 {{ 10.0.0.3 }}\n"
    f"add element inet {TABLE} c4_32 {{ 192.0.2.77 }}",
    "delete set": f"flush table inet {TABLE}\ndelete set inet {TABLE} c4_32",
    "another ruleset": "flush ruleset\ntable inet filter {\n\tchain forward {\n"
    "\t\ttype filter hook forward priority 0; policy accept;\n\t}\n}",
    "our table by another name of the same": f"delete table inet {TABLE}\ntable inet {TABLE} {{\n"
    "\tset c4_32 { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 192.0.2.77 }; }\n}",
    "flush set": f"flush set inet {TABLE} c4_32",
    "add element": f"add element inet {TABLE} c4_32 {{ 192.0.2.77 }}",
    "add rule": f"add rule inet {TABLE} forward drop",
    "insert rule": f"insert rule inet {TABLE} look_up accept",
    "add chain": f"add chain inet {TABLE} guests {{ type filter hook input priority 0; policy drop; }}",
    "delete chain": "".join(f"flush chain inet {TABLE} {name}\n" for name in ("unregistered", "missed", "forward"))
    + f"delete chain inet {TABLE} unregistered",
    "add set": f"add set inet {TABLE} guests {{ type ipv4_addr; flags interval; elements = {{ 10.0.0.0/8 }}; }}",
    "add set of our name": f"add set inet {TABLE} c4_32_g1 {{ type ipv4_addr; flags timeout; }}",
    "add map": f"add map inet {TABLE} ports {{ type inet_service : verdict; elements = {{ 80 : accept }}; }}",
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_what_nft_did_to_the_table_is_repaired(
    site: Site, tampering: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By what the kernel tells of it: the timer never comes in this file."""
    caplog.set_level("WARNING")
    site.want([BANK, EMBASSY, *hosts(5)])
    await site.settle()
    for number in (1, 2):
        run_nft(site.namespace, TAMPERINGS[tampering] + "\n")
        async with asyncio.timeout(GUARD_S):
            while site.reconciler.stats.repairs < number:
                await site.tables.read_generation()
        await site.settle()
        assert site.reconciler.stats.repairs == number
        assert [record.message for record in caplog.records] == ["reconcile.external_change"] * number
    assert {record.fields["program"] for record in caplog.records} == {"nft"}  # type: ignore[attr-defined]
    assert site.reconciler.stats.failures == 0
    assert site.reconciler.epoch == 1
    shown = site.namespace.run(["nft", "list", "chain", "inet", TABLE, "forward"]).stdout
    assert "priority filter - 10" in shown


async def test_other_tables_are_left_alone_and_are_no_repair(site: Site) -> None:
    site.want([BANK, *hosts(3)])
    await site.settle()
    other = "table inet other {\n\tset c4_32 {\n\t\ttype ipv4_addr\n\t\telements = { 10.0.0.1 }\n\t}\n\n"
    other += "\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n"
    other += "\t\tip saddr @c4_32 counter packets 0 bytes 0 accept\n\t}\n}\n"
    run_nft(site.namespace, other)
    site.want([BANK, *hosts(30)], policy("limit"))
    await site.settle()
    await site.restart()
    await site.settle()
    assert site.namespace.run(["nft", "list", "table", "inet", "other"]).stdout == other
    assert site.reconciler.stats.repairs == site.reconciler.stats.failures == 0


async def test_two_commits_that_swap_an_element_are_put_right_though_the_count_is_as_before(site: Site) -> None:
    site.want([BANK, *hosts(5)])
    await site.settle()
    run_nft(site.namespace, f"delete element inet {TABLE} c4_32 {{ 10.0.0.3 }}")
    run_nft(site.namespace, f"add element inet {TABLE} c4_32 {{ 192.0.2.77 }}")
    async with asyncio.timeout(GUARD_S):
        while site.reconciler.stats.repairs < 2:
            await site.tables.read_generation()
    await site.settle()
    assert site.reconciler.stats.repairs == 2


async def test_a_swap_during_a_bulk_load_is_put_right(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes between leaving the group and our commit, where nobody hears it: the generation says so."""
    monkeypatch.setattr(external, "LARGE_COMMIT", 0)
    site.want([BANK, *hosts(5)])
    await site.settle()
    without_ours = site.tables._notifications.without_ours
    swaps = [f"delete element inet {TABLE} c4_32 {{ 10.0.0.3 }}\nadd element inet {TABLE} c4_32 {{ 192.0.2.77 }}"]

    @contextmanager
    def swapped(elements: int) -> Iterator[None]:
        with without_ours(elements):
            if swaps:
                run_nft(site.namespace, swaps.pop())
            yield

    monkeypatch.setattr(site.tables._notifications, "without_ours", swapped)
    site.want([BANK, *hosts(6)])
    await site.settle()
    assert not swaps
    assert site.reconciler.stats.failures == 0


async def test_a_set_grows_past_its_capacity_and_nothing_in_it_is_ever_gone(site: Site) -> None:
    site.want(hosts(8))
    await site.settle()
    before = oracle(site.wanted)[HOSTS]
    looks: list[str] = []

    async def look() -> None:
        rules = site.namespace.run(["nft", "list", "chain", "inet", TABLE, "classify4_rest"]).stdout
        names = {word.strip() for word in rules.replace("@", " @").split() if word.startswith("@c4_32")}
        assert len(names) == 1
        name = names.pop()[1:]
        looks.append(name)
        assert before <= {key async for piece in site.tables.read_elements(name) for key in piece}

    site.after_write = look
    site.want(hosts(40))
    await site.settle()
    assert looks[0] == "c4_32"
    assert looks[-1] != "c4_32"
    assert looks == sorted(looks, key=lambda name: len(name))
    assert site.reconciler.stats.failures == 0


@pytest.mark.parametrize("seed", range(3))
async def test_a_reconciler_abandoned_at_any_moment_is_taken_over_by_the_next(site: Site, seed: int) -> None:
    """Ten rounds: cancelled after a random number of turns of the loop, in the middle of whatever it does."""
    chance = random.Random(seed)
    pool = [BANK, EMBASSY, *hosts(40), registered("net", "10.0.0.0/24", "10.0.0.0/30")]
    for _ in range(10):
        site.want(
            chance.sample(pool, chance.randrange(len(pool))), policy(chance.choice(["observe", "reject", "limit"]))
        )
        site.start()
        for _ in range(chance.choice([1, 5, 20, 60, 200])):
            await asyncio.sleep(0)
        await site.restart()
    await site.settle()
    assert site.reconciler.stats.failures == 0
    assert site.reconciler.stats.repairs == 0
    assert 1 <= site.reconciler.epoch <= 11


# -- the daemon, in the lab's gateway ----------------------------------------------------------------------

HOUSE, FAR = "39.32.64.10", "198.51.100.7"
_ports = count(30000)

OTHER_RULESET = "flush ruleset\ntable inet filter {\n\tchain forward {\n"
OTHER_RULESET += "\t\ttype filter hook forward priority 0; policy accept;\n\t}\n}\n"

DEEDS: dict[str, tuple[str, str]] = {
    "flush ruleset": ("flush ruleset", "the table is gone"),
    "delete the table": (f"delete table inet {TABLE}", "the table is gone"),
    "restart nftables": (OTHER_RULESET, "the table is gone"),
    "delete a set": (f"flush table inet {TABLE}\ndelete set inet {TABLE} SET", "set SET is gone"),
    "flush a set": (f"flush set inet {TABLE} SET", "elements of SET: 1 removed, 0 added"),
    "remove an element": (
        f"delete element inet {TABLE} SET {{ ELEMENT }}",
        "elements of SET: 1 removed, 0 added",
    ),
    "add an element": (f"add element inet {TABLE} SET {{ OTHER }}", "elements of SET: 0 removed, 1 added"),
    "swap an element": (
        f"delete element inet {TABLE} SET {{ ELEMENT }}\nadd element inet {TABLE} SET {{ OTHER }}",
        "elements of SET: 1 removed, 1 added",
    ),
    "drop everything": (f"insert rule inet {TABLE} forward drop", "the rules were changed"),
    "let everything pass": (f"insert rule inet {TABLE} forward accept", "the rules were changed"),
}
"""What somebody does with nft -f, and what the log says was found."""


def wireguard(source: str) -> Flow:
    """A flow that conntrack has not seen yet."""
    return flow_of(source, FAR, "udp/51820", next(_ports))


def started(daemon: LabDaemon) -> LabDaemon:
    daemon.write_registry("national", [DEMO_BANK, SOFTWARE_HOUSE])
    daemon.configure("reject")
    daemon.start()
    daemon.wait_ready()
    return daemon


def not_in_kernel(daemon: LabDaemon) -> float:
    return float(daemon.status()["kernel"]["not_in_kernel"])


@pytest.mark.parametrize("deed", DEEDS)
def test_whatever_somebody_does_the_registered_pass_again_and_strangers_do_not(
    daemon: LabDaemon, deed: str
) -> None:
    lab = started(daemon).lab
    assert probe(lab, [wireguard(HOUSE), wireguard(STRANGER)]) == ["passed", "rejected"]
    assert not_in_kernel(daemon) == 0
    name, element, other = victim(lab)
    script, found = (
        each.replace("SET", name).replace("ELEMENT", element).replace("OTHER", other) for each in DEEDS[deed]
    )
    lab.gateway.run(["nft", "-f", "-"], input=script + "\n")
    assert holds(lambda: "reconcile.external_change" in daemon.log_text())
    daemon.wait(lambda: bool(daemon.status().get("ready")) and not daemon.status()["kernel"]["pending"], "repair")
    assert probe(lab, [wireguard(HOUSE), wireguard(STRANGER), wireguard(other)]) == [
        "passed",
        "rejected",
        "rejected",
    ]
    assert not_in_kernel(daemon) == 0
    kernel = daemon.status()["kernel"]
    assert (kernel["repairs"], kernel["failures"], kernel["surplus"]) == (1, 0, 0)
    lines = [line for line in daemon.log_text().splitlines() if "reconcile." in line]
    assert len(lines) == 1
    assert f'found="{found}" program=nft pid=' in lines[0]


def victim(lab: Lab) -> tuple[str, str, str]:
    """The set that lets the software house pass, its element there, and one that nobody wants."""
    for name in sorted(elements(lab)):
        listing = lab.gateway.run(["nft", "list", "set", "inet", TABLE, name]).stdout
        if HOUSE.rpartition(".")[0] in listing:
            shown = listing.partition("elements = {")[2].partition("}")[0].split(",")[0].strip()
            return name, shown, STRANGER if " . " not in shown else shown.replace(shown.split(" ")[0], STRANGER)
    raise AssertionError("no set has it")


def test_what_somebody_does_elsewhere_is_no_repair(daemon: LabDaemon) -> None:
    lab = started(daemon).lab
    transactions = daemon.status()["kernel"]["transactions"]
    for number in range(20):
        lab.gateway.run(["nft", "-f", "-"], input=f"table inet other {{ set s{number} {{ type ipv4_addr; }}\n}}\n")
        lab.gateway.run(["nft", "-f", "-"], input=f"add element inet other s{number} {{ {HOUSE} }}\n")
    there = generation(lab)
    daemon.wait(lambda: daemon.status()["kernel"]["generation"] == there, "the generation is known")
    assert probe(lab, [wireguard(HOUSE), wireguard(STRANGER)]) == ["passed", "rejected"]
    kernel = daemon.status()["kernel"]
    assert (kernel["repairs"], kernel["failures"], kernel["transactions"]) == (0, 0, transactions)
    assert "reconcile." not in daemon.log_text()
