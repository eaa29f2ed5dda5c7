"""`schema`: JSON Schemas of manifests and settings files, for completion and checks in editors."""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import Any

from bulkbind.manifest.rules import RULES, Rule
from bulkbind.model.fields import CODE, ROW_FIELDS
from bulkbind.settings import Settings
from bulkbind.settings.model import PARTS, AuthSettings, Part, Reading

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SWITCH = {"enum": [True, False, "on", "off", "yes", "no"]}
_DURATION = " Written 250ms, 90s, 50m, 2h, or as a number of seconds."


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


def config_schema() -> dict[str, Any]:
    """Return the schema of a settings file; its keys are flat except `auth` and `profiles`."""
    parts = [type(getattr(Settings(), name)) for name in PARTS]
    properties = {key: value for part in parts for key, value in _properties(part).items()}
    properties |= {k: v for k, v in _properties(Settings).items() if k not in PARTS}
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
    """Return the schema of each setting, with its docstring as the description."""
    texts = setting_texts(part)
    found = part.model_json_schema()["properties"]
    return {n: _nullable(inner, texts[n]) for n, inner in found.items() if n in texts}


def setting_texts(part: type[Part]) -> dict[str, str]:
    """Return the docstring of each setting; secrets, which no settings file can hold, have none.

    They are read here from the source, since pydantic would do so at every start.
    """
    texts: dict[str, str] = {}
    for model in reversed(part.__mro__[: part.__mro__.index(Part)]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for setting, below in pairwise(tree.body):
            if (
                isinstance(setting, ast.AnnAssign)
                and isinstance(setting.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                texts[setting.target.id] = " ".join(str(below.value.value).split())
    return texts


def _nullable(found: dict[str, Any], text: str) -> dict[str, Any]:
    """Return a schema that also allows an empty value, and the spellings of settings files."""
    inner: dict[str, Any] = {key: value for key, value in found.items() if key != "title"}
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
