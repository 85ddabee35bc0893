"""Step 1: the format that the registry and the gateway share. Pure: bytes in, values out.

- `record`        one record → a registration, or the reason why it is none
- `addresses`     … and its prefixes
- `reading`       NDJSON and CSV → registrations and rejections, however the bytes are cut
- `csv_dialect`   what spreadsheets make of CSV: encodings, delimiters, rows of nothing
- `notification`  JWS ↔ the notification of a feed, and the keys that verify it
- `files`         snapshots and deltas of a feed
- `canonical`     a registration → the one text that stands for it

A reading is used when its end was seen and never before. A record that is wrong is dropped alone, with a stable
code and its place. A message repeats its content only where that cannot be a person's number. A reading keeps the
objects of the one before where they are equal, so a refresh of a million costs one dictionary. The format in words
is docs/feed.md.

Review notes: does a new rule have its code in `record.REASONS`, and its case in the tests? Do both ways through
(typed and explaining) agree on it? Can a rejection repeat an identity? Is every size bounded before it is
allocated?
"""
