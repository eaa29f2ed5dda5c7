"""The settings as one frozen value of a few parts."""

from __future__ import annotations

import os
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
from bulkbind.settings.values import (
    checked_failures,
    checked_path,
    checked_proxy,
    duration_text,
    normal_endpoint,
    parse_duration,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Raw = dict[str, Any]
"""Settings as a file holds them: nested mappings."""

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
"""Settings of `auth:` that only the environment can give."""


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
    """None: what the other settings are about (see `koodrive.auth.choice`)."""
    token: SecretStr | None = None
    token_file: Path | None = None
    token_command: tuple[str, ...] = ()
    """A program and its arguments, run without a shell; its standard output is the token."""
    token_prefix: str = "Bearer "  # noqa: S105  # no secret
    """Stands before a token that has no scheme word of its own (`AT 3b91…` has one)."""
    refresh_token: SecretStr | None = None
    refresh_token_file: Path | None = None
    account: str | None = None
    """Logs in where there is no refresh token, or none that the server takes."""
    password: SecretStr | None = None
    password_file: Path | None = None
    agent_name: HeaderText = "bulkbind"
    """Sent as `x-hw-agentName` with a login."""
    session_path: UrlPath = "/koodrive/ose/v1/auth"
    """`/login` and `/refreshToken` stand below it."""
    app_id: HeaderText | None = None
    app_secret: SecretStr | None = None
    app_secret_file: Path | None = None
    users_file: Path | None = None
    """User -> token or refresh token, as CSV or YAML."""


class ApiSettings(Part):
    """What the destination is and how it speaks. Source: koodrive-api.md."""

    endpoint: Endpoint | None = None
    path: UrlPath = "/koodrive/ose/v1/backup/device"
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
    ca_file: Path | None = None
    """Certificates (PEM) of a private authority, trusted instead of the system's."""
    proxy: Proxy | None = None
    """For https endpoints; None: as `HTTPS_PROXY` and `NO_PROXY` say."""


class SendSettings(Part):
    """How much is sent, how often, how long."""

    concurrency: Annotated[int, Field(ge=1, le=1000)] = 32
    """Requests in flight at once."""
    rate: Annotated[float, Field(gt=0)] | None = None
    """A cap in requests per second; none: as fast as the gateway allows."""
    rate_scope: Literal["credential", "x-user-id"] = "credential"
    """Whose requests the server's limit counts together: those of the account that calls, or those
    for a user. In the latter case `rate` is per user, too."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 6
    """Attempts that cost (5xx, no answer) before a device has failed; 429 costs none."""
    backoff_base: Positive = 0.5
    backoff_cap: Positive = 30.0
    """Wait before attempt n + 1: rand(0, min(backoff_cap, backoff_base * 2**(n - 1)))."""
    max_wait: Duration = 120.0
    """The longest wait for the gateway's limit that is waited out; for a longer one the run stops
    and says when to go on."""
    deadline: Positive | None = None
    """The run stops, and can go on later, this long after its command began."""
    stall: Positive = 600.0
    """The run stops, and can go on later, once nothing was read, sent or settled for so long,
    unless it announced the pause itself (a limit, an endpoint away)."""
    max_failures: Failures | None = None
    """So many failed devices, or so many percent of those that have ended, stop the run."""
    grace: Duration = 20.0
    """After a first signal: how long requests in flight may still take."""


class ReadbackSettings(Part):
    """How doubt is settled."""

    readback: bool = True
    """False for servers without a list: what got no answer then stays in doubt."""
    readback_settle: Duration = 5.0
    """How long after a silent request its binding may still appear in the list."""


class Reading(Part):
    """How the rows of one kind of manifest are read; a profile is one of these with a name."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Field of ours -> the operator's header, `#n` for the n-th column, `@key`, or a path."""
    constants: dict[str, str] = Field(default_factory=dict)
    """Field of ours -> its value in every row, whatever the row says."""
    user_id: str | None = None
    """For rows without a user."""
    header: Names = ()
    """The columns of a table that has no header."""
    skip_rows: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Lines before the header; none: it is found by the names of its columns."""
    format: Literal["csv", "xlsx", "yaml", "jsonl", "json"] | None = None
    """None: told from the name, else from the content."""
    encoding: str | None = None
    """None: UTF-8, or UTF-16 where the file looks like it. A byte order mark wins over it."""
    sheet: str | None = None
    """The sheet of a workbook, by name or number; none: the first."""
    clean: Literal["none", "names"] = "none"
    """names: device_name and device_os are made to fit their rules."""


class ManifestSettings(Reading):
    """How manifests are read, and what is made of their rows."""

    on_duplicate: Literal["first", "error"] = "first"
    """The same device again, for the same user: the first row counts, or the others are invalid."""
    on_conflict: Literal["error", "first", "last"] = "error"
    """The same device for another user: both rows are invalid, or which one counts."""
    on_invalid: Literal["abort", "skip"] = "abort"
    rebind: bool = False
    """Send again what the ledger knows as bound."""
    refresh: bool = False
    """Look in the users' lists for what the ledger knows as bound; what has vanished fails."""
    rebind_missing: bool = False
    """As `refresh`, and what has vanished is bound again."""
    profile: str | None = None
    """The name of the profile in force."""
    profiles: Annotated[dict[str, Reading], PlainSerializer(_only_set)] = Field(
        default_factory=dict
    )
    """Name -> how such manifests are read; `profile` chooses one of them."""
    move: bool = False
    """Take devices from the users who have them by the ledger, and bind them anew."""


LogLevel = Literal["debug", "info", "warning", "error"]


class LogSettings(Part):
    """What is written about a run while it runs."""

    log_level: LogLevel | None = None
    """The least severe log line on standard error; None: warning on a terminal, which has the
    progress display, else info. In a log file: info, or debug if that is set."""
    log_format: Literal["console", "json"] | None = None
    """The form on standard error; None: console on a terminal, else JSON lines."""
    log_file: Path | None = None
    """JSON lines are appended to it, beside standard error."""
    log_devices: bool = False
    """A line for every settled device, instead of progress lines."""


FailOn = Literal["any", "new", "none"]
NotifyOn = Literal["failure", "change", "always"]


class EndSettings(Part):
    """What follows once a run has ended."""

    fail_on: FailOn = "any"
    """Which rows that need a person make exit code 1: any, only such that did not need one in the
    last finished run of the same manifests, or none."""
    notify_on: NotifyOn = "failure"
    """After which runs somebody is told, if there is a command or a webhook."""
    notify_command: str | None = None
    """Gets the summary as JSON on its standard input; split into words, run without a shell."""
    notify_url_file: Path | None = None
    """A file with the address of a webhook alone, readable by its owner only: it is a secret."""
    notify_timeout: Positive = 10.0
    """How long the command, or one try of the webhook, may take."""
    metrics_file: Path | None = None
    """A textfile for Prometheus' node exporter; needs the extra `metrics`."""


class Settings(Part):
    """Everything, as one value."""

    api: ApiSettings = ApiSettings()
    auth: AuthSettings = AuthSettings()
    send: SendSettings = SendSettings()
    doubt: ReadbackSettings = ReadbackSettings()
    manifest: ManifestSettings = ManifestSettings()
    log: LogSettings = LogSettings()
    end: EndSettings = EndSettings()
    wait: Duration = 0.0
    """How long to wait for a ledger that another run holds."""
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
        plain: Raw = self.model_dump(mode="json", exclude={"auth": set(SECRETS)})
        for part in PARTS:
            plain |= plain.pop(part)
        plain["auth"] |= {name: "set" if getattr(self.auth, name) else None for name in SECRETS}
        return plain


PARTS = ("api", "send", "doubt", "manifest", "log", "end")
"""Parts whose keys stand at the top of a settings file."""
PART_OF = {key: part for part in PARTS for key in type(getattr(Settings(), part)).model_fields}
KEYS = (*PART_OF, "auth", "wait", "ledger", "out")
"""The keys at the top of a settings file."""
