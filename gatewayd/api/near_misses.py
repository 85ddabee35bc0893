"""The list of registrations to call about, as the API has it: each line with the one change that mends it.

Times are RFC 3339 in UTC.
"""

from __future__ import annotations

from math import isinf

import msgspec

from gatewayd.model.moment import format_time
from gatewayd.model.registration import RejectedRecord
from gatewayd.near_miss.findings import Line
from gatewayd.near_miss.reasons import Reason
from gatewayd.registry.standing import Standing


class NearMissLineView(msgspec.Struct, frozen=True):
    """`service`, `far`: of the latest flow; `far` is the /24 or /48 of the far end. `why`: the reason in words.
    `mend`: a command, or a change of the registry. `acknowledged_until`: off the list until then; `for_good`: for
    ever. `registrant`: the company, where the registry has one and still knows the registration."""

    id: str
    category: str
    reason: Reason
    why: str
    mend: str
    service: str
    far: str
    flows: int
    first_seen: str | None
    last_seen: str | None
    acknowledged_until: str | None = None
    for_good: bool = False
    registrant: str | None = None


class NearMissList(msgspec.Struct, frozen=True):
    """The latest first. `total`: lines, of which `items` begins at `offset`. `evicted`: lines that made room for
    others since the start."""

    total: int
    offset: int
    evicted: int
    items: tuple[NearMissLineView, ...]


def near_miss_view(
    line: Line,
    now: float,
    standing: Standing | None,
    accepts: int | None,
    rejected: tuple[str, RejectedRecord] | None = None,
) -> NearMissLineView:
    """`standing`: of the id, if the registry knows it; `accepts`: the serial under which changes of it are held.
    `rejected`: a source, and its latest record of the id, if that is not usable."""
    is_off = now < line.acknowledged_until_s
    return NearMissLineView(
        line.registration_id,
        line.category,
        line.reason,
        why(line) if rejected is None else f"{why(line)}; its latest record was rejected ({rejected[1].code})",
        mend(line, standing, accepts) if rejected is None else mend_record(*rejected),
        str(line.service),
        str(line.far),
        line.flows,
        format_time(line.first_seen_s),
        format_time(line.last_seen_s),
        format_time(line.acknowledged_until_s) if is_off else None,
        is_off and isinf(line.acknowledged_until_s),
        None if standing is None or standing.registered is None else standing.registered.registrant,
    )


def why(line: Line) -> str:
    """The reason in words."""
    match line.reason:
        case "service_not_listed":
            return f"{line.service} is not among its services"
        case "peer_not_listed":
            return f"no peer of it covers the far end, in {line.far}"
        case "not_open_yet":
            return "its window is not open yet"
        case "window_closed":
            return "its window has closed"
        case "suspended" | "revoked":
            return f"it is {line.reason}"
        case "withdrawn":
            return "it is not in force any more, and was within the last day"
        case "address_moved":
            return "the flow came from its former address"
        case "binding_ended":
            return "its subscriber's session at the address ended, as accounting says"
        case _:
            return "a bound keeps it out of the kernel"


def mend(line: Line, standing: Standing | None, accepts: int | None) -> str:
    """One command, or one change of the registry."""
    id = line.registration_id
    if accepts is not None:
        return f"gatewayd accept {accepts}"
    if standing is not None and standing.filters and standing.registered is None:
        first = standing.filters[0]
        return f"remove the filter of {first.subject} in {first.file}:{first.line}"
    match line.reason:
        case "service_not_listed":
            return f"registry: add the service {line.service} to {id}"
        case "peer_not_listed":
            return f"registry: add the far end, in {line.far}, to the peers of {id}"
        case "not_open_yet":
            return f"registry: set an earlier valid_from of {id}"
        case "window_closed":
            return f"registry: set a later valid_until of {id}"
        case "suspended" | "revoked":
            return f"registry: set the status of {id} to active"
        case "withdrawn":
            return f"registry: register {id} again"
        case "address_moved" | "binding_ended" if standing is not None and _is_by_number(standing):
            return f"gatewayd bindings --registration {id}"
        case "address_moved" | "binding_ended":
            return f"registry: put the former address back into the clients of {id}"
        case _:
            return f"gatewayd registrations {id}"


def mend_record(source: str, record: RejectedRecord) -> str:
    """What was registered stays in force as it was; the record that would change it has a fault."""
    return f"registry: mend the record of {record.id}, line {record.line} of {source} ({record.code})"


def _is_by_number(standing: Standing) -> bool:
    return standing.registered is not None and standing.registered.subscriber is not None
