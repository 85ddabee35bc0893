"""RADIUS accounting packets: a datagram to a request that is worth believing, and the answer to it.

The Request Authenticator is checked before anything is parsed: a datagram of a sender without the secret costs one
MD5 over its bytes, 6 µs for the longest.

pyrad computes the Message-Authenticator and encodes the answer. What it lets pass is refused here, before it sees
the datagram: an attribute that ends behind the packet (pyrad 2.6 cuts it short and says nothing), and a
Message-Authenticator of another size or given twice. `AcctPacket` is used without a dictionary, and for these two
alone: vendors' attributes are split here (in pyrad up to 2.5.4 that could go on for ever, pyradius/pyrad issue
234), and values are decoded in `attributes`, strictly.

Responses are kept for repeats: a repeat of a request gets the same bytes and does nothing twice. It has the
address, port, identifier and authenticator of the first (RFC 5080 §2.2.2). An answer may take its time, as the
request is written down before it. Repeats that come meanwhile get nothing, and those that come later get what the
first one got.

Reasons of RadiusRejected, in the order of the checks: `too_short`, `bad_length`, `bad_code`, `bad_authenticator`,
`bad_attribute`, `missing_message_authenticator`, `bad_message_authenticator`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import md5
from hmac import compare_digest
from typing import Any, Final

from pyrad.packet import AcctPacket

from gatewayd.errors import RadiusRejected

ACCOUNTING_REQUEST: Final = 4
STATUS_SERVER: Final = 12
"""RFC 5997: "are you there", asked by proxies before they send."""

HEADER_BYTES: Final = 20
MAX_BYTES: Final = 4096
"""RFC 2865 §3."""

MESSAGE_AUTHENTICATOR: Final = 80
MESSAGE_AUTHENTICATOR_BYTES: Final = 16
MAX_ATTRIBUTES: Final = 512
"""Of a request, its vendors' attributes counted too. Such with 64 addresses have some 150; 4096 bytes have room for
2038 that are empty."""
MAX_STATUS_ATTRIBUTES: Final = 16
"""Of a Status-Server, which is parsed before its sender is known."""
_NO_AUTHENTICATOR: Final = bytes(16)
_PROXY_STATE: Final = 33
_VENDOR_SPECIFIC: Final = 26
_VENDOR_BYTES: Final = 4
_EXTENDED: Final = 241

KEEP_S: Final = 30.0
"""RFC 5080 §2.2.2: no less than 5 seconds and no more than 30."""
PENDING_S: Final = 5.0
"""A request that was not answered in this time is given up, and its repeat is new. A NAS repeats after 3 to 5 s."""
MAX_RESPONSES: Final = 65536
REPLAY_S: Final = 86400.0
MAX_REPLAYS: Final = 65536
"""140 bytes each."""

PENDING: Final = b""
"""In place of an answer: the request is being dealt with."""

_PRUNED_EACH: Final = 2


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Request:
    """A request whose sender holds one of the secrets. No value and no secret shows in its repr."""

    _packet: Any
    """pyrad's AcctPacket, with the secret that fitted."""

    @property
    def authenticator(self) -> bytes:
        """16 bytes, over all of an accounting request and the secret."""
        return bytes(self._packet.authenticator)

    @property
    def identifier(self) -> int:
        """0..255. A sender may use it again at once: an exact repeat is the same identifier *and* authenticator."""
        return int(self._packet.id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(identifier={self.identifier})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class StatusServer(_Request):
    """RFC 5997: wants an answer and says nothing."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class AccountingRequest(_Request):
    """RFC 2866 §4.1. Values are bytes, in the order of the packet, as they came."""

    _values: dict[int | tuple[int, int], list[bytes]]
    """By type, or by vendor and type."""

    def values(self, type_: int) -> list[bytes]:
        """All values of the attribute of this number; none: an empty list."""
        return self._values.get(type_, [])

    def vendor_values(self, vendor: int, type_: int) -> list[bytes]:
        """All values of a vendor's attribute."""
        return self._values.get((vendor, type_), [])

    def extended_values(self, extended_type: int) -> list[bytes]:
        """All values of attribute 241.`extended_type` (RFC 6929 §2.1)."""
        lead = bytes([extended_type])
        return [value[1:] for value in self.values(_EXTENDED) if value.startswith(lead)]


def open_request(raw: bytes, secrets: Sequence[bytes]) -> AccountingRequest | StatusServer:
    """The request that a datagram is. `secrets`: those of its sender, tried in order (rotation needs two).

    Bytes behind the length that the header states are padding (RFC 2865 §3). Raises RadiusRejected; then nothing
    in the datagram is to be believed and nothing is to be answered.
    """
    length = _checked_length(raw)
    packet = raw if length == len(raw) else raw[:length]
    code = packet[0]
    if code == ACCOUNTING_REQUEST:
        return _open_accounting(packet, secrets)
    if code == STATUS_SERVER:
        return _open_status(packet, secrets)
    raise RadiusRejected("bad_code", f"code {code}")


def _open_accounting(raw: bytes, secrets: Sequence[bytes]) -> AccountingRequest:
    """Nothing is parsed before the sender is known: one MD5 over the bytes, and its end once for each secret."""
    secret = _secret_of(raw, secrets)
    if secret is None:
        raise RadiusRejected("bad_authenticator", f"fits none of {len(secrets)} secrets")
    attributes = _attributes_of(raw, MAX_ATTRIBUTES)
    packet = _undecoded_packet(raw, attributes)
    packet.secret = secret
    # RFC 2869 §5.14, over a Request Authenticator of zeros: it was not known when this was computed.
    if _is_signed(attributes) and not packet.verify_message_authenticator():
        raise RadiusRejected("bad_message_authenticator", "is not of the secret that the request is of")
    return AccountingRequest(packet, _values_of(attributes))


def _open_status(raw: bytes, secrets: Sequence[bytes]) -> StatusServer:
    """Its authenticator is random (RFC 5997 §3), so the attribute that proves its sender has to be found first."""
    attributes = _attributes_of(raw, MAX_STATUS_ATTRIBUTES)
    if not _is_signed(attributes):
        raise RadiusRejected("missing_message_authenticator", "RFC 5997 §3 asks for one")
    packet = _undecoded_packet(raw, attributes)
    for secret in secrets:
        packet.secret = secret
        if packet.verify_message_authenticator():
            return StatusServer(packet)
    raise RadiusRejected("bad_message_authenticator", f"fits none of {len(secrets)} secrets")


def _secret_of(raw: bytes, secrets: Sequence[bytes]) -> bytes | None:
    """The secret that the Request Authenticator was made with (RFC 2866 §3); None for none of these."""
    authenticator = raw[4:HEADER_BYTES]
    begun = md5(raw[:4], usedforsecurity=False)
    begun.update(_NO_AUTHENTICATOR)
    begun.update(raw[HEADER_BYTES:])
    for secret in secrets:
        whole = begun.copy()
        whole.update(secret)
        if compare_digest(whole.digest(), authenticator):
            return secret
    return None


def _attributes_of(raw: bytes, most: int) -> list[tuple[int, bytes]]:
    attributes = split_attributes(raw[HEADER_BYTES:], most)
    if attributes is None:
        raise RadiusRejected("bad_attribute", f"attributes do not fill the packet, or there are more than {most}")
    return attributes


def encode_response(request: AccountingRequest | StatusServer, *, is_signed: bool = False) -> bytes:
    """The Accounting-Response to a request, under the secret that the request came with (RFC 2866 §4.2).

    Proxy-State goes back as it came and in order (RFC 2865 §5.33). On an accounting port Status-Server gets the
    same code (RFC 5997 §4.2), with a Message-Authenticator. `is_signed` puts one into the answer to an accounting
    request too. No RFC says how: this is FreeRADIUS's way, zeros for the authenticator. Off unless asked for: a NAS
    that computes it otherwise drops the answer and repeats the request for ever, and the Response Authenticator
    covers the whole packet in any case.
    """
    if isinstance(request, StatusServer):
        return bytes(request._packet.CreateReply().ReplyPacket())
    return bytes(request._packet.CreateReply(message_authenticator=is_signed or None).ReplyPacket())


def _undecoded_packet(raw: bytes, attributes: list[tuple[int, bytes]]) -> Any:
    """What pyrad needs for authenticators and the answer, and no more: to decode the rest takes it 20 µs."""
    packet = AcctPacket(code=raw[0], id=raw[1], authenticator=raw[4:HEADER_BYTES])
    packet.raw_packet = raw
    for type_, value in attributes:
        if type_ == MESSAGE_AUTHENTICATOR:
            packet.message_authenticator = True
            packet[type_] = [value]
        elif type_ == _PROXY_STATE:
            packet.setdefault(type_, []).append(value)
    return packet


def split_attributes(raw: bytes, most: int = MAX_ATTRIBUTES) -> list[tuple[int, bytes]] | None:
    """(type, value) of attributes that follow one another without a gap; None where they do not fill `raw`, or are
    more than `most`.

    The layout is the same for a packet, a vendor's attributes and TLVs (RFC 2865 §5, §5.26; RFC 6929 §2.3).
    """
    attributes: list[tuple[int, bytes]] = []
    at, end = 0, len(raw)
    while at < end:
        after = at + raw[at + 1] if at + 1 < end else 0
        if not at + 2 <= after <= end or len(attributes) >= most:
            return None
        attributes.append((raw[at], raw[at + 2 : after]))
        at = after
    return attributes


def _checked_length(raw: bytes) -> int:
    """The length that the header states, where the datagram has as much."""
    if len(raw) < HEADER_BYTES:
        raise RadiusRejected("too_short", f"{len(raw)} bytes, and a header has {HEADER_BYTES}")
    length = int.from_bytes(raw[2:4], "big")
    if not HEADER_BYTES <= length <= min(len(raw), MAX_BYTES):
        raise RadiusRejected("bad_length", f"states {length} bytes and has {len(raw)}")
    return length


def _is_signed(attributes: list[tuple[int, bytes]]) -> bool:
    """Whether there is a Message-Authenticator; of the right size, and not two."""
    sizes = [len(value) for type_, value in attributes if type_ == MESSAGE_AUTHENTICATOR]
    if sizes not in ([], [MESSAGE_AUTHENTICATOR_BYTES]):
        raise RadiusRejected("bad_message_authenticator", f"{len(sizes)} of them, {sizes} bytes")
    return bool(sizes)


def _values_of(attributes: list[tuple[int, bytes]]) -> dict[int | tuple[int, int], list[bytes]]:
    """The values by type. A vendor's attributes are split where they are laid out as RFC 2865 §5.26 suggests, as
    long as there are not too many."""
    values: dict[int | tuple[int, int], list[bytes]] = {}
    for type_, value in attributes:
        values.setdefault(type_, []).append(value)
    left = MAX_ATTRIBUTES - len(attributes)
    for specific in values.get(_VENDOR_SPECIFIC, ()):
        vendor = int.from_bytes(specific[:_VENDOR_BYTES], "big")
        found = split_attributes(specific[_VENDOR_BYTES:], left) or ()
        left -= len(found)
        for vendor_type, value in found:
            values.setdefault((vendor, vendor_type), []).append(value)
    return values


class Responses:
    """At most `most`; the oldest goes first. `now` is in seconds and never goes back.

    An OrderedDict in order of the last change: to find the first entry of a plain dict takes longer with each that
    was removed before it.
    """

    __slots__ = ("_entries", "_keep_s", "_most", "_pending_s", "lost")

    def __init__(self, *, keep_s: float = KEEP_S, pending_s: float = PENDING_S, most: int = MAX_RESPONSES) -> None:
        self._keep_s = keep_s
        self._pending_s = pending_s
        self._most = most
        self._entries: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self.lost = 0
        """Entries that the bound cost before their time."""

    def __len__(self) -> int:
        return len(self._entries)

    def admit(self, key: bytes, now: float) -> bytes | None:
        """What there is for a request. None: it is new, and PENDING from now on."""
        entry = self._entries.get(key)
        if entry is not None:
            since, response = entry
            if now - since < self._time_of(response):
                return response
        self.keep(key, PENDING, now)
        return None

    def keep(self, key: bytes, response: bytes, now: float) -> None:
        """`response` is the answer from now on. The key may have been given up since it was admitted."""
        entries = self._entries
        count = len(entries)
        entries[key] = (now, response)
        if len(entries) == count:
            entries.move_to_end(key)
            return
        for _ in range(_PRUNED_EACH):
            since, oldest = next(iter(entries.values()))
            if now - since < self._time_of(oldest):
                break
            entries.popitem(last=False)
        if len(entries) > self._most:
            entries.popitem(last=False)
            self.lost += 1

    def _time_of(self, response: bytes) -> float:
        return self._keep_s if response else self._pending_s


class Replays:
    """Requests without a time of their own, for a day: the same again, however late, may be a replay. At most
    `most`; the oldest goes first. `now` is in seconds and never goes back."""

    __slots__ = ("_keep_s", "_kept", "_most", "lost")

    def __init__(self, *, keep_s: float = REPLAY_S, most: int = MAX_REPLAYS) -> None:
        self._keep_s = keep_s
        self._most = most
        self._kept: OrderedDict[bytes, float] = OrderedDict()
        self.lost = 0
        """Forgotten before their time, for the bound."""

    def __len__(self) -> int:
        return len(self._kept)

    def knows(self, key: bytes, now: float) -> bool:
        since = self._kept.get(key)
        return since is not None and now - since < self._keep_s

    def keep(self, key: bytes, now: float) -> None:
        """It was taken, and answered."""
        kept = self._kept
        kept[key] = now
        kept.move_to_end(key)
        for _ in range(_PRUNED_EACH):
            if now - next(iter(kept.values())) < self._keep_s:
                break
            kept.popitem(last=False)
        if len(kept) > self._most:
            kept.popitem(last=False)
            self.lost += 1
