"""Fill the kernel with N client prefixes: one hash set for each length, or one set that takes prefixes of any.

gatewayd starts from prefixes as values and sorts them by mask; the others start from a file.
"""

from __future__ import annotations

from collections.abc import Sequence

import uvloop

from gatewayd.kernel.tables import KernelTables
from gatewayd.model import Prefix
from gatewayd.model.mask import ANY_PEER, Mask
from gatewayd.model.prefix import format_address
from tests.bench import libnftables
from tests.bench.clock import Stopwatch, peak_mb, run_command
from tests.bench.counting import IPSET_NAME, count_elements, count_ipset, restore_ipset
from tests.bench.filling import TABLE, Content, figures_of, fill, make_sets, set_name
from tests.bench.material import disjoint_prefixes, nft_set
from tests.bench.row import Context, Figures, Measure, Row, Subject, check

SET = "hosts"


def gatewayd(context: Context) -> Figures:
    prefixes = disjoint_prefixes(context.size)

    async def run() -> tuple[float, Content]:
        watch = Stopwatch()
        content = by_mask(prefixes)
        tables = KernelTables.open(TABLE)
        await make_sets(tables, content)
        await fill(tables, content)
        return watch.lap(), content

    took_s, content = uvloop.run(run())
    return _checked({"s": took_s, "rss_mb": peak_mb()}, context.size, _count(content))


def nft_interval(context: Context) -> Figures:
    texts, path = _texts(context), context.scratch / "set.nft"
    path.write_text(nft_set(SET, "flags interval", texts))
    ran = run_command(["nft", "-f", str(path)])
    return _checked(figures_of(ran), context.size, count_elements(TABLE, SET))


def nft_hash(context: Context) -> Figures:
    """The layout of gatewayd, given to nft."""
    content, path = by_mask(disjoint_prefixes(context.size)), context.scratch / "sets.nft"
    path.write_text(
        "".join(
            nft_set(set_name(mask), f"size {len(keys)}", [format_address(key) for key in keys])
            for mask, keys in content.items()
        )
    )
    ran = run_command(["nft", "-f", str(path)])
    return _checked(figures_of(ran), context.size, _count(content))


def libnftables_interval(context: Context) -> Figures:
    """As firewalld makes an ipset of networks: an interval set, 1000 prefixes a command."""
    texts = _texts(context)
    ran = libnftables.fill("interval", texts, context.scratch)
    return _checked(figures_of(ran), context.size, count_elements(TABLE, SET))


def ipset_restore(context: Context) -> Figures:
    texts = _texts(context)
    ran = restore_ipset("hash:net", texts, context.scratch)
    return _checked(figures_of(ran), context.size, count_ipset(IPSET_NAME))


def by_mask(prefixes: Sequence[Prefix]) -> dict[Mask, list[bytes]]:
    """The content of the hash sets, one for each length in use."""
    lengths: dict[int, list[bytes]] = {}
    for prefix in prefixes:
        lengths.setdefault(prefix.length, []).append(prefix.packed)
    return {Mask(4, length, ANY_PEER, ""): keys for length, keys in lengths.items()}


def _texts(context: Context) -> list[str]:
    return [str(prefix) for prefix in disjoint_prefixes(context.size)]


def _count(content: Content) -> int:
    return sum(count_elements(TABLE, set_name(mask)) or 0 for mask in content)


def _checked(figures: Figures, count: int, found: int | None) -> Figures:
    check(found == count, f"{found} elements of {count}")
    return figures


PREFIXES = Row(
    "prefixes",
    "encode and commit N client prefixes, none within another",
    (
        Measure("s", "s", "all in the kernel"),
        Measure("rss_mb", "MB", "peak memory"),
    ),
    (
        Subject("gatewayd", gatewayd),
        Subject("nft -f, interval set", nft_interval, needs="nft"),
        Subject("nft -f, hash set for each length", nft_hash, needs="nft"),
        Subject(
            "libnftables (python3-nftables), interval set",
            libnftables_interval,
            needs="libnftables",
            most=100_000,
            why="41 s at 100 k, and it grows with the square, each command listing the whole set",
        ),
        Subject("ipset restore, hash:net", ipset_restore, needs="ipset"),
    ),
)
