"""The settings: one frozen model in parts, and the types of its values.

A setting is declared once. Its option, its variable, its help, its description in the JSON Schema
and its comment in `configs/` follow from that.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
)

from bulkbind.clock import UNIT_NAMES, UNITS_S
from bulkbind.errors import UsageError
from bulkbind.model.fields import CLEANED, FIELDS, enumeration
from bulkbind.redaction import HIDDEN, redacted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pydantic.fields import FieldInfo

ALL_PERCENT = 100
LONGEST_SCOPE = 200
"""Characters of the name of a scope."""
LONGEST_S = 36_500 * UNITS_S["day"]
"""Of a duration: what is longer is no date any more."""
MOST_PER_S = 1_000_000
"""Requests per second, far above what one machine can send."""
MOST_WORKERS = 64
_WRITTEN_S = {"": 1.0, "ms": 0.001} | {unit[0]: seconds for unit, seconds in UNITS_S.items()}
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
    seconds = float(match[1]) * _WRITTEN_S[match[2]]
    if seconds > LONGEST_S:
        raise ValueError(f"a duration is {duration_words(LONGEST_S)} at most")
    return seconds


def duration_text(seconds: float) -> str:
    """Return a duration as written in a settings file: `500ms`, `90s`."""
    return f"{_digits(seconds * 1000)}ms" if 0 < seconds < 1 else f"{_digits(seconds)}s"


def _digits(number: float) -> str:
    """Return a number with all its digits, and without an exponent."""
    return format(Decimal(str(number)).normalize(), "f")


def duration_words(seconds: float) -> str:
    """Return a duration for display: `500ms`, `90s`, `50m`, `2h`, `30d`."""
    for unit, size in reversed(UNITS_S.items()):
        if seconds >= size > 1 and seconds % size == 0:
            return f"{_digits(seconds / size)}{unit[0]}"
    return duration_text(seconds)


def checked_failures(value: str) -> str:
    """Return a number (`50`) or share (`5%`, `2.5%`) of failures, stripped. Raises: ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", value.strip(), re.ASCII)
    if match is None or (not match[2] and "." in match[1]) or float(match[1]) == 0:
        raise ValueError("a number of failures is written 50, or 5% of the devices that have ended")
    if match[2] and float(match[1]) >= ALL_PERCENT:
        raise ValueError("a share of failures is less than 100%")
    return f"{match[1]}{match[2]}"


def checked_unbinds(value: str) -> str:
    """Return a number (`50`) or share (`5%`) of devices to unbind, stripped. Raises: ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", value.strip(), re.ASCII)
    if match is None or (not match[2] and "." in match[1]):
        raise ValueError("a number of devices is written 50, or 5% of those bound in the scope")
    if match[2] and float(match[1]) > ALL_PERCENT:
        raise ValueError("a share of devices is at most 100%")
    return f"{match[1]}{match[2]}"


def checked_scope(value: str) -> str:
    """Return the name of a scope, stripped. Raises: ValueError if it is empty or not printable."""
    name = value.strip()
    if not name or not name.isprintable() or len(name) > LONGEST_SCOPE:
        raise ValueError(f"a scope's name has 1 to {LONGEST_SCOPE} printable characters")
    return name


def parse_share(value: object) -> float:
    """Return the share (0.8) of `80%` or of a number. Raises: ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", str(value).strip(), re.ASCII)
    if match is None:
        raise ValueError("a share is written 80% or 0.8")
    return float(match[1]) / (ALL_PERCENT if match[2] else 1)


def parse_rate(value: object) -> float:
    """Return the requests per second of `5/s`, `40/min` or a number. Raises: ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:/\s*([a-z]+))?", str(value).strip(), re.ASCII)
    unit = UNIT_NAMES.get(match[2] or "s") if match else None
    if match is None or unit is None:
        raise ValueError("a rate is written 5/s, 40/min, or 5, which is per second")
    return float(match[1]) / UNITS_S[unit]


def parse_workers(value: object) -> int | Literal["auto"]:
    """Return the number of workers of `4` or a number, or `auto`. Raises: ValueError."""
    text = str(value).strip()
    if text == "auto":
        return "auto"
    if not re.fullmatch(r"[0-9]{1,3}", text, re.ASCII) or not 1 <= int(text) <= MOST_WORKERS:
        raise ValueError(f"workers are a number from 1 to {MOST_WORKERS}, or auto")
    return int(text)


def checked_cluster(value: str) -> str:
    """Return an address of a cluster as it is. Raises: ValueError."""
    parts = urlsplit(value)
    is_own = re.fullmatch(r"local:[0-9]{1,2}", value, re.ASCII) is not None
    if is_own and 1 <= int(value.removeprefix("local:")) <= MOST_WORKERS:
        return value
    if parts.scheme in {"tcp", "tls"} and parts.hostname and parts.port and not parts.path:
        return value
    raise ValueError(
        f"a cluster is tls://host:port, tcp://127.0.0.1:port, or local:1 to local:{MOST_WORKERS}"
    )


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
            return None if "%" in text else f"[{ipaddress.IPv6Address(text[1:-1])}]"
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
    parts, host = split_address(value.strip())
    if host is None or not value.isascii() or (parts.port is None and parts.netloc.endswith(":")):
        raise ValueError("an endpoint is https://host or https://host:port")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("an endpoint is scheme://host[:port] alone; the path is a setting, `path`")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("http:// is for loopback only, since a token would travel in clear")
    return f"{parts.scheme}://{parts.netloc}".lower()


_IN_FILE_NAMES = str.maketrans({":": "_", "[": "", "]": ""})
_PORTS = {"http": 80, "https": 443}


def ledger_name(endpoint: str) -> str:
    """Return what tells an endpoint from others in a file name: `https-host-443`."""
    parts = urlsplit(endpoint)
    host = (parts.hostname or "").translate(_IN_FILE_NAMES)
    return f"{parts.scheme}-{host}-{parts.port or _PORTS.get(parts.scheme, 0)}"


def split_address(value: str) -> tuple[SplitResult, str | None]:
    """Return the parts of an address, and its host as used for lookup; None if that is invalid.

    Raises: ValueError if it cannot be split. Blanks and control characters, which `urlsplit` takes
    out, make the host invalid, and so does another scheme than http and https.
    """
    parts = urlsplit(value)
    host = parts.hostname or ""
    is_fit = parts.scheme in ("https", "http") and value.isprintable() and " " not in value
    parts.port  # noqa: B018  # raises for a number that is none
    return parts, _host(f"[{host}]" if ":" in host else host) if is_fit and host else None


def shared(path: Path, mode: int, environ: Mapping[str, str] = os.environ) -> str:
    """Return what others than its owner can do with a file of this mode; empty: nothing.

    That is `written`, whoever has written the secret then, or `read`. Credentials passed by systemd
    (LoadCredential) are readable by the service's user only, although their access list shows as a
    group permission. Source: systemd.exec(5), "LoadCredential=".
    """
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "written"
    if mode & stat.S_IROTH:
        return "read"
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    is_credential = bool(credentials) and path.absolute().is_relative_to(Path(credentials or "/"))
    return "read" if mode & stat.S_IRGRP and not is_credential else ""


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


class Shown(str):
    """How values of a type are called in the help."""

    __slots__ = ()


class Program(Shown):
    """A command, of which only the program is shown: its arguments may hold secrets."""

    __slots__ = ()


class Repeated(Shown):
    """The same, for options that are given again for each value."""

    __slots__ = ()


def check_format(name: str, formats: Collection[str]) -> None:
    """Raises: ValueError if a format of manifests is none of *formats*."""
    if name not in formats:
        *most, last = map(repr, formats)
        raise ValueError(f"Input should be {', '.join(most)} or {last}")


def _format(name: str, info: ValidationInfo) -> str:
    if info.context is not None:
        check_format(name, info.context["formats"])
    return name


def _no_address(value: object) -> object:
    if ":/" in str(value):
        raise ValueError("it names a file that holds the address, which is a secret")
    return value


def _names(value: object) -> object:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _alone(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _only_set(profiles: dict[str, BaseModel]) -> dict[str, Any]:
    return {
        name: profile.model_dump(mode="json", exclude_unset=True)
        for name, profile in profiles.items()
    }


Duration = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=str | float),
    PlainSerializer(duration_text, return_type=str, when_used="json"),
    Shown("TIME"),
]
Positive = Annotated[Duration, Field(gt=0)]
Count = Annotated[int, Shown("N")]
Endpoint = Annotated[str, AfterValidator(normal_endpoint), Shown("URL")]
UrlPath = Annotated[str, AfterValidator(checked_path)]
HeaderText = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
Proxy = Annotated[str, AfterValidator(checked_proxy), Shown("URL")]
Share = Annotated[
    float, BeforeValidator(parse_share, json_schema_input_type=str | float), Shown("N%")
]
Rate = Annotated[
    float, BeforeValidator(parse_rate, json_schema_input_type=str | float), Shown("N/s")
]
Workers = Annotated[
    Annotated[int, Field(ge=1, le=MOST_WORKERS)] | Literal["auto"],
    BeforeValidator(parse_workers),
    Shown("N|auto"),
]
Cluster = Annotated[str, AfterValidator(checked_cluster), Shown("ADDRESS")]
Failures = Annotated[str, AfterValidator(checked_failures), Shown("N|N%")]
Unbinds = Annotated[str, AfterValidator(checked_unbinds), Shown("N|N%")]
Scope = Annotated[str, AfterValidator(checked_scope), Shown("NAME")]
File = Annotated[Path, Shown("FILE")]
AddressFile = Annotated[Path, BeforeValidator(_no_address)]
Command = Annotated[str, Program("COMMAND")]
Words = Annotated[tuple[str, ...], Program("COMMAND")]
Name = Annotated[str, Shown("NAME")]
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(_names, json_schema_input_type=list[str] | str),
    Shown("NAME,…"),
]
Titles = Annotated[
    tuple[str, ...],
    BeforeValidator(_alone, json_schema_input_type=list[str] | str),
    Repeated("COLUMN"),
]
"""Names that may hold commas: one, or a list."""
Conditions = Annotated[
    tuple[str, ...],
    BeforeValidator(_alone, json_schema_input_type=list[str] | str),
    Repeated("CONDITION"),
]
"""Conditions on columns: one, or a list."""
AuthMode = Literal["token", "session", "app", "users"]
LogLevel = Literal["debug", "info", "warning", "error"]
FailOn = Literal["any", "new", "none"]
NotifyOn = Literal["failure", "change", "always"]

PREFIX = "BULKBIND_"


def variable_of(name: str) -> str:
    """Return the environment variable of a flag or a secret: `BULKBIND_MAX_WAIT`."""
    return PREFIX + name.removeprefix("--").replace("-", "_").upper()


class Group(Enum):
    """Settings that a command takes as options together; `config` takes them all, in this order."""

    MANIFEST = "how manifests are read"
    REPEAT = "what becomes of a device that is there twice"
    LEDGER = "the endpoint and its ledger"
    OUT = "the report folder"
    NETWORK = "how the endpoint is reached"
    PACE = "how fast requests leave"
    WORKERS = "which processes send"
    SENDING = "how long, and when to stop"
    STAGING = "which rows are sent"
    END = "what follows the end of a run"
    LOG = "log lines"

    def option(self, text: str, default: Any = None, **more: str) -> Any:  # noqa: ANN401  # see `setting`
        """Declare a setting with an option; *more*: `none`, and `flag` if it has another name."""
        return setting(text, default, group=self, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: what `setting` declares, and what follows from its place and its type."""

    text: str
    """What it is, with unit, range and reason; empty for secrets, which no file can hold.
    `{formats}` stands for the names of the manifests' formats, which only their package knows."""
    none: str = ""
    """What holds while it is not set; empty: `text` says it."""
    group: Group | None = None
    """None: no option gives it."""
    flag: str = ""
    variable: str = ""
    """Follows from a flag, and for secrets; empty: no environment variable sets it."""
    part: str = ""
    """The field of `Settings` that holds it; empty: `Settings` itself."""
    name: str = ""
    default: Any = None
    """As in a settings file."""
    kinds: tuple[Any, ...] = ()
    """Its type, and the types, choices and annotations in it."""

    def __call__(self, schema: dict[str, Any]) -> None:
        """Add the text to a JSON Schema; pydantic calls it."""
        schema["description"] = self.text

    @property
    def key(self) -> str:
        """As in a settings file; dotted below `auth:`."""
        return f"auth.{self.name}" if self.part == "auth" else self.name

    def public(self, value: Any) -> Any:  # noqa: ANN401  # of any setting
        """Return a value of it, as in a settings file, without secrets."""
        if any(isinstance(kind, Program) for kind in self.kinds) and value:
            program, *arguments = value.split() if isinstance(value, str) else value
            return f"{program} {HIDDEN}" if arguments else program
        return redacted(value) if isinstance(value, str) else value

    @property
    def metavar(self) -> str:
        """How its value is called in the help, such as `TIME` or `abort|skip`."""
        shown = [kind for kind in self.kinds if isinstance(kind, Shown)]
        return shown[0] if shown else "|".join(k for k in self.kinds if isinstance(k, str))

    def placed(self, part: str, name: str, field: FieldInfo, default: object) -> Setting:
        """Return it with what follows from its place."""
        kinds = (*_kinds(field.annotation), *field.metadata)
        flag = self.flag or ("--" + name.replace("_", "-") if self.group else "")
        variable = variable_of(flag or name) if flag or SecretStr in kinds else self.variable
        where: dict[str, Any] = {"part": part, "name": name, "default": default, "kinds": kinds}
        return replace(self, **where, flag=flag, variable=variable)


def _kinds(annotation: object) -> Iterator[object]:
    yield get_origin(annotation) or annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)


def setting(text: str, default: Any = None, **more: Any) -> Any:  # noqa: ANN401  # as pydantic's Field
    """Declare a setting; *more*: see `Setting`. A *default* of `dict` is an empty one."""
    given = {"default_factory": dict} if default is dict else {"default": default}
    return Field(**given, json_schema_extra=Setting(text=text, **more))


class Part(BaseModel):
    """A part of the settings: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=False)


class AuthSettings(Part):
    """How requests are authorised. A settings file cannot hold the secrets themselves."""

    mode: AuthMode | None = setting(
        "how requests are authorised: token, session, app or users",
        none="the first of users, app, session, token that there is all for",
    )
    token: SecretStr | None = setting("")
    token_file: Path | None = setting(
        "a file with the token alone, mode 0600", none=variable_of("token")
    )
    token_command: Words = setting(
        "a program and its arguments that print the token, run without a shell", ()
    )
    token_prefix: str = setting(
        "stands before a token without a scheme word of its own (`AT 3b91…` has one)", "Bearer "
    )
    refresh_token: SecretStr | None = setting("")
    refresh_token_file: Path | None = setting(
        "session: a file with the first refresh token, mode 0600", none=variable_of("refresh_token")
    )
    account: str | None = setting(
        "session: logs in where there is no refresh token, or none that the server takes"
    )
    password: SecretStr | None = setting("")
    password_file: Path | None = setting(
        "session: a file with the account's password, mode 0600", none=variable_of("password")
    )
    agent_name: HeaderText = setting(
        "session: sent as x-hw-agentName with a login, 1 to 128 visible ASCII characters",
        "bulkbind",
    )
    session_path: UrlPath = setting(
        "session: `/login` and `/refreshToken` stand below this path", "/koodrive/ose/v1/auth"
    )
    app_id: HeaderText | None = setting(
        "app: every request is signed in its name",
        none=variable_of("app_id"),
        variable=variable_of("app_id"),
    )
    app_secret: SecretStr | None = setting("")
    app_secret_file: Path | None = setting(
        "app: a file with its secret, mode 0600", none=variable_of("app_secret")
    )
    users_file: Path | None = setting(
        "users: user_id with token or refresh_token, CSV or YAML, mode 0600"
    )


class ApiSettings(Part):
    """What the destination is and how it speaks. Source: koodrive-api.md."""

    endpoint: Endpoint | None = Group.LEDGER.option(
        "scheme://host[:port] of the API; http:// for this machine only, since a token would "
        "travel in clear"
    )
    path: UrlPath = setting(
        "the path of the call that binds; `ose` is a service name in the API reference, so it may "
        "differ",
        "/koodrive/ose/v1/backup/device",
    )
    already_bound_codes: tuple[str, ...] = setting(
        'values of `code` that mean "already bound"; the reference names none', ()
    )
    not_bound_codes: tuple[str, ...] = setting(
        'values of `code` that answer an unbind with "no such binding"; the reference names none '
        "for it, and 13000309 for a resource that is missing",
        ("13000309",),
    )
    retryable_codes: tuple[str, ...] = setting("values of `code` that may pass when sent again", ())
    locked_codes: tuple[str, ...] = setting(
        "values of `code` that answer an unbind of a device under a backup lock: it is tried again "
        "for eleven minutes, a lock lasts ten; the reference names none, and HTTP 423 counts too",
        (),
    )
    user_codes: tuple[str, ...] = setting(
        "values of `code` that speak of the user, not of a device (space missing, full, without "
        "right, not activated): three of them, and the user's list, prove it for the user's others",
        ("13000301", "13000311", "13000410", "13000412"),
    )
    timeout: Positive = setting(
        "from sending a bind to the end of its answer; longer by itself, up to 120 s, where "
        "answers take long",
        15.0,
    )
    list_timeout: Positive = setting(
        "the same for a user's list, which may hold 100,000 devices", 120.0
    )
    connect_timeout: Positive = setting(
        "to a connection; an endpoint that is away is noticed so soon", 10.0
    )
    ca_file: File | None = Group.NETWORK.option(
        "certificates (PEM) of a private authority; trusted instead of the system's"
    )
    proxy: Proxy | None = Group.NETWORK.option(
        "http://host:port for an https endpoint", none="HTTPS_PROXY and NO_PROXY"
    )


class SendSettings(Part):
    """How much is sent, how often, how long."""

    concurrency: Annotated[Count, Field(ge=1, le=1000)] = Group.PACE.option(
        "requests in flight at once, 1 to 1000", 32
    )
    workers: Workers | None = Group.WORKERS.option(
        f"processes that send, 1 to {MOST_WORKERS}; they share ledger, limit and concurrency; "
        "auto: one where the pace is under 5,000/s or there are fewer than 20,000 rows, else one "
        "for each core but one, 4 at most; each takes some 45 MB and half a second to start",
        none="1, or all of the cluster's",
    )
    cluster: Cluster | None = Group.WORKERS.option(
        "Dask cluster whose machines send: tls://host:port of its scheduler, or local:N to try it",
        none="this machine sends",
    )
    rate: Annotated[Rate, Field(gt=0, le=MOST_PER_S)] | None = Group.PACE.option(
        "cap on requests, such as 5/s or 40/min; a number alone is per second",
        none="as fast as the gateway allows",
    )
    share: Annotated[Share, Field(gt=0, le=1)] | None = Group.PACE.option(
        "share of the gateway's limit that is used (80% or 0.8); the rest is for other programs",
        none="all of it",
    )
    reserve: Annotated[Rate, Field(ge=0)] | None = Group.PACE.option(
        "requests per second that are left to other programs (of the gateway's limit)",
        none="none of it",
    )
    rate_scope: Literal["credential", "x-user-id"] = setting(
        "whose requests the server's limit counts together: credential (the caller's) or x-user-id "
        "(each user's; `rate` is then per user)",
        "credential",
    )
    max_attempts: Annotated[Count, Field(ge=1, le=100)] = Group.SENDING.option(
        "attempts that cost before a device has failed; 1 to 100, 5xx and no answer cost, 429 "
        "does not",
        6,
    )
    backoff_base: Positive = setting(
        "the wait before attempt n + 1: rand(0, min(backoff_cap, backoff_base * 2**(n - 1)))", 0.5
    )
    backoff_cap: Positive = setting(
        "the longest of these waits, so that an endpoint that is back is used soon", 30.0
    )
    max_wait: Duration = Group.SENDING.option(
        "the longest wait for the gateway's limit; a longer one, as for a limit "
        "per hour or day, stops with 3",
        120.0,
    )
    deadline: Positive | None = Group.SENDING.option(
        "stop after this long (90s, 50m, 2h), exit 3; the grace comes on top", none="none"
    )
    stall: Positive = Group.SENDING.option(
        "stop, exit 3, after this long without progress; waiting for a limit, or for an "
        "endpoint that is away, does not count",
        600.0,
    )
    max_failures: Failures | None = Group.SENDING.option(
        "stop, exit 3, once so many devices have failed; in percent of those that have ended, "
        "counted from 100 on",
        none="none",
    )
    grace: Duration = Group.SENDING.option(
        "how long the end may take after Ctrl-C or SIGTERM; what is in flight, and looking for "
        "what "
        "is in doubt in the lists",
        20.0,
    )

    @property
    def is_per_user(self) -> bool:
        """Whether the server counts each user's requests apart."""
        return self.rate_scope == "x-user-id"


class ReadbackSettings(Part):
    """How doubt is settled."""

    readback: bool = setting(
        "what got no answer is looked for in its user's list before it is sent again; off for "
        "servers without a list: it then stays in doubt",
        default=True,
    )
    readback_settle: Duration = setting(
        "how long after a silent request its binding may still appear in the list", 5.0
    )


class Reading(Part):
    """How the rows of one kind of manifest are read; a profile is one of these with a name."""

    user_id: Annotated[str, Shown("ID")] | None = Group.MANIFEST.option(
        "user of the rows that name none"
    )
    columns: Annotated[dict[str, str], Repeated("FIELD=COLUMN")] = Group.MANIFEST.option(
        f"which column holds a field ({', '.join(FIELDS)}): its header, #3 for the third, and in "
        "YAML and JSON a path (data.vendor) or @key for the device's own key",
        dict,
        flag="--map",
    )
    constants: Annotated[dict[str, str], Repeated("FIELD=VALUE")] = Group.MANIFEST.option(
        "one value of a field for all rows; whatever they say", dict, flag="--set"
    )
    ignore_columns: Titles = Group.MANIFEST.option(
        "a header that only reads like a field's", (), flag="--ignore-column"
    )
    placeholders: Names = Group.MANIFEST.option(
        "words that are no values; instead of the usual ones (NA, NULL, TBD, -, 0 and the like): a "
        "problem in a field that must be, left out of another; none: no word is one",
        (),
    )
    format: Annotated[str, AfterValidator(_format), Shown("FORMAT")] | None = Group.MANIFEST.option(
        "{formats}; without it, taken from name or content"
    )
    encoding: Name | None = Group.MANIFEST.option(
        "of text without a byte order mark, e.g. cp1252; without it UTF-8, or UTF-16 where it "
        "looks like it"
    )
    skip_rows: Annotated[Count, Field(ge=0, le=1000)] | None = Group.MANIFEST.option(
        "lines before the header, 0 to 1000; without it, it is found by the names of its columns"
    )
    header: Names = Group.MANIFEST.option(
        "columns of a table without a header, in order", (), flag="--columns"
    )
    sheet: Annotated[str, Shown("NAME|N")] | None = Group.MANIFEST.option(
        "sheet of a workbook; without it the first visible worksheet"
    )
    visible_rows: bool = Group.MANIFEST.option(
        "leave out hidden and filtered rows of a workbook", default=False
    )
    items: Annotated[str, Shown("PATH")] | None = Group.MANIFEST.option(
        "where the list of devices stands in YAML or JSON; e.g. results or data.items, without "
        "it, it is found where it is the only one"
    )
    clean: Literal["none", "names"] = Group.MANIFEST.option(
        f"make {enumeration(*CLEANED, last='and')} fit their rules (names); every change is listed",
        "none",
    )

    user_table: File | None = Group.MANIFEST.option(
        "a second table that says whose user id is whose; in any format, with user_id (or what "
        "--map user_id=COLUMN names) beside an e-mail address, phone number or name"
    )
    user_key: Annotated[str, Shown("COLUMN")] | None = Group.MANIFEST.option(
        "the column by which users are found in it; COLUMN=COLUMN where the manifest's and the "
        "table's are called otherwise"
    )
    where: Conditions = Group.MANIFEST.option(
        "only the rows for which this holds; COLUMN=VALUE, COLUMN~REGEX (found anywhere in it) or "
        "COLUMN in FILE (one of its lines); all conditions must hold; COLUMN is one of your own, "
        "or #3",
        (),
    )
    where_not: Conditions = Group.MANIFEST.option(
        "only the rows for which this does not hold; written as for --where", ()
    )


class ManifestSettings(Reading):
    """How manifests are read, and what is made of their rows."""

    keep_left_out: bool = Group.MANIFEST.option(
        "results show what is left out, too; it stands there as left_out",
        default=False,
    )

    on_duplicate: Literal["first", "error"] = Group.REPEAT.option(
        "a device twice for one user; first: the first row counts, error: the others are invalid",
        "first",
    )
    on_conflict: Literal["error", "first", "last"] = Group.REPEAT.option(
        "a device for two users; error: both rows are invalid, else which one counts", "error"
    )
    on_invalid: Literal["abort", "skip"] = Group.STAGING.option(
        "what is sent where rows break a rule; nothing, or the other rows", "abort"
    )
    min_rows: Annotated[Count, Field(ge=0)] | None = Group.MANIFEST.option(
        "fewer rows in all are an error; an export was cut off, all manifests count together"
    )
    rebind: bool = Group.STAGING.option("send again what the ledger knows as bound", default=False)
    refresh: bool = Group.STAGING.option(
        "look in the users' lists on the server, too: what the ledger knows as bound and the lists "
        "lack fails",
        default=False,
    )
    rebind_missing: bool = Group.STAGING.option(
        "refresh, and bind again what the lists lack", default=False
    )
    profile: Name | None = Group.MANIFEST.option(
        "how such files are read; a name under `profiles:` in the settings file"
    )
    profiles: Annotated[dict[str, Reading], PlainSerializer(_only_set)] = setting(
        "name: how files of one kind are read, chosen with --profile NAME; keys as outside of them",
        dict,
    )
    move: bool = Group.STAGING.option(
        "take devices from the users whom they are bound to; by the ledger, unbound there, then "
        "bound",
        default=False,
    )

    sync: bool = Group.STAGING.option(
        "the manifest is the whole truth of its scope; what runs of it bound and it lacks is "
        "unbound, after the binds",
        default=False,
    )
    sync_name: Scope | None = Group.STAGING.option(
        "the scope; runs of the same name are of one", none="the manifest's absolute path"
    )
    max_unbinds: Unbinds = Group.STAGING.option(
        "so many --sync unbinds unasked; more stop with 3, unless a person agrees; in percent of "
        "the scope's bound devices",
        "5%",
    )

    def may_unbind(self, devices: int, bound: int) -> bool:
        """Return whether so many of a scope's bound devices may be unbound, and nobody be asked."""
        if not self.max_unbinds.endswith("%"):
            return devices <= int(self.max_unbinds)
        share = Decimal(self.max_unbinds.removesuffix("%"))
        return devices * ALL_PERCENT <= share * bound

    @property
    def refuses_invalid(self) -> bool:
        """Whether nothing is sent where rows break a rule: to a scope, they may be any device."""
        return self.on_invalid == "abort" or self.sync

    @property
    def keeps_left_out(self) -> bool:
        """Whether rows that conditions leave out are kept: for a scope, they are there."""
        return self.keep_left_out or self.sync

    @property
    def reads_lists(self) -> bool:
        """Whether the users' lists are read before anything is sent."""
        return self.refresh or self.rebind_missing


class LogSettings(Part):
    """What is written about a run while it runs."""

    log_format: Literal["console", "json"] | None = Group.LOG.option(
        "form of log lines on standard error; json given outright: nothing else is written there",
        none="console on a terminal, else json",
    )
    log_level: Annotated[LogLevel, Shown("LEVEL")] | None = Group.LOG.option(
        "least severe log line, from debug to error; a log file gets info, or debug if that is set",
        none="warning on a terminal, else info",
    )
    log_file: File | None = Group.LOG.option("append log lines to a file as well, as JSON")
    log_devices: bool = Group.LOG.option(
        "a log line for every settled device; instead of progress lines", default=False
    )


class EndSettings(Part):
    """What follows once a run has ended."""

    fail_on: FailOn = Group.END.option(
        "which rows that need a person end it with 1; new: such that did not need one in the "
        "last "
        "finished run of the same manifests",
        "any",
    )
    notify_on: NotifyOn = setting(
        "who is named below is told after a failure, a change (since the last run), or always",
        "failure",
    )
    notify_command: Command | None = setting(
        "gets summary.json on standard input, e.g. /usr/local/bin/to-pager; split into words, no "
        "shell"
    )
    notify_url_file: AddressFile | None = setting(
        "a file with a webhook's https address alone, mode 0600, since it is a secret "
        "(Slack-compatible)"
    )
    ping_url_file: AddressFile | None = setting(
        "a file with an https address alone, mode 0600, which is called at the start (with /start "
        "behind its path), at a good end, and at a failure (/fail), so that silence is an alarm "
        "(healthchecks.io and its like)"
    )
    notify_timeout: Positive = setting(
        "how long the command may take, or one try of the webhook or the ping", 10.0
    )
    metrics_file: File | None = Group.END.option(
        "write metrics for Prometheus' node exporter there (needs the extra `metrics`)"
    )


class Settings(Part):
    """Everything, as one value."""

    api: ApiSettings = ApiSettings()
    auth: AuthSettings = setting(
        "how requests are authorised; secrets come from the environment, a file or a command",
        AuthSettings(),
    )
    send: SendSettings = SendSettings()
    doubt: ReadbackSettings = ReadbackSettings()
    manifest: ManifestSettings = ManifestSettings()
    log: LogSettings = LogSettings()
    end: EndSettings = EndSettings()
    wait: Duration = Group.SENDING.option(
        "how long to wait for a ledger that a run holds; then exit 75", 0.0
    )
    ledger: File | None = Group.LEDGER.option(
        "the ledger", none="$XDG_STATE_HOME/bulkbind/<scheme>-<host>-<port>.db"
    )
    out: Annotated[Path, Shown("DIR")] | None = Group.OUT.option(
        "report folder", none="bulkbind-report/<run id>"
    )

    def endpoint(self) -> str:
        """Return the endpoint. Raises: UsageError if none is set."""
        if self.api.endpoint is None:
            raise UsageError(
                "no endpoint is set",
                hint="the same command with --config koodrive-intl, or koodrive-cn, or with "
                "--endpoint URL (`endpoint:` in a settings file); `bulkbind sandbox` starts a "
                "local one, --config sandbox",
            )
        return self.api.endpoint

    def ledger_path(self, environ: Mapping[str, str] = os.environ) -> Path:
        """Return the ledger's file: as set, else one per endpoint in the user's state folder."""
        if self.ledger is not None:
            return self.ledger
        state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        return Path(state) / "bulkbind" / f"{ledger_name(self.endpoint())}.db"

    def earlier_ledger_path(self, environ: Mapping[str, str] = os.environ) -> Path | None:
        """Return the name that versions before 0.2 gave the ledger; None where one is set."""
        if self.ledger is not None:
            return None
        host = urlsplit(self.endpoint()).netloc.translate(_IN_FILE_NAMES)
        return self.ledger_path(environ).with_name(f"{host}.db")

    def public(self) -> Raw:
        """Return the settings as in a file, without secrets."""
        plain: Raw = self.model_dump(mode="json", exclude={"auth": set(SECRETS)})
        for part in PARTS:
            plain |= plain.pop(part)
        plain["auth"] |= {name: "set" if getattr(self.auth, name) else None for name in SECRETS}
        for found in SETTINGS.values():
            held = plain["auth"] if found.part == "auth" else plain
            held[found.name] = found.public(held[found.name])
        return plain


PARTS = ("api", "send", "doubt", "manifest", "log", "end")
"""Parts whose keys are at the top level of a settings file."""


def _all_settings() -> Iterator[Setting]:
    nothing_set = Settings()
    for part in (*PARTS, "auth", ""):
        held = getattr(nothing_set, part) if part else nothing_set
        plain = held.model_dump(mode="json")
        for name, field in type(held).model_fields.items():
            if part or name not in (*PARTS, "auth"):
                declared = field.json_schema_extra
                assert isinstance(declared, Setting), f"{name} is not declared with setting()"
                yield declared.placed(part, name, field, plain[name])


SETTINGS = {found.key: found for found in _all_settings()}
"""Every setting by its key, in the order of `bulkbind config`."""
SECRETS = tuple(found.name for found in SETTINGS.values() if SecretStr in found.kinds)
"""Settings of `auth:` that can only come from the environment."""
PART_OF = {key: found.part for key, found in SETTINGS.items() if found.part in PARTS}
KEYS = (*PART_OF, "auth", *(key for key, found in SETTINGS.items() if not found.part))
"""The top-level keys of a settings file."""
