"""The kernel: our nf_tables table, conntrack marks, and a fake of the table.

    attributes        netlink messages and attributes as bytes
    tables_codec      sets, elements, rules, counters ↔ bytes; pure
    netlink, nft      a request socket; the nft command
    notices(_codec)   what others commit, as the kernel tells it
    tables            the real dataplane
    fake              the dataplane in memory
    conntrack(_codec) connections listed by mark, marks changed

Review notes: is every answer looked at, and every error given the operation it belongs to? Is the hot path still
one join and one slice an element? Does the fake refuse it too? What does an older kernel (6.1) answer?
"""
