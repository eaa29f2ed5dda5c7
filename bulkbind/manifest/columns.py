"""Mapping the operator's columns to fields."""

from __future__ import annotations

import difflib
import re
import shlex
import unicodedata
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING

from bulkbind.errors import ManifestError
from bulkbind.manifest.likely_causes import DASHES, LOOKS_LIKE, QUOTES
from bulkbind.manifest.rules import printable
from bulkbind.manifest.synonyms import candidates, meant
from bulkbind.model import OWN_COLUMNS, in_one_line
from bulkbind.model.fields import CODE, FIELDS, ROW_FIELDS
from bulkbind.redaction import lines

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from bulkbind.settings import ManifestSettings

KEY = "@key"
"""Name for the key of a device where devices are a mapping; rows hold the key under this name."""
_MUST = frozenset(field.name for field in ROW_FIELDS if field.is_required)
"""The required fields. A wrong column for one of them would bind wrong devices."""
_SAME_WORDS = {"kode": "code", "cod": "code", "kod": "code", "identifier": "id"}
_DBASE_NAME = 10
"""Letters that dBase leaves of a longer name."""
_LEAST_PREFIX = 8
"""The shortest prefix that identifies a truncated name (dBase truncates after ten letters)."""
_MOST_WORDS = 20
_MOST_NAMED = 5
_POSITION = re.compile(r"#(\d{1,5})", re.ASCII)


_LONGEST_NAME = 200
_SEPARATORS = re.compile(rf"[\s_\-\x00-\x1f\x7f*\"'`{QUOTES}{DASHES}]+|[:\s]+$")
"""What a name is recognised without; a colon only at its end."""
_NEED = (
    "required|requis|requise|requerido|richiesto|mandatory|obligatory|compulsory|optional|must"
    "|required field|mandatory field|obligatoire|obligatorio|obbligatorio|obrigatorio|obrigatório"
    "|verplicht|wymagane|pflicht|pflichtfeld|pflichtangabe|erforderlich|notwendig|facultatif"
    "|обязательно|обязательное поле|必填|必须|必須|必需|选填|任意"
)
"""What templates say of a column."""
_LENGTH = r"(?:max\.?|up to|bis)\s{0,3}\d+(?:\s{0,3}(?:chars?|characters|zeichen))?\.?"
_NOTE = re.compile(
    rf"[(\[{{<]\s{{0,9}}(?:{_NEED}|{_LENGTH}|[*!])[\s*!.:]{{0,9}}[)\]}}>]"
    r"|(?<=[\s:,;/*])(?:required|mandatory)(?=[\s*!.:]{0,9}$)"
    r"|^(?:required|mandatory)[\s:*]",
    re.IGNORECASE,
)
_MAY_HAVE_NOTE = re.compile(r"[(\[{<]|required|mandatory", re.IGNORECASE)
_REMARK = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|<[^<>]*>|\{[^{}]*\}")
_INVISIBLE = re.compile(
    "[\xad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0001\U000e0020-\U000e007f"
    "\ufe00-\ufe0f\U000e0100-\U000e01ef"
    "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0]"
)
"""What shows nothing: Unicode's format characters, variation selectors, and fillers."""


def plain(header: str) -> str:
    """Return *header* as names are compared: as a person reads it.

    Without case, blanks, hyphens, underscores and quotes, without what is invisible, without the
    width and style of letters, and without a `*` or `(required)` that a template adds.
    """
    if len(header) > _LONGEST_NAME:
        return header
    text = _visible(header).strip()
    if _MAY_HAVE_NOTE.search(text):
        text = _NOTE.sub("", text)
    return _SEPARATORS.sub("", text).casefold()


def read_as(name: str, field: str, mapping: Mapping[str, str]) -> str:
    """Return a notice if a name is a field's only without what `plain` takes away; else ""."""
    column = mapping.get(field, "")
    written = _bare(name)
    if written == plain(name) or written == _bare(column) or position_of(column) is not None:
        return ""
    shown = _INVISIBLE.sub(lambda found: f"<U+{ord(found[0]):04X}>", printable(name))
    return f"`{shown}` is read as {field}; --ignore-column says that it is none"


def _bare(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).casefold()


def _visible(text: str) -> str:
    """Return a text without what shows nothing, and wide or styled letters as plain ones."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))


def seen(text: str) -> str:
    """Return the text of a cell as a person sees it: blanks, and what shows nothing, aside.

    Letters and digits stay as they are: wide ones and other capitals are seen.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    return " ".join(text.split())


def _rough(header: str) -> str:
    """Return *header* as `plain`, and without accents, other marks and whatever is in brackets.

    Letters that look like Latin ones are taken for these.
    """
    text = _REMARK.sub("", _visible(header[: _LONGEST_NAME + 1]))
    text = unicodedata.normalize("NFKD", "".join(LOOKS_LIKE.get(c, c) for c in text))
    return "".join(c for c in text if c.isalnum()).casefold()


def resembling(
    field: str, names: Sequence[str], mapping: Mapping[str, str], *, by_synonym: bool = True
) -> list[int]:
    """Return the positions of names that may be meant for a field, though none is its spelling.

    A fallback must not take their place unseen. *by_synonym*: whether what other programs call a
    required field counts, also in the plural, unless that is mapped.
    """
    found = _lookalikes(field, names)
    if by_synonym and field in _MUST and field not in mapping:
        found += _meant(field, names, mapping)
        found += _meant(field, [re.sub(r"[sS]\s*$", "", name) for name in names], mapping)
    return sorted({*found})


def _lookalikes(field: str, names: Sequence[str]) -> list[int]:
    return [at for at, name in enumerate(names) if _SPELLINGS.get(_rough(name)) == field]


def ways_on(field: str, at: Sequence[int], names: Sequence[str], *, has_positions: bool) -> str:
    """Return the options that say what columns are that may be meant for a field.

    *at*: their positions among *names*; *has_positions*: whether `#n` names the n-th.
    """
    shown = at[:_MOST_NAMED]
    texts = [spelled(field, n, names, has_positions=has_positions) or names[n] for n in shown]
    maps = " or ".join(f"--map {field}={shlex.quote(text)}" for text in texts)
    others = dict.fromkeys(shlex.quote(printable(names[n].strip())) for n in shown)
    ignores = " ".join(f"--ignore-column {name}" for name in others)
    one, none = ("it", "it is none") if len(at) == 1 else ("one", "they are none")
    return f"{maps} takes {one}, {ignores} says that {none}"


def ignored(names: Sequence[str], settings: ManifestSettings) -> frozenset[str]:
    """Return which names are no field's by the settings: as written there, else as one reads it."""
    found: set[str] = set()
    for wanted in settings.ignore_columns:
        exact = {name for name in names if name.strip() == wanted.strip()}
        found |= exact or {name for name in names if same(name, wanted)}
    return frozenset(found)


def same(name: str, other: str) -> bool:
    """Return whether two names are the same to a person."""
    return plain(name) == plain(other) != ""


_SPELLINGS = {
    plain(spelled): field.name
    for field in ROW_FIELDS
    for spelled in (field.name, field.api, field.header)
    if spelled
}
"""Our and the API's spelling, as `plain` leaves it."""


def words(mapping: Mapping[str, str]) -> frozenset[str]:
    """Return the usual spellings of the fields in headers."""
    spelled = {name.replace("_", mark) for name in FIELDS for mark in ("_", "-", " ", "")}
    spelled |= {name.title().replace("_", "") for name in FIELDS} | {*mapping.values()}
    camel = {name[0].lower() + name[1:] for name in spelled if name}
    return frozenset(
        written
        for name in spelled | camel
        for written in (name, name.lower(), name.upper(), name.title(), name.capitalize())
    )


def field_of(header: str, mapping: Mapping[str, str]) -> str | None:
    """Return the field that *header* names, or None. A mapped field is known by no other name."""
    wanted = header.strip()
    name = plain(wanted)
    for field, column in mapping.items():
        if column == wanted or (name and plain(column) == name):
            return field
    spelled = _SPELLINGS.get(name)
    return None if spelled in mapping else spelled


def position_of(column: str) -> int | None:
    """Return the 0-based position meant by e.g. `#3`; None if *column* is a name."""
    match = _POSITION.fullmatch(column)
    return int(match[1]) - 1 if match else None


def named(row: Sequence[str], mapping: Mapping[str, str]) -> int:
    """Return how many fields a row names if taken as a header; 0 without machine_code."""
    fields = {field_of(cell, mapping) for cell in row if cell.strip()} - {None}
    by_position = position_of(mapping.get("machine_code", "")) is not None
    return len(fields) if "machine_code" in fields or by_position else 0


def likeness(row: Sequence[str], mapping: Mapping[str, str]) -> tuple[int, int]:
    """Return how well a row serves as a header: 0, 0 without machine_code.

    First how many of its cells are exactly a name that is wanted, then how many fields it names.
    """
    fields = named(row, mapping)
    exact = {*mapping.values()} | {name for name in FIELDS if name not in mapping}
    return (len(exact.intersection(map(str.strip, row))) if fields else 0, fields)


def is_code(cell: str, mapping: Mapping[str, str]) -> bool:
    """Return whether a cell is the name of the column of machine codes."""
    return field_of(cell, mapping) == "machine_code"


def needles(mapping: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Return lower-case texts, one of which stands in every header with machine_code.

    *name*: of its column in the header at hand. If it is known by its position, any text will do.
    """
    if position_of(mapping.get("machine_code", "")) is not None:
        return ("",)
    names = {mapping.get("machine_code", "machine"), name} - {""}
    found = (re.findall(r"[^\W_]+", each.lower()) for each in names)
    return tuple({max(words, key=len, default="") for words in found})


def positions(
    header: Sequence[str],
    mapping: Mapping[str, str],
    *,
    source: str,
    line: int,
    given: Collection[str],
    without: Collection[str] = (),
) -> tuple[int | None, ...]:
    """Return the position of each of `FIELDS` in *header*; None if it has no column.

    *mapping* gives the name of a field's column, or `#n` for the n-th column; *given* are fields
    that need no column, *without* names in *header* that are no field's. *source* and *line* locate
    the header in messages.

    Raises: ManifestError if two columns claim one field, a mapped column is missing, or
        machine_code or user_id has no column and is not given.
    """
    found: dict[str, int] = {}
    names = [name.strip() for name in header]
    exact = {field: column for field, column in mapping.items() if column in names}
    for position, name in enumerate(names):
        field = None if header[position] in without else field_of(name, mapping)
        if field is None or name != exact.get(field, name):
            continue
        if field in found:
            first = header[found[field]].strip()
            may_ignore = field not in mapping and first != name
            raise ManifestError(
                f"{source}:{line}: columns `{first}` and `{name}` both claim {field}",
                hint=f"say which with --map {field}=#{found[field] + 1} or --map "
                f"{field}=#{position + 1}, or rename one of them"
                + (f", or leave one out: --ignore-column {shlex.quote(name)}" * may_ignore),
            )
        found[field] = position
    for field, column in mapping.items():
        at = position_of(column)
        if at is not None and field not in found and 0 <= at < len(header):
            found[field] = at
    _require(found, header, mapping, source=source, line=line, given=given)
    return tuple(found.get(field) for field in FIELDS)


def position_in(
    header: Sequence[str], column: str, fields: Mapping[str, int], *, source: str, line: int
) -> int:
    """Return the position of the column that the operator names in a condition or as a key.

    A header as written, `#3`, a header as one reads it, or one of our fields: the first of these
    that there is. *fields*: their positions.

    Raises: ManifestError if there is none, or more than one.
    """
    names = [name.strip() for name in header]
    exact = [at for at, name in enumerate(names) if name == column]
    place = position_of(column)
    if not exact and place is not None and 0 <= place < len(header):
        return place
    found = exact or [at for at, name in enumerate(names) if same(name, column)]
    if len(found) > 1:
        shown = " and ".join(f"#{at + 1}" for at in found[:_MOST_NAMED])
        raise ManifestError(
            f"{source}:{line}: {len(found)} columns are called `{column}`: {shown}",
            hint=f"say which by its position, for instance #{found[0] + 1}",
        )
    field = field_of(column, {})
    if not found and field is not None and field in fields:
        return fields[field]
    if not found:
        raise unknown_column(f"{source}:{line}", column, [name for name in names if name])
    return found[0]


def unknown_column(place: str, column: str, names: Sequence[str]) -> ManifestError:
    """Return the error of a column that is not there. *names*: those that are."""
    near = difflib.get_close_matches(plain(column), list(map(plain, names)), n=1, cutoff=0.6)
    meant_names = [name for name in names if near and plain(name) == near[0]]
    shown = printable(", ".join(f"`{name}`" for name in names[:20])) or "none"
    return ManifestError(
        f"{place}: there is no column `{in_one_line(printable(column))}`",
        hint=in_one_line(
            (f"did you mean `{printable(meant_names[0])}`? " if meant_names else "")
            + f"its columns: {shown}"
        ),
    )


def _require(
    found: Mapping[str, int],
    header: Sequence[str],
    mapping: Mapping[str, str],
    *,
    source: str,
    line: int,
    given: Collection[str],
) -> None:
    must = (_MUST - set(given)) | set(mapping)
    missing = [field for field in FIELDS if field in must and field not in found]
    if not missing:
        return
    wanted = ", ".join(f"`{mapping.get(field, field)}` for {field}" for field in missing)
    shown = ", ".join(f"`{in_one_line(name.strip())}`" for name in header[:20]) or "none"
    guess = suggestion(header, set(FIELDS) - set(found) - set(given), mapping, found.values())
    # The whole header in one cell: its delimiter was not recognized.
    needle = plain(mapping.get(missing[0], missing[0]))
    if len(header) == 1 and len(plain(header[0])) > len(needle) and needle in plain(header[0]):
        guess = "a first line such as `sep=~` names the delimiter; "
    raise ManifestError(
        f"{source}:{line}: no column {wanted}; columns found: {shown}",
        hint=lines(
            (
                guess
                + ("--user-id gives one user to all rows, " if "user_id" in missing else "")
                + f"--map {missing[0]}=COLUMN names another column, --skip-rows the lines before "
                "the header, --columns the columns of a file without one"
            ).split("\n")
        ),
        names=header,
    )


def suggestion(
    names: Sequence[str],
    missing: Collection[str],
    mapping: Mapping[str, str],
    taken: Collection[int] = (),
    *,
    has_positions: bool = True,
) -> str:
    """Return the options that take the columns probably meant for fields, to be pasted at once.

    Where several may be meant for a field, they are named, and none is among the options; so is one
    that has the field's own name, as an option holds for every file. Empty if none is found for a
    required or mapped field.

    *missing*: the fields; *taken*: the positions that others have; *has_positions*: whether
    `#n` names the n-th of *names*.
    """
    found = proposed(names, missing, mapping, taken, has_positions=has_positions)
    if not any(field in _MUST or field in mapping for field in found):
        return ""
    flags, doubts = [], []
    for field, texts in found.items():
        if len(texts) == 1 and field in mapping and field_of(texts[0], {}) == field:
            doubts.append(
                f"this file has `{texts[0]}` itself: leave {field}={mapping[field]} away "
                "(--map, or `columns:`), and run files that need it apart\n"
            )
        elif len(texts) == 1:
            flags.append(f"--map {field}={shlex.quote(texts[0])}")
        else:
            either = " or ".join(f"{field}={shlex.quote(text)}" for text in texts[:_MOST_NAMED])
            doubts.append(f"say which with --map: {either}\n")
    return (f"did you mean\n  {' '.join(flags)}\n" if flags else "") + "".join(doubts)


def proposed(
    names: Sequence[str],
    missing: Collection[str],
    mapping: Mapping[str, str],
    taken: Collection[int] = (),
    *,
    has_positions: bool = True,
) -> dict[str, list[str]]:
    """Return what `--map` takes for the columns probably meant for fields, the machine code first.

    Several for a field are candidates of which a person must choose. Arguments: as `suggestion`.
    """
    wanted = [field for field in (CODE.name, *FIELDS) if field in missing]
    found = {field: set(_meant(field, names, mapping)) - {*taken} for field in wanted}
    often = Counter(at for places in found.values() for at in places)
    proposals = {}
    for field, places in found.items():
        mine = sorted(at for at in places if often[at] == 1)
        texts = [spelled(field, at, names, has_positions=has_positions) for at in mine]
        if mine and all(texts):
            proposals[field] = texts
    return proposals


def _meant(field: str, names: Sequence[str], mapping: Mapping[str, str]) -> list[int]:
    """Return the positions of the names that are probably meant for a field, and for no other."""
    if field in mapping or field in _MUST:
        near = closest(field, mapping.get(field, field), names)
        near = near or next((names[at].strip() for at in _lookalikes(field, names)), "")
        if near and meant(near) in (None, field):
            return [at for at, name in enumerate(names) if name.strip() == near]
    return [] if field in mapping else candidates(names).get(field, [])


def spelled(field: str, at: int, names: Sequence[str], *, has_positions: bool) -> str:
    """Return what `--map` takes for a column: its name if it can be typed and is its alone.

    Empty if nothing does.
    """
    name = " ".join(names[at].split())
    is_special = position_of(name) is not None or name == KEY
    alike = [n for n, other in enumerate(names) if field_of(other, {field: name}) == field]
    if name.isprintable() and not is_special and alike == [at]:
        return name
    return f"#{at + 1}" if has_positions else ""


def closest(field: str, wanted: str, names: Sequence[str]) -> str:
    """Return the name probably meant by *wanted* for a field, or an empty string.

    For machine_code and user_id, only names with the same words count, perhaps among others: a
    merely similar spelling may mean anything.
    """
    if field in _MUST:
        meant = [name.strip() for name in names if _means(name, wanted)]
        return min(meant, key=lambda name: len(_words(name)), default="")
    by_plain = {plain(name): name.strip() for name in reversed(names)}
    close = difflib.get_close_matches(plain(wanted), list(by_plain), n=1, cutoff=0.6)
    return by_plain[close[0]] if close else ""


def _means(name: str, wanted: str) -> bool:
    """Whether *name* contains the words of *wanted* in sequence, or is a long enough prefix."""
    whole = "".join(_words(wanted))
    words = _words(name)[:_MOST_WORDS]
    joined = "".join(words)
    if not whole or position_of(wanted) is not None:
        return False
    ends = accumulate(map(len, _words(wanted)))
    is_cut = len(joined) == _DBASE_NAME or (
        len(joined) >= _LEAST_PREFIX and len(joined) not in ends
    )
    return (is_cut and whole.startswith(joined)) or any(
        "".join(words[first:last]) == whole
        for first in range(len(words))
        for last in range(first + 1, len(words) + 1)
    )


def _words(name: str) -> list[str]:
    """Return the lower-case words of a name, however separated: `userID-no.2` has four."""
    parted = re.sub(r"(?<=[a-z\d])(?=[A-Z])", " ", name)
    found = re.findall(r"[^\W\d_]+|\d+", parted.casefold())
    return [_SAME_WORDS.get(word, word) for word in found]


def unknown(header: Sequence[str], used: Sequence[int | None]) -> list[str]:
    """Return the operator's columns that are neither used nor added by bulkbind.

    Columns without a name before the first one are the margin of a table.
    """
    margin = next((at for at, name in enumerate(header) if name.strip()), 0)
    taken = {position for position in used if position is not None} | set(range(margin))
    return [
        name.strip() or f"column {position + 1}"
        for position, name in enumerate(header)
        if position not in taken and name.strip() not in OWN_COLUMNS
    ]
