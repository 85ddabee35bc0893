"""The kernel: our nf_tables table, conntrack marks, and a fake of the table.

    attributes        netlink messages and attributes as bytes
    tables_codec      sets, elements, rules, counters ↔ bytes; pure
    netlink, nft      a request socket; the nft command
    event_socket      a socket that listens, and the number of messages it lost
    notifications     commits of other programs; notifications_codec: their bytes
    tables            the real dataplane
    fake              the dataplane in memory
    conntrack         connections dumped by mark, marks changed; conntrack_codec: their bytes
    surroundings      rules of other programs that touch our marks, the size of conntrack; neighbours_codec: their
                      bytes

Review notes: is every answer looked at, and every error given the operation it belongs to? Is the hot path still
one join and one slice an element? Does the fake refuse it too? What does an older kernel (6.1) answer?
"""
