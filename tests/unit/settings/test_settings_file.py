"""The shell that reads the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gatewayd.errors import SettingsInvalid
from gatewayd.settings import MAX_FILE_BYTES, open_regular, read_settings

LAB = 'registry: {sources: [{name: lab, url: "file:/lab.csv", allow_unsigned: true}]}\n'


def faults_of(path: Path | str) -> tuple[str, ...]:
    with pytest.raises(SettingsInvalid) as refusal:
        read_settings(path)
    return refusal.value.faults


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(LAB)
    assert read_settings(path).registry.sources[0].name == "lab"
    assert read_settings(str(path)) == read_settings(path)


def test_faults_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(LAB + "statedir: /x\n")
    assert faults_of(path) == (f"{path}:2:1: statedir: unknown key, expected state_dir",)


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    assert faults_of(path) == (f"{path}: cannot be read: No such file or directory, expected a YAML file",)


def test_a_directory_is_a_fault(tmp_path: Path) -> None:
    assert faults_of(tmp_path) == (f"{tmp_path}: cannot be read: Is a directory, expected a YAML file",)


def test_a_path_with_a_nul_is_a_fault() -> None:
    assert faults_of("a\0b") == ("a\0b: cannot be read: embedded null byte, expected a YAML file",)


def test_bytes_that_are_not_utf8_are_a_fault_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_bytes(b"log:\n  lev\xe9l: info\n")
    assert faults_of(path) == (f"{path}:2:6: (file): the byte 0xe9 is not UTF-8, expected UTF-8 text",)


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert faults_of(path) == (f"{path}: is too large, expected at most {MAX_FILE_BYTES} bytes",)


def test_a_fifo_and_a_device_are_no_files_and_nobody_waits_for_them(tmp_path: Path) -> None:
    fifo = tmp_path / "g.yaml"
    os.mkfifo(fifo)
    for path in (fifo, "/dev/zero"):
        assert faults_of(path) == (f"{path}: cannot be read: not a regular file, expected a YAML file",)


def test_a_credential_is_where_systemd_put_it_for_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pepper").write_text("of a credential")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with open(open_regular("credential:pepper")) as file:
        assert file.read() == "of a credential"


def test_a_process_without_credentials_says_who_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(FileNotFoundError, match="only the service has it"):
        open_regular("credential:pepper")
