"""The kernel: our nf_tables table, conntrack marks, and a fake of the table.

    attributes        netlink messages and attributes as bytes
    netlink           a socket for requests, and those that events come in on
    nft               the nft command
    tables            the real dataplane; tables_codec: sets, elements, rules, counters ↔ bytes
    passage           sets that our rules look into, and single elements by their keys; passage_codec: their bytes
    counts            sets in which the rules count; counts_codec: elements with counters
    fake              the dataplane in memory
    external          commits of other programs, their rules that use our mark, the size of conntrack;
                      external_codec: their bytes
    trace             what the kernel says of traced packets
    links             the interfaces, and a thread that notices when one comes or goes
    claim             the lock that keeps a second daemon off a table
    clock             whether an NTP program keeps the clock
    conntrack         connections dumped by mark, marks changed; conntrack_codec: their bytes

Review notes: is every answer looked at, and every error given the operation it belongs to? Is the hot path still
one join and one slice an element? Does the fake refuse it too? What does an older kernel (6.1) answer?
"""
