"""Step 1: sources → the registry in force.

    file_source ─┐                    ┌─ record ◄ prefixes
    fetch ◄ route, inflate ─ origin ─► reading ─► sources ─┐
    notification, feed_* ─► feed ─────────────► feed_source ┴─► merge ─► overrides ─► guard ─► allowlist
                                                    └─ bytes ─► store   local files ─┘         └─► guard_file

Modules, in the order of the data; (P) are pure:

- what a source is read from: `origin` (P) the protocol; `file_source` a file, watched; `fetch` a URL, by `route`
  (proxy, authorities, errors in words) and `inflate` (P, gzip in bounded pieces); `authorities` tells what of a CA
  file a strict verification will not take.
- bytes → registrations, all (P): `prefixes`, `record` (one record, or why it is none), `reading` (NDJSON and CSV,
  however the bytes are cut; rejections are listed).
- when: `intervals` (P, how long to wait and to believe), `pacing` (one attempt at a time); `sources` runs a plain
  source.
- the signed feed: `notification` (P, JWS ↔ values, keys), `key_files`, `feed_outcome` (P, what goes into and comes
  out of the client), `feed_answer`, `feed_plan`, `feed_files` (P: the head of an answer, what a notification
  means, snapshots and deltas), `feed` (P, the client as a state machine), `feed_source` its shell.
- the registry in force: `merge` (P, several sources → one registry and what changed), `loss` (P, whether something
  is lost), `day_memory` (P, what went in a day, and how few there were), `guard` (P, holds unusual removals back),
  `held` (P, what it knows as bytes), `guard_file` (these on disk); `in_force` (P) is all of it as one state.
- the operator's word over it: `override_file` (P, YAML → pins and filters), `overrides` (P, laid over the
  registry), `overrides_dir` (the directory, watched); `staleness` (P, how old what we know is).
- the last good on disk: `kept` (P, the format), `files` (the calls to the file system), `kept_files` (one source's
  directory), `kept_sink` (snapshots on their way there), `store` (all sources: load, save).
- `authoring`: the other side, a reference registry that publishes a feed. `kept` writes in its canonical form;
  nothing else here knows it.

Decisions. A reading is used when its end was seen and never before: a cut body, a file that changes under the
reader, a last line that is not whole, an empty answer where there were registrations, are errors of the
source, and what is in force stays. A record that is wrong is dropped alone, with a stable code and its place;
what it said is repeated only where it cannot be a person's number. A reading keeps the objects of the one
before where they are equal, so a refresh of a million costs one dictionary, and comparing the two is mostly
identity; a delta of one record costs what one record costs. What takes long at a million runs in slices of a
few milliseconds, so that the event loop turns in between. Plain and signed sources share the way to their
server, the pace and the reader; they differ in what an answer means. No removal takes effect because something
failed, ran out, or was taken out of the configuration by mistake: the guard, the last good and staleness stand
between, and each says so.

Review notes: can any path turn a failure into fewer registrations? Is there a bound on what a hostile source
can make us hold or do before the loop turns? Can a rejection or an error repeat an identity, a number, a user,
password or query of a URL? Does a new rule have its code in `record.REASONS`, its case in the tests, and do both
ways through (typed and explaining) agree on it? Can two attempts of one source overlap? If we are killed between
any two calls to the file system, is what is loaded next the old or the new, whole?
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
