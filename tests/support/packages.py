"""Debian packages of this checkout, and other versions of them.

Another version is a package with a few words changed: a clone of CI has no older commit, and a build takes long.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
SITE = "usr/lib/gatewayd/installed/lib/python3.*/site-packages/gatewayd"

Edits = Mapping[str, tuple[str, str]]
"""File below the program's package → words, and what stands there instead."""


def debian_package(suite: str, directory: Path, *, again: bool = False) -> Path:
    """The package of a suite, copied to `directory`. `again`: built once more, whatever is there."""
    environment = {**os.environ, "DIST": str(directory), **({"AGAIN": "yes"} if again else {})}
    command = [str(ROOT / "debian/build.sh"), suite]
    built = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Path(built.stdout.strip())


def other_version(package: Path, version: str, edits: Edits = {}) -> Path:  # noqa: B006
    """Beside `package`. Raises AssertionError where the words of an edit are not there."""
    tree = package.with_name(f"{package.stem}-{version}")
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*", f"Version: {version}", control.read_text(), flags=re.MULTILINE))
    for name, (old, new) in {**edits, "__init__.py": ('"0.1.0"', f'"{version}"')}.items():
        (file,) = tree.glob(f"{SITE}/{name}")
        assert old in file.read_text(), f"{name}: {old}"
        file.write_text(file.read_text().replace(old, new))
    made = package.with_name(f"gatewayd_{version}.deb")
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--build", tree, made], check=True, stdout=subprocess.DEVNULL)
    return made
