"""A grant: what a registration of a subscriber is given at an address that the subscriber has at present."""

from __future__ import annotations

import msgspec

from gatewayd.model.prefix import Prefix
from gatewayd.model.registration import Registration


class Grant(msgspec.Struct, frozen=True, gc=False):
    """`registration` may be used at `prefix`, whoever opens the flow; of a shared IPv4 address (CGNAT) with the
    subscriber's port in first..last alone. A value: two of the same registration, prefix and ports are one."""

    registration: Registration
    prefix: Prefix
    ports: tuple[int, int] | None = None
