"""The notification of a signed feed: bytes ↔ Notification, and the keys it is signed with.

A notification is a compact JWS (RFC 7515 §3.1) over JSON, signed with Ed25519 (RFC 8037 §3.1; `EdDSA`, or
`Ed25519` as RFC 9864 names it). The protected header is `alg`, `kid` and at most `typ`: a key, a URL of one or
a critical extension in it is refused, for the only keys there are come from the operator. The cryptography is
joserfc's.

Keys are JWKs (RFC 7517, RFC 8037 §2) with a `kid`. Fields of the payload that version 1 does not know are
ignored, so that a registry may add some.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from joserfc import jws
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import OKPKey
from msgspec import Meta

from gatewayd.errors import BadSignature, KeyInvalid, NotificationMalformed, UnknownKey
from gatewayd.model.decoding import UNDECODABLE, FormatNumber, why_undecodable

VERSION: Final = 1
ALGORITHM: Final = "EdDSA"
ALGORITHMS: Final = frozenset({"EdDSA", "Ed25519"})

MAX_BYTES: Final = 1 << 20
"""A longer notification is not looked at."""
MAX_DELTAS: Final = 2000
MAX_FILE_BYTES: Final = 1 << 40
MAX_RECORDS: Final = 10**9
LAST_SERIAL: Final = (1 << 53) - 1
"""What every JSON reader can hold (RFC 7493 §2.2)."""
MAX_INTERVAL_S: Final = 366 * 86400

_HEADER_BYTES: Final = 512
_is_compact = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+").fullmatch
_KID: Final = r"^[A-Za-z0-9._:@/+=-]{1,128}\Z"


class SnapshotRef(msgspec.Struct, frozen=True):
    """The snapshot as served: `sha256` (hex) and `size` (bytes) of the gzip file, `count` of its records."""

    url: str
    sha256: str
    size: int
    count: int


class DeltaRef(msgspec.Struct, frozen=True):
    """The delta that leads from `serial` − 1 to `serial`, as served."""

    serial: int
    url: str
    sha256: str
    size: int


class Notification(msgspec.Struct, frozen=True):
    """What the feed is now. `session`: UUID, lower case. `issued_at`: Unix seconds, to the microsecond.

    `refresh`, `retry`, `expire`: seconds; 0 = the notification does not say. `deltas`: any order, no serial
    twice, none above `serial`. URLs may be relative.
    """

    session: str
    serial: int
    issued_at: float
    refresh: int
    retry: int
    expire: int
    snapshot: SnapshotRef
    deltas: tuple[DeltaRef, ...]
    version: int = VERSION


class SigningKey:
    """A private Ed25519 key with its name. Its text and its repr never show the key by accident."""

    __slots__ = ("_key", "kid")

    def __init__(self, kid: str, key: OKPKey) -> None:
        self.kid = kid
        self._key = key

    def __repr__(self) -> str:
        return f"SigningKey({self.kid!r})"

    def private_text(self) -> str:
        """The private JWK as JSON: for the registry's own file alone."""
        return _text_of(self.kid, self._key, is_private=True)

    def public_text(self) -> str:
        """The public JWK as JSON: for gateways."""
        return _text_of(self.kid, self._key, is_private=False)

    def sign(self, payload: bytes) -> bytes:
        """`payload` as compact JWS."""
        header = {"alg": ALGORITHM, "kid": self.kid}
        return jws.serialize_compact(header, payload, self._key, registry=_REGISTRY).encode()


class VerifyingKey:
    """A public Ed25519 key with its name. Equal when name and key are."""

    __slots__ = ("_key", "_x", "kid")

    def __init__(self, kid: str, key: OKPKey) -> None:
        self.kid = kid
        self._key = key
        self._x = str(key.as_dict(private=False)["x"])

    def __repr__(self) -> str:
        return f"VerifyingKey({self.kid!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifyingKey) and (self.kid, self._x) == (other.kid, other._x)

    def __hash__(self) -> int:
        return hash((self.kid, self._x))

    def verify(self, raw: bytes) -> bytes:
        """The payload of a compact JWS. Raises BadSignature, NotificationMalformed."""
        try:
            return jws.deserialize_compact(raw, self._key, registry=_REGISTRY).payload
        except BadSignatureError:
            raise BadSignature(self.kid) from None
        except (JoseError, ValueError):
            raise NotificationMalformed("not a compact JWS") from None


def sign_notification(notification: Notification, key: SigningKey) -> bytes:
    """The compact JWS. Raises NotificationMalformed for what `open_notification` would refuse."""
    payload = _encode_payload(notification)
    _decode_payload(payload)
    raw = key.sign(payload)
    if len(raw) > MAX_BYTES:
        raise NotificationMalformed(f"longer than {MAX_BYTES} bytes")
    return raw


def open_notification(raw: bytes, keys: Mapping[str, VerifyingKey]) -> Notification:
    """What was signed. `keys`: by `kid`.

    Raises NotificationMalformed, UnknownKey, BadSignature; nothing of the payload is looked at before the
    signature is found good.
    """
    if len(raw) > MAX_BYTES:
        raise NotificationMalformed(f"longer than {MAX_BYTES} bytes")
    raw = raw.strip(b" \t\r\n")
    if raw[:1] == b"<" or raw.startswith(b"\xef\xbb\xbf<"):
        raise NotificationMalformed("the server sends markup (a login page?)")
    if not _is_compact(raw):
        raise NotificationMalformed("not a compact JWS")
    header = _decode_header(raw.partition(b".")[0])
    if header.alg not in ALGORITHMS:
        raise NotificationMalformed("is not signed with EdDSA (Ed25519)")
    key = keys.get(header.kid)
    if key is None:
        raise UnknownKey(header.kid, tuple(keys))
    return _decode_payload(key.verify(raw))


# -- keys ----------------------------------------------------------------------------------------------------


def generate_key(kid: str) -> SigningKey:
    """A new key. Raises KeyInvalid for a `kid` that is not 1 to 128 of A-Z a-z 0-9 . _ : @ / + = -"""
    if re.match(_KID, kid) is None:
        raise KeyInvalid("`kid` must be 1 to 128 of A-Z a-z 0-9 . _ : @ / + = -")
    return SigningKey(kid, OKPKey.generate_key("Ed25519"))


def load_signing_key(text: str) -> SigningKey:
    """The key of a private JWK. Raises KeyInvalid."""
    wire = _convert_key(_decode_json(text))
    if wire.d is None:
        raise KeyInvalid("is a public key; a private one is needed to sign")
    return SigningKey(wire.kid, _import_key(wire))


def load_verifying_keys(texts: Iterable[str]) -> dict[str, VerifyingKey]:
    """Public keys by `kid`; each text is a JWK or a JWK set. Raises KeyInvalid, also for a private key."""
    keys: dict[str, VerifyingKey] = {}
    for text in texts:
        value = _decode_json(text)
        members = value.get("keys") if isinstance(value, dict) and "keys" in value else [value]
        if not isinstance(members, list) or not members:
            raise KeyInvalid("`keys` of a JWK set must be a list of at least one key")
        for member in members:
            wire = _convert_key(member)
            if wire.d is not None:
                raise KeyInvalid(f"{wire.kid} is a private key; it must not leave the registry")
            key = VerifyingKey(wire.kid, _import_key(wire))
            if keys.setdefault(wire.kid, key) != key:
                raise KeyInvalid(f"{wire.kid} names two different keys")
    return keys


class _WireKey(msgspec.Struct):
    """RFC 7517 §4, RFC 8037 §2; other members are ignored, as they ask for."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str
    kid: Annotated[str, Meta(pattern=_KID)]
    d: str | None = None
    use: Literal["sig"] | None = None
    alg: Literal["EdDSA", "Ed25519"] | None = None


def _decode_json(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (UnicodeError, *UNDECODABLE):
        raise KeyInvalid("is not JSON; expected a JWK or a JWK set") from None


def _convert_key(value: object) -> _WireKey:
    try:
        return msgspec.convert(value, _WireKey)
    except UNDECODABLE:
        raise KeyInvalid("expected an Ed25519 JWK: kty OKP, crv Ed25519, x, kid, and use sig or none") from None


def _import_key(wire: _WireKey) -> OKPKey:
    try:
        public = _import_text({"kty": wire.kty, "crv": wire.crv, "x": wire.x})
        if wire.d is None:
            return public
        private = _import_text({"kty": wire.kty, "crv": wire.crv, "x": wire.x, "d": wire.d})
    except (JoseError, ValueError, TypeError):
        raise KeyInvalid(f"{wire.kid} does not hold an Ed25519 key") from None
    if private.as_dict(private=False)["x"] != public.as_dict(private=False)["x"]:
        raise KeyInvalid(f"{wire.kid}: the private and the public part do not belong together")
    return private


def _import_text(value: dict[str, str | list[str]]) -> OKPKey:
    """By way of the native key, so that the JWK's texts are those of the key and not those that were given."""
    key = OKPKey.import_key(value)
    return OKPKey.import_key(key.private_key or key.public_key)


def _text_of(kid: str, key: OKPKey, *, is_private: bool) -> str:
    members = key.as_dict(private=is_private)
    ordered = {"kty": "OKP", "crv": "Ed25519", "kid": kid, "use": "sig", "x": members["x"]}
    if is_private:
        ordered["d"] = members["d"]
    return msgspec.json.encode(ordered).decode() + "\n"


# -- wire ----------------------------------------------------------------------------------------------------

_URL: Final = r"^[!#-;=?-\[\]_a-z~]{1,2048}\Z"
is_url_text = re.compile(_URL).match
"""Whether a text has only characters that all readers of URLs read alike (no blank, backslash, quote, control)."""

_Url = Annotated[str, Meta(pattern=_URL)]
_Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Size = Annotated[int, Meta(ge=1, le=MAX_FILE_BYTES)]
_Serial = Annotated[int, Meta(ge=1, le=LAST_SERIAL)]
_Interval = Annotated[int, Meta(ge=0, le=MAX_INTERVAL_S)]


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    alg: str
    kid: Annotated[str, Meta(pattern=_KID)]
    typ: str | None = None


class _WireVersion(msgspec.Struct):
    version: FormatNumber


class _WireSnapshot(msgspec.Struct):
    url: _Url
    sha256: _Sha256
    size: _Size
    count: Annotated[int, Meta(ge=0, le=MAX_RECORDS)]


class _WireDelta(msgspec.Struct):
    serial: _Serial
    url: _Url
    sha256: _Sha256
    size: _Size


class _WireNotification(msgspec.Struct):
    version: int
    session: Annotated[str, Meta(pattern=r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]
    serial: _Serial
    issued_at: Annotated[datetime, Meta(tz=True)]
    snapshot: _WireSnapshot
    deltas: Annotated[tuple[_WireDelta, ...], Meta(max_length=MAX_DELTAS)] = ()
    refresh: _Interval = 0
    retry: _Interval = 0
    expire: _Interval = 0


def _decode_header(segment: bytes) -> _Header:
    if len(segment) > _HEADER_BYTES:
        raise NotificationMalformed(f"the JWS header is longer than {_HEADER_BYTES} bytes")
    try:
        return msgspec.json.decode(urlsafe_b64decode(segment + b"=" * (-len(segment) % 4)), type=_Header)
    except (ValueError, *UNDECODABLE):
        raise NotificationMalformed("the JWS header is not `alg`, `kid` and at most `typ`") from None


def _encode_payload(notification: Notification) -> bytes:
    fields = {"version": notification.version, **msgspec.structs.asdict(notification)}
    try:
        fields["issued_at"] = datetime.fromtimestamp(notification.issued_at, UTC)
    except (ValueError, OverflowError):
        raise NotificationMalformed("`issued_at` is no time") from None
    return msgspec.json.encode(fields)


def _decode_payload(payload: bytes) -> Notification:
    try:
        version = msgspec.json.decode(payload, type=_WireVersion).version
        if version != VERSION:
            raise NotificationMalformed(f"version {version}; this gatewayd knows version {VERSION}")
        wire = msgspec.json.decode(payload, type=_WireNotification)
    except (UnicodeError, *UNDECODABLE) as error:
        raise NotificationMalformed(f"not as it should be: {why_undecodable(error)}") from None
    serials = [delta.serial for delta in wire.deltas]
    if len(set(serials)) != len(serials) or max(serials, default=0) > wire.serial:
        raise NotificationMalformed("a delta stands twice, or is above the serial")
    return Notification(
        session=wire.session,
        serial=wire.serial,
        issued_at=wire.issued_at.timestamp(),
        refresh=wire.refresh,
        retry=wire.retry,
        expire=wire.expire,
        snapshot=msgspec.convert(wire.snapshot, SnapshotRef, from_attributes=True),
        deltas=tuple(DeltaRef(each.serial, each.url, each.sha256, each.size) for each in wire.deltas),
    )


class _FeedRegistry(jws.JWSRegistry):
    """joserfc with our bounds and our algorithm."""

    max_header_length = _HEADER_BYTES
    max_payload_length = MAX_BYTES

    def get_alg(self, name: str) -> Any:
        """EdDSA, whatever the header says: `open_notification` has looked at it, and there is no other."""
        return self.algorithms[ALGORITHM]


_REGISTRY: Final = _FeedRegistry()
