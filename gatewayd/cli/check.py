"""`gatewayd check`: every problem of a configuration file, and of the files that it names, in one go."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path

import click

from gatewayd.compile.ruleset import OTHER_TABLE, compile_ruleset, policy_in_force, rehearsal_script
from gatewayd.errors import KeysUnusable, SecretFileUnusable, SettingsInvalid
from gatewayd.kernel.nft import find_refusal
from gatewayd.settings import RegistrySettings, Settings, load_settings, read_text
from gatewayd.settings.load import load_document, write_example
from gatewayd.settings.readers import ListNode, MappingNode, Node, Report, ScalarNode, child_of
from gatewayd.sources.fetch import CaFileUnusable, find_shortcomings, load_authorities, read_keys
from gatewayd.sources.overrides_dir import read_overrides
from gatewayd.subscribers.secret_files import is_exposed, read_pepper, read_secrets

DEFAULT_CONFIG = "/etc/gatewayd/gatewayd.yaml"


@dataclass(frozen=True, slots=True)
class Findings:
    """`faults`: the daemon would not start, or would refuse to reload. `warnings`: it would, and something that the
    file names would fail. `summary`: of a file without faults."""

    faults: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    summary: str = ""


def describe_settings(settings: Settings) -> str:
    """One line for an operator who wants to see that it is the file that was meant."""
    count = len(settings.registry.sources)
    policy = settings.policy
    return ", ".join(
        (
            f"{count} source{'s' if count != 1 else ''}",
            f"mode {policy.mode}",
            f"scope {' '.join(policy.scope_words)}",
            f"table {settings.kernel.table}",
            f"http {settings.http.listen}",
        )
    )


def check_file(filename: str) -> Findings:
    """A fault of the file keeps nothing that it names from being looked at."""
    try:
        text = read_text(filename)
    except SettingsInvalid as error:
        return Findings(error.faults)
    faults: tuple[str, ...] = ()
    refusal: tuple[str, ...] = ()
    summary = ""
    try:
        settings = load_settings(text, filename)
        summary = describe_settings(settings)
        refusal = _rehearse(settings, filename)
    except SettingsInvalid as error:
        faults = error.faults
    root = load_document(text, _AsItStands(), Report())
    if not isinstance(root, MappingNode):
        return Findings(faults)
    registry = child_of(root, "registry") or MappingNode(root.place)
    report = Report()
    sources = child_of(registry, "sources")
    if isinstance(sources, ListNode):
        for number, source in enumerate(sources.items):
            _look_at_files(source, f"registry.sources[{number}]", report)
    _look_at_secrets(child_of(root, "subscribers") or MappingNode(root.place), report)
    return Findings(faults + _look_at_overrides(registry), report.lines(filename) + refusal, summary)


def _rehearse(settings: Settings, filename: str) -> tuple[str, ...]:
    """What nft and the kernel of this host have against the rules of the policy, where they can be asked."""
    policy = policy_in_force(settings, inf)
    text = compile_ruleset(OTHER_TABLE, policy, {}, epoch=1).text
    refusal = asyncio.run(find_refusal(rehearsal_script(text, OTHER_TABLE, is_present=False)))
    if refusal is None:
        return ()
    first, *rest = refusal.splitlines()
    return (
        f"{filename}: warning: nft refuses the rules of this policy; the daemon would keep those in force: {first}",
        *rest,
    )


class _AsItStands:
    """A Reader that leaves the document as it is, faults and all."""

    expected = "a mapping"

    def read(self, node: Node, path: str, report: Report) -> object:
        return node


def _look_at_overrides(registry: Node) -> tuple[str, ...]:
    """The faults of local pins and filters, each with its own file and place."""
    local = child_of(registry, "local")
    path = RegistrySettings(()).local if local is None else _path_of(local)
    return () if path is None else read_overrides(Path(path)).faults


def _look_at_files(source: Node, path: str, report: Report) -> None:
    """What would make every attempt on a source fail, whatever its server does."""
    keys = child_of(source, "keys")
    good: list[Path] = []
    for number, node in enumerate(keys.items if isinstance(keys, ListNode) else ()):
        file = _path_of(node)
        if file is None:
            continue
        try:
            read_keys([*good, Path(file)])
            good.append(Path(file))
        except KeysUnusable as error:
            what = f"warning: {error.path}: {error.why}, expected a file of public keys (a JWK or a JWK set)"
            report.add(node.place, f"{path}.keys[{number}]", what)
    ca_file = child_of(source, "ca_file")
    file = None if ca_file is None else _path_of(ca_file)
    if ca_file is not None and file is not None:
        try:
            load_authorities(Path(file))
        except CaFileUnusable as error:
            report.add(ca_file.place, f"{path}.ca_file", f"warning: {error}, expected PEM certificates")
            return
        for each in find_shortcomings(Path(file).read_bytes()):
            what = f"warning: {file}: {each}; Python 3.13 and newer will not trust what it signed"
            report.add(ca_file.place, f"{path}.ca_file", f"{what}, expected a certificate authority by RFC 5280")


def _look_at_secrets(subscribers: Node, report: Report) -> None:
    """What would keep numbers from being hashed, or a client's accounting from being believed."""
    what = "a file with a pepper"
    _look_at_secret(subscribers, "pepper_file", "subscribers", read_pepper, what, report)
    clients = child_of(child_of(subscribers, "radius") or MappingNode(subscribers.place), "clients")
    what = "a file with one secret a line"
    for number, client in enumerate(clients.items if isinstance(clients, ListNode) else ()):
        path = f"subscribers.radius.clients[{number}]"
        _look_at_secret(client, "secret_file", path, read_secrets, what, report)


def _look_at_secret(
    section: Node, key: str, path: str, read: Callable[[str], object], expected: str, report: Report
) -> None:
    node = child_of(section, key)
    file = None if node is None else _path_of(node)
    if node is None or file is None:
        return
    try:
        read(file)
    except SecretFileUnusable as error:
        report.add(node.place, f"{path}.{key}", f"warning: {error}, expected {expected}")
    if is_exposed(file):
        what = f"warning: {file}: is open to every user of this host"
        report.add(node.place, f"{path}.{key}", f"{what}, expected it to be closed to others (chmod o= FILE)")


def _path_of(node: Node) -> str | None:
    """An absolute path; anything else is null, or a fault already."""
    if not isinstance(node, ScalarNode) or node.is_null:
        return None
    return node.text if node.text.startswith("/") else None


@click.command("check")
@click.argument("path", required=False, type=click.Path())
@click.option("--config", type=click.Path(), help=f"The file to check.  [default: {DEFAULT_CONFIG}]")
@click.option("--json", "as_json", is_flag=True, help='Print {"ok": …, "faults": […], "warnings": […]}.')
@click.option(
    "--print-example", is_flag=True, help="Print a file with every key and its default, and check nothing."
)
def command(path: str | None, config: str | None, as_json: bool, print_example: bool) -> None:
    """Check a configuration file and print every problem of it.

    Each line is FILE:LINE:COLUMN: KEY: what is wrong, what is expected. The files of local pins and filters are
    checked too. Exit status 0 when there is none, 2 otherwise.

    Files of keys and of authorities that cannot be used are warnings: the daemon starts all the same, with the
    last good of their sources. So are files of the pepper and of RADIUS secrets.
    """
    if print_example:
        click.echo(write_example(), nl=False)
        return
    if path is not None and config is not None:
        raise click.UsageError("give PATH or --config, not both")
    filename = path or config or DEFAULT_CONFIG
    found = check_file(filename)
    if as_json:
        click.echo(json.dumps({"ok": not found.faults, "faults": found.faults, "warnings": found.warnings}))
    else:
        for line in (*found.faults, *found.warnings):
            click.echo(line, err=True)
        if not found.faults:
            click.echo(f"{click.format_filename(filename)}: ok ({found.summary})")
    if found.faults:
        sys.exit(2)
