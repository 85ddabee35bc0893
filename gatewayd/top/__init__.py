"""What `gatewayd top` shows, without a screen: answers of the API in, rows of text out. Pure.

- `flows`   the live flows, gathered page by page; what each carries a second; sums of registrations
- `tables`  rows of flows, registrations, near misses and unregistered flows, and the question behind each

    /v1/flows, a page a second ─► flows ─► tables ─► cells of a screen (`cli.top_screen`)

The daemon counts what a flow carries when it scans connection tracking, every 30 s at rest. So the rate of a flow
is an average between two scans, and is not known before the second.

Review notes: is what is gathered bounded, and does the screen say where the bound is reached? Is a row found again
when the order changes? Does a counter that went back give no rate? Is what comes from outside shown as text alone?
"""
