"""Step 2: what is in force. Pure.

    sources ─► merge ─► overrides ─► guard ─► Changes
                 └────── state ───────┘

- `state`         all of it as one state
- `merge`         several sources → one registry
- `overrides`     local pins and filters, laid over the registry
- `guard`         holds unusual removals back; `guard_memory` the last day in numbers, and when a registration loses
                  something; `guard_record` the guard as bytes
- `freshness`     how old the knowledge of a source is, and the mode that follows

No removal takes effect because something failed, ran out, or was taken out of the configuration by mistake: the
guard, the last good and freshness stand between, and each says so. Work that grows with the registry comes in
slices of a few milliseconds, so that the event loop turns in between; a delta of one record costs one record.

Review notes: can any path turn a failure into fewer registrations? Is a slice bounded? Does a new state of the
guard survive a restart?
"""
