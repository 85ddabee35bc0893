"""The nouns: prefix, service, registration, binding, flow, decision. Frozen, slotted, no I/O.

Only these types travel between the numbered packages.

- `prefix`, `service`, `policy`
- `registration`  and the changes between two registries, and bindings of subscribers
- `flow`          and its connection
- `mask`          of a set
- `assertion`     of an operator: a flow that must pass, or must not
- `transaction`   of the kernel, ours and those of other programs
- `accounting`    records of a NAS
- `msisdn`        mobile numbers and their digests
- `decoding`      bytes that are no value of a type, in words
- `moment`        a time that is not certain, and times as text
- `metric`        how a number is declared

Review notes: is a new noun really the trade's word? Can a value exist that is wrong? Are units in
the names?
"""

from gatewayd.model.flow import Canary, Decision, DecisionWord, Effect, Flow, Mode, reverse_flow
from gatewayd.model.prefix import Family, Prefix, format_address, parse_address, parse_prefix
from gatewayd.model.registration import Binding, BindingChange, BoundRegistration, Extension, Registration, Status
from gatewayd.model.service import Service, parse_service, parse_services, service_words

__all__ = [
    "Binding",
    "BindingChange",
    "BoundRegistration",
    "Canary",
    "Decision",
    "DecisionWord",
    "Effect",
    "Extension",
    "Family",
    "Flow",
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
