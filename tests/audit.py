"""Has a locked dependency a known vulnerability? A step of `./run lint`.

pip-audit asks the package index about each version that a lock names. Where the index is not reached, or has no
such data, the step says so and goes on: a build without a network is no worse than it was. pip-audit itself calls
that "no known vulnerabilities". Exit status 1: a vulnerability that audit.toml does not name, or accepts no more.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

REQUIREMENTS = Path(__file__).parent.parent / "requirements"
ACCEPTED = Path(__file__).with_name("audit.toml")
LOCKS = ("bench", "package", "build", "lock")
"""All that is locked is in one of them: `bench` has what `run` and `test` have."""
PATIENCE_S = 180
ANSWER_S = 5
MAX_NAMED = 5


class Vulnerability(msgspec.Struct, frozen=True):
    id: str
    fix_versions: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


class Dependency(msgspec.Struct, frozen=True):
    """As pip-audit writes it. `skip_reason`: its data was not found."""

    name: str
    version: str | None = None
    vulns: tuple[Vulnerability, ...] = ()
    skip_reason: str | None = None


class Answer(msgspec.Struct, frozen=True):
    dependencies: tuple[Dependency, ...]


class Acceptance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`advisory`: its id or an alias. `until`: the last day; the reason is looked at again then."""

    advisory: str
    package: str
    reason: str
    since: datetime.date
    until: datetime.date


@dataclass(frozen=True, slots=True)
class Verdict:
    """`faults` fail the step; `remarks` are said."""

    faults: tuple[str, ...]
    remarks: tuple[str, ...]


def read_accepted(path: Path = ACCEPTED) -> tuple[Acceptance, ...]:
    """Raises msgspec.ValidationError: an entry without a reason or a date."""
    return msgspec.convert(tomllib.loads(path.read_text()).get("accepted", ()), tuple[Acceptance, ...])


def judge(answer: Answer, accepted: Sequence[Acceptance], today: datetime.date) -> Verdict:
    missing = [each for each in answer.dependencies if each.skip_reason is not None]
    asked = len(answer.dependencies) - len(missing)
    faults, used = [], set()
    for dependency, found in _vulnerabilities(answer):
        names = {found.id, *found.aliases}
        acceptance = next((a for a in accepted if a.package == dependency.name and a.advisory in names), None)
        if acceptance is not None:
            used.add(acceptance)
            if today <= acceptance.until:
                continue
        mend = f"mended in {', '.join(found.fix_versions)}" if found.fix_versions else "no version mends it yet"
        over = "" if acceptance is None else f", which was accepted until {acceptance.until}"
        faults.append(f"{dependency.name} {dependency.version} has {found.id}, {mend}{over}")
    remarks = [f"{asked} of {len(answer.dependencies)} locked packages audited"]
    if missing and not asked:
        remarks = [f"NOT DONE: the package index has no such data; {len(missing)} locked packages are unaudited"]
    elif missing:
        more = "" if len(missing) <= MAX_NAMED else f" and {len(missing) - MAX_NAMED} more"
        remarks.append(f"no data of {', '.join(each.name for each in missing[:MAX_NAMED])}{more}")
    if not missing:
        remarks += [f"{a.advisory} of {a.package} is found no more: remove it" for a in accepted if a not in used]
    return Verdict(tuple(faults), tuple(remarks))


def _vulnerabilities(answer: Answer) -> Iterator[tuple[Dependency, Vulnerability]]:
    for dependency in answer.dependencies:
        for found in dependency.vulns:
            yield dependency, found


def ask() -> Answer | None:
    """None: the index is not reached."""
    files = [word for lock in LOCKS for word in ("--requirement", str(REQUIREMENTS / f"{lock}.txt"))]
    asked = [
        *(sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"),
        *("--timeout", str(ANSWER_S), "--format", "json", *files),
    ]
    try:
        done = subprocess.run(asked, capture_output=True, timeout=PATIENCE_S, check=False)
        return msgspec.json.decode(done.stdout, type=Answer)
    except (subprocess.TimeoutExpired, OSError, msgspec.DecodeError):
        return None


def main() -> int:
    answer = ask()
    if answer is None:
        print("audit: NOT DONE: the package index is not reached, no lock is audited", file=sys.stderr)
        return 0
    verdict = judge(answer, read_accepted(), datetime.datetime.now(datetime.UTC).date())
    for each in (*verdict.faults, *verdict.remarks):
        print(f"audit: {each}", file=sys.stderr)
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
