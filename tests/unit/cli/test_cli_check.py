"""`gatewayd check`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatewayd.cli import service_user
from gatewayd.cli.check import DEFAULT_CONFIG, command
from gatewayd.feed.notification import generate_key
from gatewayd.kernel import nft
from gatewayd.settings.load import write_example
from tests.support.authority import Authority
from tests.support.feeds import KEY

LAB = 'registry: {sources: [{name: lab, url: "https://lab.example/lab.csv", allow_unsigned: true}]}\n'


@pytest.fixture(autouse=True)
def _as_oneself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rights of the service's user: tests/unit/cli/test_cli_service_user.py."""
    monkeypatch.setattr(service_user, "DEFAULT_USER", "root")


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.yaml"
    path.write_text(LAB)
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(LAB + "statedir: /x\nlog: 1\n")
    return str(path)


@pytest.mark.parametrize("option", [[], ["--config"]])
def test_a_good_file_is_summed_up_in_one_line(good: str, option: list[str]) -> None:
    result = CliRunner().invoke(command, [*option, good])
    assert result.exit_code == 0
    assert result.stdout == (
        f"{good}: ok (1 source, mode observe, scope ipsec wireguard openvpn pptp l2tp, "
        "table gatewayd, http 127.0.0.1:9480)\n"
    )


def test_every_fault_goes_to_stderr(bad: str) -> None:
    result = CliRunner().invoke(command, [bad])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"{bad}:2:1: statedir: unknown key, expected state_dir\n"
        f"{bad}:3:6: log: is a single value, expected a mapping of level, format\n"
    )


def test_json_says_ok(good: str) -> None:
    result = CliRunner().invoke(command, ["--json", good])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"ok": True, "faults": [], "warnings": []}


def test_json_has_the_faults(bad: str) -> None:
    result = CliRunner().invoke(command, ["--json", "--config", bad])
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert answer["ok"] is False
    assert [fault.partition(": ")[2] for fault in answer["faults"]] == [
        "statedir: unknown key, expected state_dir",
        "log: is a single value, expected a mapping of level, format",
    ]


def test_a_file_that_cannot_be_read_is_exit_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "none.yaml: cannot be read: No such file or directory" in result.stderr


def test_two_files_are_one_too_many(good: str) -> None:
    result = CliRunner().invoke(command, [good, "--config", good])
    assert result.exit_code == 2
    assert "give PATH or --config, not both" in result.stderr


def test_the_example_is_printed_and_nothing_is_checked(bad: str) -> None:
    result = CliRunner().invoke(command, ["--print-example", bad])
    assert (result.exit_code, result.stdout) == (0, write_example())


def test_without_a_path_the_installed_file_is_checked(monkeypatch: pytest.MonkeyPatch, good: str) -> None:
    monkeypatch.setattr("gatewayd.cli.check.DEFAULT_CONFIG", good)
    assert DEFAULT_CONFIG == "/etc/gatewayd/gatewayd.yaml"
    assert CliRunner().invoke(command, []).stdout.startswith(f"{good}: ok (")


# -- files that it names -----------------------------------------------------------------------------------------

SIGNED = """\
registry:
  local: {directory}/local.d
  sources:
    - name: national
      url: https://registry.example/notification.jws
      keys:
        - {directory}/good.pub
        - {directory}/none.pub
      ca_file: {directory}/none.pem
    - {{name: lab, url: "https://lab.example/lab.csv", allow_unsigned: true}}
"""
PIN = "{id: LOCAL-1, category: bank, clients: [203.0.113.0/28], comment: by phone}"


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """Whose second file of keys and whose file of authorities are not there."""
    path = tmp_path / "signed.yaml"
    path.write_text(SIGNED.format(directory=tmp_path))
    (tmp_path / "good.pub").write_text(KEY.public_text())
    (tmp_path / "local.d").mkdir()
    (tmp_path / "local.d" / "10-good.yaml").write_text(f"pins: [{PIN}]\n")
    return path


def expected_warnings(path: Path) -> list[str]:
    directory = path.parent
    return [
        f"{path}:8:11: registry.sources[0].keys[1]: warning: {directory}/none.pub: No such file or directory, "
        "expected a file of public keys (a JWK or a JWK set)",
        f"{path}:9:16: registry.sources[0].ca_file: warning: ca_file {directory}/none.pem cannot be read: "
        "No such file or directory, expected PEM certificates",
    ]


def test_files_that_sources_need_and_cannot_have_are_warnings(signed: Path) -> None:
    """The daemon starts without them, with the last good: a check before its start must not be in the way."""
    result = CliRunner().invoke(command, [str(signed)])
    assert result.exit_code == 0
    assert result.stderr.splitlines() == expected_warnings(signed)
    assert result.stdout.startswith(f"{signed}: ok (2 sources, ")
    result = CliRunner().invoke(command, ["--json", str(signed)])
    assert json.loads(result.stdout) == {"ok": True, "faults": [], "warnings": expected_warnings(signed)}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff", "is not UTF-8"),
        (b"PUBLIC KEY", "not JSON"),
        (KEY.private_text().encode(), "private key"),
        (generate_key(KEY.kid).public_text().encode(), "another key in another file"),
    ],
)
def test_a_file_of_keys_that_is_none_is_said(signed: Path, content: bytes, why: str) -> None:
    (signed.parent / "none.pub").write_bytes(content)
    line = CliRunner().invoke(command, [str(signed)]).stderr.splitlines()[0]
    assert line.startswith(f"{signed}:8:11: registry.sources[0].keys[1]: warning: {signed.parent}/none.pub: ")
    assert why in line


def test_files_that_are_right_are_not_mentioned(signed: Path) -> None:
    (signed.parent / "none.pub").write_text(generate_key("national-2").public_text())
    (signed.parent / "none.pem").write_bytes(Authority(signed.parent).ca_file.read_bytes())
    result = CliRunner().invoke(command, [str(signed)])
    assert (result.exit_code, result.stderr) == (0, "")


def test_an_assertion_out_of_scope_is_a_warning_with_its_place(tmp_path: Path) -> None:
    local = tmp_path / "local.d"
    local.mkdir()
    (local / "a.yaml").write_text(
        "must_pass:\n"
        "  - {name: good, source: 203.0.113.5, destination: 198.51.100.7, service: wireguard, comment: why}\n"
        "  - {name: out, source: 203.0.113.5, destination: 198.51.100.7, service: tcp/9, comment: why}\n"
    )
    config = tmp_path / "c.yaml"
    text = LAB.replace("}]}", f'}}], local: "{local}"}}') + "policy: {interfaces: {inside: [lan0]}}\n"
    config.write_text(text)
    result = CliRunner().invoke(command, ["--json", str(config)])
    assert result.exit_code == 0
    found = [line for line in json.loads(result.stdout)["warnings"] if "a.yaml" in line]
    assert found[0] == (
        f"{local}/a.yaml:3: warning: must_pass out: tcp/9 is not in policy.scope and passes in every mode, "
        "registered or not"
    )
    # Where this host has a route to both ends, no interface of it is called lan0.
    assert all("which are not inside and outside" in line for line in found[1:])


def test_faults_of_every_file_of_local_overrides_come_with_their_places(signed: Path) -> None:
    local = signed.parent / "local.d"
    (local / "20-bad.yaml").write_text("pins:\n  - {id: LOCAL-2, clients: [10.0.0.1/8], comment: x}\nfilter: []\n")
    (local / "30-worse.yaml").write_text("pins: [\n")
    result = CliRunner().invoke(command, [str(signed)])
    assert result.exit_code == 2
    assert result.stdout == ""
    places = [line.partition(": ")[0] for line in result.stderr.splitlines()]
    assert places[:3] == [f"{local}/20-bad.yaml:2:5", f"{local}/20-bad.yaml:2:29", f"{local}/20-bad.yaml:3:1"]
    assert places[3].startswith(f"{local}/30-worse.yaml:2:")
    assert result.stderr.splitlines()[4:] == expected_warnings(signed)


def test_a_fault_of_the_file_itself_hides_nothing_of_what_it_names(signed: Path) -> None:
    signed.write_text(signed.read_text() + "mode: reject\n")
    (signed.parent / "local.d" / "20-bad.yaml").write_text("1\n")
    result = CliRunner().invoke(command, ["--json", str(signed)])
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert [fault.partition(": ")[0] for fault in answer["faults"]] == [
        f"{signed}:11:1",
        f"{signed.parent}/local.d/20-bad.yaml:1:1",
    ]
    assert answer["warnings"] == expected_warnings(signed)


def test_what_is_no_path_is_a_fault_and_not_looked_at(signed: Path) -> None:
    text = signed.read_text().replace(f"- {signed.parent}/good.pub", "- [x]")
    signed.write_text(text.replace(f"{signed.parent}/", ""))
    result = CliRunner().invoke(command, [str(signed)])
    assert result.exit_code == 2
    assert "warning" not in result.stderr
    assert len(result.stderr.splitlines()) == 4


def test_a_file_that_is_no_yaml_is_one_fault(signed: Path) -> None:
    signed.write_text("registry: [\n")
    assert len(CliRunner().invoke(command, [str(signed)]).stderr.splitlines()) == 1


# -- secrets that it names ---------------------------------------------------------------------------------------

BOUND = """\
subscribers:
  pepper_file: {directory}/pepper
  radius:
    clients:
      - {{address: 10.0.0.0/24, secret_file: {directory}/good.secret}}
      - {{address: 10.0.1.0/24, secret_file: {directory}/empty.secret}}
"""


@pytest.fixture
def bound(tmp_path: Path) -> Path:
    """Whose pepper is too short and whose second client has no secret."""
    path = tmp_path / "bound.yaml"
    path.write_text(LAB + BOUND.format(directory=tmp_path))
    for name, content in {"pepper": "hunter2", "good.secret": "testing123\n", "empty.secret": "#hunter2\n"}.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o640)
    return path


def warnings_of(path: Path) -> list[str]:
    """Without the name of the file itself; the file has no fault."""
    result = CliRunner().invoke(command, [str(path)])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{path}: ok (")
    return [line.removeprefix(f"{path}:") for line in result.stderr.splitlines()]


def test_files_of_secrets_that_cannot_be_used_are_said_without_a_word_of_them(bound: Path) -> None:
    """Without a pepper the daemon does not start: a fault. Without a client's secret it does."""
    directory = bound.parent
    assert secrets_of(bound) == [
        f"3:16: subscribers.pepper_file: {directory}/pepper: the pepper has fewer than 16 bytes; "
        "make one: head -c 32 /dev/urandom | base64 > PEPPER_FILE, expected a file with a pepper",
        f"7:45: subscribers.radius.clients[1].secret_file: warning: {directory}/empty.secret: holds no secret; "
        "a line that begins with # is a comment, expected a file with one secret a line",
    ]


def test_files_of_secrets_that_are_not_there_are_said(bound: Path) -> None:
    for name in ("pepper", "good.secret", "empty.secret"):
        (bound.parent / name).unlink()
    assert [line.partition(f": {bound.parent}")[0].removesuffix(": warning") for line in secrets_of(bound)] == [
        "3:16: subscribers.pepper_file",
        "6:45: subscribers.radius.clients[0].secret_file",
        "7:45: subscribers.radius.clients[1].secret_file",
    ]


def test_a_secret_that_everybody_may_read_is_a_warning(bound: Path) -> None:
    (bound.parent / "pepper").write_text("a pepper for tests alone\n")
    (bound.parent / "empty.secret").write_text("testing124\n")
    assert warnings_of(bound) == []
    (bound.parent / "good.secret").chmod(0o644)
    assert warnings_of(bound) == [
        f"6:45: subscribers.radius.clients[0].secret_file: warning: {bound.parent}/good.secret: is open to every "
        "user of this host, expected it to be closed to others (chmod o= FILE)"
    ]


def test_credentials_are_looked_at_where_the_service_has_them(bound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit runs `check` too, with them; an operator's shell has none."""
    bound.write_text(LAB + BOUND.format(directory="credential:").replace("credential:/", "credential:"))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert warnings_of(bound) == []
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(bound.parent))
    assert [line.partition(":")[0] + line[line.index(" subs") :][:24] for line in secrets_of(bound)] == [
        "3 subscribers.pepper_file",
        "7 subscribers.radius.clie",
    ]


@pytest.mark.parametrize(
    "subscribers",
    [
        "",
        "{}",
        "[]",
        "{pepper_file: }",
        "{pepper_file: p, radius: }",
        "{radius: {clients: }}",
        "{radius: {clients: [x]}}",
    ],
)
def test_subscribers_that_name_no_file_have_no_warning(good: str, subscribers: str) -> None:
    Path(good).write_text(LAB + f"subscribers: {subscribers}\n")
    assert "warning" not in CliRunner().invoke(command, [good]).stderr


def secrets_of(path: Path) -> list[str]:
    """What is said of a file whose pepper cannot be used."""
    result = CliRunner().invoke(command, [str(path)])
    assert (result.exit_code, result.stdout) == (2, "")
    return [line.removeprefix(f"{path}:") for line in result.stderr.splitlines()]


def test_a_fault_of_the_file_hides_no_secret_file(bound: Path) -> None:
    bound.write_text(bound.read_text() + "mode: reject\n")
    answer = json.loads(CliRunner().invoke(command, ["--json", str(bound)]).stdout)
    assert (len(answer["faults"]), len(answer["warnings"])) == (2, 1)


def stand_in_nft(scratch: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A script called nft, and no other command but the shell's."""
    (scratch / "bin").mkdir()
    script = scratch / "bin" / "nft"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scratch / 'bin'}:{os.environ['PATH']}")


REFUSES_CHAINS = """
text=$(cat)
case $text in *chain*) printf '/dev/stdin:3:1-2: Error: no such hook\\n\\tchain forward {\\n' >&2; exit 1 ;; esac
"""


def test_rules_that_nft_refuses_are_a_warning_in_its_words(
    good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_nft(tmp_path, monkeypatch, REFUSES_CHAINS)
    result = CliRunner().invoke(command, [good])
    assert result.exit_code == 0
    assert result.stderr == (
        f"{good}: warning: nft refuses the rules of this policy; the daemon would keep those in force: "
        "/dev/stdin:3:1-2: Error: no such hook\n\tchain forward {\n"
    )


@pytest.mark.parametrize(
    "body", ["echo 'Operation not permitted' >&2; exit 1", "exec cat > /dev/null", "kill -9 $$"]
)
def test_a_host_that_cannot_be_asked_says_nothing(
    good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    stand_in_nft(tmp_path, monkeypatch, body)
    result = CliRunner().invoke(command, [good])
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_host_without_nft_says_nothing(good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(command, [good])
    assert (result.exit_code, result.stderr) == (0, "")


def test_an_nft_that_does_not_end_keeps_nobody_waiting_for_ever(
    good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft, "TIMEOUT_S", 0.05)
    stand_in_nft(tmp_path, monkeypatch, "exec sleep 60")
    assert CliRunner().invoke(command, [good]).exit_code == 0


def test_what_nft_is_asked_is_the_configured_mode_also_before_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_nft(tmp_path, monkeypatch, f"cat >> {tmp_path}/seen")
    path = tmp_path / "later.yaml"
    path.write_text(LAB + "policy: {mode: reject, enforce_from: 2199-01-01T00:00:00Z}\n")
    result = CliRunner().invoke(command, [str(path)])
    assert result.exit_code == 0, result.stderr
    assert "reject with" in (tmp_path / "seen").read_text()


def test_an_authority_that_a_newer_python_refuses_is_a_warning_in_words(tmp_path: Path) -> None:
    authority = Authority(tmp_path, strict=False)
    path = tmp_path / "gatewayd.yaml"
    source = (
        f'{{name: lab, url: "https://registry.invalid/x.csv", allow_unsigned: true, ca_file: {authority.ca_file}}}'
    )
    path.write_text(f"registry: {{sources: [{source}]}}\n")
    result = CliRunner().invoke(command, [str(path)])
    assert result.exit_code == 0
    assert result.stderr == (
        f"{path}:1:104: registry.sources[0].ca_file: warning: {authority.ca_file}: "
        "certificate 1 (CN=authority) lacks the Key Usage keyCertSign, a Subject Key Identifier; "
        "Python 3.13 and newer will not trust what it signed, "
        "expected a certificate authority by RFC 5280\n"
    )


def test_names_that_no_interface_has_are_warnings(good: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewayd.cli.check.read_interfaces", lambda: ("lo", "eth0", "ppp0"))
    Path(good).write_text(LAB + "policy: {interfaces: {inside: ['ppp*', 'wan'], outside: [eth0]}}\n")
    result = CliRunner().invoke(command, [good])
    assert result.exit_code == 0
    assert result.stderr == f"{good}: warning: no interface is named wan now (policy.interfaces.inside)\n"
