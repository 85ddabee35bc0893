"""What is said of providers and provisional registrations: each endpoint that comes or goes, and ends before they
come."""

from __future__ import annotations

from collections import Counter

from gatewayd.allowlist import Allowlist
from gatewayd.control.companies import say_vanished
from gatewayd.log import get_logger
from gatewayd.model import Registration, service_words
from gatewayd.model.moment import format_time
from gatewayd.registry.extended import Extended, ProvidersView, ProvisionalView
from gatewayd.registry.state import RegistryState

log = get_logger(__name__)

MAX_PREFIXES = 8
"""Endpoints that one line of the log has; it says how many there are."""


class ExtendedLog:
    """Over the registrations in force that have an extension."""

    def __init__(self, registry: RegistryState) -> None:
        self._registry = registry
        self._extended = Extended()
        self._gone: Counter[str] = Counter()
        """Of each company, how many registrations went in this turn."""

    def put(self, registration: Registration, now: float) -> None:
        """It comes into force."""
        if registration.extension is not None or self._extended.knows(registration.id):
            self._extended.put(registration, now)

    def drop(self, registration: Registration | None) -> None:
        """It goes."""
        if registration is not None and registration.extension is not None:
            self._extended.drop(registration.id)
            if registration.registrant is not None:
                self._gone[registration.registrant] += 1

    async def say_changes(self, allowlist: Allowlist) -> None:
        """Each endpoint that came or went, and companies of which nothing is left; many of one turn are counted."""
        gone, self._gone = self._gone, Counter()
        if gone:
            await say_vanished(allowlist, gone)
        changes, more = self._extended.take_changes()
        for each in changes:
            one = each.registration
            whose, prefixes = one.registrant or "", len(each.prefixes)
            endpoints = " ".join(map(str, each.prefixes[:MAX_PREFIXES]))
            services = ",".join(service_words(one.services))
            if each.kind == "added":
                log.warning(
                    "endpoints.added",
                    id=one.id, registrant=whose, endpoints=endpoints, prefixes=prefixes, services=services,
                )  # fmt: skip
            else:
                log.warning(
                    "endpoints.removed",
                    id=one.id, registrant=whose, endpoints=endpoints, prefixes=prefixes, services=services,
                )  # fmt: skip
        if more:
            log.warning("endpoints.more", registrations=more)

    def say_ending(self, now: float) -> None:
        """Provisional registrations, some days and some hours before they end."""
        found, more = self._extended.take_ending(now)
        for each in found:
            one, ends_at = each.registration, format_time(each.registration.valid_until_s)
            log.warning("provisional.ending", id=one.id, registrant=one.registrant or "", ends_at=ends_at)
        if more:
            log.warning("provisional.more", registrations=more)

    def providers(self) -> ProvidersView:
        held = self._registry.endpoints.held()
        return self._extended.providers(0 if held is None else held.prefixes)

    def provisional(self, now: float) -> ProvisionalView:
        return self._extended.provisional(now)
