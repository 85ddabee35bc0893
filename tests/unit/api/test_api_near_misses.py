"""Each reason in words, and the one change that mends it."""

from __future__ import annotations

from math import inf

import msgspec
import pytest

from gatewayd.api.near_misses import near_miss_view
from gatewayd.model import Registration, Service, parse_prefix
from gatewayd.model.registration import Extension, RejectedRecord
from gatewayd.near_miss.findings import Line
from gatewayd.near_miss.reasons import REASONS, Reason
from gatewayd.registry.standing import OverrideNote, Standing

FAR = parse_prefix("198.51.100.0/24")
BY_ADDRESS = Registration("BANK", "bank", "active", (parse_prefix("192.0.2.0/28"),))
BY_NUMBER = Registration("BANK", "bank", "active", (), subscriber=b"\1" * 32)
FILTER = OverrideNote("filter", "BANK", "cuts.yaml", 7, "order 12", inf)


def line(reason: Reason = "service_not_listed", acknowledged_until_s: float = 0.0) -> Line:
    return Line("BANK", "bank", reason, 0.0, 60.0, 3, Service(17, 51820, 51820), FAR, acknowledged_until_s)


def standing(registered: Registration | None, *filters: OverrideNote) -> Standing:
    return Standing("BANK", "national", BY_ADDRESS, (), None, filters, registered, None)


MENDS: dict[Reason, tuple[str, str]] = {
    "suspended": ("it is suspended", "registry: set the status of BANK to active"),
    "revoked": ("it is revoked", "registry: set the status of BANK to active"),
    "not_open_yet": ("its window is not open yet", "registry: set an earlier valid_from of BANK"),
    "window_closed": ("its window has closed", "registry: set a later valid_until of BANK"),
    "withdrawn": ("it is not in force any more, and was within the last day", "registry: register BANK again"),
    "address_moved": (
        "the flow came from its former address",
        "registry: put the former address back into the clients of BANK",
    ),
    "binding_ended": (
        "its subscriber's session at the address ended, as accounting says",
        "registry: put the former address back into the clients of BANK",
    ),
    "peer_not_listed": (
        "no peer of it covers the far end, in 198.51.100.0/24",
        "registry: add the far end, in 198.51.100.0/24, to the peers of BANK",
    ),
    "service_not_listed": (
        "udp/51820 is not among its services",
        "registry: add the service udp/51820 to BANK",
    ),
    "not_programmed": ("a bound keeps it out of the kernel", "gatewayd registrations BANK"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_has_a_sentence_and_a_change(reason: Reason) -> None:
    view = near_miss_view(line(reason), 100.0, standing(BY_ADDRESS), None)
    assert (view.why, view.mend) == MENDS[reason]
    assert near_miss_view(line(reason), 100.0, None, None).mend == MENDS[reason][1]


@pytest.mark.parametrize("reason", ["address_moved", "binding_ended"])
def test_a_subscriber_is_looked_for_among_the_bindings(reason: Reason) -> None:
    view = near_miss_view(line(reason), 100.0, standing(BY_NUMBER), None)
    assert view.mend == "gatewayd bindings --registration BANK"


def test_what_is_held_or_filtered_is_mended_here() -> None:
    assert near_miss_view(line(), 100.0, standing(BY_ADDRESS), 17).mend == "gatewayd accept 17"
    filtered = near_miss_view(line("withdrawn"), 100.0, standing(None, FILTER), None)
    assert filtered.mend == "remove the filter of BANK in cuts.yaml:7"
    # A filter that takes some prefixes leaves the registration: the registry mends it.
    trimmed = near_miss_view(line(), 100.0, standing(BY_ADDRESS, FILTER), None)
    assert trimmed.mend == "registry: add the service udp/51820 to BANK"


def test_times_and_the_acknowledgement() -> None:
    view = near_miss_view(line(), 100.0, None, None)
    assert (view.first_seen, view.last_seen) == ("1970-01-01T00:00:00Z", "1970-01-01T00:01:00Z")
    assert (view.acknowledged_until, view.for_good) == (None, False)
    view = near_miss_view(line(acknowledged_until_s=120.0), 100.0, None, None)
    assert (view.acknowledged_until, view.for_good) == ("1970-01-01T00:02:00Z", False)
    assert near_miss_view(line(acknowledged_until_s=100.0), 100.0, None, None).acknowledged_until is None
    view = near_miss_view(line(acknowledged_until_s=inf), 100.0, None, None)
    assert (view.acknowledged_until, view.for_good) == (None, True)
    assert msgspec.json.encode(view)


def test_a_record_that_was_rejected_is_what_has_to_be_mended() -> None:
    record = RejectedRecord(7, 12, "BANK", "bad_service", "services")
    view = near_miss_view(line(), 100.0, standing(BY_ADDRESS), None, ("national", record))
    assert view.why == "udp/51820 is not among its services; its latest record was rejected (bad_service)"
    assert view.mend == "registry: mend the record of BANK, line 12 of national (bad_service)"


def test_a_line_names_the_company_where_the_registry_does() -> None:
    of_company = msgspec.structs.replace(BY_ADDRESS, extension=Extension("HBL"))
    assert near_miss_view(line(), 100.0, standing(of_company), None).registrant == "HBL"
    assert near_miss_view(line(), 100.0, standing(BY_ADDRESS), None).registrant is None
    assert near_miss_view(line(), 100.0, None, None).registrant is None
    assert near_miss_view(line(), 100.0, standing(None), None).registrant is None
