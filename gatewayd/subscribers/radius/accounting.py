"""An accounting request as an event: what happened to which session, when, and at which addresses.

Reasons of AccountingRejected: `bad_status_type`, `unused_status_type`, `no_session`, `number_in_clear`,
`nas_not_allowed`, `no_event_timestamp`. All else that cannot be used is left out of the event and named in it: a
Stop with a broken address is still a Stop. Besides the reasons in `attributes` these are `identity_ambiguous`,
`identity_hardware_address`, `identity_not_an_imsi`, the codes of model.msisdn after `identity_`,
`address_not_allowed`, `integer_malformed`, `delay_implausible`, `event_timestamp_implausible`,
`event_timestamp_in_future`, `interim_interval_implausible`, `port_block_unusable` and `port_blocks_several`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from gatewayd.errors import AccountingRejected, MsisdnInvalid
from gatewayd.model.accounting import PROXIES, AccountingEvent, AccountingKind, Identity, NasIdentity, NasProfile
from gatewayd.model.msisdn import (
    MAX_DIGITS,
    TELLING_DIGITS,
    digits_in,
    normalise_msisdn,
    session_digest,
    subscriber_digest,
)
from gatewayd.model.prefix import Prefix, format_address
from gatewayd.subscribers.radius.attributes import (
    ACCT_DELAY_TIME,
    ACCT_INTERIM_INTERVAL,
    ACCT_SESSION_ID,
    ACCT_STATUS_TYPE,
    ALC_MSISDN,
    CALLING_STATION_ID,
    CHARGEABLE_USER_IDENTITY,
    EVENT_TIMESTAMP,
    INTEGER_BYTES,
    NAS_IDENTIFIER,
    NAS_IP_ADDRESS,
    NAS_IPV6_ADDRESS,
    TGPP_IMSI,
    TGPP_NSAPI,
    TGPP_SESSION_STOP_INDICATOR,
    USER_NAME,
    VENDOR_3GPP,
    VENDOR_NOKIA,
    host_prefix,
    read_addresses,
    read_integer,
    read_port_blocks,
    read_text,
    text_of,
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
_MAX_WRITTEN_DIGITS: Final = 2 + MAX_DIGITS
"""Of a number with 00 before it."""
_LAST_OF_ITS_SESSION: Final = b"\xff"
_PERHAPS_NOT_ALL: Final = frozenset(
    ("address_malformed", "too_many_addresses", "prefix_too_short", "port_block_unusable", "port_blocks_several")
)
"""With one of these, an address that is not listed may still be the session's."""


_ATTRIBUTES: Final[dict[Identity, int]] = {
    "calling-station-id": CALLING_STATION_ID,
    "user-name": USER_NAME,
    "chargeable-user-identity": CHARGEABLE_USER_IDENTITY,
}
_VENDOR_ATTRIBUTES: Final[dict[Identity, tuple[int, int]]] = {
    "3gpp-imsi": (VENDOR_3GPP, TGPP_IMSI),
    "alc-msisdn": (VENDOR_NOKIA, ALC_MSISDN),
}

_is_imsi = re.compile(r"[0-9]{14,15}", re.ASCII).fullmatch
"""ITU-T E.212 §6.1; all in use have 15 digits, in some countries 14."""
_is_hardware_or_ip_address = re.compile(
    r"([0-9a-f]{2}([-:][0-9a-f]{2}){5}|[0-9a-f]{4}([-.:][0-9a-f]{4}){2}|[0-9a-f]{6}-[0-9a-f]{6})(?![0-9a-f])"
    r"|[0-9]{1,3}(\.[0-9]{1,3}){3}$",
    re.ASCII | re.IGNORECASE,
).match
"""A MAC address (perhaps an SSID behind it) or IPv4 address: their separators would pass for those of a number."""


@dataclass(frozen=True, slots=True)
class Permission:
    """What a client may report. `nas`: names; `addresses`: prefixes that the reported ones lie in; empty: any."""

    nas: frozenset[str] = frozenset()
    addresses: tuple[Prefix, ...] = ()
    require_event_timestamp: bool = False

    def check_time(self, is_by_our_clock: bool) -> None:
        """Raises AccountingRejected."""
        if is_by_our_clock and self.require_event_timestamp:
            raise AccountingRejected("no_event_timestamp", "this client's requests must have one that is of use")

    def of(self, prefixes: list[Prefix], ignored: list[str]) -> list[Prefix]:
        """Those that may be reported."""
        if not self.addresses:
            return prefixes
        allowed = [
            prefix
            for prefix in prefixes
            if any(each.length <= prefix.length and each.covers(prefix.packed) for each in self.addresses)
        ]
        ignored += ["address_not_allowed"] * (len(prefixes) - len(allowed))
        return allowed


ANYTHING: Final = Permission()


def read_event(
    request: AccountingRequest,
    source: bytes,
    profile: NasProfile,
    pepper: bytes,
    now_s: float,
    identity: NasIdentity | None = None,
    wall_s: float | None = None,
    permission: Permission = ANYTHING,
) -> AccountingEvent:
    """The event of a request from `source` (packed) at `now_s`. No number is in it, and none in an error.

    `now_s`: by the sessions' clock, which is never set; `wall_s`: by the wall's: a NAS has one of them, or had.
    `identity`: what read_nas said, where it was asked for the profile. `permission`: of the client. Raises
    AccountingRejected: the request is to be answered, and changes nothing.
    """
    ignored: list[str] = []
    kind = _read_kind(request)
    identity = identity or read_nas(request, source, permission)
    nas = identity.name
    at_s, delay_s, is_by_our_clock = _read_time(request, now_s, now_s if wall_s is None else wall_s, ignored)
    permission.check_time(is_by_our_clock)
    if kind in ("on", "off"):
        _check_texts(request, [nas])
        return AccountingEvent(
            kind=kind, nas=nas, identity=identity, session="", at_s=at_s, received_at_s=now_s,
            is_by_our_clock=is_by_our_clock, delay_s=delay_s, authenticator=request.authenticator,
            ignored=tuple(ignored),
        )  # fmt: skip
    session = _read_session(request, profile, pepper)
    _check_texts(request, [nas] if profile.session_ids == "digest" else [nas, session])
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
        addresses=tuple(permission.of(addresses, ignored)),
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


def read_nas(
    request: AccountingRequest, source: bytes, permission: Permission = ANYTHING, *, is_proxied: bool = False
) -> NasIdentity:
    """What the NAS calls itself, and the place that it speaks from. `is_proxied`: `source` (packed) is a proxy's.
    Of the addresses that it gives beside its name, those count that the client may use as names too.

    The name may have a subscriber's number in it until read_event has looked: not to be logged. Raises
    AccountingRejected: the client may not report of this NAS.
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
    if permission.nas:
        if name not in permission.nas:
            raise AccountingRejected("nas_not_allowed", "`nas` of this client does not name it")
        addresses = tuple(each for each in addresses if each in permission.nas)
    return NasIdentity(name, identifier, addresses, PROXIES if is_proxied else place)


_nas_address = lru_cache(maxsize=4096)(format_address)
"""There are few NAS, and each gives its address with every record."""


def _check_texts(request: AccountingRequest, texts: list[str]) -> None:
    """These are kept and shown. Raises AccountingRejected: one of them has a number in it that is an identity
    elsewhere in the request. As shows_number, with the digits of each text found once."""
    kept = [digits for text in texts if len(digits := digits_in(text)) >= TELLING_DIGITS]
    if not kept:
        return
    values = [value for type_ in _ATTRIBUTES.values() for value in request.values(type_)]
    values += [value for attribute in _VENDOR_ATTRIBUTES.values() for value in request.vendor_values(*attribute)]
    for value in values:
        name = text_of(value).partition("@")[0]
        digits = digits_in(name)
        if (
            TELLING_DIGITS <= len(digits) <= _MAX_WRITTEN_DIGITS
            and any(digits[-TELLING_DIGITS:] in each for each in kept)
            and not _is_hardware_or_ip_address(name)
        ):
            raise AccountingRejected(
                "number_in_clear",
                "a session id or the NAS's name has the subscriber's number in it; for ids there is the digest",
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


# The subscriber: from the attribute that says so to the digest, and nothing in between is kept


def read_subscriber(
    request: AccountingRequest, profile: NasProfile, pepper: bytes, ignored: list[str]
) -> bytes | None:
    """The digest of the subscriber; None where the request names none, or none that could be registered."""
    texts = {text for value in _identity_values(request, profile.identity) if (text := text_of(value).strip())}
    if not texts:
        return None
    if len(texts) > 1:
        ignored.append("identity_ambiguous")
        return None
    try:
        digits = _digits_of(texts.pop(), profile)
    except MsisdnInvalid as invalid:
        ignored.append(f"identity_{invalid.code}")
        return None
    return subscriber_digest(digits, pepper)


def _identity_values(request: AccountingRequest, identity: Identity) -> list[bytes]:
    if identity in _ATTRIBUTES:
        return request.values(_ATTRIBUTES[identity])
    return request.vendor_values(*_VENDOR_ATTRIBUTES[identity])


def _digits_of(text: str, profile: NasProfile) -> str:
    """What is hashed. A realm (`923001234567@apn`, RFC 7542 §2.2) is not part of the number."""
    if profile.identity == "3gpp-imsi":
        if not _is_imsi(text):
            raise MsisdnInvalid("not_an_imsi", "an IMSI has 14 or 15 digits")
        return text
    if _is_hardware_or_ip_address(text):
        raise MsisdnInvalid("hardware_address", "a MAC or IP address")
    return normalise_msisdn(text.partition("@")[0], profile.country_code)
