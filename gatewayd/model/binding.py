"""A binding: an address that a registered subscriber has at present, as the NAS reported it."""

from __future__ import annotations

from typing import Literal

import msgspec

from gatewayd.model.prefix import Prefix
from gatewayd.model.registration import Registration

Ports = tuple[int, int] | None
"""First and last port of a port block; None = the whole address."""


class Binding(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """`subscriber` has `prefix`, or of a shared IPv4 address (CGNAT) the `ports` first..last alone.

    One session that holds it stands for all that do. Times are Unix seconds, as the NAS reports them.
    """

    subscriber: bytes
    """Digest of 32 bytes."""
    prefix: Prefix
    ports: Ports = None
    since_s: float
    """Of the record by which the binding was made."""
    confirmed_s: float
    """Of the last record that named this address, when the Binding was made."""
    nas: str
    session: str
    is_restored: bool = False
    """Known from before a restart of gatewayd, and not confirmed since by a record of its session."""


class BindingChange(msgspec.Struct, frozen=True, gc=False):
    """`added` comes before `removed`. Of a binding that is removed the same subscriber has the address no more."""

    kind: Literal["added", "removed"]
    binding: Binding


class BoundRegistration(msgspec.Struct, frozen=True, gc=False):
    """`registration` may be used at `prefix`, whichever end opens the flow; of a shared IPv4 address (CGNAT) with
    the subscriber's port in first..last alone. A value: two of the same registration, prefix and ports are one."""

    registration: Registration
    prefix: Prefix
    ports: Ports = None
