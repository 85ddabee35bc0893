"""Every error of gatewayd, named for what happened. Its class says what to do: exit, drop, retry or resync."""

from __future__ import annotations

import os


class GatewaydError(Exception):
    """Root of all of them. `why`: the reason without its subject; the message where an error has no shorter one."""

    def __init__(self, message: str, why: str = "") -> None:
        self.why = why or message
        super().__init__(message)


class _WithSubject(GatewaydError):
    """The subject and the reason of an error: `what` could not be used, and `why`."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}", why)


class UsageError(GatewaydError):
    """Exit: the operator must change something before we can run."""


class SettingsInvalid(UsageError):
    """The configuration cannot be used; `faults` has one line for each fault, in file order."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class MissingPrerequisite(UsageError):
    """This host lacks something gatewayd needs; `remedy` says what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what, self.remedy = what, remedy
        super().__init__(f"{what}; {remedy}")


class DaemonNotReachable(UsageError):
    """Nothing answers at the daemon's local API."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"no gatewayd answers at {where}: {why}", why)


class PepperUnusable(MissingPrerequisite):
    """There are mobile numbers, and nothing to hash them with."""


class RegistryUnusable(_WithSubject, UsageError):
    """A file or directory that the reference registry works on cannot be used."""


class KeyInvalid(UsageError):
    """A text is no key of a signed feed. `why` never repeats the text: it may be a private key."""

    def __init__(self, why: str) -> None:
        super().__init__(f"not a usable key: {why}", why)


class InputRejected(GatewaydError):
    """Drop: something the world sent cannot be used. Count it, list it, go on."""


class PrefixInvalid(InputRejected):
    """`code`: `prefix_syntax`, `prefix_host_bits`, `prefix_too_short` or `prefix_not_unicast`."""

    def __init__(self, text: str, code: str, why: str) -> None:
        self.text, self.code = text, code
        super().__init__(f"{text!r}: {why}", why)


class ServiceInvalid(InputRejected):
    """The text names no service."""

    def __init__(self, text: str, why: str) -> None:
        self.text = text
        super().__init__(f"{text!r}: {why}", why)


class MsisdnInvalid(InputRejected):
    """A text is not a mobile number. `code`: see model.msisdn; neither it nor `why` repeats the text."""

    def __init__(self, code: str, why: str) -> None:
        self.code = code
        super().__init__(why)


class SerialNotHeld(InputRejected):
    """There is nothing to accept under `serial`. `held_serial`: what there is instead, None for nothing."""

    def __init__(self, serial: int, held_serial: int | None) -> None:
        self.serial, self.held_serial = serial, held_serial
        there_is = "nothing is" if held_serial is None else f"serial {held_serial} is"
        super().__init__(f"serial {serial} is not held; {there_is}")


class OverridesInvalid(InputRejected):
    """A file of overrides cannot be used; `faults` as in SettingsInvalid. What it said before stays."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class RecordRejected(InputRejected):
    """One record of a source is not used. `code` is stable, a metric's label; `detail` never has identity in it."""

    def __init__(self, code: str, field: str, detail: str) -> None:
        self.code, self.field, self.detail = code, field, detail
        super().__init__(f"{code}: {field}: {detail}" if field else f"{code}: {detail}")


class _RequestRejected(InputRejected):
    """`code` is stable and a metric's label; `detail` never has a value that may carry identity."""

    def __init__(self, code: str, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(f"{code}: {detail}")


class RadiusRejected(_RequestRejected):
    """A datagram is not a RADIUS request of somebody we share a secret with; it gets no answer."""


class AccountingRejected(_RequestRejected):
    """A verified accounting request changes nothing. It is answered, or the sender would repeat it for ever."""


class SessionEntryInvalid(InputRejected):
    """An entry of a list of sessions (from 0; None: of no list). No text of it may be a subscriber's number."""

    def __init__(self, field: str, code: str, why: str, entry: int | None = None) -> None:
        self.field, self.code, self.entry = field, code, entry
        place = ": ".join(each for each in ("" if entry is None else f"entry {entry}", field) if each)
        super().__init__(f"{place}: {why}" if place else why, why)


class SourceFailed(GatewaydError):
    """Retry: a registry source could not be read. What is in force stays."""

    def __init__(self, source: str, why: str) -> None:
        self.source = source
        super().__init__(f"source {source}: {why}", why)


class SourceUnreadable(SourceFailed):
    """The file or URL could not be read."""


class SourceTooLarge(SourceFailed):
    """The source goes past a limit of bytes, records or line length."""


class SourceUnusable(SourceFailed):
    """The source was read, and as a whole is not what it should be."""


class LastGoodDamaged(SourceFailed):
    """The last good of a source is damaged or cannot be read; its whole records are used."""

    def __init__(self, source: str, file: str, why: str) -> None:
        self.file = file
        super().__init__(source, f"{file}: {why}")


class LastGoodNotSaved(SourceFailed):
    """What is in force could not be written; a restart without the registry would go back to what is there."""


class FeedFailed(SourceFailed):
    """A signed feed was refused; `cause` says for what."""

    def __init__(self, source: str, place: str, cause: FeedRefused) -> None:
        self.cause = cause
        super().__init__(source, f"{place}: {cause}")


class FeedRefused(GatewaydError):
    """Retry: what a signed feed serves is not believed. The position and the registrations stay as they are."""


class FileRefused(_WithSubject, FeedRefused):
    """A file of the feed cannot be used."""


class NotificationMalformed(FeedRefused):
    """The bytes are not a JWS as we take it, or what is signed is not a notification."""

    def __init__(self, why: str) -> None:
        super().__init__(f"notification: {why}", why)


class BadSignature(FeedRefused):
    """The notification was not signed with the key it names, or was changed afterwards."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        super().__init__(f"notification: the signature is not of key {kid!r}")


class UnknownKey(FeedRefused):
    """The notification is signed with a key that is not among `known`."""

    def __init__(self, kid: str, known: tuple[str, ...]) -> None:
        self.kid, self.known = kid, known
        super().__init__(f"notification: signed with key {kid!r}, configured: {', '.join(known) or 'none'}")


class KeysUnusable(FeedRefused):
    """A file of keys cannot be read or holds none, so nothing can be verified."""

    def __init__(self, path: str, why: str) -> None:
        self.path = path
        super().__init__(f"keys: {path}: {why}", why)


class NotificationStale(FeedRefused):
    """The notification ran out: the feed is frozen, at the registry or on the way."""

    def __init__(self, age_s: float, expire_s: float) -> None:
        self.age_s, self.expire_s = age_s, expire_s
        super().__init__(f"notification: issued {age_s:.0f} s ago and good for {expire_s:.0f} s")


class IssuedInFuture(FeedRefused):
    """The notification was issued later than it is by our clock; one of the clocks is wrong."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead_s = ahead_s
        super().__init__(f"notification: issued {ahead_s:.0f} s ahead of this host's clock")


class IssuedAtWentBackwards(FeedRefused):
    """Issued before what we have: an old notification is served again. Unix seconds."""

    def __init__(self, held: float, served: float) -> None:
        self.held, self.served = held, served
        super().__init__(f"notification: issued {held - served:.0f} s before the one that is in force")


class SerialWentBackwards(FeedRefused):
    """A lower serial in the same session: an old notification, or a registry that lost its place."""

    def __init__(self, held: int, served: int) -> None:
        self.held, self.served = held, served
        super().__init__(f"notification: serial {served} after {held} in the same session")


class SerialReused(FeedRefused):
    """Two notifications of the same session, serial and time name different snapshots."""

    def __init__(self, serial: int) -> None:
        self.serial = serial
        super().__init__(f"notification: serial {serial} has other content than before, issued no later")


class ForeignOrigin(FeedRefused):
    """A URL or redirect leads to another scheme, host or port than the notification's. `place`: no secrets."""

    def __init__(self, what: str, place: str) -> None:
        self.place = place
        super().__init__(f"{what}: leads to another origin, {place}; refused")


class AnswerUnexpected(FileRefused):
    """An HTTP answer that cannot be the file asked for. `status` as received."""

    def __init__(self, what: str, status: int, why: str) -> None:
        self.status = status
        super().__init__(what, why)


class TransferFailed(FileRefused):
    """The network failed: no answer, a cut or slow body."""


class FileTooLarge(FileRefused):
    """More than the limit, as stated by the notification or as found while reading."""

    def __init__(self, what: str, limit: int, unit: str) -> None:
        super().__init__(what, f"more than {limit} {unit}")


class SizeMismatch(FileRefused):
    """The file is not as long as the notification states (bytes, as served)."""

    def __init__(self, what: str, stated: int, found: int) -> None:
        super().__init__(what, f"{found} bytes or more, and {stated} are stated")


class HashMismatch(FileRefused):
    """The file is not the one that the notification states. Hex digests."""

    def __init__(self, what: str, stated: str, found: str) -> None:
        super().__init__(what, f"sha256 {found[:16]}…, and {stated[:16]}… is stated")


class FileDamaged(FileRefused):
    """The file has the bytes that were stated, and they are not whole gzip."""


class CountMismatch(FeedRefused):
    """The snapshot has not as many records as the notification states."""

    def __init__(self, stated: int, found: int) -> None:
        super().__init__(f"snapshot: {found} records, and {stated} are stated")


class SnapshotUnusable(FileRefused):
    """The snapshot is what was signed, and leaves us without a registration."""


class DeltaMalformed(FeedRefused):
    """A line of a delta is no operation, so what the delta does is not known."""

    def __init__(self, serial: int, line: int, why: str) -> None:
        super().__init__(f"delta {serial}: line {line}: {why}", why)


class DeltaConflict(FeedRefused):
    """A delta withdraws an id that is not held: it is not a delta to what we have."""

    def __init__(self, serial: int, line: int, id: str) -> None:
        super().__init__(f"delta {serial}: line {line}: withdraws {id}, which is not held")


class AllowlistIncomplete(GatewaydError):
    """Retry: a question that only a complete allowlist can answer. `why` says what is missing."""

    def __init__(self, why: str) -> None:
        super().__init__(f"not known yet: {why}; until then the kernel keeps what it has", why)


class SessionsNotKept(GatewaydError):
    """Retry: reported sessions are not on disk; a restart would forget them. `why`: whether they are in force."""


class SecretFileUnusable(GatewaydError):
    """Retry: a file of a pepper or of secrets; those in use stay. `path` and `why` never repeat its content."""

    def __init__(self, path: str, why: str) -> None:
        self.path = path
        super().__init__(f"{path}: {why}", why)


class KernelError(GatewaydError):
    """Resync: what we know of the kernel may be wrong. Read it again before going on."""


class EventMalformed(_WithSubject, KernelError):
    """A netlink message is not laid out as the kernel's headers say. An event costs itself and is counted."""


class OperationRefused(KernelError):
    """The kernel refused one operation; the whole transaction was undone by the kernel."""

    def __init__(self, operation: str, errno: int, detail: str = "") -> None:
        self.operation, self.errno, self.detail = operation, errno, detail
        super().__init__(f"{operation}: {os.strerror(errno)}" + (f" ({detail})" if detail else ""))


class ReplyMissing(_WithSubject, KernelError):
    """The kernel's answer did not come or was lost (ENOBUFS); the operation may or may not stand."""


class DumpInterrupted(KernelError):
    """NLM_F_DUMP_INTR: the kernel changed while it was being read."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        super().__init__(f"{operation}: the kernel changed during the dump")


class EventsLost(KernelError):
    """The socket's buffer overran and the kernel dropped events (ENOBUFS)."""

    def __init__(self, source: str) -> None:
        super().__init__(f"{source}: event buffer overran")


class RulesetRefused(KernelError):
    """`nft -f` refused the rule text; nothing of it was applied."""

    def __init__(self, stderr: str) -> None:
        self.stderr = stderr
        super().__init__(f"nft refused the ruleset: {stderr.strip()}")


class RulesetAbsent(KernelError):
    """`nft -f` ended without an error, and the rules in the kernel are not those of its text."""

    def __init__(self, why: str) -> None:
        super().__init__(f"nft ended well, but the rules in the kernel are not the ones it was given: {why}", why)
