"""What is bound on the server, as a manifest."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, TextIO

from bulkbind.report.cells import safe, safe_value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bulkbind.model import Record

COLUMNS = ("machine_code", "user_id", "device_name", "device_os", "device_id", "create_time")
_HARMLESS = re.compile(r"[A-Za-z0-9 _-]*", re.ASCII)


class ExportWriter:
    """Writes a CSV manifest, record by record."""

    def __init__(self, file: TextIO) -> None:
        self._table = csv.writer(file, lineterminator="\r\n")

    def begin(self) -> None:
        """Write the header."""
        self._table.writerow(COLUMNS)

    def write(self, user_id: str, records: Iterable[Record]) -> None:
        """Write a user's records. What keeps the rules of a manifest stands as it is."""
        self._table.writerows(
            [
                _cell(record.machine_code),
                safe_value(user_id),
                _cell(record.device_name or ""),
                _cell(record.device_os or ""),
                safe(record.device_id),
                safe(record.create_time),
            ]
            for record in records
        )


def _cell(text: str) -> str:
    return text if _HARMLESS.fullmatch(text) else safe(text)
