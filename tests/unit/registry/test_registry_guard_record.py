"""What a guard knows, through a restart: the same bytes back, or a damage that says so."""

from __future__ import annotations

from hashlib import sha256

import pytest

from gatewayd.feed.canonical import Damaged, Newer
from gatewayd.model import Extension, Registration, parse_prefix, parse_services
from gatewayd.model.registration import run_slices
from gatewayd.registry.endpoint_guard import EndpointGuard, HeldBack
from gatewayd.registry.guard import RemovalGuard
from gatewayd.registry.guard_record import GuardRecord, decode_record, encode_record
from gatewayd.registry.limits import BUCKET_S, GuardDecision
from gatewayd.sources.override_file import parse_overrides
from tests.support.guarding import BANK, NOW, OTHERS, Guarding, registration
from tests.support.newer import newer_guard


def test_what_came_less_than_a_day_ago_is_known_after_a_restart() -> None:
    source, junk = Guarding(), [registration(f"j{number}", "junk") for number in range(200)]
    source.read(*OTHERS)
    source.read(*OTHERS, *junk)
    source.guard = decode_record(encode_record(GuardRecord(source.guard))).guard
    run_slices(source.guard.count_in_slices(source.reading.values()))
    assert source.judge(*junk) == GuardDecision(True, "too_many", 10, 2)


def test_what_is_held_and_what_went_lately_survive_a_restart() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.read(BANK, *OTHERS[1:])
    source.read(registration("b", "bank", "203.0.113.16/28"), *OTHERS[2:])
    content = encode_record(GuardRecord(source.guard))
    assert content is not None
    restored = decode_record(content).guard
    assert restored.held() == source.guard.held()
    assert restored.memory.removed == source.guard.memory.removed == {int(NOW // BUCKET_S): {"bpo": 1}}
    assert restored.in_force(source.reading) == source.guard.in_force(source.reading)
    run_slices(restored.accept_in_slices(3, source.reading))
    assert restored.held() is None


def test_a_guard_with_nothing_to_tell_is_no_bytes() -> None:
    assert decode_record(None).guard.held() is None
    assert decode_record(encode_record(GuardRecord(RemovalGuard()))).guard.held() is None
    source = Guarding()
    source.read(*OTHERS)
    source.read(*OTHERS[1:])
    assert (
        decode_record(encode_record(GuardRecord(source.guard))).guard.memory.removed == source.guard.memory.removed
    )


def test_a_held_registration_that_is_none_any_more_is_left_out() -> None:
    source = Guarding()
    source.read(BANK, registration("c", "bank"))
    source.read()
    content = encode_record(GuardRecord(source.guard))
    assert content is not None
    kept = content.partition(b"\n")[2].replace(b'"id":"b"', b'"id":"?"')
    content = sha256(kept).hexdigest().encode() + b"\n" + kept
    assert decode_record(content).guard.in_force({}).keys() == {"c"}


@pytest.mark.parametrize("lost_files", [False, True])
def test_that_files_were_lost_survives_a_restart(lost_files: bool) -> None:
    record = GuardRecord(RemovalGuard(), ("national",), lost_files=lost_files)
    assert decode_record(encode_record(record)).lost_files is lost_files


def test_a_record_that_is_damaged_or_of_another_format_says_so() -> None:
    content = encode_record(GuardRecord(RemovalGuard(), ("national",)))
    for damaged in (b"", content[:-3], content.replace(b"national", b"nationaL")):
        with pytest.raises(Damaged):
            decode_record(damaged)
    strange = b'{"serial": "x"}\n'
    with pytest.raises(Damaged, match="another format"):
        decode_record(sha256(strange).hexdigest().encode() + b"\n" + strange)


def test_of_what_the_registry_was_made_survives_too() -> None:
    text = 'pins:\n  - {id: A, category: bpo, clients: [39.61.0.0/28], services: [ipsec], comment: "x"}\n'
    text += 'filters:\n  - {prefix: 10.0.0.0/8, comment: "y", until: 2030-01-01T00:00:00Z}\n'
    files = (parse_overrides(text, "desk.yaml", "desk.yaml"),)
    record = decode_record(encode_record(GuardRecord(RemovalGuard(), ("a", "b"), files)))
    assert (record.sources, record.overrides) == (("a", "b"), files)


def test_what_is_held_back_of_endpoints_and_what_came_lately_survive_a_restart() -> None:
    former, wanted = provider("VPN", "198.51.100.0/25"), provider("VPN", "198.51.100.0/24")
    guard = EndpointGuard(7, NOW, {int(NOW // BUCKET_S): 3})
    guard.pending = {
        "VPN": HeldBack(wanted, former, "national", NOW),
        "NEW": HeldBack(provider("NEW", "192.0.2.0/24"), None, "national", NOW),
    }
    found = decode_record(encode_record(GuardRecord(RemovalGuard(), endpoints=guard))).endpoints
    assert (found.serial, found.since_s, found.recent) == (7, NOW, guard.recent)
    # What is wanted is known once the registry is loaded.
    assert found.pending == {
        "VPN": HeldBack(None, former, "national", NOW),
        "NEW": HeldBack(None, None, "national", NOW),
    }
    assert decode_record(encode_record(GuardRecord(RemovalGuard()))).endpoints.held() is None


def provider(id: str, endpoint: str) -> Registration:
    extension = Extension(endpoints=(parse_prefix(endpoint),))
    return Registration(id, "provider", "active", (), services=parse_services(["ipsec"]), extension=extension)


def test_a_record_of_a_later_version_is_newer_and_not_damaged() -> None:
    with pytest.raises(Newer, match=r"a newer gatewayd wrote it \(format 2, and 1 is read\)"):
        decode_record(newer_guard(encode_record(GuardRecord(RemovalGuard()))))


def test_an_endpoint_held_back_whose_earlier_form_is_none_any_more_is_left_out() -> None:
    guard = EndpointGuard()
    guard.pending = {"VPN-1": HeldBack(None, None, "lab", 5.0)}
    rest = encode_record(GuardRecord(RemovalGuard(), endpoints=guard)).partition(b"\n")[2]
    assert b'"VPN-1":[null,' in rest
    changed = rest.replace(b'"VPN-1":[null,', b'"VPN-1":["{}",')
    sealed = sha256(changed).hexdigest().encode() + b"\n" + changed
    assert decode_record(sealed).endpoints.pending == {}
