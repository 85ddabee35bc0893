"""The table of the configuration file: key → reader → field, and what must hold across keys.

Ranges are here, defaults in the model. A range is there to catch a slip of the pen, not to have an opinion.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import get_args

from gatewayd.model import Mode
from gatewayd.model.accounting import Identity
from gatewayd.settings import model, values
from gatewayd.settings.readers import (
    Check,
    Found,
    Key,
    ListOf,
    OrNull,
    PairsOf,
    Reader,
    Report,
    Section,
    Value,
    keep_private,
    quote_url,
)
from gatewayd.settings.tree import ListNode, MappingNode, Node, ScalarNode, child_of


def number(low: int, high: int, unit: str = "") -> Value:
    return Value(
        f"a whole number{unit and f' of {unit}'} from {low} to {high}",
        partial(values.parse_number, low=low, high=high),
    )


def duration(low: str, high: str, example: str) -> Value:
    low_s, high_s = (values.parse_duration(text, 0, 1e12) for text in (low, high))
    return Value(
        f"a duration from {low} to {high} such as {example}",
        partial(values.parse_duration, low_s=low_s, high_s=high_s),
    )


def word_of(literal: object) -> Value:
    words = get_args(literal)
    return Value(f"one of {', '.join(words)}", partial(values.parse_word, words=words))


SWITCH = Value("true or false", values.parse_switch)
PATH = Value("an absolute path", values.parse_path)
SECRET_PATH = Value("an absolute path", values.parse_path, keep_private)
"""Of a file with a secret. Who writes the secret itself here is not to find it in a log."""
# sun_path is 108 bytes with its NUL: include/uapi/linux/un.h.
SOCKET_PATH = Value("an absolute path of at most 107 bytes", partial(values.parse_path, longest_bytes=107))
LISTEN = Value("an address and port such as 127.0.0.1:9480 or [::1]:9480", values.parse_listen_address)
REMOVAL_LIMIT = Value("a percentage such as 5% or a count such as 100", values.parse_removal_limit)
DSCP = Value("a code point such as ef, cs1, af21, a number from 0 to 63, or null", values.parse_dscp)
MARK = Value("32 bits such as 0x10 or 16, or null", values.parse_hex_or_number)
INTERFACES = ListOf(
    Value("an interface such as eth0, or ppp* for all that begin so", values.parse_interface),
    "a list of interfaces such as [eth0, ppp*]",
)


def check_signed(source: model.SourceSettings, found: Found) -> None:
    """A signed feed that we would read without verifying it is worse than none."""
    if not source.is_signed:
        return
    if source.path is not None:
        found.add("url", "is a signed feed in a file, expected http: or https:")
    if not source.keys:
        found.add("keys", "is empty for a signed feed, expected files of public keys to verify it with")


def check_route(source: model.SourceSettings, found: Found) -> None:
    for key, value in (("proxy", source.proxy), ("ca_file", source.ca_file)):
        if source.path is not None and value is not None:
            found.add(key, "is of no use to a file, expected it beside an http: or https: URL only")


def check_unsigned(source: model.SourceSettings, found: Found) -> None:
    if not source.is_signed and not source.allow_unsigned:
        found.add("url", "is an unsigned source, expected allow_unsigned: true beside it")


def check_keys(source: model.SourceSettings, found: Found) -> None:
    if not source.is_signed and source.keys:
        found.add("keys", "would verify nothing, as the source is unsigned; expected no keys")


def check_sources(registry: model.RegistrySettings, found: Found) -> None:
    """Pins alone are a registry of one's own, if somebody says that it is meant."""
    if registry.sources or (registry.local is not None and child_of(found.section, "local") is not None):
        return
    found.add("sources", "is an empty list, expected at least one source, or local beside it with files of pins")


def check_registry(registry: model.RegistrySettings, found: Found) -> None:
    if registry.expire_s < registry.refresh_s:
        found.add("expire", "is shorter than refresh, expected longer: everything would be stale at once")


def check_policy(policy: model.PolicySettings, found: Found) -> None:
    if policy.mode == "limit" and policy.on_unregistered.limit is None:
        found.add("on_unregistered.limit", "is null in mode limit, expected a rate such as 64kbyte/s")


def check_interfaces(interfaces: model.InterfaceSettings, found: Found) -> None:
    for name in sorted(set(interfaces.inside) & set(interfaces.outside)):
        found.add("outside", f"{name} is inside as well, expected it on one side only")


SOURCE = Section(
    model.SourceSettings,
    {
        "name": Key("name", Value("a word such as national", values.parse_name)),
        "url": Key("url", Value("a URL such as file:/etc/gatewayd/registry.ndjson or https://registry.example/feed.csv",
                                values.parse_source_url, quote_url)),
        "keys": Key("keys", ListOf(PATH, "a list of paths")),
        "allow_unsigned": Key("allow_unsigned", SWITCH),
        "allow_empty": Key("allow_empty", SWITCH),
        "format": Key("format", word_of(model.SourceFormat)),
        "max_bytes": Key("max_bytes", Value("a size from 1KiB to 64GiB such as 512MiB",
                                            partial(values.parse_size, low=1 << 10, high=64 << 30))),
        "proxy": Key("proxy", OrNull(
            Value("a URL such as http://proxy.example:3128, or null", values.parse_proxy_url, quote_url))),
        "ca_file": Key("ca_file", OrNull(PATH)),
    },
    checks=(
        Check(("url", "keys"), check_signed),
        Check(("url", "allow_unsigned"), check_unsigned),
        Check(("url", "keys"), check_keys),
        Check(("url", "proxy", "ca_file"), check_route),
    ),
)  # fmt: skip

SHRINK_GUARD = Section(
    model.ShrinkGuardSettings,
    {
        "max_removed": Key("max_removed", REMOVAL_LIMIT),
        "min_removed": Key("min_removed", number(0, 10**9)),
        "protected": Key("protected", PairsOf(
            Value("a category such as bank", values.parse_category), REMOVAL_LIMIT, model.ProtectedCategory,
            "a mapping of categories to limits such as {bank: 0}")),
    },
)  # fmt: skip

REGISTRY = Section(
    model.RegistrySettings,
    {
        "sources": Key("sources", ListOf(
            SOURCE, "a list of at least one source such as "
            '{name: national, url: "https://registry.example/feed.csv", allow_unsigned: true}',
            unique_by="name")),
        "refresh": Key("refresh_s", duration("1s", "7d", "60s")),
        "retry": Key("retry_s", duration("1s", "1d", "10s")),
        "expire": Key("expire_s", duration("1m", "366d", "7d")),
        "local": Key("local", OrNull(PATH)),
        "shrink_guard": Key("shrink_guard", SHRINK_GUARD),
        "on_stale": Key("on_stale", word_of(model.OnStale)),
    },
    checks=(
        Check(("sources", "local"), check_sources),
        Check(("refresh_s", "expire_s"), check_registry),
    ),
)  # fmt: skip

TREATMENT: dict[str, Key] = {"dscp": Key("dscp", OrNull(DSCP)), "mark": Key("mark", OrNull(MARK))}
RATE: Reader = OrNull(Value("a rate such as 64kbyte/s or 2mbit/s, or null", values.parse_rate))

POLICY = Section(
    model.PolicySettings,
    {
        "mode": Key("mode", word_of(Mode)),
        "enforce_from": Key("enforce_from", OrNull(
            Value("a time with its offset such as 2025-07-01T00:00:00+05:00, or null", values.parse_time))),
        "canary": Key("canary_percent", Value("a whole percentage from 0% to 100%", values.parse_percent)),
        "drain": Key("drain_s", duration("0s", "30d", "1h")),
        "scope": Key("scope_words", ListOf(
            Value("a bundle, a protocol, or protocol/port such as udp/51820", values.parse_service_word),
            "a list of at least one service such as [ipsec, udp/51820]", at_least=1)),
        "interfaces": Key("interfaces", Section(
            model.InterfaceSettings,
            {"inside": Key("inside", INTERFACES), "outside": Key("outside", INTERFACES)},
            checks=(Check(("inside", "outside"), check_interfaces),))),
        "on_registered": Key("on_registered", Section(model.RegisteredTreatment, TREATMENT)),
        "on_unregistered": Key("on_unregistered", Section(
            model.UnregisteredTreatment, {**TREATMENT, "limit": Key("limit", RATE)})),
    },
    checks=(Check(("mode", "on_unregistered"), check_policy),),
)  # fmt: skip

PROFILE = Section(
    model.ProfileSettings,
    {
        "interim": Key("interim", word_of(model.InterimWord)),
        "identity": Key("identity", word_of(Identity)),
        "country_code": Key("country_code", OrNull(Value("digits such as 92, or null", values.parse_country_code))),
        "nat_side": Key("nat_side", word_of(model.NatSide)),
        "session_ids": Key("session_ids", word_of(model.SessionIds)),
        "interim_interval": Key("interim_interval_s", OrNull(duration("1m", "7d", "10m, or null"))),
        "missed_interims": Key("missed_interims", number(1, 20)),
        "min_session_timeout": Key("min_session_timeout_s", duration("1m", "7d", "15m")),
        "session_timeout": Key("session_timeout_s", Value(
            "a duration from 1m to 366d such as 1d, or never",
            partial(values.parse_duration_or_never, low_s=60.0, high_s=366 * 86400.0))),
        "restart_grace": Key("restart_grace_s", duration("0s", "1h", "2m")),
        "single_session": Key("single_session", SWITCH),
    },
)  # fmt: skip

NAS = Section(
    model.NasSettings,
    {
        "name": Key("name", Value("what the NAS calls itself, such as bng-1 or 10.0.0.1", values.parse_nas_name)),
        "profile": Key("profile", PROFILE),
    },
)

RADIUS_CLIENT = Section(
    model.RadiusClient,
    {
        "address": Key("address", Value("a prefix such as 10.0.0.0/24", values.parse_client_prefix)),
        "secret_file": Key("secret_file", SECRET_PATH),
        "require_message_authenticator": Key("require_message_authenticator", SWITCH),
        "response_message_authenticator": Key("response_message_authenticator", SWITCH),
        "proxy": Key("proxy", SWITCH),
        "profile": Key("profile", OrNull(PROFILE)),
    },
)


class SubscribersSection(Section[model.SubscriberSettings]):
    """A profile says what differs: what it leaves out is as in the usual profile."""

    def read(self, node: Node, path: str, report: Report) -> object:
        value = super().read(node, path, report)
        return _fill_profiles(value, node) if isinstance(value, model.SubscriberSettings) else value


def _fill_profiles(subscribers: model.SubscriberSettings, section: Node) -> model.SubscriberSettings:
    usual, radius = subscribers.profile, subscribers.radius
    nas = tuple(
        replace(each, profile=_fill_profile(each.profile, usual, item))
        for each, item in zip(subscribers.nas, _items_of(child_of(section, "nas")), strict=True)
    )
    if radius is not None:
        items = _items_of(child_of(child_of(section, "radius") or section, "clients"))
        clients = tuple(
            each if each.profile is None else replace(each, profile=_fill_profile(each.profile, usual, item))
            for each, item in zip(radius.clients, items, strict=True)
        )
        radius = replace(radius, clients=clients)
    return replace(subscribers, nas=nas, radius=radius)


def _fill_profile(
    profile: model.ProfileSettings, usual: model.ProfileSettings, item: Node
) -> model.ProfileSettings:
    """`profile` as `item` of the list has it; what has no key there is taken from `usual`."""
    section = child_of(item, "profile")
    pairs = section.pairs if isinstance(section, MappingNode) else ()
    given = (PROFILE.keys[key.text].field for key, _ in pairs if isinstance(key, ScalarNode))
    return replace(usual, **{name: getattr(profile, name) for name in given})


def _items_of(node: Node | None) -> tuple[Node, ...]:
    return node.items if isinstance(node, ListNode) else ()


SUBSCRIBERS = SubscribersSection(
    model.SubscriberSettings,
    {
        "pepper_file": Key("pepper_file", SECRET_PATH),
        "sessions_file": Key("sessions_file", OrNull(PATH)),
        "max_sessions": Key("max_sessions", number(1000, 10**7)),
        "element_timeout": Key("element_timeout_s", duration("10m", "7d", "2h")),
        "profile": Key("profile", PROFILE),
        "nas": Key("nas", ListOf(
            NAS, "a list of NAS such as {name: bng-1, profile: {interim: snapshot}}", unique_by="name")),
        "radius": Key("radius", OrNull(Section(
            model.RadiusSettings,
            {
                "listen": Key("listen", ListOf(
                    LISTEN, 'a list of at least one address and port such as ["0.0.0.0:1813"]', at_least=1)),
                "clients": Key("clients", ListOf(
                    RADIUS_CLIENT, "a list of at least one client such as "
                    "{address: 10.0.0.0/24, secret_file: /etc/gatewayd/radius.secret}",
                    at_least=1, unique_by="address")),
            }))),
    },
)  # fmt: skip

KERNEL = Section(
    model.KernelSettings,
    {
        "table": Key("table", Value("a name such as gatewayd", values.parse_table_name)),
        "priority": Key("priority", number(-400, 400)),
        "ct_mark_mask": Key("ct_mark_mask", Value(
            'at least 4 neighbouring bits of 32 such as "0xff000000"', values.parse_ct_mark_mask)),
        "verify_every": Key("verify_every_s", duration("1s", "1d", "5m")),
        "nflog_group": Key("nflog_group", number(0, 65535)),
        "nflog_rate": Key("nflog_rate_per_s", number(1, 10**6, "packets per second")),
    },
)  # fmt: skip

WATCH = Section(model.WatchSettings, {"unregistered": Key("unregistered", word_of(model.WatchDetail))})

HTTP = Section(model.HttpSettings, {"listen": Key("listen", LISTEN), "socket": Key("socket", SOCKET_PATH)})

LOG = Section(
    model.LogSettings,
    {"level": Key("level", word_of(model.LogLevel)), "format": Key("format", word_of(model.LogFormat))},
)

SETTINGS = Section(
    model.Settings,
    {
        "registry": Key("registry", REGISTRY),
        "policy": Key("policy", POLICY),
        "subscribers": Key("subscribers", OrNull(SUBSCRIBERS)),
        "kernel": Key("kernel", KERNEL),
        "watch": Key("watch", WATCH),
        "http": Key("http", HTTP),
        "state_dir": Key("state_dir", PATH),
        "log": Key("log", LOG),
    },
)
