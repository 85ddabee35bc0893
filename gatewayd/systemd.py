"""Word to systemd, over the datagram socket it names in $NOTIFY_SOCKET (sd_notify(3)). A no-op without it.

Nothing here waits. What could not be delivered, because the manager is busy, goes along with the next word,
at the latest with the next beat of the watchdog.
"""

from __future__ import annotations

import os
import socket  # noqa: TID251 - a datagram to the service manager is all this module is for
import time
from collections.abc import Mapping


class Notifier:
    """Tells the service manager what we are at. Every method returns whether that was delivered just now."""

    __slots__ = ("_address", "_channel", "_undelivered", "said_ready")

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the abstract namespace, unix(7); vsock and others are not for a process on this host.
        self._address = "\0" + name[1:] if name.startswith("@") else name if name.startswith("/") else None
        # Made once: to say that all is well must not need a file when there is none left.
        self._channel: socket.socket | None = None
        if self._address is not None:
            self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._channel.setblocking(False)
        self._undelivered: dict[str, str] = {}
        self.said_ready = False
        """READY=1 was said, which ends the start."""

    def close(self) -> None:
        """Nothing is delivered any more."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def ready(self, status: str = "") -> bool:
        """READY=1: start, or a reload, is complete."""
        self.said_ready = True
        return self._tell(READY="1", STATUS=status) if status else self._tell(READY="1")

    def reloading(self) -> bool:
        """RELOADING=1 with the time, which tells this reload from one asked for later (Type=notify-reload)."""
        return self._tell(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))

    def stopping(self) -> bool:
        return self._tell(STOPPING="1")

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self._tell(STATUS=text)

    def watchdog(self) -> bool:
        """A beat; due every `watchdog_interval_s`."""
        return self._tell(WATCHDOG="1")

    def _tell(self, **variables: str) -> bool:
        if self._address is None or self._channel is None:
            return False
        for name, text in variables.items():
            # A word told again goes to the end: the manager hears things in the order they happened.
            self._undelivered.pop(name, None)
            self._undelivered[name] = text.replace("\n", " ")
        message = "\n".join(f"{name}={text}" for name, text in self._undelivered.items())
        try:
            self._channel.sendto(message.encode(), self._address)
        except OSError:
            return False
        self._undelivered.clear()
        return True


def watchdog_interval_s(environ: Mapping[str, str] = os.environ, process_id: int | None = None) -> float | None:
    """How often to beat: half the time the manager waits (sd_watchdog_enabled(3)). None: it waits for none.

    `process_id`: ours. $WATCHDOG_PID of another process means that the variables were inherited.
    """
    text = environ.get("WATCHDOG_USEC", "")
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        return None
    own = os.getpid() if process_id is None else process_id
    if environ.get("WATCHDOG_PID", str(own)) != str(own):
        return None
    return int(text) / 2e6
