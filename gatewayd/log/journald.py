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
import re
import socket

from gatewayd.log.lines import fields_of, priority_of, text_of
from gatewayd.log.queued import QueuedHandler

SOCKET = "/run/systemd/journal/socket"
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


class JournalHandler(QueuedHandler[dict[str, str]]):
    """Entries of the journal. The formatter makes MESSAGE. GATEWAYD_LOG_LOST: records that were lost before one.

    Raises OSError where nothing listens at `path`.
    """

    def __init__(self, path: str = SOCKET) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self.path = path
        super().__init__("journald")

    def entry_of(self, record: logging.LogRecord) -> dict[str, str]:
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

    def write(self, entry: dict[str, str], lost: int) -> None:
        self._send(encode_entry(entry | {"GATEWAYD_LOG_LOST": str(lost)} if lost else entry))

    def end(self) -> None:
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
