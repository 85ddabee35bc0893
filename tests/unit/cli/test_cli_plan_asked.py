"""What `plan` prints of a plan that the running daemon made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from gatewayd.api.plan import FlowCounts, HeldPlan, PlanView, RegistrationsPlan
from gatewayd.cli import main, plan
from gatewayd.cli.output import BAD, DOUBTFUL, GOOD
from gatewayd.cli.plan_asked import describe_asked, headline
from gatewayd.errors import ReplyMissing
from tests.support.fake_queries import FakeQueries, serving_in_a_thread

MUCH = PlanView(
    registrations=RegistrationsPlan(1, 7, 1, ("NEW",), tuple(f"OLD-{n}" for n in range(7)), ("CHANGED",)),
    held=(HeldPlan({"config/local": 4}, "4 registrations removed at once, more than 0"),),
    failing=("must_pass hbl: udp/500: no element",),
    waits_for=("desk",),
    added={"c4_28": 2},
    removed={"c4_29": 1},
    new_masks=("c4_28",),
    unprogrammed={"WIDE": "needs 5000 elements, at most 4096 are made"},
    ruleset="table inet gatewayd {\n}\n",
    policy="observe → reject: unregistered flows are refused.",
    mode="reject",
    flows=FlowCounts(9, 4, 1, 1, 1, 1, refused=3, passed=2, is_complete=False),
    clock_doubt="a signed notification is newer",
)


def lines_of(view: PlanView, *, is_mode_given: bool = False) -> list[str]:
    found = describe_asked(view, ("no interface is named ppp9 now",), is_mode_given=is_mode_given)
    return [f"{line.label:<15}{line.text}" for line in found]


def test_the_first_line_says_what_matters_most() -> None:
    assert headline(PlanView()) == ("Nothing would change.", GOOD)
    assert headline(PlanView(held=MUCH.held)) == ("Nothing would change.", DOUBTFUL)
    assert headline(msgspec.structs.replace(MUCH, unprogrammed={})) == (
        "9 registrations and the rules would change.",
        DOUBTFUL,
    )
    assert headline(PlanView(ruleset="x")) == ("The rules would change.", DOUBTFUL)
    assert headline(PlanView(registrations=RegistrationsPlan(came=1))) == ("1 registration would change.", DOUBTFUL)
    assert headline(MUCH) == ("1 registration would not be in the kernel as registered.", BAD)
    assert headline(msgspec.structs.replace(MUCH, broken=("one", "two"))) == (
        "2 assertions would break, so the change would be refused.",
        BAD,
    )
    assert headline(PlanView(needs_restart=("kernel.table",))) == (
        "A reload would be refused: kernel.table need a restart.",
        BAD,
    )


def test_everything_has_its_line() -> None:
    assert lines_of(msgspec.structs.replace(MUCH, broken=("must_pass hbl (a.yaml:3): why",))) == [
        "WOULD BREAK    must_pass hbl (a.yaml:3): why",
        "FAILS NOW      must_pass hbl: udp/500: no element",
        "NOT PROGRAMMED WIDE: needs 5000 elements, at most 4096 are made",
        "HELD           4 registrations removed at once, more than 0; by config/local (4); until gatewayd accept",
        "WARNING        no interface is named ppp9 now",
        "clock          not believed: a signed notification is newer",
        "policy         observe → reject: unregistered flows are refused.",
        "waits for      source desk: what it brings and takes is known once it was read",
        "come           1 registration: NEW",
        "go             7 registrations: OLD-0, OLD-1, OLD-2, OLD-3, OLD-4 +2",
        "change         1 registration: CHANGED",
        "new sets       c4_28",
        "add            2 elements in c4_28",
        "remove         1 element in c4_29",
        "rules          would be replaced (--rules shows them)",
        "live flows     4 registered, which pass; unregistered: 3 refused, 2 passed, beyond the canary",
        "               1 flow would be registered no longer (they drain first)",
        "               1 flow would become registered",
        "               1 flow without a registration would come into scope",
        "               1 flow would leave the scope",
        "               of the first 9 that were looked at; there are more",
    ]


def test_where_nothing_changes_a_mode_that_is_asked_for_is_answered() -> None:
    view = PlanView(added={}, removed={}, policy="observe stays.", flows=FlowCounts(2, 1, passed=1))
    assert lines_of(view) == ["WARNING        no interface is named ppp9 now"]
    assert lines_of(view, is_mode_given=True)[1:] == [
        "policy         observe stays.",
        "live flows     1 registered, which pass; unregistered: 1 passed",
    ]
    assert lines_of(PlanView(added=None))[1:] == ["elements       not counted: the changes are too many"]


@pytest.fixture
def queries() -> FakeQueries:
    return FakeQueries()


@pytest.fixture
def config(tmp_path: Path, queries: FakeQueries) -> Iterator[Path]:
    path = tmp_path / "gatewayd.yaml"
    socket = tmp_path / "api.sock"
    registry = '{sources: [{name: a, url: "file:/a", allow_unsigned: true}], local: null}'
    path.write_text(f'registry: {registry}\nhttp: {{socket: "{socket}"}}\n')
    with serving_in_a_thread(queries, socket):
        yield path


def run(config: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["plan", "--config", str(config), *options])


def test_the_daemon_is_asked_where_one_answers(
    config: Path,
    queries: FakeQueries,
) -> None:
    result = run(config, "--mode", "reject", "--canary", "5%")
    assert (result.exit_code, result.output.splitlines()[:2]) == (
        0,
        ["Nothing would change.", "policy         observe stays"],
    )
    (request,) = queries.asked
    assert (request.filename, request.mode, request.canary) == (str(config), "reject", 5)  # type: ignore[attr-defined]
    assert json.loads(run(config, "--json").stdout)["daemon"] is True


def test_what_the_daemon_finds_wrong_decides_the_exit_status(
    config: Path,
    queries: FakeQueries,
) -> None:
    queries.plan_view = PlanView(faults=("a.yaml:1:1: pins: is a list",))
    result = run(config)
    assert (result.exit_code, result.stderr) == (2, "a.yaml:1:1: pins: is a list\n")
    queries.plan_view = PlanView(broken=("must_pass hbl (a.yaml:3): why",))
    assert run(config).exit_code == 1
    queries.plan_view = PlanView(unprogrammed={"WIDE": "why"})
    assert run(config).exit_code == 1


def test_new_rules_are_rehearsed_and_printed(
    config: Path,
    queries: FakeQueries,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rehearsed: list[tuple[str, bool]] = []

    async def rehearse(text: str, table: str, *, is_present: bool) -> None:
        rehearsed.append((text, is_present))

    monkeypatch.setattr(plan, "rehearse", rehearse)
    queries.plan_view = PlanView(ruleset="table inet gatewayd {\n}\n")
    result = run(config, "--rules")
    assert result.exit_code == 0
    assert "table inet gatewayd {" in result.stdout
    assert rehearsed == [("table inet gatewayd {\n}\n", True)]


def test_check_warns_of_what_the_daemon_would_refuse(config: Path, queries: FakeQueries) -> None:
    def check() -> list[str]:
        result = CliRunner().invoke(main, ["check", "--user", "root", "--json", str(config)])
        assert result.exit_code == 0
        return [line for line in json.loads(result.stdout)["warnings"] if "assertion" in line]

    assert check() == []
    queries.plan_view = PlanView(broken=("must_pass hbl (a.yaml:3): why",))
    assert check() == [
        f"{config}: warning: gatewayd reload would be refused, as an assertion would break: "
        "must_pass hbl (a.yaml:3): why"
    ]
    queries.failure = ReplyMissing("dump connections", "no answer")
    assert check() == []
