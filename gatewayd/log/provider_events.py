"""Events of licensed providers, of companies and of provisional registrations."""

from __future__ import annotations

from typing import Final

from gatewayd.log.event import Event

PROVIDERS: Final = (
    Event(
        "endpoints.held", "warning", "cause serial registrations reason",
        "Endpoints of licensed providers are not in force before `gatewayd accept SERIAL`. Logged once for each "
        "change.", followed=True,
    ),
    Event(
        "endpoints.added", "warning", "id registrant endpoints prefixes services",
        "Every client may use these endpoints of a licensed provider from now on.", followed=True,
    ),
    Event(
        "endpoints.removed", "warning", "id registrant endpoints prefixes services",
        "These endpoints of a licensed provider are no longer registered.", followed=True,
    ),
    Event("endpoints.more", "warning", "registrations", "Further changes of endpoints in the same turn, counted."),
    Event(
        "provisional.ending", "warning", "id registrant ends_at",
        "A provisional registration ends: said three days before, and six hours before.", followed=True,
    ),
    Event(
        "registrant.vanished", "warning", "registrant registrations",
        "The last registrations of a company went, of five or more at once.", followed=True,
    ),
    Event("provisional.more", "warning", "registrations", "Further provisional registrations that end, counted."),
)  # fmt: skip
