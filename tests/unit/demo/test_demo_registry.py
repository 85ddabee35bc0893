from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gatewayd.authority.publishing import PublishReport
from gatewayd.demo.cast import CAST, LATECOMER
from gatewayd.demo.registry import DemoRegistry
from gatewayd.errors import BadSignature
from gatewayd.feed.notification import Notification, load_verifying_keys, open_notification


@pytest.fixture
def registry(tmp_path: Path) -> DemoRegistry:
    """Filled with the cast; its web server is for the lab."""
    lab: Any = SimpleNamespace(internet=None)
    made = DemoRegistry(lab, tmp_path)
    made.replace_all(CAST)
    return made


def announced(registry: DemoRegistry) -> Notification:
    """As a gateway with the public key reads it."""
    keys = load_verifying_keys([registry.public_key_path.read_text()])
    return open_notification((registry.feed_path / "notification.jws").read_bytes(), keys)


def counts(report: PublishReport) -> tuple[int, int, int]:
    return report.notification.serial, report.upserts, report.withdrawals


def test_what_is_published_is_signed_with_the_key_that_the_gateway_is_given(registry: DemoRegistry) -> None:
    report = registry.publish()
    assert announced(registry) == report.notification
    assert report.notification.snapshot.count == len(CAST)


def test_the_private_key_is_for_its_owner_alone(registry: DemoRegistry) -> None:
    assert stat.S_IMODE(registry.private_key_path.stat().st_mode) == 0o600


def test_a_registration_and_its_revocation_are_a_delta_of_one_each_and_in_the_audit(registry: DemoRegistry) -> None:
    registry.publish()
    registry.upsert(LATECOMER)
    assert counts(registry.publish()) == (2, 1, 0)
    registry.revoke(LATECOMER["id"])
    assert counts(registry.publish()) == (3, 1, 0)
    assert [each.serial for each in announced(registry).deltas] == [2, 3]
    assert registry.audit(LATECOMER["id"]) == ["upsert by registrar", "revoke by registrar"]


def test_what_is_not_in_a_replacement_is_withdrawn(registry: DemoRegistry) -> None:
    registry.publish()
    assert registry.replace_all(CAST[:-1]).withdrawn == 1
    assert counts(registry.publish()) == (2, 0, 1)


def test_a_forged_notification_has_the_name_of_the_key_and_not_its_signature(registry: DemoRegistry) -> None:
    registry.publish()
    genuine = announced(registry)
    with registry.forged(), pytest.raises(BadSignature):
        announced(registry)
    assert announced(registry) == genuine


def test_after_a_forgery_the_registry_goes_on_where_it_was(registry: DemoRegistry) -> None:
    registry.publish()
    with registry.forged():
        pass
    registry.upsert(LATECOMER)
    assert counts(registry.publish()) == (2, 1, 0)
