"""The settings: one frozen model of a few parts, merged flag > environment > file > default.

The parts are ours; a settings file is flat, but for `auth:`, and its keys are the names of the
flags: `concurrency: 64`. Every key stands in `configs/*.yaml` with its unit and reason. A duration
is written `90s`, `50m`, `2h` or as a number of seconds.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from bulkbind.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

Raw = dict[str, Any]
"""Settings before they are checked: nested mappings of text."""

FIELDS = ("user_id", "machine_code", "device_name", "device_os")
"""The fields of a manifest, in the order of the report."""

_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", re.ASCII)


def parse_duration(value: object) -> float:
    """Return the seconds of `90s`, `50m`, `2h`, `1d`, `250ms` or a bare number.

    Raises: ValueError if *value* is none of these.
    """
    match = _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise ValueError("a duration is written like 90s, 50m, 2h or 250ms")
    return float(match[1]) * _UNITS_S[match[2]]


def normal_endpoint(value: str) -> str:
    """Return `scheme://host[:port]` in lower case without a final slash.

    Raises: ValueError for anything else, and for http:// to a host that is not this machine.
    """
    parts = urlsplit(value.strip())
    host = parts.hostname or ""
    if (
        parts.scheme.lower() not in ("https", "http")
        or not re.fullmatch(r"[a-z0-9._:-]+", host, re.ASCII)
        or (parts.port is None and parts.netloc.endswith(":"))
    ):
        raise ValueError("an endpoint is https://host or https://host:port")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("an endpoint is scheme://host[:port] alone; the path is a setting, `path`")
    if parts.scheme.lower() == "http" and not is_loopback(host):
        raise ValueError("http:// is for loopback only, since a token would travel in clear")
    return f"{parts.scheme}://{parts.netloc}".lower()


def is_loopback(host: str) -> bool:
    """Return whether *host* names this machine: `localhost`, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


Duration = Annotated[float, BeforeValidator(parse_duration)]
Positive = Annotated[Duration, Field(gt=0)]
Endpoint = Annotated[str, AfterValidator(normal_endpoint)]


class Part(BaseModel):
    """A part of the settings: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=False)


class AuthSettings(Part):
    """How requests are authorised."""

    token: SecretStr | None = None
    """From `BULKBIND_TOKEN` only; a settings file cannot hold it."""
    token_file: Path | None = None
    """A file with the token alone, readable by its owner only."""
    token_prefix: str = "Bearer "  # noqa: S105  # no secret
    """Stands before a token that has no scheme word of its own (`AT 3b91…` has one)."""


class ApiSettings(Part):
    """What the destination is and how it speaks. Source: koodrive-api.md."""

    endpoint: Endpoint | None = None
    path: Annotated[str, Field(pattern=r"^/[!-~]*[^/]$")] = "/koodrive/ose/v1/backup/device"
    """`ose` is a service name in the reference, so it may differ."""
    already_bound_codes: tuple[str, ...] = ()
    """Values of `code` that mean "already bound"; the reference names none."""
    retryable_codes: tuple[str, ...] = ()
    """Values of `code` that may pass when sent again."""
    timeout: Positive = 30.0
    """From sending a bind to the end of its answer."""
    list_timeout: Positive = 120.0
    """The same for a user's list, which may hold 100,000 devices."""
    connect_timeout: Positive = 10.0


class SendSettings(Part):
    """How much is sent, how often, how long."""

    concurrency: Annotated[int, Field(ge=1, le=1000)] = 32
    """Requests in flight at once."""
    rate: Annotated[float, Field(gt=0)] | None = None
    """A cap in requests per second; none: as fast as the gateway allows."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 6
    """Attempts that cost (5xx, no answer) before a device has failed; 429 costs none."""
    backoff_base: Positive = 0.5
    backoff_cap: Positive = 30.0
    """Wait before attempt n + 1: rand(0, min(backoff_cap, backoff_base * 2**(n - 1)))."""
    deadline: Positive | None = None
    """The run stops, and can go on later, after this long."""
    grace: Duration = 20.0
    """After a first signal: how long requests in flight may still take."""


class ReadbackSettings(Part):
    """How doubt is settled."""

    readback: bool = True
    """False for servers without a list: what got no answer then stays in doubt."""
    readback_settle: Duration = 5.0
    """How long after a silent request its binding may still appear in the list."""


class ManifestSettings(Part):
    """How manifests are read."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Field of ours -> the operator's header."""
    user_id: str | None = None
    """For rows without a user."""
    on_invalid: Literal["abort", "skip"] = "abort"
    rebind: bool = False
    """Send again what the ledger knows as bound."""


class Settings(Part):
    """Everything, as one value."""

    api: ApiSettings = ApiSettings()
    auth: AuthSettings = AuthSettings()
    send: SendSettings = SendSettings()
    doubt: ReadbackSettings = ReadbackSettings()
    manifest: ManifestSettings = ManifestSettings()
    ledger: Path | None = None
    """None: `$XDG_STATE_HOME/bulkbind/<host>.db`."""
    out: Path | None = None
    """The report folder; None: `bulkbind-report/<run id>`."""

    def endpoint(self) -> str:
        """Return the endpoint. Raises: UsageError if none is set."""
        if self.api.endpoint is None:
            raise UsageError(
                "no endpoint is set",
                hint="give --endpoint https://…, BULKBIND_ENDPOINT, or `endpoint:` in a "
                "settings file such as configs/koodrive-intl.yaml; `bulkbind sandbox` starts a "
                "local one to try",
            )
        return self.api.endpoint

    def ledger_path(self, environ: Mapping[str, str] = os.environ) -> Path:
        """Return the ledger's file: as set, or one per endpoint in the user's state folder."""
        if self.ledger is not None:
            return self.ledger
        state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        host = urlsplit(self.endpoint()).netloc.replace(":", "_").replace("[", "").replace("]", "")
        return Path(state) / "bulkbind" / f"{host}.db"

    def public(self) -> Raw:
        """Return the settings as a file would hold them, without secrets."""
        plain: Raw = self.model_dump(mode="json", exclude={"auth": {"token"}})
        for part in _PARTS:
            plain |= plain.pop(part)
        plain["auth"]["token"] = "set" if self.auth.token else None
        return plain


_PARTS = ("api", "send", "doubt", "manifest")
"""Parts whose keys stand at the top of a settings file."""
_PART_OF = {key: part for part in _PARTS for key in type(getattr(Settings(), part)).model_fields}
_KEYS = (*_PART_OF, "auth", "ledger", "out")


def load_settings(
    config: Path | None, given: Mapping[str, Any], origins: Mapping[str, str] | None = None
) -> Settings:
    """Merge a settings file with what flags and environment gave, and check it all.

    Args:
        config: A YAML file, or None.
        given: `{"concurrency": 64, "auth.token": "…", …}`; None values count as not given.
        origins: Key -> where a given value came from (`--concurrency`, `BULKBIND_RATE`).

    Raises: UsageError that names every wrong key with its value and where it came from.
    """
    raw = read_config(config) if config else {}
    for key, value in given.items():
        if value is not None:
            _put(raw, key, value)
    unknown = [_unknown(key, config) for key in raw if key not in _KEYS]
    try:
        settings = Settings.model_validate(_in_parts(raw))
    except ValidationError as error:
        known = dict(origins or {})
        wrong = [_explain(item, known, config) for item in error.errors()]
    else:
        wrong = []
        if not unknown:
            return settings
    raise UsageError(
        "\n".join(unknown + wrong), hint="`bulkbind run --help` shows the keys as flags"
    )


def _in_parts(raw: Raw) -> Raw:
    """Return the keys of a settings file sorted into the parts of the model."""
    parts: Raw = {part: {} for part in _PARTS}
    for key, value in raw.items():
        if key in _PART_OF:
            parts[_PART_OF[key]][key] = value
        elif key in _KEYS:
            parts[key] = value
    return parts


def _unknown(key: str, config: Path | None) -> str:
    close = difflib.get_close_matches(key, _KEYS, n=1)
    guess = f"; did you mean `{close[0]}`?" if close else ""
    return f"unknown setting `{key}` (from {config}){guess}"


class _Texts(yaml.CBaseLoader):
    """Every scalar as text; a plain one of nothing means "not set"."""

    def construct_scalar(self, node: yaml.ScalarNode) -> str | None:  # type: ignore[override]  # None is new
        """Return the text, or None where nothing was written."""
        if node.value == "" and not node.style:
            return None
        return str(node.value)


def read_config(path: Path) -> Raw:
    """Return a settings file as nested text. Raises: UsageError if it cannot be read or parsed."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"settings file {path} cannot be read: {error}") from error
    try:
        # BaseLoader keeps every scalar as text: `no`, `0123` and `12:34` stay what they are.
        raw = yaml.load(text, Loader=_Texts)  # noqa: S506  # it makes text only
    except yaml.YAMLError as error:
        raise UsageError(f"settings file {path} is not YAML: {error}") from error
    if raw in (None, ""):
        return {}
    if not isinstance(raw, dict):
        raise UsageError(f"settings file {path} must be a mapping of keys")
    if isinstance(raw.get("auth"), dict) and "token" in raw["auth"]:
        raise UsageError(
            f"settings file {path} holds `auth.token`: a secret has no place there",
            hint="use BULKBIND_TOKEN, or `auth: token_file:` with a file only you can read",
        )
    return _without_unset(raw)


def _without_unset(raw: Raw) -> Raw:
    """Leave out keys with nothing behind them: they mean the default."""
    kept = {k: _without_unset(v) if isinstance(v, dict) else v for k, v in raw.items()}
    return {key: value for key, value in kept.items() if value is not None}


def _put(raw: Raw, dotted: str, value: object) -> None:
    """Set a key over what a file says; a mapping is merged into the file's."""
    *parents, leaf = dotted.split(".")
    for parent in parents:
        inner = raw.setdefault(parent, {})
        if not isinstance(inner, dict):
            return  # the check names what stands there instead
        raw = inner
    if isinstance(value, dict) and isinstance(raw.get(leaf), dict):
        value = {**raw[leaf], **value}
    raw[leaf] = value


def _explain(
    item: Any,  # noqa: ANN401  # pydantic's own shape
    origins: Mapping[str, str],
    config: Path | None,
) -> str:  # pydantic's own shape
    key = ".".join(str(part) for part in item["loc"] if part not in _PARTS)
    origin = origins.get(key) or (str(config) if config else "a default")
    message = str(item["msg"]).removeprefix("Value error, ")
    hidden = key == "auth.token" or (key == "endpoint" and "@" in str(item["input"]))
    shown = "" if hidden else f": {item['input']!r}"
    if item["type"] == "extra_forbidden":
        return f"unknown setting `{key}` (from {origin})"
    return f"setting `{key}`{shown} (from {origin}): {message}"
