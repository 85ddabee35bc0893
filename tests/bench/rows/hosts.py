"""Fill one set with host addresses: what each way of talking to the kernel costs.

Every subject starts from the addresses as it wants them (packed, or text in a file) and ends when the kernel has
all of them in a set made for as many: the set's own count says so.
"""

from __future__ import annotations

import uvloop

from gatewayd.kernel import tables_codec as codec
from gatewayd.kernel.tables import KernelTables
from tests.bench import crowdsec, libnftables
from tests.bench.clock import Ran, Stopwatch, peak_mb, run_command
from tests.bench.counting import IPSET_NAME, NFPROTO_INET, NFPROTO_IPV4, count_elements, count_ipset, restore_ipset
from tests.bench.filling import TABLE, figures_of, fill, host_mask, make_sets, set_name, transactions
from tests.bench.material import host_keys, host_texts, nft_set
from tests.bench.row import Context, Figures, Measure, Row, Subject, check

SET = "hosts"


def gatewayd(context: Context) -> Figures:
    """Encoded and committed as the reconciler does, a bounded transaction after another."""
    content = {host_mask(): host_keys(context.size)}

    async def run() -> tuple[float, float]:
        tables = KernelTables.open(TABLE)
        await make_sets(tables, content)
        watch = Stopwatch()
        await fill(tables, content)
        whole_s = watch.lap()
        for transaction in transactions(content):
            codec.encode_batch(transaction, TABLE, 1)
        return whole_s, watch.lap()

    whole_s, encode_s = uvloop.run(run())
    _check_count(context.size, TABLE, set_name(host_mask()))
    return {"s": whole_s, "encode_s": encode_s, "kernel_s": max(whole_s - encode_s, 0.0), "rss_mb": peak_mb()}


def nft_hash(context: Context) -> Figures:
    """`nft -f` of one hash set with the same elements and the same size hint."""
    return _nft(context, f"size {context.size}")


def nft_interval(context: Context) -> Figures:
    """`nft -f` of one interval set, the usual way to write an allowlist of prefixes."""
    return _nft(context, "flags interval")


def _nft(context: Context, option: str) -> Figures:
    path = context.scratch / "set.nft"
    path.write_text(nft_set(SET, option, host_texts(context.size)))
    return _filled(run_command(["nft", "-f", str(path)]), context.size)


def libnftables_hash(context: Context) -> Figures:
    """JSON commands of 1000 elements, as firewalld gives them, but into a hash set."""
    ran = libnftables.fill(f"size={context.size}", host_texts(context.size), context.scratch)
    return _filled(ran, context.size)


def libnftables_interval(context: Context) -> Figures:
    """The same into an interval set, which is what firewalld makes of every ipset of addresses."""
    return _filled(libnftables.fill("interval", host_texts(context.size), context.scratch), context.size)


def ipset_restore(context: Context) -> Figures:
    ran = restore_ipset("hash:ip", host_texts(context.size), context.scratch)
    found = count_ipset(IPSET_NAME)
    check(found == context.size, f"{found} entries")
    return figures_of(ran)


def crowdsec_bouncer(context: Context) -> Figures:
    """From the start of the process; its answer from the local API is ready."""
    ran = crowdsec.fill(host_texts(context.size), context.scratch)
    _check_count(context.size, crowdsec.TABLE, crowdsec.SET, NFPROTO_IPV4)
    return figures_of(ran)


def pyroute2(context: Context) -> Figures:
    """Its nftables client in this process, 1000 elements a transaction."""
    from tests.bench import pyroute2_sets

    texts = host_texts(context.size)
    mask = host_mask()

    async def make() -> None:
        tables = KernelTables.open(TABLE)
        await make_sets(tables, {mask: host_keys(context.size)})
        tables.close()

    uvloop.run(make())
    client = pyroute2_sets.Pyroute2Set(set_name(mask))
    pieces = [texts[start : start + pyroute2_sets.CHUNK] for start in range(0, len(texts), pyroute2_sets.CHUNK)]
    watch = Stopwatch()
    for piece in pieces:
        client.add(piece)
    whole_s = watch.lap()
    for piece in pieces:
        pyroute2_sets.encode(set_name(mask), piece)
    encode_s = watch.lap()
    _check_count(context.size, TABLE, set_name(mask))
    return {"s": whole_s, "encode_s": encode_s, "rss_mb": peak_mb()}


def _filled(ran: Ran, count: int) -> Figures:
    _check_count(count, TABLE, SET)
    return figures_of(ran)


def _check_count(count: int, table: str, name: str, family: int = NFPROTO_INET) -> None:
    found = count_elements(table, name, family)
    check(found == count, f"{found} elements of {count}")


HOSTS = Row(
    "hosts",
    "encode and commit N host elements",
    (
        Measure("s", "s", "all in the kernel"),
        Measure("encode_s", "s", "of it encoding"),
        Measure("kernel_s", "s", "of it the kernel"),
        Measure("rss_mb", "MB", "peak memory"),
    ),
    (
        Subject("gatewayd", gatewayd),
        Subject("nft -f, hash set", nft_hash, needs="nft"),
        Subject("nft -f, interval set", nft_interval, needs="nft"),
        Subject("libnftables (python3-nftables), hash set", libnftables_hash, needs="libnftables"),
        Subject(
            "libnftables (python3-nftables), interval set",
            libnftables_interval,
            needs="libnftables",
            most=100_000,
            why="24 s at 100 k, and it grows with the square, each command listing the whole set",
        ),
        Subject("ipset restore", ipset_restore, needs="ipset"),
        Subject(
            "crowdsec-firewall-bouncer",
            crowdsec_bouncer,
            needs="crowdsec",
            most=31_000,
            why="9 s at 31 k, minutes at 100 k: it lists its whole set before every 200 elements",
        ),
        Subject(
            "pyroute2",
            pyroute2,
            needs="pyroute2",
            most=100_000,
            why="6 s at 100 k, some 55 µs an element at any size: about a minute",
        ),
    ),
)
