"""The page on `http.listen`: what an operations room hangs on the wall. Values out of views, HTML out of values.

- `question` P  the text of the one box becomes a flow, an address, a digest or an id
- `problems` P  what is wrong, with the reason and the command that mends it, in an order that does not move
- `overview` P  all else of the page as values; `answer` what the box answers
- `markup`   P  elements of HTML; text is escaped because it is text
- `plots`    P  the last hour and day as SVG
- `html`     P  the whole page
- `routes`   IO paths → queries → values → HTML, or JSON for the script
- `static`, `vendor`: what a browser loads; `vendor` has files of others, unmodified (`VENDORED.toml`)

The server writes all of it once, so that it is there without a script. Then `page.js` draws the same values again,
asked for when an event comes. Both are read only: no path of this package changes anything. The browser loads from
this port alone, and says so itself (Content-Security-Policy).

Review notes: does the worst stand first, and does it stay in its place when the next look comes? Is there a word
or a shape beside each colour? Is a text from outside anything but text? Does the page say the same without a
script? Is what it asks for bounded, and made in slices? Is a mobile number repeated anywhere?
"""
