"""The loggers of the daemon's modules, and where their records go: to the journal, or line by line to a stream."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog

from gatewayd.log.journald import SOCKET, JournalHandler
from gatewayd.log.lines import Lines
from gatewayd.log.queued import QueuedHandler, StreamHandler
from gatewayd.log.tap import TAP

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "console", "json"]

_LEVELS: dict[Level, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

EVENTS_LIMITED = 256
"""Events a RateLimited remembers; past it the one that was logged longest ago is forgotten."""


class Logger(structlog.BoundLoggerBase):
    """Logs events under one name. `exception` adds the exception being handled as a field.

    A record of the standard library carries the event as its message, and its fields in the attribute `fields`.
    """

    def debug(self, event: str, /, **fields: object) -> None:
        self.log(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        self.log(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        self.log(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        self.log(logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: object) -> None:
        self.log(logging.ERROR, event, fields, exc_info=True)

    def log(self, number: int, event: str, fields: dict[str, object], *, exc_info: bool = False) -> None:
        """`number`: one of logging's levels."""
        TAP.take(event, fields)
        if self._logger.isEnabledFor(number):
            _, extra = self._process_event("log", None, fields)
            self._logger.log(number, event, exc_info=exc_info, extra=extra)


def get_logger(name: str) -> Logger:
    """The logger of a module; `name` is its `__name__`."""
    return Logger(logging.getLogger(name), (_as_extra,), {})


def _as_extra(_: Any, __: str, fields: MutableMapping[str, Any]) -> dict[str, Any]:
    return {"fields": fields}


class RateLimited:
    """Logs an event at most once in `interval_s`; the next of its kind carries `suppressed=` the number left out.

    `clock`: seconds that never go back. Events left out after the last of a kind are never logged; a number that
    must be known to the last is a metric.
    """

    __slots__ = ("_clock", "_interval_s", "_logger", "_state")

    def __init__(self, logger: Logger, interval_s: float, clock: Callable[[], float]) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._clock = clock
        self._state: dict[str, tuple[float, int]] = {}

    def info(self, event: str, /, **fields: object) -> None:
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        self._log(logging.ERROR, event, fields)

    def _log(self, number: int, event: str, fields: dict[str, object]) -> None:
        now = self._clock()
        logged_at, suppressed = self._state.get(event, (None, 0))
        if logged_at is not None and now - logged_at < self._interval_s:
            self._state[event] = logged_at, suppressed + 1
            return
        self._state.pop(event, None)
        if len(self._state) >= EVENTS_LIMITED:
            del self._state[next(iter(self._state))]
        self._state[event] = now, 0
        if suppressed:
            fields = {**fields, "suppressed": suppressed}
        self._logger.log(number, event, fields)


def setup_logging(
    level: Level = "info",
    format: Format = "auto",
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
    journal_path: str = SOCKET,
) -> None:
    """Send everything to the journal, or to `stream` (stderr), in place of an earlier call's. For start and reload.

    The journal takes it where `stream` leads to the journal and its socket is at `journal_path`. `auto`: console
    on a terminal or under the journal, json elsewhere. `level` is ours; other libraries are logged from warning on,
    and aiohttp's access log never.
    """
    stream = sys.stderr if stream is None else stream
    journal = is_journal(stream, environ)
    form = format if format != "auto" else "console" if journal or stream.isatty() else "json"
    root = logging.getLogger()
    ours = [each for each in root.handlers if isinstance(each, QueuedHandler)]
    handler = _open_journal(journal_path, ours) if journal else None
    if handler is not None:
        handler.setFormatter(Lines(form, "entry"))
    else:
        # The one in use goes on: to close it would wait for an output that may take nothing.
        used = (each for each in ours if isinstance(each, StreamHandler) and each.stream is stream)
        handler = next(used, None) or StreamHandler(stream)
        handler.setFormatter(Lines(form, "journal" if journal else "stream"))
    for old in ours:
        if old is not handler:
            root.removeHandler(old)
            old.close()
    if handler not in ours:
        root.addHandler(handler)
    root.setLevel(max(_LEVELS[level], logging.WARNING))
    logging.getLogger("gatewayd").setLevel(_LEVELS[level])
    logging.getLogger("aiohttp.access").setLevel(logging.CRITICAL + 1)
    logging.captureWarnings(True)


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `stream` goes to the journal (systemd.exec(5), $JOURNAL_STREAM: device:inode of it).

    The variable is inherited by children whose output goes elsewhere, hence the comparison.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _open_journal(path: str, ours: list[QueuedHandler[Any]]) -> logging.Handler | None:
    """The handler of an earlier call, or a new one; None where nothing listens."""
    for each in ours:
        if isinstance(each, JournalHandler) and each.path == path:
            return each
    try:
        return JournalHandler(path)
    except OSError:
        return None
