"""Every event of the log, declared once: name, level, fields, meaning. The table of docs/operations.md follows.

A field with `?` is not always there. `suppressed`, which a rate-limited logger adds to any of its events, and
`exception`, which an event of the level exception has, are not declared.
"""

from __future__ import annotations

from typing import Final

from gatewayd.log.event import Event
from gatewayd.log.host_events import HOST
from gatewayd.log.provider_events import PROVIDERS

EVENTS = (
    Event(
        "daemon.started", "info", "version mode",
        "The daemon has read its configuration and begins to work.", followed=True,
    ),
    Event(
        "daemon.ready", "info", "registrations",
        "The kernel has every element that it should have.", followed=True,
    ),
    Event("daemon.not_ready", "info", "reason", "The daemon is not ready, or not any more.", followed=True),
    Event("daemon.report_failed", "exception", "task", "A fault of gatewayd; the task goes on. Please report it."),
    Event("daemon.stopping", "info", "", "The daemon stops. The kernel keeps the table.", followed=True),
    Event(
        "daemon.address_absent", "warning", "host port",
        "No interface has this address of the configuration yet. The daemon listens; packets come once one has it.",
    ),
    Event("api.listening", "info", "host port socket", "The API takes requests."),
    Event(
        "api.port_taken", "error", "host port",
        "Another program has `http.listen`. The daemon works without it, and tries again every 2 s.",
    ),
    Event(
        "api.no_files", "error", "listener error",
        "No file was left for a connection. Which process has them? At most one line a minute.",
    ),
    Event(
        "impact.failed", "warning", "error",
        "Counts of unregistered flows could not be read. The kernel keeps them for the next reading.",
    ),
    Event("log.lost", "warning", "records", "The output of the log took nothing for a time. These are lost."),
    Event("api.request_failed", "exception", "method path", "A fault of gatewayd; please report it."),
    Event(
        "daemon.started_unready", "warning", "reason",
        "The daemon is not ready after 20 s. systemd hears that the start is over, and delivers reloads from now "
        "on. A `systemctl reload` from before had no effect.", followed=True,
    ),
    Event(
        "policy.in_force", "info", "mode policy was by",
        "Another policy is in force. `by`: `start`, `schedule` (`enforce_from`, `enforce_until`), "
        "`staleness`, `trip`, the end of a trial, `SIGHUP`, or the user (`uid 0`) of `reload` or `mode`.",
        followed=True,
    ),
    Event(
        "mode.observe", "warning", "by comment ended",
        "`gatewayd mode observe`. `ended`: the trial that is over with it.", followed=True,
    ),
    Event(
        "mode.stepped_back", "warning", "mode seconds",
        "The kernel has the mode that was stepped back to, `seconds` after it was to.", followed=True,
    ),
    Event(
        "mode.step_back_waits", "error", "mode seconds reason",
        "The kernel does not take the way back. The daemon tries until it does. Every 10 s.", followed=True,
    ),
    Event(
        "mode.file_counts", "warning", "was mode",
        "At start: a mode by the word of an operator is over, and the file counts. See "
        "[Arming, step by step](#arming-step-by-step).", followed=True,
    ),
    Event(
        "trial.begun", "info", "id mode was by seconds kind comment",
        "A change of the mode is on disk, and goes to the kernel. `kind`: `confirm`, `timed` (`--for`), `plain`.",
        followed=True,
    ),
    Event("trial.moved", "info", "id mode was by seconds comment", "A trial has another end.", followed=True),
    Event("trial.applied", "info", "id mode", "The kernel was read back with the change.", followed=True),
    Event(
        "trial.failed", "error", "id mode reason",
        "The change could not be applied. The mode is what it was, and no timer runs.", followed=True,
    ),
    Event("trial.confirmed", "info", "id mode by", "The mode of the trial stays.", followed=True),
    Event(
        "trial.reminder", "warning", "id mode left_s left_percent",
        "A trial is pending. At 50, 20 and 10 % of its time.", followed=True,
    ),
    Event(
        "trial.reverting", "warning", "id mode back by",
        "A trial is taken back. `by`: a user, or `reverted` (not confirmed), `rebooted`, `cut_short` (a restart "
        "before it was in the kernel).", followed=True,
    ),
    Event("trial.ended", "info", "id mode back", "A trial with `--for` has ended as planned.", followed=True),
    Event(
        "trial.left", "warning", "id mode left_s",
        "The daemon stops while a trial is pending. The kernel keeps the mode until a start takes it back.",
        followed=True,
    ),
    Event("trial.goes_on", "warning", "id mode left_s", "At start: a trial is pending.", followed=True),
    Event("trial.reported", "info", "id", "The report of a trial is there: `gatewayd trial --report FILE`."),
    Event("trial.report_failed", "warning", "id error", "The report of a trial could not be made or kept."),
    Event("trial.acknowledged", "info", "notices by", "An operator has seen what came back by itself."),
    Event(
        "trial.not_saved", "error", "file error",
        "The record of the mode could not be written; it is tried every second. A restart would not know of it.",
    ),
    Event(
        "trial.unreadable", "error", "file error",
        "`trial.json` cannot be read. The mode is observe until `gatewayd rearm`: what it said is not known.",
        followed=True,
    ),
    Event(
        "trip.tripped", "error", "cause evidence",
        "A threshold of `policy.trip` was passed: observe, until `gatewayd rearm`.", followed=True,
    ),
    Event("trip.latched", "warning", "cause evidence", "At start: the gateway had tripped, and stays in observe."),
    Event("trip.rearmed", "warning", "cause by", "An operator has ended the latch of a trip.", followed=True),
    Event(
        "reload.done", "info", "by",
        "The file was read again and is in force. See [Reload](#reload).", followed=True,
    ),
    Event(
        "reload.refused", "error", "fault by",
        "A fault of the file; nothing changed. One line for each fault.", followed=True,
    ),
    Event(
        "reload.needs_restart", "error", "keys by",
        "The file changes keys that need a restart; all stays.", followed=True,
    ),
    Event(
        "source.read", "info", "source registrations rejected",
        "A source was read. Unchanged content is not logged; it ends a failure too.", followed=True,
    ),
    Event("source.failed", "warning", "source error", "An attempt on a source failed.", followed=True),
    Event("source.restored", "info", "source registrations", "At start: the last good of a source is in use."),
    Event(
        "source.not_configured", "info", "source",
        "At start: a source was in force until now and is not configured any more. The guard judges its removals.",
        followed=True,
    ),
    Event(
        "assertion.failing", "error", "assertion kind place reason comment",
        "The rules and elements in the kernel do not keep an assertion. `comment`: for whom it is there. "
        "See [Assertions](#assertions).", followed=True,
    ),
    Event("assertion.passing", "info", "assertion kind place", "They keep it again.", followed=True),
    Event(
        "assertion.refused", "error", "change assertion reason by",
        "A change would have broken an assertion, and was not made.", followed=True,
    ),
    Event(
        "assertion.forced", "warning", "change assertion reason by",
        "A change that breaks an assertion was made, as an operator wanted with `--force`.", followed=True,
    ),
    Event(
        "assertion.look_failed", "warning", "error",
        "The kernel could not be asked whether it keeps the assertions; the next look is seconds later.",
    ),
    Event(
        "guard.held", "warning", "cause serial removals reason registrants",
        "Removals wait for `gatewayd accept SERIAL`, see [the guard](#the-guard). Logged once for each change.",
        followed=True,
    ),
    Event(
        "guard.accepted", "info", "cause serial removals by",
        "An operator has accepted the removals.", followed=True,
    ),
    *PROVIDERS,
    Event(
        "guard.not_saved", "error", "file error",
        "The file of held removals could not be written. While something is held, the last good of each source "
        "stays as it was: a restart would hold the same again.", followed=True,
    ),
    Event("guard.damaged", "warning", "file error", "The file of held removals is damaged."),
    Event("guard.unreadable", "warning", "file error", "The file of held removals could not be read."),
    Event(
        "store.unused", "info", "source file",
        "At start and reload: a last good of a source that is not configured. See [Sources](#sources).",
    ),
    Event(
        "store.damaged", "warning", "source file error used?",
        "A last good on disk is damaged. Its whole records are used (`used`); the source is asked for the rest.",
    ),
    Event("store.failed", "error", "source error failures", "The last good could not be written."),
    Event("store.recovered", "info", "source failures", "The last good was written again."),
    Event(
        "overrides.refused", "error", "fault",
        "A local file has a fault; its former content stays in force.", followed=True,
    ),
    Event(
        "registry.applied", "info", "upserts withdrawals",
        "The registry changed. If you did not expect the withdrawals, look at once.", followed=True,
    ),
    Event("window.opened", "info", "id", "A registration became effective.", followed=True),
    Event("window.closed", "info", "id", "A registration stopped being effective.", followed=True),
    Event(
        "window.not_listed", "info", "lines interval_s",
        "So many windows opened or closed within the interval. Further ones in it have no line.", followed=True,
    ),
    Event(
        "guard.unknown_category", "warning", "category",
        "`shrink_guard.protected` names a category that no active registration has. Look for a slip of the pen.",
    ),
    Event(
        "late_admission", "info", "id",
        "See [Late admission](#late-admission). At most one line in ten seconds.", followed=True,
    ),
    Event(
        "reconcile.external_change", "warning", "found program? pid?",
        "Another program changed our table; the daemon repairs it. The process id is the host's, also in a "
        "container. Without both, a comparison found it.", followed=True,
    ),
    Event(
        "reconcile.notifications_lost", "warning", "",
        "The kernel dropped notifications of changes. The daemon looks at its table and puts everything there "
        "again.", followed=True,
    ),
    Event(
        "reconcile.dump_abandoned", "warning", "set attempts",
        "Changes of other programs interrupted every dump of the set. All wanted elements were added again "
        "instead.",
    ),
    Event(
        "reconcile.past_bound", "warning", "registrations in_former_form ids",
        "A bound keeps registrations out of the kernel; `ids` has the first of them. `in_former_form` of them "
        "stay as they were. See [Known limits](#known-limits).", followed=True,
    ),
    Event(
        "reconcile.disarmed", "info", "was",
        "`mode: observe` was put in force before every source was read; `was` is the former mode. Elements stay.",
        followed=True,
    ),
    Event(
        "reconcile.released", "info", "elements",
        "Every source has answered since the restart. The registry now decides on elements beyond the last good.",
    ),
    Event(
        "reconcile.left", "warning", "elements",
        "A start found elements of bindings that the journal does not have. They stay until their time is over, "
        "or until accounting reports the address.",
    ),
    Event(
        "reconcile.failed", "warning", "error retry_in_s",
        "The kernel refused or did not answer. The daemon reads everything again.", followed=True,
    ),
    Event("reconcile.applied", "debug", "cause elements duration_ms", "Elements were written to the kernel."),
    Event("counters.failed", "warning", "error", "The counters could not be read; status shows the last ones."),
    Event(
        "connections.reclassified", "info", "flows",
        "Marks of flows were cleared: they are newly registered.", followed=True,
    ),
    Event(
        "connections.drained", "info", "flows",
        "Marks of flows were cleared: they are not registered any more.", followed=True,
    ),
    Event(
        "connections.failed", "warning", "error retry_in_s",
        "Connection tracking refused or did not answer. The daemon looks at the marks again.",
    ),
    Event(
        "connections.not_believed", "warning", "flows total",
        "Registered flows had the mark of a judged flow, from another gateway or program. It was cleared. At most "
        "one line a minute.",
    ),
    Event(
        "connections.unexplained", "warning", "flows at_most_s",
        "Flows came marked as registered, and no registration explains them. Does accounting reach this gateway? "
        "They stay for `at_most_s`. With 0, where no `subscribers` are configured, they drain.", followed=True,
    ),
    *HOST,
    Event(
        "near_miss.found", "warning", "id reason service far",
        "The first flow of a customer that no registration lets pass, for this reason. `gatewayd impact "
        "near-misses` has the change that mends it. At most one line in ten seconds.", followed=True,
    ),
    Event("near_miss.acknowledged", "info", "id lines by", "Near misses were taken off the list.", followed=True),
    Event(
        "watch.overrun", "warning", "source",
        "The kernel dropped events before the daemon read them.", followed=True,
    ),
    Event(
        "watch.small_buffer", "warning", "source size_bytes wanted_bytes",
        "The kernel gives a socket of events less room than asked for, so events are lost sooner. See "
        "[Kernel settings worth having](#kernel-settings-worth-having).",
    ),
    Event(
        "clock.doubted", "warning", "host used seconds why",
        "The daemon does not believe this host's clock and uses another time. `seconds` is how far ahead the "
        "clock is (negative: behind). See [Clocks](#clocks).", followed=True,
    ),
    Event("clock.trusted", "info", "host", "The daemon believes this host's clock again.", followed=True),
    Event(
        "clock.set_back", "warning", "seconds?",
        "The time of the windows was ahead; the daemon looks at every window again. Without `seconds`, the time "
        "was not known before.", followed=True,
    ),
    Event("clock.not_recalled", "warning", "path error", "`clock.json` is unusable. Only its content is lost."),
    Event("clock.not_kept", "debug", "path error", "`clock.json` could not be written."),
    Event(
        "activity.days_dropped", "info", "days",
        "The oldest days of `activity.sqlite` went, past 400 days or 1 GiB.", followed=True,
    ),
    Event(
        "state_file.failed", "warning", "file error",
        "The file of the state directory could not be used. What it would have kept waits in memory; no traffic "
        "depends on it.", followed=True,
    ),
    Event("state_file.recovered", "info", "file failures", "The file takes what is written again.", followed=True),
    Event(
        "state_file.set_aside", "error", "file to reason",
        "The file was damaged and was renamed; a new one is begun. The newest two such files stay.",
        followed=True,
    ),
    Event(
        "journal.lost", "error", "file groups rows whole salvaged",
        "Sessions on disk are lost: the tail of the file, or (`whole`) all of it but the rows `salvaged`. Of a "
        "whole file, `rows` is the most that can be lost. Look at the disk.",
    ),
    Event(
        "journal.set_aside", "error", "file to reason",
        "`sessions.sqlite` is no database any more and was renamed. The newest two such files stay; readable rows "
        "are taken over.",
    ),
    Event("journal.rows_skipped", "warning", "rows", "Rows of the journal could not be read."),
    Event("journal.read_in_copy", "warning", "reason", "The file cannot be written; the daemon reads a copy."),
    Event(
        "journal.suspended", "error", "reason rows",
        "The disk fails. Accounting is answered without it, and `rows` wait in memory.", followed=True,
    ),
    Event("journal.resumed", "info", "failures", "The rows that waited are on disk again.", followed=True),
    Event(
        "journal.recreated", "warning", "",
        "The file was removed or replaced; the daemon wrote all of it again.",
    ),
    Event("journal.file_replaced", "warning", "file", "The file was removed or replaced under the daemon."),
    Event("journal.rows_lost", "error", "rows error", "At the end: no disk took these rows."),
    Event("journal.not_closed", "warning", "error", "At the end: the file was not closed cleanly."),
    Event("journal.callback_failed", "exception", "", "A fault of gatewayd; please report it."),
    Event("bindings.restored", "info", "sessions", "At start: the sessions of the journal."),
    Event(
        "bindings.conflicting", "warning", "nas id",
        "A NAS gave a subscriber an address in another registrant's own prefix. Both pass. At most one line a "
        "minute.",
    ),
    Event("sessions_file.read", "info", "path sessions refused", "The sessions file was read."),
    Event("sessions_file.refused", "warning", "path fault", "A line of the sessions file has a fault."),
    Event("sessions_file.unusable", "error", "path error", "The sessions file cannot be read."),
    Event("radius.listening", "info", "host port", "The daemon takes accounting."),
    Event(
        "radius.refused", "warning", "source reason",
        "Accounting of an unknown client or with a wrong secret. Rate-limited for each reason.",
    ),
    Event(
        "radius.flood", "warning", "shielded",
        "Senders that are no clients flood the port. The kernel drops theirs for 10 s, if `shielded`.",
    ),
    Event("radius.unusable", "warning", "source reason", "Unusable accounting. Rate-limited for each reason."),
    Event("radius.secret_unusable", "error", "fault", "A file of RADIUS secrets cannot be used."),
    Event("secret.exposed", "warning", "path hint", "Every user of this host may read a secret."),
    Event(
        "nas.same_name", "warning", "name sources",
        "Several NAS have this name, and sessions with the same ids. At most one line a minute.",
    ),
)  # fmt: skip


FOLLOWED: Final = {event.name: event for event in EVENTS if event.followed}


def events_table() -> str:
    """The table of docs/operations.md, in Markdown."""
    rows = ["| event | level | followed | fields | meaning |", "| --- | --- | --- | --- | --- |"]
    for event in EVENTS:
        level = "error" if event.level == "exception" else event.level
        followed = "yes" if event.followed else ""
        fields = ", ".join(f"`{field.rstrip('?')}`{'?' * field.endswith('?')}" for field in event.fields.split())
        rows.append(f"| `{event.name}` | {level} | {followed} | {fields} | {event.meaning} |")
    return "\n".join(rows) + "\n"
