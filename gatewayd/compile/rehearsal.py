"""Rules for `nft -c`, before anything is in the kernel: with the sets that they look into declared as text.

The daemon makes those sets over netlink. Here they stand in the script, in a table of another name where ours is
there already: nothing of it is kept, and nothing of ours is touched.
"""

from __future__ import annotations

import re

from gatewayd.model.mask import ANY_PEER, Mask, parse_set_name

_REFERENCE = re.compile(r"@(\w+)")
OTHER_TABLE = "gatewayd_rehearsal"


def rehearsal_script(text: str, table: str, *, is_present: bool) -> str:
    """The `text` of a ruleset for `table`, such that nft and the kernel can judge it by itself.

    `is_present`: the table is in the kernel; another name is used.
    """
    name = OTHER_TABLE if is_present else table
    text = text.replace(f"table inet {table} {{", f"table inet {name} {{")
    text = text.replace(f"flush set inet {table} ", f"flush set inet {name} ")
    lines = [f"add table inet {name}"]
    for set_name in sorted(set(_REFERENCE.findall(text))):
        parsed = parse_set_name(set_name)
        if parsed is not None:
            lines.append(f"add set inet {name} {set_name} {{ type {key_type(parsed[0])}; }}")
    return "\n".join([*lines, text])


def key_type(mask: Mask) -> str:
    """A set's key in nft's words: `ipv4_addr . inet_proto . inet_service`."""
    address = "ipv4_addr" if mask.family == 4 else "ipv6_addr"
    parts = [address] if mask.peer_length == ANY_PEER else [address, address]
    ports = (mask.port_length > 0) + (mask.source_bits > 0)
    return " . ".join(parts + ["inet_proto"] * mask.has_protocol + ["inet_service"] * ports)
