"""The week of docs/operations.md is that of the soak, and its first hour that of `./run host`, word for word."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import cast

import pytest

from tests.host.first_hour import PARTS, SECTION
from tests.soak.manual import OPERATIONS, WEEK, Command, File, read_days
from tests.soak.week import DAYS

SECTIONS: dict[str, Mapping[str, object]] = {WEEK: DAYS, SECTION: PARTS}
TITLES = [(section, title) for section, parts in SECTIONS.items() for title in parts]


@pytest.mark.parametrize("section", SECTIONS)
def test_the_parts_of_the_documents_are_the_parts_that_are_typed(section: str) -> None:
    assert [day.title for day in read_days(OPERATIONS.read_text(), section)] == [*SECTIONS[section]]


@pytest.mark.parametrize(("section", "title"), TITLES)
def test_each_step_of_a_part_stands_in_the_documents(section: str, title: str) -> None:
    (day,) = [day for day in read_days(OPERATIONS.read_text(), section) if day.title == title]
    written = [each.path if isinstance(each, File) else each.line for each in day.steps]
    typing = inspect.getsource(cast("Callable[..., None]", SECTIONS[section][title]))
    calls = [node for node in ast.walk(ast.parse(typing)) if isinstance(node, ast.Call)]
    typed = [
        (call.lineno, ast.literal_eval(call.args[0]))
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("type", "write")
    ]
    assert [text for _, text in sorted(typed)] == written


def test_a_section_has_commands_and_files() -> None:
    text = """## Another
## A week of arming
Words.
### Monday: observe
```yaml
# /etc/gatewayd/gatewayd.yaml
policy: {mode: observe}
```
```sh
# gatewayd check
a line of its output
# gatewayd status
```
## The next
"""
    (day,) = read_days(text)
    assert day.title == "Monday: observe"
    assert day.steps == (
        File("/etc/gatewayd/gatewayd.yaml", "policy: {mode: observe}\n"),
        Command("gatewayd check"),
        Command("gatewayd status"),
    )


def test_a_block_of_another_kind_is_a_fault_and_so_is_a_section_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="neither commands nor a file"):
        read_days("## A week of arming\n### Monday\n```json\n{}\n```\n")
    with pytest.raises(ValueError, match="no section"):
        read_days("## Reload\n")
