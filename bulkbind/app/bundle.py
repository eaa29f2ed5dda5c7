"""`bundle`: an archive about a run to attach to a ticket, without secrets.

User ids and device names can be masked: `user_7` becomes `user#1` wherever it occurs, in any case,
server messages included.
"""

from __future__ import annotations

import contextlib
import csv
import html
import io
import json
import os
import platform
import tarfile
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bulkbind.clock import Clock, SystemClock
from bulkbind.errors import LedgerError
from bulkbind.files import make_folder, read_whole, replacing_bytes
from bulkbind.koodrive import known_secrets, proxy_secrets
from bulkbind.ledger import RunReader, find_run, ledger_of, people, reading
from bulkbind.logs import redact
from bulkbind.manifest.formulas import safe
from bulkbind.model import TO_SEE_TO
from bulkbind.model.fields import OPTIONAL_FIELDS, ROW_FIELDS, USER
from bulkbind.redaction import folded, is_word, json_text, learn, line, redacted
from bulkbind.report import as_json
from bulkbind.report.tables import ATTEMPTS, RESULTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bulkbind.model import ResultRow, Source
    from bulkbind.model.fields import Field
    from bulkbind.report.tables import Cells
    from bulkbind.settings import Settings

_INDEXED = 3
"""First characters by which values are looked for in texts."""
_MASKS = {
    key.lower(): field
    for field in ROW_FIELDS
    for key in (field.name, field.name.replace("_", ""), field.api, field.header)
    if key
} | dict.fromkeys(("operator", "account"), USER)
"""Keys, in lower case, whose values are values of a field."""


class Mask:
    """Replaces user ids and the values of other fields by numbers, in order of appearance."""

    def __init__(self, users: Iterable[str] = ()) -> None:
        """*users*: ids to replace wherever they occur."""
        self._masks: dict[str, dict[str, str]] = {field.mask: {} for field in ROW_FIELDS}
        self._known: dict[str, tuple[Field, str]] = {}
        """Fields and values by how these are written, in lower case."""
        self._lengths: defaultdict[str, set[int]] = defaultdict(set)
        """How long the known ones with some first characters are."""
        for user in users:
            self._look_for(USER, user)

    def _look_for(self, field: Field, value: str) -> None:
        for written in {value, quote(value, safe=""), json.dumps(value)[1:-1], html.escape(value)}:
            form = folded(written)
            self._known.setdefault(form, (field, value))
            self._lengths[form[:_INDEXED]].add(len(form))

    def value(self, field: Field, value: str) -> str:
        """Return the mask of a field's value; the value itself if it is empty or harmless."""
        if not value or not field.mask:
            return value
        masks = self._masks[field.mask]
        if value not in masks:
            masks[value] = f"{field.mask}#{len(masks) + 1}"
            self._look_for(field, value)
        return masks[value]

    def text(self, text: str) -> str:
        """Return a text with user ids, and the other values seen so far, masked.

        They are found in any case, but not as a part of a longer word.
        """
        within = folded(text)
        parts, done, at = [], 0, 0
        while at < len(text):
            end = next((e for e in self._ends(within, at) if is_word(text, at, e)), None)
            if end is None:
                at += 1
                continue
            parts += [text[done:at], self.value(*self._known[within[at:end]])]
            done = at = end
        return "".join((*parts, text[done:]))

    def _ends(self, text: str, at: int) -> list[int]:
        """Return where known values that begin at a place end, the last one first."""
        lengths = {
            length
            for size in range(1, _INDEXED + 1)
            for length in self._lengths.get(text[at : at + size], ())
        }
        ends = (at + length for length in sorted(lengths, reverse=True))
        return [end for end in ends if text[at:end] in self._known]

    def values(self, value: Any) -> Any:  # noqa: ANN401  # JSON
        """Return a JSON value masked: by its keys, and in its texts."""
        if isinstance(value, dict):
            return {key: self._value(str(key), inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.values(inner) for inner in value]
        return self.text(value) if isinstance(value, str) else value

    def _value(self, key: str, value: Any) -> Any:  # noqa: ANN401  # as above
        field = _MASKS.get(key.lower())
        if isinstance(value, str) and field is not None and field.mask:
            return self.value(field, value)
        return self.values(value)


MOST_ROWS = 1_000
MOST_ATTEMPTS = 5_000
MOST_LINES = 2_000
LOG_TAIL_BYTES = 4 << 20
_LEFT_OUT = ("device_id", "create_time", *(f.name for f in ROW_FIELDS if not f.is_bundled))
_ROW_COLUMNS = tuple(name for name in RESULTS.names if name not in _LEFT_OUT)
_HARMLESS = ("source", "status", "code", "trace_id", "settled_at", "sent_at", "verdict")
"""Texts that name nobody."""
_LIBRARIES = (
    "aiohttp",
    "tenacity",
    "structlog",
    "pyyaml",
    "click",
    "msgspec",
    "pydantic",
    "uvloop",
)
_READ_ME = """\
What bulkbind knows of run {run_id}, to be attached to a ticket.

versions.json   bulkbind, Python, libraries, system
settings.json   the settings of this call, without secrets
summary.json    how the run ended
rows.csv        the first {rows:,} rows that need a person or are pending
attempts.csv    the first {attempts:,} attempts that were not simply accepted, with trace ids, and
                the gateway's request ids in `message`
log.jsonl       the last {lines:,} lines of the log file, if there is one

{masked}
"""
_MASKED = """\
User ids, device names and the operator's name are replaced: the same number is the same user or
device throughout. Machine codes, trace ids and request ids stand as they are. Read it before you
send it: a text of the server's may speak of somebody in words that nobody could foresee."""
_PLAIN = "It holds user ids and device names as they are: it was made with --with-ids."


def bundle(
    settings: Settings,
    run_id: str | None = None,
    *,
    to: Path | None = None,
    with_ids: bool = False,
    clock: Clock | None = None,
) -> Path:
    """Write an archive about a run, for its owner only, and return its path.

    Args:
        settings: For the ledger and the log file.
        run_id: The run, or a prefix of its id; None: the newest.
        to: The archive; None: `bulkbind-<run id>.tar.gz` in the current folder.
        with_ids: Do not mask user ids and device names.
        clock: For tests.

    Raises: UsageError if there is no such run, LedgerError if something cannot be read or written.
    """
    with reading(ledger_of(settings), settings.api.endpoint) as db:
        number = find_run(db, run_id)
        run = RunReader(db, number)
        summary = run.summary()
        mask = None if with_ids else Mask(people(db, number))
        if mask is not None:
            mask.value(USER, summary.operator)
        sources = run.sources()
        rows = list(islice(run.rows(TO_SEE_TO), MOST_ROWS))
        attempts = list(islice(run.attempts(), MOST_ATTEMPTS))
    if mask is not None:
        for row in rows:
            for field, value in zip(OPTIONAL_FIELDS, row.optional, strict=True):
                mask.value(field, value)
    members = {
        "README.txt": _READ_ME.format(
            run_id=summary.run_id,
            rows=MOST_ROWS,
            attempts=MOST_ATTEMPTS,
            lines=MOST_LINES,
            masked=_PLAIN if mask is None else _MASKED,
        ),
        "versions.json": _json(_versions()),
        "settings.json": _json(_plain(settings.public(), mask)),
        "summary.json": _json(_plain(as_json(summary), mask)),
        "rows.csv": _table(_ROW_COLUMNS, (_row(row, sources, mask) for row in rows)),
        "attempts.csv": _table(
            ATTEMPTS.names,
            (_cells(ATTEMPTS.plain(item, sources), mask).values() for item in attempts),
        ),
        "log.jsonl": "".join(f"{line}\n" for line in _log(settings.log.log_file, mask)),
    }
    target = to or Path(f"bulkbind-{summary.run_id}.tar.gz")
    _learn_secrets(settings)
    hidden = {name: redacted(text) for name, text in members.items()}
    now = (clock or SystemClock()).utc_now().timestamp()
    _write(target, f"bulkbind-{summary.run_id}", hidden, now)
    return target


def _versions() -> dict[str, object]:
    found: dict[str, object] = {"bulkbind": version("bulkbind")}
    found |= {"python": platform.python_version(), "system": platform.platform()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _plain(value: dict[str, Any], mask: Mask | None) -> Any:  # noqa: ANN401  # JSON
    if mask is None:
        return value
    masked = mask.values(value)
    # These quote the values of invalid cells.
    for reason in (*masked.get("reasons", []), *masked.get("leaver_reasons", [])):
        reason["detail"] = ""
    if "manifests" in masked:
        masked["manifests"] = [PurePath(name).name for name in value["manifests"]]
    return masked


def _row(row: ResultRow, sources: Sequence[Source], mask: Mask | None) -> Iterable[object]:
    plain = RESULTS.plain(row, sources)
    cells = _cells({name: plain[name] for name in _ROW_COLUMNS}, mask)
    if mask is not None and row.broken:
        # An invalid value may be anything, in any cell: only the rule is shown.
        cells |= dict.fromkeys(row.broken & cells.keys(), "(breaks its rule)") | {"detail": ""}
    elif mask is not None and row.changes:
        # The text before quotes names as the operator wrote them.
        cells["detail"] = safe(line(mask.text(row.detail[len(row.changes) :])))
    return cells.values()


def _cells(plain: Cells, mask: Mask | None) -> Cells:
    """Return cells guarded and masked: the values of fields, and every text that may name one."""
    cells: Cells = plain | {"source": PurePath(plain["source"]).name}
    for name, cell in cells.items():
        if mask is None or not isinstance(cell, str) or name in _HARMLESS:
            shown = cell
        elif name in _MASKS:
            shown = mask.value(_MASKS[name], cell)
        else:
            shown = mask.text(cell)
        cells[name] = "" if shown is None else safe(line(str(shown)))
    return cells


def _log(path: Path | None, mask: Mask | None) -> Iterator[str]:
    """Yield the last lines of the log file, masked; a line that is not JSON as text."""
    if path is None:
        return
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_TAIL_BYTES))
            read = file.read(LOG_TAIL_BYTES)  # no more, if it grows meanwhile
            lines = read.decode("utf-8", "replace").splitlines()
    except OSError as error:
        yield json.dumps({"event": "bundle.log_missing", "why": error.strerror})
        return
    for each in lines[-MOST_LINES:]:
        try:
            event = json.loads(each)
        except ValueError:
            yield line(each if mask is None else mask.text(each))
            continue
        if isinstance(event, dict):
            event = redact(None, "", event)
        yield json_text(event if mask is None else mask.values(event), indent=None)


def _json(value: object) -> str:
    return f"{json_text(value)}\n"


def _table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\r\n")
    table.writerow(columns)
    table.writerows(rows)
    return file.getvalue()


def _learn_secrets(settings: Settings) -> None:
    """Hide every secret that the settings lead to: a second line of defence."""
    learn(*known_secrets(settings.auth, ledger_of(settings)), *proxy_secrets())
    if settings.end.notify_url_file is not None:
        with contextlib.suppress(OSError, ValueError):
            learn(read_whole(settings.end.notify_url_file)[0].decode("utf-8-sig").strip())


def _write(target: Path, folder: str, members: Mapping[str, str], now: float) -> None:
    try:
        make_folder(target.parent)
        with (
            replacing_bytes(target) as file,
            tarfile.open(fileobj=file, mode="w:gz") as archive,
        ):
            for name, text in members.items():
                content = text.encode("utf-8", "replace")
                info = tarfile.TarInfo(f"{folder}/{name}")
                info.size, info.mtime, info.mode = len(content), int(now), 0o600
                archive.addfile(info, io.BytesIO(content))
    except OSError as error:
        raise LedgerError(
            f"bundle {target} cannot be written: {error.strerror or error}",
            hint="free the disk or choose another --to",
        ) from error
