"""The fields of a manifest's row, and every fact about them.

A field is added by an entry of `ROW_FIELDS`, a migration of the ledger's `rows` and `bindings`, the
sandbox's check, and the samples. Everything else follows, or fails a test.

Source of every rule: koodrive-api.md, body fields and X-User-Id.
"""

from __future__ import annotations

from typing import NamedTuple


class Field(NamedTuple):
    """One field."""

    name: str
    """In manifests, the ledger and reports."""
    api: str
    """The API's name: its key in the body, unless it is sent as a header."""
    label: str
    """In sentences: `another name or OS`."""
    characters: str
    """One allowed character, as a regular expression of ASCII."""
    words: str
    """The allowed characters: `letters, digits and …`."""
    longest: int
    header: str = ""
    """The header in which it is sent; empty: it is sent in the body."""
    is_required: bool = False
    is_cleaned: bool = False
    """Whether `--clean names` may change it."""
    mask: str = "value"
    """What replaces its values in a bundle, with a number: `device` makes `device#1`. Empty: they
    are harmless."""
    is_bundled: bool = True
    """Whether a bundle has a column for it."""


ROW_FIELDS = (
    Field(
        "user_id", "userId", "user", r"[!-~]", "visible ASCII without blanks", 128,
        header="X-User-Id", is_required=True, mask="user",
    ),
    Field(
        "machine_code", "machineCode", "machine code", r"[a-zA-Z0-9_]", "letters, digits and `_`",
        64, is_required=True, mask="",
    ),
    Field(
        "device_name", "deviceName", "name", r"[a-zA-Z0-9\-_\s]",
        "letters, digits, `-`, `_` and blanks", 32, is_cleaned=True, mask="device",
    ),
    Field(
        "device_os", "deviceOS", "OS", r"[a-zA-Z0-9_\s]",
        "letters, digits, `_` and blanks (no hyphen)", 32, is_cleaned=True, mask="",
        is_bundled=False,
    ),
)  # fmt: skip
"""In the order of reports: first the user and the machine code, which are required, then the
optional fields."""
USER, CODE, *_OPTIONAL = ROW_FIELDS
OPTIONAL_FIELDS = tuple(_OPTIONAL)
FIELDS = tuple(field.name for field in ROW_FIELDS)
"""The names of all fields, in the order of `ROW_FIELDS`."""
OPTIONAL = tuple(field.name for field in OPTIONAL_FIELDS)
"""The names of the optional fields."""
CLEANED = tuple(field.name for field in ROW_FIELDS if field.is_cleaned)
"""The names of the fields that `--clean names` may change."""
LABELS = tuple(field.label for field in OPTIONAL_FIELDS)
NAME = OPTIONAL.index("device_name")
"""Which of the optional fields is the one by which people know a device."""

Values = tuple[str | None, ...]
"""A value of each field (or of each optional field) in the table's order; None if missing."""
ABSENT: Values = (None,) * len(OPTIONAL)
"""The optional values of a device that has none."""


def enumeration(*words: str, last: str = "or") -> str:
    """Return words with commas, and *last* before the last one: `name, OS or model`."""
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), words[-1])))


DETAILS = enumeration(*LABELS)
"""What may differ between bindings of one device to one user: `name or OS`."""
