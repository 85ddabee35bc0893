"""Every error of gatewayd, named for what happened.

Each class states its *consequence*, which is what the caller does about it; nothing in the project looks at
the text of a message.

    GatewaydError
    ├── UsageError                 exit    the operator must change something before we can run
    │   ├── SettingsInvalid                the configuration file has faults (all of them, with places)
    │   ├── MissingPrerequisite            capability, nft, nf_tables or conntrack events are not there
    │   └── DaemonNotReachable             the local API does not answer
    ├── InputRejected              drop    something the world sent cannot be used; the rest goes on
    │   ├── PrefixInvalid                  text is not a canonical prefix or is too short
    │   ├── ServiceInvalid                 text is not a service
    │   ├── RecordRejected                 one registration of a source, with a reason code
    │   └── EventMalformed                 a netlink event that does not parse
    ├── SourceFailed               retry   a registry source could not be read; what is in force stays
    │   ├── SourceUnreadable               file or URL could not be read
    │   ├── SourceTooLarge                 more bytes or records than the limit
    │   └── SourceUnusable                 read, but not usable as a whole
    └── KernelError                resync  what we know of the kernel may be wrong: read it again
        ├── OperationRefused               the kernel refused one operation of a transaction
        ├── ReplyMissing                   no answer in time, or the answer was lost
        ├── DumpInterrupted                the kernel changed while it was being read
        ├── EventsLost                     the event buffer overran
        └── RulesetRefused                 nft refused the rule text
"""

from __future__ import annotations

import os
from typing import ClassVar, Literal

Consequence = Literal["exit", "drop", "retry", "resync"]


class GatewaydError(Exception):
    """Root. `consequence` is what the caller does: exit, drop, retry or resync."""

    consequence: ClassVar[Consequence]


class UsageError(GatewaydError):
    """The operator must change something first."""

    consequence = "exit"


class SettingsInvalid(UsageError):
    """The configuration cannot be used; `faults` holds one line for every problem, in file order."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class MissingPrerequisite(UsageError):
    """This host lacks something gatewayd needs; `remedy` says what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}; {remedy}")


class DaemonNotReachable(UsageError):
    """Nothing answers at the daemon's local API."""

    def __init__(self, where: str, why: str) -> None:
        self.where = where
        self.why = why
        super().__init__(f"no gatewayd answers at {where}: {why}")


class InputRejected(GatewaydError):
    """A typed rejection of outside input: count it, list it, go on."""

    consequence = "drop"


class PrefixInvalid(InputRejected):
    """`code`: `prefix_syntax`, `prefix_host_bits`, `prefix_too_short` or `prefix_not_unicast`."""

    def __init__(self, text: str, code: str, why: str) -> None:
        self.text = text
        self.code = code
        self.why = why
        super().__init__(f"{text!r}: {why}")


class ServiceInvalid(InputRejected):
    """The text names no service."""

    def __init__(self, text: str, why: str) -> None:
        self.text = text
        self.why = why
        super().__init__(f"{text!r}: {why}")


class RecordRejected(InputRejected):
    """One record of a source is not used. `code` is stable and is a metric label; `detail` is for people.

    `detail` never repeats the value of a field that may carry identity.
    """

    def __init__(self, code: str, field: str, detail: str) -> None:
        self.code = code
        self.field = field
        self.detail = detail
        super().__init__(f"{code}: {field}: {detail}" if field else f"{code}: {detail}")


class EventMalformed(InputRejected):
    """A netlink event is not laid out as the kernel's headers say."""

    def __init__(self, what: str, why: str) -> None:
        self.what = what
        self.why = why
        super().__init__(f"{what}: {why}")


class SourceFailed(GatewaydError):
    """A registry source failed; nothing that is in force changes."""

    consequence = "retry"

    def __init__(self, source: str, why: str) -> None:
        self.source = source
        self.why = why
        super().__init__(f"source {source}: {why}")


class SourceUnreadable(SourceFailed):
    """The file or URL could not be read."""


class SourceTooLarge(SourceFailed):
    """The source goes past a limit of bytes, records or line length."""


class SourceUnusable(SourceFailed):
    """The source was read, and as a whole is not what it should be."""


class KernelError(GatewaydError):
    """Our picture of the kernel may be wrong: read it again before going on."""

    consequence = "resync"


class OperationRefused(KernelError):
    """The kernel refused one operation; the whole transaction was undone by the kernel."""

    def __init__(self, operation: str, errno: int, detail: str = "") -> None:
        self.operation = operation
        self.errno = errno
        self.detail = detail
        super().__init__(f"{operation}: {os.strerror(errno)}" + (f" ({detail})" if detail else ""))


class ReplyMissing(KernelError):
    """The kernel's answer did not come or was lost (ENOBUFS); the operation may or may not stand."""

    def __init__(self, operation: str, why: str) -> None:
        self.operation = operation
        self.why = why
        super().__init__(f"{operation}: {why}")


class DumpInterrupted(KernelError):
    """NLM_F_DUMP_INTR: the kernel changed while it was being read."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        super().__init__(f"{operation}: the kernel changed during the dump")


class EventsLost(KernelError):
    """The socket's buffer overran and the kernel dropped events (ENOBUFS)."""

    def __init__(self, source: str) -> None:
        self.source = source
        super().__init__(f"{source}: event buffer overran")


class RulesetRefused(KernelError):
    """`nft -f` refused the rule text; nothing of it was applied."""

    def __init__(self, stderr: str) -> None:
        self.stderr = stderr
        super().__init__(f"nft refused the ruleset: {stderr.strip()}")
