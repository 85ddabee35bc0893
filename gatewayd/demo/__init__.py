"""A small internet in three network namespaces, real traffic through it, and a registry to fill it.

`gatewayd demo` and the tests of the kernel stand on the same three pieces, so that what the demo shows is
what the tests prove:

    customers ──uplink0┄┄┄inside0── gateway ──outside0┄┄┄far0── internet

- `namespace` (IO): an anonymous network namespace held by a descriptor; processes started in it die with us.
- `lab` (IO): the three namespaces above. The gateway is an ordinary Linux router, with nothing of ours in it.
  Both ends stand for whole networks: they send from any source and take in any destination.
- `packets` (P): IPv4 and IPv6 packets as bytes, and what an ICMP refusal says of them.
- `tap` (IO): one end of the lab, seen from outside its stack: captures all that arrives, sends what we built.
- `handshake` (IO): TCP connections between any two addresses, by the stacks of both ends.
- `traffic` (IO): `probe` answers for every flow whether a packet of it passes, is refused, or is lost.
- `stream` (IO): numbered packets at a steady rate; the report names each one that did not arrive.
- `world` (P): registrations as a national registry might hold them, over the prefixes announced in Pakistan.
- `announced` (IO): those prefixes, which ship with the package.

What `gatewayd demo` has beside them: `registry` (IO), the reference registry with its feed served on the internet
of the lab, and what its operator does to it; `gateway` (IO), the daemon; `cast`, who is in the play; `scenario` and
`registry_acts`, the acts; `stage`, what is printed; `keep`, the lab after the play.

Why taps and not sockets: arrival is read from the wire by a token in the payload, so a packet counts for
exactly the probe that sent it; and no socket at the far end means nothing there refuses anything, so that
every refusal seen is the gateway's. TCP alone goes through the kernel's stack at both ends, for real
handshakes.

Why `ip -batch` and not pyroute2: IPRoute runs an event loop of its own and so fails inside a running one, and
a network engineer reads the lab's set-up as what would be typed by hand.

Review notes: can a probe be called passed without its own token having crossed the gateway? Does anything the
ends do (an ICMP error, a reset) look like the gateway's answer? Does all vanish when this process is killed
with SIGKILL? Is a fact of the kernel that the lab relies on said where it is used?
"""
