"""SQLite files of the state directory that no traffic depends on.

- `view` P what the status says of such a file
- `file`   opened or begun, set aside when it is damaged, used in a thread of its own

Review notes: does a full disk, a damaged file or one of a newer version cost anything but what the file would have
kept? Is it said? Is what waits in memory meanwhile bounded? Does a call hold the loop?
"""
