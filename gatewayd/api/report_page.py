"""The report as parts of a page (`api.html`), and as rows of a CSV file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from gatewayd.api.html import Bars, Facts, Part, Series, Table, Text
from gatewayd.api.report import ActivityView, EventView, GroupView, MissView, ProvisionalView, ReportView
from gatewayd.api.standing import RejectedView, StepView
from gatewayd.model.moment import parse_time

TITLE: Final = "Registrations and their use"
COLUMNS: Final = (
    "id", "registrant", "category", "status", "provisional", "effective", "flows", "bytes", "days_used",
    "last_seen_at",
)  # fmt: skip
MAX_BARS: Final = 30
_DAY_S: Final = 86_400.0


def csv_row(view: ActivityView) -> Sequence[str | int]:
    """In the order of COLUMNS."""
    return (
        view.id, view.registrant or "", view.category, view.status, _word(view.provisional), _word(view.effective),
        view.flows, view.bytes, view.days, view.last_seen_at or "",
    )  # fmt: skip


def subtitle_of(view: ReportView) -> str:
    return f"{view.since} to {view.until}; days of UTC"


def facts_of(view: ReportView) -> tuple[tuple[str, int | str], ...]:
    """The first lines, also of the text."""
    counts, changes = view.counts, view.change_counts
    return (
        ("registered", counts.registered),
        ("effective", counts.effective),
        ("provisional", counts.provisional),
        ("used", counts.active),
        ("effective and not used", counts.unseen),
        ("of these never seen", counts.never_seen),
        ("near misses", len(view.near_misses)),
        ("rejected records", sum(each.total for each in view.rejected)),
        ("changes", f"{changes.steps:,} steps: {changes.came:,} came, {changes.went:,} went, "
                    f"{changes.changed:,} changed, {changes.not_listed:,} not listed"),
        ("held", sum(each.event == "guard.held" for each in view.holds)),
        ("flows cut after a drain", view.flows_drained),
    )  # fmt: skip


def parts_of(view: ReportView) -> Iterator[Part]:
    for note in view.notes:
        yield Text(note, warning=True)
    for gap in view.unwatched:
        yield Text(f"no daemon watched from {gap.since} to {gap.until}", warning=True)
    yield Facts(facts_of(view))
    days = [(parse_time(f"{each.day}T00:00:00Z"), each) for each in view.days]
    yield Series("Registrations used", [(at_s, float(each.registrations)) for at_s, each in days], _DAY_S)
    yield Series("Traffic", [(at_s, each.bytes / 2**20) for at_s, each in days], _DAY_S, "MiB")
    groups = view.groups[:MAX_BARS]
    yield Bars("By registrant", [(registrant_of(each), each.bytes / 2**20) for each in groups], "MiB")
    yield Table("Registrants", GROUP_COLUMNS, [group_row(each) for each in view.groups])
    yield Table(
        "Effective and not used",
        ("id", "registrant", "category", "last seen"),
        [(each.id, each.registrant, each.category, each.last_seen_on or "never") for each in view.unseen],
        note=_more(view.counts.unseen, len(view.unseen)),
    )
    yield Table(
        "Provisional",
        PROVISIONAL_COLUMNS,
        [provisional_row(each) for each in view.provisional],
        note=_more(view.counts.provisional, len(view.provisional)),
    )
    yield Table("Near misses", MISS_COLUMNS, [miss_row(each) for each in view.near_misses])
    yield Table("Rejected records", REJECTED_COLUMNS, rejected_rows(view))
    yield Table(
        "Where they stand",
        RECORD_COLUMNS,
        [record_row(each) for each in view.rejected_records],
        note=_more(sum(each.total for each in view.rejected), len(view.rejected_records)),
    )
    yield Table("Held", EVENT_COLUMNS, [event_row(each) for each in view.holds])
    yield Table(
        "Changes of the registry",
        STEP_COLUMNS,
        [step_row(each) for each in view.changes],
        note=_more(view.change_counts.steps, len(view.changes)),
    )
    yield Table("What else changed the effect on traffic", EVENT_COLUMNS, [event_row(each) for each in view.events])


GROUP_COLUMNS: Final = ("registrant", "registrations", "used", "never seen", "flows", "bytes", "last seen")
EVENT_COLUMNS: Final = ("at", "event", "fields")
STEP_COLUMNS: Final = ("at", "cause", "serial", "by", "came", "went", "changed", "not listed")


REJECTED_COLUMNS: Final = ("source", "reason", "records")
RECORD_COLUMNS: Final = ("source", "serial", "line", "id", "reason", "field")
PROVISIONAL_COLUMNS: Final = ("id", "registrant", "category", "ends", "used")
MISS_COLUMNS: Final = ("id", "flows", "last seen", "why")


def provisional_row(view: ProvisionalView) -> Sequence[str]:
    return view.id, view.registrant or "-", view.category, view.ends_at or "-", _word(view.used)


def miss_row(miss: MissView) -> Sequence[str | int]:
    return miss.id, miss.flows, miss.last_seen or "", miss.why


def registrant_of(group: GroupView) -> str:
    return group.registrant or "(no registrant)"


def group_row(group: GroupView) -> Sequence[str | int]:
    return (
        registrant_of(group), group.registrations, group.active, group.never_seen, group.flows, group.bytes,
        group.last_seen_at or "never",
    )  # fmt: skip


def rejected_rows(view: ReportView) -> Sequence[Sequence[str | int]]:
    return [(each.source, code, count) for each in view.rejected for code, count in sorted(each.by_code.items())]


def record_row(record: RejectedView) -> Sequence[str | int]:
    line = f"{record.line} of the delta" if record.is_delta else str(record.line)
    return record.source, str(record.serial), line, record.id or "-", record.code, record.field or "-"


def event_row(event: EventView) -> Sequence[str]:
    return event.at, event.event, " ".join(f"{name}={value}" for name, value in event.fields.items())


def step_row(step: StepView) -> Sequence[str | int]:
    return (
        step.at or "", step.cause, step.serial, step.by,
        *(_ids(each) for each in (step.came, step.went, step.changed)), step.omitted,
    )  # fmt: skip


def _ids(ids: Sequence[str]) -> str:
    """As many as a cell takes."""
    return " ".join(ids[:5]) + (f" and {len(ids) - 5:,} more" if len(ids) > 5 else "")


def _more(total: int, shown: int) -> str:
    return f"{shown:,} of {total:,}" if shown < total else ""


def _word(value: bool) -> str:
    return "yes" if value else "no"
