"""The example file shows what is declared, key for key."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatewayd.errors import SettingsInvalid
from gatewayd.model import parse_prefix
from gatewayd.settings import (
    ListenAddress,
    RadiusClient,
    RadiusSettings,
    RegistrySettings,
    Settings,
    SourceSettings,
    SubscriberSettings,
    load_settings,
)
from gatewayd.settings.load import write_example
from gatewayd.settings.model import SETTINGS
from gatewayd.settings.readers import ListOf, OrNull, Reader, Section
from gatewayd.settings.subscribers import ProfileSettings

EXAMPLE = Path(__file__).parents[3] / "config" / "gatewayd.example.yaml"


def sections(reader: Reader, path: str) -> Iterator[tuple[str, Section[Any]]]:
    """Every section below `reader`, with its path in the document."""
    match reader:
        case Section(keys=keys):
            yield path, reader
            for name, key in keys.items():
                yield from sections(key.reader, f"{path}.{name}".lstrip("."))
        case OrNull(reader=inner):
            yield from sections(inner, path)
        case ListOf(item=item):
            yield from sections(item, f"{path}.0")


SECTIONS = dict(sections(SETTINGS, ""))
SHOWN_ELSEWHERE = {"subscribers.nas.0.profile", "subscribers.radius.clients.0.profile"}
"""Sections that the example shows whole in another place."""


def read_example(*, with_subscribers: bool) -> str:
    lines = EXAMPLE.read_text().splitlines(keepends=True)
    if with_subscribers:
        start = lines.index("#subscribers:\n")
        end = lines.index("\n", start)
        lines[start:end] = [line[1:] for line in lines[start:end]]
    return "".join(lines)


@pytest.mark.parametrize("path", SECTIONS)
def test_every_field_of_the_model_has_one_key(path: str) -> None:
    section = SECTIONS[path]
    fields = [field.name for field in dataclasses.fields(section.cls) if field.init]
    assert sorted(key.field for key in section.keys.values()) == sorted(fields)


@pytest.mark.parametrize("path", SECTIONS)
def test_a_check_reads_fields_that_there_are(path: str) -> None:
    section = SECTIONS[path]
    fields = {field.name for field in dataclasses.fields(section.cls)}
    assert all(fields.issuperset(check.keys) for check in section.checks)


def test_what_is_shown_elsewhere_is_the_same_section() -> None:
    assert all(SECTIONS[path] is SECTIONS["subscribers.profile"] for path in SHOWN_ELSEWHERE)


@pytest.mark.parametrize("path", sorted(SECTIONS.keys() - SHOWN_ELSEWHERE))
def test_every_key_is_in_the_example(path: str) -> None:
    there = yaml.safe_load(read_example(with_subscribers=True))
    for step in path.split(".") if path else ():
        there = there[int(step)] if step.isdigit() else there[step]
    assert set(there) == set(SECTIONS[path].keys)


def test_the_example_is_as_the_declarations_write_it() -> None:
    """`gatewayd check --print-example > config/gatewayd.example.yaml` renews it."""
    assert EXAMPLE.read_text() == write_example()


def test_no_line_of_the_example_is_long() -> None:
    assert max(map(len, write_example().splitlines())) <= 116


@pytest.mark.parametrize("path", SECTIONS)
def test_every_key_of_a_value_has_its_sentence_in_the_example(path: str) -> None:
    example = write_example().replace("#", " ").split()
    for name, key in SECTIONS[path].keys.items():
        assert " ".join(key.sentence.replace("#", " ").split()) in " ".join(example), name
        assert key.sentence or isinstance(key.reader, Section), name
        for sentence in re.split(r"[.;:] |\n", key.sentence):
            assert len(sentence.split()) <= 25, sentence


def test_the_example_shows_the_defaults() -> None:
    shown = load_settings(read_example(with_subscribers=False), "example")
    assert shown == Settings(RegistrySettings(shown.registry.sources))


def test_the_example_shows_the_defaults_of_a_source() -> None:
    source = load_settings(read_example(with_subscribers=False), "example").registry.sources[0]
    assert source.is_signed
    assert source == SourceSettings(source.name, source.url, source.keys)


def test_the_example_shows_the_defaults_of_subscribers_when_they_are_turned_on() -> None:
    clients = (RadiusClient(parse_prefix("10.0.0.0/24"), "/etc/gatewayd/radius.secret"),)
    shown = load_settings(read_example(with_subscribers=True), "example").subscribers
    assert shown is not None
    assert shown == SubscriberSettings("/etc/gatewayd/pepper", nas=shown.nas, radius=RadiusSettings(clients))
    assert [(nas.name, nas.profile) for nas in shown.nas] == [("bng-1", ProfileSettings(interim="snapshot"))]
    assert RadiusSettings(clients).listen == (ListenAddress("0.0.0.0", 1813),)


# -- checks across keys, each with its fault ----------------------------------------------------------------------

LAB = '{name: lab, url: "file:/x", allow_unsigned: true}'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('registry: {sources: [{name: a, url: "file:/notification.jws", keys: [/k]}]}', "verify nothing of a file"),
        ('registry: {sources: [{name: a, url: "https://r/notification.jws"}]}', "is empty for a signed feed"),
        ('registry: {sources: [{name: a, url: "file:/x", allow_unsigned: true, ca_file: /c}]}', "no use to a file"),
        ('registry: {sources: [{name: a, url: "file:/x"}]}', "is an unsigned source"),
        ('registry: {sources: [{name: a, url: "file:/x", allow_unsigned: true, keys: [/k]}]}', "verify nothing"),
        ("registry: {sources: []}", "is an empty list"),
        (f"registry: {{sources: [{LAB}], refresh: 1h, expire: 1m}}", "is shorter than refresh"),
        (
            f"registry: {{sources: [{LAB}]}}\npolicy: {{mode: limit, on_unregistered: {{limit: null}}}}",
            "is null in",
        ),
        (
            f"registry: {{sources: [{LAB}]}}\npolicy: {{interfaces: {{inside: [a], outside: [a]}}}}",
            "a is inside as well",
        ),
        (
            f"registry: {{sources: [{LAB}]}}\n"
            "policy: {enforce_from: 2026-07-01T00:00:00Z, enforce_until: 2026-07-01T00:00:00Z}",
            "enforce_until: is not after enforce_from",
        ),
        (
            f"registry: {{sources: [{LAB}]}}\nkernel: {{nflog_group: 7, near_miss_group: 7}}",
            "near_miss_group: is nflog_group too",
        ),
        (f"registry: {{sources: [{LAB}]}}\nsubscribers: {{}}", "pepper_file: is missing"),
    ],
)
def test_what_must_hold_across_keys(text: str, fault: str) -> None:
    with pytest.raises(SettingsInvalid) as raised:
        load_settings(text, "f")
    (line,) = raised.value.faults
    assert fault in line


def test_local_alone_is_a_registry_and_a_limit_beside_its_mode_is_none_too_many() -> None:
    settings = load_settings("registry: {sources: [], local: /l}\npolicy: {mode: limit}", "f")
    assert (settings.registry.local, settings.policy.mode) == ("/l", "limit")


def test_a_profile_has_what_it_leaves_out_from_the_usual_one() -> None:
    text = f"""
registry: {{sources: [{LAB}]}}
subscribers:
  pepper_file: /p
  profile: {{interim: snapshot, missed_interims: 5}}
  nas: [{{name: a, profile: {{missed_interims: 7}}}}, {{name: b}}]
  radius: {{clients: [{{address: 10.0.0.1, secret_file: /s, profile: {{interim: merge}}}},
                      {{address: 10.0.0.2, secret_file: /s}}]}}
"""
    subscribers = load_settings(text, "f").subscribers
    assert subscribers is not None
    assert subscribers.radius is not None
    found = [each.profile for each in subscribers.nas] + [each.profile for each in subscribers.radius.clients]
    assert [each and (each.interim, each.missed_interims) for each in found] == [
        ("snapshot", 7),
        ("snapshot", 5),
        ("merge", 5),
        None,
    ]


def test_subscribers_without_radius_are_bound_by_the_api() -> None:
    subscribers = load_settings(
        f"registry: {{sources: [{LAB}]}}\nsubscribers: {{pepper_file: /p}}", "f"
    ).subscribers
    assert subscribers == SubscriberSettings("/p")


FILES = """
registry: {{local: null, sources: [{{name: a, url: "https://r.example/n.jws", keys: ["{0}"]}}]}}
subscribers: {{pepper_file: "{0}", radius: {{clients: [{{address: 10.0.0.1, secret_file: "{0}"}}]}}}}
"""


@pytest.mark.parametrize("text", ["/etc/gatewayd/x", "credential:radius.bng-1"])
def test_a_file_may_be_a_credential_of_the_service(text: str) -> None:
    settings = load_settings(FILES.format(text), "f.yaml")
    assert settings.registry.sources[0].keys == (text,)
    assert settings.subscribers is not None
    assert settings.subscribers.radius is not None
    assert settings.subscribers.pepper_file == settings.subscribers.radius.clients[0].secret_file == text


@pytest.mark.parametrize("text", ["credential:", "credential:..", "credential:a/b", "credential:a b"])
def test_a_credential_has_a_name_and_no_path(text: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(FILES.format(text), "f.yaml")
    said = [fault for fault in caught.value.faults if "does not name a credential" in fault]
    assert len(said) == 3
