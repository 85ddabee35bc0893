"""What one RADIUS Accounting-Request says, as a value: whose session, where it stands, at which addresses.

Made by `subscribers.radius.accounting`, taken by the table of sessions. It has no name and no number: a subscriber
is the keyed digest of `model.msisdn`, and what else a packet carries of identity stays in the packet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from gatewayd.model.prefix import Prefix

AccountingKind = Literal["start", "interim", "stop", "on", "off"]
"""Acct-Status-Type 1, 3, 2, 7, 8 (RFC 2866 §5.1)."""


Identity = Literal["calling-station-id", "user-name", "chargeable-user-identity", "3gpp-imsi", "alc-msisdn"]
"""The attribute that says who the subscriber is. The registry hashes mobile numbers: an IMSI fits only a registry
that was filled with IMSIs."""


@dataclass(frozen=True, slots=True)
class NasProfile:
    """How one NAS, or all behind one RADIUS client, report their sessions: gear differs, and does not say."""

    interim: Literal["snapshot", "merge"] = "merge"
    """Whether an interim update lists every address of the session (Nokia) or perhaps a part (others)."""
    identity: Identity = "calling-station-id"
    country_code: str | None = None
    """For numbers without + or 00 (model.msisdn)."""
    nat_side: Literal["inside", "outside"] = "inside"
    """On which side of a CGNAT this gateway forwards: whether it sees the address behind it, or the shared one."""
    session_ids: Literal["plain", "digest"] = "plain"
    """`digest` for gear that writes the subscriber's number into Acct-Session-Id."""


PROXIES: Final = ""
"""The place of every NAS that comes through a client which is configured as a proxy."""


class NasIdentity(msgspec.Struct, frozen=True, gc=False):
    """What a NAS says of itself in one packet, and from where it speaks.

    `name`: the first that there is of `identifier` (NAS-Identifier), `addresses` (NAS-IPv6-Address, NAS-IP-Address)
    and the address that the packet came from. `source`: that address, or PROXIES; None: reported by another.
    """

    name: str
    identifier: str | None = None
    addresses: tuple[str, ...] = ()
    source: str | None = None


class AccountingEvent(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One Accounting-Request, verified, with identity hashed. Times are Unix seconds.

    `nas` scopes `session`: session ids are unique only within one NAS, and only until it restarts (RFC 2866 §5.5).
    `on` and `off` speak of the whole `nas`; they carry no session, subscriber or address that counts.
    """

    kind: AccountingKind
    nas: str
    """NAS-Identifier, else NAS-IPv6-Address or NAS-IP-Address, else the address that the packet came from."""
    identity: NasIdentity | None = None
    """All by which this NAS differs from others; None where there is the name alone."""
    session: str
    """Acct-Session-Id as text, or its digest where the profile says so. Empty for `on` and `off` alone."""
    at_s: float
    """When it happened: what the NAS says where it is plausible, else arrival less Acct-Delay-Time. Order by it."""
    received_at_s: float
    is_by_our_clock: bool = False
    """Whether `at_s` is by the clock of this host, as in lists and where no Event-Timestamp is of use: no NAS's
    clock has a part in how old it is."""
    is_replay: bool = False
    """Whether the same bytes were taken before, and nothing in them says when it happened."""
    authenticator: bytes = b""
    """Of `on` and `off`, as they came by RADIUS: 16 bytes by which the same one is known."""
    delay_s: float = 0.0
    """Acct-Delay-Time: for how long it was on its way, as the sender says."""
    subscriber: bytes | None = None
    """Digest of 32 bytes. None: this packet names no number. Another of the same session may, and the addresses are
    taken from any session that had them in any case."""
    addresses: tuple[Prefix, ...] = ()
    """Without repeats; a host address is a /32 or /128. Only those that a subscriber can be bound to."""
    is_snapshot: bool = False
    """Whether `addresses` are all that the session has, so that one absent here is gone; else they are added."""
    ports: tuple[int, int] | None = None
    """First and last port of a port block (CGNAT): the IPv4 address in `addresses` is shared, and ours is this part
    of it alone."""
    interim_s: int | None = None
    """Acct-Interim-Interval: seconds between the interim updates that the NAS means to send."""
    is_final_stop: bool = False
    """Whether a `stop` ends the subscriber's session. False for a stop of one bearer among several (3GPP TS 29.061
    §16.4.7: 3GPP-Session-Stop-Indicator absent from a stop of a PDP context), and for every other kind."""
    ignored: tuple[str, ...] = ()
    """Reason codes of what this packet said and could not be used; each one was counted, and the rest stands."""
