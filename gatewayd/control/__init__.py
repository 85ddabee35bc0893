"""The tasks and the clock: what happens when.

- `controller`  sources, events and time in; the reconciler and the connections told
- `active`      registrations in their windows and grants at bound addresses
- `queries`, `subscriber_queries`   what the API answers with
- `trusted_time` (pure) which clock is believed; `host_time` the clocks of this host

Review notes: is every change one turn without await? Is everything that runs between two awaits bounded? Does a
reload reach each part that reads a setting?
"""
