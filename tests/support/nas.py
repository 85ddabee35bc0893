"""A NAS for tests: tells a daemon of sessions by RADIUS accounting, and repeats what is not answered."""

from __future__ import annotations

import itertools
import select
import socket
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self, TypedDict, Unpack

from gatewayd.lab.namespace import Namespace
from gatewayd.model.prefix import parse_prefix
from tests.support.radius import SECRET, accounting_request, attribute, integer, is_response, text

START, STOP, INTERIM, ON, OFF = 1, 2, 3, 7, 8
REPEAT_S = 1.0
"""Between a request and its repeat, as gear has it by default: 2 to 5 s, hurried here."""
GIVE_UP = 20
"""Repeats at most."""


class Seconds(TypedDict, total=False):
    """Event-Timestamp, Acct-Delay-Time, Acct-Interim-Interval."""

    at: int | None
    delay: int | None
    interim: int | None


class Nas(AbstractContextManager["Nas"]):
    """Sends from `namespace` to `server`, one request at a time."""

    def __init__(
        self, namespace: Namespace, name: str = "bng-1", *, server: tuple[str, int] = ("127.0.0.1", 1813),
        secret: bytes = SECRET, source: str | None = None,
    ) -> None:  # fmt: skip
        """`source`: the address that it sends from."""
        self.name = name
        self.repeats = 0
        self._secret = secret
        self._identifiers = itertools.cycle(range(256))
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        with namespace.entered():
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
            if source is not None:
                self._socket.bind((source, 0))
            self._socket.connect(server)

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def fileno(self) -> int:
        """Of its socket: select(2) tells when there is an answer."""
        return self._socket.fileno()

    def start(self, session: str, number: str, *addresses: str, **more: Unpack[Seconds]) -> bytes:
        return self.tell(START, session, number, *addresses, **more)

    def interim(self, session: str, number: str, *addresses: str, **more: Unpack[Seconds]) -> bytes:
        return self.tell(INTERIM, session, number, *addresses, **more)

    def stop(self, session: str, number: str, *addresses: str, **more: Unpack[Seconds]) -> bytes:
        return self.tell(STOP, session, number, *addresses, **more)

    def restart(self) -> bytes:
        """Accounting-On."""
        return self.exchange(self.request(integer(40, ON)))

    def tell(self, status: int, session: str, number: str, *addresses: str, **more: Unpack[Seconds]) -> bytes:
        """The answer."""
        return self.exchange(self.encode(status, session, number, *addresses, **more))

    def encode(
        self, status: int, session: str, number: str, *addresses: str,
        at: int | None = None, delay: int | None = None, interim: int | None = None, extra: bytes = b"",
    ) -> bytes:  # fmt: skip
        """The request of a word on a session."""
        attributes = [integer(40, status), text(44, session), text(31, number)]
        attributes += [_address(each) for each in addresses]
        attributes += [integer(type_, value) for type_, value in ((55, at), (41, delay), (85, interim)) if value]
        return self.request(*attributes, extra)

    def request(self, *attributes: bytes) -> bytes:
        return accounting_request(
            text(32, self.name), *attributes, secret=self._secret, identifier=next(self._identifiers)
        )

    def send(self, request: bytes) -> None:
        self._socket.send(request)

    def exchange(self, request: bytes) -> bytes:
        """Send until it is answered."""
        for _ in range(GIVE_UP):
            self.send(request)
            response = self.answer(request, REPEAT_S)
            if response is not None:
                return response
            self.repeats += 1
        raise TimeoutError(f"{self.name} got no answer in {GIVE_UP * REPEAT_S:g} s")

    def answer(self, request: bytes, patience_s: float) -> bytes | None:
        """The answer to this request; None if none came in time."""
        deadline = time.monotonic() + patience_s
        while (left_s := deadline - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left_s)[0]:
                break
            try:
                response = self._socket.recv(4096)
            except ConnectionRefusedError:
                time.sleep(0.01)  # nobody listens there at the moment; it is asked again
                continue
            if is_response(response, request, self._secret):
                return response
        return None


def _address(written: str) -> bytes:
    """Framed-IP-Address, Framed-IPv6-Address, or Framed-IPv6-Prefix where there is a length."""
    prefix = parse_prefix(written if "/" in written else f"{written}/{128 if ':' in written else 32}")
    if prefix.family == 4:
        return attribute(8, prefix.packed)
    if "/" not in written:
        return attribute(168, prefix.packed)
    return attribute(97, bytes([0, prefix.length]) + prefix.packed)


def write_secrets(directory: Path, *, pepper: bytes, secret: bytes = SECRET) -> dict[str, object]:
    """The section `subscribers` of a configuration, its files written to `directory`."""
    files = {"pepper": pepper + b"\n", "radius.secret": secret + b"\n"}
    for name, content in files.items():
        path = directory / name
        path.write_bytes(content)
        path.chmod(0o600)
    return {
        "pepper_file": str(directory / "pepper"),
        "radius": {
            "listen": ["127.0.0.1:1813", "[::1]:1813"],
            "clients": [
                {"address": address, "secret_file": str(directory / "radius.secret")}
                for address in ("127.0.0.0/8", "::1/128")
            ],
        },
    }
