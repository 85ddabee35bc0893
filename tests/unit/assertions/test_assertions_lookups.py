"""Which elements let a flow pass: those that the registration of it has, in any set that the rules look into."""

from __future__ import annotations

from gatewayd.assertions.lookups import RulesReading, elements_for
from gatewayd.compile.masks import compile_elements
from gatewayd.model.mask import set_name
from tests.support.owning import flow, registration


def test_the_elements_of_its_registration_are_among_them() -> None:
    bank = registration("BANK", "203.0.113.0/28", services=("ipsec", "tcp/443"), peers=("198.51.100.0/24",))
    elements = [(set_name(mask, 2), key) for mask, key in compile_elements(bank)]
    names = frozenset(name for name, _ in elements) | {"noted4", "c6_48"}
    for service in ("esp", "udp/4500", "tcp/443"):
        looked_up = list(elements_for(flow("203.0.113.5", service), names))
        assert len(looked_up) == len(set(looked_up))
        assert set(elements) & set(looked_up)
    assert not set(elements) & set(elements_for(flow("203.0.113.16", "esp"), names))
    assert list(elements_for(flow("203.0.113.5", "gre"), names)) == []


def test_without_rules_of_ours_nothing_is_looked_into() -> None:
    assert RulesReading() == RulesReading(None, frozenset())
