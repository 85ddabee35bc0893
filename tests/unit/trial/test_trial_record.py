"""The record: whole or refused."""

from __future__ import annotations

import hashlib

import pytest

from gatewayd.model.policy import Stage
from gatewayd.trial.record import RecordUnusable, decode_state, encode_state
from gatewayd.trial.state import Notice, Order, Trial, TrialState, Trip

WHOLE = TrialState(
    Trial(
        "t1", "timed", Stage("limit", 5), Stage("reject", 10), 1.0, 600.0, "boot", 0.5, 600.5, "uid 0", "why", True
    ),
    Order(Stage("limit", 5), Stage("observe"), 0.5, "uid 7", "before"),
    (Notice("reverted", "t0", 0.25, Stage("reject"), Stage("observe"), "uid 0"),),
    Trip("near_misses", 3.0, 31, 30, ("PK-1",)),
)


def sealed(text: str) -> bytes:
    content = text.encode()
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


@pytest.mark.parametrize("state", [WHOLE, TrialState()])
def test_what_is_written_is_read(state: TrialState) -> None:
    assert decode_state(encode_state(state)) == state


def test_a_record_that_is_cut_or_changed_at_any_byte_is_refused() -> None:
    content = encode_state(WHOLE)
    for at in range(len(content)):
        with pytest.raises(RecordUnusable):
            decode_state(content[:at])
        with pytest.raises(RecordUnusable):
            decode_state(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


@pytest.mark.parametrize(
    ("content", "why", "is_newer"),
    [
        (b"", "it is empty", False),
        (b"x", "its hash is wrong", False),
        (sealed('{"version":9,"more":1}'), "it is of version 9, and this gatewayd knows 1", True),
        (sealed('{"version":1,"state":{"trial":7}}'), "it is of another format", False),
        (sealed("[]"), "it is of another format", False),
    ],
)
def test_what_is_no_record_says_why(content: bytes, why: str, is_newer: bool) -> None:
    with pytest.raises(RecordUnusable, match=why) as error:
        decode_state(content)
    assert error.value.is_newer is is_newer
