"""Print a software bill of materials, CycloneDX 1.6 in JSON: `python -m tests.support.sbom`.

It names what is installed here of what bulkbind needs, the extras for users included, and nothing
that only its tests need. Source of the format: cyclonedx.org, "JSON Reference".
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from tests.support.versions import requirements

if TYPE_CHECKING:
    from importlib.metadata import Distribution


def sbom() -> dict[str, Any]:
    """Return the bill of materials."""
    found: dict[str, Distribution] = {}
    needs: dict[str, list[str]] = {}
    left = {"bulkbind": [*requirements()]}
    while left:
        name, wanted = left.popitem()
        needs[name] = []
        for each in wanted:
            key = re.sub(r"[-_.]+", "-", each.name).lower()
            try:
                package = found.get(key) or distribution(key)
            except PackageNotFoundError:  # an extra
                continue
            needs[name].append(key)
            if key not in found:
                found[key] = package
                left[key] = [*_needed(package)]
    refs = {"bulkbind": "bulkbind"} | {key: _purl(key, it) for key, it in found.items()}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _component("application", "bulkbind", distribution("bulkbind"))},
        "components": [
            _component("library", key, package) | {"bom-ref": refs[key], "purl": refs[key]}
            for key, package in sorted(found.items())
        ],
        "dependencies": [
            {"ref": refs[key], "dependsOn": sorted({refs[other] for other in others})}
            for key, others in sorted(needs.items())
        ],
    }


def _needed(package: Distribution) -> list[Requirement]:
    all_of_them = map(Requirement, package.requires or [])
    return [each for each in all_of_them if not each.marker or each.marker.evaluate({"extra": ""})]


def _purl(name: str, package: Distribution) -> str:
    return f"pkg:pypi/{name}@{package.version}"


def _component(kind: str, name: str, package: Distribution) -> dict[str, Any]:
    told = package.metadata
    names = ("License-Expression", "License")
    licence = next((told[name] for name in names if name in told), "")
    if not licence or "\n" in licence:  # some put the whole text there
        classifiers = told.get_all("Classifier") or []
        licences = [text for text in classifiers if text.startswith("License ::")]
        licence = licences[0].rpartition(" :: ")[2] if licences else "not stated"
    return {
        "type": kind,
        "bom-ref": name,
        "name": name,
        "version": package.version,
        "licenses": [{"license": {"name": licence}}],
    }


if __name__ == "__main__":
    json.dump(sbom(), sys.stdout, indent=2)
    sys.stdout.write("\n")
