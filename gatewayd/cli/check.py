"""`gatewayd check`: every problem of a configuration file, and of the files that it names, in one go."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import click

from gatewayd.assertions.judge import route_warnings, scope_warnings
from gatewayd.cli.plan_asked import ask_broken
from gatewayd.cli.service_user import DEFAULT_USER, ServiceUser, find_user
from gatewayd.compile import interface_warnings
from gatewayd.compile.ruleset import OTHER_TABLE, compile_ruleset, policy_of, rehearsal_script
from gatewayd.errors import KeysUnusable, SecretFileUnusable, SettingsInvalid
from gatewayd.kernel.external import read_route
from gatewayd.kernel.links import read_interfaces
from gatewayd.kernel.nft import find_refusal
from gatewayd.model.assertion import MAX_ASSERTIONS
from gatewayd.model.prefix import format_address
from gatewayd.settings import RegistrySettings, Settings, load_settings, path_of_file, read_text
from gatewayd.settings.load import load_document, write_example
from gatewayd.settings.model import SourceSettings
from gatewayd.settings.readers import ListNode, MappingNode, Node, Report, ScalarNode, child_of
from gatewayd.sources.fetch import CaFileUnusable, find_shortcomings, load_authorities, read_keys
from gatewayd.sources.files import paths_of_overrides, read_overrides
from gatewayd.subscribers.secret_files import is_exposed, read_pepper, read_secrets

DEFAULT_CONFIG = "/etc/gatewayd/gatewayd.yaml"
config_option = click.option(
    "--config",
    "config_path",
    metavar="PATH",
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The configuration file.",
)


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


def check_file(filename: str, user: ServiceUser) -> Findings:
    """A fault of the file keeps nothing that it names from being looked at. `user` must be able to read all."""
    try:
        text = read_text(filename)
    except SettingsInvalid as error:
        return Findings(error.faults)
    refused = tuple(user.refused([os.path.abspath(filename)]).values())
    # A draft may lie where the service cannot read it; the file that the unit names may not.
    is_draft = filename != DEFAULT_CONFIG
    faults = () if is_draft else tuple(f"{filename}: {why}" for why in refused)
    unread = tuple(f"{filename}: warning: {why}" for why in refused) if is_draft else ()
    refusal: tuple[str, ...] = ()
    summary = ""
    try:
        settings = load_settings(text, filename)
        summary = describe_settings(settings)
        refusal = _rehearse(settings, filename)
        absent = interface_warnings(settings.policy.interfaces, read_interfaces())
        refusal += tuple(f"{filename}: warning: {each}" for each in absent)
        refusal += _doubtful_assertions(settings)
        what = f"{filename}: warning: gatewayd reload would be refused, as an assertion would break"
        refusal += tuple(f"{what}: {each}" for each in ask_broken(settings, text, filename))
    except SettingsInvalid as error:
        faults += error.faults
    root = load_document(text, _AsItStands(), Report())
    if not isinstance(root, MappingNode):
        return Findings(faults)
    look = _Look(root, user)
    look.at_all()
    missing = () if user.missing is None else (_not_checked(filename, user.missing),)
    found = look.faults.lines(filename) + look.override_faults
    return Findings(faults + found, look.warnings.lines(filename) + refusal + unread + missing, summary)


def _not_checked(filename: str, name: str) -> str:
    why = f"there is no user {name} on this host"
    return f"{filename}: warning: {why}, so rights are not checked as the service has them (--user NAME)"


def refusal_of_rules(settings: Settings) -> str | None:
    """What nft and the kernel have against the rules of the policy, tried under another name, without elements."""
    policy = policy_of(settings, settings.policy.stage)
    text = compile_ruleset(OTHER_TABLE, policy, {}, epoch=1).text
    return asyncio.run(find_refusal(rehearsal_script(text, OTHER_TABLE, is_present=False)))


def _rehearse(settings: Settings, filename: str) -> tuple[str, ...]:
    """What nft and the kernel of this host have against the rules of the policy, where they can be asked."""
    refusal = refusal_of_rules(settings)
    if refusal is None:
        return ()
    first, *rest = refusal.splitlines()
    return (
        f"{filename}: warning: nft refuses the rules of this policy; the daemon would keep those in force: {first}",
        *rest,
    )


def _doubtful_assertions(settings: Settings) -> tuple[str, ...]:
    """Assertions of the local files that the policy, or the routes of this host, leave nothing to say."""
    if settings.registry.local is None:
        return ()
    directory = Path(settings.registry.local)
    files = read_overrides(directory).files
    assertions = [replace(each, file=str(directory / file.name)) for file in files for each in file.assertions]
    assertions = assertions[:MAX_ASSERTIONS]
    said = scope_warnings(assertions, settings.policy.scope)
    route = cache(lambda end: read_route(format_address(end)))
    said += route_warnings(assertions, settings.policy.interfaces, route)
    return tuple(each.replace(": ", ": warning: ", 1) for each in said)


class _AsItStands:
    """A Reader that leaves the document as it is, faults and all."""

    expected = "a mapping"

    def read(self, node: Node, path: str, report: Report) -> object:
        return node


class _Look:
    """At every file that the configuration names. `warnings`: the daemon would start all the same."""

    def __init__(self, root: MappingNode, user: ServiceUser) -> None:
        nothing = MappingNode(root.place)
        self._registry = child_of(root, "registry") or nothing
        self._subscribers = child_of(root, "subscribers") or nothing
        self._radius = child_of(self._subscribers, "radius") or nothing
        self.faults, self.warnings = Report(), Report()
        self.override_faults: tuple[str, ...] = ()
        self._sources = _items(child_of(self._registry, "sources"))
        self._clients = _items(child_of(self._radius, "clients"))
        self._refused = user.refused(self._files())

    def at_all(self) -> None:
        for number, source in enumerate(self._sources):
            self._at_source(source, f"registry.sources[{number}]")
        self._at_overrides()
        self._at_secret(
            self._subscribers, "pepper_file", "subscribers", read_pepper, "a file with a pepper", self.faults
        )
        for number, client in enumerate(self._clients):
            path, what = f"subscribers.radius.clients[{number}]", "a file with one secret a line"
            self._at_secret(client, "secret_file", path, read_secrets, what, self.warnings)
        self._at_file(child_of(self._subscribers, "sessions_file"), "subscribers.sessions_file", self.warnings)

    def _files(self) -> Iterator[str]:
        nodes = [node for each in self._sources for node in _items(child_of(each, "keys"))]
        nodes += [node for each in self._sources if (node := child_of(each, "ca_file")) is not None]
        nodes += [node for each in self._clients if (node := child_of(each, "secret_file")) is not None]
        for key in ("pepper_file", "sessions_file"):
            if (node := child_of(self._subscribers, key)) is not None:
                nodes.append(node)
        yield from (path for node in nodes if (path := _path_of(node)) is not None)
        yield from (path for each in self._sources if (path := _path_of_url(child_of(each, "url"))) is not None)
        if (local := self._local()) is not None:
            yield local
            yield from map(str, paths_of_overrides(Path(local)))

    def _at_source(self, source: Node, path: str) -> None:
        """What would make every attempt on a source fail, whatever its server does."""
        url = child_of(source, "url")
        file = _path_of_url(url)
        if url is not None and file is not None:
            self._say_refused(url, f"{path}.url", file, self.warnings)
            if not os.path.lexists(file) and file not in self._refused:
                what = f"warning: {file}: No such file or directory, expected a file of registrations"
                self.warnings.add(url.place, f"{path}.url", what)
        good: list[Path] = []
        for number, node in enumerate(_items(child_of(source, "keys"))):
            self._at_key(node, f"{path}.keys[{number}]", good)
        self._at_authorities(child_of(source, "ca_file"), f"{path}.ca_file")

    def _at_key(self, node: Node, path: str, good: list[Path]) -> None:
        """`good`: the files before it, to which it is added."""
        file = _path_of(node)
        if file is None or self._say_refused(node, path, file, self.warnings):
            return
        try:
            read_keys([*good, Path(file)])
            good.append(Path(file))
        except KeysUnusable as error:
            what = f"warning: {error.path}: {error.why}, expected a file of public keys (a JWK or a JWK set)"
            self.warnings.add(node.place, path, what)

    def _at_authorities(self, node: Node | None, path: str) -> None:
        file = None if node is None else _path_of(node)
        if node is None or file is None or self._say_refused(node, path, file, self.warnings):
            return
        try:
            load_authorities(Path(file))
        except CaFileUnusable as error:
            self.warnings.add(node.place, path, f"warning: {error}, expected PEM certificates")
            return
        for each in find_shortcomings(Path(file).read_bytes()):
            what = f"warning: {file}: {each}; Python 3.13 and newer will not trust what it signed"
            self.warnings.add(node.place, path, f"{what}, expected a certificate authority by RFC 5280")

    def _at_overrides(self) -> None:
        """The faults of local pins and filters, each with its own file and place. A start refuses them."""
        local = self._local()
        if local is None:
            return
        named = child_of(self._registry, "local")
        place = (named or self._registry).place
        refused = {
            file: why for file, why in self._refused.items() if Path(local) in (Path(file), Path(file).parent)
        }
        for file, why in refused.items():
            self.faults.add(place, "registry.local", f"{file}: {why}")
        if named is not None and not refused and not os.path.lexists(local):
            what = f"warning: {local}: No such file or directory, expected a directory of pins and filters"
            self.warnings.add(place, "registry.local", what)
        self.override_faults = tuple(
            fault for fault in read_overrides(Path(local)).faults if not fault.startswith(tuple(refused))
        )

    def _at_secret(
        self, section: Node, key: str, path: str, read: Callable[[str], object], expected: str, report: Report
    ) -> None:
        """What would keep numbers from being hashed, or a client's accounting from being believed."""
        node = child_of(section, key)
        file = None if node is None else _path_of(node)
        if node is None or file is None or self._say_refused(node, f"{path}.{key}", file, report):
            return
        try:
            read(file)
        except SecretFileUnusable as error:
            self._say(node, f"{path}.{key}", f"{error}, expected {expected}", report)
        if is_exposed(file):
            what = f"warning: {file}: is open to every user of this host"
            self.warnings.add(
                node.place, f"{path}.{key}", f"{what}, expected it to be closed to others (chmod o= FILE)"
            )

    def _at_file(self, node: Node | None, path: str, report: Report) -> None:
        file = None if node is None else _path_of(node)
        if node is not None and file is not None:
            self._say_refused(node, path, file, report)

    def _local(self) -> str | None:
        local = child_of(self._registry, "local")
        return RegistrySettings(()).local if local is None else _path_of(local)

    def _say_refused(self, node: Node, path: str, file: str, report: Report) -> bool:
        why = self._refused.get(file)
        if why is None:
            return False
        self._say(node, path, f"{file}: {why}", report)
        return True

    def _say(self, node: Node, path: str, what: str, report: Report) -> None:
        report.add(node.place, path, f"warning: {what}" if report is self.warnings else what)


def _items(node: Node | None) -> tuple[Node, ...]:
    return node.items if isinstance(node, ListNode) else ()


def _path_of_url(node: Node | None) -> str | None:
    """Of a `file:` URL; anything else has no file, or is a fault already."""
    if not isinstance(node, ScalarNode) or not node.text.startswith("file:/"):
        return None
    return SourceSettings("", node.text).path


def _path_of(node: Node) -> str | None:
    """An absolute path; anything else is null, a credential that the service alone has, or a fault already."""
    if not isinstance(node, ScalarNode) or node.is_null:
        return None
    try:
        path = path_of_file(node.text)
    except FileNotFoundError:
        return None
    return path if path.startswith("/") else None


@click.command("check")
@click.argument("path", required=False, type=click.Path())
@click.option("--config", type=click.Path(), help=f"The file to check.  [default: {DEFAULT_CONFIG}]")
@click.option("--user", help=f"Who must be able to read all of it.  [default: {DEFAULT_USER} for root, else you]")
@click.option("--json", "as_json", is_flag=True, help='Print {"ok": ..., "faults": [...], "warnings": [...]}.')
@click.option(
    "--print-example", is_flag=True, help="Print a file with every key and its default, and check nothing."
)
def command(path: str | None, config: str | None, user: str | None, as_json: bool, print_example: bool) -> None:
    """Check a configuration file and print every problem of it.

    Each line is FILE:LINE:COLUMN: KEY: what is wrong, what is expected. The files of local pins, filters and
    assertions are checked too. Assertions that a reload would break are warnings, where the daemon can be asked.
    Exit status 0 when there is no fault, 2 otherwise.

    Files of keys, authorities and RADIUS secrets that cannot be used are warnings: the daemon starts all the same,
    with the last good of their sources. Without its configuration, local files or pepper it does not start. As root
    it asks whether the service's user can read them.
    """
    if print_example:
        click.echo(write_example(), nl=False)
        return
    if path is not None and config is not None:
        raise click.UsageError("give PATH or --config, not both")
    filename = path or config or DEFAULT_CONFIG
    found = check_file(filename, find_user(user))
    if as_json:
        click.echo(json.dumps({"ok": not found.faults, "faults": found.faults, "warnings": found.warnings}))
    else:
        for line in (*found.faults, *found.warnings):
            click.echo(line, err=True)
        if not found.faults:
            click.echo(f"{click.format_filename(filename)}: ok ({found.summary})")
    if found.faults:
        sys.exit(2)
