"""`bundle`: an archive about a run to attach to a ticket, without secrets.

User ids and device names can be masked: `user_7` becomes `user#1` wherever it occurs as a word,
server messages included.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import platform
import re
import tarfile
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from bulkbind.clock import Clock, SystemClock
from bulkbind.errors import LedgerError
from bulkbind.files import make_folder, replacing_bytes
from bulkbind.koodrive import known_secrets, proxy_secrets
from bulkbind.ledger import RunReader, find_run, people, reading
from bulkbind.logs import redact
from bulkbind.manifest.formulas import safe
from bulkbind.model import TO_SEE_TO
from bulkbind.model.fields import OPTIONAL_FIELDS, ROW_FIELDS, USER
from bulkbind.report import as_json
from bulkbind.report.tables import ATTEMPTS, RESULTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bulkbind.model import ResultRow, Source
    from bulkbind.model.fields import Field
    from bulkbind.report.tables import Cells
    from bulkbind.settings import Settings

_WORD = re.compile(r"[^\s\"'`=,;()<>\[\]{}]+")
_AROUND = ":.!?"
"""Punctuation that may follow a user id in a sentence."""
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
        """*users*: ids to replace wherever they occur as a word."""
        self._known = set(users)
        self._masks: dict[str, dict[str, str]] = {field.mask: {} for field in ROW_FIELDS}

    def value(self, field: Field, value: str) -> str:
        """Return the mask of a field's value; the value itself if it is empty or harmless."""
        if not value or not field.mask:
            return value
        if field is USER:
            self._known.add(value)
        masks = self._masks[field.mask]
        return masks.setdefault(value, f"{field.mask}#{len(masks) + 1}")

    def text(self, text: str) -> str:
        """Return a text with user ids, and the other values seen so far, masked."""
        values = {
            value: mask
            for kind, masks in self._masks.items()
            if kind != USER.mask
            for value, mask in masks.items()
        }
        for value in sorted(values, key=len, reverse=True):
            if value in text:
                text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", values[value], text)
        return _WORD.sub(self._word, text)

    def _word(self, found: re.Match[str]) -> str:
        word = found[0]
        for known in (word, word.strip(_AROUND)):
            if known in self._known:
                return word.replace(known, self.value(USER, known))
        return word

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
    with reading(settings.ledger_path(), settings.api.endpoint) as db:
        number = find_run(db, run_id)
        run = RunReader(db, number)
        summary = run.summary()
        mask = None if with_ids else Mask(people(db, number))
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
    hidden = {name: _scrubbed(text, _secrets(settings)) for name, text in members.items()}
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
    for reason in masked.get("reasons", []):
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
        cells["detail"] = safe(mask.text(row.detail[len(row.changes) :]))
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
        cells[name] = "" if shown is None else safe(str(shown))
    return cells


def _log(path: Path | None, mask: Mask | None) -> Iterator[str]:
    """Yield the last lines of the log file, masked; a line that is not JSON as text."""
    if path is None:
        return
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError as error:
        yield json.dumps({"event": "bundle.log_missing", "why": error.strerror})
        return
    for line in lines[-MOST_LINES:]:
        try:
            event = json.loads(line)
        except ValueError:
            yield line if mask is None else mask.text(line)
            continue
        if isinstance(event, dict):
            event = redact(None, "", event)
        yield json.dumps(event if mask is None else mask.values(event), ensure_ascii=False)


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\r\n")
    table.writerow(columns)
    table.writerows(rows)
    return file.getvalue()


def _secrets(settings: Settings) -> list[str]:
    """Return every secret that the settings lead to, longest first: a second line of defence."""
    found = known_secrets(settings.auth, settings.ledger_path()) | proxy_secrets()
    if settings.end.notify_url_file is not None:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found.add(settings.end.notify_url_file.read_text(encoding="utf-8-sig").strip())
    return sorted(filter(None, found), key=len, reverse=True)


def _scrubbed(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***").replace(json.dumps(secret)[1:-1], "***")
    return text


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
