"""A socket on an address that this host may not have yet: at boot the daemon comes before the network."""

from __future__ import annotations

import errno
import socket  # noqa: TID251 - binding is all this module is for
from typing import Final

from gatewayd.log import get_logger

_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78
"""include/uapi/linux/in.h, in6.h; IPv6 since Linux 4.15."""

log = get_logger(__name__)


def bind_ahead(opened: socket.socket, host: str, port: int) -> None:
    """As `bind`. An address that no interface has is bound too: packets come in once one has it. Raises OSError."""
    try:
        opened.bind((host, port))
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        is_ipv6 = opened.family == socket.AF_INET6
        level, option = (socket.IPPROTO_IPV6, _IPV6_FREEBIND) if is_ipv6 else (socket.IPPROTO_IP, _IP_FREEBIND)
        opened.setsockopt(level, option, 1)
        opened.bind((host, port))
        log.warning("daemon.address_absent", host=host, port=port)
