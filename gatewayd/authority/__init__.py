"""The reference registry: a SQLite database, and the feed that is published from it (docs/feed.md).

    file ─► readers (mobile → digest) ─► importing ─┐
    upsert, revoke ─────────────────────────────────┴─► database ─► publishing ─► directory ─► serving, nginx, CDN

Another organisation runs it, on another host. With the daemon it shares the format (`feed`) and bounded connections
(`listen`). Its private keys never come near a gateway.

- `layout`      (pure) the names below the published directory, and the deltas that are offered
- `readers`     (pure) turn numbers into digests before any other module sees them
- `database`    compares, audits and stores in one transaction
- `disk`        makes files that are whole or not there
- `publishing`  puts them in an order that may be cut anywhere
- `serving`     a small web server for an organisation that has none

Decisions. The audit is the change log: a delta is the audit since the last publication, reduced to the
differences. So its cost is that of the changes. A file that cannot be read withdraws nothing. A publication
without changes issues the same serial again, because clients want proof that the feed is alive. Withdrawals of a
file (`--replace`) are deletions; `revoke` keeps the registration with another status, so that a gateway can say
why.

Review notes: can a fault of the input make the registry smaller? Can a number get past `readers`, into the
database, the audit, a message? Is every change in the audit, in the same transaction? Killed at this line, what
do clients see, and does the next publication repair it? Does the same registry still give the same bytes?
"""
