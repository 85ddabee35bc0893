"""UDP sockets of the accounting port: bound, shielded, and answered from the address that was asked. IO.

A gateway has many addresses, and a sender takes an answer only from the one that it asked. So each answer leaves
from the address that its request came to: IP_PKTINFO and IPV6_RECVPKTINFO say which (ip(7), RFC 3542 §6.2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket  # noqa: TID251 - accounting comes in by UDP, and this module has its sockets
import struct
from typing import Any, Final, TypeAlias

from gatewayd.errors import MissingPrerequisite
from gatewayd.listen.ahead import bind_ahead

RECEIVE_BUFFER_BYTES: Final = 8 << 20
"""The kernel doubles it and charges a request of 300 bytes with 1280 (loopback, 6.18): room for some 13 000."""
ANCILLARY_BYTES: Final = socket.CMSG_SPACE(20)
"""One in_pktinfo (12) or in6_pktinfo (20)."""

_IP_PKTINFO, _SO_RCVBUFFORCE, _SO_MEMINFO, _SK_MEMINFO_DROPS = 8, 33, 55, 8
_SO_ATTACH_FILTER, _SO_DETACH_FILTER, _INSTRUCTION_BYTES = 26, 27, 8
_MULTICAST, _LINK_LOCAL = 0xFF, 0xFE

SocketAddress: TypeAlias = tuple[Any, ...]
"""As the socket module has it: (host, port) or (host, port, flow, scope); host is an IP address."""
Ancillary: TypeAlias = list[tuple[int, int, bytes]]


def bind_udp(host: str, port: int) -> socket.socket:
    """A bound, non-blocking UDP socket that reports where datagrams came to. Raises MissingPrerequisite.

    IPv6 is IPv6 alone, so that `0.0.0.0` and `::` may both be listened on.
    """
    is_ipv6 = ":" in host
    shown = f"[{host}]:{port}" if is_ipv6 else f"{host}:{port}"
    try:
        opened = socket.socket(
            socket.AF_INET6 if is_ipv6 else socket.AF_INET,
            socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
        )
    except OSError as error:
        raise _cannot_listen(shown, error) from None
    try:
        if is_ipv6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            opened.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        try:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        bind_ahead(opened, host, port)
    except OSError as error:
        opened.close()
        raise _cannot_listen(shown, error) from None
    return opened


def attach_filter(opened: socket.socket, program: bytes) -> bool:
    """Datagrams that the program refuses take no room and wake nobody (socket(7), `struct sock_fprog`). Whether the
    kernel takes it: net.core.optmem_max bounds its length."""
    kept = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // _INSTRUCTION_BYTES, ctypes.addressof(kept))
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
    except OSError:
        return False
    return True


def detach_filter(opened: socket.socket) -> None:
    """Everything comes in again."""
    opened.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def answer_ancillary(ancillary: Ancillary) -> Ancillary:
    """What sendmsg needs for the answer to leave from the address that the request came to.

    The interface is left to routing, as the way back may be another; not so for a link-local address, which means
    nothing without one. No answer can leave from a multicast address: routing chooses.
    """
    for level, kind, packed in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            return [(level, kind, bytes(4) + packed[4:8] + bytes(4))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and packed[0] != _MULTICAST:
            is_link_local = packed[0] == _LINK_LOCAL and packed[1] & 0xC0 == 0x80
            return [(level, kind, packed if is_link_local else packed[:16] + bytes(4))]
    return []


def dropped_datagrams(opened: socket.socket) -> int:
    """sock_diag(7), SK_MEMINFO_DROPS, modulo 2³². Asked once a batch; SO_RXQ_OVFL would be a message more with
    each datagram, and silent after the last."""
    size = 4 * (_SK_MEMINFO_DROPS + 1)
    return int(struct.unpack("=9I", opened.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, size))[_SK_MEMINFO_DROPS])


def _cannot_listen(shown: str, error: OSError) -> MissingPrerequisite:
    remedy = "change subscribers.radius.listen"
    if error.errno == errno.EADDRINUSE:
        return MissingPrerequisite(
            f"{shown} (RADIUS accounting) is in use by another program (a RADIUS server, another gatewayd)",
            f"stop it or {remedy}",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return MissingPrerequisite(
            f"{shown} (RADIUS accounting) is no address of this host", f"give it to an interface or {remedy}"
        )
    if error.errno == errno.EACCES:
        return MissingPrerequisite(
            f"{shown} (RADIUS accounting): a port below 1024 needs CAP_NET_BIND_SERVICE", f"use 1813 or {remedy}"
        )
    why = os.strerror(error.errno) if error.errno is not None else str(error)
    return MissingPrerequisite(f"cannot listen on {shown} (RADIUS accounting): {why}", remedy)
