"""A flood of an accounting port on the loopback, from a process of its own. It ends by itself.

    python -m tests.support.flooding PORT SECONDS STRANGERS_PER_S FORGED_PER_S

Strangers send from changing addresses of 127.8.0.0/16. Forged datagrams come from 127.0.0.1, with 2,038 attributes
and a wrong authenticator: the longest that RADIUS has, and the costliest to parse. Prints how many of each it sent.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

MAX_SECONDS = 60.0
TICK_S = 0.002
_IP_PKTINFO = 8


def flood(port: int, seconds: float, strangers_per_s: int, forged_per_s: int) -> tuple[int, int]:
    short = b"\x04\x07\x00\x14" + bytes(16)
    long = b"\x04\x07\x10\x00" + bytes(16) + b"\x08\x02" * 2038
    strangers = forged = 0
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_source,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        any_source.connect(("127.0.0.1", port))
        client.bind(("127.0.0.1", 0))
        client.connect(("127.0.0.1", port))
        sources = [
            [
                (
                    socket.IPPROTO_IP,
                    _IP_PKTINFO,
                    struct.pack("=I4s4s", 0, bytes([127, 8, each >> 8, each & 255]), bytes(4)),
                )
            ]
            for each in range(1, 5000)
        ]
        began_s = time.monotonic()
        while (passed_s := time.monotonic() - began_s) < min(seconds, MAX_SECONDS):
            while strangers < passed_s * strangers_per_s:
                any_source.sendmsg((short,), sources[strangers % len(sources)])
                strangers += 1
                if strangers % 500 == 0 and time.monotonic() - began_s > MAX_SECONDS:
                    break
            while forged < passed_s * forged_per_s:
                client.send(long)
                forged += 1
            time.sleep(TICK_S)
    return strangers, forged


if __name__ == "__main__":
    port, seconds, strangers_per_s, forged_per_s = sys.argv[1:]
    print(*flood(int(port), float(seconds), int(strangers_per_s), int(forged_per_s)))
