"""Step 1, the client's side: asks each source, and keeps its last good on disk.

    file_source ─┐
    fetch ◄ route ├─ origin ─► sources ─┐                    ┌─► last_good_store
    client ◄ client_plan ─► feed_source ┴─► runners ─► daemon ┴─► registry

- `origin` a place that is opened; `file_source` a file, watched; `fetch` a URL, by `route` (proxy, authorities,
  errors in words); `authorities` files of CAs and of public keys
- `pacing` one attempt at a time; `sources` runs a plain source
- `client` the feed's client as a state machine, with `client_plan` (the next step after a notification, pauses) and
  `client_outcome` (its input and output), all pure; `feed_source` the shell around it
- `runners` the right runner for a configured source; `source_facts` the state of a source beside its registrations
- `last_good` the format on disk (pure), `last_good_files` one source's directory, `last_good_sink` snapshots on
  their way there, `last_good_store` all sources, `disk` calls to the file system, `guard_file` the guard's file
- `override_file` YAML → pins and filters (pure); `overrides_dir` the directory of them, watched

Plain and signed sources share the way to their server, the pace and the reader; they differ in the meaning of an
answer. A cut body, a file that changes under the reader, a last line that is not whole, an empty answer where there
were registrations: each is an error of the source, and the registry in force stays.

Review notes: can any path turn a failure into fewer registrations? Is there a bound on all that a hostile source
can make us hold or do before the loop turns? Can an error repeat the user, password or query of a URL? Can two
attempts of one source overlap? Killed between any two calls to the file system: is the next start's last good
whole?
"""
