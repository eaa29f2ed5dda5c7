"""The settings: a frozen model in parts; precedence flag > environment > file > default.

A settings file is flat, except for `auth:` and `profiles:`; its keys are the names of the flags:
`concurrency: 64`. `SETTINGS` says of every key what it is, with unit and reason. Durations are
written `90s`, `50m`, `2h` or as a number of seconds.
"""

from bulkbind.settings.load import (
    FOUND,
    ConfigFile,
    Loaded,
    Value,
    find_config,
    load,
    load_settings,
    plain,
    read_config,
    shipped_names,
)
from bulkbind.settings.model import (
    PREFIX,
    SECRETS,
    SETTINGS,
    ApiSettings,
    AuthMode,
    AuthSettings,
    EndSettings,
    Group,
    LogSettings,
    ManifestSettings,
    ReadbackSettings,
    SendSettings,
    Setting,
    Settings,
    check_format,
    duration_words,
    is_loopback,
    ledger_name,
    normal_endpoint,
    parse_duration,
    proxy_parts,
    shared,
    split_address,
    variable_of,
)
