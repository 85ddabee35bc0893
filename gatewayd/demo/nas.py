"""The demo's NAS: tells the daemon by RADIUS accounting who has which address, and repeats what is not answered."""

from __future__ import annotations

import itertools
import socket
import time
from pathlib import Path
from typing import Any, Final, Self

from pyrad.packet import AccountingRequest, AcctPacket

from gatewayd.lab.lab import INSIDE, Lab
from gatewayd.lab.world import DEMO_PEPPER
from gatewayd.model import parse_address

SERVER: Final = (INSIDE.gateway_addresses[4], 1813)
NAS_NAME: Final = "bng-karachi-1"
SECRET: Final = b"the demo's secret, known to all"
START, STOP, INTERIM = 1, 2, 3
"""Acct-Status-Type (RFC 2866 §5.1)."""

_FRAMED_IP_ADDRESS, _CALLING_STATION_ID, _NAS_IDENTIFIER = 8, 31, 32
_ACCT_STATUS_TYPE, _ACCT_SESSION_ID = 40, 44
_REPEAT_S, _REPEATS = 1.0, 20


def write_subscribers(directory: Path) -> dict[str, Any]:
    """The section `subscribers` of the demo's configuration; its files go to `directory`."""
    for name, content in (("pepper", DEMO_PEPPER), ("radius.secret", SECRET)):
        path = directory / name
        path.touch(0o600)
        path.write_bytes(content + b"\n")
    client = {"address": f"{INSIDE.end_addresses[4]}/32", "secret_file": str(directory / "radius.secret")}
    return {
        "pepper_file": str(directory / "pepper"),
        "radius": {"listen": [f"{SERVER[0]}:{SERVER[1]}"], "clients": [client]},
    }


class DemoNas:
    """On the customers' side of the lab. Each call returns once it is answered; seconds from sending to the answer.

    Raises TimeoutError for a daemon that does not answer.
    """

    def __init__(self, lab: Lab) -> None:
        self._identifiers = itertools.cycle(range(256))
        with lab.customers.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(_REPEAT_S)
        self._socket.connect(SERVER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def tell(self, status: int, session: str, number: str, address: str) -> float:
        """`number`: E.164 digits. `address`: IPv4."""
        packet = AcctPacket(code=AccountingRequest, id=next(self._identifiers), secret=SECRET)
        packet[_ACCT_STATUS_TYPE] = [status.to_bytes(4, "big")]
        packet[_ACCT_SESSION_ID] = [session.encode()]
        packet[_CALLING_STATION_ID] = [f"+{number}".encode()]
        packet[_NAS_IDENTIFIER] = [NAS_NAME.encode()]
        packet[_FRAMED_IP_ADDRESS] = [parse_address(address)]
        raw = packet.RequestPacket()
        began = time.monotonic()
        for _ in range(_REPEATS):
            self._socket.send(raw)
            try:
                while not packet.VerifyReply(AcctPacket(packet=self._socket.recv(4096), secret=SECRET)):
                    pass
            except (TimeoutError, ConnectionRefusedError):
                continue
            return time.monotonic() - began
        raise TimeoutError(f"the daemon did not answer accounting in {_REPEATS * _REPEAT_S:g} s")
