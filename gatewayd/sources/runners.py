"""A runner for a configured source: a signed feed, or a plain file or URL."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from time import time as wall_clock

from gatewayd.settings import RegistrySettings, SourceSettings
from gatewayd.sources.feed_source import Delivery as FeedDelivery
from gatewayd.sources.feed_source import FeedRunner, WitnessedTime, resumed_position
from gatewayd.sources.fetch import Session
from gatewayd.sources.last_good_sink import Keeper
from gatewayd.sources.last_good_store import Restored
from gatewayd.sources.sources import SourceReading, SourceRunner

Runner = SourceRunner | FeedRunner
Delivery = SourceReading | FeedDelivery
Deliver = Callable[[Delivery], Awaitable[None]]


def make_runner(
    source: SourceSettings,
    registry: RegistrySettings,
    *,
    deliver: Deliver,
    session: Session,
    keeper: Keeper | None = None,
    restored: Restored | None = None,
    clock: Callable[[], float] = wall_clock,
    witnessed: WitnessedTime | None = None,
) -> Runner:
    """`restored`: the last good, to go on from. `keeper`: takes the bytes of a feed's snapshots. `witnessed`: is
    told what a feed says of the time."""
    known = restored if restored is not None else Restored({})
    if source.is_signed:
        resume = resumed_position(known.position)
        return FeedRunner(
            source.name,
            source.url,
            keys=source.keys,
            deliver=deliver,
            clock=clock,
            randomness=random.Random(),
            session=session,
            max_bytes=source.max_bytes,
            refresh_s=registry.refresh_s,
            retry_s=registry.retry_s,
            expire_s=registry.expire_s,
            proxy=source.proxy,
            ca_file=source.ca_file,
            keeper=keeper,
            resume=resume,
            previous=known.registrations if resume is not None else None,
            time=witnessed,
        )
    return SourceRunner(
        source.name,
        source.url,
        deliver=deliver,
        clock=clock,
        randomness=random.Random(),
        session=session,
        format=None if source.format == "auto" else source.format,
        max_bytes=source.max_bytes,
        proxy=source.proxy,
        ca_file=source.ca_file,
        refresh_s=registry.refresh_s,
        retry_s=registry.retry_s,
        previous=known.registrations,
        allow_empty=source.allow_empty,
    )
