"""Step 3: who has which address at the moment, as the operator's AAA tells it (RADIUS accounting, RFC 2866).

    listener     UDP sockets; clients: who may send, and how a NAS is to be understood; secret_files
    responses    answers, for whom did not get them; refusals: who was not believed, in bounds
    packet       a datagram to a request of somebody who holds the secret; the answer; over pyrad
    attributes   numbers of attributes, values of the simple kinds
    addresses    Framed-IP-Address, the IPv6 prefixes; what nobody can be bound to
    ports        port blocks of a CGNAT
    identity     the mobile number, and at once its digest
    accounting   all of that as an AccountingEvent
    session_list the same from lists and the API, for what speaks no RADIUS
    sessions     events to sessions, and what of them is bound: the rules are in its docstring; roster: its indexes
    session      one session, and what is held of an address; naming: what a session's words do to its addresses
    ownership    whose an address is; changes: what to bind before what to let go
    expiry       when a session that says nothing is over; tombstones: what is remembered of those that ended
    terms        how long a NAS is believed, and the counts
    row_changes  what of the sessions changed and is to be kept; journal_rows: its octets; restoring: the way back
    journal      rows to disk in groups, before an event is answered; journal_file: SQLite, and what befalls files
    core_dumps   none

All but listener, secret_files, journal, journal_file and core_dumps are pure: bytes and `now` in, values out.
A datagram that is not believed is a RadiusRejected and gets no answer. A request that is believed and cannot be
used is an AccountingRejected and is answered, because its sender would repeat it for ever. One of which a part
cannot be used is an event without that part, which it names.

A number lives for the length of one call in `identity`. Everything behind it knows a digest; user names, classes
and other identities of a packet are not read on.

`bindings.Bindings` owns the table and tells the kernel's side and the journal; `subscriber_service` builds all.

Review notes: can a datagram without the secret make us do more than walk it twice? Does an attribute that is new to
us cost nobody the address? Can a text of the packet carry a number into an event, a log line or a message? Does a
NAS with a wrong clock, a sparse interim update or a repeated Start take anything from a subscriber?
"""
