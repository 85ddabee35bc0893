"""Files of public keys → keys that a feed is verified with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from gatewayd.errors import KeyInvalid, KeysUnusable
from gatewayd.registry.notification import VerifyingKey, load_verifying_keys

LARGEST_KEY_FILE_BYTES: Final = 64 * 1024


def read_keys(paths: Iterable[Path]) -> dict[str, VerifyingKey]:
    """By `kid`, of all files together. Blocking. Raises KeysUnusable, which names the file."""
    keys: dict[str, VerifyingKey] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                octets = file.read(LARGEST_KEY_FILE_BYTES)
            found = load_verifying_keys([octets.decode()])
            for kid, key in found.items():
                if keys.setdefault(kid, key) != key:
                    raise KeyInvalid(f"{kid} is another key in another file")
        except OSError as error:
            raise KeysUnusable(str(path), error.strerror or str(error)) from None
        except UnicodeDecodeError:
            raise KeysUnusable(str(path), "is not UTF-8") from None
        except KeyInvalid as error:
            raise KeysUnusable(str(path), error.why) from None
    return keys
