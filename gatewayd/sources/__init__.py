"""Step 1, the client's side: asks each source, and saves its last good on disk.

    file_source, fetch ─► runner ───────┐
                                        ├─► SourceUpdate ─► registry, last_good_store
    fetch ─► client ─► feed_source ─────┘

- `update`        the one shape of what came of asking a source, its position, and the places it is read from
- `runner`        one attempt at a time, and the pauses; a plain source, read whole. `feed_source` a signed feed,
                  and the right runner for a configured source
- `client`        the feed's client as a state machine, with `client_plan` (the next step after a notification,
                  pauses, requests), both pure
- `file_source`   a file, watched; `fetch` a URL, the way to it (proxy, authorities, errors in words), files of keys
- `last_good`     the format on disk (pure); `last_good_files` one source's directory, and snapshots on their way
                  there; `last_good_store` all sources
- `disk`          calls to the file system, and the guard's file
- `override_file` YAML → pins and filters (pure); `overrides_dir` the directory of them, watched

Plain and signed sources share the way to their server, the pace and the reader; they differ in the meaning of an
answer. Errors of a source are a cut body, a file that changes under the reader, or a last line that is not whole.
An empty answer where there were registrations is one too. After an error the registry in force stays.

The last good is in files and not in SQLite, measured with a million registrations (seconds of processor time):

    files, gzip NDJSON               load 6.1    write 2.8, a snapshot as served 0   10 MB
    SQLite, a row of NDJSON each     load 5.7    write 4.8                          200 MB
    SQLite, a row of msgpack each    load 2.7    write 3.7                          285 MB
    SQLite, 2048 lines a blob        load 5.2    write 2.7                           11 MB

A row of msgpack loads in half the time. But it takes the processor from the loop for seconds whenever a snapshot
comes; a file takes that as it is. And SQLite has no checksum of a page: a flipped bit would pass for an address.

Review notes: can any path turn a failure into fewer registrations? Is there a bound on all that a hostile source
can make us hold or do before the loop turns? Can an error repeat the user, password or query of a URL? Can two
attempts of one source overlap? Killed between any two calls to the file system: is the next start's last good
whole?
"""
