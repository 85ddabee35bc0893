from __future__ import annotations

import ipaddress
import json
import socket
from collections import Counter
from random import Random

import pytest

from gatewayd.compile.effects import CANARY_SEED, canary_bucket, jhash, judge_canary
from gatewayd.model import Flow, parse_address
from gatewayd.model.policy import MarkLayout, Policy
from tests.support.planes import fresh_namespace, run_nft

# Measured on Linux 6.18 with nft 1.0.6: `meta mark set jhash ip saddr mod M seed 0x67617465` on a real packet of
# each source, of IPv6 `jhash @nh,64,64`; M = 100 and M = 2^32 − 1. The second, scaled as the kernel does, is the
# whole hash less one.
FROM_THE_KERNEL = [
    ("203.0.113.9", 36, 1585096972),
    ("39.32.0.1", 44, 1891979098),
    ("10.0.0.1", 45, 1966939205),
    ("100.64.0.1", 52, 2249173966),
    ("255.255.255.254", 66, 2855296324),
    ("192.0.2.128", 87, 3748726153),
    ("fd00::ffff", 94, 4041460209),
    ("2001:db8::1", 73, 3154003784),
    ("2407:d000:ffff:fffe:fdfc:fbfa:f9f8:f7f6", 69, 2980795455),
    ("2001:db8:12:34::56", 78, 3356738617),
    ("2400:adc0:1:2:3:4:5:6", 66, 2853279401),
    ("::1:2:3:4", 90, 3868057180),
]
EXPERIMENTAL = 253
"""A protocol that nothing answers (RFC 3692)."""


@pytest.mark.parametrize(("address", "bucket", "hash_less_one"), FROM_THE_KERNEL)
def test_the_bucket_is_the_one_the_kernel_computes(address: str, bucket: int, hash_less_one: int) -> None:
    assert canary_bucket(parse_address(address)) == bucket
    packed = parse_address(address)
    assert jhash(packed if len(packed) == 4 else packed[:8], CANARY_SEED) == hash_less_one + 1


def test_all_of_a_64_is_in_the_canary_or_beyond_it() -> None:
    random = Random(3)
    line = parse_address("2001:db8:12:34::")[:8]
    assert {canary_bucket(line + random.randbytes(8)) for _ in range(200)} == {78}
    assert canary_bucket(parse_address("2001:db8:12:35::56")) != 78


IN, OUT, ALSO_OUT = "203.0.113.9", "192.0.2.128", "255.255.255.254"
"""Of a canary of 50 %, by the table."""


@pytest.mark.parametrize(
    ("source", "destination", "unnamed", "named"),
    [
        (IN, IN, "in", "in"),
        (OUT, ALSO_OUT, "out", "out"),
        (IN, OUT, "in", "source"),
        (OUT, IN, "out", "destination"),
    ],
)
def test_a_canary_is_of_the_end_inside_where_the_rules_can_tell_it(
    source: str, destination: str, unnamed: str, named: str
) -> None:
    flow = Flow(50, parse_address(source), parse_address(destination))

    def judged(percent: int, inside: tuple[str, ...], outside: tuple[str, ...] = ()) -> str | None:
        layout = MarkLayout(0xFF000000)
        return judge_canary(
            Policy("reject", (), layout, inside=inside, outside=outside, canary_percent=percent), flow
        )

    assert judged(50, ()) == unnamed
    assert judged(50, ("ppp*",)) == named
    assert judged(50, (), ("eth0",)) == named
    assert judged(50, ("ppp*",), ("ppp0",)) == unnamed
    assert judged(100, ("ppp*",)) is None


# lib/test_hash.c has no vectors for jhash; these are lookup3.c's own for hashlittle (driver5), whose seeds and
# lengths initialise the state as jhash does.
@pytest.mark.parametrize(
    ("raw", "seed", "expected"),
    [
        (b"Four score and seven years ago", 0, 0x17770551),
        (b"Four score and seven years ago", 1, 0xCD628161),
    ],
)
def test_longer_keys_hash_as_lookup3_says(raw: bytes, seed: int, expected: int) -> None:
    assert jhash(raw, seed) == expected


def test_buckets_are_0_to_99_and_about_as_full_as_each_other() -> None:
    random = Random(1)
    buckets = Counter(canary_bucket(random.randbytes(random.choice((4, 16)))) for _ in range(20000))
    assert set(buckets) == set(range(100))
    assert max(buckets.values()) < 2 * min(buckets.values())


def rules() -> str:
    """Every packet's source and bucket, kept in a set."""
    chain = "".join(
        f"\t\tmeta nfproto {proto} meta mark set jhash {hashed} mod 100 seed {CANARY_SEED} "
        f"update @seen{word} {{ {word} saddr . meta mark }}\n"
        for proto, word, hashed in (("ipv4", "ip", "ip saddr"), ("ipv6", "ip6", "@nh,64,64"))
    )
    sets = "".join(
        f"\tset seen{word} {{\n\t\ttypeof {word} saddr . meta mark\n\t\tsize 65535\n\t\tflags dynamic\n\t}}\n"
        for word in ("ip", "ip6")
    )
    return f"table inet canary {{\n{sets}\tchain out {{\n\t\ttype filter hook output priority 0\n{chain}\t}}\n}}\n"


@pytest.mark.kernel
def test_this_kernel_agrees_on_hundreds_of_addresses() -> None:
    random = Random(2)
    addresses = [
        *(bytes((random.choice((10, 39, 100, 203)), *random.randbytes(3))) for _ in range(200)),
        *(b"\x20\x01\x0d\xb8" + random.randbytes(12) for _ in range(200)),
    ]
    with fresh_namespace() as namespace:
        run_nft(namespace, rules())
        with (
            namespace.entered(),
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as ipv4,
            socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as ipv6,
        ):
            for address in addresses:
                if len(address) == 4:
                    head = bytes((0x45, 0, 0, 20, 0, 0, 0, 0, 64, EXPERIMENTAL, 0, 0))
                    ipv4.sendto(head + address + parse_address("127.0.0.1"), ("127.0.0.1", 0))
                else:
                    head = bytes((0x60, 0, 0, 0, 0, 0, EXPERIMENTAL, 64))
                    ipv6.sendto(head + address + parse_address("::1"), ("::1", 0))
        seen: dict[bytes, int] = {}
        for word in ("ip", "ip6"):
            listed = json.loads(namespace.run(["nft", "-j", "list", "set", "inet", "canary", f"seen{word}"]).stdout)
            for element in listed["nftables"][-1]["set"]["elem"]:
                address_text, bucket = element["concat"]
                seen[ipaddress.ip_address(address_text).packed] = bucket
    assert {address: canary_bucket(address) for address in addresses}.items() <= seen.items()
