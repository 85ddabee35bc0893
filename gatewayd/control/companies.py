"""Registrations by company: whose are held, and which companies go whole. Nothing is kept by company: it is counted
when it is asked, in slices, for the few companies that it is about."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from gatewayd.allowlist import Allowlist
from gatewayd.api.standing import HeldRegistrant
from gatewayd.log import get_logger
from gatewayd.registry.guard import HeldRemovals

log = get_logger(__name__)

SLICE: Final = 8192
"""Registrations looked at in one turn of the loop."""
MIN_RECORDS: Final = 5
"""A company of fewer that goes is a removal like any other."""
MAX_SAID: Final = 20
"""Companies that one line or one turn names."""


async def count_in_force(allowlist: Allowlist, registrants: Iterable[str]) -> Counter[str]:
    """Active registrations of each in force. Ids with a `#` are the guard's own."""
    wanted, found = frozenset(registrants), Counter[str]()
    for done, each in enumerate(tuple(allowlist) if wanted else (), 1):
        name = each.registrant if each.extension is not None else None
        if name is not None and name in wanted and each.status == "active" and "#" not in each.id:
            found[name] += 1
        if done % SLICE == 0:
            await asyncio.sleep(0)
    return found


async def held_registrants(allowlist: Allowlist, held: HeldRemovals | None) -> tuple[HeldRegistrant, ...]:
    """Companies of which removals are held, those that would go whole first, and then the largest."""
    if held is None:
        return ()
    counts = Counter(versions[-1].registrant for versions in held.versions.values())
    named = {registrant: count for registrant, count in counts.items() if registrant is not None}
    of = await count_in_force(allowlist, named)
    found = [HeldRegistrant(name, count, max(of[name], count)) for name, count in named.items()]
    return tuple(sorted(found, key=lambda each: (not each.is_whole, -each.held, each.registrant)))


def describe_registrants(found: tuple[HeldRegistrant, ...]) -> str:
    """For a line of the log."""
    words = [
        f"{each.registrant} ({'all' if each.is_whole else f'{each.held} of'} {each.of})"
        for each in found[:MAX_SAID]
    ]  # fmt: skip
    return ", ".join(words) + (f" and {len(found) - MAX_SAID} more" if len(found) > MAX_SAID else "")


async def say_vanished(allowlist: Allowlist, gone: Mapping[str, int]) -> None:
    """Companies of which nothing is left, after so many of each went. A company is one event, however many records
    it had."""
    large = {name: count for name, count in gone.items() if count >= MIN_RECORDS}
    left = await count_in_force(allowlist, large)
    for name in [name for name in large if not left[name]][:MAX_SAID]:
        log.warning("registrant.vanished", registrant=name, registrations=large[name])
