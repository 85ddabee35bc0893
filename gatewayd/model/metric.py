"""How a number is declared: once, in the annotation of the field that counts it.

    rows: Annotated[int, counter("journal_rows", "Rows put on disk.")] = 0

The page of `/metrics` and the tables of docs/metrics.md follow from it (`api.metrics`); the JSON of `/v1/status` is
the dataclass as it stands. Where several fields are the words of one label, the family is a constant:

    EVENTS = counter("watch_events", "Events taken in from the kernel.", label="kind")
    packets: Annotated[int, EVENTS.of("packet")] = 0

Labels are words of our own or of the configuration: nothing of a registration or a subscriber, however useful it
would be, because there may be a million.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from gatewayd.model.moment import parse_time

Kind = Literal["gauge", "counter", "summary", "histogram"]
Read = Callable[[Any], Any]
"""From the field to a number; to one for each word of the label; or to None: absent, as of what never happened. Of
a histogram to cumulative buckets, each with its bound, and the sum."""
THE_FIELD: Final = "(the field)"
"""The word of a label that is the name of the field."""


def number(value: Any) -> Any:
    """The field as it is; a time that `format_time` made in Unix seconds."""
    return parse_time(value) if isinstance(value, str) else value


def is_there(value: object) -> bool:
    """1 where the field has a value."""
    return value is not None


def total(value: Mapping[str, int]) -> int:
    """All words together of a field that has one number for each."""
    return sum(value.values())


def equals(word: str) -> Read:
    """1 where the field is this word."""
    return lambda value: value == word


def one_of(words: Sequence[str]) -> Read:
    """1 for the word that the field is, 0 for the others."""
    return lambda value: {word: word == value for word in words}


@dataclass(frozen=True, slots=True)
class Metric:
    """`name`: without `gatewayd_`, and without the `_total` of a counter. `help`: a sentence. `watch_for`: the
    state that is worth an alert, in Markdown.

    `label`: its words are the keys of `read`, or `word`. `meaning`: of that word, where the words need a table of
    their own. `times`: of a summary, the field beside that counts.
    """

    kind: Kind
    name: str
    help: str
    watch_for: str = ""
    label: str = ""
    read: Read = number
    word: str = ""
    meaning: str = ""
    times: str = ""

    def of(self, word: str = THE_FIELD, *, meaning: str = "", read: Read = number) -> Metric:
        """The same family, of one word of its label."""
        return replace(self, word=word, meaning=meaning, read=read)


def gauge(name: str, help: str, watch_for: str = "", *, label: str = "", read: Read = number) -> Metric:
    return Metric("gauge", name, help, watch_for, label, read)


def counter(name: str, help: str, watch_for: str = "", *, label: str = "", read: Read = number) -> Metric:
    return Metric("counter", name, help, watch_for, label, read)


def summary(name: str, help: str, watch_for: str = "", *, times: str) -> Metric:
    return Metric("summary", name, help, watch_for, times=times)


def histogram(name: str, help: str, watch_for: str = "", *, read: Read) -> Metric:
    return Metric("histogram", name, help, watch_for, read=read)


@dataclass(frozen=True, slots=True)
class Each:
    """Beside a field of several values: their metrics have `label`, and its word is their field `key`."""

    label: str
    key: str
