"""The passage check: what all tables of a host, ours included, make of a packet, asked in a copy.

Nothing is sent through the host and nothing is written there. All that nf_tables has is copied into a network
namespace without a name, and a real packet is traced through it there.

    copying   (pure) objects as they are listed → requests that make them; which rules may answer otherwise there
    trace     (pure) what the kernel says of the packet: the base chains that it met, in order
    packet    (pure) the first packet of a flow, as a frame
    views     (pure) the answer
    host      the host's ruleset and routes
    scratch   the namespaces: load the copy, send the packet
    probe     one question

The answer names what it leaves open: rules that cannot be copied, and those that go by a state of the host. It is
about a flow that is new to connection tracking.

Review notes: can anything of this reach the host's own namespace but reads? Is every rule that a packet met and
the copy lacks named? Does a set of a million elements cost more than a few look-ups? Is the scratch namespace gone
after SIGKILL?
"""
