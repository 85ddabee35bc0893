"""What a notification means for what is held: refuse it, nothing to do, a chain of deltas, or the snapshot."""

from __future__ import annotations

from typing import Final
from urllib.parse import urldefrag, urljoin, urlsplit

import msgspec

from gatewayd.errors import (
    FileTooLarge,
    ForeignOrigin,
    IssuedAtWentBackwards,
    IssuedInFuture,
    NotificationStale,
    SerialReused,
    SerialWentBackwards,
)
from gatewayd.model.moment import earliest_of, latest_of
from gatewayd.registry.feed_outcome import FeedLimits, FeedPosition, SnapshotReason
from gatewayd.registry.notification import DeltaRef, Notification, is_url_text

MOST_CHAIN_FAILURES: Final = 3

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Plan(msgspec.Struct, frozen=True):
    """`reason`: why the snapshot; None: `chain` leads there, first delta first, empty if there is nothing to do."""

    reason: SnapshotReason | None = None
    chain: tuple[DeltaRef, ...] = ()


def check_age(issued_at: float, expire_s: float, now: float) -> None:
    """Raises NotificationStale, once that is certain."""
    age_s = earliest_of(now) - issued_at
    if age_s > expire_s:
        raise NotificationStale(age_s, expire_s)


def check_not_ahead(issued_at: float, now: float, limits: FeedLimits) -> None:
    """Raises IssuedInFuture, unless it may be our clock that is wrong."""
    ahead_s = issued_at - latest_of(now)
    if ahead_s > limits.ahead_tolerance_s:
        raise IssuedInFuture(ahead_s)


def check_snapshot_size(new: Notification, limits: FeedLimits) -> None:
    """Raises FileTooLarge for a snapshot that could not be read in any case."""
    if new.snapshot.size > limits.max_bytes:
        raise FileTooLarge("snapshot", limits.max_bytes, "bytes")
    if new.snapshot.count > limits.max_records:
        raise FileTooLarge("snapshot", limits.max_records, "records")


def plan(held: FeedPosition | None, new: Notification, limits: FeedLimits, chain_failures: int) -> Plan:
    """What leads from `held` to `new`. Raises SerialWentBackwards, IssuedAtWentBackwards, SerialReused."""
    if held is None:
        return Plan("first_time")
    if new.session != held.session:
        if new.issued_at <= held.issued_at:
            raise IssuedAtWentBackwards(held.issued_at, new.issued_at)
        return Plan("new_session")
    if new.serial < held.serial:
        raise SerialWentBackwards(held.serial, new.serial)
    if new.issued_at < held.issued_at:
        raise IssuedAtWentBackwards(held.issued_at, new.issued_at)
    if new.serial > held.serial:
        return _plan_chain(held, new, limits, chain_failures)
    if new.snapshot.sha256 == held.snapshot_sha256:
        return Plan()
    if new.issued_at == held.issued_at:
        raise SerialReused(new.serial)
    return Plan("serial_reused")


def _plan_chain(held: FeedPosition, new: Notification, limits: FeedLimits, chain_failures: int) -> Plan:
    offered = {delta.serial: delta for delta in new.deltas}
    for serial, sha256 in held.delta_hashes:
        if serial in offered and offered[serial].sha256 != sha256:
            return Plan("delta_mutated")
    if not offered or held.serial + 1 < min(offered):
        return Plan("serial_gap")
    if new.serial - held.serial > limits.most_deltas:
        return Plan("too_many_deltas")
    wanted = range(held.serial + 1, new.serial + 1)
    chain = tuple(offered[serial] for serial in wanted if serial in offered)
    if len(chain) < len(wanted):
        return Plan("delta_missing")
    if sum(delta.size for delta in chain) > limits.max_bytes:
        return Plan("too_many_deltas")
    return Plan("delta_failed") if chain_failures >= MOST_CHAIN_FAILURES else Plan(chain=chain)


def resolve(what: str, home: str, base: str, reference: str) -> str:
    """`reference`, resolved against `base`, if it has the origin of `home`. Raises ForeignOrigin."""
    try:
        if not is_url_text(reference):
            raise ValueError
        url = urldefrag(urljoin(base, reference)).url
        is_ours = _origin_of(url) == _origin_of(home)
    except ValueError:
        raise ForeignOrigin(what, "(no URL)") from None
    if not is_ours:
        raise ForeignOrigin(what, _shown_origin(url))
    return url


def _origin_of(url: str) -> tuple[str, str | None, int | None]:
    """RFC 6454 §4. ValueError for what is no URL."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _shown_origin(url: str) -> str:
    """Scheme, host and port, without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
