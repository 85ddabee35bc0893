"""The message of each error, and the reason without its subject."""

from __future__ import annotations

import pytest

from gatewayd import errors
from gatewayd.errors import GatewaydError

TABLE: list[tuple[GatewaydError, str]] = [
    (errors.SettingsInvalid(("f:1:1: a", "f:2:1: b")), "f:1:1: a\nf:2:1: b"),
    (errors.MissingPrerequisite("no nft", "install nftables"), "no nft; install nftables"),
    (errors.DaemonNotReachable("/run/x", "gone"), "no gatewayd answers at /run/x: gone"),
    (errors.RegistryUnusable("/srv/feed", "not a directory"), "/srv/feed: not a directory"),
    (errors.KeyInvalid("too short"), "not a usable key: too short"),
    (errors.PrefixInvalid("10/8", "prefix_syntax", "not a prefix"), "'10/8': not a prefix"),
    (errors.ServiceInvalid("vpn", "unknown"), "'vpn': unknown"),
    (errors.MsisdnInvalid("too_short", "has 3 digits"), "has 3 digits"),
    (errors.SerialNotHeld(3, None), "serial 3 is not held; nothing is"),
    (errors.SerialNotHeld(3, 4), "serial 3 is not held; serial 4 is"),
    (errors.OverridesInvalid(("a", "b")), "a\nb"),
    (errors.RecordRejected("too_long", "id", "65"), "too_long: id: 65"),
    (errors.RecordRejected("not_json", "", "line 3"), "not_json: line 3"),
    (errors.RadiusRejected("unknown_client", "192.0.2.1"), "unknown_client: 192.0.2.1"),
    (errors.AccountingRejected("no_session", "no id"), "no_session: no id"),
    (errors.SessionEntryInvalid("nas", "missing", "is missing", 2), "entry 2: nas: is missing"),
    (errors.SessionEntryInvalid("", "not_json", "the body is not JSON"), "the body is not JSON"),
    (errors.SourceFailed("lab", "gone"), "source lab: gone"),
    (errors.LastGoodDamaged("lab", "/v/lab", "cut"), "source lab: /v/lab: cut"),
    (errors.FeedFailed("n", "https://r/", errors.BadSignature("k")),
     "source n: https://r/: notification: the signature is not of key 'k'"),
    (errors.FileRefused("delta 3", "cut"), "delta 3: cut"),
    (errors.NotificationMalformed("no JWS"), "notification: no JWS"),
    (errors.BadSignature("k"), "notification: the signature is not of key 'k'"),
    (errors.UnknownKey("k", ("a", "b")), "notification: signed with key 'k', configured: a, b"),
    (errors.UnknownKey("k", ()), "notification: signed with key 'k', configured: none"),
    (errors.KeysUnusable("/k.pub", "empty"), "keys: /k.pub: empty"),
    (errors.NotificationStale(90.4, 60.0), "notification: issued 90 s ago and good for 60 s"),
    (errors.IssuedInFuture(90.4), "notification: issued 90 s ahead of this host's clock"),
    (errors.IssuedAtWentBackwards(100.0, 40.0), "notification: issued 60 s before the one that is in force"),
    (errors.SerialWentBackwards(4, 3), "notification: serial 3 after 4 in the same session"),
    (errors.SerialReused(4), "notification: serial 4 has other content than before, issued no later"),
    (errors.ForeignOrigin("delta 3", "https://x/"), "delta 3: leads to another origin, https://x/; refused"),
    (errors.AnswerUnexpected("delta 3", 404, "HTTP status 404"), "delta 3: HTTP status 404"),
    (errors.FileTooLarge("snapshot", 10, "bytes"), "snapshot: more than 10 bytes"),
    (errors.SizeMismatch("snapshot", 10, 11), "snapshot: 11 bytes or more, and 10 are stated"),
    (errors.HashMismatch("snapshot", "a" * 64, "b" * 64),
     f"snapshot: sha256 {'b' * 16}…, and {'a' * 16}… is stated"),
    (errors.CountMismatch(3, 2), "snapshot: 2 records, and 3 are stated"),
    (errors.DeltaMalformed(3, 1, "no op"), "delta 3: line 1: no op"),
    (errors.DeltaConflict(3, 1, "PK-1"), "delta 3: line 1: withdraws PK-1, which is not held"),
    (errors.AllowlistIncomplete("source a is being read"),
     "not known yet: source a is being read; until then the kernel keeps what it has"),
    (errors.SecretFileUnusable("/p", "empty"), "/p: empty"),
    (errors.OperationRefused("add set", 17), "add set: File exists"),
    (errors.OperationRefused("add set", 17, "s1"), "add set: File exists (s1)"),
    (errors.DumpInterrupted("dump"), "dump: the kernel changed during the dump"),
    (errors.EventsLost("nflog"), "nflog: event buffer overran"),
    (errors.RulesetRefused(" line 1: no\n"), "nft refused the ruleset: line 1: no"),
    (errors.RulesetAbsent("no chain"),
     "nft ended well, but the rules in the kernel are not the ones it was given: no chain"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message"), TABLE, ids=lambda each: type(each).__name__)
def test_an_error_says_what_happened(error: GatewaydError, message: str) -> None:
    assert str(error) == message
    assert message.endswith(error.why) or error.why in message


def test_every_error_with_words_of_its_own_is_in_the_table() -> None:
    classes = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, GatewaydError)}
    public = {each for each in classes if not each.__name__.startswith("_")}
    own = {each for each in public if "__init__" in vars(each)} - {GatewaydError}
    assert own <= {type(error) for error, _ in TABLE}
