"""The document without yaml."""

from __future__ import annotations

from gatewayd.settings.tree import ListNode, MappingNode, Place, ScalarNode, child_of, describe_node

HERE = Place(1, 1)
ONE, TWO = ScalarNode(HERE, "1"), ScalarNode(HERE, "2")


def test_a_child_is_the_first_value_under_its_key() -> None:
    key = ScalarNode(HERE, "a")
    mapping = MappingNode(HERE, ((ListNode(HERE, ()), TWO), (ScalarNode(HERE, "b"), TWO), (key, ONE), (key, TWO)))
    assert child_of(mapping, "a") is ONE
    assert child_of(mapping, "c") is None
    assert child_of(ONE, "a") is None


def test_every_kind_of_node_has_its_words() -> None:
    nodes = (ScalarNode(HERE, "", is_null=True), ONE, ListNode(HERE, ()), MappingNode(HERE))
    assert [describe_node(node) for node in nodes] == [
        "is empty", "is a single value", "is a list", "is a mapping",
    ]  # fmt: skip
