"""The text of one scalar → a value. Every parser raises ValueError that says what is wrong with the text.

The message completes the sentence "'TEXT' …"; what would have been right is the reader's to say.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from gatewayd.errors import PrefixInvalid, ServiceInvalid
from gatewayd.model import Prefix, format_address, parse_address, parse_prefix, parse_service
from gatewayd.model.msisdn import is_country_code

DURATION_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
SIZE_UNITS = {
    "": 1,
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}
RATE_UNITS = {
    "byte": 1.0, "kbyte": 1024.0, "mbyte": 1024.0**2, "gbyte": 1024.0**3,
    "bit": 1 / 8, "kbit": 1000 / 8, "mbit": 1000**2 / 8, "gbit": 1000**3 / 8,
}  # fmt: skip
"""Bytes by powers of 1024, as nft counts them; bits by powers of 1000, as lines are sold."""

MAX_RATE = 1 << 40
"""Bytes per second; more is a slip of the pen."""

DSCP_NAMES = {
    "be": 0, "df": 0, "le": 1, "va": 44, "ef": 46,
    **{f"cs{n}": n * 8 for n in range(8)},
    **{f"af{c}{d}": c * 8 + d * 2 for c in range(1, 5) for d in range(1, 4)},
}  # fmt: skip
"""RFC 2474 (cs, df), RFC 2597 (af), RFC 3246 (ef), RFC 5865 (va), RFC 8622 (le)."""

_NFT_KEYWORDS = """
    accept add ah all and arp auto-merge bridge cgroup chain comment comp constant continue counter cpu
    create ct day dccp define delete describe destroy device devices dnat drop dst dup dynamic ecn
    element elements eq esp ether exists expires export exthdr fib flags flow flowtable flush frag fwd
    gc-interval ge get goto gt handle hbh hook hour ibriport ibrname icmp icmpv6 igmp iif iifgroup
    iifname iiftype import include index inet insert interval ip ip6 ipsec jhash jump last le limit list
    log lt map mark masquerade meta meter mh missing monitor ne netdev nftrace not notrack numgen
    obriport obrname offload oif oifgroup oifname oiftype or osf pkttype policy position priority queue
    quota random redefine redirect reject rename replace reset return rt rt0 rt2 rtclassid rule ruleset
    sctp secmark set size skgid skuid snat socket srh symhash synproxy table tcp th time timeout tproxy
    tunnel type typeof udp udplite undefine update vlan vmap xor xt
"""
NFT_KEYWORDS = frozenset(_NFT_KEYWORDS.split())
"""Words that nft 1.0.6, or a later one, refuses as a table's name (src/scanner.l)."""

MAX_NAS_NAME_BYTES = 253
"""RFC 2865 §5: what an attribute has room for."""

_IPV4_IN_IPV6 = bytes(10) + b"\xff\xff"
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_AMOUNT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]"
    r"([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?) ?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123 §2.1
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_INTERFACE = re.compile(r"[A-Za-z0-9._@+-]+\*?|[*]")
_URL_UNSAFE = re.compile(r"[^\x21-\x7e]")


class ListenAddress(NamedTuple):
    """`host`: an IP address, IPv6 without brackets. `port` 0: the kernel chooses one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A rate of bytes; k, m, g are powers of 1024 as in nft (src/datatype.c: data_unit_parse)."""

    bytes_per_second: int


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


def _amount(text: str, units: Collection[str]) -> tuple[float, str]:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError("is not a number with a unit")
    number, unit = match.groups()
    if unit not in units:
        raise ValueError(f"has the unknown unit {unit[:16]}" if unit else "has no unit")
    return float(number), unit


def parse_number(text: str, low: int, high: int) -> int:
    """A decimal whole number; no leading zeros, which YAML 1.1 reads as octal."""
    if not _NUMBER.fullmatch(text):
        raise ValueError("is not a whole number")
    number = int(text)
    if not low <= number <= high:
        raise ValueError("is out of range")
    return number


def parse_switch(text: str) -> bool:
    if text in ("true", "yes", "on"):
        return True
    if text in ("false", "no", "off"):
        return False
    raise ValueError("is neither true nor false")


def parse_word(text: str, words: Collection[str]) -> str:
    if text not in words:
        raise ValueError("is not known")
    return text


def parse_duration(text: str, low_s: float, high_s: float) -> float:
    """Seconds, from `60s`, `1.5h`; a bare `0` needs no unit."""
    amount, unit = (0.0, "s") if text == "0" else _amount(text, DURATION_UNITS_S)
    duration_s = amount * DURATION_UNITS_S[unit]
    if not low_s <= duration_s <= high_s:
        raise ValueError("is out of range")
    return duration_s


def parse_duration_or_never(text: str, low_s: float, high_s: float) -> float:
    """As `parse_duration`; `never` is inf."""
    return inf if text == "never" else parse_duration(text, low_s, high_s)


def parse_size(text: str, low: int, high: int) -> int:
    """Bytes, from `512MiB`, `1GB` or a number of bytes."""
    amount, unit = _amount(text, SIZE_UNITS)
    size_bytes = int(amount * SIZE_UNITS[unit])
    if not low <= size_bytes <= high:
        raise ValueError("is out of range")
    return size_bytes


def parse_rate(text: str) -> RateLimit:
    """From `64kbyte/s`, `2mbit/s`; also `kbytes/second`, as nft prints it."""
    rate, slash, per = text.partition("/")
    if not slash or per not in ("s", "second"):
        raise ValueError("is not a rate per second")
    amount, unit = _amount(rate, {*RATE_UNITS, *(f"{unit}s" for unit in RATE_UNITS)})
    bytes_per_second = int(amount * RATE_UNITS[unit.removesuffix("s")])
    if not 1 <= bytes_per_second <= MAX_RATE:
        raise ValueError("is out of range")
    return RateLimit(bytes_per_second)


def parse_percent(text: str) -> int:
    """A whole percentage 0..100."""
    if not text.endswith("%"):
        raise ValueError("has no % sign")
    return parse_number(text[:-1].rstrip(), 0, 100)


def parse_removal_limit(text: str) -> RemovalLimit:
    """`5%`, `0.5%` or a count."""
    if not text.endswith("%"):
        return RemovalLimit(count=parse_number(text, 0, 10**9))
    match = _AMOUNT.fullmatch(text[:-1].rstrip())
    if match is None or match[2]:
        raise ValueError("is not a percentage")
    if float(match[1]) > 100:
        raise ValueError("is out of range")
    return RemovalLimit(fraction=float(match[1]) / 100)


def parse_time(text: str) -> float:
    """Unix seconds of an RFC 3339 time; without an offset it would mean another moment on another host."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("is not a date and time")
    if match[3] is None:
        raise ValueError("has no offset from UTC")
    try:
        return datetime.fromisoformat(f"{match[1]}T{match[2]}{match[3].upper()}").timestamp()
    except ValueError:
        raise ValueError("is not a date and time of the calendar") from None


def parse_hex_or_number(text: str) -> int:
    """32 bits, in hexadecimal with 0x or in decimal."""
    if re.fullmatch(r"0[xX][0-9A-Fa-f]{1,8}", text):
        return int(text, 16)
    return parse_number(text, 0, 0xFFFFFFFF)


def parse_ct_mark_mask(text: str) -> int:
    """A run of 4..32 neighbouring bits."""
    mask = parse_hex_or_number(text)
    run = mask >> ((mask & -mask).bit_length() - 1) if mask else 0
    if run & (run + 1):
        raise ValueError("has a gap between its bits")
    if run.bit_length() < 4:
        raise ValueError("has fewer than 4 bits")
    return mask


def parse_dscp(text: str) -> int:
    """A code point by name or number (not the whole TOS byte)."""
    known = DSCP_NAMES.get(text.lower())
    return parse_number(text, 0, 63) if known is None else known


def parse_host_name(text: str) -> str:
    if not _HOST_NAME.fullmatch(text):
        raise ValueError("is no host name")
    return text.lower()


def parse_listen_address(text: str) -> ListenAddress:
    """`127.0.0.1:9480`, `[::1]:9480`; names are not resolved."""
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ValueError("has no port")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.IPv6Address(host[1:-1]) if bracketed else ipaddress.IPv4Address(host)
    except ValueError:
        hint = "; IPv6 goes in brackets" if ":" in host and not bracketed else ""
        raise ValueError(f"does not begin with an IP address{hint}") from None
    try:
        return ListenAddress(str(address), parse_number(port_text, 0, 65535))
    except ValueError:
        raise ValueError("does not end with a port") from None


def parse_client_prefix(text: str) -> Prefix:
    """Of senders of RADIUS. IPv4 inside IPv6 (::ffff:0:0/96) is refused: such senders are taken as IPv4."""
    try:
        prefix = parse_prefix(text)
    except PrefixInvalid as error:
        raise ValueError(f"is not a prefix: {error.why}") from None
    if prefix.packed.startswith(_IPV4_IN_IPV6):
        raise ValueError(f"is IPv4, to be written {Prefix(prefix.packed[12:], prefix.length - 96)}")
    return prefix


def parse_nas_name(text: str) -> str:
    """What a NAS calls itself, to the letter. An address is written as we write it, or it would never be met."""
    if not text or not text.isprintable():
        raise ValueError("is empty" if not text else "has characters that cannot be printed")
    if len(text.encode()) > MAX_NAS_NAME_BYTES:
        raise ValueError(f"is longer than {MAX_NAS_NAME_BYTES} bytes")
    try:
        usual = format_address(parse_address(text))
    except PrefixInvalid:
        return text
    if text != usual:
        raise ValueError(f"is an address that is written {usual} here")
    return text


def parse_country_code(text: str) -> str:
    """E.164 §6.2.1."""
    if not is_country_code(text):
        raise ValueError("is not a country code: one to three digits, the first not 0")
    return text


def parse_service_word(text: str) -> str:
    """The word itself, once it is known to name a service or bundle."""
    try:
        parse_service(text)
    except ServiceInvalid as error:
        raise ValueError(f"is not a service: {error.why}") from None
    return text


def parse_interface(text: str) -> str:
    """An interface's name (net/core/dev.c: dev_valid_name), or the beginning of one and `*`."""
    if not _INTERFACE.fullmatch(text) or text in (".", ".."):
        raise ValueError("is not a name of a network interface")
    if text == "*":
        raise ValueError("means every interface")
    if text.endswith("+"):
        raise ValueError(f"is iptables' way to say {text[:-1]}*; nft takes it for a whole name")
    if len(text.removesuffix("*")) > 15:
        raise ValueError("is longer than 15 bytes")
    return text


def parse_table_name(text: str) -> str:
    """An nft identifier that is no keyword of nft."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", text):
        raise ValueError("is not an nft identifier")
    if text in NFT_KEYWORDS:
        raise ValueError("is a keyword of nft")
    return text


def parse_name(text: str) -> str:
    """A word that can be a metric's label and a file's name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise ValueError("is not a name")
    return text


def parse_category(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", text):
        raise ValueError("is not a lower-case word of at most 32 characters")
    return text


def parse_path(text: str, longest_bytes: int = 4095) -> str:
    """An absolute path; it need not exist. PATH_MAX counts the NUL."""
    if not text.startswith("/"):
        raise ValueError("is not an absolute path")
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    if len(text.encode()) > longest_bytes:
        raise ValueError(f"is longer than {longest_bytes} bytes")
    return text


def parse_source_url(text: str) -> str:
    """A `file:`, `http:` or `https:` URL, as it stands."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    check = _SCHEME_CHECKS.get(parts.scheme)
    if check is None:
        is_scheme = parts.scheme and ("//" in text or "@" not in text)  # else it may be a user's name
        raise ValueError(f"has the unknown scheme {parts.scheme[:16]}:" if is_scheme else "has no scheme")
    check(text, parts, port)
    return text


def parse_proxy_url(text: str) -> str:
    """An `http:` or `https:` URL of a proxy, as it stands."""
    if not text.startswith(("http://", "https://")):
        raise ValueError("is not an http: or https: URL")
    parse_source_url(text)
    parts = urlsplit(text)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("has more than a host and a port")
    return text


def _check_file_url(text: str, parts: SplitResult, _port: int | None) -> None:
    if parts.netloc:
        raise ValueError("names a host")
    if parts.query or parts.fragment:
        raise ValueError("has a ? or #, which in a path are %3F and %23")
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    if not parts.path.startswith("/"):
        raise ValueError("does not have an absolute path")
    if parts.path.endswith("/"):
        raise ValueError("names a directory")


def _check_web_url(text: str, parts: SplitResult, port: int | None) -> None:
    if _URL_UNSAFE.search(text):
        raise ValueError("has spaces or characters outside ASCII, which in a URL are percent-encoded")
    if not parts.hostname or port == 0:
        raise ValueError("has no host" if not parts.hostname else "has the port 0")
    if parts.username is not None:
        raise ValueError("carries credentials, which would end up in logs")


_SCHEME_CHECKS: dict[str, Callable[[str, SplitResult, int | None], None]] = {
    "file": _check_file_url,
    "http": _check_web_url,
    "https": _check_web_url,
}
