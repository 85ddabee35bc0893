"""What the operator asked for: one typed section a class; units in the names, defaults here alone.

Everything is parsed and hashable. Times are Unix seconds, durations seconds, sizes bytes. A field is named
for its key in the YAML, plus its unit where it has one (`refresh` → `refresh_s`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from gatewayd.model import Mode, Prefix, Service, parse_services
from gatewayd.model.accounting import Identity, NasProfile

InterimWord = Literal["merge", "snapshot"]
NatSide = Literal["inside", "outside"]
SessionIds = Literal["plain", "digest"]
OnStale = Literal["keep", "observe"]
SourceFormat = Literal["auto", "ndjson", "csv"]
WatchDetail = Literal["off", "aggregate", "flows"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]

MINUTE_S = 60.0
HOUR_S = 3600.0
DAY_S = 86400.0


class ListenAddress(NamedTuple):
    """`host`: an IP address, IPv6 without brackets. `port` 0: the kernel chooses one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_HTTP_LISTEN = ListenAddress("127.0.0.1", 9480)
_RADIUS_LISTEN = ListenAddress("0.0.0.0", 1813)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A rate of bytes; k, m, g are powers of 1024 as in nft (src/datatype.c: data_unit_parse)."""

    bytes_per_second: int

    def __str__(self) -> str:
        for unit, size in (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10)):
            if self.bytes_per_second % size == 0:
                return f"{self.bytes_per_second // size}{unit}byte/s"
        return f"{self.bytes_per_second}byte/s"


@dataclass(frozen=True, slots=True)
class RemovalLimit:
    """How many registrations may go at once: a count, or a fraction 0..1 of what is in force."""

    count: int | None = None
    fraction: float | None = None

    def allowed_of(self, total: int) -> int:
        """How many of `total` may be removed (rounded down)."""
        if self.count is not None:
            return self.count
        # Rounded first: 29 % of 100 is 28.999999999999996 in floating point.
        return int(round(total * (self.fraction or 0.0), 6))

    def __str__(self) -> str:
        return f"{(self.fraction or 0.0) * 100:g}%" if self.count is None else str(self.count)


@dataclass(frozen=True, slots=True)
class ProtectedCategory:
    """A category with a limit of its own, beside the limit of the whole."""

    category: str
    max_removed: RemovalLimit


@dataclass(frozen=True, slots=True)
class ShrinkGuardSettings:
    """Removals are held when they are more than both limits; `min_removed` lets go of half at most."""

    max_removed: RemovalLimit = RemovalLimit(fraction=0.05)
    min_removed: int = 100
    protected: tuple[ProtectedCategory, ...] = (
        ProtectedCategory("embassy", RemovalLimit(count=0)),
        ProtectedCategory("bank", RemovalLimit(count=0)),
    )


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """One registry source. `keys`: files of public keys, for a signed feed alone.

    For http and https: `proxy` is a URL, None: what the environment says; `ca_file` the PEM of the only
    authorities that are trusted, None: those of the system.
    """

    name: str
    url: str
    keys: tuple[str, ...] = ()
    allow_unsigned: bool = False
    format: SourceFormat = "auto"
    max_bytes: int = 1 << 30
    allow_empty: bool = False
    proxy: str | None = None
    ca_file: str | None = None

    @property
    def path(self) -> str | None:
        """The file of a `file:` URL (RFC 8089), None for http and https."""
        parts = urlsplit(self.url)
        return unquote(parts.path, errors="surrogateescape") if parts.scheme == "file" else None

    @property
    def is_signed(self) -> bool:
        """Whether the URL names the notification of a signed feed."""
        return urlsplit(self.url).path.endswith("notification.jws")


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """`sources` in order of precedence; none where `local` is all there is. `local`: directory of overrides, None
    for none."""

    sources: tuple[SourceSettings, ...]
    refresh_s: float = MINUTE_S
    retry_s: float = 10.0
    expire_s: float = 7 * DAY_S
    local: str | None = "/etc/gatewayd/local.d"
    shrink_guard: ShrinkGuardSettings = field(default_factory=ShrinkGuardSettings)
    on_stale: OnStale = "keep"

    @property
    def has_signed(self) -> bool:
        """Whether any source is a signed feed."""
        return any(source.is_signed for source in self.sources)


@dataclass(frozen=True, slots=True)
class InterfaceSettings:
    """Interface names as the kernel has them; a trailing `*` is nft's wildcard (`ppp*`). Empty: any."""

    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegisteredTreatment:
    """`dscp` 0..63 and packet `mark` 0..0xffffffff to set; None leaves it as it is."""

    dscp: int | None = None
    mark: int | None = None


@dataclass(frozen=True, slots=True)
class UnregisteredTreatment:
    """As RegisteredTreatment, in the modes that mark; `limit` is there whenever the mode is limit."""

    dscp: int | None = None
    mark: int | None = None
    limit: RateLimit | None = RateLimit(64 * 1024)


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """What is done, to which traffic, from when on.

    `enforce_from`: Unix seconds, None = now. `canary_percent`: 0..100 of client addresses. `drain_s` 0: at once.
    `scope`: what `scope_words` stand for, sorted and unique; derived, so that the two cannot disagree.
    """

    mode: Mode = "observe"
    enforce_from: float | None = None
    canary_percent: int = 100
    drain_s: float = HOUR_S
    scope_words: tuple[str, ...] = ("ipsec", "wireguard", "openvpn", "pptp", "l2tp")
    scope: tuple[Service, ...] = field(init=False)
    interfaces: InterfaceSettings = field(default_factory=InterfaceSettings)
    on_registered: RegisteredTreatment = field(default_factory=RegisteredTreatment)
    on_unregistered: UnregisteredTreatment = field(default_factory=UnregisteredTreatment)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scope", parse_services(self.scope_words))


@dataclass(frozen=True, slots=True)
class ProfileSettings:
    """How NAS tell of their sessions (NasProfile has the words), and how long they are believed.

    `interim_interval_s` None: what their packets say. Without a word a session ends after `missed_interims` of it,
    and not before `min_session_timeout_s`; after `session_timeout_s` (inf: never) where no interval is known; and
    `restart_grace_s` (0: at once) after Accounting-On or -Off.
    """

    interim: InterimWord = "merge"
    identity: Identity = "calling-station-id"
    country_code: str | None = None
    nat_side: NatSide = "inside"
    session_ids: SessionIds = "plain"
    interim_interval_s: float | None = None
    missed_interims: int = 3
    min_session_timeout_s: float = 15 * MINUTE_S
    session_timeout_s: float = DAY_S
    restart_grace_s: float = 2 * MINUTE_S
    single_session: bool = False

    @property
    def nas_profile(self) -> NasProfile:
        """The part that a packet is read by; the lifetimes are the table of sessions'."""
        return NasProfile(
            interim=self.interim,
            identity=self.identity,
            country_code=self.country_code,
            nat_side=self.nat_side,
            session_ids=self.session_ids,
        )


@dataclass(frozen=True, slots=True)
class NasSettings:
    """A NAS that differs. `name`: what it is called in an AccountingEvent. `profile` is whole: what the file leaves
    out of it is as in the usual one."""

    name: str
    profile: ProfileSettings = field(default_factory=ProfileSettings)


@dataclass(frozen=True, slots=True)
class RadiusClient:
    """Who may send accounting, and the file of the secrets shared with it.

    `profile`: of all NAS behind it that are not named, whole as in NasSettings; None: the usual one.
    `response_message_authenticator`: a Message-Authenticator in answers to Accounting-Requests. `proxy`: it sends
    what NAS behind it say, which may come through any other client that is one.
    """

    address: Prefix
    secret_file: str
    require_message_authenticator: bool = False
    response_message_authenticator: bool = False
    proxy: bool = False
    profile: ProfileSettings | None = None


@dataclass(frozen=True, slots=True)
class RadiusSettings:
    """RADIUS accounting (RFC 2866); 1813 is its registered port."""

    clients: tuple[RadiusClient, ...]
    listen: tuple[ListenAddress, ...] = (_RADIUS_LISTEN,)


@dataclass(frozen=True, slots=True)
class SubscriberSettings:
    """`pepper_file`: the secret that mobile numbers are hashed with. `radius` None: bindings by API only.

    `sessions_file`: list of live sessions, None for none. `max_sessions`: held in memory. `element_timeout_s`:
    after our death an address stays in the kernel for so long. `profile` is the usual one; `nas` have unique names.
    """

    pepper_file: str
    sessions_file: str | None = None
    max_sessions: int = 1_000_000
    element_timeout_s: float = 2 * HOUR_S
    profile: ProfileSettings = field(default_factory=ProfileSettings)
    nas: tuple[NasSettings, ...] = ()
    radius: RadiusSettings | None = None


@dataclass(frozen=True, slots=True)
class KernelSettings:
    """`ct_mark_mask`: 4..32 neighbouring bits of 32. `nflog_rate_per_s`: packets logged, of all flows."""

    table: str = "gatewayd"
    priority: int = -10
    ct_mark_mask: int = 0xFF000000
    verify_every_s: float = 5 * MINUTE_S
    nflog_group: int = 9480
    nflog_rate_per_s: int = 1000


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How much is kept, in memory, of unregistered traffic."""

    unregistered: WatchDetail = "aggregate"


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """`listen` is read only; what changes anything is on `socket`."""

    listen: ListenAddress = _HTTP_LISTEN
    socket: str = "/run/gatewayd/api.sock"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """`format` auto: console on a terminal and under the journal, else json."""

    level: LogLevel = "info"
    format: LogFormat = "auto"


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole file. `subscribers` None: no bindings are kept."""

    registry: RegistrySettings
    policy: PolicySettings = field(default_factory=PolicySettings)
    subscribers: SubscriberSettings | None = None
    kernel: KernelSettings = field(default_factory=KernelSettings)
    watch: WatchSettings = field(default_factory=WatchSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    state_dir: str = "/var/lib/gatewayd"
    log: LogSettings = field(default_factory=LogSettings)
