"""Sockets that take strangers' connections: the daemon's API, its accounting, the authority's web server.

- `ahead`        IO  a socket on an address that comes with the network
- `connections`  IO  HTTP connections, accepted, bounded in number and time

Review notes: can a client hold what others need, without sending a whole request or without reading? Is each bound
an argument? Is each closing counted?
"""
