"""Accounting events → sessions → the addresses that are bound. Pure; the rules are in `sessions`.

- `sessions`  the table: takes events, returns what came of each
- `index`     the sessions by NAS, name and address, and their way back after a restart
- `restoring` rows of the journal, put right for the present
- `naming`    the effect of a record on addresses
- `changes`   what to bind, what to let go and which rows to keep, from one set of dirty keys
- `session`   one session, its holds, how long it is believed without a record; `tombstones` remember it after
- `nas`       a NAS, its names and its restarts; `nas_clock` the offset of its clock

Review notes: does a NAS with a wrong clock, a sparse interim update or a repeated Start take anything from a
subscriber? Is what a record costs independent of the number of sessions?
"""
