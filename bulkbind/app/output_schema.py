"""`schema`: JSON Schemas of what `--json` prints and of log lines; scripts rely on them.

Fields are added, none is renamed, removed or given another meaning, so that a program ignores
those that it does not know: no object is closed.
"""

from __future__ import annotations

from typing import Any

from bulkbind.app.schema import DIALECT
from bulkbind.errors import ExitCode
from bulkbind.model import (
    ADOPTED,
    MEANINGS,
    UNBIND_MEANINGS,
    PlanWord,
    RunFacts,
    RunKind,
    RunState,
)
from bulkbind.model.results import CUT_OFF

Schema = dict[str, Any]


def _text(what: str, *, may_lack: bool = False, **more: Any) -> Schema:
    return _of("string", what, may_lack=may_lack) | more


def _whole(what: str, *, may_lack: bool = False) -> Schema:
    return _of("integer", what, may_lack=may_lack)


def _number(what: str, *, may_lack: bool = False) -> Schema:
    return _of("number", what, may_lack=may_lack)


def _truth(what: str) -> Schema:
    return {"type": "boolean", "description": what}


def _of(kind: str, what: str, *, may_lack: bool) -> Schema:
    return {"type": [kind, "null"] if may_lack else kind, "description": what}


def _moment(what: str, *, may_lack: bool = False) -> Schema:
    return _text(f"{what}; ISO 8601, UTC", may_lack=may_lack, format="date-time")


def _list(items: Schema, what: str) -> Schema:
    return {"type": "array", "items": items, "description": what}


def _map(values: Schema, what: str) -> Schema:
    return {"type": "object", "additionalProperties": values, "description": what}


def _object(what: str, fields: Schema, *, optional: Schema | None = None) -> Schema:
    """Return an object's schema. *fields*: those that it always has."""
    return {
        "type": "object",
        "description": what,
        "properties": fields | (optional or {}),
        "required": list(fields),
    }


def _document(title: str, schema: Schema) -> Schema:
    return {"$schema": DIALECT, "title": f"bulkbind {title}", **schema}


COUNT = {"type": "integer", "minimum": 0}
RUN_ID = _text("the run's id")
MANIFESTS = _list({"type": "string"}, "the names of the manifests")
STATE = _text(f"the run's state: {', '.join((*RunState, CUT_OFF))}")
KIND = _text(f"what the run does: {', '.join(RunKind)}")
COUNTS = _map(COUNT, f"rows by status, those that there are: {', '.join(MEANINGS)}")
_GONE_OF = f"devices by status: {', '.join(UNBIND_MEANINGS)}"
_GONE = _map(COUNT, _GONE_OF)
_LEAVERS = _GONE | {"description": f"with --sync, {_GONE_OF}"}
UNDO = _object("how it was undone", {"state": _text("as a run's"), "counts": _GONE})
DIGEST = _text("of the manifests: equal for the same bytes read in the same way")
EXIT_CODE = {
    "type": "integer",
    "description": f"how the command ended: {', '.join(map(str, sorted(ExitCode)))}; take one "
    "that you do not know for a failure",
}
EXAMPLE = _object(
    "a row that needs a person",
    {
        "place": _text("file and line, file.csv:12"),
        "status": _text("its status"),
        "why": _text("the reason"),
    },
)
WHO: Schema = {
    "operator": _text("the user who began it"),
    "host": _text("the machine"),
    "version": _text("of bulkbind"),
}
CHANGES = _object(
    "differences to the last run of the same manifests; empty where there was none",
    {},
    optional={
        "since": _text("the id of that run"),
        "added": _whole("devices that it did not name"),
        "removed": _whole("devices that this run does not name; without --sync they stay bound"),
        "renamed": _whole("devices bound under other optional values"),
        "newly_failed": _whole("devices that need a person now, and did not then", may_lack=True),
        "newly_failed_rows": _list(EXAMPLE, "some of their rows"),
        "mended": _whole("devices that needed a person then, and are bound now"),
    },
)
LEFT_OUT: Schema = {
    "type": ["object", "null"],
    "description": "rows that --where and --where-not left out; null: neither was given",
    "properties": {
        "rows": _whole("how many, of all manifests"),
        "by": _map(COUNT, "by the condition that left them out, as it is typed"),
    },
}
WHAT = _object(
    "what changes, and what it is from now on; null: no limit",
    {},
    optional={
        "rate": _number("requests per second at most", may_lack=True),
        "concurrency": _whole("requests in flight at once"),
        "max_failures": _text("a number of devices, or a share as 5%", may_lack=True),
        "deadline": _text("how long it may take from then on, as 90s", may_lack=True),
        "pause": _truth("it sends nothing until it is resumed"),
        "go": _truth("it is resumed"),
        "drain": _truth("it ends"),
    },
)
NOTE = _text("what the operator said of the run; absent if nothing")
LIMIT: Schema = {
    "type": ["object", "null"],
    "properties": {
        "per_s": _number("requests per second"),
        "is_spaced": _truth("whether requests that come close together are refused"),
    },
}
HOST = _text("the name of its machine; empty: the run's own")
WORKER = _object(
    "a process that sends for the run",
    {
        "number": _whole("from 1, in each part of the run"),
        "pid": _whole("of the process"),
        "is_alive": _truth("whether it sends"),
        "settled": _whole("rows that ended through it"),
        "in_hand": _whole("rows that it was given and that have not ended"),
        "per_s": _number("rows that ended per second: of late; at its end, over all its time"),
        "lost": _text("why the run gave it up; empty if it did not"),
    },
    optional={
        "host": HOST,
        "waits": _text("why the run's own process sends alone meanwhile; empty if it does not"),
    },
)
_FACTS: Schema = {
    "requests": _whole("requests of every kind, without the lists that `refreshed` is of"),
    "requests_unsure": _whole("besides them, those that lost workers may have sent"),
    "cut_offs": _whole("how often its process was killed; what it sent last is not counted"),
    "requests_lists": _whole("list calls among them"),
    "requests_throttled": _whole("those answered with 429"),
    "requests_again": _whole("binds sent again as no answer had come in time"),
    "sending_s": _number("seconds from the start of sending to its end, waits included"),
    "rate_scope": _text("whose requests the limit counts together: credential or x-user-id"),
    "pace_per_s": _number("requests per second allowed at the end; null: no limit", may_lack=True),
    "pace_from": _text("where the pace comes from, in words"),
    "pace_told": {
        "description": "the limit that the gateway told, and the seconds of its window; or null",
        "type": ["array", "null"],
        "items": {"type": "number"},
    },
    "limit": LIMIT | {"description": "the limit of the credential; null: none was shown"},
    "limit_per_user": LIMIT | {"description": "the limit of each user; null: none was shown"},
    "limit_in_flight": _whole("most requests in flight; null: no limit shown", may_lack=True),
    "clock_skew_s": _number("seconds by which the server's clock is ahead", may_lack=True),
    "changes": CHANGES,
    "refreshed": {
        "type": ["object", "null"],
        "description": "what the users' lists said beforehand; null: they were not read",
        "properties": {
            "users": _whole("users whose lists were read"),
            "vanished": _whole("known bindings that the lists lack"),
            "bound_again": _truth("whether these are sent again"),
            "not_proven": _whole("known bindings that lists lack which prove nothing"),
        },
    },
    "note": NOTE,
    "takes_any": _truth("whether a run that unbinds takes what the lists show; absent if not"),
    "left_out": LEFT_OUT,
    "synced": {
        "type": ["object", "null"],
        "description": "what a run with --sync found of its scope; null: without it",
        "properties": {
            "scope": _text("the manifest's path, or the name that was given"),
            "bound": _whole("devices of it known as bound"),
            "leave": _whole("those that the manifests lack"),
        },
    },
    "adopted": {
        "type": ["object", "null"],
        "description": "of adopt: users compared, and devices by what was found; null: no such",
        "additionalProperties": COUNT,
    },
    "adjusted": _list(
        _object(
            "a change",
            {
                "number": _whole("from 1, in each ledger"),
                "at": _moment("when it was asked for"),
                "who": _text("operator@host"),
                "why": _text("in the operator's words; may be empty"),
                "what": WHAT,
            },
        ),
        "how operators steered the run with `adjust`",
    ),
    "workers": _list(WORKER, "workers, or how they were at their end; absent if it has none"),
    "own_settled": _whole(
        "rows that ended through what the run's own process sent, beside workers"
    ),
    "cpu_s": _number("processor seconds of the run's own process while it was sending"),
    "pruned_at": _moment("when the run's rows were deleted", may_lack=True),
    "pruned_rows": _whole("1 while its rows are being deleted", may_lack=True),
}


def _facts() -> Schema:
    """Return what a run or an undo learned and spent; each stands there once it is known."""
    waits = {
        fact.name: _number(f"seconds {fact.wait.said}")
        for fact in RunFacts.declared.values()
        if fact.wait
    }
    return _FACTS | waits


def summary() -> Schema:
    """Return the schema of `summary.json`, and of what `run`, `resume` and `report` print."""
    return _document("summary", _summary({}))


_WHY_NOT = {
    "status": _text("the devices' status"),
    "code": _text("the server's code; empty if there is none"),
    "message": _text("the server's message, or the rule that is broken"),
    "count": _whole("how many devices"),
    "detail": _text("what else there is to say of the first"),
}
_LEAVER_REASONS = _list(
    _object("", _WHY_NOT), "with --sync, why devices that left are not unbound, most first"
)


def _summary(more: Schema) -> Schema:
    reason = _WHY_NOT | {
        "status": _text("the rows' status"),
        "count": _whole("how many rows"),
        "example": _text("file and line of the first"),
    }
    fields = {
        "run_id": RUN_ID,
        "state": STATE,
        "manifests": MANIFESTS,
        "rows": _whole("rows of all manifests; the sum of the counts"),
        "counts": COUNTS,
        "reasons": _list(_object("", reason), "why rows are not bound, the largest first"),
        "created_at": _moment("when the command began"),
        "confirmed_at": _moment("when it was wanted", may_lack=True),
        "ended_at": _moment("null while it is sending", may_lack=True),
        "stop_reason": _text("null if nothing is left to send", may_lack=True),
        **WHO,
        "pid": _whole("of the process"),
        "digest": DIGEST,
        "superseded_by": _text("the run that took its place", may_lack=True),
        "kind": KIND,
        "settings": {"type": "object", "description": "in force, without secrets"},
        "attempts": _whole("requests for devices, over all rows"),
        "posted_again_after_bound": _whole("requests for devices that were bound already"),
        "cleaned": _whole("rows whose names were made to fit"),
        "examples": _list(EXAMPLE, "the first rows that need a person"),
        **more,
    }
    undo = UNDO | {"description": "how it was undone; absent if it was not"}
    unanswered = _whole("rows that may have been sent when it was cut off; absent if none")
    more = {
        "undo": undo,
        "unanswered": unanswered,
        "leavers": _LEAVERS,
        "leaver_reasons": _LEAVER_REASONS,
    }
    return _object("how a run stands", fields, optional=_facts() | more)


def status() -> Schema:
    """Return the schema of what `status` prints: the summary, and its progress."""
    more = {
        "done": _whole("rows that have ended"),
        "per_s": _number("rows settled per second of late"),
        "allowed_per_s": _number("requests per second allowed; null: no limit", may_lack=True),
        "waits": _text("why nothing is sent now; empty if something is"),
        "trouble": _text("what else does not go smoothly; empty if all does"),
        "stopping": _text("why it is ending, and what it waits for; empty if it is not"),
        "took_s": _number("seconds since its process began to send; 0 if none does"),
        "left_s": _number("seconds left; null if not known", may_lack=True),
        "is_alive": {
            "type": ["boolean", "null"],
            "description": "whether its process runs; null if that cannot be told",
        },
        "last_settled_at": _moment("when the last row ended", may_lack=True),
        "problems": _list({"type": "string"}, "the newest problems"),
        "unbound_since": _whole("rows that it counts as bound and that were unbound since"),
    }
    return _document("status", _summary(more))


_RULES = _map(
    _object(
        "a rule that is broken",
        {
            "count": _whole("how often"),
            "examples": _list({"type": "string"}, "the first, with file and line"),
            "causes": _list(
                _object(
                    "",
                    {
                        "cause": _text("what is wrong"),
                        "hint": _text("the likely origin; may be empty"),
                        "count": _whole("how often"),
                    },
                ),
                "the most frequent first",
            ),
            "cures": _map(COUNT, "how many an option fixes"),
        },
    ),
    "by the rule's text",
)


def plan() -> Schema:
    """Return the schema of what `plan --json` prints and `--save` writes."""
    words = ", ".join(PlanWord)
    device = {"user_id": _text("the user"), "machine_code": _text("the device")}
    moved = {name: {"type": "string"} for name in ("machine_code", "from", "to")}
    forecast = {
        "calls": _whole("requests, without repeats"),
        "binds": _whole("binds among them"),
        "lists": _whole("list calls among them"),
        "unbinds": _whole("unbinds among them"),
        "moves": _whole("unbinds that take a device from another user"),
        "per_s": _number("the rate that is expected; null if not known", may_lack=True),
        "source": _text("where that comes from"),
        "seconds": _number("how long it takes; null if not known", may_lack=True),
    }
    fields = {
        "version": _whole("of the saved form: 1"),
        "kind": KIND,
        "manifests": MANIFESTS,
        "rows": _whole("rows of all manifests"),
        "counts": _map(COUNT, f"rows by what would be done: {words}; extra with --extra"),
        "users": _map(_map(COUNT, "the same, those that there are"), "by user, the first ones"),
        "user_count": _whole("users of all rows"),
        "moved": _list(_object("", moved), "the first devices that another user has"),
        "extra": _list(_object("", device), "the first that only the server has"),
        "problems": _list({"type": "string"}, "the first rows that break a rule"),
        "rules": _RULES,
        "forecast": _object("what the run would cost", forecast),
        "going_on": _text("the unfinished run that it would resume", may_lack=True),
        "refused": _truth("whether nothing would be sent, as rows break a rule"),
        "first": _whole("a pilot of so many rows", may_lack=True),
        "left_out": LEFT_OUT,
        "leavers": {
            "type": ["object", "null"],
            "description": "what --sync would unbind; null: without it",
            "properties": {
                "scope": _text("the manifest's path, or the name that was given"),
                "bound": _whole("devices of it known as bound"),
                "devices": _whole("those that the manifests lack"),
                "most": _text("--max-unbinds"),
                "is_beyond": _truth("whether they are more than that"),
                "first": _list(_object("", device), "the first of them"),
            },
        },
        "replaces": {
            "type": ["object", "null"],
            "description": "the unfinished run whose place it would take; null: none",
            "properties": {"run_id": RUN_ID, "rows": _whole("its rows that would be withdrawn")},
        },
        "refreshed": _truth("whether the users' lists were read"),
        "digest": DIGEST,
        "mark": _text("changes when the manifests or the ledger do"),
    }
    return _document("plan", _object("what a run would do", fields))


def validate() -> Schema:
    """Return the schema of what `validate --json` prints."""
    place = {"source": _text("the manifest"), "line": _whole("1 is the first")}
    problem = place | {
        "field": _text("the field, or row"),
        "column": _text("the column as the manifest names it"),
        "value": _text("the cell"),
        "rule": _text("what is allowed"),
        "found": _text("what is wrong"),
        "hint": _text("the likely cause; may be empty"),
        "cure": _text("the option that fixes it; empty if none does"),
    }
    change = place | {
        "column": _text("the column"),
        "before": _text("as it stands there"),
        "after": _text("as it would be sent"),
    }
    fields = {
        "rows": _whole("rows of all manifests"),
        "invalid": _whole("rows that break a rule"),
        "duplicates": _whole("rows whose device an earlier row has"),
        "cleaned": _whole("rows whose names were made to fit"),
        "rows_left_out": LEFT_OUT,
        "rules": _RULES,
        "left_out": _whole("problems that are not listed: 0"),
        "problems": _list(_object("", problem), "every one, in the manifests' order"),
        "changes": _list(_object("", change), "what --clean names made fit"),
    }
    return _document("validate", _object("what is wrong with manifests", fields))


def undo() -> Schema:
    """Return the schema of `undo.json`, and of what `undo` prints."""
    fields = {
        "run_id": RUN_ID,
        "state": _text("planned, then as a run's"),
        "counts": _GONE,
        "in_doubt": _whole("rows of which no list could tell"),
        "created_at": _moment("when it was first wanted"),
        "ended_at": _moment("null while it is sending", may_lack=True),
        "stop_reason": _text("null if nothing is left to unbind", may_lack=True),
        **WHO,
        "pid": _whole("of the process"),
    }
    return _document("undo", _object("how an undo stands", fields, optional=_facts()))


def verify() -> Schema:
    """Return the schema of what `verify --json` prints."""
    difference = {
        "kind": _text("missing, not_proven, changed, in_doubt or extra"),
        "user_id": _text("the user"),
        "machine_code": _text("the device"),
        "detail": _text("in words"),
    }
    fields = {
        "run_id": RUN_ID,
        "users": _whole("users whose lists were read"),
        "devices": _whole("devices that are bound by what the run says"),
        "counts": _map(COUNT, "devices by kind: same and the kinds below"),
        "differences": _list(_object("", difference), "the first ones, by user"),
    }
    return _document("verify", _object("ledger and server compared", fields))


def adopt() -> Schema:
    """Return the schema of what `adopt --json` prints."""
    difference = {
        "kind": _text(f"one of {', '.join(ADOPTED)}"),
        "user_id": _text("the user"),
        "machine_code": _text("the device"),
        "detail": _text("how it differs"),
    }
    fields = {
        "run_id": RUN_ID,
        "users": _whole("users whose lists were compared"),
        "counts": _map(COUNT, "devices by kind"),
        "differences": _list(_object("", difference), "the first ones, by user"),
        "unread": _map({"type": "string"}, "why lists were refused, by user"),
        "stopped": _text("why it ended early; empty if it did not"),
        "hint": _text("what to do; may be empty"),
        "exit_code": EXIT_CODE,
    }
    return _document("adopt", _object("what was taken over", fields))


def runs() -> Schema:
    """Return the schema of what `runs --json` prints."""
    fields = {
        "run_id": RUN_ID,
        "kind": KIND,
        "state": STATE,
        "created_at": _moment("when it began"),
        "ended_at": _moment("null while it is sending", may_lack=True),
        **WHO,
        "superseded_by": _text("the run that took its place", may_lack=True),
        "manifests": MANIFESTS,
        "counts": COUNTS,
        "leavers": _LEAVERS,
        "undo": UNDO | {"type": ["object", "null"]},
        "note": _text("what the operator said of it; null if nothing", may_lack=True),
        "adopted": _FACTS["adopted"],
    }
    return _document("runs", _list(_object("a run", fields), "the newest first"))


def history() -> Schema:
    """Return the schema of what `history --json` prints."""
    answer = {
        "http_status": _whole("null if no answer came", may_lack=True),
        "code": _text("the server's code; may be empty"),
        "message": _text("the server's message; may be empty"),
        "trace_id": _text("for the server's support; empty if nothing was sent"),
    }
    device = {"user_id": _text("the user"), "device_id": _text("the server's; may be empty")}
    known = device | {
        "machine_code": _text("the device"),
        "create_time": _text("the server's; may be empty"),
        "since": _moment("when a run settled it"),
        "run_id": RUN_ID,
    }
    attempt = answer | {"at": _moment("when it was sent"), "verdict": _text("what came of it")}
    taken = answer | device
    taken |= {
        "kind": _text("undo or move"),
        "status": _text(f"{', '.join(UNBIND_MEANINGS)}, or as yet staged or claimed"),
        "at": _text("when it ended; empty if it has not"),
        "operator": _text("operator@host"),
    }
    row = answer | device
    row |= {
        "run_id": RUN_ID,
        "state": STATE,
        "began_at": _moment("when the run began"),
        "operator": _text("operator@host"),
        "note": _text("what the operator said of the run; may be empty"),
        "file": _text("the manifest"),
        "line": _whole("1 is the first"),
        "machine_code": _text("the device"),
        "status": _text(f"one of {', '.join(MEANINGS)}"),
        "create_time": _text("the server's; may be empty"),
        "attempts": _whole("requests that count"),
        "detail": _text("what else there is to say"),
        "settled_at": _text("when it ended; empty if it has not"),
        "tries": _list(_object("", attempt), "attempts that were not simply accepted"),
        "taken": _list(_object("", taken), "bindings that were taken back, or were to be"),
    }
    left = taken | {name: row[name] for name in ("run_id", "state", "began_at", "note")}
    left |= {"machine_code": _text("the device"), "kind": _text("leave")}
    fields = {
        "machine_code": _text("null: of a user", may_lack=True),
        "user_id": _text("null: of a device", may_lack=True),
        "bindings": _list(_object("", known), "what is bound now, as far as the ledger knows"),
        "rows": _list(_object("", row), "every row, the oldest run first"),
        "left": _list(
            _object("", left), "what runs with --sync unbound, or were to, the oldest first"
        ),
    }
    return _document("history", _object("what became of a device or a user", fields))


def adjust() -> Schema:
    """Return the schema of what `adjust --json` prints."""
    fields = {
        "run_id": RUN_ID,
        "what": WHAT,
        "done": _truth("whether the run has said that it does it"),
    }
    return _document("adjust", _object("how a run was steered", fields))


def doctor() -> Schema:
    """Return the schema of what `doctor --json` prints."""
    fields = {
        "check": _text("what was looked at"),
        "state": _text("ok, warn or fail"),
        "text": _text("what was found"),
        "advice": _text("what to do; may be empty"),
    }
    return _document("doctor", _list(_object("a finding", fields), "in their order"))


def settings() -> Schema:
    """Return the schema of what `config --json` prints."""
    held = _object("a setting", {"value": {}, "origin": _text("flag, variable, file and line")})
    return _document("settings", _map(held, "by key; those of `auth:` are dotted"))


def inbox() -> Schema:
    """Return the schema of `inbox.json`, and of what `run --archive --json` prints."""
    file = {
        "name": _text("the file's"),
        "exit_code": EXIT_CODE,
        "run_id": _text("null if it was not run", may_lack=True),
        "state": _text("of its run", may_lack=True),
        "rows": _whole("rows of the file"),
        "counts": COUNTS,
        "changes": CHANGES,
        "examples": _list(EXAMPLE, "the first rows that need a person"),
        "leavers": _LEAVERS,
        "leaver_reasons": _LEAVER_REASONS,
        "report": _text("its report's folder", may_lack=True),
        "moved_to": _text("where it is now; null if it stays", may_lack=True),
        "problem": _text("why it stays; may be empty"),
        "hint": _text("what to do; may be empty"),
        "was_told": _truth("whether an earlier pass told the same"),
    }
    fields = {
        "inbox": _text("the folder"),
        "archive": _text("where files go"),
        "started_at": _moment("when the pass began"),
        "ended_at": _moment("when it ended"),
        "exit_code": EXIT_CODE,
        "stopped": _text("why it ended early; may be empty", may_lack=True),
        "rows": _whole("rows of all files"),
        "counts": COUNTS,
        "waiting": _whole("files that were not looked at"),
        "files": _list(_object("a file", file), "the oldest first"),
    }
    return _document("inbox", _object("a pass over an inbox", fields))


def error() -> Schema:
    """Return the schema of what stands in place of a result after a fatal error."""
    fields = {
        "error": _text("what went wrong"),
        "hint": _text("what to do; may be empty"),
        "exit_code": EXIT_CODE,
    }
    return _document("error", _object("the last line of a command that failed", fields))


_DEVICE: Schema = {"user_id": _text("the user"), "machine_code": _text("the device")}
_WHY = {"why": _text("the reason")}
EVENTS: dict[str, Schema] = {
    "run.started": {"rows": _whole("rows to send"), "endpoint": _text("scheme://host[:port]")},
    "run.progress": {
        "settled": _whole("rows that have ended"),
        "rows": _whole("of so many"),
        "per_s": _number("rows settled per second"),
        "pace_per_s": _number("requests per second allowed", may_lack=True),
        "left_s": _number("seconds left", may_lack=True),
    },
    "run.stopping": {"reason": _text("why")},
    "run.finished": {
        "state": STATE,
        "stopped": _text("why; null if nothing is left", may_lack=True),
        "counts": COUNTS,
    },
    "device.settled": {
        "row": _whole("the row's number, 1 is the first"),
        **_DEVICE,
        "outcome": _text("its status"),
        "device_id": _text("the server's; may be empty"),
        "attempts": _whole("requests for it"),
        "took_s": _number("of the last one", may_lack=True),
        "http_status": _whole("of the last answer", may_lack=True),
        "code": _text("of the last answer"),
        "message": _text("of the last answer"),
        "trace_id": _text("of the last request"),
        "detail": _text("what else there is to say"),
    },
    "pace.changed": _WHY
    | {
        "per_s": _number("requests per second from now on; null: no limit", may_lack=True),
        "told": _truth("whether the gateway said so"),
        "closed_s": _number("seconds in which nobody sends"),
        "in_flight": _whole("requests in flight from now on", may_lack=True),
    },
    "doubt.kept": _WHY | {"rows": _whole("that stay in doubt")},
    "doubt.again": _WHY | {"rows": _whole("in doubt again")},
    "run.adjusted": {
        "who": _text("operator@host"),
        "why": _text("in the operator's words; may be empty"),
        "what": WHAT,
    },
    "user.refused": {
        "user_id": _text("the user"),
        "code": _text("of the answers"),
        "message": _text("of the answers"),
        "trace_ids": _list({"type": "string"}, "of the requests"),
    },
    "worker.started": {
        "worker": _whole("its number"),
        "pid": _whole("of the process"),
        "host": HOST,
    },
    "worker.lost": _WHY
    | {
        "worker": _whole("its number"),
        "pid": _whole("of the process; 0 if it did not start"),
        "host": HOST,
        "rows": _whole("that it had in hand: in doubt"),
    },
    "session.renewed": _WHY,
    "session.unsaved": _WHY | {"path": _text("of the file"), "hint": _text("what follows")},
    "session.unreadable": {"path": _text("of the file")},
    "undo.started": {"rows": _whole("devices"), "endpoint": _text("scheme://host[:port]")},
    "undo.finished": {
        "state": STATE,
        "stopped": _text("why; null if nothing is left", may_lack=True),
    },
    "adopt.finished": {
        "users": _whole("users whose lists were compared"),
        "counts": _map(COUNT, "devices by kind"),
        "stopped": _text("why it ended early; null if it did not", may_lack=True),
    },
    "notify.sent": {"exit_code": EXIT_CODE},
    "notify.failed": _WHY,
    "ping.failed": _WHY,
    "library.warned": {"warning": _text("what it says"), "where": _text("file:line")},
    "command.said": {"text": _text("what a person would have read")},
    "command.failed": {
        "error": _text("what went wrong"),
        "hint": _text("what to do; may be empty"),
        "exit_code": EXIT_CODE,
    },
}
"""The fields of each event besides those that every log line has."""


def events() -> Schema:
    """Return the schema of a log line."""
    line = {
        "event": _text(f"what happened: {', '.join(EVENTS)}; others at level debug"),
        "level": _text("debug, info, warning or error"),
        "timestamp": _moment("when"),
    }
    each = [
        {
            "if": {"properties": {"event": {"const": name}}},
            "then": {"properties": fields},
        }
        for name, fields in EVENTS.items()
    ]
    known = {"run_id": _text("the run's id; absent before there is one")}
    return _document("log line", _object("a line", line, optional=known) | {"allOf": each})


OUTPUTS = {
    each.__name__: each
    for each in (
        *(
            summary,
            plan,
            status,
            adjust,
            history,
            validate,
            undo,
            verify,
            adopt,
            runs,
            inbox,
            doctor,
        ),
        settings,
        *(events, error),
    )
}
"""Every schema of what comes out, by its name."""
