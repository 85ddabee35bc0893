"""The locks in requirements/ fit pyproject.toml, with a hash for every file. `./run lock` renews them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
LOCKS = ("build", "run", "package", "test", "bench", "lock")


def project() -> dict[str, list[str]]:
    """What each lock has to fit."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    run = table["dependencies"]
    extras = table["optional-dependencies"]

    def others(extra: str) -> list[str]:
        return [line for line in extras[extra] if not line.startswith("gatewayd[")]

    package = [*run, *extras["top"]]
    test = [*package, *others("test")]
    bench = [*test, *others("bench")]
    own = {name: (ROOT / f"requirements/{name}.in").read_text().splitlines() for name in ("build", "lock")}
    return {"run": run, "package": package, "test": test, "bench": bench} | {
        name: [line for line in lines if line and not line.startswith("#")] for name, lines in own.items()
    }


def pins(name: str) -> list[tuple[Requirement, int]]:
    """Each pin with its number of hashes; a package may have one for each of several Pythons."""
    text = re.sub(r"\\\n", " ", (ROOT / f"requirements/{name}.txt").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(Requirement(line.partition(" --hash")[0]), line.count("--hash=sha256:")) for line in lines]


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_is_locked_within_its_range(name: str) -> None:
    locked = pins(name)
    for wanted in map(Requirement, project()[name]):
        found = [pin for pin, _ in locked if canonicalize_name(pin.name) == canonicalize_name(wanted.name)]
        assert found, f"{wanted.name}: ./run lock"
        for pin in found:
            (version,) = pin.specifier
            assert wanted.specifier.contains(version.version), f"{pin} is not {wanted}: ./run lock"


@pytest.mark.parametrize("name", LOCKS)
def test_everything_locked_is_one_version_with_hashes(name: str) -> None:
    for pin, hashes in pins(name):
        assert [each.operator for each in pin.specifier] == ["=="], pin
        assert hashes > 0, pin


@pytest.mark.parametrize("name", ["run", "package", "test"])
def test_a_package_has_the_same_version_in_every_lock(name: str) -> None:
    def versions(lock: str) -> set[str]:
        return {f"{pin.name}{pin.specifier}" for pin, _ in pins(lock)}

    assert versions(name) <= versions("bench")
