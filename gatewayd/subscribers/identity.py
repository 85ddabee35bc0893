"""Who the subscriber is: from the attribute that says so to the digest, and nothing in between is kept.

Reasons of what is left out: `identity_ambiguous`, `identity_hardware_address`, `identity_not_an_imsi`, and the
codes of model.msisdn after `identity_`.
"""

from __future__ import annotations

import hmac
import re
from typing import Final

from gatewayd.errors import MsisdnInvalid
from gatewayd.model.accounting import Identity, NasProfile
from gatewayd.model.msisdn import normalise_msisdn, subscriber_digest
from gatewayd.subscribers.radius.attributes import (
    ALC_MSISDN,
    CALLING_STATION_ID,
    CHARGEABLE_USER_IDENTITY,
    TGPP_IMSI,
    USER_NAME,
    VENDOR_3GPP,
    VENDOR_NOKIA,
    text_of,
)
from gatewayd.subscribers.radius.packet import AccountingRequest

TELLING_DIGITS: Final = 9
"""So many last digits of a number, found in another text, are taken for that number: the country code and the trunk
zero, which differ from one spelling to another, come before them."""
SESSION_DIGEST_BYTES: Final = 16

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


def shows_number(request: AccountingRequest, texts: list[str]) -> bool:
    """Whether one of these texts of the request has in it a number that is an identity elsewhere in the request."""
    values = [value for type_ in _ATTRIBUTES.values() for value in request.values(type_)]
    values += [value for attribute in _VENDOR_ATTRIBUTES.values() for value in request.vendor_values(*attribute)]
    for value in values:
        name = text_of(value).partition("@")[0]
        digits = name if name.isdecimal() else "".join(filter(str.isdecimal, name))
        tail = digits[-TELLING_DIGITS:]
        if len(tail) == TELLING_DIGITS and not _is_hardware_or_ip_address(name):
            for text in texts:
                if tail in text:
                    return True
    return False


def session_digest(session: str, pepper: bytes) -> str:
    """What stands for a session id that may have a number in it: the same for the same id, and of no other use."""
    return hmac.digest(pepper, b"session " + session.encode(), "sha256")[:SESSION_DIGEST_BYTES].hex()


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
