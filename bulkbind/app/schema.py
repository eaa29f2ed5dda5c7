"""`schema`: JSON Schemas of manifests and settings files, by which editors complete and check."""

from __future__ import annotations

from typing import Any

from bulkbind.manifest.rules import RULES, Rule
from bulkbind.settings import Settings
from bulkbind.settings.model import PARTS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SPELLINGS = {
    "user_id": "userId",
    "machine_code": "machineCode",
    "device_name": "deviceName",
    "device_os": "deviceOS",
}
_SWITCH = {"enum": [True, False, "on", "off", "yes", "no"]}
_SECRETS = ("token",)


def manifest_schema() -> dict[str, Any]:
    """Return the schema of a YAML or JSON manifest."""
    fields = {name: _field(rule) for rule in RULES for name in (rule.field, _SPELLINGS[rule.field])}
    devices = {"type": "array", "items": {"$ref": "#/$defs/device"}}
    return {
        "$schema": DIALECT,
        "title": "bulkbind manifest",
        "description": "Devices and the users who get them. Other keys are kept and not sent.",
        "anyOf": [
            devices,
            {
                "type": "object",
                "properties": {"defaults": {"$ref": "#/$defs/fields"}, "devices": devices},
                "required": ["devices"],
            },
        ],
        "$defs": {
            "fields": {"type": "object", "properties": fields},
            "device": {
                "$ref": "#/$defs/fields",
                "anyOf": [{"required": ["machine_code"]}, {"required": ["machineCode"]}],
            },
        },
    }


def _field(rule: Rule) -> dict[str, Any]:
    """Return the schema of a field; YAML takes unquoted digits for numbers, and they are fine."""
    # What stands around a value is trimmed, so the pattern allows blanks there.
    pattern = rf"^\s*{rule.pattern.pattern}\s*$"
    kinds = ["string", "integer"] if rule.required else ["string", "integer", "null"]
    return {"description": rule.text, "type": kinds, "pattern": pattern}


def config_schema() -> dict[str, Any]:
    """Return the schema of a settings file, whose keys are flat but for `auth` and `profiles`."""
    model = Settings.model_json_schema()
    definitions = model["$defs"]
    properties: dict[str, Any] = {}
    for name, found in model["properties"].items():
        part = found.get("$ref", "").rpartition("/")[2]
        inner = definitions[part]["properties"] if part else {name: found}
        properties |= inner if name in PARTS else {name: found}
    kept = {"AuthSettings", "Reading"}
    definitions = {name: _object(found) for name, found in definitions.items() if name in kept}
    return {
        "$schema": DIALECT,
        "title": "bulkbind settings",
        "description": "An empty value means the default. A flag wins over the environment, that "
        "over this file.",
        **_object({"properties": properties}),
        "$defs": definitions,
    }


def _object(found: dict[str, Any]) -> dict[str, Any]:
    properties = {
        name: _nullable(inner)
        for name, inner in found["properties"].items()
        if name not in _SECRETS
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _nullable(found: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that allows an empty value, too, and the forms a settings file knows."""
    inner: dict[str, Any] = {key: value for key, value in found.items() if key != "title"}
    told = {"default": inner.pop("default")} if "default" in inner else {}
    forms = inner.pop("anyOf", [inner])
    if inner.get("type") == "boolean":
        forms = [_SWITCH]
    return {**told, "anyOf": [*(f for f in forms if f != {"type": "null"}), {"type": "null"}]}
