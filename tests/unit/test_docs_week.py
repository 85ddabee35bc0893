"""The week of docs/operations.md is the week of `./run soak --week`, word for word."""

from __future__ import annotations

import ast
import inspect

import pytest

from tests.soak.manual import OPERATIONS, Command, File, read_days
from tests.soak.week import DAYS


def test_the_days_of_the_documents_are_the_days_of_the_soak() -> None:
    assert [day.title for day in read_days(OPERATIONS.read_text())] == [*DAYS]


@pytest.mark.parametrize("title", DAYS)
def test_each_step_of_a_day_stands_in_the_documents(title: str) -> None:
    (day,) = [day for day in read_days(OPERATIONS.read_text()) if day.title == title]
    written = [each.path if isinstance(each, File) else each.line for each in day.steps]
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(DAYS[title]))) if isinstance(node, ast.Call)]
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
