"""How an event of the log is declared."""

from __future__ import annotations

from typing import Literal, NamedTuple

EventLevel = Literal["debug", "info", "warning", "error", "exception"]


class Event(NamedTuple):
    """`fields`: their names, separated by spaces. `followed`: a person follows it, on `/v1/events` and with
    `gatewayd events`: what changed, and what is wrong now; not each attempt and each small part of a step."""

    name: str
    level: EventLevel
    fields: str
    meaning: str
    followed: bool = False

    @property
    def required(self) -> frozenset[str]:
        return frozenset(field for field in self.fields.split() if not field.endswith("?"))

    @property
    def optional(self) -> frozenset[str]:
        return frozenset(field.rstrip("?") for field in self.fields.split() if field.endswith("?"))
