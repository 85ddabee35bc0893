"""The sections of the file. Each key is declared once: default, reader, sentence, and if a change needs a restart.

Values are parsed and hashable. Times are Unix seconds, durations seconds, sizes bytes. A field has the name of its
key and its unit (`refresh` → `refresh_s`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from gatewayd.model import Mode, Prefix, Service, parse_services
from gatewayd.model.policy import Stage
from gatewayd.settings import schema as kinds
from gatewayd.settings.readers import Check, ListOf, OrNull, PairsOf
from gatewayd.settings.schema import SWITCH, duration, key, number, required, section, section_of, word_of
from gatewayd.settings.subscribers import SubscriberSettings
from gatewayd.settings.values import ListenAddress, RateLimit, RemovalLimit

OnStale = Literal["keep", "observe"]
SourceFormat = Literal["auto", "ndjson", "csv"]
WatchDetail = Literal["off", "aggregate", "flows"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]


@dataclass(frozen=True, slots=True)
class ProtectedCategory:
    """A category with a limit of its own, beside the limit of the whole."""

    category: str
    max_removed: RemovalLimit


PROTECTED = PairsOf(
    kinds.CATEGORY, kinds.REMOVAL_LIMIT, ProtectedCategory, "a mapping of categories to limits such as {bank: 0}",
    {each: ProtectedCategory(each, RemovalLimit(count=0)) for each in ("embassy", "bank")},
)  # fmt: skip


@section
class ShrinkGuardSettings:
    """Removals are held when they are more than both limits; `min_removed` allows half at most."""

    max_removed: RemovalLimit = key(
        "5%", kinds.REMOVAL_LIMIT, "a percentage of the fewest in force in 24 h, or a count; 100%: no limit"
    )
    min_removed: int = key("100", number(0, 10**9), "fewer removals are not held, unless more than half")
    protected: tuple[ProtectedCategory, ...] = key(
        {"embassy": "0", "bank": "0"}, PROTECTED, "further categories with a limit of their own; 100%: none"
    )


@section
class SourceSettings:
    """One registry source."""

    name: str = required(kinds.NAME, "a name of your choice; a label in logs and metrics", shown="national")
    url: str = required(
        kinds.SOURCE_URL,
        "Of a signed feed (…/notification.jws): https: or http:. The feed says how often it is asked.\n"
        "Of plain NDJSON or CSV: https: or http:, asked every `refresh`; or file: with an absolute path, watched.",
        shown="https://registry.example/feed/notification.jws",
    )
    keys: tuple[str, ...] = key(
        [], kinds.FILES, "files of public keys (JWK or JWK set): the URL is a signed feed's",
        shown=["/etc/gatewayd/keys/national.pub"],
    )  # fmt: skip
    allow_unsigned: bool = key("false", SWITCH, "must be true for a source that is not signed")
    allow_empty: bool = key("false", SWITCH, "true: a source without registrations is an answer, not a failure")
    allow_endpoints: bool = key(
        "false", SWITCH, "true: it may bring endpoints of licensed providers; else rejected"
    )
    format: SourceFormat = key("auto", word_of(SourceFormat), "auto finds out by itself")
    max_bytes: int = key("1GiB", kinds.SIZE, "a longer source is refused, and its last good stays")
    proxy: str | None = key(None, kinds.PROXY_URL, "such as http://proxy.example:3128; null: as HTTPS_PROXY says")
    ca_file: str | None = key(None, OrNull(kinds.PATH), "PEM of authorities to trust for https; null: the system's")

    @property
    def path(self) -> str | None:
        """The file of a `file:` URL (RFC 8089), None for http and https."""
        parts = urlsplit(self.url)
        return unquote(parts.path, errors="surrogateescape") if parts.scheme == "file" else None

    @property
    def is_signed(self) -> bool:
        """Whether it is a signed feed: then there are keys to verify it with."""
        return bool(self.keys)


SOURCES = ListOf(
    section_of(
        SourceSettings,
        Check(("url", "keys"), kinds.check_signed),
        Check(("url", "allow_unsigned"), kinds.check_unsigned),
        Check(("url", "proxy", "ca_file"), kinds.check_route),
    ),
    "a list of at least one source such as "
    '{name: national, url: "https://registry.example/feed.csv", allow_unsigned: true}',
    unique_by="name",
)


@section
class RegistrySettings:
    """`sources` in order of precedence; none where `local` is all there is."""

    sources: tuple[SourceSettings, ...] = required(
        SOURCES,
        "Where registrations come from. If two sources have the same id, the earlier source wins.",
        shown=[{"name": "lab", "url": "file:/etc/gatewayd/lab.ndjson", "allow_unsigned": "true"}],
    )
    refresh_s: float = key("60s", duration("1s", "7d", "60s"), "interval of asking a source; a feed's own wins")
    retry_s: float = key("10s", duration("1s", "1d", "10s"), "interval after a failure")
    expire_s: float = key("7d", duration("1m", "366d", "7d"), "a registry without an answer for so long is stale")
    local: str | None = key(
        "/etc/gatewayd/local.d", OrNull(kinds.PATH), "directory of overrides and assertions; null: none"
    )
    shrink_guard: ShrinkGuardSettings = key(
        {},
        section_of(ShrinkGuardSettings),
        "A snapshot, a delta, a renamed source or a local filter may remove more than max_removed at once.\n"
        "Then the additions apply, and the removals wait for `gatewayd accept SERIAL`. So with each category.",
    )
    max_added_endpoints: int = key(
        "16",
        number(0, 10**6),
        "endpoint prefixes of licensed providers that a day may add; more wait for `gatewayd accept SERIAL`",
    )
    max_elements: int | None = key(
        None, kinds.MAX_ELEMENTS, "elements of all sources; null: as half of the memory allows. More is refused"
    )
    on_stale: OnStale = key("keep", word_of(OnStale), "go on as before, or stop enforcing; nothing is ever removed")

    @property
    def has_signed(self) -> bool:
        """Whether any source is a signed feed."""
        return any(source.is_signed for source in self.sources)


@section
class InterfaceSettings:
    """Interface names as the kernel has them; a trailing `*` is nft's wildcard. Empty: any."""

    inside: tuple[str, ...] = key([], kinds.INTERFACES, "towards customers, such as [ppp*, eth1.100]")
    outside: tuple[str, ...] = key([], kinds.INTERFACES, "towards the world, such as [eth0]")


@section
class RegisteredTreatment:
    """`dscp` 0..63 and packet `mark` 0..0xffffffff to set; None leaves it as it is."""

    dscp: int | None = key(None, kinds.DSCP, "a name (ef, cs1, af21) or 0 to 63; null: untouched")
    mark: int | None = key(None, kinds.MARK, "a packet mark such as 0x10; null: untouched")


@section
class UnregisteredTreatment:
    """As RegisteredTreatment, in the modes that mark; `limit` is there whenever the mode is limit."""

    dscp: int | None = key(None, kinds.DSCP, "set in modes mark and limit")
    mark: int | None = key(None, kinds.MARK, "set in modes mark and limit")
    limit: RateLimit | None = key(
        "64kbyte/s", kinds.RATE, "in mode limit: byte, kbyte (1024), mbyte; bit, kbit (1000), mbit; per second"
    )


@section
class TripSettings:
    """Thresholds of a rise within a minute, while a mode other than observe is in force. None: not looked at."""

    late_admissions: int | None = key(
        None, kinds.THRESHOLD, "registered flows that came before their element; each flow once"
    )
    near_misses: int | None = key(
        None, kinds.THRESHOLD, "flows of registered clients that no registration covers; each flow once"
    )
    failing_assertions: int | None = key("0", kinds.THRESHOLD, "must_pass flows that would not pass")
    unprogrammed: int | None = key(None, kinds.THRESHOLD, "registrations past a bound of the kernel")


@section
class PolicySettings:
    """The treatment of traffic. `scope`: the services of `scope_words`, sorted and unique."""

    mode: Mode = key(
        "observe",
        word_of(Mode),
        "the treatment of traffic in scope that is not registered. Registered traffic passes in every mode.\n"
        "  observe  counted and logged, passed\n"
        "  mark     passed, with on_unregistered.dscp and .mark set for boxes downstream\n"
        "  limit    dropped above on_unregistered.limit\n"
        "  reject   refused with an ICMP error or a TCP reset",
    )
    enforce_from: float | None = key(
        None,
        kinds.TIME,
        "observe until this time, such as 2025-07-01T00:00:00+05:00; null: from now on",
        former="starts",
    )
    enforce_until: float | None = key(
        None, kinds.TIME, "observe from this time on, such as 2025-07-03T00:00:00+05:00; null: no end"
    )
    canary_percent: int = key("100%", kinds.PERCENT, "enforce for this share of clients, always the same")
    drain_s: float = key(
        "1h", duration("0s", "30d", "1h"), "a flow lives on for so long after its registration ends; 0: not at all"
    )
    scope_words: tuple[str, ...] = key(
        ["ipsec", "wireguard", "openvpn", "pptp", "l2tp"],
        kinds.SERVICES,
        "The policy leaves all other traffic alone. Bundles are ipsec, wireguard, openvpn, pptp and l2tp.\n"
        "Or protocol/port (udp/51820), protocol/low-high (udp/51820-51830), or a protocol (esp, gre).",
    )
    scope: tuple[Service, ...] = field(init=False)
    interfaces: InterfaceSettings = key(
        {},
        section_of(InterfaceSettings, Check(("inside", "outside"), kinds.check_interfaces)),
        "The policy looks at flows between these only; empty: any. ppp* is all names that begin so.\n"
        "Name one side at least: it tells which end is the client, also where the far end spoke first.",
    )
    trip: TripSettings = key(
        {},
        section_of(TripSettings),
        "Back to observe, at once, when one of these rises by more than so many within a minute; null: never.\n"
        "It stays so, over restarts and reboots, until `gatewayd rearm`. Nothing is ever armed by it.",
    )
    on_registered: RegisteredTreatment = key({}, section_of(RegisteredTreatment), "For boxes downstream.")
    on_unregistered: UnregisteredTreatment = key({}, section_of(UnregisteredTreatment))

    @property
    def stage(self) -> Stage:
        """Without regard to `enforce_from` and `enforce_until`."""
        return Stage(self.mode, self.canary_percent)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scope", parse_services(self.scope_words))


@section
class KernelSettings:
    """`nflog_rate_per_s`: packets logged, of all flows; of one source a twentieth (compile.judging.SHARES)."""

    table: str = key("gatewayd", kinds.TABLE_NAME, "the nftables table `inet NAME`, ours alone", restart=True)
    priority: int = key("-10", number(-400, 400), "of our chain on the forward hook; filter is 0, lower is earlier")
    ct_mark_mask: int = key("0xff000000", kinds.MARK_MASK, "bits of the ct mark that are ours", restart=True)
    verify_every_s: float = key("5m", duration("1s", "1d", "5m"), "interval of comparing all with the kernel")
    nflog_group: int = key("9480", number(0, 65535), "NFLOG group of unregistered flows", restart=True)
    nflog_rate_per_s: int = key(
        "1000",
        number(1, 10**6, "packets per second", "_per_s"),
        "packets a second logged, of one source a twentieth",
    )
    near_miss_group: int = key(
        "9481", number(0, 65535), "NFLOG group of those from clients of registrations", restart=True
    )
    near_miss_rate_per_s: int = key(
        "1000",
        number(1, 10**6, "packets per second", "_per_s"),
        "packets a second logged of them, of one source a twentieth",
    )


@section
class WatchSettings:
    """How much is kept of unregistered traffic: single flows in memory alone, counts of prefixes on disk too."""

    unregistered: WatchDetail = key("aggregate", word_of(WatchDetail), "nothing, counts, or also single flows")
    shadow_limit: bool = key(
        "false", SWITCH, "in observe, count what limit would drop; two more look-ups for each such packet"
    )


@section
class IspSettings:
    """Of which addresses `gatewayd registry verify` says that they are ours, or change hands."""

    prefixes: tuple[Prefix, ...] = key([], kinds.SUBSCRIBER_PREFIXES, "this ISP's own, such as [203.0.113.0/24]")
    pools: tuple[Prefix, ...] = key([], kinds.SUBSCRIBER_PREFIXES, "given to changing customers: DHCP, PPP, CGNAT")


@section
class HttpSettings:
    """`listen` is read only; `socket` takes changes."""

    listen: ListenAddress = key(
        "127.0.0.1:9480", kinds.LISTEN, 'health, metrics, queries; read only; IPv6 as "[::1]:9480"', restart=True
    )
    socket: str = key("/run/gatewayd/api.sock", kinds.SOCKET_PATH, "takes changes; mode 0660", restart=True)
    names: tuple[str, ...] = key([], kinds.HOST_NAMES, "of `listen`, beside addresses and localhost", restart=True)


@section
class LogSettings:
    """`format` auto: console on a terminal and under the journal, else json."""

    level: LogLevel = key("info", word_of(LogLevel), "the lowest level that is logged")
    format: LogFormat = key(
        "auto", word_of(LogFormat), "auto is console on a terminal and in the journal, and json elsewhere"
    )


@section
class Settings:
    """The whole file. `subscribers` None: no bindings are kept."""

    registry: RegistrySettings = required(
        section_of(
            RegistrySettings,
            Check(("sources", "local"), kinds.check_sources),
            Check(("refresh_s", "expire_s"), kinds.check_registry),
        )
    )
    policy: PolicySettings = key(
        {},
        section_of(
            PolicySettings,
            Check(("mode", "on_unregistered"), kinds.check_policy),
            Check(("enforce_from", "enforce_until"), kinds.check_schedule),
        ),
    )
    subscribers: SubscriberSettings | None = key(
        None,
        OrNull(kinds.SubscribersSection(SubscriberSettings, kinds.keys_of(SubscriberSettings))),
        "Subscribers registered by mobile number. RADIUS accounting binds them to addresses.\n"
        "Without this section there are no bindings. Remove the first # of each line to turn it on.",
        restart=True,
    )
    kernel: KernelSettings = key(
        {}, section_of(KernelSettings, Check(("nflog_group", "near_miss_group"), kinds.check_kernel))
    )
    watch: WatchSettings = key({}, section_of(WatchSettings), "Unregistered traffic, by client prefix (/24, /48).")
    isp: IspSettings = key({}, section_of(IspSettings), "For `gatewayd registry verify`; no traffic depends on it.")
    http: HttpSettings = key({}, section_of(HttpSettings))
    state_dir: str = key("/var/lib/gatewayd", kinds.PATH, "directory of the last good registry", restart=True)
    log: LogSettings = key({}, section_of(LogSettings))


SETTINGS = section_of(Settings)
