"""The questions: `Queries` is what the API asks of the daemon; the rest turns the text of a request into values.

Pure; the CLI reads its arguments with it too. Every fault names its parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Final, NamedTuple, Protocol, cast, get_args

import msgspec

from gatewayd.api.arming import ArmingQueries
from gatewayd.api.history import HistoryView
from gatewayd.api.near_misses import NearMissList
from gatewayd.api.plan import PlanRequest, PlanView
from gatewayd.api.report import ActivityPage, ReportView, VerifyPage
from gatewayd.api.standing import ChangeList, HeldList, RejectedList
from gatewayd.api.status import StatusView
from gatewayd.api.views import (
    BindingPage,
    ExplainView,
    FlowPage,
    RegistrationPage,
    RegistrationView,
    UnregisteredFlowPage,
)
from gatewayd.errors import InputRejected, PrefixInvalid, ServiceInvalid, SessionEntryInvalid
from gatewayd.impact.report import ImpactReport
from gatewayd.model import Flow, Prefix, Service, Status, parse_address, parse_prefix, parse_service
from gatewayd.model.decoding import UNDECODABLE, printable, why_undecodable
from gatewayd.model.moment import parse_time
from gatewayd.model.service import BUNDLES, PROTOCOLS_WITH_PORTS

MAX_ENTRIES: Final = 1000
"""Sessions of one PUT; more come in several, or as the file `subscribers.sessions_file`."""

DEFAULT_LIMIT: Final = 100
HIGHEST_LIMIT: Final = 1000
_MAX_TEXT: Final = 200
_MAX_DIGITS: Final = 12
_END_FIELDS: Final = ("nas", "session", "at")
_MAX_END: Final = 253
"""Bytes of an attribute's value (RFC 2865 §5)."""


class Queries(Protocol):
    """Read only, all but `sync`, `reload`, `accept`, `acknowledge`, `put_bindings` and `delete_binding`: the API
    offers these on its Unix socket alone."""

    def is_alive(self) -> str | None:
        """None, or the reason why this process should be restarted."""
        ...

    def readiness(self) -> tuple[str, ...]:
        """Why the kernel cannot be relied on to have the allowlist; empty = ready."""
        ...

    def outage(self) -> tuple[str, ...]:
        """Why a probe should take the gateway out of service: as `readiness`, but for what has been on its way to
        the kernel for less than a second."""
        ...

    @property
    def arming(self) -> ArmingQueries:
        """Changes of the mode."""
        ...

    def status(self) -> StatusView: ...

    def history(self) -> HistoryView: ...

    def explain(self, flow: Flow, incoming: str | None = None, outgoing: str | None = None) -> ExplainView:
        """What would become of the flow now. `source_port` 0: not given. `incoming`, `outgoing`: interfaces.

        Raises AllowlistIncomplete where a source that was not read yet may register it.
        """
        ...

    async def registrations(
        self, category: str | None, status: Status | None, text: str | None, offset: int, limit: int,
        *, registrant: str | None = None, ending_s: float | None = None, provisional: bool = False,
    ) -> RegistrationPage:  # fmt: skip
        """Those that meet all conditions given, in a stable order. `ending_s`: effective, with a window that ends
        within so many seconds, the soonest first. `provisional`: no others.

        `text`: part of an id, an address or prefix among or covered by the clients or peers, or a number's digest.
        """
        ...

    def registration(self, registration_id: str) -> RegistrationView | None:
        """Also one that a source has and a filter drops."""
        ...

    def held(self, offset: int, limit: int) -> HeldList:
        """Removals that wait for `accept`."""
        ...

    def changes(self, since_s: float) -> ChangeList:
        """What changed of the registry in force since that time, in this run."""
        ...

    async def report(self, since_s: float) -> ReportView:
        """Use of registrations, changes and holds since that time."""
        ...

    async def activity(self, since_s: float, id: str | None, offset: int, limit: int) -> ActivityPage:
        """Use of each registration since that time, or of the one with this id.

        May raise GatewaydError, whose message goes to the caller."""
        ...

    def rejected(self, source: str | None, offset: int, limit: int) -> RejectedList:
        """Records that are not usable, of one source or of all; an unknown source has none."""
        ...

    def near_misses(self, offset: int, limit: int, *, with_acknowledged: bool) -> NearMissList:
        """The registrations to call about, the latest first."""
        ...

    async def acknowledge(self, registration_id: str, until_s: float | None, by: str) -> Mapping[str, object]:
        """Take the near misses of a registration off the list, until a time or for good (None)."""
        ...

    async def verify(self, since_s: float, offset: int, limit: int) -> VerifyPage:
        """Of each registration what an ISP signs; in use since that time or not."""
        ...

    def flows(self, registration_id: str | None, offset: int, limit: int) -> FlowPage:
        """Live registered flows, all or those of one registration; an unknown id has none."""
        ...

    async def impact(self, since_s: float | None, top: int, percent: int) -> ImpactReport:
        """Unregistered flows since that time, or of a day; `top` prefixes, a canary of so many percent of clients.

        Raises StateFileUnusable.
        """
        ...

    def unregistered_flows(self, offset: int, limit: int) -> UnregisteredFlowPage | None:
        """The last unregistered flows, the newest first. None unless `watch.unregistered` is `flows`."""
        ...

    def bindings(
        self, registration_id: str | None, prefix: Prefix | None, offset: int, limit: int
    ) -> BindingPage | None:
        """Addresses of registered subscribers, all or those of one registration, those that cover `prefix`; an
        unknown id has none. None where the configuration knows no subscribers."""
        ...

    async def put_bindings(self, entries: Sequence[object]) -> Mapping[str, object] | None:
        """Take live sessions, all or none; returns what came of it, when it is on disk. None as in `bindings`.

        Raises SessionEntryInvalid, and SessionsNotKept.
        """
        ...

    async def delete_binding(self, nas: object, session: object, at: object) -> Mapping[str, object] | None:
        """The session is over, at `at` or now; one that nobody knows is no fault. As `put_bindings`."""
        ...

    async def sync(self) -> Mapping[str, object]:
        """Read every source now; returns what came of it, when it is in the kernel.

        May raise GatewaydError, whose message goes to the caller.
        """
        ...

    async def reload(self, by: str, *, is_forced: bool) -> Mapping[str, object]:
        """Read the configuration again, as `by` asks; returns what came of it: `reloaded`, `faults`,
        `needs_restart` and assertions that would be `broken` (why not), `mode` in force, and what a policy of the
        file still `waits_for`. `is_forced`: also where it breaks an assertion."""
        ...

    async def plan(self, request: PlanRequest) -> PlanView:
        """What a reload, or another mode, would come to. Changes nothing.

        May raise GatewaydError, whose message goes to the caller.
        """
        ...

    async def accept(self, serial: int, by: str, *, is_forced: bool) -> Mapping[str, object]:
        """Release the removals held under this serial, as `by` asks; returns what was released.

        Raises GatewaydError when none are (SerialNotHeld), and where it would break an assertion and is not forced
        (AssertionsBroken); its message goes to the caller.
        """
        ...


def read_entries(body: bytes) -> Sequence[object]:
    """One entry or a list of them. Raises SessionEntryInvalid (`not_json`, `too_many_entries`)."""
    found = _decode(body)
    if not isinstance(found, list):
        return (found,)
    if len(found) > MAX_ENTRIES:
        raise SessionEntryInvalid("", "too_many_entries", f"{len(found)} entries, at most {MAX_ENTRIES} are taken")
    return found


def read_plan(body: bytes) -> PlanRequest:
    """An empty body asks for what is in force. Raises ParameterRejected."""
    try:
        request = msgspec.json.decode(body or b"{}", type=PlanRequest)
    except UNDECODABLE as error:
        raise ParameterRejected("body", why_undecodable(error)) from None
    if request.canary is not None and not 1 <= request.canary <= 100:
        raise ParameterRejected("canary", f"{request.canary} is not from 1 to 100")
    return request


def read_end(body: bytes, pairs: Iterable[tuple[str, str]]) -> Mapping[str, object]:
    """`nas`, `session` and perhaps `at` of a session that is over: an object in the body, or else parameters.

    Raises ParameterRejected and SessionEntryInvalid (`not_json`, `not_an_object`, `unknown_field`).
    """
    if not body:
        return read_parameters(pairs, _END_FIELDS, _MAX_END)
    read_parameters(pairs, ())
    end = _decode(body)
    if not isinstance(end, dict):
        raise SessionEntryInvalid("", "not_an_object", "not an object with named fields")
    if not end.keys() <= set(_END_FIELDS):
        raise SessionEntryInvalid("", "unknown_field", f"has an unknown field, expected {', '.join(_END_FIELDS)}")
    return end


def _decode(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except UNDECODABLE:
        raise SessionEntryInvalid("", "not_json", "the body is not JSON") from None


class ParameterRejected(InputRejected):
    """A parameter cannot be used; the request is answered with 400."""

    def __init__(self, parameter: str, why: str) -> None:
        self.parameter = parameter
        super().__init__(f"{parameter}: {why}", why)


class Page(NamedTuple):
    """`offset` from 0, `limit` 1..HIGHEST_LIMIT."""

    offset: int = 0
    limit: int = DEFAULT_LIMIT


def read_parameters(
    pairs: Iterable[tuple[str, str]], known: Iterable[str], longest: int = _MAX_TEXT
) -> dict[str, str]:
    """Parameters by name, without the empty ones. Raises ParameterRejected: unknown, given twice, too long."""
    allowed = (*known, "pretty")
    found: dict[str, str] = {}
    for name, text in pairs:
        if name not in allowed:
            raise ParameterRejected(printable(name, 64), f"unknown, expected {', '.join(allowed)}")
        if name in found:
            raise ParameterRejected(name, "given twice")
        if len(text) > longest:
            raise ParameterRejected(name, f"longer than {longest} characters")
        found[name] = text
    return {name: text for name, text in found.items() if text}


def read_flow(parameters: Mapping[str, str]) -> Flow:
    """The flow of `src`, `dst`, `service` and, if given, `sport`, which may also be called `source_port`. Raises
    ParameterRejected."""
    for name, example in (("src", "203.0.113.5"), ("dst", "198.51.100.7"), ("service", "udp/51820")):
        if name not in parameters:
            raise ParameterRejected(name, f"missing, expected for example {name}={example}")
    source = _read_address("src", parameters["src"])
    destination = _read_address("dst", parameters["dst"])
    if len(source) != len(destination):
        raise ParameterRejected("dst", "src and dst must both be IPv4 or both be IPv6")
    service = _read_service(parameters["service"])
    has_ports = service.protocol in PROTOCOLS_WITH_PORTS
    port = "source_port" if "source_port" in parameters else "sport"
    if port in parameters and not has_ports:
        raise ParameterRejected(port, f"{service} has no ports")
    if port != "sport" and "sport" in parameters:
        raise ParameterRejected(port, "sport is given too, and is the same")
    return Flow(
        protocol=service.protocol,
        source=source,
        destination=destination,
        source_port=_read_number(port, parameters.get(port), 0, 1, 65535),
        destination_port=service.low if has_ports else 0,
    )


def read_page(parameters: Mapping[str, str]) -> Page:
    """`offset` and `limit`. Raises ParameterRejected."""
    return Page(
        _read_number("offset", parameters.get("offset"), 0, 0, 10**_MAX_DIGITS - 1),
        _read_number("limit", parameters.get("limit"), DEFAULT_LIMIT, 1, HIGHEST_LIMIT),
    )


def read_flag(parameters: Mapping[str, str], parameter: str) -> bool:
    """1 or 0; without it, no. Raises ParameterRejected."""
    text = parameters.get(parameter, "0")
    if text not in ("0", "1"):
        raise ParameterRejected(parameter, f"{text!r} is neither 0 nor 1")
    return text == "1"


def read_prefix(parameters: Mapping[str, str], parameter: str) -> Prefix | None:
    """A prefix, or an address as its host prefix. Raises ParameterRejected."""
    text = parameters.get(parameter)
    try:
        return None if text is None else parse_prefix(text)
    except PrefixInvalid as error:
        raise ParameterRejected(parameter, str(error)) from None


def read_until(parameters: Mapping[str, str]) -> float | None:
    """`until` in Unix seconds; None without it. Raises ParameterRejected."""
    text = parameters.get("until")
    try:
        return None if text is None else parse_time(text)
    except ValueError:
        raise ParameterRejected("until", f"{text!r} is no time, expected such as 2026-01-31T00:00:00Z") from None


def read_since(parameters: Mapping[str, str]) -> float:
    """`since` in Unix seconds; without it, all the time. Raises ParameterRejected."""
    text = parameters.get("since")
    try:
        return -inf if text is None else parse_time(text)
    except ValueError:
        raise ParameterRejected("since", f"{text!r} is no time, expected such as 2026-01-31T00:00:00Z") from None


class ImpactQuestion(NamedTuple):
    """`since_s` None: a day ago."""

    since_s: float | None
    top: int
    percent: int


def read_impact_question(parameters: Mapping[str, str]) -> ImpactQuestion:
    """`since`, `top` and `canary`. Raises ParameterRejected."""
    return ImpactQuestion(
        read_since(parameters) if "since" in parameters else None,
        _read_number("top", parameters.get("top"), DEFAULT_LIMIT, 1, HIGHEST_LIMIT),
        _read_number("canary", parameters.get("canary"), 10, 0, 100),
    )


def read_status(parameters: Mapping[str, str]) -> Status | None:
    """The status to look for. Raises ParameterRejected."""
    text = parameters.get("status")
    if text is None or text in get_args(Status):
        return cast("Status | None", text)
    raise ParameterRejected("status", f"{text!r} is none of {', '.join(get_args(Status))}")


def read_host(header: str) -> str:
    """The name or address of a Host header (RFC 9110 §7.2), without port, brackets and the final dot."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].removesuffix(".")


def _read_address(parameter: str, text: str) -> bytes:
    try:
        return parse_address(text)
    except PrefixInvalid as error:
        raise ParameterRejected(parameter, str(error)) from None


def _read_service(text: str) -> Service:
    """One service of one port: a flow has no bundle and no range."""
    try:
        services = parse_service(text)
    except ServiceInvalid as error:
        raise ParameterRejected("service", str(error)) from None
    if text in BUNDLES and len(services) > 1:
        members = ", ".join(map(str, services))
        raise ParameterRejected("service", f"{text!r} is a bundle, ask for one of its services: {members}")
    (service,) = services
    if service.protocol in PROTOCOLS_WITH_PORTS and service.low != service.high:
        name = text.partition("/")[0]
        raise ParameterRejected("service", f"{text!r} is more than one port, expected {name}/PORT")
    return service


def _read_number(parameter: str, text: str | None, default: int, lowest: int, highest: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_DIGITS:
        raise ParameterRejected(parameter, f"{text!r} is not a number from {lowest} to {highest}")
    if not lowest <= int(text) <= highest:
        raise ParameterRejected(parameter, f"{text} is not from {lowest} to {highest}")
    return int(text)
