"""The settings: one frozen model in parts, and the types of its values."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
)

from bulkbind.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

ALL_PERCENT = 100
_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PROXY = re.compile(
    r"(?P<scheme>https?)://(?:(?P<login>[^/?#]*)@)?"
    r"(?P<host>\[[0-9a-f:.]+\]|[^\s/?#@:\[\]]+)(?::(?P<port>[0-9]{1,5}))?/?",
    re.IGNORECASE,
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", re.ASCII)


def parse_duration(value: object) -> float:
    """Return the seconds of `90s`, `50m`, `2h`, `1d`, `250ms` or a number. Raises: ValueError."""
    match = _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise ValueError("a duration is written like 90s, 50m, 2h or 250ms")
    return float(match[1]) * _UNITS_S[match[2]]


def duration_text(seconds: float) -> str:
    """Return a duration as written in a settings file: `500ms`, `90s`."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    return f"{seconds:g}s"


def duration_words(seconds: float) -> str:
    """Return a duration for display: `500ms`, `90s`, `50m`, `2h`, `30d`."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("m", 60.0)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return duration_text(seconds)


def checked_failures(value: str) -> str:
    """Return a number (`50`) or share (`5%`, `2.5%`) of failures, stripped. Raises: ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", value.strip(), re.ASCII)
    if match is None or (not match[2] and "." in match[1]) or float(match[1]) == 0:
        raise ValueError("a number of failures is written 50, or 5% of the devices that have ended")
    if match[2] and float(match[1]) >= ALL_PERCENT:
        raise ValueError("a share of failures is less than 100%")
    return f"{match[1]}{match[2]}"


def checked_path(value: str) -> str:
    """Return the path of a URL. Raises: ValueError if it is invalid."""
    if not re.fullmatch(r"/[!-~]*[!-.0-~]", value, re.ASCII):
        raise ValueError("a path begins with / and ends with something else, without blanks")
    return value


def checked_proxy(value: str) -> str:
    """Return `http://host[:port]` of a proxy. Raises: ValueError for anything else."""
    if "@" in value:
        raise ValueError("a password has no place there: set HTTPS_PROXY instead")
    address, _ = proxy_parts(value)
    if not address.startswith("http://"):
        raise ValueError("a proxy is http://host:port")
    return address


def proxy_parts(value: str) -> tuple[str, str]:
    """Return `scheme://host[:port]` of a proxy, and the text before its `@` as written.

    Raises: ValueError if it is no proxy; the message contains no part of *value*.
    """
    match = _PROXY.fullmatch(value.strip())
    host = _host(match["host"]) if match else None
    if match is None or host is None or not 0 < int(match["port"] or 1) < 1 << 16:
        raise ValueError("a proxy is http://host:port")
    port = f":{int(match['port'])}" if match["port"] else ""
    return f"{match['scheme'].lower()}://{host}{port}", match["login"] or ""


def _host(text: str) -> str | None:
    """Return a host as used for lookup; None if it is invalid."""
    try:
        if text.startswith("["):
            return f"[{ipaddress.IPv6Address(text[1:-1])}]"
        name = text.encode("idna").decode()
        if re.fullmatch(r"[0-9.]+", name):
            return str(ipaddress.IPv4Address(name))
    except ValueError:  # a UnicodeError is one
        return None
    return name if re.fullmatch(r"[a-zA-Z0-9._-]+", name) else None


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


def is_shared(path: Path, mode: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether anyone but its owner can read a file of this mode.

    Credentials passed by systemd (LoadCredential) are readable by the service's user only, although
    their access list shows as a group permission. Source: systemd.exec(5), "LoadCredential=".
    """
    if mode & stat.S_IROTH:
        return True
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    is_credential = bool(credentials) and path.absolute().is_relative_to(Path(credentials or "/"))
    return bool(mode & stat.S_IRGRP) and not is_credential


def is_loopback(host: str) -> bool:
    """Return whether *host* names this machine: `localhost`, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


Raw = dict[str, Any]
"""Settings as in a file: nested mappings."""

FIELDS = ("user_id", "machine_code", "device_name", "device_os")
"""The fields of a manifest, in the order of the report."""

Duration = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=str | float),
    PlainSerializer(duration_text, return_type=str, when_used="json"),
]
Positive = Annotated[Duration, Field(gt=0)]
Endpoint = Annotated[str, AfterValidator(normal_endpoint)]
UrlPath = Annotated[str, AfterValidator(checked_path)]
HeaderText = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
Proxy = Annotated[str, AfterValidator(checked_proxy)]
Failures = Annotated[str, AfterValidator(checked_failures)]


AuthMode = Literal["token", "session", "app", "users"]
SECRETS = ("token", "refresh_token", "password", "app_secret")
"""Settings of `auth:` that can only come from the environment."""


def _names(value: object) -> object:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _only_set(profiles: dict[str, BaseModel]) -> dict[str, Any]:
    return {
        name: profile.model_dump(mode="json", exclude_unset=True)
        for name, profile in profiles.items()
    }


Names = Annotated[tuple[str, ...], BeforeValidator(_names, json_schema_input_type=list[str] | str)]


class Part(BaseModel):
    """A part of the settings: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=False)


class AuthSettings(Part):
    """How requests are authorised. A settings file cannot hold the secrets themselves."""

    mode: AuthMode | None = None
    """How requests are authorised: token, session, app or users; none: the first of users, app,
    session, token that there is all for."""
    token: SecretStr | None = None
    token_file: Path | None = None
    """A file with the token alone, mode 0600; none: BULKBIND_TOKEN."""
    token_command: tuple[str, ...] = ()
    """A program and its arguments that print the token, run without a shell."""
    token_prefix: str = "Bearer "  # noqa: S105  # no secret
    """Stands before a token without a scheme word of its own (`AT 3b91…` has one)."""
    refresh_token: SecretStr | None = None
    refresh_token_file: Path | None = None
    """session: a file with the first refresh token, mode 0600; none: BULKBIND_REFRESH_TOKEN."""
    account: str | None = None
    """session: logs in where there is no refresh token, or none that the server takes."""
    password: SecretStr | None = None
    password_file: Path | None = None
    """session: a file with the account's password, mode 0600; none: BULKBIND_PASSWORD."""
    agent_name: HeaderText = "bulkbind"
    """session: sent as x-hw-agentName with a login, 1 to 128 visible ASCII characters."""
    session_path: UrlPath = "/koodrive/ose/v1/auth"
    """session: `/login` and `/refreshToken` stand below this path."""
    app_id: HeaderText | None = None
    """app: every request is signed in its name; none: BULKBIND_APP_ID."""
    app_secret: SecretStr | None = None
    app_secret_file: Path | None = None
    """app: a file with its secret, mode 0600; none: BULKBIND_APP_SECRET."""
    users_file: Path | None = None
    """users: user_id with token or refresh_token, CSV or YAML, mode 0600."""


class ApiSettings(Part):
    """What the destination is and how it speaks. Source: koodrive-api.md."""

    endpoint: Endpoint | None = None
    """https://host or https://host:port; http:// for this machine only, since a token would travel
    in clear."""
    path: UrlPath = "/koodrive/ose/v1/backup/device"
    """The path of the call that binds; `ose` is a service name in the API reference, so it may
    differ."""
    already_bound_codes: tuple[str, ...] = ()
    """Values of `code` that mean "already bound"; the reference names none."""
    not_bound_codes: tuple[str, ...] = ("13000309",)
    """Values of `code` that answer an unbind with "no such binding"; the reference names none for
    it, and 13000309 for a resource that is missing."""
    retryable_codes: tuple[str, ...] = ()
    """Values of `code` that may pass when sent again."""
    timeout: Positive = 30.0
    """From sending a bind to the end of its answer."""
    list_timeout: Positive = 120.0
    """The same for a user's list, which may hold 100,000 devices."""
    connect_timeout: Positive = 10.0
    """To a connection; an endpoint that is away is noticed so soon."""
    ca_file: Path | None = None
    """Certificates (PEM) of a private authority, trusted instead of the system's."""
    proxy: Proxy | None = None
    """http://host:port for an https endpoint; none: HTTPS_PROXY and NO_PROXY."""


class SendSettings(Part):
    """How much is sent, how often, how long."""

    concurrency: Annotated[int, Field(ge=1, le=1000)] = 32
    """Requests in flight at once, 1 to 1000."""
    rate: Annotated[float, Field(gt=0)] | None = None
    """A cap in requests per second; none: as fast as the gateway allows."""
    rate_scope: Literal["credential", "x-user-id"] = "credential"
    """Whose requests the server's limit counts together: credential (the caller's) or x-user-id
    (each user's; `rate` is then per user)."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 6
    """Attempts that cost (5xx, no answer) before a device has failed, 1 to 100; 429 costs none."""
    backoff_base: Positive = 0.5
    """The wait before attempt n + 1: rand(0, min(backoff_cap, backoff_base * 2**(n - 1)))."""
    backoff_cap: Positive = 30.0
    """The longest of these waits, so that an endpoint that is back is used soon."""
    max_wait: Duration = 120.0
    """A longer wait for the gateway's limit stops the run, with the time to go on."""
    deadline: Positive | None = None
    """The run stops, and can go on later, this long after its command began; none: no deadline."""
    stall: Positive = 600.0
    """The run stops, and can go on later, once nothing was read, sent or settled for so long (an
    announced pause is no stall)."""
    max_failures: Failures | None = None
    """Stop once so many devices failed (50), or so many percent of those that ended (5%); none:
    whatever fails."""
    grace: Duration = 20.0
    """After a first Ctrl-C: how long requests in flight may still take."""

    @property
    def is_per_user(self) -> bool:
        """Whether the server counts each user's requests apart."""
        return self.rate_scope == "x-user-id"


class ReadbackSettings(Part):
    """How doubt is settled."""

    readback: bool = True
    """What got no answer is looked for in its user's list before it is sent again; off for servers
    without a list: it then stays in doubt."""
    readback_settle: Duration = 5.0
    """How long after a silent request its binding may still appear in the list."""


class Reading(Part):
    """How the rows of one kind of manifest are read; a profile is one of these with a name."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Our field: your header, e.g. machine_code: Serial; #3 is the third column, in YAML and JSON
    data.vendor a path, @key the device's own key."""
    constants: dict[str, str] = Field(default_factory=dict)
    """Our field: one value for all rows, whatever they say."""
    user_id: str | None = None
    """For rows without a user."""
    header: Names = ()
    """Names of the columns of a table that has no header."""
    skip_rows: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Lines before the header, 0 to 1000; none: it is found by the names of its columns."""
    format: Literal["csv", "xlsx", "yaml", "jsonl", "json"] | None = None
    """csv, xlsx, yaml, jsonl or json; none: told from the name, else from the content."""
    encoding: str | None = None
    """Of text without a byte order mark, e.g. cp1252; none: UTF-8, or UTF-16 where it looks like
    it."""
    sheet: str | None = None
    """Of a workbook, by name or number; none: the first."""
    items: str | None = None
    """Where the list of devices stands in a document of YAML or JSON, e.g. results or data.items;
    none: it is found where it is the only one."""
    clean: Literal["none", "names"] = "none"
    """names: make device_name and device_os fit their rules; every change is listed."""


class ManifestSettings(Reading):
    """How manifests are read, and what is made of their rows."""

    on_duplicate: Literal["first", "error"] = "first"
    """The same device again for the same user: the first row counts; error: the others are invalid.
    """
    on_conflict: Literal["error", "first", "last"] = "error"
    """The same device for another user: error: both rows are invalid; first or last: which one
    counts."""
    on_invalid: Literal["abort", "skip"] = "abort"
    """abort: a row that breaks a rule keeps everything back; skip: only itself."""
    rebind: bool = False
    """Send again what the ledger knows as bound."""
    refresh: bool = False
    """Look in the users' lists for what the ledger knows as bound; what has vanished from there
    fails."""
    rebind_missing: bool = False
    """As `refresh`, but what has vanished is bound again."""
    profile: str | None = None
    """The profile in force, by its name in `profiles`."""
    profiles: Annotated[dict[str, Reading], PlainSerializer(_only_set)] = Field(
        default_factory=dict
    )
    """Name: how files of one kind are read, chosen with --profile NAME; keys as outside of them."""
    move: bool = False
    """Unbind a moved device from the user who has it by the ledger, then bind it."""

    @property
    def reads_lists(self) -> bool:
        """Whether the users' lists are read before anything is sent."""
        return self.refresh or self.rebind_missing


LogLevel = Literal["debug", "info", "warning", "error"]


class LogSettings(Part):
    """What is written about a run while it runs."""

    log_level: LogLevel | None = None
    """The least severe line on standard error: debug, info, warning, error; none: warning on a
    terminal, which has the live display, else info; in a log file: info, or debug if that is set.
    """
    log_format: Literal["console", "json"] | None = None
    """On standard error: console, or json (then nothing else is written there); none: console on a
    terminal, else json."""
    log_file: Path | None = None
    """JSON lines are appended to it, beside standard error."""
    log_devices: bool = False
    """A line for every settled device, instead of progress lines."""


FailOn = Literal["any", "new", "none"]
NotifyOn = Literal["failure", "change", "always"]


class EndSettings(Part):
    """What follows once a run has ended."""

    fail_on: FailOn = "any"
    """Which rows that need a person make exit code 1: any, new (not in need in the last finished
    run of the same manifests) or none."""
    notify_on: NotifyOn = "failure"
    """Who is named below is told after a failure, a change (since the last run), or always."""
    notify_command: str | None = None
    """Gets summary.json on standard input, e.g. /usr/local/bin/to-pager; split into words, no
    shell."""
    notify_url_file: Path | None = None
    """A file with a webhook's https address alone, mode 0600, since it is a secret
    (Slack-compatible)."""
    notify_timeout: Positive = 10.0
    """How long the command may take, or one try of the webhook."""
    metrics_file: Path | None = None
    """A textfile for Prometheus' node exporter; needs the extra `metrics`."""


class Settings(Part):
    """Everything, as one value."""

    api: ApiSettings = ApiSettings()
    auth: AuthSettings = AuthSettings()
    """How requests are authorised; secrets come from the environment, a file or a command."""
    send: SendSettings = SendSettings()
    doubt: ReadbackSettings = ReadbackSettings()
    manifest: ManifestSettings = ManifestSettings()
    log: LogSettings = LogSettings()
    end: EndSettings = EndSettings()
    wait: Duration = 0.0
    """How long to wait for a ledger that another run holds."""
    ledger: Path | None = None
    """Its file; none: $XDG_STATE_HOME/bulkbind/<host>.db."""
    out: Path | None = None
    """The report folder; none: bulkbind-report/<run id>."""

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
        """Return the ledger's file: as set, else one per endpoint in the user's state folder."""
        if self.ledger is not None:
            return self.ledger
        state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        host = urlsplit(self.endpoint()).netloc.replace(":", "_").replace("[", "").replace("]", "")
        return Path(state) / "bulkbind" / f"{host}.db"

    def public(self) -> Raw:
        """Return the settings as in a file, without secrets."""
        plain: Raw = self.model_dump(mode="json", exclude={"auth": set(SECRETS)})
        for part in PARTS:
            plain |= plain.pop(part)
        plain["auth"] |= {name: "set" if getattr(self.auth, name) else None for name in SECRETS}
        return plain


PARTS = ("api", "send", "doubt", "manifest", "log", "end")
"""Parts whose keys are at the top level of a settings file."""
PART_OF = {key: part for part in PARTS for key in type(getattr(Settings(), part)).model_fields}
KEYS = (*PART_OF, "auth", "wait", "ledger", "out")
"""The top-level keys of a settings file."""
