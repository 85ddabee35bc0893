"""nfnetlink sockets that events come in on: made, filtered, and asked what they lost."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct

from gatewayd.errors import MissingPrerequisite

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _NETLINK_NO_ENOBUFS, _NETLINK_CAP_ACK = 270, 5, 10
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_MEMINFO, _SK_MEMINFO_DROPS = 26, 33, 55, 8


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
            _NETLINK_NETFILTER,
        )
    except OSError as error:
        if error.errno not in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
            raise
        raise MissingPrerequisite("this kernel has no nfnetlink", "load the module nfnetlink") from None
    try:
        opened.bind((0, 0))
        opened.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
        opened.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        try:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer_bytes)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    except BaseException:
        opened.close()
        raise
    return opened


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
