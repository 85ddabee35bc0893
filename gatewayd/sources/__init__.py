"""Step 1, the client's side: asks each source, and saves its last good on disk.

    files, fetch ─► plain_source ─┐
                                  ├─► SourceUpdate ─► registry, last_good_store
    fetch ─► client ─► runner ────┘

- `update`        the one shape of what came of asking a source, its position, and the places it is read from
- `runner`        one attempt at a time, and the pauses; a signed feed
- `plain_source`  a plain source, read whole; the right runner for a configured source
- `client`        the feed's client as a state machine, with `client_plan` (the next step after a notification,
                  pauses, requests), both pure
- `files`         a file, watched; the directory of overrides, watched; writes that are durable
- `fetch`         a URL, the way to it (proxy, authorities, errors in words), files of keys
- `last_good`     registrations ↔ rows (pure); `last_good_file` the database of one source; `last_good_store` all
                  sources, and the guard's file
- `override_file` YAML → pins and filters (pure)

Plain and signed sources share the way to their server, the pace and the reader; they differ in the meaning of an
answer. Errors of a source are a cut body, a file that changes under the reader, or a last line that is not whole.
An empty answer where there were registrations is one too. After an error the registry in force stays.

The last good is in SQLite, 1024 registrations a row. Measured with a million, in seconds of processor time:

    1024 in columns a row         load 1.4    write 0.9                            27 MB
    files, gzip NDJSON            load 4.3    write 2.2, a snapshot as served 0    10 MB
    a row of msgpack for each     load 2.7    write 3.7                           285 MB

The loop turned within 28 ms meanwhile, and that is the growth of a dictionary. The files took a feed's snapshot as
it was served. Now it is written as any other reading, in a thread.

Review notes: can any path turn a failure into fewer registrations? Is there a bound on all that a hostile source
can make us hold or do before the loop turns? Can an error repeat the user, password or query of a URL? Can two
attempts of one source overlap? Killed between any two calls to the file system: is the next start's last good
whole?
"""
