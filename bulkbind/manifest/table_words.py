"""Words about a table, which stand among its values where a line is no row; pure.

Such are a second header in other words or another language, a line of types or of what must be
filled in, a table that is turned, with its names in the first column, and totals below it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bulkbind.manifest.likely_causes import Fault
from bulkbind.manifest.synonyms import NAMES
from bulkbind.model.fields import ROW_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterable

_COLUMNS = """
    location, locations, comments, remarks, department, category, description, quantity, vendor,
    manufacturer, Standort, Bemerkung, Bemerkungen, Abteilung, Menge, Hersteller, Beschreibung,
    string, str, text, varchar, nvarchar, char, int, integer, bigint, number, numeric, decimal,
    float, boolean, alphanumeric, uuid, guid, required, mandatory, optional, obligatoire,
    obligatorio, requis, requerido, richiesto, verplicht, Pflicht, Pflichtfeld, Pflichtangabe,
    erforderlich
"""
"""Other names of columns, and what a line below a header says of them."""
_ENDS = """
    total, totals, subtotal, grand total, sum, count, end, eof, end of file, end of report,
    end of data, Gesamt, Gesamtsumme, Gesamtergebnis, Zwischensumme, Summe, Ergebnis, Anzahl, Ende,
    totaux, sous total, somme, résultat, totale, totaal, suma, suma total, total general, resultado
"""


def _forms(texts: Iterable[str]) -> frozenset[str]:
    """Return words as machine codes can spell them: in lower case, with `_` for blanks or none."""
    words = [re.findall(r"[^\W_]+", text.lower()) for text in texts]
    forms = {mark.join(parts) for parts in words for mark in ("", "_")}
    return frozenset(form for form in forms if form.isascii() and not re.search(r"[0-9]", form))


ENDS = _forms(_ENDS.split(","))
"""What stands below a table."""
WORDS = ENDS | _forms(
    [*_COLUMNS.split(","), *NAMES, *(field.name for field in ROW_FIELDS)]
    + [field.api for field in ROW_FIELDS]
)
"""Those and the names of columns, which are no machine code."""
_LEAVE = "delete the line; --placeholders none takes it as it stands"
END = Fault("what stands below a table, not a value", _LEAVE, "a value, not a total or an end")
NAME = Fault(
    "the name of a column, not a value",
    f"is it a second header, or a table whose rows and columns are exchanged? {_LEAVE}",
    "a value, not the name of a column",
)
BY_FIELD = {"machine_code": WORDS, "user_id": ENDS}
"""The words that are no value of a field."""


def fault_of_word(field: str, value: str) -> Fault | None:
    """Return why a valid value is a word about the table; None if it is none."""
    word = value.lower()
    if word not in BY_FIELD.get(field, ()):
        return None
    return END if word in ENDS else NAME
