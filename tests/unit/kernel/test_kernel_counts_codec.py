"""Elements with counters, as the kernel lists them."""

from __future__ import annotations

import pytest

from gatewayd.errors import EventMalformed
from gatewayd.kernel import attributes as nl
from gatewayd.kernel.counts_codec import decode_counts, decode_table_handle
from gatewayd.model.transaction import Counted


def counter(flows: int, size_bytes: int = 0, name: str = "counter") -> bytes:
    return nl.text(1, name) + nl.nest(2, nl.be64(1, size_bytes), nl.be64(2, flows))


def element(
    key: bytes, flows: int, left_ms: int = 3_600_000, *, expressions: bool = False, timeout: bool = False
) -> bytes:
    """As nf_tables_fill_setelem writes one; each of our sets has the timeout of all, which is not listed."""
    counted = nl.nest(11, nl.nest(1, counter(flows, flows * 60))) if expressions else nl.nest(7, counter(flows))
    extra = (nl.be64(4, 1000),) if timeout else ()
    return nl.nest(1, nl.nest(1, nl.attribute(1, key)), counted, *extra, nl.be64(5, left_ms))


def decode(*elements: bytes) -> list[Counted]:
    body = nl.text(1, "gatewayd") + nl.text(2, "prefix_flows4") + nl.nest(3, *elements)
    return decode_counts(body, 0, len(body))


def test_elements_that_are_laid_out_alike() -> None:
    keys = [bytes((10, 0, number, 0)) + bytes(8) for number in range(5)]
    found = decode(*(element(key, number * 1000, 1000 * number) for number, key in enumerate(keys)))
    assert found == [Counted(key, number * 1000, float(number)) for number, key in enumerate(keys)]


def test_the_bytes_that_a_counter_counts_too_are_no_other_layout() -> None:
    keys = [bytes((10, 0, number, 0)) for number in range(3)]
    found = decode(*(element(key, 1 << (20 * number), expressions=True) for number, key in enumerate(keys)))
    assert [each.flows for each in found] == [1, 1 << 20, 1 << 40]


def test_elements_that_differ_are_read_one_by_one() -> None:
    one, two = bytes((10, 0, 0, 0)), bytes((10, 0, 1, 0))
    expected = [Counted(one, 7, 3600.0), Counted(two, 8, 2.0)]
    assert decode(element(one, 7), element(two, 8, 2000, timeout=True)) == expected
    assert decode(element(one, 7), element(two, 8, 2000, expressions=True)) == expected
    # As long as the other, and yet not laid out like it.
    strange = nl.nest(1, nl.nest(1, nl.attribute(1, two)), nl.be64(5, 2000), nl.nest(7, counter(8)))
    assert len(strange) == len(element(one, 7))
    assert decode(element(one, 7), strange) == expected


@pytest.mark.parametrize(
    "content",
    [
        (),
        (nl.be64(5, 1000),),
        (nl.nest(7, counter(1)),),
        (nl.nest(7, counter(1, name="quota")), nl.be64(5, 1000)),
        (nl.nest(7, nl.text(1, "counter")), nl.be64(5, 1000)),
        (nl.nest(7, nl.nest(2, nl.be64(2, 1))), nl.be64(5, 1000)),
        (nl.nest(7, nl.text(1, "counter") + nl.nest(2, nl.be64(1, 1))), nl.be64(5, 1000)),
        (nl.nest(7, nl.text(1, "counter") + nl.nest(2, nl.be32(2, 1))), nl.be64(5, 1000)),
        (nl.nest(7, counter(1)), nl.be32(5, 1000)),
        (nl.nest(11, nl.nest(3, counter(1))), nl.be64(5, 1000)),
    ],
)
def test_what_has_no_counter_or_no_end_is_left_out(content: tuple[bytes, ...]) -> None:
    key = nl.nest(1, nl.attribute(1, bytes(4)))
    assert decode(nl.nest(1, key, *content), element(bytes((1, 0, 0, 0)), 3)) == [
        Counted(bytes((1, 0, 0, 0)), 3, 3600.0)
    ]


def test_an_element_without_a_key_is_malformed() -> None:
    with pytest.raises(EventMalformed, match="no key"):
        decode(nl.nest(1, nl.nest(7, counter(1)), nl.be64(5, 1000)))


def test_an_empty_list_has_no_elements() -> None:
    assert decode() == []
    assert decode_counts(b"", 0, 0) == []
    with pytest.raises(EventMalformed):
        decode(b"\1\0\1\0")


def test_a_table_has_a_handle() -> None:
    body = nl.text(1, "gatewayd") + nl.be64(4, 77)
    assert decode_table_handle(body, 0, len(body)) == 77
    assert decode_table_handle(b"", 0, 0) == 0


@pytest.mark.parametrize("size", range(4))
def test_a_list_that_is_shorter_than_a_header_has_no_element(size: int) -> None:
    body = nl.attribute(3, bytes(size))
    assert decode_counts(body, 0, len(body)) == []
