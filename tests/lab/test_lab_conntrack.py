"""Requests to the real kernel's connection tracking, in namespaces, under asyncio and uvloop."""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, aclosing
from typing import Any

import msgspec
import pytest
import uvloop

from gatewayd.errors import DumpInterrupted, OperationRefused, ReplyMissing
from gatewayd.kernel.conntrack import Conntrack
from gatewayd.kernel.conntrack_codec import ConnectionBatch, decode_connections
from gatewayd.lab.namespace import Namespace
from gatewayd.model.flow import AF_INET, ConnectionEvent, ConnectionKey
from tests.support.events import (
    MARK,
    MARK_TUNNELS,
    MASK,
    Sender,
    flush_connections,
    listed,
    opened_conntrack,
    send_raw,
)
from tests.support.planes import fresh_namespace

pytestmark = pytest.mark.kernel


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with fresh_namespace(MARK_TUNNELS) as made:
        yield made


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner.run


def test_a_dump_lists_the_connections_of_a_mark_and_no_others(run: Any, namespace: Namespace) -> None:
    async def scenario() -> None:
        with (
            opened_conntrack(namespace) as conntrack,
            Sender(namespace) as sender,
            Sender(namespace, "::1") as sender6,
        ):
            sender.send("127.0.0.2", 51820, 51821, 40000, 20000)
            sender6.send("::1", 51820)
            expected = {
                sender.flow("127.0.0.2", 51820),
                sender.flow("127.0.0.2", 51821),
                sender6.flow("::1", 51820),
            }
            events = await listed(conntrack, MARK, MASK)
            assert {event.flow for event in events} == expected
            assert {(event.kind, event.mark) for event in events} == {("listed", 0xA1000007)}
            assert {event.flow for event in await listed(conntrack, 0x21000000, MASK)} == {
                sender.flow("127.0.0.2", 40000)
            }
            assert await listed(conntrack, 0x55000000, MASK) == []

    run(scenario())


def test_marks_change_within_the_mask_in_every_zone_and_family(run: Any, namespace: Namespace) -> None:
    async def scenario() -> None:
        with (
            opened_conntrack(namespace) as conntrack,
            Sender(namespace) as sender,
            Sender(namespace, "::1") as sender6,
        ):
            sender.send("127.0.0.2", 51820, 51830, 51831)
            sender6.send("::1", 51820)
            send_raw(namespace, 50, "127.0.0.2", bytes(24))
            send_raw(namespace, 47, "127.0.0.2", struct.pack(">HHHHI", 0x3001, 0x880B, 0, 77, 1))
            events = await listed(conntrack, MARK, MASK)
            assert len(events) == 6
            assert await conntrack.change_marks((event.key for event in events), 0x42000000, MASK) == 6
            assert {event.mark for event in await listed(conntrack, 0, 0)} == {0x42000007}
            assert await conntrack.change_marks([event.key for event in events], 0, MASK) == 6
            assert {event.mark for event in await listed(conntrack, 0, 0)} == {0x00000007}

    run(scenario())


def test_connections_that_ended_meanwhile_are_no_error(run: Any, namespace: Namespace) -> None:
    async def scenario() -> None:
        with opened_conntrack(namespace) as conntrack, Sender(namespace) as sender:
            sender.send("127.0.0.2", 51820, 51821)
            ended = await listed(conntrack, MARK, MASK)
            flush_connections(namespace)
            sender.send("127.0.0.2", 51822)
            living = await listed(conntrack, MARK, MASK)
            keys = [event.key for event in (ended[0], *living, ended[1])]
            assert await conntrack.change_marks(keys, 0, MASK) == 1

    run(scenario())


def test_a_tuple_the_kernel_cannot_read_is_refused(run: Any, namespace: Namespace) -> None:
    async def scenario() -> None:
        with opened_conntrack(namespace) as conntrack:
            with pytest.raises(OperationRefused) as refused:
                await conntrack.change_marks([ConnectionKey(b"\x04\0\x01\x80", AF_INET)], 0, MASK)
            assert refused.value.errno == errno.EINVAL
            assert await conntrack.change_marks([], 0, MASK) == 0

    run(scenario())


def test_marks_can_be_changed_while_the_dump_goes_on_and_after_one_left_early(
    run: Any, namespace: Namespace
) -> None:
    async def scenario() -> None:
        with opened_conntrack(namespace) as conntrack:
            # All bound at once: a port that is free again may be given a second time, and its flows are known.
            with ExitStack() as senders:
                for _ in range(30):
                    sender = senders.enter_context(Sender(namespace))
                    sender.send("127.0.0.2", *range(51832, 51892))
            flows = 30 * 60
            async with aclosing(conntrack.dump(mark=MARK, mask=MASK)) as batches:
                async for batch in batches:
                    assert 0 < len(batch) < flows
                    break
            changed = 0
            async for batch in conntrack.dump(mark=MARK, mask=MASK):
                changed += await conntrack.change_marks([event.key for event in batch], 0, MASK)
            assert changed == flows
            assert await listed(conntrack, MARK, MASK) == []

    run(scenario())


def test_an_interrupted_dump_says_so_after_all_that_was_read(
    run: Any, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ctnetlink itself never sets NLM_F_DUMP_INTR in 6.18, so the flag is put in here."""

    def flagged(raw: bytes) -> ConnectionBatch:
        return msgspec.structs.replace(decode_connections(raw), interrupted=True)

    async def scenario() -> None:
        with opened_conntrack(namespace) as conntrack:
            with Sender(namespace) as sender:
                sender.send("127.0.0.2", 51820)
            events: list[ConnectionEvent] = []

            async def read() -> None:
                async for batch in conntrack.dump(mark=MARK, mask=MASK):
                    events.extend(batch)

            with pytest.raises(DumpInterrupted):
                await read()
            assert len(events) == 1

    monkeypatch.setattr("gatewayd.kernel.conntrack.decode_connections", flagged)
    run(scenario())


def test_answers_lost_to_a_full_buffer_are_missing_and_the_next_request_is_answered(
    run: Any, namespace: Namespace
) -> None:
    async def scenario() -> None:
        with opened_conntrack(namespace, receive_buffer_bytes=4096) as conntrack, Sender(namespace) as sender:
            sender.send("127.0.0.2", *range(51832, 51892))
            keys = [event.key for event in await listed(conntrack, MARK, MASK)]
            flush_connections(namespace)
            with pytest.raises(ReplyMissing, match="overran"):
                await conntrack.change_marks(keys, 0, MASK)
            sender.send("127.0.0.2", 51820)
            (event,) = await listed(conntrack, MARK, MASK)
            assert await conntrack.change_marks([event.key], 0, MASK) == 1

    run(scenario())


def test_an_answer_that_does_not_come_is_missing(
    run: Any, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        with opened_conntrack(namespace, timeout_s=0.5) as conntrack:
            with monkeypatch.context() as patched:
                patched.setattr("gatewayd.kernel.conntrack._Channel.send", lambda *_: None)
                with pytest.raises(ReplyMissing, match="no answer"):
                    await listed(conntrack, MARK, MASK)
            assert await listed(conntrack, MARK, MASK) == []

    run(scenario())


def test_a_request_before_open_is_our_bug(run: Any) -> None:
    with pytest.raises(RuntimeError, match="open"):
        run(Conntrack().change_marks([], 0, MASK))
