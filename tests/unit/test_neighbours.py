"""Other programs on a gateway: the one list of cases, and the tests that hold each sentence of the operations.

Beside these, tests/lab/test_lab_surroundings.py, test_lab_marks.py, test_lab_nat.py, test_lab_bridged.py and
test_lab_interfaces.py have each subject in its corners.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import gatewayd
from tests.support.neighbours import BEFORE_INIT
from tests.unit.test_sentences import sentences_of

ROOT = Path(gatewayd.__file__).parent.parent
LAB = ROOT / "tests/lab"
NOT_TRIED = "not tried"

NAT, FIREWALLS, MARKS, NETWORK = (f"test_lab_coexist_{each}" for each in ("nat", "firewalls", "marks", "network"))
_LOADED = f"{NAT}::test_nothing_is_lost_behind_masquerade_and_dnat_that_are_loaded_again"
_DOCKER_DROPS = f"{FIREWALLS}::test_docker_drops_new_registered_flows_until_what_the_doctor_says_is_typed"
_DOCKER_USER = f"{FIREWALLS}::test_docker_starts_and_nothing_is_lost_where_its_users_chain_accepts_the_mark"
_UFW = f"{FIREWALLS}::test_ufw_is_enabled_and_reloaded_and_nothing_is_lost_where_forward_accepts_the_mark_first"
_FIREWALLD = f"{FIREWALLS}::test_firewalld_is_reloaded_and_no_flow_that_both_ends_spoke_in_loses_a_packet"
_MARKS = f"{MARKS}::test_nothing_is_lost_and_strangers_are_refused_beside_another_user_of_the_mark"
_ZONE = f"{MARKS}::test_flows_in_a_zone_pass_and_drain_and_strangers_are_refused"
_ONE_WAY = f"{NETWORK}::test_packets_of_one_direction_alone_are_registered_or_judged"
_ONE_WAY_TCP = (
    f"{NETWORK}::test_registered_tcp_of_which_one_direction_is_seen_goes_on_and_strangers_are_judged_by_theirs"
)

CASES: dict[str, list[tuple[str, ...]]] = {
    "Address translation": [
        (_LOADED,),
        (f"{NAT}::test_a_client_behind_dnat_and_masquerade_is_told_of_a_refusal",),
        ("test_lab_nat::test_withdrawing_somebody_else_leaves_a_translated_flow_registered",),
    ],
    "Docker": [(_DOCKER_DROPS,), (_DOCKER_USER,), (_DOCKER_DROPS,), (_DOCKER_USER,)],
    "ufw": [
        (f"{FIREWALLS}::test_what_the_doctor_says_of_ufw_keeps_through_its_reloads",),
        (_UFW,),
        (_UFW,),
        (f"{FIREWALLS}::test_ufw_empties_its_own_chains_first_so_a_rule_there_is_not_enough_for_a_reload",),
    ],
    "iptables-nft": [(f"{FIREWALLS}::test_rules_of_iptables_are_restored_again_and_again_and_nothing_is_lost",)],
    "firewalld": [(_FIREWALLD,)] * 5,
    "Other users of the ct mark": [
        (_MARKS,),
        (_MARKS,),
        (f"{MARKS}::test_a_program_that_writes_the_registered_bit_makes_strangers_pass_and_is_a_fault",),
        (f"{NETWORK}::test_routing_by_a_restored_mark_works_with_a_mask_and_fails_without",),
    ],
    "Conntrack zones": [
        (_ZONE,),
        ("../unit/reconcile/test_reconcile_connections::test_flows_with_the_same_tuple_in_two_zones_are_two",),
    ],
    "Routing tables and VRFs": [(f"{NETWORK}::test_a_table_for_each_side_changes_nothing",), (NOT_TRIED,)],
    "Bridges with br_netfilter": [
        (f"{NETWORK}::test_customers_behind_a_bridge_lose_nothing_as_br_netfilter_is_turned_on_and_off",),
        ("test_lab_bridged::test_what_stays_on_a_bridge_is_left_alone",),
    ],
    "Asymmetric routing": [
        (_ONE_WAY, _ONE_WAY_TCP),
        (_ONE_WAY, _ONE_WAY_TCP),
        (_ONE_WAY_TCP,),
        (f"{NETWORK}::test_a_rule_that_drops_what_is_invalid_cuts_registered_tcp_of_which_one_direction_is_seen",),
    ],
    "Lines that come and go": [
        (f"{NETWORK}::test_hundreds_of_lines_come_and_go_and_nothing_is_lost",),
        (f"{NETWORK}::test_a_customers_line_that_comes_again_by_another_name_goes_on_as_registered",),
    ],
}
"""By neighbour the tests of each sentence, in the order of the document."""


@cache
def part() -> str:
    text = (ROOT / "docs/operations.md").read_text("utf-8")
    _, _, rest = text.partition("\n## Beside other programs\n")
    return rest.partition("\n## ")[0]


@cache
def documented() -> dict[str, list[str]]:
    """Sentences by neighbour."""
    found: dict[str, list[str]] = {}
    name = ""
    for sentence in sentences_of(part()):
        if match := re.fullmatch(r"\*\*(.+)\.\*\*", sentence.text):
            name = match[1]
            found[name] = []
        elif name:
            found[name].append(sentence.text)
    return found


@cache
def functions_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return frozenset(each.name for each in tree.body if isinstance(each, ast.FunctionDef))


def test_the_document_has_these_neighbours_and_no_other() -> None:
    assert list(documented()) == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_each_sentence_about_a_neighbour_has_a_test(name: str) -> None:
    said = documented()[name]
    assert len(said) == len(CASES[name]), said
    for sentence, tests in zip(said, CASES[name], strict=True):
        assert tests, sentence
        for each in tests:
            file, _, function = each.partition("::")
            if each == NOT_TRIED:
                assert NOT_TRIED in sentence
            else:
                assert function in functions_of(LAB / f"{file}.py"), each


def test_the_script_for_ufw_is_the_one_that_was_tried() -> None:
    assert BEFORE_INIT in "".join(f"{line.removeprefix('  ')}\n" for line in part().splitlines())
