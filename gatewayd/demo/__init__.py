"""`gatewayd demo`: a scenario on the lab, every promise of it checked with packets.

- `registry`  the reference registry with its feed served on the internet of the lab, and the deeds of its operator
- `gateway`   the daemon, and a NAS that sends accounting
- `cast`      the customers
- `acts`      the acts about the registry and a subscriber, and the stage that prints them
- `scenario`  all acts in their order, and the lab after the play

Review notes: does every act end with a promise that can fail? Does the demo leave the host as it found it?
"""
