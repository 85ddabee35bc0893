"""A wrong word is exit status 2, and the answer names the nearest right one."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from gatewayd.cli import main
from gatewayd.cli.completions import root_context, walk
from gatewayd.cli.nearest import Choice, did_you_mean


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        ("sttaus", "status"),
        ("STATUS", "status"),
        ("registration", "registrations"),
        ("near-misses", "impact near-misses"),
        ("importt", "registry import"),
        ("registry imprt", "import"),
        ("impact nearmisses", "near-misses"),
        ("plan --mod reject", "--mode"),
        ("plan --mode rejct", "reject"),
        ("mode obsrve", "observe"),
        ("registrations --status suspend", "suspended"),
        ("registrations --by company-registrant", "registrant"),
        ("registry check --format json x", "ndjson"),
        ("explain 10.0.0.1 192.0.2.1 upd/51820", "udp"),
        ("explain 10.0.0.1 192.0.2.1 wiregaurd", "wireguard"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest(arguments: str, nearest: str) -> None:
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.endswith(f"Did you mean '{nearest}'?\n")


@pytest.mark.parametrize(
    "arguments",
    ["xyzzy", "mode zzzz", "explain 10.0.0.1 192.0.2.1 udp/518200", "explain 10.0.0.1 192.0.2.1 ☃", "☃"],
)
def test_where_no_word_is_like_it_none_is_named(arguments: str) -> None:
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 2
    assert "Did you mean" not in result.stderr
    assert result.stderr.startswith("Usage: ")


def test_a_word_without_end_is_compared_as_far_as_it_is_one() -> None:
    assert did_you_mean("x" * 10_000_000, ["status"]) == ""


def test_every_choice_of_every_command_names_the_nearest() -> None:
    for command, context in walk(main, root_context(main)):
        for parameter in command.get_params(context):
            is_ours = isinstance(parameter.type, Choice)
            assert is_ours or not isinstance(parameter.type, click.Choice), (
                f"{context.command_path}: {parameter.name}"
            )


@pytest.mark.parametrize(("word", "nearest"), [("sttaus", "status"), ("nearmisses", "impact near-misses")])
def test_the_name_of_the_program_is_no_part_of_the_nearest(word: str, nearest: str) -> None:
    result = CliRunner().invoke(main, [word], prog_name="python -m gatewayd")
    assert result.stderr.endswith(f"Did you mean '{nearest}'?\n")
