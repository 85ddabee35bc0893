"""Every error of gatewayd, named for what happened.

The class says what the caller does about it (exit, drop, retry, resync); nothing in the project looks at the text
of a message.

    GatewaydError
    ├── UsageError                 exit    the operator must change something before we can run
    │   ├── SettingsInvalid                the configuration file has faults (all of them, with places)
    │   ├── MissingPrerequisite            capability, nft, nf_tables or conntrack events are not there
    │   ├── DaemonNotReachable             the local API does not answer
    │   ├── PepperUnusable                 mobile numbers, and no pepper (or none worth the name) to hash them
    │   ├── RegistryUnusable               the reference registry's database, directory or a file of it
    │   └── KeyInvalid                     a text is no key of a signed feed, or of the wrong kind
    ├── InputRejected              drop    something the world sent cannot be used; the rest goes on
    │   ├── PrefixInvalid                  text is not a canonical prefix or is too short
    │   ├── ServiceInvalid                 text is not a service
    │   ├── MsisdnInvalid                  text is not a mobile number
    │   ├── RegistrationUnknown            the reference registry has no registration of that id
    │   ├── SerialNotHeld                  nothing of this serial waits to be accepted
    │   ├── OverridesInvalid               a file of local overrides has faults; what it said before stays
    │   ├── RecordRejected                 one registration of a source, with a reason code
    │   ├── RadiusRejected                 a datagram is no RADIUS request that we can trust; it gets no answer
    │   ├── AccountingRejected             a trusted accounting request says nothing usable; it is answered
    │   └── SessionEntryInvalid            an entry of a list of live sessions cannot be used
    ├── SourceFailed               retry   a registry source could not be read; what is in force stays
    │   ├── SourceUnreadable               file or URL could not be read
    │   ├── SourceTooLarge                 more bytes or records than the limit
    │   ├── SourceUnusable                 read, but not usable as a whole
    │   ├── LastGoodDamaged                what was kept of a source on disk is not what was written
    │   ├── LastGoodNotSaved               the disk took nothing; what it has is older than what is in force
    │   └── FeedFailed                     a signed feed was refused; `cause` is the FeedRefused
    ├── FeedRefused                retry   what a signed feed serves is not believed; what is in force stays
    │   ├── NotificationMalformed          not a JWS, or not a notification
    │   ├── BadSignature                   the signature is not of the key that is named
    │   ├── UnknownKey                     signed with a key that is not configured
    │   ├── KeysUnusable                   the key files could not be read, or hold no keys
    │   ├── NotificationStale              issued longer ago than it says it holds (a frozen feed)
    │   ├── IssuedInFuture                 issued later than our clock says it is
    │   ├── IssuedAtWentBackwards          issued before what we already have
    │   ├── SerialWentBackwards            a lower serial in the same session
    │   ├── SerialReused                   the same serial and time of issue, with other content
    │   ├── ForeignOrigin                  a URL or redirect leads away from the feed's origin
    │   ├── AnswerUnexpected               an HTTP answer that is not what was asked for
    │   ├── TransferFailed                 no answer, or one that was cut short or came too slowly
    │   ├── FileTooLarge                   more bytes or records than the limit, before or after gzip
    │   ├── SizeMismatch                   not the size that the notification states
    │   ├── HashMismatch                   not the sha256 that the notification states
    │   ├── FileDamaged                    not gzip, or gzip without its end
    │   ├── CountMismatch                  not the number of records that the notification states
    │   ├── SnapshotUnusable               as it was signed, and still not to be used: it is empty
    │   ├── DeltaMalformed                 a line of a delta is no operation
    │   └── DeltaConflict                  a delta does not fit what is held
    ├── AllowlistIncomplete        retry   asked before every source was read
    ├── SessionsNotKept            retry   sessions that somebody told us of are not on disk
    ├── SecretFileUnusable         retry   a file of a pepper or of RADIUS secrets; the secrets in use stay
    └── KernelError                resync  what we know of the kernel may be wrong: read it again
        ├── OperationRefused               the kernel refused one operation of a transaction
        ├── ReplyMissing                   no answer in time, or the answer was lost
        ├── DumpInterrupted                the kernel changed while it was being read
        ├── EventMalformed                 a netlink message that does not parse; of events, the rest goes on
        ├── EventsLost                     the event buffer overran
        ├── RulesetRefused                 nft refused the rule text
        └── RulesetAbsent                  nft took the rule text, and the kernel has other rules
"""

from __future__ import annotations

import os


class GatewaydError(Exception):
    """Root of all of them."""


class UsageError(GatewaydError):
    """The operator must change something first."""


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


class PepperUnusable(UsageError):
    """There are mobile numbers, and nothing to hash them with; `remedy` says what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}; {remedy}")


class RegistryUnusable(UsageError):
    """A file or directory that the reference registry works on: `where`, and `why` it cannot."""

    def __init__(self, where: str, why: str) -> None:
        self.where = where
        self.why = why
        super().__init__(f"{where}: {why}")


class KeyInvalid(UsageError):
    """A text is no key of a signed feed. `why` never repeats the text: it may be a private key."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"not a usable key: {why}")


class InputRejected(GatewaydError):
    """A typed rejection of outside input: count it, list it, go on."""


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


class MsisdnInvalid(InputRejected):
    """A text is not a mobile number. `code`: see model.msisdn; neither it nor `why` repeats the text."""

    def __init__(self, code: str, why: str) -> None:
        self.code = code
        self.why = why
        super().__init__(why)


class RegistrationUnknown(InputRejected):
    """The reference registry has no registration with this id."""

    def __init__(self, id: str) -> None:
        self.id = id
        super().__init__(f"there is no registration {id!r}")


class SerialNotHeld(InputRejected):
    """There is nothing to accept under `serial`. `held_serial`: what there is instead, None for nothing."""

    def __init__(self, serial: int, held_serial: int | None) -> None:
        self.serial = serial
        self.held_serial = held_serial
        there_is = "nothing is" if held_serial is None else f"serial {held_serial} is"
        super().__init__(f"serial {serial} is not held; {there_is}")


class OverridesInvalid(InputRejected):
    """A file of overrides cannot be used; `faults` as in SettingsInvalid. What it said before stays."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class RecordRejected(InputRejected):
    """One record of a source is not used. `code` is stable and is a metric label; `detail` is for people.

    `detail` never repeats the value of a field that may carry identity.
    """

    def __init__(self, code: str, field: str, detail: str) -> None:
        self.code = code
        self.field = field
        self.detail = detail
        super().__init__(f"{code}: {field}: {detail}" if field else f"{code}: {detail}")


class RadiusRejected(InputRejected):
    """A datagram is not a RADIUS request of somebody we share a secret with: it is dropped without an answer.

    `code` is stable and is a metric label (subscribers.packet lists them); `detail` has lengths and numbers of
    attributes, never the value of one.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


class AccountingRejected(InputRejected):
    """A verified accounting request that changes nothing: answered, or the sender would repeat it for ever.

    `code` is stable and is a metric label (subscribers.accounting lists them); `detail` never repeats a value that
    may carry identity.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


class SessionEntryInvalid(InputRejected):
    """An entry of a list of live sessions cannot be used. `code`: see subscribers.session_list and .addresses.

    `entry`: which of a list, from 0; None where there is one alone. No text in it is a value of the entry that may
    be a subscriber's number.
    """

    def __init__(self, field: str, code: str, why: str, entry: int | None = None) -> None:
        self.field = field
        self.code = code
        self.why = why
        self.entry = entry
        place = ": ".join(each for each in ("" if entry is None else f"entry {entry}", field) if each)
        super().__init__(f"{place}: {why}" if place else why)


class SourceFailed(GatewaydError):
    """A registry source failed; nothing that is in force changes."""

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


class LastGoodDamaged(SourceFailed):
    """What was kept of a source is damaged or cannot be read; whatever of it is whole is used."""

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
    """What a signed feed serves is not believed. The position and the registrations stay as they are."""


class NotificationMalformed(FeedRefused):
    """The bytes are not a JWS as we take it, or what is signed is not a notification."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"notification: {why}")


class BadSignature(FeedRefused):
    """The notification was not signed with the key it names, or was changed afterwards."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        super().__init__(f"notification: the signature is not of key {kid!r}")


class UnknownKey(FeedRefused):
    """The notification is signed with a key that is not among `known`."""

    def __init__(self, kid: str, known: tuple[str, ...]) -> None:
        self.kid = kid
        self.known = known
        super().__init__(f"notification: signed with key {kid!r}, configured: {', '.join(known) or 'none'}")


class KeysUnusable(FeedRefused):
    """A file of keys cannot be read or holds none, so nothing can be verified."""

    def __init__(self, path: str, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"keys: {path}: {why}")


class NotificationStale(FeedRefused):
    """The notification ran out: the feed is frozen, at the registry or on the way."""

    def __init__(self, age_s: float, expire_s: float) -> None:
        self.age_s = age_s
        self.expire_s = expire_s
        super().__init__(f"notification: issued {age_s:.0f} s ago and good for {expire_s:.0f} s")


class IssuedInFuture(FeedRefused):
    """The notification was issued later than it is by our clock; one of the clocks is wrong."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead_s = ahead_s
        super().__init__(f"notification: issued {ahead_s:.0f} s ahead of this host's clock")


class IssuedAtWentBackwards(FeedRefused):
    """Issued before what we have: an old notification is served again. Unix seconds."""

    def __init__(self, held: float, served: float) -> None:
        self.held = held
        self.served = served
        super().__init__(f"notification: issued {held - served:.0f} s before the one that is in force")


class SerialWentBackwards(FeedRefused):
    """A lower serial in the same session: an old notification, or a registry that lost its place."""

    def __init__(self, held: int, served: int) -> None:
        self.held = held
        self.served = served
        super().__init__(f"notification: serial {served} after {held} in the same session")


class SerialReused(FeedRefused):
    """Two notifications of the same session, serial and time name different snapshots."""

    def __init__(self, serial: int) -> None:
        self.serial = serial
        super().__init__(f"notification: serial {serial} has other content than before, issued no later")


class ForeignOrigin(FeedRefused):
    """A URL or redirect leads to another scheme, host or port than the notification's. `place`: no secrets."""

    def __init__(self, what: str, place: str) -> None:
        self.what = what
        self.place = place
        super().__init__(f"{what}: leads to another origin, {place}; refused")


class AnswerUnexpected(FeedRefused):
    """An HTTP answer that cannot be the file asked for. `status` as received."""

    def __init__(self, what: str, status: int, why: str) -> None:
        self.what = what
        self.status = status
        self.why = why
        super().__init__(f"{what}: {why}")


class TransferFailed(FeedRefused):
    """The network failed us: no answer, a cut or slow body."""

    def __init__(self, what: str, why: str) -> None:
        self.what = what
        self.why = why
        super().__init__(f"{what}: {why}")


class FileTooLarge(FeedRefused):
    """More than the limit, as stated by the notification or as found while reading."""

    def __init__(self, what: str, limit: int, unit: str) -> None:
        self.what = what
        self.limit = limit
        super().__init__(f"{what}: more than {limit} {unit}")


class SizeMismatch(FeedRefused):
    """The file is not as long as the notification states (bytes, as served)."""

    def __init__(self, what: str, stated: int, found: int) -> None:
        self.what = what
        self.stated = stated
        self.found = found
        super().__init__(f"{what}: {found} bytes or more, and {stated} are stated")


class HashMismatch(FeedRefused):
    """The file is not the one that the notification states. Hex digests."""

    def __init__(self, what: str, stated: str, found: str) -> None:
        self.what = what
        self.stated = stated
        self.found = found
        super().__init__(f"{what}: sha256 {found[:16]}…, and {stated[:16]}… is stated")


class FileDamaged(FeedRefused):
    """The file has the bytes that were stated, and they are not whole gzip."""

    def __init__(self, what: str, why: str) -> None:
        self.what = what
        self.why = why
        super().__init__(f"{what}: {why}")


class CountMismatch(FeedRefused):
    """The snapshot has not as many records as the notification states."""

    def __init__(self, stated: int, found: int) -> None:
        self.stated = stated
        self.found = found
        super().__init__(f"snapshot: {found} records, and {stated} are stated")


class SnapshotUnusable(FeedRefused):
    """The snapshot is what was signed, and leaves us without a registration."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"snapshot: {why}")


class DeltaMalformed(FeedRefused):
    """A line of a delta is no operation, so what the delta does is not known."""

    def __init__(self, serial: int, line: int, why: str) -> None:
        self.serial = serial
        self.line = line
        self.why = why
        super().__init__(f"delta {serial}: line {line}: {why}")


class DeltaConflict(FeedRefused):
    """A delta withdraws an id that is not held: it is not a delta to what we have."""

    def __init__(self, serial: int, line: int, id: str) -> None:
        self.serial = serial
        self.line = line
        self.id = id
        super().__init__(f"delta {serial}: line {line}: withdraws {id}, which is not held")


class AllowlistIncomplete(GatewaydError):
    """A question that only a complete allowlist can answer; `why` says what is missing."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"not known yet: {why}; until then the kernel keeps what it has")


class SessionsNotKept(GatewaydError):
    """Sessions that somebody told us of are not on disk, so that a restart would forget them: tell them again.

    `why` says whether they are in force all the same.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


class SecretFileUnusable(GatewaydError):
    """A file with a pepper or with RADIUS secrets cannot be used. Neither `path` nor `why` repeats what is in it.

    Whatever secrets are in use stay; without any, what is sent under them is not believed.
    """

    def __init__(self, path: str, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path}: {why}")


class KernelError(GatewaydError):
    """Our picture of the kernel may be wrong: read it again before going on."""


class EventMalformed(KernelError):
    """A netlink message is not laid out as the kernel's headers say. An event costs itself and is counted."""

    def __init__(self, what: str, why: str) -> None:
        self.what = what
        self.why = why
        super().__init__(f"{what}: {why}")


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


class RulesetAbsent(KernelError):
    """`nft -f` ended without an error, and the rules in the kernel are not those of its text."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"nft ended well, but the rules in the kernel are not the ones it was given: {why}")
