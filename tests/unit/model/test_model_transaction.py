from __future__ import annotations

from gatewayd.model.mask import Mask
from gatewayd.model.transaction import (
    AddElements,
    CreateSet,
    CreateTable,
    DeleteSet,
    RemoveElements,
    Transaction,
)


def test_the_size_of_a_transaction_is_what_it_adds_and_removes() -> None:
    operations = (
        CreateTable(),
        CreateSet("c4_32", Mask(4, 32), 1024),
        AddElements("c4_32", [bytes(4), b"\1\2\3\4"]),
        RemoveElements("c4_24", [bytes(4)]),
        DeleteSet("c4_24"),
    )
    assert Transaction(operations, "a test").count_elements() == 3
    assert Transaction((), "nothing").count_elements() == 0
