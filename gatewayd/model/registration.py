"""A registration: one entry of the registry, already validated.

There may be a million; they are frozen, untracked by the garbage collector, and share their parts
(`services`, `category`) where the reader interns them.
"""

from __future__ import annotations

from math import inf
from typing import Literal

import msgspec

from gatewayd.model.prefix import Prefix
from gatewayd.model.service import Service

Status = Literal["active", "suspended", "revoked"]


class Registration(msgspec.Struct, frozen=True, gc=False):
    """`clients`, `peers`, `services`: sorted, unique; no peers = any, no services = any.

    `subscriber`: 32-byte digest or None. `valid_from_s`, `valid_until_s`: Unix seconds, ∓inf when open.
    """

    id: str
    category: str
    status: Status
    clients: tuple[Prefix, ...]
    subscriber: bytes | None = None
    peers: tuple[Prefix, ...] = ()
    services: tuple[Service, ...] = ()
    valid_from_s: float = -inf
    valid_until_s: float = inf

    def is_effective(self, now: float) -> bool:
        """Active, and `valid_from ≤ now < valid_until`."""
        return self.status == "active" and self.valid_from_s <= now < self.valid_until_s
