"""Structured logging on top of the standard library's: an event is a name and fields, and is one line.

    logger = get_logger(__name__)
    logger.info("reconcile.applied", added=3, removed=1, duration_ms=4.2, cause=cause)

Records of other libraries take the same way: the event is the logger's name, the text is a field.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "console", "json"]

EVENTS_LIMITED = 256
"""Events a RateLimited remembers; past it the one that was logged longest ago is forgotten."""

_LEVELS: dict[Level, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_QUOTED = frozenset(' "=')
_OWN_FIELDS = frozenset({"ts", "level", "event"})


class Logger:
    """Logs events under one name. `exception` adds the exception being handled as a field."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, /, **fields: object) -> None:
        self.log(logging.DEBUG, event, **fields)

    def info(self, event: str, /, **fields: object) -> None:
        self.log(logging.INFO, event, **fields)

    def warning(self, event: str, /, **fields: object) -> None:
        self.log(logging.WARNING, event, **fields)

    def error(self, event: str, /, **fields: object) -> None:
        self.log(logging.ERROR, event, **fields)

    def exception(self, event: str, /, **fields: object) -> None:
        if self._logger.isEnabledFor(logging.ERROR):
            self._logger.error(event, exc_info=True, extra={"fields": fields})

    def log(self, number: int, event: str, /, **fields: object) -> None:
        """`number`: one of logging's levels."""
        if self._logger.isEnabledFor(number):
            self._logger.log(number, event, extra={"fields": fields})


def get_logger(name: str) -> Logger:
    """The logger of a module; `name` is its `__name__`."""
    return Logger(name)


class RateLimited:
    """Logs an event at most once in `interval_s`; the next of its kind carries `suppressed=` the number left out.

    `clock`: seconds that never go back. What is left out after the last of its kind is never told; whatever
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
        self._logger.log(number, event, **fields)


def setup_logging(
    level: Level = "info",
    format: Format = "auto",
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send everything to `stream` (stderr), in place of what an earlier call set up. For start and reload.

    `auto`: console on a terminal or under the journal, which stamps the time itself; json elsewhere. `level`
    is ours; other libraries are heard from warning on, and aiohttp's access log never.
    """
    stream = sys.stderr if stream is None else stream
    journal = is_journal(stream, environ)
    if format == "auto":
        format = "console" if journal or stream.isatty() else "json"
    handler = _Handler(stream)
    handler.setFormatter(_JsonLines(journal) if format == "json" else _ConsoleLines(journal))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
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


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, to be told from handlers that others added."""


class _Lines(logging.Formatter):
    """`journal`: lines begin with `<N>`, the priority (sd-daemon(3)), which the journal takes off."""

    def __init__(self, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any]
        own = getattr(record, "fields", None)
        if own is None:
            event, fields = record.name, {"message": record.getMessage().rstrip("\n")}
        else:
            event, fields = record.msg, dict(own)
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = self.formatException(record.exc_info)
        prefix = f"<{_priority(record.levelno)}>" if self._journal else ""
        return prefix + self.line(_rfc3339(record.created), record.levelname.lower(), event, fields)

    def line(self, timestamp: str, level: str, event: str, fields: Mapping[str, object]) -> str:
        raise NotImplementedError


class _JsonLines(_Lines):
    """One object a line; the fields stand beside `ts`, `level` and `event`, and give way to them in name."""

    def line(self, timestamp: str, level: str, event: str, fields: Mapping[str, object]) -> str:
        image: dict[str, object] = {"ts": timestamp, "level": level, "event": event}
        for name, value in fields.items():
            image[f"{name}_" if name in _OWN_FIELDS else name] = _plain(value)
        return json.dumps(image, separators=(",", ":"))


class _ConsoleLines(_Lines):
    def line(self, timestamp: str, level: str, event: str, fields: Mapping[str, object]) -> str:
        head = [] if self._journal else [timestamp, level.ljust(7)]
        return " ".join([*head, _quote(event), *(f"{name}={_word(value)}" for name, value in fields.items())])


def _priority(number: int) -> int:
    """syslog(3): crit 2, err 3, warning 4, info 6, debug 7."""
    for least, priority in ((50, 2), (40, 3), (30, 4), (20, 6)):
        if number >= least:
            return priority
    return 7


def _rfc3339(created_s: float) -> str:
    return datetime.fromtimestamp(created_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: object) -> object:
    """What JSON can say; NaN and infinities, which it cannot, are text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return str(value)


def _word(value: object) -> str:
    plain = _plain(value)
    if isinstance(plain, str):
        return _quote(plain)
    if isinstance(plain, list) and all(isinstance(item, str | int | float) for item in plain):
        return _quote(",".join(map(str, plain)))
    return _quote(json.dumps(plain, separators=(",", ":")))


def _quote(text: str) -> str:
    """As it is when that is one word; else in quotes, with whatever does not print escaped."""
    if text and text.isprintable() and not _QUOTED.intersection(text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable()).replace("\x7f", "\\u007f")
