"""What the box answers: a verdict, what is behind it, and tables. JSON as it stands. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from gatewayd.api.explanation import MATCH_COLUMNS, describe_explanation, match_row, verdict
from gatewayd.api.registration_text import condition, describe_registration, presence
from gatewayd.api.text import BAD, DOUBTFUL, GOOD, IN_KERNEL, Line, ago, count, place, size, some, span
from gatewayd.api.views import (
    BindingPage,
    BindingView,
    ExplainView,
    FlowPage,
    RegistrationPage,
    RegistrationView,
)
from gatewayd.page.overview import Table
from gatewayd.page.problems import Tone

MAX_LISTED: Final = 20
"""Registrations, bindings and flows that an answer has."""
TONES: Final[dict[str, Tone]] = {GOOD: "good", BAD: "bad", DOUBTFUL: "doubtful"}


class Row(msgspec.Struct, frozen=True):
    """A line under the verdict; without `label` it goes on with the one above."""

    label: str
    text: str
    tone: Tone = "plain"


class Answer(msgspec.Struct, frozen=True):
    """`q`: the question, "" where nobody should repeat it. `is_short`: asking again costs next to nothing."""

    q: str
    title: str
    tone: Tone
    rows: tuple[Row, ...] = ()
    tables: tuple[Table, ...] = ()
    is_short: bool = False


def refuse(q: str, why: str) -> Answer:
    return Answer(q, why, "doubtful")


def answer_flow(q: str, view: ExplainView) -> Answer:
    title, style = verdict(view)
    table = Table(
        "Registered by",
        MATCH_COLUMNS,
        tuple(map(match_row, view.matches)),
    )
    rows = tuple(map(_row, describe_explanation(view)))
    return Answer(q, title, TONES[style], rows, (table,) if view.matches else (), is_short=True)


def answer_registration(
    q: str, now: str, view: RegistrationView, bindings: BindingPage | None, flows: FlowPage
) -> Answer:
    """One registration, with its subscriber's addresses and its live flows."""
    tables = []
    if bindings is not None and bindings.total:
        tables.append(_bindings(bindings))
    if flows.total:
        tables.append(_flows(now, flows))
    title, tone = _standing(view)
    rows = tuple(map(_row, describe_registration(view)))
    return Answer(q, f"{view.id} {title}", tone, rows, tuple(tables), is_short=True)


def answer_search(q: str, what: str, found: RegistrationPage, bindings: BindingPage | None) -> Answer:
    """The registrations that `what` leads to (an address, a digest, part of an id), and bindings at an address."""
    tables = []
    if found.items:
        rest = f"{len(found.items)} of {found.total:,}" if found.total > len(found.items) else ""
        rows = tuple(map(_registration, found.items))
        tones = tuple(_standing(each)[1] for each in found.items)
        columns = ("registration", "company", "category", "status", "in kernel", "clients", "peers", "services")
        tables.append(Table("Registrations", columns, rows, tones, rest))
    bound = 0 if bindings is None else bindings.total
    if bindings is not None and bound:
        tables.append(_bindings(bindings))
    if not found.total and not bound:
        return Answer(q, f"{what}: no registration and no binding has it", "doubtful")
    words = [count(number, noun) for number, noun in ((found.total, "registration"), (bound, "binding")) if number]
    return Answer(q, f"{what}: {' and '.join(words)}", "good", (), tuple(tables))


def _row(line: Line) -> Row:
    return Row(line.label, line.text, TONES.get(line.style, "plain"))


def _standing(view: RegistrationView) -> tuple[str, Tone]:
    if not view.effective:
        return f"is NOT IN FORCE: {condition(view)}", "doubtful"
    if view.unprogrammed is not None:
        return "is in force, but NOT PROGRAMMED", "bad"
    if view.in_kernel is False:
        return "is in force, but NOT IN THE KERNEL", "bad"
    if view.in_kernel is None:
        why = "no address of its subscriber is known" if view.subscriber else "the kernel has nothing of it"
        return f"is in force; {why} now", "doubtful"
    return "is in force and in the kernel", "good"


def _registration(view: RegistrationView) -> tuple[str, ...]:
    clients = f"to {some(view.endpoints)}" if view.endpoints else some(view.clients, none="by subscriber")
    return (
        view.id, view.registrant or "-", view.category, condition(view), presence(view), clients,
        some(view.peers), some(view.services),
    )  # fmt: skip


def _bindings(page: BindingPage) -> Table:
    def row(view: BindingView) -> tuple[str, ...]:
        restored = ", before a restart" if view.restored else ""
        return (
            place(view.prefix, view.ports), some(view.registrations), view.nas, f"{span(view.age_s)} ago{restored}",
            IN_KERNEL[view.in_kernel],
        )  # fmt: skip

    return Table(
        "Addresses of the subscriber",
        ("address", "registrations", "reported by", "confirmed", "in kernel"),
        tuple(map(row, page.items)),
        note=_rest(page.items, page.total),
    )


def _flows(now: str, page: FlowPage) -> Table:
    return Table(
        "Live flows",
        ("source", "destination", "service", "packets", "bytes", "last seen"),
        tuple(
            (
                each.src if each.sport is None else f"{each.src} port {each.sport}", each.dst, each.service,
                f"{each.packets:,}", size(each.bytes), ago(now, each.last_seen_at),
            )
            for each in page.items
        ),
        note=_rest(page.items, page.total),
    )  # fmt: skip


def _rest(items: Sequence[object], total: int) -> str:
    return f"{len(items)} of {total:,}" if total > len(items) else ""
