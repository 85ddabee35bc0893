"""A process that dies badly leaves no memory behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ABORT = "import os; os.abort()"
FORBID = "from gatewayd.subscribers.secret_files import forbid_core_dumps; forbid_core_dumps(); "


def dies_with_core(program: str, directory: Path) -> bool:
    """Whether the kernel wrote, or handed on, a core of it."""

    def unlimited() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=directory,
        preexec_fn=unlimited,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    _, status = os.waitpid(process.pid, 0)
    process.returncode = 0
    assert os.WTERMSIG(status) == signal.SIGABRT
    return os.WCOREDUMP(status)


def test_no_core_is_left_where_one_would_be(tmp_path: Path) -> None:
    if not dies_with_core(ABORT, tmp_path):
        pytest.skip("this host writes no core of any process (ulimit -c, core_pattern)")
    assert not dies_with_core(FORBID + ABORT, tmp_path)


def test_the_kernel_is_told() -> None:
    ask = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    answers = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
        for program in (ask, FORBID + ask)
    ]
    assert [each.stdout.strip() for each in answers] == ["1", "0"]
