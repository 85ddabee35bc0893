"""The request socket: a datagram socketpair stands in for the kernel, which answers by script."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
import uvloop

from gatewayd.errors import (
    DumpInterrupted,
    KernelError,
    MissingPrerequisite,
    OperationRefused,
    ReplyMissing,
)
from gatewayd.kernel import attributes as nl
from gatewayd.kernel import netlink
from gatewayd.kernel.netlink import NetlinkChannel, RefusedAt, decode_error

MULTI, INTERRUPTED, CAPPED, TLVS = nl.NLM_F_MULTI, nl.NLM_F_DUMP_INTR, 0x100, 0x200
ANSWER = 0xA0C

# Linux 6.18: `delete set` of a set in use, and elements for a set that is not there.
IN_USE = bytes.fromhex("2c000000020000030b0000007c420000f0ffffff300000000b0a05000b000000000000000800020024000000")
NO_SUCH = bytes.fromhex("2c000000020000030b0000007c420000feffffff440000000c0a05040b000000000000000800020024000000")


def raw(kind: int, flags: int, sequence: int, body: bytes = b"") -> bytes:
    padded = body + bytes(-len(body) & 3)
    return nl.MESSAGE_HEADER.pack(16 + len(body), kind, flags, sequence, 0) + padded


def answer(sequence: int, number: int = 0, flags: int = MULTI) -> bytes:
    return nl.message(ANSWER, flags, sequence, 1, 0, nl.be32(1, number))


def ack(sequence: int) -> bytes:
    return raw(nl.NLMSG_ERROR, CAPPED, sequence, struct.pack("=i", 0) + bytes(16))


def refusal(sequence: int, code: int, text: str = "") -> bytes:
    tlvs = nl.text(1, text) if text else b""
    flags = CAPPED | (TLVS if text else 0)
    return raw(nl.NLMSG_ERROR, flags, sequence, struct.pack("=i", -code) + bytes(16) + tlvs)


def done(sequence: int, flags: int = MULTI, code: int = 0) -> bytes:
    return raw(nl.NLMSG_DONE, flags, sequence, struct.pack("=i", -code))


class Kernel:
    """The other end: `replies` are sent, a list of datagrams for each request that comes."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        self.theirs.setblocking(False)
        self.ours: Any = ours
        self.replies: list[list[bytes]] = []
        self.requests: list[bytes] = []
        self.asked = asyncio.Event()
        self.channel = NetlinkChannel(self)  # type: ignore[arg-type]
        self.failures: list[OSError] = []

    def send(self, payload: bytes) -> None:
        if self.failures and self.failures[0].filename == "send":
            raise self.failures.pop(0)
        self.requests.append(payload)
        self.asked.set()
        for datagram in self.replies.pop(0) if self.replies else ():
            self.theirs.send(datagram)

    def recv(self, size: int) -> bytes:
        if self.failures and self.failures[0].filename != "send":
            raise self.failures.pop(0)
        raw: bytes = self.ours.recv(size)
        return raw

    def fileno(self) -> int:
        number: int = self.ours.fileno()
        return number

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    made.channel.close()


async def collect(pieces: AsyncIterator[bytes]) -> list[int]:
    """The numbers in the answers of a dump."""
    numbers = []
    async for datagram in pieces:
        for kind, _, _, start, end in nl.iter_messages(datagram):
            if kind == ANSWER:
                numbers.append(nl.uint_of(nl.attributes_of(datagram, start + 4, end)[1]))
    return numbers


# -- exchanges ---------------------------------------------------------------------------------------------


async def test_an_exchange_ends_with_the_acknowledgement_of_the_last(kernel: Kernel) -> None:
    kernel.replies = [[answer(4), ack(4), answer(5), ack(5)]]
    assert await kernel.channel.exchange(b"request", 4, 5, "test") == [answer(4), answer(5)]
    assert kernel.requests == [b"request"]


async def test_answers_and_acknowledgement_may_come_in_one_datagram(kernel: Kernel) -> None:
    kernel.replies = [[answer(4) + ack(4)]]
    assert await kernel.channel.exchange(b"request", 4, 4, "test") == [answer(4) + ack(4)]


async def test_an_answer_may_come_later(kernel: Kernel) -> None:
    task = asyncio.create_task(kernel.channel.exchange(b"request", 1, 1, "test"))
    await kernel.asked.wait()
    kernel.theirs.send(ack(1))
    assert await task == []


async def test_a_refusal_says_which_message_and_why(kernel: Kernel) -> None:
    kernel.replies = [[ack(4), refusal(6, errno.EBUSY, "Set is in use"), ack(7)]]
    with pytest.raises(RefusedAt) as caught:
        await kernel.channel.exchange(b"request", 4, 7, "add elements")
    error = caught.value
    assert (error.sequence, error.errno, error.detail) == (6, errno.EBUSY, "Set is in use")
    assert str(error) == "add elements: Device or resource busy (Set is in use)"


async def test_stale_replies_are_skipped(kernel: Kernel) -> None:
    """What is left of an exchange that was given up, an error included."""
    kernel.theirs.send(refusal(3, errno.ENOENT))
    kernel.theirs.send(answer(3) + ack(3))
    kernel.replies = [[answer(4), ack(4)]]
    assert await kernel.channel.exchange(b"request", 4, 4, "test") == [answer(4)]


async def test_no_answer_in_time_is_a_missing_reply(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "REPLY_TIMEOUT_S", 0.001)
    with pytest.raises(ReplyMissing, match="commit: no answer within") as caught:
        await kernel.channel.exchange(b"request", 1, 1, "commit")
    assert isinstance(caught.value, KernelError)
    kernel.replies = [[ack(1), ack(2)]]
    assert await kernel.channel.exchange(b"request", 2, 2, "commit") == []


async def test_an_overrun_is_a_missing_reply(kernel: Kernel) -> None:
    kernel.failures = [OSError(errno.ENOBUFS, "No buffer space available")]
    with pytest.raises(ReplyMissing, match="No buffer space available"):
        await kernel.channel.exchange(b"request", 1, 1, "commit")


async def test_what_cannot_be_sent_is_refused(kernel: Kernel) -> None:
    kernel.failures = [OSError(errno.EMSGSIZE, "Message too long", "send")]
    with pytest.raises(OperationRefused) as caught:
        await kernel.channel.exchange(bytes(9), 1, 1, "commit")
    assert (caught.value.errno, caught.value.detail) == (errno.EMSGSIZE, "sending 9 bytes")


async def test_a_cancelled_exchange_lets_the_next_one_go(kernel: Kernel) -> None:
    task = asyncio.create_task(kernel.channel.exchange(b"first", 1, 1, "test"))
    await kernel.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    kernel.replies = [[ack(1), answer(2), ack(2)]]
    assert await kernel.channel.exchange(b"second", 2, 2, "test") == [answer(2)]


async def test_exchanges_take_turns(kernel: Kernel) -> None:
    kernel.replies = [[], [answer(2), ack(2)]]
    first = asyncio.create_task(kernel.channel.exchange(b"first", 1, 1, "test"))
    second = asyncio.create_task(kernel.channel.exchange(b"second", 2, 2, "test"))
    await kernel.asked.wait()
    assert kernel.requests == [b"first"]
    kernel.theirs.send(ack(1))
    assert await first == []
    assert await second == [answer(2)]


# -- dumps -------------------------------------------------------------------------------------------------


async def test_a_dump_gives_its_datagrams_until_done(kernel: Kernel) -> None:
    kernel.replies = [[answer(9, 1) + answer(9, 2), answer(9, 3), answer(9, 4) + done(9)]]
    assert await collect(kernel.channel.dump(b"dump", 9, "list")) == [1, 2, 3, 4]


async def test_an_empty_dump_gives_nothing(kernel: Kernel) -> None:
    kernel.replies = [[done(9)]]
    assert await collect(kernel.channel.dump(b"dump", 9, "list")) == []


@pytest.mark.parametrize("where", ["answer", "done"])
async def test_a_dump_that_was_interrupted_says_so_at_its_end(kernel: Kernel, where: str) -> None:
    last = done(9, MULTI | INTERRUPTED if where == "done" else MULTI)
    kernel.replies = [[answer(9, 1, MULTI | INTERRUPTED if where == "answer" else MULTI), answer(9, 2), last]]
    pieces = kernel.channel.dump(b"dump", 9, "list")
    assert len([await anext(pieces), await anext(pieces)]) == 2
    with pytest.raises(DumpInterrupted, match="list: the kernel changed"):
        await anext(pieces)


async def test_a_refused_dump_says_why(kernel: Kernel) -> None:
    kernel.replies = [[refusal(9, errno.ENOENT, "no such table")]]
    with pytest.raises(OperationRefused, match=r"list: No such file or directory .no such table"):
        await collect(kernel.channel.dump(b"dump", 9, "list"))


async def test_a_dump_that_breaks_off_is_not_taken_for_a_whole_one(kernel: Kernel) -> None:
    """The kernel says why in NLMSG_DONE (netlink_dump_done): the set went while it was listed."""
    kernel.replies = [[answer(9, 1), done(9, code=errno.ENOENT)]]
    with pytest.raises(OperationRefused) as caught:
        await collect(kernel.channel.dump(b"dump", 9, "list"))
    assert (caught.value.operation, caught.value.errno) == ("list", errno.ENOENT)


async def test_replies_to_others_are_skipped_in_a_dump(kernel: Kernel) -> None:
    kernel.theirs.send(answer(8, 7) + done(8))
    kernel.theirs.send(refusal(3, errno.ENOENT))
    kernel.replies = [[answer(9, 1), answer(8, 5) + answer(9, 2), done(9)]]
    assert await collect(kernel.channel.dump(b"dump", 9, "list")) == [1, 5, 2]


async def give_up(kernel: Kernel) -> None:
    kernel.replies.append([answer(9, 1)])
    async with aclosing(kernel.channel.dump(b"dump", 9, "list")) as pieces:  # type: ignore[type-var]
        await anext(pieces)


async def test_what_is_left_of_a_dump_is_read_before_the_next_is_asked_for(kernel: Kernel) -> None:
    """The kernel runs one dump a socket and answers EBUSY to another."""
    await give_up(kernel)
    kernel.replies.append([answer(10, 5), done(10)])
    task = asyncio.create_task(collect(kernel.channel.dump(b"next", 10, "list")))
    for _ in range(3):
        await asyncio.sleep(0)
    assert kernel.requests == [b"dump"]
    for datagram in (answer(9, 2), answer(9, 3) + done(9)):
        kernel.theirs.send(datagram)
    assert await task == [5]


async def test_an_exchange_may_read_the_end_of_a_dump_that_was_given_up(kernel: Kernel) -> None:
    await give_up(kernel)
    kernel.replies += [[answer(9, 2) + done(9), ack(10)], [answer(11, 5), done(11)]]
    assert await kernel.channel.exchange(b"request", 10, 10, "test") == []
    assert await collect(kernel.channel.dump(b"next", 11, "list")) == [5]


async def test_the_rest_of_a_dump_that_never_comes_is_waited_for_once(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await give_up(kernel)
    monkeypatch.setattr(netlink, "REPLY_TIMEOUT_S", 0.001)
    with pytest.raises(ReplyMissing):
        await collect(kernel.channel.dump(b"next", 10, "list"))
    kernel.replies.append([done(11)])
    assert await collect(kernel.channel.dump(b"next", 11, "list")) == []


# -- the rest ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("capture", "code"), [(IN_USE, errno.EBUSY), (NO_SUCH, errno.ENOENT)])
def test_errors_as_the_kernel_sends_them(capture: bytes, code: int) -> None:
    ((kind, flags, sequence, start, _),) = nl.iter_messages(capture)
    assert (kind, sequence) == (nl.NLMSG_ERROR, 11)
    assert decode_error(capture, start, flags) == (code, "", 36)


def test_the_kernels_sentence_is_read_from_the_extended_acknowledgement() -> None:
    raw = refusal(1, errno.EINVAL, "Element size is wrong")
    ((_, flags, _, start, _),) = nl.iter_messages(raw)
    assert decode_error(raw, start, flags) == (errno.EINVAL, "Element size is wrong", None)


def test_sequences_are_taken_once_and_wrap_before_they_are_negative(kernel: Kernel) -> None:
    channel = kernel.channel
    assert [channel.take_sequences(3), channel.take_sequences(1), channel.take_sequences(1)] == [1, 4, 5]
    channel._sequence = 0x7FFF_0000 - 1
    assert channel.take_sequences(1) == 0x7FFF_0000
    assert channel.take_sequences(2) == 1
    assert channel.take_sequences(1) == 3


def test_a_kernel_without_netfilter_netlink_is_a_missing_prerequisite(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(MissingPrerequisite, match="nfnetlink"):
        NetlinkChannel.open()


class Older(socket.socket):
    """Of a kernel without some of the options."""

    lacking: frozenset[tuple[int, int]] = frozenset()

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        if (level, option) in self.lacking:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        super().setsockopt(level, option, *value)

    def getsockopt(self, level: int, option: int, *size: Any) -> Any:
        if (level, option) in self.lacking:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        return super().getsockopt(level, option, *size)


def test_a_kernel_without_short_answers_is_good_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Older, "lacking", frozenset({(270, 10), (270, 11)}))
    monkeypatch.setattr(socket, "socket", Older)
    NetlinkChannel.open().close()
    netlink.open_netfilter_socket(4096).close()


def test_a_kernel_that_counts_no_losses_is_a_missing_prerequisite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Older, "lacking", frozenset({(socket.SOL_SOCKET, 55)}))
    monkeypatch.setattr(socket, "socket", Older)
    with pytest.raises(MissingPrerequisite, match="does not count what a netlink socket loses"):
        netlink.open_netfilter_socket(4096)


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_waiting_works_on_either_loop(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def scenario() -> list[int]:
        kernel = Kernel()
        task = asyncio.create_task(collect(kernel.channel.dump(b"dump", 1, "list")))
        await kernel.asked.wait()
        kernel.theirs.send(answer(1, 1))
        await asyncio.sleep(0)
        kernel.theirs.send(answer(1, 2) + done(1))
        try:
            return await task
        finally:
            kernel.channel.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(scenario()) == [1, 2]
