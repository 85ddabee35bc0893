"""The image of Containerfile, built without a registry of images: it publishes a feed, and it plays the demo.

No container engine is asked either: the image's files are the root of a process. It is the first of its namespace
of processes, and has the user, directory and command that the image names.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from gatewayd.feed.notification import load_verifying_keys, open_notification
from gatewayd.lab.namespace import Namespace
from tests.support.lab_daemon import holds

pytestmark = [pytest.mark.kernel, pytest.mark.host]

ROOT = Path(__file__).parents[2]
IMAGES = Path(os.environ.get("TREES", "/var/tmp/gatewayd-trees")) / "images"


def buildah(*arguments: str) -> str:
    command = ["buildah", "--root", str(IMAGES / "root"), "--runroot", str(IMAGES / "run"), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


@dataclass(frozen=True, slots=True)
class Image:
    """`root`: its files, in a container that a test may write to."""

    root: Path
    config: dict[str, Any]

    def command(self, *arguments: str, user: str, directory: str) -> list[str]:
        uid, _, gid = user.partition(":")
        return [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(f"--root={self.root}", f"--wd={directory}", f"--setgid={gid}", f"--setuid={uid}"),
            *(*self.config["Entrypoint"], *arguments),
        ]


@pytest.fixture(scope="module")
def image(kernel: None) -> Iterator[Image]:
    build = [ROOT / "tests" / "image.sh"]
    environment = os.environ | {"IMAGES": str(IMAGES)}
    done = subprocess.run(build, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    config = json.loads(buildah("inspect", "--type", "image", "localhost/gatewayd"))["OCIv1"]["config"]
    container = buildah("from", "localhost/gatewayd")
    try:
        yield Image(Path(buildah("mount", container)), config)
    finally:
        buildah("rm", container)


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_inside(process: subprocess.Popen[bytes]) -> int:
    """The process that is number 1 in the image."""
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def fetch(namespace: Namespace, address: tuple[str, int], path: str) -> tuple[int, bytes]:
    connection = HTTPConnection(*address)
    with namespace.entered():
        connection.sock = socket.create_connection(address)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_image_has_no_compiler_and_runs_as_a_user_of_its_own(image: Image) -> None:
    assert image.config["User"] == "990:990"
    assert set(image.config["Volumes"]) == {image.config["WorkingDir"]}
    assert not [each for each in ("cc", "gcc", "pip") if (image.root / "usr/bin" / each).exists()]
    assert not list((image.root / "usr/lib/gatewayd").rglob("site-packages/pip"))
    entries = (image.root / "etc/passwd").read_text()
    assert re.search(r"^gatewayd:x:990:990:.*:/registry:", entries, re.MULTILINE)


def test_it_keeps_a_registry_and_serves_its_feed(image: Image) -> None:
    """As its user, in its directory; the container ends as it is told to."""
    directory = image.config["WorkingDir"]
    shutil.copy(ROOT / "config" / "registry.example.csv", image.root / "registry")

    def command(*arguments: str) -> list[str]:
        return image.command(*arguments, user=image.config["User"], directory=directory)

    with Namespace("registry") as namespace:
        for words in ("keygen national --kid n-1", "import registry.example.csv", "publish --key national"):
            namespace.run(command("registry", *words.split()))
        with ended(namespace.popen(command(*image.config["Cmd"]), stdout=subprocess.PIPE)) as serving:
            assert serving.stdout is not None
            assert serving.stdout.readline() == b"serving http://0.0.0.0:8080/\n"
            status, raw = fetch(namespace, ("127.0.0.1", 8080), "/notification.jws")
            assert status == 200
            keys = load_verifying_keys([(image.root / "registry" / "national.pub").read_text()])
            assert open_notification(raw, keys).snapshot.count == 12
            os.kill(first_inside(serving), signal.SIGTERM)
            assert serving.wait(30) == 0


def test_it_plays_the_demo_and_shows_its_page(image: Image, tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    arguments = ("demo", "--registrations", "300", "--keep", "--listen", "127.0.0.1:9480")
    with Namespace("demo") as namespace, output.open("wb") as log:
        playing = namespace.popen(
            image.command(*arguments, user="0:0", directory="/"), stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        with ended(playing):
            assert holds(lambda: "http://127.0.0.1" in output.read_text() or playing.poll() is not None, 120.0)
            assert "promises were kept" in output.read_text()
            assert fetch(namespace, ("127.0.0.1", 9480), "/readyz")[0] == 200
            status, page = fetch(namespace, ("127.0.0.1", 9480), "/")
            assert status == 200
            assert b"READY" in page
            parts = re.findall(rb'(?:href|src)="(/[^"?]+\.(?:css|js|mjs))', page)
            assert parts
            assert {fetch(namespace, ("127.0.0.1", 9480), each.decode())[0] for each in parts} == {200}
            os.kill(first_inside(playing), signal.SIGTERM)
            assert holds(lambda: playing.poll() is not None, 60.0)
    assert list((image.root / "tmp").glob("gatewayd-demo-*")) == []
