"""Accounting events → sessions → the addresses that are bound. Pure; the rules are in `sessions`.

- `sessions`  the table: takes events, returns what came of each
- `index`     the sessions by NAS, name and address, and their way back after a restart
- `naming`    the effect of a record on addresses
- `changes`   what to bind, what to let go and which rows to keep, from one set of dirty keys
- `session`   one session, its holds, how long it is believed without a record, and what is remembered of it after
- `nas`       a NAS, its names, its restarts and the offset of its clock

Review notes: does a NAS with a wrong clock, a sparse interim update or a repeated Start take anything from a
subscriber? Is what a record costs independent of the number of sessions?
"""
