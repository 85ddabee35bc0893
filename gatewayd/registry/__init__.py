"""Step 1: sources → registrations, record by record (DESIGN §5, §6).

    origin (file, http) ─ chunks ─► reading (ndjson, csv) ─ registrations ─► merge ─ changes ─► allowlist
        file_source                   record ◄ prefixes                      one reading a source
        fetch ◄ inflate

`record` says what a registration is and why a record is none; `reading` turns bytes, however they are cut,
into registrations and listed rejections; `merge` makes one registry of several sources and says what changed
in it. These are pure. `file_source` and `fetch` open files and URLs and give whole content or an error;
`sources` runs one source: when to ask, what to deliver, when to try again. The signed feed (notification,
snapshot, deltas) has its place beside them in `feed`, as a state machine over the same readers.

Decisions. A reading is used when its end was seen and never before: a cut body, a file that changes under the
reader, a last line that is not whole, an empty answer where there were registrations, are errors of the
source, and what is in force stays. A record that is wrong is dropped alone, with a stable code and its place;
what it said is repeated only where it cannot be a person's number. A reading keeps the objects of the one
before where they are equal, so a refresh of a million costs one dictionary, and comparing the two is mostly
identity. What takes long at a million runs in slices of a few milliseconds, so that the event loop turns in
between.

Review notes: can any path turn a failure into fewer registrations? Is there a bound on what a hostile source
can make us hold or do before the loop turns? Can a rejection or an error repeat an identity, a number, a
password in a URL? Does a new rule have its code in `record.REASONS`, its case in the tests, and do both ways
through (typed and explaining) agree on it?
"""

from gatewayd.registry.fetch import FetchLimits, HttpSource, HttpValidator, open_session
from gatewayd.registry.file_source import FileSignature, FileSource, signature_of, watch_file
from gatewayd.registry.inflate import GzipDamaged, Inflater
from gatewayd.registry.merge import (
    Changes,
    Merged,
    Slices,
    SourceSet,
    changes_in_slices,
    construct_changes,
    run_slices,
)
from gatewayd.registry.origin import Body, Origin
from gatewayd.registry.reading import (
    CsvReader,
    Format,
    NdjsonReader,
    ReadLimits,
    RecordReader,
    Rejection,
    format_of,
    reader_for,
)
from gatewayd.registry.record import REASONS, ReasonCode, RecordParser, parse_record, registration_of
from gatewayd.registry.sources import (
    SourceReading,
    SourceRunner,
    SourceState,
    open_origin,
    run_in_slices,
)

__all__ = [
    "REASONS",
    "Body",
    "Changes",
    "CsvReader",
    "FetchLimits",
    "FileSignature",
    "FileSource",
    "Format",
    "GzipDamaged",
    "HttpSource",
    "HttpValidator",
    "Inflater",
    "Merged",
    "NdjsonReader",
    "Origin",
    "ReadLimits",
    "ReasonCode",
    "RecordParser",
    "RecordReader",
    "Rejection",
    "Slices",
    "SourceReading",
    "SourceRunner",
    "SourceSet",
    "SourceState",
    "changes_in_slices",
    "construct_changes",
    "format_of",
    "open_origin",
    "open_session",
    "parse_record",
    "reader_for",
    "registration_of",
    "run_in_slices",
    "run_slices",
    "signature_of",
    "watch_file",
]
