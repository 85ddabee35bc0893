"""Records as entries of systemd's journal, with fields: its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

An entry is one datagram to a Unix socket: lines `NAME=value`. A value with a newline has a line `NAME`, a length of
64 bits and the value. An entry too large for a datagram goes as the descriptor of a sealed memfd.
"""

from __future__ import annotations

import array
import errno
import fcntl
import logging
import os
import queue
import re
import socket
import threading

from gatewayd.log.lines import fields_of, priority_of, text_of

SOCKET = "/run/systemd/journal/socket"
MAX_WAITING = 1000
"""Entries that wait for the journal; past it they are lost, and the next one says how many."""
CLOSE_S = 2.0
"""At the end, for so long the entries that wait are still sent."""

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_MAX_NAME = 64


def encode_entry(fields: dict[str, str]) -> bytes:
    """The datagram of an entry. Names as `field_name` makes them; values may be any text."""
    parts = []
    for name, text in fields.items():
        value = text.encode(errors="backslashreplace")
        if b"\n" in value:
            parts.append(name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n")
        else:
            parts.append(name.encode() + b"=" + value + b"\n")
    return b"".join(parts)


def field_name(name: str) -> str:
    """`retry_in_s` → `GATEWAYD_RETRY_IN_S`. The journal takes capitals, digits and _, at most 64 of them."""
    return re.sub(r"[^A-Z0-9_]", "_", f"GATEWAYD_{name}".upper())[:_MAX_NAME]


class JournalHandler(logging.Handler):
    """Sends records from a thread of its own: a journal that does not read never blocks the caller.

    The formatter makes MESSAGE. `lost`: entries that were lost since the last one that was sent, which the next one
    says in GATEWAYD_LOG_LOST. Raises OSError where nothing listens at `path`.
    """

    def __init__(self, path: str = SOCKET) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self.path = path
        self._waiting: queue.Queue[dict[str, str] | None] = queue.Queue(MAX_WAITING)
        self.lost = 0
        self._counting = threading.Lock()
        self._thread = threading.Thread(target=self._send_all, name="journald", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._waiting.put_nowait(self._fields_of(record))
        except queue.Full:
            self._lose(1)
        except Exception:  # as logging.StreamHandler.emit: a record that cannot be formatted is no reason to fail
            self.handleError(record)

    def close(self) -> None:
        """Send the entries that wait, for at most CLOSE_S."""
        super().close()
        if self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=CLOSE_S)
            except queue.Full:
                return
            self._thread.join(CLOSE_S)

    def _fields_of(self, record: logging.LogRecord) -> dict[str, str]:
        event, fields = fields_of(record, record.getMessage())
        found = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(priority_of(record.levelno)),
            "SYSLOG_IDENTIFIER": "gatewayd",
            "GATEWAYD_EVENT": event,
            "GATEWAYD_LOGGER": record.name,
        }
        for name, value in fields.items():
            found.setdefault(field_name(name), text_of(value))
        if record.exc_info and record.exc_info[0] is not None:
            found["GATEWAYD_EXCEPTION"] = logging.Formatter().formatException(record.exc_info)
        return found

    def _lose(self, number: int) -> None:
        with self._counting:
            self.lost += number

    def _send_all(self) -> None:
        while (fields := self._waiting.get()) is not None:
            with self._counting:
                lost, self.lost = self.lost, 0
            if lost:
                fields["GATEWAYD_LOG_LOST"] = str(lost)
            try:
                self._send(encode_entry(fields))
            except OSError:
                self._lose(lost + 1)
        self._socket.close()

    def _send(self, entry: bytes) -> None:
        """To the path, not to the peer: another journald may have taken the place of the first."""
        try:
            self._socket.sendto(entry, socket.MSG_NOSIGNAL, self.path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_by_memfd(entry)

    def _send_by_memfd(self, entry: bytes) -> None:
        """unix(7) allows a datagram of SO_SNDBUF, about 200 KiB."""
        descriptor = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(entry)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
            self._socket.sendmsg([b""], rights, socket.MSG_NOSIGNAL, self.path)
        finally:
            os.close(descriptor)
