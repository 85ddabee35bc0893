"""Which interfaces there are, and a thread that notices when one comes or goes (rtnetlink, RTNLGRP_LINK).

A gateway has thousands of PPP interfaces, and all of them may come at once. Measured on 6.18 with 5,000 links, two
cores: `socket.if_nameindex` holds the interpreter for 23 ms, and for as long as another program has RTNL; the dump
here lets it go between reads. pyroute2 decodes a notification in 0.29 ms, and its queue of them has no bound. So no
notification is decoded: the first one says that something changed, the socket is closed, and the names are read
again once a pause is over. A storm costs a list of the names for each pause, however many interfaces it has.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from select import select
from typing import Final, TypeVar

from gatewayd.kernel import attributes as nl

PAUSE_S: Final = 1.0
"""Between two looks."""
LOOK_EVERY_S: Final = 60.0
"""A look without a notification."""
DUMP_TIMEOUT_S: Final = 10.0
_RTM_NEWLINK, _RTM_GETLINK = 16, 18
_IFLA_IFNAME, _IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS = 3, 29, 8
_IFINFOMSG = struct.Struct("=BxHiII")
_DUMP_BYTES = 1 << 16
_T = TypeVar("_T")


def read_interfaces() -> tuple[str, ...]:
    """Names of all interfaces in the calling thread's network namespace (RTM_GETLINK). Raises OSError, and
    EventMalformed where an answer does not parse.

    An alternative name (`ip link property add … altname`) is none of them: rules do not compare with it.
    """
    mask = nl.attribute(_IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_SKIP_STATS))
    body = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + mask
    header = nl.MESSAGE_HEADER.pack(16 + len(body), _RTM_GETLINK, nl.NLM_F_REQUEST | nl.NLM_F_DUMP, 1, 0)
    names: list[str] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as asking:
        asking.settimeout(DUMP_TIMEOUT_S)
        asking.send(header + body)
        while True:
            datagram = asking.recv(_DUMP_BYTES)
            for kind, _, _, start, end in nl.iter_messages(datagram):
                if kind == nl.NLMSG_DONE:
                    return tuple(names)
                if kind == nl.NLMSG_ERROR:
                    number = nl.errno_in(datagram, start, end)
                    raise OSError(number, f"list links: {os.strerror(number)}")
                if kind == _RTM_NEWLINK:
                    names += _names_in(datagram, start + _IFINFOMSG.size, end)


def _names_in(datagram: bytes, start: int, end: int) -> list[str]:
    """The name is the first attribute (net/core/rtnetlink.c: rtnl_fill_ifinfo)."""
    for kind, low, high in nl.iter_attributes(datagram, start, end):
        if kind == _IFLA_IFNAME:
            return [nl.string_of(datagram[low:high])]
    return []


async def follow_links(look: Callable[[], _T], take: Callable[[_T], None]) -> None:
    """Call `look` in a thread of its own, at once and after each change of the links, and `take` in the loop with
    the result. Until cancelled; raises what ended the thread."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    stop, stopping = os.pipe()

    def end(error: BaseException | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            _follow(stop, look, lambda found: loop.call_soon_threadsafe(take, found))
        except BaseException as failure:
            error = failure
        finally:
            os.close(stop)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(end, error)

    threading.Thread(target=run, name="links", daemon=True).start()
    try:
        await ended
    finally:
        os.close(stopping)


def _follow(stop: int, look: Callable[[], _T], tell: Callable[[_T], object]) -> None:
    """Until `stop` can be read. In the network namespace of the calling thread."""
    # Imported here: 0.15 s and 7 MB, which a daemon without named interfaces does not need.
    from pyroute2 import IPRoute
    from pyroute2.netlink.rtnl import RTMGRP_LINK

    while True:
        with IPRoute() as notifications:
            notifications.bind(groups=RTMGRP_LINK)
            tell(look())  # what changes from here on is notified
            readable, _, _ = select([notifications.fileno(), stop], [], [], LOOK_EVERY_S)
        if stop in readable or select([stop], [], [], PAUSE_S)[0]:
            return
