"""What `gatewayd status` says of subscribers: sessions, the journal, and the accounting that comes in."""

from __future__ import annotations

from collections.abc import Iterator

from gatewayd.api.status import SubscribersView
from gatewayd.cli.output import BAD, DOUBTFUL, Line, by_number, count, some
from gatewayd.subscribers.journal_rows import JournalStats
from gatewayd.subscribers.radius.senders import ListenerStats

MAX_LISTED = 5
"""Names of NAS that stand on the screen, a line each."""

_NOT_FOLLOWED = (
    "tombstoned", "before_restart", "superseded", "stale", "replayed", "refused", "over_limit", "addresses_refused",
    "nas_refused",
)  # fmt: skip
"""Of SessionCounts: what records say and sessions do not do."""


def describe_subscribers(view: SubscribersView) -> Iterator[Line]:
    facts = [count(view.sessions, "session"), f"{count(view.bindings, 'binding')} of registered subscribers"]
    if view.restored:
        facts.append(f"{view.restored:,} from before the restart and not confirmed since")
    yield Line("subscribers", ", ".join(facts))
    if view.conflicting:
        times = count(view.conflicting, "time")
        yield Line("", f"{times} an address was bound that another registrant's own prefix has", DOUBTFUL)
    for same in view.same_names[:MAX_LISTED]:
        sources = " and ".join(same.sources[:MAX_LISTED])
        yield Line("", f"{len(same.sources):,} NAS call themselves {same.name}: from {sources}", DOUBTFUL)
    if len(view.same_names) > MAX_LISTED:
        yield Line("", f"and {len(view.same_names) - MAX_LISTED:,} more such names", DOUBTFUL)
    if view.left:
        text = f"{count(view.left, 'element')} of bindings that the journal does not know, until their time is over"
        yield Line("", text, DOUBTFUL)
    if not_followed := {word: getattr(view.counts, word) for word in _NOT_FOLLOWED if getattr(view.counts, word)}:
        yield Line("", f"records not followed{by_number(not_followed)}")
    yield from _journal(view.journal)
    if view.unanswered:
        yield Line(
            "", f"{count(view.unanswered, 'accounting record')} not answered: the journal had no room", DOUBTFUL
        )
    if view.listener is not None:
        yield from _listener(view.listener)


def _journal(journal: JournalStats) -> Iterator[Line]:
    if journal.lost_groups or journal.lost_rows:
        yield Line("", f"JOURNAL DAMAGED at the start: {_lost(journal)}", BAD)
    if journal.set_aside or journal.skipped:
        text = f"{count(journal.set_aside, 'damaged file')} set aside, {count(journal.skipped, 'row')} unreadable"
        yield Line("", f"journal: {text}", DOUBTFUL)
    if journal.suspended_for is not None:
        text = f"JOURNAL SUSPENDED: answers are not on disk ({journal.suspended_for})"
        yield Line("", f"{text}, {count(journal.waiting_rows, 'row')} waiting", BAD)
        return
    written = f"{count(journal.rows, 'row')} written, {journal.waiting:,} waiting"
    yield Line("", f"journal: {written}, {count(journal.failures, 'failure')}")
    if journal.last_error:
        yield Line("", f"last error of the journal: {journal.last_error}", DOUBTFUL)


def _lost(journal: JournalStats) -> str:
    rows = count(journal.lost_rows, "row")
    if not journal.lost_whole:
        return f"the last {rows} written to it are lost"
    if not journal.salvaged:
        return f"the whole file is lost, with {rows} at most"
    return f"{count(journal.salvaged, 'row')} of the file could be read, {rows} at most are lost"


def _listener(view: ListenerStats) -> Iterator[Line]:
    unusable = sum(view.unusable.values())
    facts = f"{count(view.requests, 'request')}, {count(view.duplicates, 'repeat')}, {unusable:,} unusable"
    yield Line("radius", f"{some(view.addresses, none='nowhere')}: {facts}")
    refused = {"unknown_client": view.unknown_client, "over_rate": view.over_rate, **view.rejected}
    if any(refused.values()):
        yield Line("", f"{sum(refused.values()):,} refused{by_number(refused)}", DOUBTFUL)
    for source in view.max_refused:
        yield Line("", f"  {source.source}: {source.total:,} refused{by_number(source.reasons)}", DOUBTFUL)
    if view.flood_drops:
        yield Line("", f"FLOOD: the kernel dropped {count(view.flood_drops, 'datagram')} of strangers", DOUBTFUL)
    for words, numbers in (("requests", view.unusable), ("parts of requests", view.ignored)):
        if numbers:
            yield Line("", f"{words} not used{by_number(numbers)}", DOUBTFUL)
    for source in view.max_unused:
        yield Line("", f"  {source.source}: {source.total:,} not used{by_number(source.reasons)}", DOUBTFUL)
    if view.kernel_drops or view.unsent:
        lost = f"{count(view.kernel_drops, 'datagram')} lost before they were read"
        yield Line("", f"{lost}, {count(view.unsent, 'answer')} not sent", DOUBTFUL)
