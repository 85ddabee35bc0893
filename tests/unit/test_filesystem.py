"""What lies in the place of a file, by mistake or by another user: what it leads to stays, and nothing waits."""

from __future__ import annotations

import ast
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

import gatewayd
from gatewayd.authority.disk import Disk
from gatewayd.cli import main
from gatewayd.filesystem import create_new, is_strange_link, open_ours, read_ours, refuse_other, write_output
from gatewayd.sources.files import replace_file, temporary
from gatewayd.subscribers.journal_file import JournalFile, Written, _put_mark, _read_mark

ROOT = Path(gatewayd.__file__).parent
VICTIM: Final = b"of another program\n"


def link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def dangling(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("made"))


def hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def directory(path: Path, _: Path) -> None:
    path.mkdir()


def unix_socket(path: Path, _: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(path.parent)
        bound.bind(path.name)
        os.chdir(here)


Plant = Callable[[Path, Path], None]
KINDS: Final[tuple[Plant, ...]] = (link, dangling, hard_link, pipe, directory, unix_socket)
plants = pytest.mark.parametrize("plant", KINDS, ids=lambda plant: plant.__name__)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "victim"
    path.parent.mkdir()
    path.write_bytes(VICTIM)
    return path


def is_untouched(victim: Path) -> bool:
    return victim.read_bytes() == VICTIM and sorted(each.name for each in victim.parent.iterdir()) == ["victim"]


WRITERS: Final[dict[str, Callable[[Path], object]]] = {
    "output": lambda path: write_output(path, [b"new"]),
    "state": lambda path: replace_file(path, b"new"),
    "feed": lambda path: Disk().write(path, [b"new"]),
    "mark": lambda path: _put_mark(path, "token", Written(1, 2)),
}


@plants
@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_is_written_past_what_lies_there(writer: str, plant: Plant, tmp_path: Path, victim: Path) -> None:
    path = tmp_path / "file"
    plant(path, victim)
    try:
        WRITERS[writer](path)
    except OSError:
        assert not (path.is_file() and not path.is_symlink()) or plant is hard_link
    # A mark is written into the file that is there; for a hard link that is the file itself.
    assert is_untouched(victim) or (writer == "mark" and plant is hard_link)
    assert [each for each in tmp_path.iterdir() if each.name not in ("file", "elsewhere")] == []


@plants
@pytest.mark.parametrize("writer", ["state", "feed"])
def test_what_lies_in_the_place_of_the_next_file_is_not_written_to(
    writer: str, plant: Plant, tmp_path: Path, victim: Path
) -> None:
    """Its name is known before it is made."""
    path = tmp_path / "file"
    plant(temporary(path) if writer == "state" else tmp_path / ".file.tmp", victim)
    if plant is directory:
        with pytest.raises(OSError, match=r"exists|directory"):
            WRITERS[writer](path)
    else:
        WRITERS[writer](path)
        assert path.read_bytes() == b"new"
    assert is_untouched(victim)


@plants
def test_what_is_read_as_ours_is_a_file_and_no_link(plant: Plant, tmp_path: Path, victim: Path) -> None:
    path = tmp_path / "file"
    plant(path, victim)
    if plant is hard_link:
        assert read_ours(path) == VICTIM
    else:
        with pytest.raises(OSError, match=r"(?i)file|link|loop|directory|device"):
            read_ours(path)
    assert _read_mark(path) is None


@plants
def test_sessions_are_kept_beside_what_lies_there(plant: Plant, tmp_path: Path, victim: Path) -> None:
    """A link of root or of ourselves is an operator's: it is followed where it leads to a database."""
    path = tmp_path / "sessions.sqlite"
    plant(path, victim)
    journal = JournalFile(path)
    try:
        assert journal.open() == ()
    except OSError:
        assert plant is dangling
    finally:
        journal.close()
    assert is_untouched(victim)
    assert stat.S_ISREG(path.lstat().st_mode) or plant is dangling


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link of another user")
def test_a_link_of_another_user_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "theirs.sqlite"
    JournalFile(target).open()
    before = target.read_bytes()
    path = tmp_path / "sessions.sqlite"
    path.symlink_to(target)
    assert not is_strange_link(path)
    os.chown(path, 65534, 65534, follow_symlinks=False)
    assert is_strange_link(path)
    journal = JournalFile(path)
    assert journal.open() == ()
    journal.close()
    assert not path.is_symlink()
    assert journal.stats.set_aside == 1
    assert target.read_bytes() == before
    os.chown(tmp_path, 65534, 65534)
    assert not is_strange_link(path)
    assert not is_strange_link(tmp_path / "nothing")


def test_an_output_is_whole_and_keeps_the_permissions_of_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_output(path, [b"one"])
    path.chmod(0o600)

    def half() -> object:
        yield b"tw"
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_output(path, half())  # type: ignore[arg-type]
    assert path.read_bytes() == b"one"
    write_output(path, [b"two"])
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"two", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_is_no_place_for_an_output() -> None:
    """The rename would put a file there."""
    for path in ("/dev/stdout", "/dev/null"):
        with pytest.raises(OSError, match=r"is a symbolic link|is not a regular file"):
            refuse_other(Path(path))


def test_a_new_file_has_its_mode_and_an_old_one_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "new"
    os.close(create_new(path, 0o600))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.close(open_ours(path, os.O_WRONLY))


def test_export_of_a_registry_replaces_no_link(tmp_path: Path, victim: Path) -> None:
    record = '{"id":"A","category":"bank","status":"active","clients":["39.32.0.0/24"]}'
    database = ["--database", str(tmp_path / "registry.db")]
    assert CliRunner().invoke(main, ["registry", "upsert", record, *database]).exit_code == 0
    out = tmp_path / "out.ndjson"
    out.symlink_to(victim)
    assert CliRunner().invoke(main, ["registry", "export", str(out), *database]).exit_code != 0
    assert is_untouched(victim)


# -- the house ---------------------------------------------------------------------------------------------------

WRITES: Final = {
    ("cli.manual", "path.write_text"): "a package is built with it, in a tree of its own",
    ("cli.registry_authoring", "os.open"): "a key: O_EXCL, never over another file",
    ("kernel.claim", "os.open"): "the lock: O_NOFOLLOW, in a directory that is checked",
    ("filesystem", "os.open"): "here",
    ("lab.*", ""): "tests and the demo, in directories of their own",
    ("demo.*", ""): "tests and the demo, in directories of their own",
}
"""Where files are made otherwise than by `filesystem`, each with the reason."""


def makes_a_file(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    words = ast.unparse(call)
    if name.endswith((".write_text", ".write_bytes", "mkstemp", "NamedTemporaryFile")):
        return True
    if name == "os.open":
        return "O_CREAT" in words
    modes = [each.value for each in call.args[1:2] if isinstance(each, ast.Constant)]
    return name == "open" and any(set(str(mode)) & set("wax") for mode in modes) and not is_of_a_descriptor(call)


def is_of_a_descriptor(call: ast.Call) -> bool:
    return "descriptor" in ast.unparse(call.args[0]) or isinstance(call.args[0], ast.Call)


def test_files_are_made_in_one_place() -> None:
    found = set()
    for path in ROOT.rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and makes_a_file(node):
                found.add((module, ast.unparse(node.func)))
    left = {each for each in found if (f"{each[0].partition('.')[0]}.*", "") not in WRITES}
    assert left == {each for each in WRITES if not each[0].endswith(".*")}
