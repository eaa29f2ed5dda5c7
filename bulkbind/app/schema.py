"""`schema`: JSON Schemas of manifests and settings files, for completion and checks in editors."""

from __future__ import annotations

from typing import Any

from bulkbind.manifest.formats import FORMATS
from bulkbind.manifest.rules import RULES, Rule
from bulkbind.model.fields import CODE, ROW_FIELDS, enumeration
from bulkbind.settings import SETTINGS, AuthSettings, Setting, Settings
from bulkbind.settings.model import PARTS, Part, Reading

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SWITCH = {"enum": [True, False, "on", "off", "yes", "no"]}
_DURATION = "; written 250ms, 90s, 50m, 2h, or as a number of seconds"


def manifest_schema() -> dict[str, Any]:
    """Return the schema of a YAML or JSON manifest."""
    fields = {
        name: _field(rule)
        for field, rule in zip(ROW_FIELDS, RULES, strict=True)
        for name in (field.name, field.api)
    }
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
                "anyOf": [{"required": [CODE.name]}, {"required": [CODE.api]}],
            },
        },
    }


def _field(rule: Rule) -> dict[str, Any]:
    """Return the schema of a field; in YAML unquoted digits are numbers, which are allowed."""
    # Values are trimmed, so the pattern allows blanks around them.
    pattern = rf"^\s*{rule.pattern.pattern}\s*$"
    kinds = ["string", "integer"] if rule.required else ["string", "integer", "null"]
    return {"description": rule.text, "type": kinds, "pattern": pattern}


def filled(text: str) -> str:
    """Return a setting's text with the names of the formats of manifests."""
    return text.format(formats=enumeration(*FORMATS))


def described(setting: Setting) -> str:
    """Return what a settings file says of a setting, where no flag stands beside it."""
    text = filled(setting.text)
    if setting.flag and "|" in setting.metavar:
        text = f"{setting.metavar}: {text}"
    return f"{text}; none: {setting.none}" if setting.none not in ("", "none") else text


def config_schema() -> dict[str, Any]:
    """Return the schema of a settings file; its keys are flat except `auth` and `profiles`."""
    parts = [type(getattr(Settings(), name)) for name in PARTS]
    properties = {key: value for part in parts for key, value in _properties(part).items()}
    properties |= _properties(Settings)
    return {
        "$schema": DIALECT,
        "title": "bulkbind settings",
        "description": "An empty value means the default. A flag wins over the environment, that "
        "over this file.",
        **_object(properties),
        "$defs": {part.__name__: _object(_properties(part)) for part in (AuthSettings, Reading)},
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _properties(part: type[Part]) -> dict[str, Any]:
    """Return the schema of each setting of a part that a settings file can hold."""
    above = "auth." if part is AuthSettings else ""
    forms = part.model_json_schema()["properties"]
    found: dict[str, Any] = {}
    for name, field in part.model_fields.items():
        if name == "format":
            forms[name]["anyOf"][0]["enum"] = list(FORMATS)
        declared = SETTINGS.get(above + name, field.json_schema_extra)
        if isinstance(declared, Setting) and declared.text:
            found[name] = _nullable(forms[name], described(declared))
    return found


def _nullable(found: dict[str, Any], text: str) -> dict[str, Any]:
    """Return a schema that also allows an empty value, and the spellings of settings files."""
    inner = {key: value for key, value in found.items() if key not in ("title", "description")}
    default = {"default": inner.pop("default")} if "default" in inner else {}
    forms = inner.pop("anyOf", [inner])
    if "$ref" in inner:
        default = {}  # each setting inside has its own
    if inner.get("type") == "boolean":
        forms = [_SWITCH]
    if {"string", "number"} <= {form.get("type") for form in forms}:
        text += _DURATION
    forms = [*(form for form in forms if form != {"type": "null"}), {"type": "null"}]
    return {"description": text, **default, "anyOf": forms}
