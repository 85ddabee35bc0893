"""Requests for single elements, and the look-ups of rules, as bytes."""

from __future__ import annotations

from gatewayd.kernel import attributes as nl
from gatewayd.kernel import tables_codec as codec
from gatewayd.kernel.passage_codec import decode_looked_up, encode_get_element


def test_a_request_names_one_element_and_wants_no_acknowledgement() -> None:
    key = bytes((10, 0, 0, 1))
    request = encode_get_element("gatewayd", "c4_32", key, 7)
    ((kind, flags, sequence, start, end),) = nl.iter_messages(request)
    assert (kind, flags, sequence) == (codec.GETSETELEM, nl.NLM_F_REQUEST, 7)
    fields = nl.attributes_of(request, start + 4, end)
    assert (nl.string_of(fields[1]), nl.string_of(fields[2])) == ("gatewayd", "c4_32")
    assert codec.decode_elements(request, start + 4, end) == [key]


def rule(*expressions: tuple[str, bytes]) -> bytes:
    nested = [
        nl.nest(1, nl.text(1, name), *([nl.attribute(2 | nl.NLA_F_NESTED, content)] if content else []))
        for name, content in expressions
    ]
    return nl.text(1, "gatewayd") + nl.nest(4, *nested)


def test_the_sets_that_a_rule_looks_into() -> None:
    found = rule(("payload", b""), ("lookup", nl.text(1, "c4_32")), ("lookup", nl.text(1, "__set1")))
    assert decode_looked_up(found, 0, len(found)) == {"c4_32", "__set1"}
    for without in (rule(("payload", b"")), rule(("immediate", b"lookup\0\0")), b""):
        assert decode_looked_up(without, 0, len(without)) == set()
    assert decode_looked_up(rule(("lookup", b"")), 0, len(rule(("lookup", b"")))) == {""}
