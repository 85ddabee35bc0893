"""Sockets to nfnetlink: one for requests, driven by the event loop's `add_reader` (uvloop included), and those that
events come in on.

A request socket does one exchange at a time: a request, then its replies. A reply that belongs to nothing asked for
is a leftover of an exchange that was given up, and is skipped by its sequence number.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext, suppress
from struct import Struct

from gatewayd.errors import DumpInterrupted, MissingPrerequisite, OperationRefused, ReplyMissing
from gatewayd.kernel import attributes as nl

NETLINK_NETFILTER = 12
SOL_NETLINK = 270
_NETLINK_NO_ENOBUFS, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 5, 10, 11
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_MEMINFO, _SK_MEMINFO_DROPS = 26, 33, 55, 8
_NLM_F_ACK_TLVS = 0x200
_ERROR_TEXT, _ERROR_OFFSET = 1, 2

RECEIVE_BYTES = 1 << 18
"""A dump comes in pieces of at most 32 KiB; an error carries the header of its cause only (NETLINK_CAP_ACK)."""
SEND_BUFFER_BYTES = 1 << 20
REPLY_TIMEOUT_S = 30.0
"""A commit of a bounded transaction takes milliseconds; another program's long one holds the same lock."""

_OFFSET = Struct("=I")
_NOTHING: AbstractContextManager[None] = nullcontext()


class NetlinkChannel:
    """A request socket. `open` at once, so that a caller may be in the network namespace that is meant."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sequence = 0
        self._dumping = 0
        """Sequence of a dump that the kernel has not ended yet; it refuses another until then (EBUSY)."""
        self._lock = asyncio.Lock()

    @classmethod
    def open(cls) -> NetlinkChannel:
        """Raises MissingPrerequisite when this kernel has no nfnetlink."""
        try:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        except OSError as error:
            raise MissingPrerequisite(
                f"this kernel offers no netfilter netlink socket ({error.strerror})",
                "load the module nfnetlink or use a kernel with CONFIG_NETFILTER_NETLINK",
            ) from None
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        _ask_for_short_answers(sock)
        sock.bind((0, 0))
        return cls(sock)

    def close(self) -> None:
        self._sock.close()

    @property
    def port(self) -> int:
        """The netlink port that the kernel knows the socket by."""
        return int(self._sock.getsockname()[0])

    def take_sequences(self, count: int) -> int:
        """The first of `count` sequence numbers that no other exchange of this socket uses."""
        first = self._sequence + 1
        self._sequence += count
        if self._sequence > 0x7FFF_0000:
            first, self._sequence = 1, count
        return first

    async def exchange(
        self,
        payload: bytes,
        first: int,
        last: int,
        name: str,
        during: AbstractContextManager[None] = _NOTHING,
    ) -> list[bytes]:
        """Send messages numbered first..last and wait for the acknowledgement of the last.

        Every exchange asks for one (NLM_F_ACK). Returns the datagrams with answers that came before it. The
        kernel does all of the work within the sending, and `during` is in force for just that.
        Raises RefusedAt for the first error, ReplyMissing when the answer is lost or late.
        """
        async with self._lock:
            # The kernel answers within `send`, so nothing below would ever wait: the loop gets its turn here.
            await asyncio.sleep(0)
            with during:
                self._send(payload, name)
            answers: list[bytes] = []
            while True:
                datagram = await self._receive(name)
                for kind, flags, sequence, start, _ in nl.iter_messages(datagram):
                    if not first <= sequence <= last:
                        self._note_end(kind, sequence)
                        continue
                    if kind != nl.NLMSG_ERROR:
                        answers.append(datagram)
                        continue
                    code, text, offset = decode_error(datagram, start, flags)
                    if code:
                        raise RefusedAt(name, code, text, sequence, offset)
                    if sequence == last:
                        return answers

    async def ask_each(self, payload: bytes, first: int, count: int, name: str) -> list[int]:
        """Send `count` requests that are numbered from `first` and have one answer each, asked for none more; the
        errno of each answer, 0 where it is what was asked for. Raises ReplyMissing."""
        async with self._lock:
            await asyncio.sleep(0)
            self._send(payload, name)
            numbers: dict[int, int] = {}
            while len(numbers) < count:
                datagram = await self._receive(name)
                for kind, flags, sequence, start, _ in nl.iter_messages(datagram):
                    if first <= sequence < first + count:
                        is_error = kind == nl.NLMSG_ERROR
                        numbers[sequence] = decode_error(datagram, start, flags)[0] if is_error else 0
                    else:
                        self._note_end(kind, sequence)
            return [numbers[first + place] for place in range(count)]

    async def dump(self, payload: bytes, sequence: int, name: str) -> AsyncIterator[bytes]:
        """The datagrams of a dump, as they come; the loop gets a turn between them.

        Raises DumpInterrupted at the end when the kernel says that it changed meanwhile (NLM_F_DUMP_INTR).
        What is left of an earlier dump that was given up is read to its end first.
        """
        async with self._lock:
            await self._finish_dump(name)
            self._send(payload, name)
            self._dumping = sequence
            interrupted = done = False
            broken_off = 0
            while not done:
                datagram = await self._receive(name)
                payloads = 0
                for kind, flags, number, start, end in nl.iter_messages(datagram):
                    if number != sequence:
                        continue
                    self._note_end(kind, number)
                    interrupted = interrupted or bool(flags & nl.NLM_F_DUMP_INTR)
                    if kind == nl.NLMSG_ERROR:
                        code, text, _ = decode_error(datagram, start, flags)
                        raise OperationRefused(name, code, text)
                    if kind == nl.NLMSG_DONE:
                        done = True
                        broken_off = nl.errno_in(datagram, start, end) if end > start else 0
                    payloads += kind != nl.NLMSG_DONE
                if payloads:
                    yield datagram
                    await asyncio.sleep(0)
            if broken_off:
                raise OperationRefused(name, broken_off, "in the middle of the dump")
            if interrupted:
                raise DumpInterrupted(name)

    async def _finish_dump(self, name: str) -> None:
        while self._dumping:
            try:
                datagram = await self._receive(name)
            except ReplyMissing:
                self._dumping = 0
                raise
            for kind, _, sequence, _, _ in nl.iter_messages(datagram):
                self._note_end(kind, sequence)

    def _note_end(self, kind: int, sequence: int) -> None:
        if sequence == self._dumping and kind in (nl.NLMSG_DONE, nl.NLMSG_ERROR):
            self._dumping = 0

    def _send(self, payload: bytes, name: str) -> None:
        try:
            self._sock.send(payload)
        except OSError as error:
            raise OperationRefused(name, error.errno or errno.EIO, f"sending {len(payload)} bytes") from None

    async def _receive(self, name: str) -> bytes:
        deadline = asyncio.timeout(REPLY_TIMEOUT_S)
        try:
            async with deadline:
                while True:
                    try:
                        return self._sock.recv(RECEIVE_BYTES)
                    except BlockingIOError:
                        await readable(self._sock)
        except TimeoutError:
            raise ReplyMissing(name, f"no answer within {REPLY_TIMEOUT_S:g} s") from None
        except OSError as error:
            raise ReplyMissing(name, error.strerror or str(error)) from None


class RefusedAt(OperationRefused):
    """OperationRefused that knows which message of a batch was refused, and what in it was wrong: `offset` is the
    bytes from the message's header to an attribute, None where the kernel does not say."""

    def __init__(self, operation: str, code: int, detail: str, sequence: int, offset: int | None) -> None:
        self.sequence = sequence
        self.offset = offset
        super().__init__(operation, code, detail)


def _ask_for_short_answers(sock: socket.socket) -> None:
    """Errors with the header of their cause alone, and with the kernel's words. A kernel without these (4.3, 4.12)
    sends the whole cause back, and its errno."""
    for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
        with suppress(OSError):
            sock.setsockopt(SOL_NETLINK, option, 1)


def decode_error(datagram: bytes, start: int, flags: int) -> tuple[int, str, int | None]:
    """(errno, kernel's sentence, offset of the attribute it is about) of an NLMSG_ERROR; errno 0 is an
    acknowledgement. Raises EventMalformed. include/uapi/linux/netlink.h: enum nlmsgerr_attrs."""
    end = start - 16 + nl.MESSAGE_HEADER.unpack_from(datagram, start - 16)[0]
    code = nl.errno_in(datagram, start, end)
    text, offset = "", None
    if flags & _NLM_F_ACK_TLVS:
        # struct nlmsgerr: the code, then the header of the message that caused it (NETLINK_CAP_ACK).
        for kind, low, high in nl.iter_attributes(datagram, start + 20, end):
            if kind == _ERROR_TEXT:
                text = nl.string_of(datagram[low:high])
            elif kind == _ERROR_OFFSET and high - low == 4:
                offset = _OFFSET.unpack_from(datagram, low)[0]
    return code, text, offset


async def readable(sock: socket.socket) -> None:
    """Until there is something to receive."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()
    loop.add_reader(sock.fileno(), _wake, waiter)
    try:
        await waiter
    finally:
        loop.remove_reader(sock.fileno())


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def open_netfilter_socket(receive_buffer_bytes: int) -> socket.socket:
    """A bound, non-blocking nfnetlink socket of the current network namespace.

    Overruns do not raise ENOBUFS on it, they add to `dropped_messages` (gatewayd.watch says why). The
    buffer may be smaller than asked for where the caller may not pass net.core.rmem_max. Raises
    MissingPrerequisite when the kernel has no nfnetlink.
    """
    try:
        opened = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            NETLINK_NETFILTER,
        )
    except OSError as error:
        if error.errno not in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
            raise
        raise MissingPrerequisite("this kernel has no nfnetlink", "load the module nfnetlink") from None
    try:
        opened.bind((0, 0))
        opened.setsockopt(SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
        _ask_for_short_answers(opened)
        _check_drops_are_counted(opened)
        try:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer_bytes)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    except BaseException:
        opened.close()
        raise
    return opened


def _check_drops_are_counted(opened: socket.socket) -> None:
    """Raises MissingPrerequisite: a loss of events must not go unnoticed."""
    try:
        dropped_messages(opened)
    except OSError:
        raise MissingPrerequisite(
            "this kernel does not count what a netlink socket loses (SO_MEMINFO)", "use Linux 4.12 or newer"
        ) from None


def dropped_messages(opened: socket.socket) -> int:
    """How many messages the kernel could not put into this socket's buffer so far (modulo 2³²)."""
    size = 4 * (_SK_MEMINFO_DROPS + 1)
    return int(struct.unpack("=9I", opened.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, size))[_SK_MEMINFO_DROPS])


def attach_filter(opened: socket.socket, packed: bytes) -> None:
    """Classic BPF, as an array of struct sock_filter (include/uapi/linux/filter.h).

    SO_ATTACH_FILTER takes a struct sock_fprog: number of instructions, pointer to them.
    """
    instructions = ctypes.create_string_buffer(packed, len(packed))
    program = struct.pack("@HP", len(packed) // 8, ctypes.addressof(instructions))
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
