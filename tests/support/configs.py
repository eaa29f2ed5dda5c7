"""Write the files in `configs/` from the table of settings: `python -m tests.support.configs`."""

from __future__ import annotations

import json
import shutil

from bulkbind.app.schema import config_schema, described
from bulkbind.settings import SETTINGS, Setting, plain
from bulkbind.settings.model import PARTS
from tests.support.paths import ROOT

SHIPPED = ROOT / "bulkbind/settings/shipped"
"""The same settings files in the package, taken by name."""
COMMENT_AT = 26
HEADER = """\
# yaml-language-server: $schema=config.schema.json
# bulkbind settings for {purpose}.
# Use: bulkbind run fleet.csv --config {stem}
# A flag wins over an environment variable, that over this file, this file over the default.
# Durations: 250ms, 90s, 50m, 2h. An empty value means the default.
# Secrets have no place here: environment variables, or the files named below.
"""
PROFILES = """\
# How files of one kind are read, chosen with --profile NAME; keys as above.
profiles:
  google-play:              # Google Play's list of supported devices
    columns: {machine_code: Device, device_name: Marketing Name, device_os: Retail Branding}
    clean: names
  snipe-it:                 # Snipe-IT's asset export; hyphens in tags break the rule: take another column
    columns: {machine_code: Order Number, user_id: "Checked Out To: Username", device_name: Name}
    clean: names
  nornir:                   # inventories of Nornir and the like: the key is the device
    columns: {machine_code: "@key"}
    ignore_columns: [username]  # the login on the device
    clean: names
  thingpark:                # ThingPark's import sheet, title rows before its header
    columns: {machine_code: LoRaWAN DevEUI, device_name: Device name, device_os: Device profile ID}
    clean: names
"""  # noqa: E501  # a comment beside its key
OWN: dict[str, tuple[str, dict[str, object]]] = {
    "koodrive-cn.yaml": (
        "KooDrive, China site",
        {"endpoint": "https://cn.myhuaweicloud-koodrive.com"},
    ),
    "koodrive-intl.yaml": (
        "KooDrive, international site",
        {"endpoint": "https://intl.myhuaweicloud-koodrive.com"},
    ),
    "sandbox.yaml": (
        "the local sandbox (`bulkbind sandbox`)",
        {
            "endpoint": "http://127.0.0.1:8765",
            "already_bound_codes": ["13000901"],
            "locked_codes": ["13000902"],
            "readback_settle": "1s",
        },
    ),
}
"""File: what it is for, and its values that are not the default."""


def config_files() -> dict[str, str]:
    """Return the text of each file in `configs/` by its name."""
    schema = json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"
    return {name: _config(name) for name in OWN} | {"config.schema.json": schema}


def _config(name: str) -> str:
    purpose, own = OWN[name]
    blocks = [HEADER.format(purpose=purpose, stem=name.removesuffix(".yaml"))]
    for part in ("api", "auth", *PARTS[1:], ""):
        held = [s for s in SETTINGS.values() if s.part == part and s.text and s.name != "profiles"]
        lines = [_line(setting, own.get(setting.key, setting.default)) for setting in held]
        blocks.append(("auth:\n" if part == "auth" else "") + "".join(lines))
        if part == "manifest":
            blocks.append(PROFILES)
    return "\n".join(blocks)


def _line(setting: Setting, value: object) -> str:
    indent = "  " if setting.part == "auth" else ""
    shown = f"{indent}{setting.name}:{plain(value)}"
    return f"{shown:<{COMMENT_AT - 2}}  # {described(setting)}\n"


if __name__ == "__main__":
    for name, text in config_files().items():
        (ROOT / "configs" / name).write_text(text, encoding="utf-8")
    SHIPPED.mkdir(exist_ok=True)
    for name in OWN:
        shutil.copyfile(ROOT / "configs" / name, SHIPPED / name)
