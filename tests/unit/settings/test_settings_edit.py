"""The stage written into a file: those words, and not a byte beside."""

from __future__ import annotations

from difflib import ndiff

import pytest

from gatewayd.errors import SettingsInvalid
from gatewayd.model.policy import Stage
from gatewayd.settings.edit import EditRefused, set_stage
from gatewayd.settings.load import load_settings, write_example

REGISTRY = 'registry:\n  sources:\n    - {name: lab,   url: "file:/lab.csv", allow_unsigned: true}\n'
REJECT = Stage("reject", 10)


def changed(before: str, after: str) -> list[str]:
    return [line for line in ndiff(before.splitlines(True), after.splitlines(True)) if line[0] in "+-"]


@pytest.mark.parametrize(
    ("policy", "edited"),
    [
        ("policy:\n  mode: observe   # until the order\n  canary: 100%\n",
         "policy:\n  mode: reject   # until the order\n  canary: 10%\n"),
        ("policy:\n    # how long\n    drain: 1h\n",
         "policy:\n    canary: 10%\n    mode: reject\n    # how long\n    drain: 1h\n"),
        ("policy:   # ours\n  mode: 'observe'\n", "policy:   # ours\n  canary: 10%\n  mode: reject\n"),
        ("policy: {drain: 1h}\n", "policy: {canary: 10%, mode: reject, drain: 1h}\n"),
        ("policy: {}\n", "policy: {canary: 10%, mode: reject}\n"),
        ("policy: {mode: observe, drain: 1h}\n", "policy: {canary: 10%, mode: reject, drain: 1h}\n"),
        ("", "policy:\n  canary: 10%\n  mode: reject\n"),
        ("# the end", "# the end\npolicy:\n  canary: 10%\n  mode: reject\n"),
    ],
)  # fmt: skip
def test_only_the_words_of_the_two_keys_are_written(policy: str, edited: str) -> None:
    assert set_stage(REGISTRY + policy, REJECT, "g.yaml") == REGISTRY + edited
    if "\n" in policy:
        crlf = (REGISTRY + policy).replace("\n", "\r\n")
        assert set_stage(crlf, REJECT, "g.yaml") == (REGISTRY + edited).replace("\n", "\r\n")


def test_a_file_in_one_pair_of_braces_is_edited_too() -> None:
    text = '{registry: {sources: [{name: lab, url: "file:/lab.csv", allow_unsigned: true}]}}'
    assert set_stage(text, Stage("limit"), "g.yaml") == "{policy: {mode: limit}, " + text[1:]


def test_the_example_file_differs_in_one_line() -> None:
    text = write_example()
    assert len(changed(text, set_stage(text, Stage("reject"), "g.yaml"))) == 2


def test_observe_leaves_the_canary_as_it_is() -> None:
    text = REGISTRY + "policy: {mode: reject, canary: 10%}\n"
    assert set_stage(text, Stage("observe", 55), "g.yaml") == REGISTRY + "policy: {mode: observe, canary: 10%}\n"


def test_what_is_there_already_changes_nothing() -> None:
    text = REGISTRY + "policy: {mode: reject, canary: 10%}\n"
    assert set_stage(text, REJECT, "g.yaml") == text


def test_a_form_that_is_not_understood_is_refused_and_said_with_the_lines_to_write() -> None:
    shared = "policy:\n  mode: &m mark\n" + REGISTRY.replace("name: lab", "name: *m")
    ended = REGISTRY + "...\n"
    for text in (shared, ended):
        with pytest.raises(EditRefused, match="write under policy by hand: mode: limit"):
            set_stage(text, Stage("limit"), "g.yaml")


def test_a_file_with_a_fault_is_not_touched() -> None:
    with pytest.raises(SettingsInvalid):
        set_stage("policy: {mode: refuse}\n", REJECT, "g.yaml")


def test_a_policy_without_a_value_gets_one() -> None:
    for nothing in ("policy:\n", "policy: null\n", "policy: ~\n"):
        text = nothing + REGISTRY
        try:
            load_settings(text, "g.yaml")
        except SettingsInvalid:
            continue
        assert load_settings(set_stage(text, REJECT, "g.yaml"), "g.yaml").policy.stage == REJECT
