"""RADIUS accounting (RFC 2866): datagrams to accounting events, and the answers.

- `packet`      a datagram → the request of a client that holds the secret; the answer, kept for repeats; over pyrad
- `attributes`  numbers and values of attributes; Framed-IP-Address and the IPv6 prefixes; port blocks of a CGNAT
- `accounting`  a request → an AccountingEvent; a number becomes a digest here, and ends here
- `clients`     who may send, and how a NAS is to be understood
- `senders`     the numbers of the listener, and who is refused
- `flood`       what one sender may take of the port, and when the kernel drops strangers
- `listener`    datagrams received, counted, handed on, answered; `sockets` what it asks of the kernel: the shells

A datagram that is not believed is a RadiusRejected and gets no answer. A request that is believed and cannot be
used is an AccountingRejected and is answered, because its sender would repeat it for ever. One of which a part
cannot be used is an event without that part, which it names.

Review notes: can a datagram without the secret make us do more than walk it twice? Does an attribute that is new to
us cost no subscriber the address? Can a text of the packet carry a number into an event, a log line or a message?
"""
