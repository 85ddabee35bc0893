"""The nouns: prefix, service, registration, binding, grant, flow, decision. Frozen, slotted, no I/O.

Only these types travel between the numbered packages.

Review notes: is a new noun really the trade's word? Can a value exist that is wrong? Are units in
the names?
"""

from gatewayd.model.binding import Binding, BindingChange
from gatewayd.model.flow import Canary, Decision, DecisionWord, Effect, Flow, Mode, reverse_flow
from gatewayd.model.grant import Grant
from gatewayd.model.prefix import Family, Prefix, format_address, parse_address, parse_prefix
from gatewayd.model.registration import Registration, Status
from gatewayd.model.service import Service, parse_service, parse_services, service_words

__all__ = [
    "Binding",
    "BindingChange",
    "Canary",
    "Decision",
    "DecisionWord",
    "Effect",
    "Family",
    "Flow",
    "Grant",
    "Mode",
    "Prefix",
    "Registration",
    "Service",
    "Status",
    "format_address",
    "parse_address",
    "parse_prefix",
    "parse_service",
    "parse_services",
    "reverse_flow",
    "service_words",
]
