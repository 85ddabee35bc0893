"""Real tunnels from a customer's host to one of the internet, with numbered datagrams inside.

hosts        a host behind an end of the lab: a network of its own for a tunnel's programs
numbered     datagrams inside tunnels, in both directions, each one accounted for
tunnel       the shape of a kind: begin at both ends, up, handshakes, end by process id
openvpn      over UDP and TCP with TLS, over UDP with a static key
wireguard    wireguard-go
ikev2        strongSwan, with UDP encapsulation and MOBIKE
raw, pptp    GRE, ESP and AH, and PPTP with its control connection, from packets of our own
fleet        all kinds at once; their streams as the traffic of the fault table

Review notes: can a tunnel be called up without a datagram through it? Does a program outlive the test that was
killed? Can a datagram that another one stood in for be called arrived?
"""
