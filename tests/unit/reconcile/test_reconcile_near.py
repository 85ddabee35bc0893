"""Sets for the log alone: they come and go like all others, and nothing that lets a flow pass waits for them."""

from __future__ import annotations

from gatewayd.compile.desired import DesiredSets
from gatewayd.compile.near import NearClients
from gatewayd.lab.traffic import flow_of
from gatewayd.model import Registration, parse_prefix
from gatewayd.model.mask import ANY_PEER, NEAR, Mask
from gatewayd.model.transaction import AddElements, ObservedSet, RemoveElements, TableReading
from gatewayd.reconcile.steps import Commit, PutRules, acknowledge, next_step
from gatewayd.reconcile.tracker import SetTracker
from tests.support.planes import TABLE
from tests.support.reconciling import bound_hosts, hosts, policy, registered

POLICY = policy()
NEAR_28 = Mask(4, 28, ANY_PEER, NEAR)
KEY = parse_prefix("203.0.113.0/28").packed


class Scene:
    """A tracker as the reconciler drives it."""

    def __init__(self, *registrations: Registration, reading: TableReading | None = None) -> None:
        self.near = NearClients()
        self.tracker = SetTracker(DesiredSets())
        for each in registrations:
            self.add(each)
        self.take_near()
        self.tracker.start_reading(reading or TableReading(True))

    def add(self, registration: Registration) -> None:
        self.near.add(registration.clients)
        self.tracker.add(registration)

    def take_near(self) -> None:
        self.tracker.take_near(*self.near.take(1000))

    def steps(self) -> list[str]:
        """The plan to its end: sets of elements that came and went, in order, and where the rules came."""
        taken: list[str] = []
        while (step := next_step(self.tracker, POLICY, TABLE)) is not None:
            acknowledge(self.tracker, step)
            if isinstance(step, PutRules):
                taken.append("rules")
                continue
            assert isinstance(step, Commit)
            for each in step.transaction.operations:
                if isinstance(each, AddElements | RemoveElements):
                    taken.append(f"{'+' if isinstance(each, AddElements) else '-'}{each.set_name}")
        return taken


def test_a_customers_prefix_has_an_element_and_the_rules_look_it_up() -> None:
    scene = Scene(registered("bank", "203.0.113.8/29", services=["ipsec"]))
    assert scene.steps() == ["+c4_28_near", "+c4_29_ipsec", "rules"]
    assert scene.tracker.holds(NEAR_28, KEY)
    assert "ip saddr & 255.255.255.240 @c4_28_near goto note_near" in str(scene.tracker.rules.text)
    # It counts as no element that lets a flow pass, and as no mask that costs a new flow look-ups.
    assert (scene.tracker.desired.count(), scene.tracker.count_missing()) == (1, 0)


def test_an_element_that_lets_a_flow_pass_does_not_wait_for_look_ups_of_the_log() -> None:
    scene = Scene(*hosts(3))
    scene.steps()
    scene.add(hosts(4)[3])
    # A new length for the log, whose rules take nft some 25 ms.
    scene.near.add([parse_prefix("10.9.0.0/16")])
    scene.take_near()
    taken = scene.steps()
    assert taken[-1] == "rules"
    assert {each.removesuffix("_g1") for each in taken[:-1]} >= {"+c4_32", "+c4_16_near"}


def test_the_kernel_is_ready_without_them() -> None:
    scene = Scene(*hosts(3))
    scene.steps()
    scene.near.add([parse_prefix("10.9.0.0/16")])
    scene.take_near()
    assert scene.tracker.count_missing() == 0
    assert not scene.tracker.is_complete()


def test_they_go_with_the_last_client_and_come_back() -> None:
    scene = Scene(registered("bank", "203.0.113.0/28"), *hosts(2))
    scene.steps()
    scene.near.remove([parse_prefix("203.0.113.0/28")])
    scene.take_near()
    assert scene.steps() == ["-c4_28_near"]
    assert not scene.tracker.holds(NEAR_28, KEY) or KEY not in scene.tracker.desired.keys(NEAR_28)
    scene.near.add([parse_prefix("203.0.113.0/28")])
    scene.take_near()
    assert scene.steps() == ["+c4_28_near"]


def test_what_a_start_finds_of_them_is_neither_retained_nor_held() -> None:
    bank = registered("bank", "203.0.113.0/28")
    reading = TableReading(True, (ObservedSet("c4_28_near", 4, 1024, True, 2),))
    scene = Scene(bank)
    scene.tracker.findings.retain()
    ((state, _),) = scene.tracker.start_reading(reading)
    other = parse_prefix("198.51.100.0/28").packed
    scene.tracker.observe_elements(state, [KEY, other])
    assert (scene.tracker.findings.count(), scene.tracker.findings.count_retained()) == (0, 0)
    assert (list(state.surplus), list(state.missing)) == ([other], [])
    assert scene.steps() == ["+c4_28", "rules", "-c4_28_near"]


def test_a_flow_never_passes_by_one_of_them() -> None:

    scene = Scene(registered("bank", "203.0.113.0/28", services=["ipsec"]))
    scene.steps()
    assert scene.tracker.element_for(flow_of("203.0.113.1", "198.51.100.7", "udp/51820")) is None
    assert scene.tracker.element_for(flow_of("203.0.113.1", "198.51.100.7", "udp/500")) is not None


def test_they_leave_the_budget_of_masks_to_registrations() -> None:
    scene = Scene()
    scene.tracker = SetTracker(DesiredSets(1, max_bound_masks=1, protected_masks=0))
    scene.near.add([parse_prefix("10.0.0.0/8"), parse_prefix("10.9.0.0/16"), parse_prefix("10.9.9.9/32")])
    scene.take_near()
    scene.tracker.add(hosts(1)[0])
    for each in bound_hosts(1):
        scene.tracker.add(each)
    assert scene.tracker.desired.unprogrammed() == {}
