"""The same devices in every format, as operators' programs write them."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import yaml

from bulkbind.manifest import open_manifest
from bulkbind.settings import ManifestSettings
from tests.support.manifests import write_xlsx

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = ("csv", "tsv", "xlsx", "yaml", "json", "jsonl")


def written(folder: Path, kind: str, header, rows) -> Path:
    """Write rows of texts, None for nothing, in a format; return the file's path."""
    path = folder / f"fleet.{kind}"
    devices = [dict(zip(header, row, strict=True)) for row in rows]
    if kind == "xlsx":
        return write_xlsx(path, ("One", [list(header), *map(list, rows)]))
    if kind in ("csv", "tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, delimiter="," if kind == "csv" else "\t")
            table.writerows([header, *rows])
        return path
    if kind == "yaml":
        text = yaml.safe_dump(devices, sort_keys=False, allow_unicode=True)
    elif kind == "json":
        text = json.dumps(devices, ensure_ascii=False, indent=1)
    else:
        text = "".join(f"{json.dumps(device)}\n" for device in devices)
    path.write_text(text, encoding="utf-8")
    return path


def opened(folder: Path, kind: str, header, rows, **given):
    """Write rows in a format, and open them as a manifest called `fleet`."""
    path = written(folder, kind, header, rows)
    return open_manifest(path, ManifestSettings(**given), path.name)
