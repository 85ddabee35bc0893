"""Accounting events → sessions → the addresses that are bound. Pure; the rules are in `sessions`.

- `sessions`     the table: takes events, gives changes and rows
- `session`      one session, its holds, and when it is over if nothing more is reported
- `index`        the sessions by NAS, name and address; `naming` the effect of a record on addresses
- `changes`      whose an address is, and what to bind before what to let go
- `row_changes`  the rows to keep; `restoring` the way back from them
- `nas_table`, `nas_clock`  a NAS, its restarts and the offset of its clock
- `terms`        how long a NAS is believed, and the counts; `tombstones` the sessions that ended

Review notes: does a NAS with a wrong clock, a sparse interim update or a repeated Start take anything from a
subscriber? Is what a record costs independent of the number of sessions?
"""
