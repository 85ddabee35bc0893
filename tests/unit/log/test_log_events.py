"""The declarations of the log's events are those of the code, in both directions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import gatewayd
from gatewayd.log.event import Event
from gatewayd.log.events import EVENTS, events_table

ROOT = Path(gatewayd.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception"}
A_LEVEL = re.compile(rf"\.\s*(?:{'|'.join(sorted(LEVELS))})\s*\(")
NOT_THE_DAEMON = {"demo", "log"}
"""The demo speaks to a terminal."""
DECLARED = {event.name: event for event in EVENTS}


class LogCall(NamedTuple):
    """`more`: fields come from a mapping as well (`**fields`)."""

    place: str
    event: str
    level: str
    fields: frozenset[str]
    more: bool


def log_calls() -> Iterator[LogCall]:
    for path in sorted(ROOT.rglob("*.py")):
        if NOT_THE_DAEMON.intersection(path.relative_to(ROOT).parts):
            continue
        text = path.read_text(encoding="utf-8")
        # To parse all of it takes each process of pytest a second, and most modules log nothing.
        if not A_LEVEL.search(text):
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            name = node.args[0]
            if node.func.attr in LEVELS and isinstance(name, ast.Constant):
                fields = frozenset(keyword.arg for keyword in node.keywords if keyword.arg)
                more = any(keyword.arg is None for keyword in node.keywords)
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                yield LogCall(place, str(name.value), node.func.attr, fields, more)


CALLS = list(log_calls())


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.event}-{call.place}")
def test_every_call_has_the_level_and_the_fields_of_its_declaration(call: LogCall) -> None:
    assert call.event in DECLARED, "declare it in gatewayd/log/events.py"
    event = DECLARED[call.event]
    assert call.level == event.level
    assert event.required <= call.fields
    assert call.fields <= event.required | event.optional
    assert not call.more or event.optional


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_every_declaration_is_of_the_code(event: Event) -> None:
    calls = [call for call in CALLS if call.event == event.name]
    assert calls, "nothing logs it"
    if not any(call.more for call in calls):
        assert event.required | event.optional == frozenset[str]().union(*(call.fields for call in calls))


def test_an_event_is_declared_once() -> None:
    assert len(DECLARED) == len(EVENTS)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_a_declaration_says_what_an_operator_needs_in_short_sentences(event: Event) -> None:
    assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", event.name)
    assert event.level in LEVELS
    assert event.meaning.endswith(".")
    for sentence in re.split(r"[.;:?] ", event.meaning):
        assert len(sentence.split()) <= 25, sentence
    assert not (event.required | event.optional) & {"event", "level", "ts", "logger", "exception", "suppressed"}


def test_the_table_has_a_line_for_each_event() -> None:
    head, _, *lines = events_table().splitlines()
    assert head == "| event | level | followed | fields | meaning |"
    assert [line.split("`")[1] for line in lines] == [event.name for event in EVENTS]
    assert all(line.replace(" |  | ", " | | ").count("|") == 6 for line in lines)
    assert (
        "| `api.request_failed` | error |  | `method`, `path` | A fault of gatewayd; please report it. |" in lines
    )
    assert any("`program`?, `pid`?" in line for line in lines)
