"""`gatewayd demo`: a scenario on the lab, every promise of it checked with packets.

`registry` the reference registry with its feed served on the internet of the lab, and the deeds of its operator;
`gateway` the daemon; `nas` a NAS that sends accounting; `cast` the customers; `scenario`, `registry_acts` and
`subscriber_acts` the acts; `stage` the printed lines; `keep` the lab after the play.

Review notes: does every act end with a promise that can fail? Does the demo leave the host as it found it?
"""
