"""Containerfile takes and starts only things that there are. `tests/host/test_host_image.py` builds it."""

from __future__ import annotations

import json
import re

from tests.unit.test_docs import ROOT, find_command

TEXT = re.sub(r"\\\n", " ", (ROOT / "Containerfile").read_text())
LET_THROUGH = {
    line.removeprefix("!") for line in (ROOT / ".containerignore").read_text().split() if line.startswith("!")
}


def test_all_that_is_copied_is_there_and_nothing_else_is_sent_to_the_build() -> None:
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.*)$", TEXT, re.MULTILINE) for word in line.split()[:-1]
    }
    assert copied == LET_THROUGH
    assert all((ROOT / each).exists() for each in copied)


def test_it_starts_a_command_with_options_that_there_are() -> None:
    (words,) = re.findall(r"^CMD (\[.*\])$", TEXT, re.MULTILINE)
    command, rest = find_command(json.loads(words))
    options = {option for parameter in command.params for option in parameter.opts}
    assert {each for each in rest if each.startswith("--")} <= options


def test_each_lock_that_it_installs_has_hashes() -> None:
    locks = re.findall(r"--requirement (\S+)", TEXT)
    assert locks == ["requirements/build.txt", "requirements/package.txt"]
    assert TEXT.count("--require-hashes") == len(locks)
    assert all("--hash=sha256:" in (ROOT / each).read_text() for each in locks)
