"""The files of others are unmodified, and the step that says so sees what it looks for."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.vendored import RECORD, VENDOR, differences, differences_from, read_record


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(VENDOR, tmp_path / "vendor"))


def test_the_files_are_as_recorded() -> None:
    assert list(differences()) == []


def test_each_package_has_its_licence_beside_it() -> None:
    for package in read_record():
        assert package["licence"] in ("MIT", "Apache-2.0")
        text = (VENDOR / f"LICENSE.{package['name']}").read_text()
        assert ("Apache License" if package["licence"] == "Apache-2.0" else "MIT License") in text


def test_a_file_that_was_changed_is_missing_or_is_new_is_seen(copy: Path) -> None:
    (copy / "uPlot.min.css").write_text("body{}")
    (copy / "LICENSE.htm").unlink()
    (copy / "more.js").touch()
    assert set(differences(copy)) == {
        "uPlot.min.css is not as uplot 1.6.32 has it",
        "LICENSE.htm of htm is missing",
        f"more.js is not in {RECORD}",
    }


def test_a_package_of_another_hash_or_content_is_seen(copy: Path) -> None:
    package = read_record()[1]
    tarball = copy / "preact.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        member = tarfile.TarInfo("package/LICENSE")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"other"))
    assert list(differences_from(tarball, package, copy)) == ["the package preact 10.29.8 has another sha512"]
    package["sha512"] = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    assert list(differences_from(tarball, package, copy)) == ["LICENSE.preact is not LICENSE of preact 10.29.8"]
