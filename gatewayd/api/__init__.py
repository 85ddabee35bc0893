"""Step 9: the state of the daemon, for people and machines. Immutable views out, nothing of the daemon in.

- `queries`  P   the questions: from text to values; and the Protocol of what answers them
- `status`   P   everything on one screen, with the statistics that the packages keep of themselves
- `process`  P   the loop and the connections of the API
- `views`    P   one flow, registrations, live flows, bindings
- `explanation` P an explanation in words; `registration_text` a registration
- `text`     P   numbers, sizes, times and places as words
- `history`  P   the last day, minute by minute
- `standing` P   pins and filters, held removals, changes of the registry
- `report`   P the use of registrations over months; `report_page` the same as parts of a page, and as CSV
- `report_routes` IO the paths about months
- `near_misses` P the registrations to call about, each with the change that mends it
- `arming`   P   the questions about changes of the mode; `arming_routes` IO their paths
- `plan`     P   what a plan asks of the daemon, and what it answers; `plan_routes` IO its path
- `metrics`  P   a status → the page of a Prometheus scrape, by what the status declares
- `listening` IO  the two sockets, bound
- `middleware` IO around every handler: faults as JSON, the Host, who asks
- `event_stream` P server-sent events: a reader's place, messages ↔ bytes
- `streaming` IO the streams of events
- `html`     P   a report as one HTML file: tables and plots, no script
- `impact_page` P the report of unregistered flows: sentences, tables, parts of a page
- `reads`    IO  the handlers of what only reads
- `app`      IO  aiohttp: paths → queries → JSON, on a TCP port and on a Unix socket

Two listeners, because rights differ: a client of the TCP port may read, and nothing on it writes. Every change
is on the Unix socket alone, mode 0660, so that the file system says who may. This is not a check in a handler: the
application on TCP has no route that writes.

Queries are synchronous: one turn of the event loop makes an answer from the state in memory. So the answer is
consistent, and cannot hang on the kernel. The price is that a query must be short; listings are paged. The search
among all registrations is not short: it is made in slices, of a copy. One list is made at a time.

Review notes: can an old reader live with the changed view (add, never rename)? Does a number that hides a cut
customer stand where it is seen first? Is a new label bounded, and free of subscribers? Does a new path that
changes anything stay off TCP? Does an error name the parameter and what is expected, and keep our insides to
the log? Is the answer made without an await, or in slices?
"""
