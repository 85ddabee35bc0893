"""Text in; settings, or every fault with its place, out."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import SettingsInvalid
from gatewayd.model import parse_prefix, parse_services
from gatewayd.settings import (
    ListenAddress,
    ProtectedCategory,
    RadiusClient,
    RadiusSettings,
    RateLimit,
    RegistrySettings,
    RemovalLimit,
    Settings,
    SourceSettings,
    SubscriberSettings,
    load_settings,
)
from gatewayd.settings.load import write_example
from gatewayd.settings.subscribers import NasSettings, ProfileSettings

LAB = 'registry: {sources: [{name: lab, url: "file:/lab.csv", allow_unsigned: true}]}\n'
LAB_SOURCE = SourceSettings("lab", "file:/lab.csv", allow_unsigned=True)


def faults_of(text: str) -> list[str]:
    with pytest.raises(SettingsInvalid) as refusal:
        load_settings(text, "g.yaml")
    return list(refusal.value.faults)


def test_what_is_left_out_has_its_default() -> None:
    assert load_settings(LAB, "g.yaml") == Settings(RegistrySettings((LAB_SOURCE,)))


def test_a_heading_with_nothing_under_it_has_its_defaults() -> None:
    text = LAB + "policy:\nsubscribers:\nhttp: ~\n"
    assert load_settings(text, "g.yaml") == Settings(RegistrySettings((LAB_SOURCE,)))


def test_every_key_reaches_its_field() -> None:
    text = """\
registry:
  sources:
    - {name: lab, url: "file:///lab", allow_unsigned: yes, format: ndjson, max_bytes: 512MiB, keys: []}
    - {name: web, url: "http://registry.example/feed.csv", allow_unsigned: true}
  refresh: 2m
  retry: 5s
  expire: 1d
  local: null
  shrink_guard: {max_removed: 20, min_removed: 3, protected: {bank: 5, bpo: 1%}}
  on_stale: observe
policy:
  mode: limit
  enforce_from: 2025-07-01T00:00:00+05:00
  canary: 10%
  drain: 0
  scope: [wireguard, udp/500-501, esp]
  interfaces: {inside: [ppp*], outside: [eth0, eth1]}
  on_registered: {dscp: ef, mark: "0x10"}
  on_unregistered: {dscp: 8, mark: 0x20, limit: 1mbit/s}
subscribers:
  pepper_file: /pepper
  sessions_file: /sessions.csv
  max_sessions: 1000
  element_timeout: 10m
  profile:
    interim: snapshot
    identity: alc-msisdn
    country_code: 92
    nat_side: outside
    session_ids: digest
    interim_interval: 10m
    missed_interims: 20
    min_session_timeout: 1m
    session_timeout: never
    restart_grace: 0
  nas: [{name: bng-1, profile: {interim: merge}}]
  radius:
    listen: ["[::]:1813"]
    clients:
      - {address: 10.0.0.1, secret_file: /secret, require_message_authenticator: yes,
         response_message_authenticator: true, require_event_timestamp: true,
         nas: [bng-1, 10.0.0.1], addresses: [100.64.0.0/10, "2001:db8::/32"],
         proxy: true, profile: {session_timeout: 2d}}
kernel: {table: gw, priority: 5, ct_mark_mask: 0x0000fff0, verify_every: 30s, nflog_group: 7, nflog_rate: 50}
watch: {unregistered: off}
http: {listen: "[::1]:0", socket: /api.sock}
state_dir: /state
log: {level: debug, format: json}
"""
    settings = load_settings(text, "g.yaml")
    registry, policy, kernel = settings.registry, settings.policy, settings.kernel
    assert registry.sources == (
        SourceSettings("lab", "file:///lab", allow_unsigned=True, format="ndjson", max_bytes=512 << 20),
        SourceSettings("web", "http://registry.example/feed.csv", allow_unsigned=True),
    )
    assert (registry.refresh_s, registry.retry_s, registry.expire_s) == (120.0, 5.0, 86400.0)
    assert (registry.local, registry.on_stale) == (None, "observe")
    assert (registry.shrink_guard.max_removed, registry.shrink_guard.min_removed) == (RemovalLimit(20), 3)
    assert registry.shrink_guard.protected == (
        ProtectedCategory("embassy", RemovalLimit(count=0)),  # of the default, which is added to
        ProtectedCategory("bank", RemovalLimit(count=5)),
        ProtectedCategory("bpo", RemovalLimit(fraction=0.01)),
    )
    assert (policy.mode, policy.enforce_from, policy.canary_percent) == ("limit", 1751310000.0, 10)
    assert (policy.drain_s, policy.scope_words) == (0.0, ("wireguard", "udp/500-501", "esp"))
    assert policy.scope == parse_services(["wireguard", "udp/500-501", "esp"])
    assert (policy.interfaces.inside, policy.interfaces.outside) == (("ppp*",), ("eth0", "eth1"))
    assert (policy.on_registered.dscp, policy.on_registered.mark) == (46, 16)
    assert (policy.on_unregistered.dscp, policy.on_unregistered.mark) == (8, 32)
    assert policy.on_unregistered.limit == RateLimit(125_000)
    usual = ProfileSettings("snapshot", "alc-msisdn", "92", "outside", "digest", 600.0, 20, 60.0, inf, 0.0)
    client = RadiusClient(
        parse_prefix("10.0.0.1"), "/secret", True, True, True, ("bng-1", "10.0.0.1"),
        (parse_prefix("100.64.0.0/10"), parse_prefix("2001:db8::/32")), True,
        replace(usual, session_timeout_s=172800.0),
    )  # fmt: skip
    assert settings.subscribers == SubscriberSettings(
        "/pepper", "/sessions.csv", 1000, 600.0, usual, (NasSettings("bng-1", replace(usual, interim="merge")),),
        RadiusSettings((client,), (ListenAddress("::", 1813),)),
    )  # fmt: skip
    assert (kernel.table, kernel.priority, kernel.ct_mark_mask) == ("gw", 5, 0xFFF0)
    assert (kernel.verify_every_s, kernel.nflog_group, kernel.nflog_rate_per_s) == (30.0, 7, 50)
    assert settings.watch.unregistered == "off"
    assert (settings.http.listen, settings.http.socket) == (ListenAddress("::1", 0), "/api.sock")
    assert (settings.state_dir, settings.log.level, settings.log.format) == ("/state", "debug", "json")


def test_every_fault_is_told_at_once_in_file_order_with_its_place() -> None:
    text = """\
statedir: /x
registry:
  refresh: 60
  sources:
    - {name: a, url: "https://registry.example/feed/notification.jws", keys: []}
    - {name: b, url: "file:/b.csv"}
    - {url: "file:/c.csv", allow_unsigned: maybe}
policy:
  canary: 10%
  canary: 20%
  scope: [ipsec, esp/1]
log: [info]
kernel: {table: 5, ct_mark_mask: 0xf0f0, priority: 1000}
"""
    assert faults_of(text) == [
        "g.yaml:1:1: statedir: unknown key, expected state_dir",
        "g.yaml:3:12: registry.refresh: '60' has no unit, expected a duration from 1s to 7d such as 60s",
        "g.yaml:5:78: registry.sources[0].keys: is empty for a signed feed, "
        "expected files of public keys to verify it with",
        "g.yaml:6:22: registry.sources[1].url: is an unsigned source, expected allow_unsigned: true beside it",
        "g.yaml:7:7: registry.sources[2].name: is missing, expected a word such as national",
        "g.yaml:7:44: registry.sources[2].allow_unsigned: 'maybe' is neither true nor false, "
        "expected true or false",
        "g.yaml:10:3: policy.canary: is given twice, expected it once (first at line 9)",
        "g.yaml:11:18: policy.scope[1]: 'esp/1' is not a service: esp has no ports, "
        "expected a bundle, a protocol, or protocol/port such as udp/51820",
        "g.yaml:12:6: log: is a list, expected a mapping of level, format",
        "g.yaml:13:17: kernel.table: '5' is not an nft identifier, expected a name such as gatewayd",
        "g.yaml:13:34: kernel.ct_mark_mask: '0xf0f0' has a gap between its bits, "
        'expected at least 4 neighbouring bits of 32 such as "0xff000000"',
        "g.yaml:13:52: kernel.priority: '1000' is out of range, expected a whole number from -400 to 400",
    ]


def test_local_files_alone_are_a_registry_if_that_is_said() -> None:
    registry = load_settings("registry: {sources: [], local: /etc/gatewayd/local.d}\n", "g.yaml").registry
    assert (registry.sources, registry.local) == ((), "/etc/gatewayd/local.d")


def subscribers_of(text: str) -> SubscriberSettings:
    found = load_settings(LAB + "subscribers:\n  pepper_file: /pepper\n" + text, "g.yaml").subscribers
    assert found is not None
    return found


def test_subscribers_need_a_pepper_and_nothing_else() -> None:
    assert subscribers_of("") == SubscriberSettings("/pepper")
    assert subscribers_of("  profile:\n  nas: []\n  radius:\n") == SubscriberSettings("/pepper")


def test_what_the_profile_of_a_nas_leaves_out_is_as_in_the_usual_profile() -> None:
    found = subscribers_of("""\
  nas:
    - {name: bng-1, profile: {interim: snapshot, country_code: null, session_timeout: 1d}}
    - {name: bng-2, profile: }
    - {name: BNG-2, profile: {}}
    - {name: bng-3}
  profile: {country_code: "92", session_timeout: never}
""")
    usual = ProfileSettings(country_code="92", session_timeout_s=inf)
    assert found.profile == usual
    assert found.nas == (
        NasSettings("bng-1", ProfileSettings(interim="snapshot")),
        NasSettings("bng-2", usual),
        NasSettings("BNG-2", usual),
        NasSettings("bng-3", usual),
    )


def test_what_the_profile_of_a_client_leaves_out_is_as_in_the_usual_profile() -> None:
    """Without a profile a client has none: it is the usual one's that counts."""
    found = subscribers_of("""\
  profile: {country_code: "92"}
  radius:
    clients:
      - {address: 10.0.0.0/24, secret_file: /secret, profile: {missed_interims: 2}}
      - {address: 10.0.1.0/24, secret_file: /secret, profile: {}}
      - {address: 10.0.2.0/24, secret_file: /secret, profile: null}
      - {address: 10.0.3.0/24, secret_file: /secret}
""")
    usual = ProfileSettings(country_code="92")
    assert found.radius is not None
    profiles = [client.profile for client in found.radius.clients]
    assert profiles == [replace(usual, missed_interims=2), usual, None, None]


def test_every_fault_of_subscribers_is_told_at_once_in_file_order_with_its_place() -> None:
    text = """\
subscribers:
  sessions_file: sessions.csv
  max_sessions: 999
  element_timeout: 5m
  profile: {interim: replace, identity: mac, country_code: +92, nat_side: both, session_ids: hash}
  nas:
    - {name: bng-1, profile: {interim_interval: 59s, missed_interims: 2.5, min_session_timeout: 0,
                              session_timeout: always, restart_grace: 2h}}
    - {name: bng-1}
    - {profile: {sees: inside}}
  radius:
    clients:
      - {address: 10.0.0.0/24, secret_file: /secret, response_message_authenticator: maybe}
      - {address: 10.0.0.0/24, secret: hunter2, profile: {interim: 1}}
"""
    client = "subscribers.radius.clients"
    keys = (
        "interim, identity, country_code, nat_side, session_ids, interim_interval, missed_interims, "
        "min_session_timeout, session_timeout, "
        "restart_grace, single_session"
    )
    assert faults_of(LAB + text) == [
        "g.yaml:3:3: subscribers.pepper_file: is missing, expected an absolute path, or credential:NAME",
        "g.yaml:3:18: subscribers.sessions_file: 'sessions.csv' is not an absolute path, expected an absolute path",
        "g.yaml:4:17: subscribers.max_sessions: '999' is out of range, "
        "expected a whole number from 1000 to 10000000",
        "g.yaml:5:20: subscribers.element_timeout: '5m' is out of range, "
        "expected a duration from 10m to 7d such as 2h",
        "g.yaml:6:22: subscribers.profile.interim: 'replace' is not known, expected one of merge, snapshot",
        "g.yaml:6:41: subscribers.profile.identity: 'mac' is not known, expected one of calling-station-id, "
        "user-name, chargeable-user-identity, 3gpp-imsi, alc-msisdn",
        "g.yaml:6:60: subscribers.profile.country_code: '+92' is not a country code: one to three digits, "
        "the first not 0, expected digits such as 92, or null",
        "g.yaml:6:75: subscribers.profile.nat_side: 'both' is not known, expected one of inside, outside",
        "g.yaml:6:94: subscribers.profile.session_ids: 'hash' is not known, expected one of plain, digest",
        "g.yaml:8:49: subscribers.nas[0].profile.interim_interval: '59s' is out of range, "
        "expected a duration from 1m to 7d such as 10m, or null",
        "g.yaml:8:71: subscribers.nas[0].profile.missed_interims: '2.5' is not a whole number, "
        "expected a whole number from 1 to 20",
        "g.yaml:8:97: subscribers.nas[0].profile.min_session_timeout: '0' is out of range, "
        "expected a duration from 1m to 7d such as 15m",
        "g.yaml:9:48: subscribers.nas[0].profile.session_timeout: 'always' is not a number with a unit, "
        "expected a duration from 1m to 366d such as 1d, or never",
        "g.yaml:9:71: subscribers.nas[0].profile.restart_grace: '2h' is out of range, "
        "expected a duration from 0s to 1h such as 2m",
        "g.yaml:10:7: subscribers.nas[1]: name 'bng-1' is given twice, expected it once (first at line 8)",
        "g.yaml:11:7: subscribers.nas[2].name: is missing, "
        "expected what the NAS calls itself, such as bng-1 or 10.0.0.1",
        f"g.yaml:11:18: subscribers.nas[2].profile.sees: unknown key, expected one of {keys}",
        f"g.yaml:14:86: {client}[0].response_message_authenticator: 'maybe' is neither true nor false, "
        "expected true or false",
        f"g.yaml:15:9: {client}[1].secret_file: is missing, expected an absolute path, or credential:NAME",
        f"g.yaml:15:9: {client}[1]: address '10.0.0.0/24' is given twice, expected it once (first at line 14)",
        f"g.yaml:15:32: {client}[1].secret: unknown key, expected secret_file",
        f"g.yaml:15:68: {client}[1].profile.interim: '1' is not known, expected one of merge, snapshot",
    ]


def test_a_secret_that_stands_where_its_file_should_is_refused_and_not_repeated() -> None:
    faults = faults_of(
        LAB + "subscribers:\n  pepper_file: hunter2\n"
        "  radius: {clients: [{address: 10.0.0.1, secret_file: hunter2}]}\n"
    )
    assert faults == [
        "g.yaml:3:16: subscribers.pepper_file: this value is not an absolute path, "
        "expected an absolute path, or credential:NAME",
        "g.yaml:4:55: subscribers.radius.clients[0].secret_file: this value is not an absolute path, "
        "expected an absolute path, or credential:NAME",
    ]


SOURCES_EXPECTED = (
    "expected a list of at least one source such as "
    '{name: national, url: "https://registry.example/feed.csv", allow_unsigned: true}'
)
NO_SOURCES = "is an empty list, expected at least one source, or local beside it with files of pins"
KEYS = "registry, policy, subscribers, kernel, watch, isp, http, state_dir, log"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", f"1:1: registry.sources: is missing, {SOURCES_EXPECTED}"),
        ("# nothing\n", f"1:1: registry.sources: is missing, {SOURCES_EXPECTED}"),
        ("registry:\n", f"1:10: registry.sources: is missing, {SOURCES_EXPECTED}"),
        ("registry: {sources: }\n", f"1:20: registry.sources: is empty, {SOURCES_EXPECTED}"),
        ("registry: {sources: []}\n", f"1:21: registry.sources: {NO_SOURCES}"),
        ("registry: {sources: [], local: }\n", f"1:21: registry.sources: {NO_SOURCES}"),
        ("registry: {sources: lab}\n", f"1:21: registry.sources: is a single value, {SOURCES_EXPECTED}"),
        (LAB + "xyzzy: 1\n", f"2:1: xyzzy: unknown key, expected one of {KEYS}"),
        (LAB + "? [a]\n: 1\n", "2:3: (file): a key is a list, expected a word"),
        ("- registry\n", f"1:1: (file): is a list, expected a mapping of {KEYS}"),
        (LAB + "state_dir:\n", "2:11: state_dir: is empty, expected an absolute path"),
        (LAB + "state_dir: [/x]\n", "2:12: state_dir: is a list, expected an absolute path"),
        (
            LAB + "subscribers: {}\n",
            "2:14: subscribers.pepper_file: is missing, expected an absolute path, or credential:NAME",
        ),
        (
            LAB + "kernel: {nflog_rate: 0}\n",
            "2:22: kernel.nflog_rate: '0' is out of range, "
            "expected a whole number of packets per second from 1 to 1000000",
        ),
        (
            LAB + f"http: {{socket: /{'a' * 107}}}\n",
            f"2:16: http.socket: '/{'a' * 56}...' is longer than 107 bytes, "
            "expected an absolute path of at most 107 bytes",
        ),
        (
            LAB + "watch: {unregistered: all}\n",
            "2:23: watch.unregistered: 'all' is not known, expected one of off, aggregate, flows",
        ),
        (
            LAB.replace("}]}", "}], refresh: 2d, expire: 1d}"),
            "1:101: registry.expire: is shorter than refresh, "
            "expected longer: everything would be stale at once",
        ),
        (
            LAB.replace("}]}", "}], refresh: 7d, expire: 1d}").replace("lab,", "a/b,"),
            "1:29: registry.sources[0].name: 'a/b' is not a name, expected a word such as national",
        ),
        (
            LAB.replace("true", "true, keys: [/k.pub]"),
            "1:84: registry.sources[0].keys: would verify nothing of a file, "
            "expected no keys, or the http: or https: URL of a feed",
        ),
        (
            LAB.replace("true", "true, proxy: http://proxy.example:3128"),
            "1:85: registry.sources[0].proxy: is of no use to a file, "
            "expected it beside an http: or https: URL only",
        ),
        (
            LAB.replace("true", "true, ca_file: /ca.pem, proxy: null"),
            "1:87: registry.sources[0].ca_file: is of no use to a file, "
            "expected it beside an http: or https: URL only",
        ),
        (
            LAB.replace("file:/lab.csv", "https://r.example/notification.jws").replace(
                "true", "false, proxy: proxy:3128"
            ),
            "1:107: registry.sources[0].proxy: 'proxy:3128' is not an http: or https: URL, "
            "expected a URL such as http://proxy.example:3128, or null",
        ),
        (
            LAB.replace("}]", '}, {name: lab, url: "file:/b", allow_unsigned: 1}]'),
            "1:79: registry.sources[1]: name 'lab' is given twice, expected it once (first at line 1)",
        ),
        (
            LAB.replace("}]}", "}], shrink_guard: {protected: [bank]}}"),
            "1:106: registry.shrink_guard.protected: is a list, "
            "expected a mapping of categories to limits such as {bank: 0}",
        ),
        (
            LAB.replace("}]}", "}], shrink_guard: {protected: {Bank: 0, bpo: x}}}"),
            "1:107: registry.shrink_guard.protected.Bank: "
            "'Bank' is not a lower-case word of at most 32 characters, expected a category such as bank",
        ),
        (
            LAB + "policy: {mode: limit, canary: 5, on_unregistered: {limit: null}}\n",
            "2:59: policy.on_unregistered.limit: is null in mode limit, expected a rate such as 64kbyte/s",
        ),
        (
            LAB + "policy: {enforce_from: 2025-07-01T00:00:00Z, enforce_until: 2025-07-01T05:00:00+05:00}\n",
            "2:61: policy.enforce_until: is not after enforce_from, expected later: nothing would ever be enforced",
        ),
        (
            LAB + "policy: {interfaces: {inside: [eth1, eth0], outside: [eth0]}}\n",
            "2:54: policy.interfaces.outside: eth0 is inside as well, expected it on one side only",
        ),
        (
            LAB + "policy: {interfaces: {inside: [eth1, eth1, 'eth/2', 'eth/2', [x], [x]]}}\n",
            "2:38: policy.interfaces.inside[1]: 'eth1' is given twice, expected it once (first at line 2)",
        ),
        (
            LAB + "policy: {scope: []}\n",
            "2:17: policy.scope: is an empty list, "
            "expected a list of at least one service such as [ipsec, udp/51820]",
        ),
        (
            LAB + "policy: {enforce_from: 2025-07-01 00:00:00}\n",
            "2:24: policy.enforce_from: '2025-07-01 00:00:00' has no offset from UTC, "
            "expected a time with its offset such as 2025-07-01T00:00:00+05:00, or null",
        ),
    ],
)  # fmt: skip
def test_a_fault_says_where_what_is_wrong_and_what_is_expected(text: str, fault: str) -> None:
    assert f"g.yaml:{fault}" in faults_of(text)


def test_a_check_across_keys_is_silent_when_one_of_them_is_faulty() -> None:
    text = LAB.replace("}]}", "}], refresh: 7d, expire: x}")
    assert [fault.split(":")[3] for fault in faults_of(text)] == [" registry.expire"]


def test_a_fault_in_a_source_does_not_hide_that_its_name_is_taken() -> None:
    assert faults_of(LAB.replace("}]", '}, {name: lab, url: "file:/b"}, {url: [x]}]')) == [
        "g.yaml:1:79: registry.sources[1]: name 'lab' is given twice, expected it once (first at line 1)",
        "g.yaml:1:96: registry.sources[1].url: is an unsigned source, expected allow_unsigned: true beside it",
        "g.yaml:1:108: registry.sources[2].name: is missing, expected a word such as national",
        "g.yaml:1:114: registry.sources[2].url: is a list, expected a URL such as "
        "file:/etc/gatewayd/registry.ndjson or https://registry.example/feed.csv",
    ]


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    faults = faults_of(LAB.replace("file:/lab.csv", "https://joe:secret@registry.example/"))
    assert len(faults) == 1
    assert "carries credentials" in faults[0]
    assert "secret" not in faults[0]


WHOLE = [
    "https://registry.example:0/feed?token=secret",
    "https://registry.example/fe ed?token=secret",
    "https://joe:se/cr@secret@registry.example/",
    "https://[::1/feed?token=secret",
    "ftp://joe:secret@registry.example/feed",
    "https://registry.example/feed?token=secret",
]
IN_PART = ["joe:secret@registry.example/feed", "registry.example/feed?token=secret"]


@pytest.mark.parametrize(
    ("key", "url"),
    [(key, url) for key in ("name", "url", "proxy", "ca_file", "format", "nonsense") for url in WHOLE]
    + [(key, url) for key in ("url", "proxy") for url in IN_PART],
)
def test_no_fault_repeats_a_secret_of_a_url_wherever_it_stands(key: str, url: str) -> None:
    """One that is not whole, where a URL should stand at least."""
    keys = {"name": "lab", "url": "https://registry.example/", "allow_unsigned": "1"} | {key: f"'{url}'"}
    source = ", ".join(f"{name}: {text}" for name, text in keys.items())
    faults = "\n".join(faults_of(f"registry: {{sources: [{{{source}}}]}}"))
    assert "joe" not in faults
    assert "secret" not in faults


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a:\n\tb: 1\n", "2:1: (file): is not valid YAML: a tab stands here, expected spaces"),
        ("a: b: c\n", "1:5: (file): is not valid YAML: mapping values are not allowed here"),
        (
            "a: 'x\n",
            "2:1: (file): is not valid YAML: while scanning a quoted scalar, found unexpected end of stream "
            "(from line 1)",
        ),
        ("a: *b\n", "1:4: (file): is not valid YAML: found undefined alias 'b'"),
        (
            "a: 1\n---\nb: 1\n",
            "2:1: (file): is not valid YAML: expected a single document in the stream, "
            "but found another document (from line 1)",
        ),
        ("a: 1\nb: \x00\n", "2:4: (file): the character U+0000 is not allowed, expected YAML text"),
        ("a: !!python/object:os.system x\n", "1:4: (file): the tag 'python/object:os.system' is not known, "
         "expected no tag"),
        ("a: !x [1]\n", "1:4: (file): the tag '!x' is not known, expected no tag"),
        ("a: &a [*a]\n", "1:4: (file): has aliases that contain themselves "
         "or expand to more than 50000 values"),
        ("[" * 5000, "1:16: (file): is nested too deeply, expected at most 16 levels"),
    ],
)  # fmt: skip
def test_what_is_no_document_is_one_fault_with_its_place(text: str, fault: str) -> None:
    assert faults_of(text) == [f"g.yaml:{fault}"]


def test_an_escape_beyond_unicode_is_a_fault() -> None:
    (fault,) = faults_of('a: "\\UFFFFFFFF"\n')
    assert fault.startswith("g.yaml:1:7: (file): is not valid YAML: ")


def test_aliases_that_multiply_stop_at_the_limit() -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 20)}]\n" for n in range(1, 10))
    (fault,) = faults_of("l0: &l0 x\n" + levels)
    assert fault.endswith("(file): has aliases that contain themselves or expand to more than 50000 values")


def test_an_anchor_and_its_aliases_are_one_value() -> None:
    text = LAB + "policy: {on_registered: &same {mark: 0x10}, on_unregistered: *same}\n"
    policy = load_settings(text, "g.yaml").policy
    assert policy.on_registered.mark == policy.on_unregistered.mark == 16


def test_a_byte_order_mark_is_no_fault() -> None:
    assert load_settings("\ufeff" + LAB, "g.yaml").registry.sources == (LAB_SOURCE,)


YAML_BITS = st.sampled_from(
    [*"{}[]:,-?&*!|>'\"%@`#~ \n\t", "\n  ", ": ", "- ", "---\n", "...\n", "<<: ", "&a ", "*a", "!!str ",
     "\\U", "null", "registry", "sources", "name", "url", "file:/x", "policy", "mode", "5%", "0x", "1", "é",
     "\ud800", "\x85", "\ufeff"]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(YAML_BITS).map("".join)))
def test_arbitrary_text_raises_faults_and_nothing_else(text: str) -> None:
    # Settings never come of it: a source with all that it needs does not arise by chance.
    faults = faults_of(text)
    assert faults
    assert all(fault.startswith("g.yaml:") and fault.isprintable() for fault in faults)


SCALARS = st.one_of(st.text(max_size=12), YAML_BITS).map(lambda text: repr(text).replace("\\'", "''"))
PATHS = ["registry: {refresh: X}", "policy: {scope: [X]}", "policy: {enforce_from: X}", "kernel: {ct_mark_mask: X}",
         "http: {listen: X}", "registry: {sources: [{name: X, url: X, max_bytes: X}]}",
         "registry: {shrink_guard: {max_removed: X, protected: {X: X}}}",
         "policy: {on_unregistered: {dscp: X, mark: X, limit: X}, interfaces: {inside: [X]}}"]  # fmt: skip


@given(st.sampled_from(PATHS), SCALARS)
def test_an_arbitrary_value_under_a_known_key_is_accepted_or_a_fault(path: str, scalar: str) -> None:
    with pytest.raises(SettingsInvalid) as refusal:
        load_settings(path.replace("X", scalar), "g.yaml")
    assert all(fault.isprintable() for fault in refusal.value.faults)


def test_the_example_that_the_declarations_write_is_itself_a_file_without_faults() -> None:
    text = write_example()
    assert load_settings(text, "example").registry.sources
    lines = text.splitlines()
    first = lines.index("#subscribers:")
    last = lines.index("", first)
    turned_on = [line.removeprefix("#") for line in lines[first:last]]
    found = load_settings("\n".join([*lines[:first], *turned_on, *lines[last:]]), "example")
    assert found.subscribers is not None
    assert found.subscribers.radius is not None


def test_each_key_of_an_older_version_is_named_with_its_place_and_its_new_name() -> None:
    """An upgrade asks the new `gatewayd check` first, and keeps the old daemon."""
    text = """subscribers:
  pepper_file: /p
  profile: {gateway_sees: outside, intervals: 3, least: 15m, silent: 1d, one_address: true}
  radius:
    listen: ["127.0.0.1:1813"]
    clients:
      - {address: 10.0.0.0/24, secret_file: /s, sign_answers: true}
policy: {starts: "2025-07-01T00:00:00+05:00"}
"""
    assert faults_of(LAB + text) == [
        "g.yaml:4:13: subscribers.profile.gateway_sees: was renamed, expected nat_side",
        "g.yaml:4:36: subscribers.profile.intervals: was renamed, expected missed_interims",
        "g.yaml:4:50: subscribers.profile.least: was renamed, expected min_session_timeout",
        "g.yaml:4:62: subscribers.profile.silent: was renamed, expected session_timeout",
        "g.yaml:4:74: subscribers.profile.one_address: was renamed, expected single_session",
        "g.yaml:8:49: subscribers.radius.clients[0].sign_answers: was renamed, "
        "expected response_message_authenticator",
        "g.yaml:9:10: policy.starts: was renamed, expected enforce_from",
    ]
