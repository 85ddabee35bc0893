"""What the service's user may read, asked of the kernel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gatewayd.cli import check, service_user
from gatewayd.cli.check import command
from gatewayd.cli.service_user import find_user
from tests.support.feeds import KEY

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can ask for another user")

CONFIG = """\
registry:
  local: {directory}/local.d
  sources:
    - {{name: national, url: "https://registry.example/notification.jws", keys: [{directory}/national.pub]}}
    - {{name: lab, url: "file:{directory}/lab.csv", allow_unsigned: true}}
subscribers:
  pepper_file: {directory}/pepper
  radius:
    listen: ["127.0.0.1:1813"]
    clients:
      - {{address: 10.0.0.5/32, secret_file: {directory}/secrets/radius}}
"""


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that every user may enter, with files that every user may read; pytest's own is closed."""
    monkeypatch.setattr(service_user, "HIDDEN", ())
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        made.chmod(0o755)
        for each in ("local.d", "secrets"):
            (made / each).mkdir(0o755)
        for name, content in {
            "gatewayd.yaml": CONFIG.format(directory=made),
            "national.pub": KEY.public_text(),
            "lab.csv": "id,category,status,clients\n",
            "pepper": "a pepper for tests alone\n",
            "secrets/radius": "testing123\n",
            "local.d/10-bank.yaml": "pins: [{id: L-1, category: bank, clients: [203.0.113.0/28], comment: x}]\n",
        }.items():
            (made / name).write_text(content)
            (made / name).chmod(0o644)
        yield made


def checked(place: Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit status, and the lines but for those about files that every user may read."""
    result = CliRunner().invoke(command, [*arguments, str(place / "gatewayd.yaml")])
    lines = result.stderr.replace(f"{place}/gatewayd.yaml:", "").replace(f"{place}/", "").splitlines()
    return result.exit_code, [line for line in lines if "is open to every user" not in line]


def test_files_that_the_user_can_read_are_not_mentioned(place: Path) -> None:
    assert checked(place, "--user", "nobody") == (0, [])


@pytest.mark.parametrize(
    ("name", "status", "key"),
    [
        ("national.pub", 0, "4:81: registry.sources[0].keys[0]: warning"),
        ("lab.csv", 0, "5:24: registry.sources[1].url: warning"),
        ("secrets/radius", 0, "11:45: subscribers.radius.clients[0].secret_file: warning"),
        ("pepper", 2, "7:16: subscribers.pepper_file"),
        ("local.d/10-bank.yaml", 2, "2:10: registry.local"),
    ],
)
def test_a_file_that_the_user_cannot_read_is_said_with_the_cure(
    place: Path, name: str, status: int, key: str
) -> None:
    """A fault where the daemon would not start without it."""
    (place / name).chmod(0o600)
    cure = f"chgrp nogroup {name}; chmod 640 {name}"
    expected = f"{key}: {name}: user nobody cannot read it; {cure}"
    assert checked(place, "--user", "nobody") == (status, [expected])
    assert checked(place, "--user", "root") == (0, [])
    shutil.chown(place / name, group="nogroup")
    (place / name).chmod(0o640)
    assert checked(place, "--user", "nobody") == (0, [])


def test_the_configuration_itself_must_be_read_where_the_unit_looks_for_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft elsewhere may be closed."""
    (place / "gatewayd.yaml").chmod(0o600)
    status, lines = checked(place, "--user", "nobody")
    cure = "user nobody cannot read it; chgrp nogroup gatewayd.yaml; chmod 640 gatewayd.yaml"
    assert (status, lines) == (0, [f" warning: {cure}"])
    monkeypatch.setattr(check, "DEFAULT_CONFIG", str(place / "gatewayd.yaml"))
    assert checked(place, "--user", "nobody") == (2, [f" {cure}"])


def test_a_home_is_not_opened_for_the_service(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit hides it whatever its mode is."""
    monkeypatch.setattr(service_user, "HIDDEN", (str(place / "secrets"),))
    (place / "secrets").chmod(0o700)
    _, lines = checked(place, "--user", "nobody")
    assert len(lines) == 1
    assert "the unit hides secrets from the service" in lines[0]
    assert "chmod" not in lines[0]


def test_a_directory_that_the_user_cannot_enter_is_named(place: Path) -> None:
    (place / "secrets").chmod(0o700)
    _, lines = checked(place, "--user", "nobody")
    assert [line.partition(": warning: ")[2] for line in lines] == [
        "secrets/radius: user nobody cannot enter secrets; chmod o+x secrets, or move the file below /etc/gatewayd"
    ]


def test_a_link_is_followed_to_the_directory_that_is_closed(place: Path) -> None:
    (place / "closed").mkdir(0o700)
    (place / "pepper").rename(place / "closed" / "pepper")
    (place / "pepper").symlink_to(place / "closed" / "pepper")
    status, lines = checked(place, "--user", "nobody")
    assert (status, len(lines)) == (2, 1)
    assert "pepper: user nobody cannot enter closed;" in lines[0]


def test_a_directory_of_local_files_that_cannot_be_listed_is_a_fault(place: Path) -> None:
    (place / "local.d").chmod(0o711)
    assert checked(place, "--user", "nobody") == (
        2,
        ["2:10: registry.local: local.d: user nobody cannot read it; chgrp nogroup local.d; chmod 750 local.d"],
    )


@pytest.mark.parametrize("name", ["20-mine.yml", "20-mine.YAML"])
def test_a_local_file_of_either_ending_is_looked_at(place: Path, name: str) -> None:
    (place / "local.d" / name).write_text("filters: [{id: PK-1, comment: x}]\n")
    (place / "local.d" / name).chmod(0o600)
    status, lines = checked(place, "--user", "nobody")
    assert status == 2
    assert [line for line in lines if f"local.d/{name}: user nobody cannot read it" in line]


def test_a_directory_of_local_files_that_is_not_there_is_said(place: Path) -> None:
    shutil.rmtree(place / "local.d")
    status, lines = checked(place, "--user", "nobody")
    assert status == 0
    what = "local.d: No such file or directory, expected a directory of pins and filters"
    assert lines == [f"2:10: registry.local: warning: {what}"]


def test_a_file_below_the_right_directory_is_not_to_be_moved() -> None:
    why = find_user(None)._why("x/etc", "/etc/gatewayd/pepper")
    assert why.endswith("cannot enter /etc; chmod o+x /etc")


def test_a_list_of_access_rights_counts(place: Path) -> None:
    if shutil.which("setfacl") is None:
        pytest.skip("setfacl is not installed (Debian package acl)")
    (place / "pepper").chmod(0o600)
    try:
        subprocess.run(["setfacl", "-m", "u:nobody:r", place / "pepper"], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        pytest.skip("this file system has no ACLs")
    assert checked(place, "--user", "nobody") == (0, [])


def test_what_the_unit_hides_from_the_service_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_user, "HIDDEN", (str(place / "secrets"),))
    _, lines = checked(place, "--user", "nobody")
    assert [line.partition(": warning: ")[2] for line in lines] == [
        "secrets/radius: the unit hides secrets from the service (ProtectHome=, PrivateTmp=); move the file, for "
        "example below /etc/gatewayd"
    ]


def test_a_file_that_is_not_there_is_said_once(place: Path) -> None:
    for name in ("lab.csv", "pepper"):
        (place / name).unlink()
    assert checked(place, "--user", "nobody") == (
        2,
        [
            "7:16: subscribers.pepper_file: pepper: No such file or directory, expected a file with a pepper",
            "5:24: registry.sources[1].url: warning: lab.csv: No such file or directory, expected a file of "
            "registrations",
        ],
    )


def test_a_host_without_the_services_user_is_told_that_nothing_was_asked(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_user, "DEFAULT_USER", "nobody-of-this-name")
    status, lines = checked(place)
    assert status == 0
    assert lines == [
        " warning: there is no user nobody-of-this-name on this host, so rights are not checked as the service has "
        "them (--user NAME)"
    ]


def test_a_user_who_is_not_there_is_a_fault_of_the_command_line(place: Path) -> None:
    result = CliRunner().invoke(command, ["--user", "nobody-of-this-name", str(place / "gatewayd.yaml")])
    assert result.exit_code == 2
    assert "there is no user 'nobody-of-this-name'" in result.stderr


def test_a_user_other_than_root_checks_for_himself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert find_user(None).is_other is False
    assert find_user("nobody").is_other is False
    with pytest.raises(click.UsageError, match="root alone"):
        find_user("root")


def test_json_has_the_refusals(place: Path) -> None:
    (place / "pepper").chmod(0o600)
    (place / "secrets" / "radius").chmod(0o600)
    result = CliRunner().invoke(command, ["--json", "--user", "nobody", str(place / "gatewayd.yaml")])
    answer = json.loads(result.stdout)
    assert (answer["ok"], len(answer["faults"])) == (False, 1)
    assert "cannot read it" in answer["faults"][0]
