"""Step 4: who has which address at the moment, as the operator's AAA reports it (RADIUS accounting, RFC 2866).

- `radius`        datagrams to accounting events, and the answers
- `session_list`  the same events from lists and the API, for systems that speak no RADIUS
- `secret_files`  the pepper and the secrets; no core dumps
- `sessions`      events to sessions, and the addresses that are bound
- `service`       sockets, files and tasks around these, built and stopped as one
- `journal_rows`  (pure) the bytes of a row, and a clock that is never set
- `journal`       rows to disk in groups, before an event is answered
- `journal_file`  SQLite, and damaged or missing files

A number lives for the length of one call, in `radius.accounting` or `session_list`. Everything behind it knows a
digest; user names, classes and other identities of a packet are not read on.

Review notes: can a number reach the journal, the log or a message? Is a row on disk before its record is answered?
"""
