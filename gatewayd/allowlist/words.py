"""Words of a reason: a service, some registrations, a time, an age."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from gatewayd.model import Flow, Registration, Service, service_words
from gatewayd.model.service import BUNDLES, PROTOCOLS_WITH_PORTS

_NAMED_AT_MOST = 3
"""How many further registrations a reason names before it only counts them."""


def name_some(registrations: Sequence[Registration]) -> str:
    named = ", ".join(registration.id for registration in registrations[:_NAMED_AT_MOST])
    rest = len(registrations) - _NAMED_AT_MOST
    return f"{named} and {rest} more" if rest > 0 else named


def matching_word(services: Sequence[Service], flow: Flow) -> str:
    """The word, among those for `services`, that stands for the flow's service."""
    protocol = flow.protocol
    bundles = [word for word in service_words(services) if word in BUNDLES]
    found = [
        word + note
        for port, note in ((flow.destination_port, ""), (flow.source_port, ", answered from the source port"))
        for word, members in [
            *((each, BUNDLES[each]) for each in bundles),
            *((str(each), (each,)) for each in services),
        ]
        if any(service.matches(protocol, port) for service in members)
    ]
    return found[0]


def flow_service(flow: Flow) -> str:
    if flow.protocol not in PROTOCOLS_WITH_PORTS:
        return str(Service(flow.protocol))
    return str(Service(flow.protocol, flow.destination_port, flow.destination_port))


def format_moment(at_s: float) -> str:
    """RFC 3339 in UTC; the reader of records has bounded it to what a calendar holds."""
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


def format_age(age_s: float) -> str:
    """In the unit that a person would take; 0 s where the NAS's clock is ahead of ours."""
    for unit, size_s in (("days", 86400), ("h", 3600), ("min", 60)):
        if age_s >= 2 * size_s:
            return f"{int(age_s // size_s)} {unit}"
    return f"{max(int(age_s), 0)} s"


def other_services(registration: Registration, flow: Flow) -> str:
    """Why its services are in the way, as the rest of a sentence."""
    return f"its services are {', '.join(service_words(registration.services))}, not {flow_service(flow)}"


def standing_failures(registration: Registration, now: float) -> Iterator[str]:
    """Why it is not effective, as the rest of a sentence."""
    if registration.status != "active":
        yield f"is {registration.status}"
    elif not registration.valid_from_s <= now:
        yield f"its window opens at {format_moment(registration.valid_from_s)}"
    elif not now < registration.valid_until_s:
        yield f"its window closed at {format_moment(registration.valid_until_s)}"


def provider_name(registration: Registration) -> str:
    """Its id, and the company's key where it has one."""
    return registration.id if registration.registrant is None else f"{registration.id} of {registration.registrant}"
