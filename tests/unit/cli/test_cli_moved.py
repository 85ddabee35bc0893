"""A virtual environment that is moved, or whose Python is gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gatewayd as pip installs it; its dependencies are those of this environment."""
    made = tmp_path_factory.mktemp("installed")
    source, environment = made / "source", made / "environment"
    shutil.copytree(ROOT / "gatewayd", source / "gatewayd", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/python3*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", str(made), str(source)], check=True)
    (wheel,) = made.glob("*.whl")
    subprocess.run(
        [*pip, "--python", str(environment / "bin/python3"), "install", *options, str(wheel)], check=True
    )
    return environment


def run(command: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([command, "--version"], env=env, cwd="/", capture_output=True, text=True, check=False)


@pytest.fixture
def moved(installed: Path, tmp_path: Path) -> Path:
    target = tmp_path / "some where else"
    shutil.copytree(installed, target, symlinks=True)
    return target / "bin" / "gatewayd"


def test_it_works_where_it_is_also_by_a_link(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "gatewayd").symlink_to(installed / "bin" / "gatewayd")
    for command in (installed / "bin" / "gatewayd", tmp_path / "gatewayd"):
        done = run(command)
        assert (done.returncode, done.stdout[:18]) == (0, "gatewayd, version "), done.stderr


def test_one_that_was_moved_works_and_uses_nothing_of_the_old_place(moved: Path) -> None:
    done = run(moved)
    assert (done.returncode, done.stdout[:18]) == (0, "gatewayd, version "), done.stderr
    (package,) = moved.parents[1].glob("lib/python3*/site-packages/gatewayd")
    package.rename(package.with_name("elsewhere"))
    done = run(moved)
    assert done.returncode == 1
    assert done.stderr.endswith("has no gatewayd: make the virtual environment again with this Python.\n")


def test_one_whose_python_is_gone_says_so(moved: Path) -> None:
    python = moved.with_name("python3")
    python.unlink()
    python.symlink_to("/usr/bin/python3.2")
    done = run(moved)
    assert done.returncode == 2
    assert f"{python} is not there" in done.stderr
    assert "Make the environment again" in done.stderr


def test_another_first_line_makes_it_a_script_of_python(moved: Path) -> None:
    """As the Debian package has it, which knows where its Python is."""
    _, _, rest = moved.read_text().partition("\n")
    script = moved.with_name("script")
    script.write_text(f"#!/usr/bin/env -S {sys.executable} -I\n{rest}")
    script.chmod(0o755)
    done = run(script)
    assert (done.returncode, done.stdout[:18]) == (0, "gatewayd, version "), done.stderr
