"""A network namespace for a test that wants a real kernel, or a skip with the reason."""

from __future__ import annotations

import subprocess

import pytest

from gatewayd.errors import MissingPrerequisite
from gatewayd.lab.namespace import Namespace

__all__ = ["Namespace", "namespace_or_skip"]


def namespace_or_skip(*scripts: str) -> Namespace:
    """A namespace in which each nft script has been applied, or pytest.skip with what is missing."""
    try:
        namespace = Namespace("test")
    except MissingPrerequisite as error:
        pytest.skip(str(error))
    try:
        for script in scripts:
            namespace.nft(script)
    except (subprocess.CalledProcessError, OSError) as error:
        namespace.close()
        pytest.skip(f"nft in a namespace does not work here: {error}")
    return namespace
