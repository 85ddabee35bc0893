"""The stage of arming written into the text of a configuration file: the words of two keys, and nothing else of it.

The places come from the parser that reads the file. A library that loads and dumps it again keeps comments, and
changes indentation, blanks and `null` beside (ruamel.yaml 0.19.1: 38 lines of the example file for one word). The
difference that an operator is to look at has to be the change alone.
"""

from __future__ import annotations

from dataclasses import replace

import yaml

from gatewayd.errors import InputRejected, SettingsInvalid
from gatewayd.model.policy import Stage
from gatewayd.settings.load import compose_text, load_settings


class EditRefused(InputRejected):
    """The text cannot be edited without changing more than the stage. Nothing was written."""


def set_stage(text: str, stage: Stage, filename: str) -> str:
    """The text with `policy.mode` and `policy.canary` of the stage; observe leaves the canary as it is.

    Raises SettingsInvalid where the text has faults, and EditRefused where its form is not one that is understood:
    what comes out means the same but for the stage, or it does not come out.
    """
    before = load_settings(text, filename)
    wanted = Stage("observe", before.policy.canary_percent) if stage.mode == "observe" else stage
    words: list[tuple[str, str]] = []
    if wanted.mode != before.policy.mode:
        words.append(("mode", wanted.mode))
    if wanted.canary_percent != before.policy.canary_percent:
        words.append(("canary", f"{wanted.canary_percent}%"))
    edited = text
    for key, word in words:
        edited = _set_key(edited, key, word)
    policy = replace(before.policy, mode=wanted.mode, canary_percent=wanted.canary_percent)
    try:
        is_right = load_settings(edited, filename) == replace(before, policy=policy)
    except SettingsInvalid:
        is_right = False
    if not is_right:
        lines = ", ".join(f"{key}: {word}" for key, word in words)
        raise EditRefused(f"{filename}: its form is not understood; write under policy by hand: {lines}")
    return edited


def _set_key(text: str, key: str, word: str) -> str:
    """`key` of `policy` with this word. The caller checks the result."""
    root = compose_text(text)
    assert isinstance(root, yaml.MappingNode)
    name, policy = _pair_of(root, "policy")
    line_end = "\r\n" if "\r\n" in text else "\n"
    if name is None or policy is None:
        if root.flow_style:
            return _insert_in_flow(text, root, f"policy: {{{key}: {word}}}")
        gap = "" if text.endswith("\n") else line_end
        return f"{text}{gap}policy:{line_end}  {key}: {word}{line_end}"
    if not isinstance(policy, yaml.MappingNode):
        return _replace(text, policy, f"{{{key}: {word}}}")
    _, value = _pair_of(policy, key)
    if value is not None:
        return _replace(text, value, word)
    if policy.flow_style:
        return _insert_in_flow(text, policy, f"{key}: {word}")
    # A line of its own under `policy:`, above comments that belong to the next key.
    at = text.index("\n", name.end_mark.index) + 1
    return f"{text[:at]}{' ' * policy.start_mark.column}{key}: {word}{line_end}{text[at:]}"


def _pair_of(node: yaml.MappingNode, key: str) -> tuple[yaml.Node | None, yaml.Node | None]:
    return next(((name, value) for name, value in node.value if name.value == key), (None, None))


def _replace(text: str, node: yaml.Node, word: str) -> str:
    start, end = node.start_mark.index, node.end_mark.index
    blank = " " if text[start - 1 : start] == ":" else ""
    return f"{text[:start]}{blank}{word}{text[end:]}"


def _insert_in_flow(text: str, node: yaml.MappingNode, pair: str) -> str:
    """As the first pair."""
    at = text.index("{", node.start_mark.index) + 1
    return f"{text[:at]}{pair}{', ' if node.value else ''}{text[at:]}"
