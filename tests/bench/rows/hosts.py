"""Fill one set with host addresses: what each way of talking to nf_tables costs."""

from __future__ import annotations

import asyncio

from gatewayd.kernel import tables_codec as codec
from gatewayd.kernel.tables import KernelTables
from gatewayd.model.mask import ANY_PEER, Mask
from gatewayd.model.transaction import AddElements, CreateSet, CreateTable, Operation, Transaction
from gatewayd.reconcile.steps import most_keys
from tests.bench.clock import Stopwatch, peak_mb, run_command
from tests.bench.material import host_keys, host_texts, nft_set
from tests.bench.row import Context, Figures, Measure, Row, Subject

TABLE = "bench"
MASK = Mask(4, 32, ANY_PEER, "")


def gatewayd(context: Context) -> Figures:
    """Encoded and committed as the reconciler does, a bounded transaction after another."""
    keys = host_keys(context.size)
    piece = most_keys(4)

    async def fill() -> tuple[float, float]:
        tables = KernelTables.open(TABLE)
        operations: list[Operation] = [CreateTable(), CreateSet("hosts", MASK, context.size)]
        await tables.commit(Transaction(tuple(operations), "bench"))
        watch = Stopwatch()
        for start in range(0, len(keys), piece):
            await tables.commit(Transaction((AddElements("hosts", keys[start : start + piece]),), "bench"))
        whole_s = watch.lap()
        for start in range(0, len(keys), piece):
            codec.encode_batch(Transaction((AddElements("hosts", keys[start : start + piece]),), ""), TABLE, 1)
        return whole_s, watch.lap()

    whole_s, encode_s = asyncio.run(fill())
    return {"s": whole_s, "encode_s": encode_s, "kernel_s": whole_s - encode_s, "rss_mb": peak_mb()}


def nft_hash(context: Context) -> Figures:
    """`nft -f` of one hash set with the same elements and the same size hint."""
    return _nft(context, f"size {context.size}")


def nft_interval(context: Context) -> Figures:
    """`nft -f` of one interval set, the usual way to write an allowlist of prefixes."""
    return _nft(context, "flags interval")


def _nft(context: Context, option: str) -> Figures:
    path = context.scratch / "set.nft"
    path.write_text(nft_set("hosts", option, host_texts(context.size)))
    ran = run_command(["nft", "-f", str(path)])
    return {"s": ran.took_s, "rss_mb": ran.peak_mb}


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
    ),
)
