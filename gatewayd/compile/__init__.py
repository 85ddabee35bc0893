"""Registrations → masks → desired sets; policy and masks → nft text. Pure.

Overlapping prefixes live in different sets, so the kernel holds the registry, element for element. No interval
is merged or collapses, and no element has to be put back when a covering prefix goes.

    masks      the addresses and ports of a registration, or of a flow → masks and keys
    near       prefixes that clients lie in: sets for the log of near misses
    keys       the keys of a set, and those missing from it
    desired    all registrations → the desired sets, by reference counts
    element_changes  what changes would come to in elements, without making any
    ruleset    the policy in force at a moment; policy and masks → nft text, and the same to be checked before
               anything is in the kernel
    interfaces which are inside and outside; names that no interface has
    judging    its chains: which packets the policy is about, and by which sets one is registered
    lookups    … of these sets
    endpoints  … and of those that registrations of a destination alone are in
    effects    … what comes of it, and which addresses the canary has
    counting   … and the count of unregistered flows, by client prefix and service
    rule_sets  sets that the rules fill themselves

Review notes: does every element come from a registration? Does every registration give the elements that
`allowlist.match` would say yes to? (tests/property compares them with the kernel's verdict.) Is a bound
reported, never silent? Is the text the same for the same input?
"""

from gatewayd.compile.desired import DesiredSets
from gatewayd.compile.interfaces import Sides, crosses, interface_warnings, unmatched
from gatewayd.compile.masks import (
    ELEMENT_BYTES,
    KERNEL_ELEMENT_BYTES,
    compile_bound,
    compile_elements,
    count_elements,
    count_programmed,
)
from gatewayd.compile.ruleset import compile_ruleset, parse_tag, policy_digest, replace_script

__all__ = [
    "ELEMENT_BYTES",
    "KERNEL_ELEMENT_BYTES",
    "DesiredSets",
    "Sides",
    "compile_bound",
    "compile_elements",
    "compile_ruleset",
    "count_elements",
    "count_programmed",
    "crosses",
    "interface_warnings",
    "parse_tag",
    "policy_digest",
    "replace_script",
    "unmatched",
]
