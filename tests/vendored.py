"""Are the files of others in `gatewayd/page/vendor` as their packages have them? A step of `./run lint`.

Each file is held against the hash in VENDORED.toml. Where npm is there and reaches its registry, each package is
fetched anew, and its hash and its files are compared too. Exit status 1: a file differs.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

VENDOR = Path(__file__).parent.parent / "gatewayd" / "page" / "vendor"
RECORD = "VENDORED.toml"
PATIENCE_S = 60


def read_record(vendor: Path = VENDOR) -> list[dict[str, Any]]:
    packages: list[dict[str, Any]] = tomllib.loads((vendor / RECORD).read_text())["package"]
    return packages


def differences(vendor: Path = VENDOR) -> Iterator[str]:
    """What differs from the record, and what is not in it."""
    recorded = {RECORD}
    for package in read_record(vendor):
        for name, _, sha256 in package["files"]:
            recorded.add(name)
            path = vendor / name
            if not path.is_file():
                yield f"{name} of {package['name']} is missing"
            elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                yield f"{name} is not as {package['name']} {package['version']} has it"
    yield from (f"{each.name} is not in {RECORD}" for each in vendor.iterdir() if each.name not in recorded)


def differences_from(tarball: Path, package: dict[str, Any], vendor: Path = VENDOR) -> Iterator[str]:
    """What differs from a package that was fetched."""
    found = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if found != package["sha512"]:
        yield f"the package {package['name']} {package['version']} has another sha512"
        return
    with tarfile.open(tarball) as archive:
        for name, member, _ in package["files"]:
            content = archive.extractfile(f"package/{member}")
            if content is None or content.read() != (vendor / name).read_bytes():
                yield f"{name} is not {member} of {package['name']} {package['version']}"


def fetch(package: dict[str, Any], directory: Path) -> Path | None:
    """The package, by npm; None: it cannot be reached."""
    name = f"{package['name']}@{package['version']}"
    asked = ["npm", "pack", "--silent", "--pack-destination", str(directory), name]
    try:
        subprocess.run(asked, cwd=directory, check=True, capture_output=True, timeout=PATIENCE_S)
    except (subprocess.SubprocessError, OSError):
        return None
    return next(directory.glob(f"{package['name']}-*.tgz"), None)


def main() -> int:
    faults = list(differences())
    packages = read_record() if shutil.which("npm") else []
    fetched = 0
    with TemporaryDirectory() as directory:
        for package in packages:
            tarball = fetch(package, Path(directory))
            if tarball is None:
                break  # nor would the next be reached
            fetched += 1
            faults += differences_from(tarball, package)
    for each in faults:
        print(f"vendored: {each}", file=sys.stderr)
    alone = "npm is not reached: compared with the record alone"
    how = f"{fetched} packages fetched and compared" if fetched else alone
    print(f"vendored: {how}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
