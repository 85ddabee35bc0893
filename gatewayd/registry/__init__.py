"""Step 2: what is in force. Pure.

    SourceUpdate ─► state: merge ─► overrides ─► guard ─► Changes

- `state`         `RegistryState.apply(update, now)`: all of it as one state; the daemon and `plan` use the same
- `freshness`     the state of a source beside its registrations, how old it is, and the mode that follows
- `merge`         several sources → one registry
- `overrides`     local pins and filters, laid over the registry
- `guard`         holds unusual removals back; `limits` what a loss is, the last day in numbers, and how much is let
                  through; `guard_record` the guard as bytes

No removal takes effect because something failed, ran out, or was taken out of the configuration by mistake: the
guard, the last good and freshness stand between, and each says so. Work that grows with the registry comes in
slices of a few milliseconds, so that the event loop turns in between; a delta of one record costs one record.

Review notes: can any path turn a failure into fewer registrations? Is a slice bounded? Does a new state of the
guard survive a restart?
"""
