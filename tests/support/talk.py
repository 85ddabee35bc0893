"""Packets of either side of a lab, one at a time, and what became of each; rules without a daemon."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Literal, Self

from gatewayd.kernel.tables import KernelTables
from gatewayd.lab.lab import Lab, Side
from gatewayd.lab.packets import refused_packet
from gatewayd.lab.tap import Tap, Tokens
from gatewayd.model import Flow, reverse_flow
from tests.support.worlds import TABLE, World, forget_connections, program

PATIENCE_S = 5.0
"""Spent only where a packet is lost."""

Outcome = Literal["passed", "rejected", "lost"]


class Talk:
    """Packets of either side, one at a time, and what became of each."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._stack = ExitStack()
        self._taps: dict[Side, Tap] = {
            "customers": self._stack.enter_context(Tap(lab.inside)),
            "internet": self._stack.enter_context(Tap(lab.outside)),
        }
        self._tokens = Tokens()
        self._numbers = count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def put(self, world: World) -> None:
        """The world in force, and conntrack with nothing in it."""

        async def run() -> None:
            tables = KernelTables.open(TABLE)
            try:
                await program(tables, world)
            finally:
                tables.close()

        with self._lab.gateway.entered():
            asyncio.run(run())
        self.forget()

    def forget(self) -> None:
        """As a reboot, a failover without conntrackd, or `conntrack -F`."""
        with self._lab.gateway.entered():
            forget_connections()

    def say(self, side: Side, flow: Flow, size: int = 0) -> Outcome:
        """Send a packet of the flow from a side."""
        near, far = self._taps[side], self._taps["internet" if side == "customers" else "customers"]
        number = next(self._numbers)
        near.send(flow, self._tokens.payload(number) + bytes(size))
        deadline = time.monotonic() + PATIENCE_S
        while (left_s := deadline - time.monotonic()) > 0:
            if not select.select([near, far], [], [], left_s)[0]:
                break
            if any(self._tokens.number_in(packet) == number for packet in far.packets()):
                return "passed"
            for packet in near.packets():
                quoted = refused_packet(packet)
                if quoted is not None and self._tokens.number_in(quoted) == number:
                    return "rejected"
        return "lost"

    def client(self, flow: Flow) -> Outcome:
        return self.say("customers", flow)

    def far_end(self, flow: Flow) -> Outcome:
        """`flow` as the client would open it: the far end's packet is its reverse."""
        return self.say("internet", reverse_flow(flow))

    def counter(self, name: str) -> int:
        async def run() -> int:
            tables = KernelTables.open(TABLE)
            try:
                return (await tables.read_counters())[name].packets
            finally:
                tables.close()

        with self._lab.gateway.entered():
            return asyncio.run(run())

    @contextmanager
    def beside(self, hook: str, rule: str) -> Iterator[None]:
        """Somebody else's base chain, with one rule, in the gateway."""

        def nft(script: str) -> None:
            self._lab.gateway.run(["nft", "-f", "-"], input=script)

        nft(f"table inet site {{\nchain every {{\ntype filter hook {hook};\n{rule}\n}}\n}}\n")
        try:
            yield
        finally:
            nft("delete table inet site\n")


class Connection(ExitStack):
    """A TCP connection between any two addresses."""

    def __init__(self, lab: Lab, client: str, server: str, port: int) -> None:
        super().__init__()
        with lab.internet.entered():
            listener = self._made()
            listener.bind((server, port))
            listener.listen(1)
        with lab.customers.entered():
            self._near = self._made()
            self._near.bind((client, 0))
        self._near.settimeout(PATIENCE_S)
        self._near.connect((server, port))
        listener.settimeout(PATIENCE_S)
        self._far, _ = listener.accept()
        self.enter_context(self._far)
        self._far.settimeout(PATIENCE_S)

    def _made(self) -> socket.socket:
        made = self.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
        return made

    def __enter__(self) -> tuple[socket.socket, socket.socket]:  # type: ignore[override]
        return self._near, self._far


def read(end: socket.socket) -> bytes:
    """What comes; b"" when the connection was refused."""
    try:
        return end.recv(100)
    except ConnectionResetError:
        return b""
