"""Sets of nf_tables filled through gatewayd's own encoder, a bounded transaction after another as the reconciler
does it: what is measured in some rows, and what makes the sets of others in which a change is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gatewayd.kernel.tables import KernelTables
from gatewayd.model.mask import ANY_PEER, Mask
from gatewayd.model.transaction import AddElements, CreateSet, CreateTable, Operation, Transaction
from gatewayd.reconcile.set_state import choose_capacity
from gatewayd.reconcile.steps import max_keys
from tests.bench.clock import Ran

TABLE = "bench"
CAUSE = "bench"

Content = Mapping[Mask, Sequence[bytes]]
"""IPv4 client masks, any peer, any service → the keys of the set."""

LEAST_RESIDENT_MB = 1.0
"""A program that ends within milliseconds may not have been looked at since it was loaded."""


def host_mask() -> Mask:
    return Mask(4, 32, ANY_PEER, "")


def set_name(mask: Mask) -> str:
    return str(mask)


async def make_sets(tables: KernelTables, content: Content) -> None:
    """The table and its empty sets, with the room that the reconciler gives them."""
    operations: list[Operation] = [CreateTable()]
    operations += [
        CreateSet(set_name(mask), mask, choose_capacity(mask, len(keys))) for mask, keys in content.items()
    ]
    await tables.commit(Transaction(tuple(operations), CAUSE))


def transactions(content: Content) -> Iterator[Transaction]:
    """All elements, each transaction as full as the reconciler would make it."""
    most = max_keys(4)
    operations: list[Operation] = []
    room = most
    for mask, keys in content.items():
        start = 0
        while start < len(keys):
            piece = keys[start : start + room]
            operations.append(AddElements(set_name(mask), piece))
            start, room = start + len(piece), room - len(piece)
            if room == 0:
                yield Transaction(tuple(operations), CAUSE)
                operations, room = [], most
    if operations:
        yield Transaction(tuple(operations), CAUSE)


async def fill(tables: KernelTables, content: Content) -> None:
    for transaction in transactions(content):
        await tables.commit(transaction)


def figures_of(ran: Ran) -> dict[str, float]:
    """Of a program that has filled a set."""
    peak = {"rss_mb": ran.peak_mb} if ran.peak_mb >= LEAST_RESIDENT_MB else {}
    return {"s": ran.took_s, **peak}
