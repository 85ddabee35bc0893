"""`./run cover [MODULE...]`: the branch coverage of each pure module from its own tests alone, as a gate.

A module's own tests are tests/unit/PACKAGE/test_PACKAGE_MODULE.py and test_PACKAGE_MODULE_*.py, without those that
belong to a module with a longer name. Tests that need a kernel do not count. A module without tests is measured by
its import: declarations need no more.

Every module is to have 100 %. tests/cover.txt lists the exceptions with their percentage. The gate fails where a
module has less than that. Where it has more, the gate says so, and `./run cover --write` renews the list. A line
new there, or lower, needs a reason in the commit. Of a property, the explicit examples alone are run: which
random ones there are depends on the release of Python, and a gate that depends on it is open here and shut there.
"""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
from coverage import Coverage
from coverage.exceptions import NoDataError

from tests.unit.test_imports import MODULES, PURE

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "tests/unit"
LIST = ROOT / "tests/cover.txt"
PATIENCE_S = 1800.0
"""One module on a machine that is busy with something else; some seconds are usual."""
_PYTEST = (
    "pytest",
    "-q",
    "-x",
    "-p",
    "no:xdist",
    "-p",
    "no:cacheprovider",
    "-m",
    "not kernel",
    "--hypothesis-profile=explicit",
)
SLACK_PERCENT = 1
"""Of a module on the list: releases of Python do not count the branches of a generator alike."""
_NO_TESTS = 5
"""pytest's exit status where `-m` left none."""


@dataclass(frozen=True, slots=True)
class Measured:
    """`percent`: rounded down. `missing`: the lines and branches that did not run; or the end of what failed."""

    module: str
    percent: int
    missing: str = ""
    failed: bool = False


def own_tests(module: str) -> list[Path]:
    """Test files of `module`, a name such as `subscribers.radius.packet`."""
    *packages, name = module.split(".")
    prefix = "_".join(["test", *packages[-1:], name])
    directory = UNIT.joinpath(*packages)
    neighbours = {path.stem for path in MODULES[module].parent.glob("*.py")} - {name}
    longer = [f"{prefix}{each.removeprefix(name)}" for each in neighbours if each.startswith(f"{name}_")]
    return [
        path
        for path in sorted(directory.glob("*.py"))
        if _is_of(path.stem, prefix) and not any(_is_of(path.stem, each) for each in longer)
    ]


def _is_of(stem: str, prefix: str) -> bool:
    return stem == prefix or stem.startswith(f"{prefix}_")


def full_name(module: str) -> str:
    return module if module == "gatewayd" else f"gatewayd.{module}"


def measure(module: str) -> Measured:
    """Run the module's own tests in a process of their own: no other test has imported or called anything there."""
    with tempfile.TemporaryDirectory(prefix="gatewayd-cover-") as scratch:
        tests = [str(path) for path in own_tests(module)]
        ran = _run(module, [*_PYTEST, *tests], scratch) if tests else None
        if ran is None or ran.returncode == _NO_TESTS:
            ran = _run(module, ["tests.cover_import", full_name(module)], scratch)
        if ran.returncode != 0:
            return Measured(module, 0, "\n".join(ran.stdout.splitlines()[-15:]), failed=True)
        return _report(module, scratch)


def _run(module: str, command: list[str], scratch: str) -> subprocess.CompletedProcess[str]:
    coverage = ["coverage", "run", "--branch", f"--source={full_name(module)}", f"--data-file={scratch}/data", "-m"]
    whole = [sys.executable, "-m", *coverage, *command]
    # pytest's temporary directories go with the rest; a shared root of theirs is a race between processes.
    environment = {**os.environ, "PYTEST_DEBUG_TEMPROOT": scratch}
    return subprocess.run(
        whole,
        cwd=ROOT,
        env=environment,
        timeout=PATIENCE_S,
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _report(module: str, scratch: str) -> Measured:
    coverage = Coverage(data_file=f"{scratch}/data", branch=True, config_file=str(ROOT / "pyproject.toml"))
    coverage.load()
    table = io.StringIO()
    try:
        percent = coverage.report(morfs=[str(MODULES[module])], file=table, show_missing=True)
    except NoDataError:
        return Measured(module, 100)  # an empty file
    missing = next(line for line in table.getvalue().splitlines() if ".py" in line).rpartition("%")[2].strip()
    return Measured(module, math.floor(percent), missing)


def read_list(text: str) -> dict[str, int]:
    """`MODULE PERCENT` a line, `#` a comment."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return {line[0]: int(line[1]) for line in lines if line}


def encode_list(exceptions: Mapping[str, int]) -> str:
    head = "# Pure modules that their own tests do not cover whole, with their percentage. May only become fewer.\n"
    return head + "".join(f"{module} {percent}\n" for module, percent in sorted(exceptions.items()))


def judge(measured: Measured, exceptions: Mapping[str, int]) -> str | None:
    """None, or the reason why the gate is shut."""
    wanted = exceptions.get(measured.module, 100)
    if measured.failed:
        return f"{measured.module}: its own tests failed\n{measured.missing}"
    slack = 0 if wanted == 100 else SLACK_PERCENT
    if measured.percent < wanted - slack:
        return f"{measured.module}: {measured.percent} % of {wanted} %; missing {measured.missing}"
    return None


def is_better(measured: Measured, exceptions: Mapping[str, int]) -> bool:
    return measured.percent > exceptions.get(measured.module, 100)


def measure_all(modules: Iterable[str]) -> list[Measured]:
    """The longest first, so that no core waits for the last one."""
    longest_first = sorted(modules, key=lambda each: -sum(path.stat().st_size for path in own_tests(each)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sorted(pool.map(measure, longest_first), key=lambda each: each.module)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--write", is_flag=True, help="Write tests/cover.txt anew.")
@click.argument("modules", nargs=-1, metavar="[MODULE...]")
def main(modules: tuple[str, ...], write: bool) -> None:
    """Measure pure modules by their own tests: all, or those named (compile.masks) with what is missing."""
    pure = PURE.split()
    for module in modules:
        if module not in pure:
            raise click.BadParameter(f"{module} is no pure module of tests/unit/test_imports.py")
    exceptions = read_list(LIST.read_text())
    measured = measure_all(modules or pure)
    for each in measured if modules else ():
        tests = ", ".join(path.name for path in own_tests(each.module)) or "none, imported"
        click.echo(f"{each.module}: {each.percent} % ({tests}) {each.missing if not each.failed else ''}")
    if write:
        others = {name: percent for name, percent in exceptions.items() if modules and name not in modules}
        below = {each.module: each.percent for each in measured if each.percent < 100}
        LIST.write_text(encode_list({name: others.get(name, below.get(name, 0)) for name in {*others, *below}}))
        exceptions = read_list(LIST.read_text())
    reasons = [reason for each in measured if (reason := judge(each, exceptions)) is not None]
    reasons += (
        []
        if modules
        else [f"{name}: in tests/cover.txt, and no pure module" for name in exceptions if name not in pure]
    )
    for reason in reasons:
        click.echo(reason)
    for each in measured:
        if is_better(each, exceptions):
            click.echo(f"{each.module}: {each.percent} %, more than tests/cover.txt says: ./run cover --write")
    full = sum(each.percent == 100 for each in measured)
    click.echo(f"{full} of {len(measured)} pure modules are covered whole by their own tests")
    sys.exit(1 if reasons else 0)


if __name__ == "__main__":
    main()
