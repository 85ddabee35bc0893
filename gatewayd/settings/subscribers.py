"""The section `subscribers` of the file: accounting, the profiles of NAS, sessions. Declared as in `model`."""

from __future__ import annotations

from typing import Literal

from gatewayd.model import Prefix
from gatewayd.model.accounting import Identity, NasProfile
from gatewayd.settings import schema as kinds
from gatewayd.settings.readers import ListOf, OrNull
from gatewayd.settings.schema import SWITCH, duration, key, number, required, section, section_of, word_of
from gatewayd.settings.values import ListenAddress

InterimWord = Literal["merge", "snapshot"]
NatSide = Literal["inside", "outside"]
SessionIds = Literal["plain", "digest"]


@section
class ProfileSettings:
    """How NAS report their sessions (NasProfile has the words), and how long the sessions are believed.

    `interim_interval_s` None: as the packets say. `session_timeout_s` inf: never.
    """

    interim: InterimWord = key("merge", word_of(InterimWord), "an update adds addresses, or lists them all")
    identity: Identity = key("calling-station-id", word_of(Identity), "the attribute that names the subscriber")
    country_code: str | None = key(
        None, kinds.COUNTRY_CODE, "of numbers without + or 00, such as 92; null: such numbers are not understood"
    )
    nat_side: NatSide = key(
        "inside", word_of(NatSide), "the side of the CGNAT that the gateway is on", former="gateway_sees"
    )
    session_ids: SessionIds = key("plain", word_of(SessionIds), "digest is for NAS with numbers in session ids")
    interim_interval_s: float | None = key(
        None, OrNull(duration("1m", "7d", "10m, or null")), "between interim updates; null: as the packets say"
    )
    missed_interims: int = key(
        "3", number(1, 20), "a session ends after so many intervals without a record", former="intervals"
    )
    min_session_timeout_s: float = key(
        "15m", duration("1m", "7d", "15m"), "it does not end before this time", former="least"
    )
    session_timeout_s: float = key(
        "1d",
        duration("1m", "366d", "1d", or_never=True),
        "it ends after this time where no interval is known",
        former="silent",
    )
    restart_grace_s: float = key(
        "2m", duration("0s", "1h", "2m"), "sessions not confirmed end so long after Accounting-On or -Off"
    )
    single_session: bool = key(
        "false", SWITCH, "true: only a subscriber's newest session counts, in each family", former="one_address"
    )

    @property
    def nas_profile(self) -> NasProfile:
        """The part that a packet is read by; the lifetimes belong to the table of sessions."""
        return NasProfile(
            interim=self.interim,
            identity=self.identity,
            country_code=self.country_code,
            nat_side=self.nat_side,
            session_ids=self.session_ids,
        )


PROFILE = section_of(ProfileSettings)


@section
class NasSettings:
    """A NAS that differs. `profile` is whole: what the file leaves out of it is as in the usual one."""

    name: str = required(
        kinds.NAS_NAME,
        "its NAS-Identifier, else NAS-IPv6-Address or NAS-IP-Address, else the sender",
        shown="bng-1",
    )
    profile: ProfileSettings = key(
        {}, PROFILE, "a key left out is as in the usual profile above", shown={"interim": "snapshot"}
    )


@section
class RadiusClient:
    """A sender of accounting. `profile`: of all NAS behind it that are not named, whole; None: the usual one."""

    address: Prefix = required(kinds.CLIENT_PREFIX, "address or prefix; longest match counts", shown="10.0.0.0/24")
    secret_file: str = required(
        kinds.SECRET_PATH,
        "one secret a line; several while one is replaced by another",
        shown="/etc/gatewayd/radius.secret",
    )
    require_message_authenticator: bool = key("false", SWITCH, "true: a request without one gets no answer")
    response_message_authenticator: bool = key(
        "false", SWITCH, "true: one in each answer to an Accounting-Request", former="sign_answers"
    )
    require_event_timestamp: bool = key("false", SWITCH, "true: a request without one changes nothing")
    nas: tuple[str, ...] = key([], kinds.NAS_NAMES, "names that NAS behind it may have; empty: any")
    addresses: tuple[Prefix, ...] = key([], kinds.SUBSCRIBER_PREFIXES, "that it may report; empty: all")
    proxy: bool = key("false", SWITCH, "true: an AAA server that forwards for NAS, which may change the server")
    profile: ProfileSettings | None = key(None, OrNull(PROFILE), "of NAS not in subscribers.nas; null: the usual")


CLIENTS = ListOf(
    section_of(RadiusClient),
    "a list of at least one client such as {address: 10.0.0.0/24, secret_file: /etc/gatewayd/radius.secret}",
    at_least=1,
    unique_by="address",
)


@section
class RadiusSettings:
    """RADIUS accounting (RFC 2866); 1813 is its registered port."""

    clients: tuple[RadiusClient, ...] = required(CLIENTS, "The senders of accounting; all others are ignored.")
    listen: tuple[ListenAddress, ...] = key(
        ["0.0.0.0:1813"], kinds.RADIUS_LISTEN, 'UDP, accounting; IPv6 as "[::]:1813"', restart=True
    )


@section
class SubscriberSettings:
    """`radius` None: bindings by API only. `profile` is the usual one; `nas` have unique names."""

    pepper_file: str = required(
        kinds.SECRET_PATH,
        "the secret that mobile numbers are hashed with",
        shown="/etc/gatewayd/pepper",
        restart=True,
    )
    sessions_file: str | None = key(None, OrNull(kinds.PATH), "CSV or NDJSON, read at each start", restart=True)
    max_sessions: int = key("1000000", number(1000, 10**7), "live sessions held in memory", restart=True)
    element_timeout_s: float = key(
        "2h", duration("10m", "7d", "2h"), "an address leaves the kernel so long after gatewayd died", restart=True
    )
    profile: ProfileSettings = key({}, PROFILE, "How NAS report sessions, and how long they are believed.")
    nas: tuple[NasSettings, ...] = key(
        [],
        ListOf(
            section_of(NasSettings),
            "a list of NAS such as {name: bng-1, profile: {interim: snapshot}}",
            unique_by="name",
        ),
        "NAS that differ; none by default.",
    )
    radius: RadiusSettings | None = key(
        None,
        OrNull(section_of(RadiusSettings)),
        "Without this section bindings come by the API only.",
        restart=True,
    )
