"""The socket of notifications, on the kernel of a namespace: what is heard, what is left out, what is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from gatewayd.kernel import external
from gatewayd.kernel.external import NotificationSocket, leave_out
from gatewayd.kernel.tables import KernelTables
from gatewayd.lab.namespace import Namespace
from gatewayd.model.mask import Mask
from gatewayd.model.transaction import (
    AddElements,
    CreateSet,
    CreateTable,
    ExternalChanges,
    ExternalCommit,
    Transaction,
)
from tests.support.planes import TABLE, fresh_namespace, kernel_tables, run_nft

pytestmark = pytest.mark.kernel

HOSTS = Mask(4, 32)
COMMAND = Path("/proc/self/comm").read_text().strip()
MADE = Transaction((CreateTable(), CreateSet("c4_32", HOSTS, 1 << 17)), "test")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with fresh_namespace() as made:
        yield made


@pytest.fixture
def tables(namespace: Namespace, tmp_path: Path) -> Iterator[KernelTables]:
    with kernel_tables(namespace, tmp_path) as made:
        yield made


def heard_by(namespace: Namespace, own_port: int) -> NotificationSocket:
    with namespace.entered():
        return NotificationSocket(TABLE, own_port)


def keys(count: int, first: int = 0) -> list[bytes]:
    return [number.to_bytes(4, "big") for number in range(first, first + count)]


async def test_the_kernel_leaves_out_what_our_port_caused(namespace: Namespace, tables: KernelTables) -> None:
    ours, others = heard_by(namespace, tables._commits.port), heard_by(namespace, 0)
    for each in (ours, others):
        each.start(lambda: None)
    await tables.commit(MADE)
    assert ours.take() == ExternalChanges()
    assert ours._receive() == b""
    (commit,) = others.take().commits
    assert (commit.others, commit.program) == (True, COMMAND)
    for each in (ours, others):
        each.close()


@pytest.mark.parametrize("elements", [external.LARGE_COMMIT, external.LARGE_COMMIT + 1])
async def test_around_a_large_commit_of_ours_the_group_is_left(namespace: Namespace, elements: int) -> None:
    """Another program's commit inside stands for all that the kernel would have to tell."""
    listener = heard_by(namespace, 0)
    listener.start(lambda: None)
    with listener.without_ours(elements):
        run_nft(namespace, f"add table inet {TABLE}")
    heard = len(listener.take().commits)
    assert heard == (elements <= external.LARGE_COMMIT)
    run_nft(namespace, f"delete table inet {TABLE}")
    assert len(listener.take().commits) == 1
    listener.close()


async def test_who_does_not_listen_joins_nothing_around_a_commit(namespace: Namespace) -> None:
    listener = heard_by(namespace, 0)
    with listener.without_ours(1 << 20):
        pass
    run_nft(namespace, f"add table inet {TABLE}")
    assert listener.take() == ExternalChanges()
    listener.close()


async def test_an_overrun_is_told_once_and_what_comes_later_is_heard(
    namespace: Namespace, tables: KernelTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external, "RECEIVE_BUFFER_BYTES", 1 << 14)
    await tables.commit(MADE)
    listener = heard_by(namespace, 0)
    listener.start(lambda: None)
    await tables.commit(Transaction((AddElements("c4_32", keys(20_000)),), "test"))
    lost: list[bool] = []
    commits: list[ExternalCommit] = []
    while (changes := listener.take()) != ExternalChanges():
        lost.append(changes.lost)
        commits += changes.commits
    assert lost.count(True) == 1
    run_nft(namespace, f"delete element inet {TABLE} c4_32 {{ 0.0.0.1 }}")
    (commit,) = listener.take().commits
    assert [change.key for change in commit.elements] == [bytes((0, 0, 0, 1))]
    listener.close()


async def test_what_does_not_parse_is_lost(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = heard_by(namespace, 0)
    datagrams = [b"\x0f\0\0\0\x0f\x0a" + bytes(20)]
    monkeypatch.setattr(listener, "_receive", lambda: datagrams.pop() if datagrams else b"")
    assert listener.take() == ExternalChanges((), True)
    assert listener.take() == ExternalChanges()
    listener.close()


async def test_a_batch_is_bounded_and_the_loop_calls_again(namespace: Namespace, tables: KernelTables) -> None:
    await tables.commit(MADE)
    listener = heard_by(namespace, 0)
    called, all_told = 0, asyncio.Event()
    commits: list[ExternalCommit] = []

    def take() -> None:
        nonlocal called
        called += 1
        commits.extend(listener.take().commits)
        if len(commits) == 10:
            all_told.set()

    listener.start(take)
    for first in range(0, 600, 60):
        await tables.commit(Transaction((AddElements("c4_32", keys(60, first)),), "test"))
    async with asyncio.timeout(30):
        await all_told.wait()
    assert called > 1
    assert sum(len(commit.elements) for commit in commits) == 600
    listener.close()


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_works_on_either_loop_and_outlives_it(
    namespace: Namespace, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    listener = heard_by(namespace, 0)

    async def listen() -> None:
        told = asyncio.Event()
        listener.start(told.set)
        run_nft(namespace, "add table inet other")
        async with asyncio.timeout(30):
            await told.wait()
        assert len(listener.take().commits) == 1

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(listen())
    listener.close()


def test_the_filter_is_four_instructions() -> None:
    assert len(leave_out(0xFFFF_FFFF)) == 4 * 8
