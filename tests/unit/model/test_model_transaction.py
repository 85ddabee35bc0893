from __future__ import annotations

import pytest

from gatewayd.model.mask import Mask
from gatewayd.model.transaction import (
    AddElements,
    ConntrackSize,
    CreateSet,
    CreateTable,
    DeleteSet,
    ElementOperation,
    Neighbour,
    Operation,
    RefreshElements,
    RemoveElements,
    Transaction,
    describe_operation,
)


def test_the_size_of_a_transaction_is_what_it_adds_refreshes_and_removes() -> None:
    operations = (
        CreateTable(),
        CreateSet("c4_32", Mask(4, 32), 1024),
        AddElements("c4_32", [bytes(4), b"\1\2\3\4"]),
        RemoveElements("c4_24", [bytes(4)]),
        RefreshElements("b4_32", [bytes(4), b"\1\2\3\4", b"\4\3\2\1"]),
        DeleteSet("c4_24"),
    )
    assert Transaction(operations, "a test").count_elements() == 6
    assert Transaction((), "nothing").count_elements() == 0


EACH: dict[str, Operation] = {
    "create table": CreateTable(),
    "create set b4_32": CreateSet("b4_32", Mask(4, 32, source_bits=0), 0, 7200),
    "delete set b4_32": DeleteSet("b4_32"),
    "add elements to b4_32": AddElements("b4_32", [bytes(4)]),
    "refresh elements of b4_32": RefreshElements("b4_32", [bytes(4)]),
    "remove elements from b4_32": RemoveElements("b4_32", [bytes(4)]),
}


@pytest.mark.parametrize("words", EACH)
def test_every_operation_has_its_words(words: str) -> None:
    assert describe_operation(EACH[words]) == words


def test_no_operation_is_left_out_here() -> None:
    assert {type(operation) for operation in EACH.values()} == set(Operation.__args__)
    with_keys = {type(operation) for operation in EACH.values() if isinstance(operation, ElementOperation)}
    assert with_keys == {AddElements, RefreshElements, RemoveElements}


def test_elements_of_a_set_stay_unless_a_timeout_is_stated() -> None:
    assert CreateSet("c4_32", Mask(4, 32), 1024).timeout_s == 0


# Other programs


def test_a_rule_of_another_program_is_named_as_nft_names_it() -> None:
    assert str(Neighbour("writes", "inet", "qos", "forward", 7)) == "inet qos forward handle 7"


@pytest.mark.parametrize(("entries", "most", "fill"), [(50, 200, 0.25), (0, 200, 0.0), (5, 0, 0.0)])
def test_connection_tracking_is_full_by_its_bound_if_it_has_one(entries: int, most: int, fill: float) -> None:
    assert ConntrackSize(entries, most).fill == fill
