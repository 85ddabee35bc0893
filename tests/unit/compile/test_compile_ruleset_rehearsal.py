"""Rules for `nft -c`: the script has all that the kernel would have."""

from __future__ import annotations

import pytest

from gatewayd.compile.ruleset import OTHER_TABLE, compile_ruleset, key_type, rehearsal_script
from gatewayd.model.mask import Mask
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.model.service import UDP, Service

LIMIT = Policy("limit", (Service(UDP, 500, 500),), MarkLayout(0xFF000000), limit_bytes_s=1000)
HOOKS = {Mask(4, 29): "c4_29_g2", Mask(6, 48, 64, "port16"): "c6_48_p64_port16"}


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (Mask(4, 29), "ipv4_addr"),
        (Mask(6, 48, 64), "ipv6_addr . ipv6_addr"),
        (Mask(4, 32, selector="proto"), "ipv4_addr . inet_proto"),
        (Mask(4, 32, selector="port7"), "ipv4_addr . inet_proto . inet_service"),
        (Mask(4, 32, 24, "port16", 6), "ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service"),
        (Mask(6, 64, selector="ipsec", source_bits=3), "ipv6_addr . inet_service"),
        (Mask(6, 64, source_bits=0), "ipv6_addr"),
    ],
)
def test_a_key_is_said_in_nfts_words(mask: Mask, words: str) -> None:
    assert key_type(mask) == words


@pytest.mark.parametrize("is_present", [False, True])
def test_every_set_is_declared_before_the_rules_in_a_table_that_is_not_in_the_kernel(is_present: bool) -> None:
    text = compile_ruleset("gatewayd", LIMIT, HOOKS, 1).text
    name = OTHER_TABLE if is_present else "gatewayd"
    first, *declared, rest = rehearsal_script(text, "gatewayd", is_present=is_present).split("\n", 3)
    assert first == f"add table inet {name}"
    assert declared == [
        f"add set inet {name} c4_29_g2 {{ type ipv4_addr; }}",
        f"add set inet {name} c6_48_p64_port16 {{ type ipv6_addr . ipv6_addr . inet_proto . inet_service; }}",
    ]
    assert rest.startswith(f"table inet {name} {{\n")
    assert f"flush set inet {name} limiter4\n" in rest
    assert is_present is ("inet gatewayd " not in rest)
