"""One element added to a set of N and removed again: what a registration that comes and goes costs.

Programs are started anew for each change, as who uses them does; live clients stay open. Every set is filled
beforehand and has room. A subject that is slow makes fewer changes, and says how many: its p99 is then the largest.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

import uvloop

from gatewayd.kernel.tables import KernelTables
from gatewayd.model.mask import Mask
from gatewayd.model.transaction import AddElements, RemoveElements, Transaction
from tests.bench import libnftables
from tests.bench.clock import Stopwatch, percentile, run_command
from tests.bench.counting import IPSET_NAME, count_elements, count_ipset, restore_ipset
from tests.bench.filling import CAUSE, TABLE, fill, host_mask, make_sets, set_name
from tests.bench.material import host_keys, host_texts, nft_set
from tests.bench.row import Context, Figures, Measure, Row, Subject, check

CHANGES, LEAST = 200, 5
BUDGET_S = 60.0
INTERVALS = "intervals"

ADDED = [f"172.16.{number >> 8}.{number & 255}" for number in range(CHANGES)]
"""None of them is among those that fill the set."""


def gatewayd(context: Context) -> Figures:
    name = set_name(host_mask())
    keys = [bytes(map(int, text.split("."))) for text in ADDED]
    added, removed = [], []

    async def run() -> None:
        tables = await _filled(context.size)
        for key in keys:
            watch = Stopwatch()
            await tables.commit(Transaction((AddElements(name, [key]),), CAUSE))
            added.append(watch.lap())
            await tables.commit(Transaction((RemoveElements(name, [key]),), CAUSE))
            removed.append(watch.lap())
        await tables.commit(Transaction((AddElements(name, keys[:1]),), CAUSE))

    uvloop.run(run())
    return _figures(added, removed, context.size, count_elements(TABLE, name))


def nft_hash(context: Context) -> Figures:
    _fill_hash(context.size)
    return _nft(set_name(host_mask()), context.size)


def nft_interval(context: Context) -> Figures:
    _fill_intervals(context)
    return _nft(INTERVALS, context.size)


def _nft(name: str, size: int) -> Figures:
    def change(word: str, element: str) -> None:
        _run("nft", word, "element", "inet", TABLE, name, f"{{ {element} }}")

    added, removed = _repeat(lambda each: change("add", each), lambda each: change("delete", each))
    change("add", ADDED[0])
    return _figures(added, removed, size, count_elements(TABLE, name))


def libnftables_hash(context: Context) -> Figures:
    _fill_hash(context.size)
    return _libnftables(set_name(host_mask()), context)


def libnftables_interval(context: Context) -> Figures:
    _fill_intervals(context)
    return _libnftables(INTERVALS, context)


def _libnftables(name: str, context: Context) -> Figures:
    changes = libnftables.change(name, ADDED, CHANGES, BUDGET_S, context.scratch)
    _run("nft", "add", "element", "inet", TABLE, name, f"{{ {ADDED[0]} }}")
    return _figures(changes.added, changes.removed, context.size, count_elements(TABLE, name))


def ipset_add(context: Context) -> Figures:
    restore_ipset("hash:ip", host_texts(context.size), context.scratch)
    added, removed = _repeat(
        lambda each: _run("ipset", "add", IPSET_NAME, each), lambda each: _run("ipset", "del", IPSET_NAME, each)
    )
    _run("ipset", "add", IPSET_NAME, ADDED[0])
    return _figures(added, removed, context.size, count_ipset(IPSET_NAME))


def pyroute2(context: Context) -> Figures:
    from tests.bench.pyroute2_sets import Pyroute2Set

    _fill_hash(context.size)
    client = Pyroute2Set(set_name(host_mask()))
    added, removed = _repeat(lambda each: client.add([each]), lambda each: client.remove([each]))
    client.add(ADDED[:1])
    return _figures(added, removed, context.size, count_elements(TABLE, set_name(host_mask())))


def _repeat(add: Callable[[str], object], remove: Callable[[str], object]) -> tuple[list[float], list[float]]:
    """As often as the budget allows."""
    added: list[float] = []
    removed: list[float] = []
    while len(added) < CHANGES and (len(added) < LEAST or sum(added) + sum(removed) < BUDGET_S):
        element = ADDED[len(added)]
        watch = Stopwatch()
        add(element)
        added.append(watch.lap())
        remove(element)
        removed.append(watch.lap())
    return added, removed


async def _filled(size: int) -> KernelTables:
    tables = KernelTables.open(TABLE)
    content: dict[Mask, Sequence[bytes]] = {host_mask(): host_keys(size)}
    await make_sets(tables, content)
    await fill(tables, content)
    return tables


def _fill_hash(size: int) -> None:
    async def run() -> None:
        (await _filled(size)).close()

    uvloop.run(run())


def _fill_intervals(context: Context) -> None:
    path = context.scratch / "set.nft"
    path.write_text(nft_set(INTERVALS, "flags interval", host_texts(context.size)))
    run_command(["nft", "-f", str(path)])


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    check(done.returncode == 0, f"{command[0]} {command[1]}: {done.stderr.strip()}")


def _figures(added: list[float], removed: list[float], size: int, found: int | None) -> Figures:
    """`found`: elements after all the changes and one more addition."""
    check(found == size + 1, f"{found} elements of {size + 1}")
    return {
        "p50_s": percentile(added, 0.5),
        "p99_s": percentile(added, 0.99),
        "remove_p50_s": percentile(removed, 0.5),
        "remove_p99_s": percentile(removed, 0.99),
        "changes": len(added),
    }


CHANGE = Row(
    "change",
    "one element added to a set of N, and removed",
    (
        Measure("p50_s", "s", "added, p50"),
        Measure("p99_s", "s", "p99"),
        Measure("remove_p50_s", "s", "removed, p50"),
        Measure("remove_p99_s", "s", "p99"),
        Measure("changes", "", "changes", of_size=False),
    ),
    (
        Subject("gatewayd", gatewayd),
        Subject("nft add element, hash set", nft_hash, needs="nft"),
        Subject(
            "nft add element, interval set",
            nft_interval,
            needs="nft",
            most=100_000,
            why="1 s a change at 100 k, 70 s at 1 M: it lists the whole set first",
        ),
        Subject("libnftables (python3-nftables), hash set", libnftables_hash, needs="libnftables"),
        Subject(
            "libnftables (python3-nftables), interval set",
            libnftables_interval,
            needs="libnftables",
            most=100_000,
            why="0.5 s a change at 100 k: it lists the whole set first, as nft does",
        ),
        Subject("ipset add", ipset_add, needs="ipset"),
        Subject("pyroute2", pyroute2, needs="pyroute2"),
    ),
)
