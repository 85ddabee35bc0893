"""A name server of a namespace's own, which can be silent, or away."""

from __future__ import annotations

import select
import socket
import threading

from gatewayd.lab.namespace import Namespace

ADDRESS = "127.0.0.53"


class NameServer:
    """Every name is 127.0.0.1 to it. `silent`: takes questions and does not answer. `asked`: so many times."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self.silent = False
        self.asked = 0
        self.come_back()

    def come_back(self) -> None:
        """At the same address."""
        with self._namespace.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind((ADDRESS, 53))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="name server", daemon=True)
        self._thread.start()

    def go_away(self) -> None:
        """What asks then gets an ICMP error."""
        self._stopping.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            if select.select([self._socket], [], [], 0.05)[0]:
                question, asker = self._socket.recvfrom(512)
                self.asked += 1
                if not self.silent:
                    self._socket.sendto(_answer(question), asker)


def _answer(question: bytes) -> bytes:
    """RFC 1035 §4.1: to A an address, to another type nothing."""
    end = question.index(b"\0", 12) + 5
    is_ipv4 = question[end - 4 : end - 2] == b"\0\1"
    header = question[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_ipv4 else b"\0\0") + bytes(4)
    record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1" if is_ipv4 else b""
    return header + question[12:end] + record
