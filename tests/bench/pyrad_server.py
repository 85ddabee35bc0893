"""An accounting server as a script has it: pyrad's Server, one process, one packet at a time.

    python -m tests.bench.pyrad_server PORT [NUMBERS]

Keeps the sessions in a dict and answers; nothing is written down. With NUMBERS, a file of registered numbers as
numbered.py writes it, it runs `nft add element` before it answers a Start of one of them, `nft delete element`
before it answers a Stop.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from pyrad.dictionary import Dictionary
from pyrad.packet import AcctPacket
from pyrad.server import RemoteHost, Server

from gatewayd.lab.world import mobile_number
from tests.bench.numbered import read_numbers
from tests.support.radius import SECRET

TABLE, SET = "bench", "subscribers"
START, STOP = 1, 2

_DICTIONARY = """
ATTRIBUTE User-Name 1 string
ATTRIBUTE NAS-IP-Address 4 ipaddr
ATTRIBUTE NAS-Port 5 integer
ATTRIBUTE Service-Type 6 integer
ATTRIBUTE Framed-Protocol 7 integer
ATTRIBUTE Framed-IP-Address 8 ipaddr
ATTRIBUTE Class 25 octets
ATTRIBUTE Called-Station-Id 30 string
ATTRIBUTE Calling-Station-Id 31 string
ATTRIBUTE NAS-Identifier 32 string
ATTRIBUTE Acct-Status-Type 40 integer
ATTRIBUTE Acct-Input-Bytes 42 integer
ATTRIBUTE Acct-Output-Bytes 43 integer
ATTRIBUTE Acct-Session-Id 44 string
ATTRIBUTE Acct-Authentic 45 integer
ATTRIBUTE Acct-Session-Time 46 integer
ATTRIBUTE Acct-Input-Packets 47 integer
ATTRIBUTE Acct-Output-Packets 48 integer
ATTRIBUTE Acct-Terminate-Cause 49 integer
ATTRIBUTE Event-Timestamp 55 integer
ATTRIBUTE NAS-Port-Type 61 integer
ATTRIBUTE Framed-IPv6-Prefix 97 ipv6prefix
"""


class SessionServer(Server):  # type: ignore[misc]
    """`registered`: numbers whose addresses go to the kernel; None: nothing does."""

    def __init__(self, port: int, registered: frozenset[str] | None) -> None:
        hosts = {"0.0.0.0": RemoteHost("0.0.0.0", SECRET, "everybody")}
        super().__init__(
            ["127.0.0.1"], acctport=port, hosts=hosts, dict=Dictionary(io.StringIO(_DICTIONARY)), auth_enabled=False
        )
        self.sessions: dict[str, tuple[str, str]] = {}
        self._registered = registered

    def HandleAcctPacket(self, pkt: AcctPacket) -> None:
        session, number = pkt["Acct-Session-Id"][0], pkt["Calling-Station-Id"][0]
        address = pkt["Framed-IP-Address"][0]
        kind = pkt["Acct-Status-Type"][0]
        if kind == STOP:
            self.sessions.pop(session, None)
        else:
            self.sessions[session] = number, address
        if self._registered is not None and kind in (START, STOP) and number in self._registered:
            verb = "add" if kind == START else "delete"
            command = ["nft", verb, "element", "inet", TABLE, SET, f"{{ {address} }}"]
            subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
        self.SendReplyPacket(pkt.fd, self.CreateReplyPacket(pkt))


def main(arguments: list[str]) -> None:
    port, *files = arguments
    registered = frozenset(f"+{mobile_number(each)}" for each in read_numbers(Path(files[0]))) if files else None
    server = SessionServer(int(port), registered)
    print("listening", flush=True)
    server.Run()


if __name__ == "__main__":
    main(sys.argv[1:])
