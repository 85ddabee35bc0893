"""A small internet in three network namespaces, and real traffic through it. Demo, tests, soak and bench stand on
it.

    customers ──uplink0┄┄┄inside0── gateway ──outside0┄┄┄far0── internet

- `namespace`  an anonymous network namespace held by a descriptor, configured by rtnetlink (pyroute2); processes
               started in it die with us.
- `lab`        the three namespaces above. The gateway is an ordinary Linux router, with nothing of ours in it.
               Both ends stand for whole networks: they send from any source and take in any destination.
- `packets`    (pure) IPv4 and IPv6 packets as bytes, and the flow that an ICMP refusal quotes.
- `tap`        one end of the lab, seen from outside its stack: captures all that arrives, sends packets we built.
- `traffic`    `probe` answers for every flow whether a packet of it, or its TCP handshake, passes, is refused, or
               is lost.
- `stream`     numbered packets at a steady rate; the report names each one that did not arrive.
- `world`      registrations as a national registry might hold them, over the prefixes announced in Pakistan.

Why taps and not sockets: a tap reads arrival from the wire by a token in the payload. So a packet counts for
exactly the probe that sent it. Without a socket at the far end nothing there refuses a packet, so every refusal
is the gateway's. TCP alone goes through the kernel's stack at both ends, for real
handshakes.

Review notes: can a probe be called passed without its own token having crossed the gateway? Does anything the
ends do (an ICMP error, a reset) look like the gateway's answer? Does all vanish when this process is killed
with SIGKILL? Is a fact of the kernel that the lab relies on said where it is used?
"""
