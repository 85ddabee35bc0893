"""The parts that a schema is made of, by themselves."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gatewayd.settings.readers import (
    FAULTY,
    Check,
    Found,
    Key,
    ListNode,
    ListOf,
    MappingNode,
    OrNull,
    PairsOf,
    Place,
    Reader,
    Report,
    ScalarNode,
    Section,
    Value,
    Written,
    child_of,
    describe_node,
    join_path,
    keep_private,
    node_of,
    quote,
    quote_url,
)


@dataclass(frozen=True, slots=True)
class Parcel:
    weight_g: int | None


PARCEL = Section(Parcel, {"weight": Key("weight_g", OrNull(Value("a weight", int)))})


def test_a_required_key_that_may_be_null_must_still_be_there() -> None:
    report = Report()
    assert PARCEL.read(MappingNode(Place(3, 4)), "parcel", report) is FAULTY
    assert report.lines("f") == ("f:3:4: parcel.weight: is missing, expected a weight",)


def test_a_required_key_that_may_be_null_is_none_when_it_is() -> None:
    report = Report()
    pair = (ScalarNode(Place(1, 1), "weight"), ScalarNode(Place(1, 9), "", is_null=True))
    assert PARCEL.read(MappingNode(Place(1, 1), (pair,)), "", report) == Parcel(None)
    assert report.lines("f") == ()


def test_a_fault_across_keys_is_told_of_the_section_when_the_key_is_not_in_the_file() -> None:
    report = Report()
    Found(MappingNode(Place(5, 6)), "parcel", report).add("size.width_mm", "is missing")
    assert report.lines("f") == ("f:5:6: parcel.size.width_mm: is missing",)


def test_a_quote_is_bounded_printable_and_without_credentials() -> None:
    assert quote("x" * 100) == repr("x" * 57 + "...")
    assert quote("\ud800\n") == r"'\ud800\n'"
    assert quote("htps://joe:secret@x/") == "'htps://***@x/'"
    assert quote("https://joe:se/c@ret@x/feed?token=secret\n#s") == "'https://***@x/feed?***'"
    assert quote("https://x/feed#secret") == "'https://x/feed#***'"
    assert quote("what? joe@x") == "'what? joe@x'"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://joe:secret@x/feed?token=secret", "'https://***@x/feed?***'"),
        ("joe:secret@x/feed?token=secret", "'***@x/feed?***'"),
        ("//joe:secret@x", "'//***@x'"),
        ("x/feed?token=secret", "'x/feed?***'"),
        ("ftp:x", "'ftp:x'"),
    ],
)
def test_a_url_is_quoted_without_its_secrets_even_if_it_is_none(text: str, shown: str) -> None:
    assert quote_url(text) == shown


def test_a_private_value_is_not_repeated_in_its_fault() -> None:
    report = Report()
    value = Value("a digest", int, keep_private)
    assert value.read(ScalarNode(Place(1, 2), "+92 300"), "subscriber", report) is FAULTY
    (line,) = report.lines("f")
    assert line.startswith("f:1:2: subscriber: this value ")


def test_a_key_that_is_no_word_is_quoted_in_its_path() -> None:
    assert join_path("policy", "mode") == "policy.mode"
    assert join_path("", "a b") == "'a b'"
    assert join_path("policy", "+923001234567") == "policy.(a key that is not repeated)"


def test_the_same_fault_of_an_anchor_and_its_alias_is_told_once() -> None:
    report = Report()
    report.add(Place(2, 1), "b", "is wrong")
    report.add(Place(1, 1), "", "is wrong")
    report.add(Place(2, 1), "b", "is wrong")
    assert report.lines("f") == ("f:1:1: (file): is wrong", "f:2:1: b: is wrong")


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


# -- the readers, each with its faults ---------------------------------------------------------------------------

NUMBERS = ListOf(Value("a number", int), "a list of numbers", at_least=1)
PARCELS = ListOf(PARCEL, "a list of parcels", unique_by="weight_g")
LIMITS = PairsOf(Value("a word", str.lower), Value("a number", int), lambda *pair: pair, "a mapping of limits")


def read(reader: Reader, written: Written) -> tuple[object, tuple[str, ...]]:
    report = Report()
    return reader.read(node_of(written), "at", report), report.lines("f")


@pytest.mark.parametrize(
    ("reader", "written", "value"),
    [
        (NUMBERS, ["1", "2"], (1, 2)),
        (PARCELS, [{"weight": "1"}, {"weight": None}], (Parcel(1), Parcel(None))),
        (LIMITS, {"Bank": "0"}, (("bank", 0),)),
        (OrNull(NUMBERS), None, None),
        (Section(Parcel, {"weight": Key("weight_g", PARCEL)}), None, FAULTY),
    ],
)
def test_a_value_is_read(reader: Reader, written: Written, value: object) -> None:
    assert read(reader, written)[0] == value


@pytest.mark.parametrize(
    ("reader", "written", "fault"),
    [
        (NUMBERS, "1", "f:1:1: at: is a single value, expected a list of numbers"),
        (NUMBERS, [], "f:1:1: at: is an empty list, expected a list of numbers"),
        (NUMBERS, ["1", "1"], "f:1:1: at[1]: '1' is given twice, expected it once (first at line 1)"),
        (OrNull(NUMBERS), "1", "f:1:1: at: is a single value, expected a list of numbers"),
        (LIMITS, "1", "f:1:1: at: is a single value, expected a mapping of limits"),
        (PARCEL, "1", "f:1:1: at: is a single value, expected a mapping of weight"),
    ],
)
def test_a_fault_says_what_is_wrong_and_what_is_expected(reader: Reader, written: Written, fault: str) -> None:
    assert read(reader, written) == (FAULTY, (fault,))


def test_faults_of_the_parts_are_all_said() -> None:
    assert len(read(NUMBERS, ["1", "x", ["2"]])[1]) == 2
    assert len(read(LIMITS, {"a": "x", "b": "1", "c": "y"})[1]) == 2
    parcels = read(ListOf(PARCEL, "", unique_by="weight"), [{"weight": "x"}, {"weight": "x"}])[1]
    assert [line.partition(": ")[2] for line in parcels][-1].startswith("at[1]")


def test_a_key_that_is_none_or_comes_twice_is_a_fault() -> None:
    report = Report()
    word = ScalarNode(HERE, "weight")
    node = MappingNode(HERE, ((ListNode(HERE, ()), ONE), (word, ONE), (word, TWO), (ScalarNode(HERE, "wait"), ONE)))
    assert PARCEL.read(node, "", report) is FAULTY
    assert report.lines("f") == (
        "f:1:1: (file): a key is a list, expected a word",
        "f:1:1: weight: is given twice, expected it once (first at line 1)",
        "f:1:1: wait: unknown key, expected weight",
    )


def test_an_unknown_key_that_is_like_none_has_them_all() -> None:
    assert read(PARCEL, {"zzz": "1", "weight": "1"})[1] == ("f:1:1: at.zzz: unknown key, expected one of weight",)


def test_a_key_of_an_older_version_is_refused_with_the_name_that_it_has_now() -> None:
    parcel = Section(Parcel, {"weight": Key("weight_g", OrNull(Value("a weight", int)), former="heaviness")})
    assert read(parcel, {"heaviness": "1", "weight": "1"})[1] == (
        "f:1:1: at.heaviness: was renamed, expected weight",
    )


def test_a_check_across_keys_runs_where_none_of_them_is_faulty() -> None:
    checked = Section(
        Parcel,
        {"weight": Key("weight_g", Value("a weight", int))},
        (Check(("weight_g",), lambda parcel, found: found.add("weight", f"{parcel.weight_g} is too much")),),
    )
    assert read(checked, {"weight": "9"}) == (FAULTY, ("f:1:1: at.weight: 9 is too much",))
    assert read(checked, {"weight": "x"})[1][0].startswith("f:1:1: at.weight: 'x' invalid literal")


def test_a_section_that_is_required_and_not_there_names_what_it_needs() -> None:
    outer = Section(Parcel, {"weight": Key("weight_g", PARCEL)})
    assert read(outer, {}) == (FAULTY, ("f:1:1: at.weight.weight: is missing, expected a weight",))
