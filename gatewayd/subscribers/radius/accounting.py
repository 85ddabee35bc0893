"""An accounting request as an event: what happened to which session, when, and at which addresses.

Reasons of AccountingRejected: `bad_status_type`, `unused_status_type`, `no_session`, `number_in_clear`. All else
that cannot be used is left out of the event and named in it: a Stop with a broken address is still a Stop. Besides
the reasons in `attributes` and `identity` these are `integer_malformed`, `delay_implausible`,
`event_timestamp_implausible`, `event_timestamp_in_future`, `interim_interval_implausible`, `port_block_unusable`
and `port_blocks_several`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from gatewayd.errors import AccountingRejected
from gatewayd.model.accounting import PROXIES, AccountingEvent, AccountingKind, NasIdentity, NasProfile
from gatewayd.model.prefix import Prefix, format_address
from gatewayd.subscribers.identity import read_subscriber, session_digest, shows_number
from gatewayd.subscribers.radius.attributes import (
    ACCT_DELAY_TIME,
    ACCT_INTERIM_INTERVAL,
    ACCT_SESSION_ID,
    ACCT_STATUS_TYPE,
    EVENT_TIMESTAMP,
    INTEGER_BYTES,
    NAS_IDENTIFIER,
    NAS_IP_ADDRESS,
    NAS_IPV6_ADDRESS,
    TGPP_NSAPI,
    TGPP_SESSION_STOP_INDICATOR,
    VENDOR_3GPP,
    host_prefix,
    read_addresses,
    read_integer,
    read_port_blocks,
    read_text,
)
from gatewayd.subscribers.radius.packet import AccountingRequest

FUTURE_SKEW_S: Final = 300.0
"""A NAS's clock may be ahead by so much; a time zone taken for UTC is not skew."""
SET_S: Final = 2.0
"""The wall clock is another than the sessions' where they differ by more."""
OLDEST_S: Final = 7 * 86400.0
"""An Event-Timestamp older than this is of a NAS that does not know the date (they start in 1970 or 2000). Proxies
that keep requests and send them later count the wait in Acct-Delay-Time."""
MAX_INTERIM_S: Final = 7 * 86400

_KINDS: Final[dict[int, AccountingKind]] = {1: "start", 2: "stop", 3: "interim", 7: "on", 8: "off"}
_LAST_OF_ITS_SESSION: Final = b"\xff"
_PERHAPS_NOT_ALL: Final = frozenset(
    ("address_malformed", "too_many_addresses", "prefix_too_short", "port_block_unusable", "port_blocks_several")
)
"""With one of these, an address that is not listed may still be the session's."""


def read_event(
    request: AccountingRequest,
    source: bytes,
    profile: NasProfile,
    pepper: bytes,
    now_s: float,
    identity: NasIdentity | None = None,
    wall_s: float | None = None,
) -> AccountingEvent:
    """The event of a request from `source` (packed) at `now_s`. No number is in it, and none in an error.

    `now_s`: by the sessions' clock, which is never set. `wall_s`: what the wall clock says, if it is another time:
    a NAS has the time that one of them has, or had.
    `identity`: what read_nas said, where it was asked for the profile. Raises AccountingRejected: the request is to
    be answered, and changes nothing.
    """
    ignored: list[str] = []
    kind = _read_kind(request)
    identity = identity or read_nas(request, source)
    nas = identity.name
    at_s, delay_s, is_by_our_clock = _read_time(request, now_s, now_s if wall_s is None else wall_s, ignored)
    if kind in ("on", "off"):
        _check_texts(request, [nas])
        return AccountingEvent(
            kind=kind, nas=nas, identity=identity, session="", at_s=at_s, received_at_s=now_s,
            is_by_our_clock=is_by_our_clock, delay_s=delay_s, ignored=tuple(ignored),
        )  # fmt: skip
    session = _read_session(request, profile, pepper)
    _check_texts(request, [nas, session])
    addresses, ports = _read_whereabouts(request, profile, ignored)
    is_stop = kind == "stop"
    return AccountingEvent(
        kind=kind,
        nas=nas,
        identity=identity,
        session=session,
        at_s=at_s,
        received_at_s=now_s,
        is_by_our_clock=is_by_our_clock,
        delay_s=delay_s,
        subscriber=read_subscriber(request, profile, pepper, ignored),
        addresses=tuple(addresses),
        is_snapshot=profile.interim == "snapshot" and _PERHAPS_NOT_ALL.isdisjoint(ignored),
        ports=ports,
        interim_s=_read_interim(request, ignored),
        is_final_stop=is_stop and _is_final(request),
        ignored=tuple(ignored),
    )


def _read_kind(request: AccountingRequest) -> AccountingKind:
    """RFC 2866 §5.1: exactly one."""
    values = request.values(ACCT_STATUS_TYPE)
    if len(values) != 1 or len(values[0]) != INTEGER_BYTES:
        raise AccountingRejected("bad_status_type", f"{len(values)} times Acct-Status-Type, or not of four bytes")
    number = int.from_bytes(values[0], "big")
    if number not in _KINDS:
        raise AccountingRejected("unused_status_type", f"Acct-Status-Type {number} says nothing of addresses")
    return _KINDS[number]


def _read_session(request: AccountingRequest, profile: NasProfile, pepper: bytes) -> str:
    session = read_text(request, ACCT_SESSION_ID)
    if session is None:
        raise AccountingRejected("no_session", "Acct-Session-Id is absent or empty")
    return session_digest(session, pepper) if profile.session_ids == "digest" else session


def read_nas(request: AccountingRequest, source: bytes, *, is_proxied: bool = False) -> NasIdentity:
    """What the NAS calls itself, and the place that it speaks from. `is_proxied`: `source` (packed) is a proxy's.

    The name may have a subscriber's number in it until read_event has looked: not to be logged.
    """
    identifier = read_text(request, NAS_IDENTIFIER)
    addresses: tuple[str, ...] = ()
    for type_, size in ((NAS_IPV6_ADDRESS, 16), (NAS_IP_ADDRESS, 4)):
        for value in request.values(type_):
            if len(value) == size and any(value):
                addresses += (_nas_address(value),)
                break
    place = _nas_address(source)
    name = identifier or (addresses[0] if addresses else place)
    return NasIdentity(name, identifier, addresses, PROXIES if is_proxied else place)


_nas_address = lru_cache(maxsize=4096)(format_address)
"""There are few NAS, and each gives its address with every record."""


def _check_texts(request: AccountingRequest, texts: list[str]) -> None:
    if shows_number(request, texts):
        raise AccountingRejected(
            "number_in_clear",
            "a session id or the NAS's name has a subscriber's number in it; for session ids there is the digest",
        )


def _read_time(
    request: AccountingRequest, now_s: float, wall_s: float, ignored: list[str]
) -> tuple[float, float, bool]:
    """When it happened (RFC 2869 §5.3, else RFC 2866 §5.2), for how long it was on its way, and whether the time is
    by our clock."""
    delay_s = read_integer(request, ACCT_DELAY_TIME, ignored) or 0
    if delay_s > OLDEST_S:
        ignored.append("delay_implausible")  # of a sender that counts from a NAS's wrong clock
        delay_s = 0
    arrived_less_delay_s = now_s - delay_s
    stamp_s = read_integer(request, EVENT_TIMESTAMP, ignored)
    if stamp_s is None:
        return arrived_less_delay_s, delay_s, True
    at_s = float(stamp_s)
    if abs(wall_s - now_s) > SET_S and abs(stamp_s - wall_s) < abs(stamp_s - now_s):
        at_s += now_s - wall_s
    if at_s > now_s + FUTURE_SKEW_S:
        ignored.append("event_timestamp_in_future")
        return arrived_less_delay_s, delay_s, True
    if at_s < now_s - OLDEST_S:
        ignored.append("event_timestamp_implausible")
        return arrived_less_delay_s, delay_s, True
    return at_s, delay_s, False


def _read_interim(request: AccountingRequest, ignored: list[str]) -> int | None:
    """RFC 2869 §5.16; 0 is for none."""
    interim_s = read_integer(request, ACCT_INTERIM_INTERVAL, ignored)
    if interim_s is not None and interim_s > MAX_INTERIM_S:
        ignored.append("interim_interval_implausible")
        return None
    return interim_s or None


def _is_final(request: AccountingRequest) -> bool:
    """3GPP TS 29.061 §16.4.7.2: of a subscriber's PDP contexts (they have an NSAPI) the last to go says so."""
    if not request.vendor_values(VENDOR_3GPP, TGPP_NSAPI):
        return True
    return _LAST_OF_ITS_SESSION in request.vendor_values(VENDOR_3GPP, TGPP_SESSION_STOP_INDICATOR)


def _read_whereabouts(
    request: AccountingRequest, profile: NasProfile, ignored: list[str]
) -> tuple[list[Prefix], tuple[int, int] | None]:
    """The addresses of the session as this gateway sees them, and the ports where its IPv4 address is shared."""
    addresses = read_addresses(request, ignored)
    blocks = read_port_blocks(request)
    if not blocks:
        return addresses, None
    ipv4 = [each for each in addresses if each.family == 4]
    ipv6 = [each for each in addresses if each.family == 6]
    usable = [each for each in blocks if each]
    shared = {each.address for each in usable}
    if (
        profile.nat_side == "inside"
        and shared
        and None not in shared
        and shared.isdisjoint(each.packed for each in ipv4)
    ):
        return addresses, None
    if None in blocks:
        ignored.append("port_block_unusable")
    if len(usable) != 1:
        ignored.extend(["port_blocks_several"] if usable else [])
        return ipv6, None
    (block,) = usable
    if block.address is not None:
        host = host_prefix(block.address)
        if isinstance(host, str):
            ignored.append(host)
            return ipv6, None
        ipv4 = [host]
    return ipv4 + ipv6, block.ports if ipv4 else None
