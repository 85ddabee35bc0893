"""The documents say what is: commands, options, keys, metrics, links and dependencies that they name exist."""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from gatewayd.cli import COMMANDS, main
from gatewayd.settings import load_settings
from gatewayd.settings.model import SETTINGS
from gatewayd.settings.readers import Section
from gatewayd.settings.schema import section_in
from gatewayd.sources.override_file import parse_overrides
from tests.support.renewed import OPERATIONS, operations_of

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))

FENCE = re.compile(r"^ *```(?P<language>\w*)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)
METRIC = re.compile(r"\bgatewayd_[a-z_]+\b")
CALL = re.compile(r"(?:^|[;&|] *)(?:[#$] +)?(?:\S+/)?(?:gatewayd|run) +(?P<words>[a-z].*)$", re.MULTILINE)
"""`gatewayd status`, `# gatewayd status`, `/opt/gatewayd/bin/gatewayd run …`, `./run demo`."""


@dataclass(frozen=True, slots=True)
class Fence:
    """A fenced block. `line`: of its text, in the document."""

    language: str
    body: str
    line: int


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def fences_of(text: str) -> list[Fence]:
    return [
        Fence(match["language"], textwrap.dedent(match["body"]), text.count("\n", 0, match.start("body")) + 1)
        for match in FENCE.finditer(text)
    ]


def prose_of(text: str) -> str:
    """The document without its fenced blocks."""
    return FENCE.sub("", text)


def calls_of(text: str) -> Iterator[list[str]]:
    """The words after the program's name, wherever a command line of ours stands."""
    for code in [*INLINE.findall(prose_of(text)), *(fence.body for fence in fences_of(text))]:
        for match in CALL.finditer(code.replace("\\\n", " ")):
            yield re.split(r" (?:&&|\|\|?|;|>) ?", match["words"])[0].split()


def slug_of(heading: str) -> str:
    """The anchor of a heading, as forges make it."""
    words = re.sub(r"[`*]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def anchors_of(document: Path) -> set[str]:
    return {slug_of(heading) for heading in HEADING.findall(prose_of(text_of(document)))}


def commands_of_run() -> set[str]:
    """The words that the script `run` knows by itself."""
    return {
        word.strip()
        for line in re.findall(r"^    ([a-z|\- ]+)\)$", (ROOT / "run").read_text(), re.MULTILINE)
        for word in line.split("|")
    }


def find_command(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words lead to, groups followed, and the words that are left. A group may be a command by
    itself."""
    context = click.Context(main)
    command: click.Command = main
    while isinstance(command, click.Group) and not (command.invoke_without_command and not words):
        if command.invoke_without_command and words[0].startswith("-"):
            break
        found = command.get_command(context, words[0]) if words else None
        assert found is not None, f"there is no command {' '.join(words)!r}"
        command, words = found, words[1:]
    return command, words


each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


@each_document
def test_every_command_that_is_named_exists(document: Path) -> None:
    unknown = {words[0] for words in calls_of(text_of(document))} - COMMANDS.keys() - commands_of_run()
    assert not unknown


@each_document
def test_every_option_that_is_named_exists(document: Path) -> None:
    for words in calls_of(text_of(document)):
        if words[0] not in COMMANDS:
            continue
        command, rest = find_command(words)
        options = {"-h", "--help", *(option for parameter in command.params for option in parameter.opts)}
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert given <= options, f"gatewayd {' '.join(words)}"


def test_the_readme_names_every_command() -> None:
    assert COMMANDS.keys() <= {words[0] for words in calls_of(text_of(ROOT / "README.md"))}


@each_document
def test_every_configuration_that_is_shown_is_valid(document: Path) -> None:
    """A block may show a part of the file: without sources it is given one."""
    for fence in fences_of(text_of(document)):
        if fence.language != "yaml":
            continue
        shown: Any = yaml.safe_load(fence.body)
        if set(shown) == {"rule_files", "scrape_configs"}:
            continue  # of Prometheus
        body = fence.body
        if body.startswith("# /etc/gatewayd/local.d/"):
            parse_overrides(body, "shown", f"{name_of(document)}, block at line {fence.line}")
            continue
        if "registry" not in shown:
            body += '\nregistry: {sources: [{name: any, url: "file:/any", allow_unsigned: true}]}\n'
        load_settings(body, f"{name_of(document)}, block at line {fence.line}")


def test_configurations_are_shown() -> None:
    shown = [fence for document in DOCUMENTS for fence in fences_of(text_of(document)) if fence.language == "yaml"]
    assert len(shown) > 3


@each_document
def test_every_link_within_the_project_leads_somewhere(document: Path) -> None:
    for target in LINK.findall(prose_of(text_of(document))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        if anchor:
            assert anchor in anchors_of(file), target


@each_document
def test_every_heading_has_an_anchor_of_its_own(document: Path) -> None:
    slugs = [slug_of(heading) for heading in HEADING.findall(prose_of(text_of(document)))]
    assert len(set(slugs)) == len(slugs)


@each_document
def test_every_metric_that_is_named_is_described(document: Path) -> None:
    described = set(METRIC.findall(text_of(ROOT / "docs" / "metrics.md")))
    assert set(METRIC.findall(text_of(document))) <= described


def test_the_readme_lists_the_dependencies_and_no_others() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["top"]
    needed = {re.split(r"[^A-Za-z0-9_-]", line)[0].lower() for line in lines}
    section = text_of(ROOT / "README.md").partition("\n## Dependencies\n")[2].partition("\n## ")[0]
    listed = {name.lower() for name in re.findall(r"^\| ([A-Za-z][\w-]*) \|", section, re.MULTILINE)} - {"package"}
    assert listed == needed


@each_document
def test_nothing_is_left_to_be_written(document: Path) -> None:
    """TODO-NUMBERS too: a figure that is not measured is not documented."""
    left = [line for line in text_of(document).splitlines() if re.search(r"TODO|FIXME|XXX|TBD", line)]
    assert not left


def test_the_table_of_the_log_is_as_the_events_are_declared() -> None:
    """`python -m tests.support.renewed` writes it again."""
    assert text_of(OPERATIONS) == operations_of(text_of(OPERATIONS))


def test_the_keys_that_need_a_restart_are_named() -> None:
    """Those of subscribers are in docs/subscribers.md."""
    item = text_of(OPERATIONS).partition("\n- These keys need a restart:")[2].partition("\n- ")[0]
    named = set(re.findall(r"`([a-z_.]+)`", item.partition(", and of")[0]))
    assert named == {key for key in restart_keys(SETTINGS) if not key.startswith("subscribers")}
    subscribers = text_of(ROOT / "docs" / "subscribers.md")
    assert all(f"`{key}`" in subscribers for key in restart_keys(SETTINGS) if key.startswith("subscribers."))


def restart_keys(section: Section[Any], path: str = "") -> Iterator[str]:
    for name, key in section.keys.items():
        inner = section_in(key.reader)
        if key.restart:
            yield f"{path}{name}"
        if inner is not None:
            yield from restart_keys(inner, f"{path}{name}.")


def test_the_documents_that_the_unit_names_are_installed_there() -> None:
    unit = text_of(ROOT / "systemd" / "gatewayd.service")
    (path,) = re.findall(r"^Documentation=file://(\S+)$", unit, re.MULTILINE)
    directory, _, name = path.rpartition("/")
    assert f"install -D -m 644 -t {directory} docs/*.md\n" in text_of(ROOT / "README.md")
    assert (ROOT / "docs" / name).is_file()
