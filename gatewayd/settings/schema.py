"""How a key is declared, the kinds of values that a key can have, and the checks across keys.

    refresh_s: float = key("60s", duration("1s", "7d", "60s"), "interval of asking a source")

The key has the name of the field without the unit of its kind (`refresh`). A range is there to catch a slip of the
pen, not to have an opinion.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, dataclass_transform, get_args
from urllib.parse import urlsplit

from gatewayd.settings import values
from gatewayd.settings.readers import (
    FAULTY,
    Check,
    Found,
    Key,
    ListNode,
    ListOf,
    MappingNode,
    Node,
    OrNull,
    Reader,
    Report,
    ScalarNode,
    Section,
    Value,
    Written,
    child_of,
    keep_private,
    node_of,
    quote_url,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from gatewayd.settings import model, subscribers

_T = TypeVar("_T")
_SectionT = TypeVar("_SectionT", bound="DataclassInstance")
_MISSING: Final[Any] = object()


def required(reader: Reader, sentence: str = "", *, shown: Written = None, restart: bool = False) -> Any:
    """A field of a section, and a key that the file must have. `shown`: its value in the example file."""
    return field(metadata={"key": Key("", reader, sentence, shown, restart)})


def key(
    default: Written,
    reader: Reader,
    sentence: str = "",
    *,
    shown: Written = _MISSING,
    restart: bool = False,
    former: str = "",
) -> Any:
    """A field of a section, and a key that the file may leave out.

    `default` is in the words of an operator, and `reader` reads it at import. `shown`: the example file has this
    instead. `restart`: a reload refuses a change. `former`: its name in an older version.
    """
    report = Report()
    value = reader.read(node_of(default), "default", report)
    assert value is not FAULTY, report.lines(sentence)
    metadata = {"key": Key("", reader, sentence, default if shown is _MISSING else shown, restart, former)}
    return field(default=value, metadata=metadata)


@dataclass_transform(frozen_default=True, field_specifiers=(required, field))
def section(cls: type[_T]) -> type[_T]:
    """A frozen, slotted dataclass whose fields are declared with `key` and `required`."""
    return dataclasses.dataclass(frozen=True, slots=True)(cls)


def keys_of(cls: type[DataclassInstance]) -> dict[str, Key]:
    """The declared keys of a section, by name, in the order of their fields."""
    found = {}
    for each in fields(cls):
        if each.init:
            declared: Key = each.metadata["key"]
            found[each.name.removesuffix(unit_of(declared.reader))] = replace(declared, field=each.name)
    return found


def section_of(cls: type[_SectionT], *checks: Check[_SectionT]) -> Section[_SectionT]:
    return Section(cls, keys_of(cls), checks)


def unit_of(reader: Reader) -> str:
    inner = reader.reader if isinstance(reader, OrNull) else reader
    return inner.unit if isinstance(inner, Value | ListOf) else ""


def section_in(reader: Reader) -> Section[Any] | None:
    """The section that `reader` reads, also if null may stand for it."""
    inner = reader.reader if isinstance(reader, OrNull) else reader
    return inner if isinstance(inner, Section) else None


def keys_that_need_restart(schema: Section[Any], old: object, new: object, path: str = "") -> Iterator[str]:
    """Keys that differ and that a reload cannot change, in the file's order.

    A section that comes or goes is named as a whole.
    """
    for name, each in schema.keys.items():
        before, after = getattr(old, each.field), getattr(new, each.field)
        inner = section_in(each.reader)
        if before == after:
            continue
        if inner is not None and before is not None and after is not None:
            yield from keys_that_need_restart(inner, before, after, f"{path}{name}.")
        elif each.restart:
            yield f"{path}{name}"


# -- kinds of values -----------------------------------------------------------------------------------------


def number(low: int, high: int, unit: str = "", suffix: str = "") -> Value:
    return Value(
        f"a whole number{unit and f' of {unit}'} from {low} to {high}",
        partial(values.parse_number, low=low, high=high),
        hint=f"{low} to {high}",
        unit=suffix,
    )


def duration(low: str, high: str, example: str, *, or_never: bool = False) -> Value:
    low_s, high_s = (values.parse_duration(text, 0, 1e12) for text in (low, high))
    parse = values.parse_duration_or_never if or_never else values.parse_duration
    never = "or never" if or_never else ""
    return Value(
        f"a duration from {low} to {high} such as {example}{never and f', {never}'}",
        partial(parse, low_s=low_s, high_s=high_s),
        hint=f"{low} to {high}{never and f', {never}'}",
        unit="_s",
    )


def word_of(literal: object) -> Value:
    words = get_args(literal)
    return Value(f"one of {', '.join(words)}", partial(values.parse_word, words=words), hint=" | ".join(words))


SWITCH = Value("true or false", values.parse_switch)
CREDENTIAL = "credential:"


def parse_file(text: str) -> str:
    """A path as `parse_path` has it, or `credential:NAME`: a credential of the service (systemd.exec(5),
    LoadCredential=), whose directory is known at run time alone."""
    if not text.startswith(CREDENTIAL):
        return values.parse_path(text)
    name = text.removeprefix(CREDENTIAL)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", name) or name in (".", ".."):
        raise ValueError("does not name a credential")
    return text


PATH = Value("an absolute path", values.parse_path)
FILE = Value("an absolute path, or credential:NAME", parse_file)
SECRET_PATH = Value("an absolute path, or credential:NAME", parse_file, keep_private, hint="or credential:NAME")
"""Of a file with a secret. An operator who writes the secret itself there must not find it in a log."""
# sun_path is 108 bytes with its NUL: include/uapi/linux/un.h.
SOCKET_PATH = Value(
    "an absolute path of at most 107 bytes",
    partial(values.parse_path, longest_bytes=107),
    hint="at most 107 bytes",
)
LISTEN = Value("an address and port such as 127.0.0.1:9480 or [::1]:9480", values.parse_listen_address)
REMOVAL_LIMIT = Value("a percentage such as 5% or a count such as 100", values.parse_removal_limit)
PERCENT = Value("a whole percentage from 0% to 100%", values.parse_percent, hint="0% to 100%", unit="_percent")
SIZE = Value(
    "a size from 1KiB to 64GiB such as 512MiB",
    partial(values.parse_size, low=1 << 10, high=64 << 30),
    hint="1KiB to 64GiB",
)
DSCP = OrNull(Value("a code point such as ef, cs1, af21, a number from 0 to 63, or null", values.parse_dscp))
MARK = OrNull(Value("32 bits such as 0x10 or 16, or null", values.parse_hex_or_number))
MAX_ELEMENTS = OrNull(Value("a whole number from 1, or null", partial(values.parse_number, low=1, high=10**9)))
RATE = OrNull(Value("a rate such as 64kbyte/s or 2mbit/s, or null", values.parse_rate))
TIME = OrNull(Value("a time with its offset such as 2025-07-01T00:00:00+05:00, or null", values.parse_time))
THRESHOLD = OrNull(Value("a whole number from 0, or null", partial(values.parse_number, low=0, high=10**9)))
COUNTRY_CODE = OrNull(Value("digits such as 92, or null", values.parse_country_code))
NAS_NAME = Value("what the NAS calls itself, such as bng-1 or 10.0.0.1", values.parse_nas_name)
NAS_NAMES = ListOf(NAS_NAME, "a list of names of NAS such as [bng-1, 10.0.0.1]")
CLIENT_PREFIX = Value("a prefix such as 10.0.0.0/24", values.parse_client_prefix)
SUBSCRIBER_PREFIXES = ListOf(CLIENT_PREFIX, "a list of prefixes such as [100.64.0.0/10]")
NAME = Value("a word such as national", values.parse_name)
TABLE_NAME = Value("a name such as gatewayd", values.parse_table_name)
CATEGORY = Value("a category such as bank", values.parse_category)
MARK_MASK = Value(
    'at least 4 neighbouring bits of 32 such as "0xff000000"',
    values.parse_ct_mark_mask,
    hint="4 to 32 neighbours",
)
FILES = ListOf(FILE, "a list of paths")
HOST_NAMES = ListOf(
    Value("a host name such as gw-1.example", values.parse_host_name), "a list of host names such as [gw-1.example]"
)
RADIUS_LISTEN = ListOf(LISTEN, 'a list of at least one address and port such as ["0.0.0.0:1813"]', at_least=1)
INTERFACES = ListOf(
    Value("an interface such as eth0, or ppp* for all that begin so", values.parse_interface),
    "a list of interfaces such as [eth0, ppp*]",
)
SOURCE_URL = Value(
    "a URL such as file:/etc/gatewayd/registry.ndjson or https://registry.example/feed.csv",
    values.parse_source_url,
    quote_url,
)
PROXY_URL = OrNull(Value("a URL such as http://proxy.example:3128, or null", values.parse_proxy_url, quote_url))
SERVICES = ListOf(
    Value("a bundle, a protocol, or protocol/port such as udp/51820", values.parse_service_word),
    "a list of at least one service such as [ipsec, udp/51820]",
    at_least=1,
    unit="_words",
)


# -- what must hold across keys --------------------------------------------------------------------------------


def check_signed(source: model.SourceSettings, found: Found) -> None:
    """`keys` make a source a signed feed, whatever its URL is called; the usual name without them is a slip."""
    if source.is_signed and source.path is not None:
        found.add("keys", "would verify nothing of a file, expected no keys, or the http: or https: URL of a feed")
    if not source.is_signed and _is_named_as_feed(source):
        found.add("keys", "is empty for a signed feed, expected files of public keys to verify it with")


def _is_named_as_feed(source: model.SourceSettings) -> bool:
    return source.path is None and urlsplit(source.url).path.endswith("/notification.jws")


def check_route(source: model.SourceSettings, found: Found) -> None:
    for key, value in (("proxy", source.proxy), ("ca_file", source.ca_file)):
        if source.path is not None and value is not None:
            found.add(key, "is of no use to a file, expected it beside an http: or https: URL only")


def check_unsigned(source: model.SourceSettings, found: Found) -> None:
    if not (source.is_signed or source.allow_unsigned or _is_named_as_feed(source)):
        found.add("url", "is an unsigned source, expected allow_unsigned: true beside it")


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


def check_schedule(policy: model.PolicySettings, found: Found) -> None:
    begins_s, ends_s = policy.enforce_from, policy.enforce_until
    if begins_s is not None and ends_s is not None and ends_s <= begins_s:
        found.add("enforce_until", "is not after enforce_from, expected later: nothing would ever be enforced")


def check_kernel(kernel: model.KernelSettings, found: Found) -> None:
    if kernel.nflog_group == kernel.near_miss_group:
        found.add("near_miss_group", "is nflog_group too, expected a group of its own")


def check_interfaces(interfaces: model.InterfaceSettings, found: Found) -> None:
    for name in sorted(set(interfaces.inside) & set(interfaces.outside)):
        found.add("outside", f"{name} is inside as well, expected it on one side only")


class SubscribersSection(Section["subscribers.SubscriberSettings"]):
    """A profile has the keys that differ; a key that it leaves out is as in the usual profile."""

    def read(self, node: Node, path: str, report: Report) -> object:
        value: Any = super().read(node, path, report)
        return value if value is FAULTY else self._fill_all(value, node)

    def _fill_all(self, section: subscribers.SubscriberSettings, node: Node) -> subscribers.SubscriberSettings:
        usual, radius = section.profile, section.radius
        items = _items_of(child_of(node, "nas"))
        nas = tuple(
            replace(each, profile=self._fill(each.profile, usual, item))
            for each, item in zip(section.nas, items, strict=True)
        )
        if radius is not None:
            items = _items_of(child_of(child_of(node, "radius") or node, "clients"))
            clients = tuple(
                each if each.profile is None else replace(each, profile=self._fill(each.profile, usual, item))
                for each, item in zip(radius.clients, items, strict=True)
            )
            radius = replace(radius, clients=clients)
        return replace(section, nas=nas, radius=radius)

    def _fill(
        self, profile: subscribers.ProfileSettings, usual: subscribers.ProfileSettings, item: Node
    ) -> subscribers.ProfileSettings:
        """`profile` as `item` of the list has it; a key that is not there is taken from `usual`."""
        reader = self.keys["profile"].reader
        assert isinstance(reader, Section)
        node = child_of(item, "profile")
        pairs = node.pairs if isinstance(node, MappingNode) else ()
        given = (reader.keys[each.text].field for each, _ in pairs if isinstance(each, ScalarNode))
        return replace(usual, **{name: getattr(profile, name) for name in given})


def _items_of(node: Node | None) -> tuple[Node, ...]:
    return node.items if isinstance(node, ListNode) else ()
