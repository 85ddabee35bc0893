"""The tasks and the clock: what happens when.

- `controller`  sources, events and time in; the reconciler and the connections told
- `active`      registrations in their windows and grants at bound addresses
- `bindings`, `subscriber_service`  accounting events to bindings
- `queries`     the API's answers; `status` everything on one screen, `explain` one flow, `subscriber_queries`
                bindings and sessions
- `vitals`      the numbers of the process itself
- `trusted_time` (pure) which clock is believed; `host_time` the clocks of this host

Review notes: is every change one turn without await? Is everything that runs between two awaits bounded? Does a
reload reach each part that reads a setting?
"""
