"""Reading a settings file, and merging it with flags, environment and defaults.

Scalars stay text as written, and for every value its origin (file and line, flag, …) is kept.
"""

from __future__ import annotations

import copy
import errno
import os
import re
import stat
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import SecretStr, ValidationError

from bulkbind.errors import UsageError, did_you_mean
from bulkbind.files import read_whole, read_within
from bulkbind.redaction import HIDDEN, learn, lines
from bulkbind.settings.model import (
    KEYS,
    PART_OF,
    PARTS,
    SECRETS,
    SETTINGS,
    AuthSettings,
    Raw,
    Reading,
    Settings,
    shared,
    variable_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

DEEPEST = 4
"""Levels of nesting; no key needs more, and a recursive alias would have no end."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The contents of a settings file."""

    path: Path
    values: dict[str, Any]
    """Nested mappings and lists of text; keys without a value are left out."""
    lines: dict[str, int] = field(default_factory=dict)
    """Dotted key (`auth.token_file`) -> its line, 1-based."""
    is_found: bool = False
    """Whether nobody named it: it lay in the current folder."""

    def place(self, key: str) -> str:
        """Return the file, and the line of a key or of its nearest parent."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.path}, line {self.lines[key]}" if key else str(self.path)


FOUND = Path("bulkbind.yaml")
"""The settings file that is found by itself, in the current folder and nowhere else."""
_AT_ONCE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_SHIPPED = resources.files("bulkbind.settings") / "shipped"


def shipped_names() -> tuple[str, ...]:
    """Return the names of the settings files that come with the package."""
    return tuple(sorted(file.name.removesuffix(".yaml") for file in _SHIPPED.iterdir()))


def read_config(path: Path) -> ConfigFile:
    """Read a settings file, or the shipped one of that name where there is no such file.

    Raises: UsageError if it cannot be read or parsed.
    """
    try:
        if str(path) in shipped_names() and not os.path.lexists(path):
            return _parsed(path, (_SHIPPED / f"{path}.yaml").read_text("utf-8"))
        return _parsed(path, read_whole(path)[0].decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"settings file {path} cannot be read: {error}") from error
    except OSError as error:
        raise UsageError(
            f"settings file {path} cannot be read: {error.strerror or error}",
            hint=f"name a file, or one that comes with bulkbind: {', '.join(shipped_names())}",
        ) from error


def find_config() -> ConfigFile | str | None:
    """Return the settings file of the current folder, or why it is not used; None without one.

    It is used if it is a regular file, belongs to whoever runs this, and nobody else can write it.
    All that is asked, and read, of one descriptor: what takes the name's place meanwhile does not
    count. Links are not followed, since whoever may write to the folder could set one.

    Raises: UsageError if it is ours and cannot be parsed.
    """
    try:
        number = os.open(FOUND, _AT_ONCE)
    except FileNotFoundError:
        return None
    except OSError as error:
        return "it is a link" if error.errno == errno.ELOOP else str(error.strerror)
    status = os.fstat(number)
    if why := _why_not(status):
        os.close(number)
        return why
    try:
        with os.fdopen(number, "rb") as file:
            text = read_within(file).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"settings file {FOUND} cannot be read: {error}") from error
    return _parsed(FOUND, text, is_found=True)


def _why_not(status: os.stat_result) -> str:
    """Return why nobody may rely on a file of this status being meant; empty if they may."""
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file"
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    if shared(FOUND, status.st_mode, {}) == "written":
        return f"others can write it (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _parsed(path: Path, text: str, *, is_found: bool = False) -> ConfigFile:
    try:
        root = yaml.compose(text, Loader=yaml.CBaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" in line {mark.line + 1}" if mark is not None else ""
        # The rest of the error's text quotes the file.
        why = getattr(error, "problem", None) or "it holds a character that YAML forbids"
        raise UsageError(f"settings file {path} is not YAML: {why}{at}") from None
    found = ConfigFile(path, {}, is_found=is_found)
    if root is None or (isinstance(root, yaml.ScalarNode) and root.value == ""):
        return found
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"settings file {path} must be a mapping of keys")
    found.values.update(_mapping(root, found, ""))
    _refuse_secrets(found)
    return found


def _refuse_secrets(file: ConfigFile) -> None:
    auth = file.values.get("auth")
    for name in SECRETS:
        if isinstance(auth, dict) and name in auth:
            raise UsageError(
                f"settings file {file.place(f'auth.{name}')} holds `auth.{name}`: a secret has no "
                "place there",
                hint=f"use {variable_of(name)}, or `auth: {name}_file:` with a file only you "
                "can read",
            )


def _mapping(node: yaml.MappingNode, file: ConfigFile, above: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, inner in node.value:
        line = name.start_mark.line + 1
        if not isinstance(name, yaml.ScalarNode):
            raise UsageError(f"settings file {file.path}, line {line}: a key must be a word")
        key = f"{above}{name.value}"
        if key in file.lines:
            raise UsageError(
                f"settings file {file.path} sets `{key}` twice: in line {file.lines[key]} and in "
                f"line {line}"
            )
        file.lines[key] = line
        value = _value(inner, file, key)
        if value is not None:
            values[name.value] = value
    return values


def _value(node: yaml.Node, file: ConfigFile, key: str) -> Any:  # noqa: ANN401  # as the file has it
    if isinstance(node, yaml.ScalarNode):
        if "\0" in node.value:
            raise UsageError(f"settings file {file.place(key)}: `{key}` holds a NUL character")
        # An empty plain scalar: a key without a value sets nothing.
        return None if node.value == "" and not node.style else str(node.value)
    if key.count(".") >= DEEPEST:
        raise UsageError(f"settings file {file.place(key)}: `{key}` is nested too deeply")
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, file, f"{key}.")
    keys = [f"{key}.{number}" for number in range(len(node.value))]
    file.lines.update(
        {k: item.start_mark.line + 1 for k, item in zip(keys, node.value, strict=True)}
    )
    return [_value(item, file, k) for k, item in zip(keys, node.value, strict=True)]


def plain(value: object) -> str:
    """Return a value as YAML on one line after a blank; empty if it is not set."""
    if value is None:
        return ""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return " " + text.removesuffix("\n").removesuffix("\n...")


DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Value:
    """One effective setting."""

    key: str
    """As in a settings file; dotted below `auth:`."""
    value: Any
    """As in a settings file; None: not set. A secret is shown as `***`."""
    origin: str
    """`--concurrency`, `BULKBIND_RATE`, `fleet.yaml, line 12` or `default`."""
    is_secret: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and the origin of each value."""

    settings: Settings
    origins: dict[str, str]
    """Key -> flag, variable, or file and line; defaults are left out."""
    found: Path | None = None
    """The settings file, if nobody named it (see `find_config`)."""
    from_file: frozenset[str] = frozenset()
    """The keys whose values are those of the settings file."""

    def values(self) -> Iterator[Value]:
        """Yield every effective setting, in the order of the settings files."""
        for key, setting in SETTINGS.items():
            held = getattr(self.settings, setting.part) if setting.part else self.settings
            origin = self.origins.get(key, DEFAULT)
            if setting.name in SECRETS:
                shown = None if getattr(held, setting.name) is None else "***"
                yield Value(key, shown, origin, is_secret=True)
            else:
                plain = held.model_dump(mode="json", include={setting.name})[setting.name]
                shown = setting.public(plain)
                is_cut = isinstance(shown, str) and HIDDEN in shown
                yield Value(key, shown if is_cut else plain, origin, is_secret=is_cut)


def load_settings(
    config: Path | None, given: Mapping[str, Any], origins: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings alone; see `load`."""
    return load(config, given, origins).settings


def load(
    config: Path | ConfigFile | None,
    given: Mapping[str, Any],
    origins: Mapping[str, str] | None = None,
    *,
    formats: Collection[str] | None = None,
) -> Loaded:
    """Merge a settings file with values from flags and environment, and validate the result.

    *config*: a path, the name of a file that comes with the package, or a file that was read.
    *given*: `{"concurrency": 64, "auth.token": "…", …}`; None counts as not given. *origins*: where
    each of them came from (`--concurrency`, `BULKBIND_RATE`). *formats*: of manifests; without
    them, any is taken here, and refused once a manifest is opened.

    Raises: UsageError that lists every invalid key with its value and origin.
    """
    file = read_config(config) if isinstance(config, Path) else config
    raw = copy.deepcopy(file.values) if file else {}
    known = {key: file.place(key) for key in _leaves(raw)} if file else {}
    _put_profile(raw, known, file, given)
    from_file = frozenset(known) - {key for key, value in given.items() if value is not None}
    for key, value in given.items():
        if value is not None:
            _put(raw, key, value)
            known[key] = (origins or {}).get(key, "the caller")
    wrong = [_unknown(key, KEYS, _origin(key, known, file)) for key in raw if key not in KEYS]
    meant: list[str] = []
    try:
        context = None if formats is None else {"formats": formats}
        settings = Settings.model_validate(_in_parts(raw), context=context)
    except ValidationError as error:
        wrong += [_explain(item, known, file) for item in error.errors()]
        meant = [guess for item in error.errors() if (guess := _meant(item))]
    else:
        if not wrong:
            _learn_secrets(settings)
            found = file.path if file is not None and file.is_found else None
            return Loaded(settings, known, found, from_file)
    told = "`bulkbind schema config` describes every key"
    raise UsageError(lines(wrong), hint=" ".join([*meant, told]))


def _learn_secrets(settings: Settings) -> None:
    """Hide the secrets that stand in the settings themselves; a path's query may be one."""
    given = (getattr(settings.auth, name) for name in SECRETS)
    learn(*(each.get_secret_value() for each in given if each is not None))
    learn(*(path.partition("?")[2] for path in (settings.api.path, settings.auth.session_path)))


def _put_profile(
    raw: Raw, known: dict[str, str], file: ConfigFile | None, given: Mapping[str, Any]
) -> None:
    """Override the file's values with the chosen profile's. Raises: UsageError if it is missing."""
    name = given.get("profile") or raw.get("profile")
    if not name:
        return
    profiles = raw.get("profiles")
    if not isinstance(profiles, dict) or not isinstance(profiles.get(name), dict):
        names = ", ".join(profiles) if isinstance(profiles, dict) and profiles else "none"
        raise UsageError(
            f"there is no profile {name!r}; in {file.path if file else 'the settings'}: {names}",
            hint="profiles stand under `profiles:` in the settings file (--config)"
            f"{did_you_mean(str(name), names.split(', '))}",
        )
    for key, value in profiles[name].items():
        if key in Reading.model_fields:  # validation of `profiles` reports any other
            _put(raw, key, value)
            known[key] = file.place(f"profiles.{name}.{key}") if file else f"profile {name}"


def _leaves(raw: Raw) -> Iterator[str]:
    """Yield the keys of a settings file; those below `auth:` are dotted."""
    for key, value in raw.items():
        if key == "auth" and isinstance(value, dict):
            yield from (f"auth.{inner}" for inner in value)
        else:
            yield key


def _in_parts(raw: Raw) -> Raw:
    """Group the keys of a settings file by part of the model."""
    parts: Raw = {part: {} for part in PARTS}
    for key, value in raw.items():
        if key in PART_OF:
            parts[PART_OF[key]][key] = value
        elif key in KEYS:
            parts[key] = value
    return parts


def _put(raw: Raw, dotted: str, value: object) -> None:
    """Override a key of the file; a mapping is merged into the file's."""
    *parents, leaf = dotted.split(".")
    for parent in parents:
        inner = raw.setdefault(parent, {})
        if not isinstance(inner, dict):
            return  # validation reports the value that is not a mapping
        raw = inner
    if isinstance(value, dict) and isinstance(raw.get(leaf), dict):
        value = {**raw[leaf], **value}
    raw[leaf] = value


def _origin(key: str, known: Mapping[str, str], file: ConfigFile | None) -> str:
    """Return the origin of a value, or of the list or mapping that contains it."""
    above = key
    while above:
        if above in known:
            is_from_file = file is not None and known[above] == file.place(above)
            return file.place(key) if is_from_file and file else known[above]
        above = above.rpartition(".")[0]
    return file.place(key) if file else DEFAULT


def _unknown(key: str, keys: tuple[str, ...], origin: str) -> str:
    above, dot, name = key.rpartition(".")
    guess = did_you_mean(name, keys).replace("`", f"`{above}{dot}", 1)
    return f"unknown setting `{key}` (from {origin}){guess}"


def _meant(item: Any) -> str:  # noqa: ANN401  # an error of pydantic's
    """Return which of some words was probably meant; empty for any other error."""
    words = re.findall(r"'(\w+)'", item["msg"]) if "Input should be '" in item["msg"] else []
    return did_you_mean(str(item["input"]), words).removeprefix("; ")


_MAY_HOLD_SECRETS = (
    "auth",
    "proxy",
    "notify_url_file",
    "ping_url_file",
    "notify_command",
    "auth.token_command",
)
"""Settings whose values, if they are invalid, may be a secret or hold one anywhere."""


def _explain(
    item: Any,  # noqa: ANN401  # an error of pydantic's
    known: Mapping[str, str],
    file: ConfigFile | None,
) -> str:
    key = ".".join(str(part) for part in item["loc"] if part not in PARTS)
    origin = _origin(key, known, file)
    if item["type"] == "extra_forbidden":
        return _unknown(key, tuple(AuthSettings.model_fields), origin)
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "tuple_type":
        message = "it is a list, such as [one, two]"
    elif item["type"] in ("model_type", "dict_type"):
        message = "it is a mapping of keys to values"
    is_hidden = (
        key.partition(".")[2] in SECRETS
        or isinstance(item["input"], SecretStr)
        or key in _MAY_HOLD_SECRETS
        or (key == "endpoint" and not {*"@?#"}.isdisjoint(str(item["input"])))
    )
    shown = "" if is_hidden else f": {item['input']!r}"
    return f"setting `{key}`{shown} (from {origin}): {message}"
