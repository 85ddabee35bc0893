"""An nft that misbehaves, under a whole daemon: a shell script of that name stands first in PATH.

Whatever it does, the daemon lives, says so and is not ready; READY means that the rules are in the kernel.
"""

from __future__ import annotations

import os
import re
import shutil
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from gatewayd.demo.cast import ELSEWHERE, SOFTWARE_HOUSE, STRANGER
from gatewayd.lab.traffic import flow_of, probe
from tests.support.lab_daemon import LabDaemon

pytestmark = pytest.mark.kernel

REAL = shutil.which("nft", path=os.defpath + ":/usr/sbin:/sbin") or "nft"
HOUSE = "39.32.64.10"
_ports = count(20000)

PART = (
    f"cat > $0.text; sed '/comment/,$d' $0.text > $0.part; printf '}}\\n}}\\n' >> $0.part; exec {REAL} -f $0.part"
)
"""The rules up to the one with our tag."""
MOST = f"sed 's/^\\t\\tcounter name unregistered_flows$//' | {REAL} -f /dev/stdin"
"""All but one."""

CASES: dict[str, tuple[str, str]] = {
    "ends before reading": ("exit 1", "it ended with status 1 and said nothing"),
    "closes its input": ("exec <&-; exit 3", "it ended with status 3"),
    "does nothing and ends well": ("exit 0", "the rules in the kernel are not the ones it was given: none carries"),
    "reads all, does nothing and ends well": ("cat > /dev/null", "none carries their tag"),
    "does a part and ends well": (PART, "none carries their tag"),
    "does all but one rule and ends well": (MOST, " rules instead of "),
    "says garbage": (r"printf '\377\033[2J' >&2; exit 1", "nft refused the ruleset: "),
    "says megabytes": ("head -c 3000000 /dev/zero | tr '\\0' z >&2; exit 1", "nft refused the ruleset: zzzz"),
    "is killed": ("kill -9 $$", "it was ended by signal 9"),
    "is no program": ("", "No such file or directory"),
    "is not executable": ("#", "Permission denied"),
    "is gone": ("-", "No such file or directory"),
}
"""What the script does, and what status says then."""


class Nft:
    """The script, replaced in one go."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.path = directory / "nft"
        self.mend()

    def mend(self) -> None:
        self._write(f'#!/bin/sh\n[ -f /dev/stdin ] || [ "$1" = --version ] || exit 9\nexec {REAL} "$@"\n')

    def spoil(self, body: str) -> None:
        if body == "-":
            self.path.unlink()
        elif body == "#":
            self.path.chmod(0o644)
        else:
            self._write(f"#!/bin/sh\n{body}\n" if body else "#!/no/such/shell\n")

    def _write(self, text: str) -> None:
        fresh = self.path.with_name("fresh")
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.replace(self.path)


@pytest.fixture
def nft(tmp_path: Path) -> Nft:
    return Nft(tmp_path / "bin")


def start(daemon: LabDaemon, nft: Nft) -> None:
    daemon.write_registry("national", [SOFTWARE_HOUSE])
    daemon.configure("reject")
    daemon.start(env={"PATH": f"{nft.path.parent}:{os.environ['PATH']}"})


def readiness(daemon: LabDaemon) -> Any:
    return daemon.get("/readyz")


def expect_failing(daemon: LabDaemon, said: str) -> None:
    daemon.wait(lambda: said in str(readiness(daemon)), f"/readyz says {said!r}")
    assert not readiness(daemon)["ready"]
    assert "Traceback" not in daemon.log_text()


def expect_in_force(daemon: LabDaemon) -> None:
    """What READY promises: our rules with their tag, and what they do."""
    lab = daemon.lab
    listing = lab.gateway.run(["nft", "-t", "list", "table", "inet", "gatewayd"]).stdout
    assert re.search(r'comment "gatewayd epoch=\d+ mode=reject policy=\w+ rules=\w+"', listing)
    flows = [flow_of(host, ELSEWHERE, "udp/51820", next(_ports)) for host in (HOUSE, STRANGER)]
    assert probe(lab, flows) == ["passed", "rejected"]


@pytest.mark.parametrize("case", CASES)
def test_rules_that_do_not_get_into_the_kernel_are_said_and_tried_again(
    daemon: LabDaemon, nft: Nft, case: Any
) -> None:
    body, said = CASES[case]
    start(daemon, nft)
    daemon.wait_ready()
    nft.spoil(body)
    daemon.lab.gateway.run(["nft", "flush", "ruleset"])
    expect_failing(daemon, said)
    nft.mend()
    daemon.wait_ready()
    expect_in_force(daemon)


@pytest.mark.parametrize("case", ["ends before reading", "does nothing and ends well", "does a part and ends well"])
def test_a_start_with_an_nft_that_misbehaves_is_ready_once_it_does_not(
    daemon: LabDaemon, nft: Nft, case: str
) -> None:
    body, said = CASES[case]
    nft.spoil(f'if [ "$1" = --version ]; then exec {REAL} --version; fi\n{body}')
    start(daemon, nft)
    expect_failing(daemon, said)
    nft.mend()
    daemon.wait_ready()
    expect_in_force(daemon)


@pytest.mark.parametrize("case", ["does nothing and ends well", "says garbage"])
def test_a_new_mode_that_does_not_get_into_the_kernel_leaves_the_old_one_in_force(
    daemon: LabDaemon, nft: Nft, case: str
) -> None:
    body, said = CASES[case]
    start(daemon, nft)
    daemon.wait_ready()
    nft.spoil(body)
    daemon.configure("observe")
    daemon.reload()
    daemon.wait(lambda: said.removesuffix("none carries") in daemon.log_text(), said)
    expect_in_force(daemon)
    assert daemon.is_running()
    nft.mend()
    daemon.wait_mode("observe")


def test_a_plan_says_what_nft_refuses_in_its_words(daemon: LabDaemon, nft: Nft) -> None:
    """Not the rules that are in force: these are asked for no more."""
    start(daemon, nft)
    daemon.wait_ready()
    command = ("plan", "--config", str(daemon.config_path))
    wrapper = ("env", f"PATH={nft.path.parent}:{os.environ['PATH']}")
    refuses = f'[ "$1" != -c ] || {{ echo "Error: such a set is refused" >&2; exit 1; }}; exec {REAL} "$@"'
    nft.spoil(refuses)
    done = daemon.cli(*command, wrapper=wrapper)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Nothing would change.\n", "")
    daemon.configure("mark")
    done = daemon.cli(*command, wrapper=wrapper)
    assert (done.returncode, done.stderr) == (
        1,
        "gatewayd: nft refused the ruleset: Error: such a set is refused\n",
    )
    assert "would be replaced" in done.stdout
    nft.mend()
    done = daemon.cli(*command, wrapper=wrapper)
    assert (done.returncode, done.stderr) == (0, "")
