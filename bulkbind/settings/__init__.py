"""The settings: a frozen model in parts; precedence flag > environment > file > default.

A settings file is flat, except for `auth:` and `profiles:`; its keys are the names of the flags:
`concurrency: 64`. `configs/*.yaml` documents every key with unit and reason. Durations are written
`90s`, `50m`, `2h` or as a number of seconds.
"""

from bulkbind.settings.load import Loaded, Value, load, load_settings, read_config
from bulkbind.settings.model import (
    SECRETS,
    ApiSettings,
    AuthMode,
    AuthSettings,
    EndSettings,
    LogSettings,
    ManifestSettings,
    ReadbackSettings,
    SendSettings,
    Settings,
    duration_words,
    is_loopback,
    is_shared,
    normal_endpoint,
    parse_duration,
    proxy_parts,
)

__all__ = [
    "SECRETS",
    "ApiSettings",
    "AuthMode",
    "AuthSettings",
    "EndSettings",
    "Loaded",
    "LogSettings",
    "ManifestSettings",
    "ReadbackSettings",
    "SendSettings",
    "Settings",
    "Value",
    "duration_words",
    "is_loopback",
    "is_shared",
    "load",
    "load_settings",
    "normal_endpoint",
    "parse_duration",
    "proxy_parts",
    "read_config",
]
