"""A program for which the kernel lacks a feature: its system calls for it fail, as on a kernel that has none.

    python -m tests.proof.faults.without FEATURE COMMAND [ARGUMENT…]

Seccomp gives the errno that an older or smaller kernel gives; children inherit it. What a system call does not show
(the payload of a netlink message) is left to `tests.proof.faults.lacking`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from struct import pack
from typing import Final

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
"""include/uapi/linux/prctl.h, seccomp.h."""
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER_AT, _ARGUMENTS_AT = 0, 16
"""struct seccomp_data: the number, the architecture, the instruction pointer, then six arguments of 64 bits."""
NUMBERS: Final[dict[str, dict[str, int]]] = {
    "x86_64": {
        "socket": 41, "setsockopt": 54, "getsockopt": 55, "adjtimex": 159, "unshare": 272, "inotify_init1": 294,
        "memfd_create": 319,
    },
    "aarch64": {
        "socket": 198, "setsockopt": 208, "getsockopt": 209, "adjtimex": 171, "unshare": 97, "inotify_init1": 26,
        "memfd_create": 279,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refused:
    """A system call that fails with `number` where each of `arguments` (place → value) is so, or has one of the
    bits of `bits` set."""

    call: str
    number: int
    arguments: tuple[tuple[int, int], ...] = ()
    bits: tuple[tuple[int, int], ...] = ()


_SOL_SOCKET, _SOL_NETLINK = 1, 270
FEATURES: Final[dict[str, tuple[Refused, ...]]] = {
    "extended-acknowledgements": (
        Refused("setsockopt", errno.ENOPROTOOPT, ((1, _SOL_NETLINK), (2, 10))),
        Refused("setsockopt", errno.ENOPROTOOPT, ((1, _SOL_NETLINK), (2, 11))),
    ),
    # Done, says the kernel, and nothing is: the buffer stays at net.core.rmem_default.
    "receive-buffers": tuple(Refused("setsockopt", 0, ((1, _SOL_SOCKET), (2, option))) for option in (8, 33)),
    "drop-counters": (Refused("getsockopt", errno.ENOPROTOOPT, ((1, _SOL_SOCKET), (2, 55))),),
    "sealed-memory-files": (Refused("memfd_create", errno.EINVAL, bits=((1, 8),)),),
    "inotify": (Refused("inotify_init1", errno.EMFILE),),
    "namespaces": (Refused("unshare", errno.EPERM),),
    "ipv6-sockets": (Refused("socket", errno.EAFNOSUPPORT, ((0, 10),)),),
    "clock-state": (Refused("adjtimex", errno.EPERM),),
}


def program_of(refused: Iterable[Refused], machine: str) -> bytes:
    """Classic BPF over struct seccomp_data, as an array of struct sock_filter."""
    program: list[tuple[int, int, int, int]] = []
    for each in refused:
        tests = [(_EQUAL, _ARGUMENTS_AT + 8 * place, value) for place, value in each.arguments]
        tests += [(_ANY_BIT, _ARGUMENTS_AT + 8 * place, value) for place, value in each.bits]
        tests.insert(0, (_EQUAL, _NUMBER_AT, NUMBERS[machine][each.call]))
        for number, (test, at, value) in enumerate(tests):
            # Past the tests that are left, and past the end of this block.
            program += [(_LOAD, 0, 0, at), (test, 0, 2 * (len(tests) - number - 1) + 1, value)]
        program.append((_RETURN, 0, 0, _ERRNO | each.number))
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(pack("=HBBI", *instruction) for instruction in program)


def forbid(refused: Iterable[Refused]) -> None:
    """From now on, for this thread and all that it starts."""
    packed = program_of(refused, platform.machine())
    instructions = ctypes.create_string_buffer(packed, len(packed))
    program = ctypes.create_string_buffer(pack("@HP", len(packed) // 8, ctypes.addressof(instructions)))
    libc = ctypes.CDLL(None, use_errno=True)
    for words in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)):
        if libc.prctl(*words):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    forbid(FEATURES[sys.argv[1]])
    os.execvp(sys.argv[2], sys.argv[2:])
