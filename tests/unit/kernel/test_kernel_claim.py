"""Who keeps the table: one process, whatever files were left behind and whoever holds names elsewhere."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer

import pytest

from gatewayd.errors import MissingPrerequisite
from gatewayd.kernel.claim import claimed_table

HOLD = """
import os, sys
from pathlib import Path
from gatewayd.kernel.claim import claimed_table
with claimed_table("gatewayd", Path("/nowhere"), Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
HOLD_WITH_A_CHILD = """
import os, sys
from pathlib import Path
from gatewayd.kernel.claim import claimed_table
with claimed_table("gatewayd", Path("/nowhere"), Path(sys.argv[1])):
    if os.fork() == 0:
        print("held", flush=True)
        sys.stdin.readline()
        os._exit(0)
    os.wait()
"""
TAKE = """
import os, sys
from pathlib import Path
from gatewayd.errors import MissingPrerequisite
from gatewayd.kernel.claim import claimed_table
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    with claimed_table("gatewayd", Path("/nowhere"), Path(sys.argv[1])):
        print("taken")
except MissingPrerequisite as error:
    print(error)
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")


def claim(directory: Path) -> None:
    with claimed_table("gatewayd", Path("/nowhere"), directory):
        pass


def as_nobody(directory: Path) -> str:
    done = subprocess.run([sys.executable, "-c", TAKE, str(directory)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def held_elsewhere(directory: Path, program: str = HOLD) -> subprocess.Popen[bytes]:
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    return holder


def end(holder: subprocess.Popen[bytes], number: signal.Signals | None = None) -> None:
    if number is not None:
        holder.send_signal(number)
    holder.communicate()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir(mode=0o750)
    return made


def test_a_table_is_kept_by_one_process_and_is_free_when_that_ends(directory: Path) -> None:
    holder = held_elsewhere(directory)
    with pytest.raises(MissingPrerequisite, match=rf"keeps table inet gatewayd \(process {holder.pid}\)"):
        claim(directory)
    with claimed_table("other", Path("/nowhere"), directory):
        pass
    end(holder)
    assert list(directory.iterdir()) == []
    claim(directory)


def test_what_a_killed_daemon_leaves_behind_is_in_nobodys_way(directory: Path) -> None:
    end(held_elsewhere(directory), signal.SIGKILL)
    (stale,) = directory.iterdir()
    assert stale.stat().st_mode & 0o777 == 0o600
    claim(directory)
    assert list(directory.iterdir()) == []


def test_a_child_that_a_killed_daemon_has_just_forked_is_waited_for(directory: Path) -> None:
    holder = held_elsewhere(directory, HOLD_WITH_A_CHILD)
    holder.kill()
    holder.wait()
    assert holder.stdin is not None
    ending = Timer(0.2, os.write, (holder.stdin.fileno(), b"\n"))
    ending.start()
    claim(directory)
    ending.join()
    holder.communicate()
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no number\n", b"99999999999999999999\n", b"1\n"])
def test_a_lock_whose_process_is_not_known_or_runs_is_not_waited_for(directory: Path, content: bytes) -> None:
    holder = held_elsewhere(directory)
    (lock,) = directory.iterdir()
    lock.write_bytes(content)
    begun = time.monotonic()
    with pytest.raises(MissingPrerequisite, match="another gatewayd keeps table inet gatewayd"):
        claim(directory)
    assert time.monotonic() - begun < 4.0
    end(holder)


def test_a_child_that_stays_is_not_waited_for_for_ever(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewayd.kernel.claim._PATIENCE_S", 0.1)
    holder = held_elsewhere(directory, HOLD_WITH_A_CHILD)
    holder.kill()
    holder.wait()
    with pytest.raises(MissingPrerequisite, match=rf"\(process {holder.pid}\)"):
        claim(directory)
    holder.communicate()


def test_the_abstract_name_of_before_is_in_nobodys_way(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind("\0gatewayd/gatewayd")
        claim(directory)


def test_a_directory_that_is_not_there_is_made(tmp_path: Path) -> None:
    with claimed_table("gatewayd", Path("/nowhere"), tmp_path / "made"):
        assert (tmp_path / "made").stat().st_mode & 0o027 == 0


def test_where_it_cannot_be_made_the_other_directory_is_used(tmp_path: Path, directory: Path) -> None:
    with claimed_table("gatewayd", directory, tmp_path / "no" / "such"):
        assert len(list(directory.iterdir())) == 1
    with pytest.raises(MissingPrerequisite, match="cannot be used: No such file"):
        claim_both(tmp_path / "neither", tmp_path / "no" / "such")


def claim_both(fallback: Path, directory: Path) -> None:
    with claimed_table("gatewayd", fallback, directory):
        pass


def test_a_directory_that_everybody_may_write_to_is_refused(directory: Path) -> None:
    directory.chmod(0o777)
    with pytest.raises(MissingPrerequisite, match="every user may write to it"):
        claim(directory)


@pytest.mark.parametrize("kind", ["link", "directory"])
def test_something_else_of_that_name_is_refused_by_name(directory: Path, kind: str) -> None:
    name = directory / f"gatewayd-{os.stat('/proc/self/ns/net').st_ino}.lock"
    if kind == "link":
        name.symlink_to("/etc/passwd")
    else:
        name.mkdir()
    with pytest.raises(MissingPrerequisite, match=r"\.lock (is a symbolic link|cannot be opened)"):
        claim(directory)


@as_root
def test_the_directory_of_another_user_is_refused_and_what_root_left_in_ones_own_is_taken() -> None:
    with TemporaryDirectory() as reachable:
        os.chmod(reachable, 0o755)
        theirs, own = Path(reachable) / "theirs", Path(reachable) / "own"
        for path, user in ((theirs, 12345), (own, 65534)):
            path.mkdir()
            path.chmod(0o770)
            os.chown(path, user, 65534)
        assert "belongs to another user" in as_nobody(theirs)
        end(held_elsewhere(own), signal.SIGKILL)
        assert len(list(own.iterdir())) == 1
        assert as_nobody(own) == "taken"
