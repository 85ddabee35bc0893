"""What the daemon says of subscribers: their addresses, and how it learns them.

Never a digest, and of those who are not registered nothing but how many sessions there are.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gatewayd.model import Binding
from gatewayd.model.moment import format_time

JournalWord = Literal["ok", "suspended"]

MAX_REFUSED_SOURCES = 5
"""How many of those whose datagrams are refused a status names, the most refused first."""


class BoundView(msgspec.Struct, frozen=True):
    """A binding that a flow passes through. `ports`: first and last of a shared address; None = all of it.

    `since`, `confirmed`: by the NAS's clock. `age_s`: since it was confirmed. `restored`: known from before a
    restart, and not confirmed since.
    """

    prefix: str
    ports: tuple[int, int] | None
    nas: str
    since: str | None
    confirmed: str | None
    age_s: float
    restored: bool


class BindingView(msgspec.Struct, frozen=True):
    """As BoundView, and whose it is: the registrations of the subscriber. `session`: as the NAS calls it.

    `in_kernel`: all elements of the effective registrations at this address are known to be there; None where none
    is effective, or it is not known. `also_of`: other registrations that have the address in a prefix of their own
    (of /24 or /48, or longer). Both pass; the NAS and the registry disagree on whose it is.
    """

    prefix: str
    ports: tuple[int, int] | None
    registrations: tuple[str, ...]
    since: str | None
    confirmed: str | None
    age_s: float
    nas: str
    session: str
    restored: bool
    in_kernel: bool | None
    also_of: tuple[str, ...] = ()


class BindingPage(msgspec.Struct, frozen=True):
    """`total`: all that match, of which `items` begins at `offset`."""

    total: int
    offset: int
    items: tuple[BindingView, ...]


class JournalView(msgspec.Struct, frozen=True):
    """`suspended`: what is answered is not durable, for the reason in `suspended_for`.

    `waiting`: answers that wait for the disk. `waiting_rows`: not on disk yet. `groups`, `rows`: on disk.
    `failures`: groups that the disk did not take. `refused`: words that had no room. `skipped`, `set_aside`: rows
    and files that were damaged at the start. `lost_groups`, `lost_rows`: that were on disk, and were not there any
    more at the start. `lost_whole`: they were the whole file, but for the rows `salvaged`; so many rows at most.
    """

    state: JournalWord = "ok"
    suspended_for: str | None = None
    last_error: str | None = None
    waiting: int = 0
    waiting_rows: int = 0
    groups: int = 0
    rows: int = 0
    failures: int = 0
    refused: int = 0
    skipped: int = 0
    set_aside: int = 0
    lost_groups: int = 0
    lost_rows: int = 0
    lost_whole: bool = False
    salvaged: int = 0
    write_seconds: float = 0.0
    longest_write_seconds: float = 0.0


class RefusedSourceView(msgspec.Struct, frozen=True):
    """Who sent datagrams that were refused. UDP sources can be forged."""

    source: str
    total: int
    reasons: dict[str, int]


class ListenerView(msgspec.Struct, frozen=True):
    """RADIUS accounting. Each of `requests` is in one of the counts of `unknown_client` to `unusable`.

    `rejected`: not believed and not answered. `unusable`: believed, of no use, and answered. `ignored`: parts of
    events. `kernel_drops`: datagrams for which the sockets had no room.
    """

    addresses: tuple[str, ...] = ()
    requests: int = 0
    unknown_client: int = 0
    rejected: dict[str, int] = {}
    status_server: int = 0
    duplicates: int = 0
    pending_duplicates: int = 0
    events: int = 0
    unusable: dict[str, int] = {}
    ignored: dict[str, int] = {}
    responses: int = 0
    unsent: int = 0
    receive_errors: int = 0
    kernel_drops: int = 0
    max_refused: tuple[RefusedSourceView, ...] = ()


class SameNameView(msgspec.Struct, frozen=True):
    """Several NAS that call themselves `name`, for sessions of the same ids. `sources`: where they speak from."""

    name: str
    sources: tuple[str, ...]


class SubscribersView(msgspec.Struct, frozen=True):
    """`sessions`: live, of everybody. `restored`: of them from before a restart, and not confirmed since.

    `bindings`: addresses of registered subscribers. `unanswered`: words that were taken and not answered, as the
    journal had no room. `conflicting`: times that an address was bound which another registrant's own prefix has.
    `left`: elements found in the kernel at the start that the journal does not know of; they go when their time is
    over, or somebody is known to have their address. `same_names`: NAS that are told apart by where they speak from
    alone. `counts`: what came, ended and was not followed since the start, by name. `refreshed`: elements of
    bindings that were asserted again in the kernel. `listener` None: bindings come by API and lists.
    """

    sessions: int = 0
    bindings: int = 0
    restored: int = 0
    unanswered: int = 0
    conflicting: int = 0
    same_names: tuple[SameNameView, ...] = ()
    left: int = 0
    refreshed: int = 0
    tombstones: int = 0
    tombstones_lost: int = 0
    counts: dict[str, int] = {}
    journal: JournalView = JournalView()
    listener: ListenerView | None = None


class ResponseTimesView(msgspec.Struct, frozen=True):
    """A histogram: `buckets` of (upper bound in seconds, how many up to it and above the bound before), then those
    above all bounds."""

    buckets: tuple[tuple[float, int], ...] = ()
    beyond: int = 0
    sum_seconds: float = 0.0


def bound_view(binding: Binding, now: float) -> BoundView:
    """`binding` as it is confirmed now."""
    return BoundView(
        prefix=str(binding.prefix),
        ports=binding.ports,
        nas=binding.nas,
        since=format_time(binding.since_s),
        confirmed=format_time(binding.confirmed_s),
        age_s=_age_s(binding, now),
        restored=binding.is_restored,
    )


def binding_view(
    binding: Binding,
    now: float,
    *,
    registrations: tuple[str, ...],
    in_kernel: bool | None,
    also_of: tuple[str, ...] = (),
) -> BindingView:
    """`registrations`: ids of those that name its subscriber."""
    return BindingView(
        prefix=str(binding.prefix),
        ports=binding.ports,
        registrations=registrations,
        since=format_time(binding.since_s),
        confirmed=format_time(binding.confirmed_s),
        age_s=_age_s(binding, now),
        nas=binding.nas,
        session=binding.session,
        restored=binding.is_restored,
        in_kernel=in_kernel,
        also_of=also_of,
    )


def _age_s(binding: Binding, now: float) -> float:
    """Nothing where the NAS's clock is ahead of ours."""
    return round(max(now - binding.confirmed_s, 0.0), 3)
