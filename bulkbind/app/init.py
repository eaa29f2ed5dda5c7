"""`init`: what a manifest's header suggests, as a settings file."""

from __future__ import annotations

import os
import textwrap
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulkbind.app.schema import described
from bulkbind.errors import LedgerError, ManifestError
from bulkbind.files import create, replacing_bytes
from bulkbind.manifest import open_manifest
from bulkbind.manifest.columns import KEY, field_of, ignored, proposed, spelled
from bulkbind.model import OWN_COLUMNS
from bulkbind.model.fields import CODE, FIELDS, ROW_FIELDS, USER
from bulkbind.redaction import line
from bulkbind.settings import (
    SETTINGS,
    AuthMode,
    Group,
    Loaded,
    load,
    plain,
    read_config,
    shipped_names,
    split_address,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.manifest import ManifestFile
    from bulkbind.model import CheckedRow
    from bulkbind.settings import ManifestSettings, Settings

MOST_ROWS = 10_000
"""Rows that are looked at; the others are read by `validate`."""
SHOWN = 3
_CURE = "--clean names"
_STAND_IN = "USER"
"""Stands for the user of all rows while there is none."""
WIDTH = 96
MOST_NAMES = 20


@dataclass(frozen=True, slots=True)
class Proposal:
    """How a manifest would be read."""

    reads: ManifestSettings
    """With the columns that are taken, and what fixes names."""
    names: tuple[str, ...]
    """The manifest's columns or keys."""
    is_table: bool
    """Whether `#n` names the n-th of them."""
    choices: dict[str, list[str]] = field(default_factory=dict)
    """Fields for which several columns may be meant, as `--map` takes them."""
    rows: tuple[CheckedRow, ...] = ()
    """The first rows that can be sent; if there are none, the first ones."""
    count: int = 0
    """Rows that were looked at, up to MOST_ROWS."""
    invalid: int = 0
    """How many of them break a rule."""
    fault: ManifestError | None = None
    """Why it cannot be read with that yet: a required column is not known."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The required fields that have neither column nor value."""
        known = _known(self.names, self.reads)
        return tuple(f.name for f in (CODE, USER) if f.name not in known)

    @property
    def columns(self) -> dict[str, str]:
        """The column of each field that has one, in the order of a row's fields."""
        found = {field_of(name, self.reads.columns): name.strip() for name in self.names}
        mapped = {field: found.get(field) for field in FIELDS} | self.reads.columns
        return {field: column for field in FIELDS if (column := mapped.get(field))}


def propose(file: ManifestFile, reads: ManifestSettings) -> Proposal:
    """Return how to read a manifest: by its own names of columns, else by synonyms.

    Nothing is guessed where several columns may be meant, or none.

    Raises: ManifestError if it cannot be read for another reason than a missing column; UsageError.
    """
    while True:
        found = _looked_at(file, reads)
        singles, several = _synonyms(found)
        if not singles:
            return replace(_cleaned(file, found), choices=several)
        reads = reads.model_copy(update={"columns": {**reads.columns, **singles}})


def _looked_at(file: ManifestFile, reads: ManifestSettings) -> Proposal:
    """Return what the manifest holds, read so. Raises: as `propose`."""
    is_table = True
    try:
        manifest = open_manifest(file, reads)
        is_table = bool(manifest.source.header)
        rows = list(islice(manifest.rows(), MOST_ROWS))
    except ManifestError as error:
        if not error.names:
            raise
        found = Proposal(reads, error.names, is_table, fault=error)
    else:
        keys = {key: None for row in rows if isinstance(row.cells, dict) for key in row.cells}
        names = manifest.source.header or tuple(keys.keys() - {KEY, *OWN_COLUMNS})
        found = _counted(Proposal(reads, names, is_table), rows)
    singles, several = _synonyms(found)
    if found.missing == (USER.name,) and USER.name not in singles | several:
        return _with_stand_in(file, found)  # one user may have all rows, so they can be shown
    return found


def _with_stand_in(file: ManifestFile, found: Proposal) -> Proposal:
    constants = {**found.reads.constants, USER.name: _STAND_IN}
    reads = found.reads.model_copy(update={"constants": constants})
    with suppress(ManifestError):
        rows = list(islice(open_manifest(file, reads).rows(), MOST_ROWS))
        return _counted(replace(found, fault=None), rows)
    return found


def _counted(found: Proposal, rows: Sequence[CheckedRow]) -> Proposal:
    good = [row for row in rows if not row.problems]
    return replace(
        found, rows=tuple((good or rows)[:SHOWN]), count=len(rows), invalid=len(rows) - len(good)
    )


def _cleaned(file: ManifestFile, found: Proposal) -> Proposal:
    """Return it with `clean: names` where that makes more rows fit to be sent."""
    if not found.invalid or found.reads.clean == "names":
        return found
    reads = found.reads.model_copy(update={"clean": "names"})
    better = replace(found, reads=reads)
    better = _with_stand_in(file, better) if found.missing else _looked_at(file, reads)
    return better if better.invalid < found.invalid else found


def _known(names: Sequence[str], reads: ManifestSettings) -> set[str]:
    """Return the fields that have a column or a value."""
    without = ignored(names, reads)
    by_name = {field_of(name, reads.columns) for name in names if name not in without}
    given = {*reads.columns, *reads.constants} | ({USER.name} if reads.user_id else set())
    return {field for field in FIELDS if field in by_name | given}


def _synonyms(found: Proposal) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the columns probably meant for fields without one, and where several may be."""
    names, reads = found.names, found.reads
    missing = set(FIELDS) - _known(names, reads)
    without = ignored(names, reads)
    taken = [
        at for at, name in enumerate(names) if name in without or field_of(name, reads.columns)
    ]
    meant = proposed(names, missing, reads.columns, taken, has_positions=found.is_table)
    singles = {field: texts[0] for field, texts in meant.items() if len(texts) == 1}
    return singles, {field: texts for field, texts in meant.items() if len(texts) > 1}


def choices_of(found: Proposal, field: str) -> list[str]:
    """Return the columns that a field may be in, as `--map` takes them: all, unless few are meant.

    A name that cannot be typed, or stands twice, is given by its position.
    """
    every = [
        spelled(field, at, found.names, has_positions=found.is_table)
        for at, name in enumerate(found.names)
        if name.strip() and name.strip() not in OWN_COLUMNS
    ]
    return found.choices.get(field) or [text for text in every if text]


def shown_rows(found: Proposal) -> list[str]:
    """Return the first rows as they would be sent, as lines of a table."""
    heads = ["line", *FIELDS]
    table = [heads]
    for row in found.rows:
        values = ["" if value is None else line(value) for value in row.values]
        if USER.name in found.missing:
            values[FIELDS.index(USER.name)] = "?"
        table.append([str(row.line), *values])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
    for number, row in enumerate(found.rows, start=1):
        if row.problems:
            lines[number] += f"  not sent: {line(row.problems[0].text)}"
    return lines


# --- the settings file ---------------------------------------------------------------------------


def shipped_endpoints() -> dict[str, str]:
    """Return the endpoint of each settings file that comes with the package."""
    return {name: str(read_config(Path(name)).values["endpoint"]) for name in shipped_names()}


def _besides(settings: Settings, endpoint: str) -> dict[str, Any]:
    """Return what else is set: by *settings*, and for an endpoint by those that are shipped.

    For a local one these are the sandbox's.
    """
    by_endpoint = {url: name for name, url in shipped_endpoints().items()}
    name = by_endpoint.get(endpoint)
    if name is None and split_address(endpoint)[0].scheme == "http":  # this machine's alone
        name = "sandbox"
    shipped = [load(Path(name), {})] if name else []
    return {
        each.key: each.value
        for loaded in (*shipped, Loaded(settings, {}))
        for each in loaded.values()
        if SETTINGS[each.key].part in ("api", "doubt", "send")
        and each.key != "endpoint"
        and each.value != SETTINGS[each.key].default
    }


def settings_text(
    name: str,
    found: Proposal,
    settings: Settings,
    endpoint: str | None,
    mode: AuthMode | None,
) -> str:
    """Return a commented settings file without secrets.

    Args:
        name: Of the manifest.
        found: How it is read.
        settings: What was given besides.
        endpoint: None: its line is a comment.
        mode: The kind of credentials; None: whatever there is, its line is a comment.
    """
    blocks = [
        _comment(
            f"Settings of bulkbind for {line(name)}, made by bulkbind init. In this folder they "
            "are used without being named; elsewhere --config names them."
        )
        + _comment(
            "A flag wins over an environment variable, that over this file. `bulkbind schema "
            "config` describes every key. Secrets have no place here."
        ),
        _entry("endpoint", endpoint, example="https://host"),
    ]
    if endpoint is not None:
        blocks += [_entry(key, value) for key, value in _besides(settings, endpoint).items()]
    blocks.append(_columns_block(found))
    reads = found.reads
    for setting in SETTINGS.values():
        value = reads.model_dump(mode="json").get(setting.name)
        is_set = setting.group is Group.MANIFEST and value != setting.default
        if is_set and setting.name not in ("columns", "profile", "min_rows"):
            blocks.append(_entry(setting.key, value))
    if USER.name in found.missing:
        blocks.append(_entry(USER.name, None, example="ID"))
    blocks.append(_auth_block(mode))
    return "\n".join(blocks)


def _columns_block(found: Proposal) -> str:
    names = ", ".join(f"`{line(name.strip())}`" for name in found.names[:MOST_NAMES])
    more = len(found.names) - MOST_NAMES
    head = _comment(
        f"{described(SETTINGS['columns'])}. Found: {names}" + (f" and {more:,} more" * (more > 0))
    )
    rules = {field.name: f"{field.words}, 1 to {field.longest}" for field in ROW_FIELDS}
    lines = [
        f"  {field}:{plain(column)}  # {rules[field]}\n" for field, column in found.columns.items()
    ]
    lines += [
        f"  # {field}:{plain(texts[0])}  # or {line(', '.join(texts[1:]))}: choose one\n"
        for field, texts in found.choices.items()
    ]
    return head + ("columns:\n" + "".join(lines) if found.columns else "columns: {}\n")


def _auth_block(mode: AuthMode | None) -> str:
    files = {
        "token": ("token_file", "token_command"),
        "session": ("refresh_token_file", "account", "password_file"),
        "app": ("app_id", "app_secret_file"),
        "users": ("users_file",),
    }
    names = files[mode] if mode else ("token_file", "refresh_token_file", "app_id", "users_file")
    text = "auth:\n" + textwrap.indent(_entry("auth.mode", mode, example="token"), "  ")
    for name in names:
        text += textwrap.indent(_entry(f"auth.{name}", None), "  ")
    return text


def _entry(key: str, value: object, *, example: str = "") -> str:
    """Return a key with its comment; without a value, the key is a comment as well."""
    name = key.rpartition(".")[2]
    if value is None:
        return _comment(described(SETTINGS[key])) + f"# {name}: {example}".rstrip() + "\n"
    return _comment(described(SETTINGS[key])) + f"{name}:{plain(value)}\n"


def _comment(text: str) -> str:
    return (
        textwrap.fill(
            text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False
        )
        + "\n"
    )


def write_settings(path: Path, text: str, *, replaces: bool) -> None:
    """Write a settings file for its owner only. A link in its place is replaced, not followed.

    Raises: FileExistsError unless it *replaces* what is there, LedgerError if it cannot be written.
    """
    try:
        if replaces:
            with replacing_bytes(path) as file:
                file.write(text.encode())
            return
        number = create(path, os.O_WRONLY | os.O_EXCL)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(text.encode())
        except OSError:
            path.unlink()
            raise
    except FileExistsError:
        raise
    except OSError as error:
        raise LedgerError(
            f"settings file {path} cannot be written: {error.strerror or error}",
            hint="free the disk, or call it in a folder that you may write to",
        ) from error
