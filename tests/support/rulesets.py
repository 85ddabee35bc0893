"""Compiled rulesets taken apart, and policies to compile."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from gatewayd.compile import compile_ruleset
from gatewayd.model import parse_services
from gatewayd.model.mask import ANY_PEER, Mask, set_name
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.model.service import BUNDLES

LAYOUT = MarkLayout(0xFF000000)
OBSERVE = Policy("observe", parse_services(["ipsec", "wireguard"]), LAYOUT)
REJECT = replace(OBSERVE, mode="reject")
LENGTHS: tuple[tuple[Literal[4, 6], int], ...] = ((4, 29), (4, 32), (6, 48), (6, 128))
HOOKS = {mask: set_name(mask, 0) for mask in (Mask(4, 29), Mask(4, 32, 24, "ipsec"), Mask(6, 48))}


def chains_of(policy: Policy, hooks: Mapping[Mask, str] | None = None, epoch: int = 1) -> dict[str, list[str]]:
    """The lines of each chain, declarations of hooks included."""
    return chains_in(compile_ruleset("gatewayd", policy, HOOKS if hooks is None else hooks, epoch).text)


def chains_in(text: str) -> dict[str, list[str]]:
    """As `chains_of`, of a ruleset's text."""
    found = re.findall(r"^\tchain (\w+) \{\n(.*?)^\t\}$", text, re.M | re.S)
    assert len(found) == len(dict(found)), "a chain is declared twice"
    return {name: [line.strip() for line in body.splitlines()] for name, body in found}


def every_mask() -> list[Mask]:
    selectors = ("", *BUNDLES, "proto", "port1", "port9", "port16")
    return [
        Mask(family, length, peer, selector)
        for family, length in LENGTHS
        for peer in (ANY_PEER, length, 24)
        for selector in selectors
    ]


def every_bound_mask() -> list[Mask]:
    return [replace_source(mask, bits) for mask in every_mask() for bits in (0, 1, 9, 16)]


def replace_source(mask: Mask, bits: int) -> Mask:
    return Mask(mask.family, mask.client_length, mask.peer_length, mask.selector, bits)
