"""A world: registrations, bindings and a policy, put into a real kernel without a reconciler."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from gatewayd.allowlist import Allowlist, decide, matching_registrations
from gatewayd.compile import DesiredSets, compile_ruleset
from gatewayd.kernel.tables import KernelTables
from gatewayd.model import Binding, BoundRegistration, Decision, Flow, Registration
from gatewayd.model.mask import set_name
from gatewayd.model.policy import Policy
from gatewayd.model.transaction import AddElements, CreateSet, CreateTable, Ruleset, Transaction

TABLE = "gatewayd"
ELEMENT_TIMEOUT_S = 7200
NOW = 5.0
"""Windows open and close at it."""


class World:
    """Registrations in an allowlist, and the policy that is armed."""

    def __init__(self, some: Sequence[Registration], policy: Policy, bindings: Sequence[Binding] = ()) -> None:
        self.policy = policy
        self.allowlist = Allowlist()
        for registration in some:
            self.allowlist.upsert(registration)
        for binding in bindings:
            self.allowlist.bindings.put(binding)

    def active(self) -> list[Registration | BoundRegistration]:
        some = [each for each in self.allowlist if each.is_effective(NOW)]
        return [*some, *(bound for each in some for bound in self.allowlist.bound_registrations_of(each))]

    def decision(self, flow: Flow) -> Decision:
        decision = decide(self.allowlist, self.policy.scope, flow, NOW)
        if decision.word != "out_of_scope":
            registered = bool(matching_registrations(self.allowlist, flow, NOW))
            assert registered == (decision.word == "registered")
        return decision

    def passes(self, flow: Flow) -> bool:
        return self.decision(flow).word != "unregistered"


def forget_connections() -> None:
    """Flush connection tracking of the thread's namespace (IPCTNL_MSG_CT_DELETE without a tuple)."""
    request, acknowledge, netlink_netfilter = 1, 4, 12
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink_netfilter) as channel:
        channel.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, request | acknowledge, 1, 0, 0, 0, 0))
        _, _, _, _, _, error = struct.unpack_from("=IHHIIi", channel.recv(4096))
        assert error == 0


async def program(tables: KernelTables, world: World) -> Ruleset:
    """The world in place of whatever is there, without a reconciler; its rules."""
    await tables.delete_table()
    sets = DesiredSets(max_endpoint_masks=256)
    for each in world.active():
        sets.add(each)
    assert sets.unprogrammed() == {}
    names = {mask: set_name(mask, 0) for mask in sets.masks()}
    create = [
        CreateSet(name, mask, 0, ELEMENT_TIMEOUT_S)
        if mask.is_bound
        else CreateSet(name, mask, max(16, len(sets.keys(mask))))
        for mask, name in names.items()
    ]
    add = [AddElements(name, sorted(sets.keys(mask))) for mask, name in names.items()]
    await tables.commit(Transaction((CreateTable(), *create, *add), "world"))
    ruleset = compile_ruleset(TABLE, world.policy, names, 1)
    await tables.replace_rules(ruleset)
    return ruleset
