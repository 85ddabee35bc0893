"""Step 2: what is in force. Pure.

    SourceUpdate ─► state: layers ─► guard ─► Changes

- `state`         `RegistryState.apply(update, now)`: all of it as one state; the daemon and `plan` use the same
- `freshness`     the state of a source beside its registrations, how old it is, and the mode that follows
- `budget`        how many elements all registrations may come to
- `layers`        several sources → one registry, and local pins and filters over it
- `guard`         holds unusual removals back
- `endpoint_guard` holds back more endpoints of licensed providers than a day may add
- `extended`      what is said of providers, and of provisional registrations before they end
- `lookups`       what is registered under an id, now and in an earlier run
- `ends`          when windows of what is held close
- `limits`        which changes are losses, the last day in numbers, and how much the guard lets through
- `guard_record`  the guard as bytes
- `standing`      for people: where a registration is from, its pins and filters, what is held of it
- `rehearsal`     a fork of the state, in which a change is made that is not made
- `history`       what changed in this run, and by whom

A failure, an end of time or a mistake in the configuration removes nothing by itself. The guard, the last good and
freshness stand between, and each says so. Work that grows with the registry comes in slices of a few milliseconds,
and the event loop turns in between. A delta of one record costs one record.

Review notes: can any path turn a failure into fewer registrations? Is a slice bounded? Does a new state of the
guard survive a restart?
"""
