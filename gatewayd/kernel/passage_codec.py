"""Bytes ↔ single elements asked for, and the sets that rules look into.

include/uapi/linux/netfilter/nf_tables.h: nft_expr_attributes, nft_lookup_attributes.
"""

from __future__ import annotations

from gatewayd.kernel import attributes as nl
from gatewayd.kernel.tables_codec import GETSETELEM, NFPROTO_INET, encode_elements

_LIST_TABLE, _LIST_SET = 1, 2
_RULE_EXPRESSIONS, _EXPRESSION_NAME, _EXPRESSION_DATA, _LOOKUP_SET = 4, 1, 2, 1
_LOOKUP = b"lookup\0"


def encode_get_element(table: str, set_name: str, key: bytes, sequence: int) -> bytes:
    """A request for one element by its key; answered with it or, by errno, with ENOENT: no element, set or table.
    Where several are in one request the first that is absent ends it."""
    (elements,) = encode_elements((key,))
    names = nl.text(_LIST_TABLE, table), nl.text(_LIST_SET, set_name)
    return nl.message(GETSETELEM, nl.NLM_F_REQUEST, sequence, NFPROTO_INET, 0, *names, elements)


def decode_looked_up(buffer: bytes, start: int, end: int) -> set[str]:
    """Names of the sets that a listed rule looks into; the anonymous ones of it too."""
    found: set[str] = set()
    if buffer.find(_LOOKUP, start, end) < 0:
        return found
    expressions = nl.attributes_of(buffer, start, end).get(_RULE_EXPRESSIONS, b"")
    for _, low, high in nl.iter_attributes(expressions, 0, len(expressions)):
        fields = nl.attributes_of(expressions, low, high)
        if fields.get(_EXPRESSION_NAME) == _LOOKUP:
            content = fields.get(_EXPRESSION_DATA, b"")
            found.add(nl.string_of(nl.attributes_of(content, 0, len(content)).get(_LOOKUP_SET, b"")))
    return found
