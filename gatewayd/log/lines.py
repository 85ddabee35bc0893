"""A record → one line: plain text for people, JSON for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

import structlog

from gatewayd.log.ring import stamp_of

_QUOTED = frozenset(' "=')
_OWN_FIELDS = ("ts", "level", "event")


class Lines(structlog.stdlib.ProcessorFormatter):
    """`target`: a stream; the journal's stream, whose lines begin with `<N>`, the priority (sd-daemon(3)); or the
    message of an entry. The journal has time and priority of its own."""

    def __init__(self, form: Literal["console", "json"], target: Literal["stream", "journal", "entry"]) -> None:
        console = _render_stamped if target == "stream" else _render
        as_json = structlog.processors.JSONRenderer(json.dumps, separators=(",", ":"))
        super().__init__(
            foreign_pre_chain=[_add_record],
            processors=[
                structlog.processors.format_exc_info,
                self.remove_processors_meta,
                *([_make_plain, as_json] if form == "json" else [console]),
            ],
        )
        self._has_priority = target == "journal"

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{priority_of(record.levelno)}>" if self._has_priority else ""
        return prefix + super().format(record)


def fields_of(record: logging.LogRecord, text: str) -> tuple[str, dict[str, object]]:
    """The event of a record, and its fields; of another library's, its logger's name and its text."""
    own: Mapping[str, object] | None = getattr(record, "fields", None)
    if own is not None:
        return str(record.msg), dict(own)
    return record.name, {"message": text.rstrip("\n")}


def priority_of(number: int) -> int:
    """syslog(3): crit 2, err 3, warning 4, info 6, debug 7."""
    for least, priority in ((50, 2), (40, 3), (30, 4), (20, 6)):
        if number >= least:
            return priority
    return 7


def _add_record(_: Any, level: str, image: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """`ts`, `level` and `event` stand first; a field with such a name gives way."""
    record: logging.LogRecord = image["_record"]
    event, fields = fields_of(record, str(image["event"]))
    found: dict[str, Any] = {"ts": stamp_of(record.created), "level": level, "event": event}
    for name, value in fields.items():
        found[f"{name}_" if name in _OWN_FIELDS else name] = value
    if record.exc_info and record.exc_info[0] is not None:
        found["exc_info"] = record.exc_info
    return found | {"_record": record, "_from_structlog": False}


def _make_plain(_: Any, __: str, image: MutableMapping[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in image.items()}


def _render(_: Any, __: str, image: MutableMapping[str, Any]) -> str:
    fields = (f"{name}={_quote(text_of(value))}" for name, value in image.items() if name not in _OWN_FIELDS)
    return " ".join([_quote(image["event"]), *fields])


def _render_stamped(_: Any, level: str, image: MutableMapping[str, Any]) -> str:
    return f"{image['ts']} {level:7} {_render(_, level, image)}"


def plain(value: object) -> object:
    """A value that JSON has; NaN and infinities, which it has not, are text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def text_of(value: object) -> str:
    """A value as bare text: a list of words with commas, the rest as in JSON."""
    found = plain(value)
    if isinstance(found, str):
        return found
    if isinstance(found, list) and all(isinstance(item, str | int | float) for item in found):
        return ",".join(map(str, found))
    return json.dumps(found, separators=(",", ":"))


def _quote(text: str) -> str:
    """As it is when that is one word; else in quotes, with whatever does not print escaped."""
    if text and text.isprintable() and not _QUOTED.intersection(text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable()).replace("\x7f", "\\u007f")
