"""Numbers of the attributes that are read, and values of the simple kinds.

A value that does not decode is left out with a reason code, which the caller counts; the rest of its request
stands (RFC 2866 §2: accounting is to be recorded, not judged).
"""

from __future__ import annotations

from typing import Final

from gatewayd.subscribers.packet import AccountingRequest

# RFC 2865, 2866, 2869
USER_NAME: Final = 1
NAS_IP_ADDRESS: Final = 4
FRAMED_IP_ADDRESS: Final = 8
CALLING_STATION_ID: Final = 31
NAS_IDENTIFIER: Final = 32
ACCT_STATUS_TYPE: Final = 40
ACCT_DELAY_TIME: Final = 41
ACCT_SESSION_ID: Final = 44
EVENT_TIMESTAMP: Final = 55
ACCT_INTERIM_INTERVAL: Final = 85
# RFC 4372, 3162, 4818, 6911
CHARGEABLE_USER_IDENTITY: Final = 89
NAS_IPV6_ADDRESS: Final = 95
FRAMED_IPV6_PREFIX: Final = 97
DELEGATED_IPV6_PREFIX: Final = 123
FRAMED_IPV6_ADDRESS: Final = 168
# RFC 8045: 241.6
IP_PORT_RANGE: Final = 6

VENDOR_3GPP: Final = 10415
"""3GPP TS 29.061 §16.4.7.2"""
TGPP_IMSI: Final = 1
TGPP_NSAPI: Final = 10
TGPP_SESSION_STOP_INDICATOR: Final = 11

VENDOR_NOKIA: Final = 6527
"""7750 SR RADIUS Attributes Reference Guide"""
ALC_IPV6_ADDRESS: Final = 99
ALC_NAT_PORT_RANGE: Final = 121
ALC_MSISDN: Final = 147

VENDOR_HUAWEI: Final = 2011
"""FreeRADIUS share/dictionary.huawei"""
HUAWEI_NAT_PUBLIC_ADDRESS: Final = 161
HUAWEI_NAT_START_PORT: Final = 162
HUAWEI_NAT_END_PORT: Final = 163

INTEGER_BYTES: Final = 4


def text_of(octets: bytes) -> str:
    """Text that can go into a log line: printable, without the NULs that some gear ends its strings with."""
    text = octets.rstrip(b"\0").decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def read_text(request: AccountingRequest, type_: int) -> str | None:
    """The first value that is not empty, as text; None for none."""
    return next(filter(None, map(text_of, request.values(type_))), None)


def read_integer(request: AccountingRequest, type_: int, left_out: list[str]) -> int | None:
    """The first value, unsigned; None where there is none, or `integer_malformed`: it is not of four bytes."""
    values = request.values(type_)
    if not values:
        return None
    if len(values[0]) != INTEGER_BYTES:
        left_out.append("integer_malformed")
        return None
    return int.from_bytes(values[0], "big")
