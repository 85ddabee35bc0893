"""Requests to connection tracking, on sockets of our own: dump by mark, change marks.

Opening is synchronous, so that it can happen inside a network namespace. The kernel answers a request within
`sendmsg`; only a dump goes on afterwards, a bufferful for each `recv`. A dump that looks for few connections
among a million walks the whole table inside one such call, so the calls of a dump run in a thread.

Dumps and changes have a socket each: marks can be changed while the list of them is still being read.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator, Callable, Iterable
from itertools import islice
from typing import TypeVar

from gatewayd.errors import DumpInterrupted, OperationRefused, ReplyMissing
from gatewayd.kernel.attributes import NLMSG_DONE, NLMSG_ERROR
from gatewayd.kernel.conntrack_codec import (
    AF_UNSPEC,
    ConnectionBatch,
    ControlMessage,
    decode_connections,
    encode_dump,
    encode_mark_change,
    errno_of,
    key_of_flow,
)
from gatewayd.kernel.netlink import dropped_messages, open_netfilter_socket, readable
from gatewayd.model import Flow
from gatewayd.model.flow import ConnectionEvent, ConnectionKey

CHANGES_PER_SEND = 128
REPLY_TIMEOUT_S = 5.0
"""Mark changes in one `send`: well under a millisecond in the kernel, and no more answers than fit."""
_MAX_DATAGRAM_BYTES = 1 << 16
_T = TypeVar("_T")


class _Channel:
    """One socket and the requests on it, one after another.

    `sequence`: of the latest request. `dumping`: it is a dump, and its end was not read yet.
    """

    def __init__(self, receive_buffer_bytes: int) -> None:
        self.socket = open_netfilter_socket(receive_buffer_bytes)
        self.lock = asyncio.Lock()
        self.sequence = 0
        self.dumping = False
        self._drops = 0
        self._buffer = bytearray(_MAX_DATAGRAM_BYTES)

    def next_sequence(self) -> int:
        self.sequence = self.sequence % 0xFFFFFFFF + 1
        return self.sequence

    def send(self, operation: str, raw: bytes) -> None:
        try:
            self.socket.send(raw)
        except OSError as error:
            self.dumping = False
            raise OperationRefused(operation, error.errno or 0) from None

    def receive_now(self, operation: str) -> ConnectionBatch | None:
        """The next datagram, None when there is none yet. Raises ReplyMissing when answers were lost."""
        try:
            size = self.socket.recv_into(self._buffer, 0, socket.MSG_TRUNC)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ReplyMissing(operation, error.strerror or str(error)) from None
        batch = decode_connections(memoryview(self._buffer)[:size])
        for control in batch.controls:
            if control.kind in (NLMSG_DONE, NLMSG_ERROR) and control.sequence == self.sequence:
                self.dumping = False
        drops, self._drops = self._drops, dropped_messages(self.socket)
        if drops != self._drops:
            raise ReplyMissing(operation, "the receive buffer overran")
        if size > len(self._buffer):
            raise ReplyMissing(operation, f"an answer of {size} bytes does not fit")
        return batch

    async def receive(self, operation: str, timeout_s: float, *, in_thread: bool = False) -> ConnectionBatch:
        """The next datagram. Raises ReplyMissing when none comes in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    if in_thread:
                        batch = await _complete_in_thread(self.receive_now, operation)
                    else:
                        batch = self.receive_now(operation)
                    if batch is not None:
                        return batch
                    await readable(self.socket)
        except TimeoutError:
            raise ReplyMissing(operation, f"no answer in {timeout_s:g} s") from None


async def _complete_in_thread(call: Callable[..., _T], *arguments: object) -> _T:
    """As asyncio.to_thread, but a cancelled caller waits too: two threads never share one channel."""
    work = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


class Conntrack:
    """Connection tracking of one network namespace: the one that `open` was called in.

    `timeout_s` bounds the wait for each answer; None: REPLY_TIMEOUT_S. Every method may raise OperationRefused (the
    kernel said no) and ReplyMissing (its answer did not come, or was lost: the operation may or may not stand).
    """

    def __init__(self, *, receive_buffer_bytes: int = 4 << 20, timeout_s: float | None = None) -> None:
        self._receive_buffer_bytes = receive_buffer_bytes
        self._timeout_s = REPLY_TIMEOUT_S if timeout_s is None else timeout_s
        self._channels: tuple[_Channel, _Channel] | None = None

    def open(self) -> None:
        """Raises MissingPrerequisite where there is no nfnetlink."""
        first = _Channel(self._receive_buffer_bytes)
        try:
            self._channels = first, _Channel(self._receive_buffer_bytes)
        except BaseException:
            first.socket.close()
            raise

    def close(self) -> None:
        for channel in self._channels or ():
            channel.socket.close()
        self._channels = None

    def _open_channels(self) -> tuple[_Channel, _Channel]:
        if self._channels is None:
            raise RuntimeError("open() comes before requests")
        return self._channels

    async def dump(
        self, *, mark: int, mask: int, family: int = AF_UNSPEC,
        source: bytes | None = None, answered_by: bytes | None = None,
    ) -> AsyncGenerator[list[ConnectionEvent], None]:  # fmt: skip
        """The connections with `ct mark & mask == mark`, in batches of up to 32 KiB of the kernel's bytes; with
        `source` only those that this address opened, with `answered_by` only those that it answers.

        Raises DumpInterrupted at the end, after all that was read, when the table changed underneath.
        Connections that begin during the dump may be missing and a connection may come twice. Wrap it in
        `contextlib.aclosing` where the loop over it may be left early.
        """
        operation = "dump connections"
        channel = self._open_channels()[0]
        async with channel.lock:
            await self._finish_dump(channel)
            sequence = channel.next_sequence()
            channel.dumping = True
            request = encode_dump(sequence, mark, mask, family, source, answered_by)
            await _complete_in_thread(channel.send, operation, request)
            interrupted = False
            while channel.dumping:
                batch = await channel.receive(operation, self._timeout_s, in_thread=True)
                interrupted |= batch.interrupted
                _raise_refusal(operation, sequence, batch.controls)
                if batch.events:
                    yield batch.events
            if interrupted:
                raise DumpInterrupted(operation)

    async def _finish_dump(self, channel: _Channel) -> None:
        """Read the rest of a dump that was left early: the kernel allows no second one beside it."""
        try:
            while channel.dumping:
                await channel.receive("dump connections", self._timeout_s, in_thread=True)
        except ReplyMissing:
            channel.dumping = False  # its end was lost; if it does go on, the kernel refuses ours (EBUSY)

    async def change_marks(self, connections: Iterable[ConnectionKey], value: int, mask: int) -> int:
        """Set the bits of `mask` in the mark of each connection to `value`; how many were there to change.

        On OperationRefused the connections before and after the refused one of the same send were still changed.
        """
        keys = list(connections)
        return len(keys) - len(await self.change_known_marks(keys, value, mask))

    async def change_known_marks(
        self, connections: Iterable[ConnectionKey], value: int, mask: int
    ) -> list[ConnectionKey]:
        """As `change_marks`; returns those that were not there to change."""
        channel = self._open_channels()[1]
        keys = iter(connections)
        missing: list[ConnectionKey] = []
        async with channel.lock:
            while some := list(islice(keys, CHANGES_PER_SEND)):
                missing += await self._change_some(channel, some, value, mask)
                await asyncio.sleep(0)
        return missing

    async def _change_some(
        self, channel: _Channel, keys: list[ConnectionKey], value: int, mask: int
    ) -> list[ConnectionKey]:
        """One send; the keys that nothing was found by. Only failures and the last change are answered: an answer
        to the last is the end."""
        operation = "change connection marks"
        pending = {channel.next_sequence(): key for key in keys}
        last = channel.sequence
        channel.send(
            operation,
            b"".join(
                encode_mark_change(sequence, key, value, mask, acknowledge=sequence == last)
                for sequence, key in pending.items()
            ),
        )
        ended: list[ConnectionKey] = []
        refused = 0
        while last in pending:
            batch = await channel.receive(operation, self._timeout_s)
            for control in batch.controls:
                key = pending.pop(control.sequence, None) if control.kind == NLMSG_ERROR else None
                if key is None:
                    continue  # the answer to an earlier request that we no longer waited for
                number = errno_of(control)
                if number == errno.ENOENT:
                    ended.append(key)
                if number not in (0, errno.ENOENT):
                    refused = number
        if refused:
            raise OperationRefused(operation, refused)
        return ended

    def key_of(self, flow: Flow) -> ConnectionKey | None:
        """What the kernel finds the flow's connection by, if it was opened so; None for GRE (`key_of_flow`)."""
        return key_of_flow(flow)


def _raise_refusal(operation: str, sequence: int, controls: list[ControlMessage]) -> None:
    for control in controls:
        if control.kind in (NLMSG_ERROR, NLMSG_DONE) and control.sequence == sequence and errno_of(control):
            raise OperationRefused(operation, errno_of(control))
