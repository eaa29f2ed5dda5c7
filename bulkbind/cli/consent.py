"""Who is asked before a settings file that was found by itself may do more than say how to read.

Whoever may put files into a folder could leave one there: an archive that is unpacked belongs to
whoever unpacks it. So nothing of it leads to a request with credentials, and no program is run and
no file of its choice written, before somebody has agreed on a terminal. Naming the file with
`--config` is agreeing as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bulkbind.cli.here import again
from bulkbind.errors import UsageError
from bulkbind.settings import is_loopback, split_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulkbind.settings import Loaded, Settings

LEADING = frozenset({
    "endpoint", "path", "ca_file", "proxy", "ledger", "auth.session_path",
    "auth.token_command", "auth.token_file", "auth.refresh_token_file", "auth.password_file",
    "auth.app_secret_file", "auth.users_file",
})  # fmt: skip
"""Keys that say where credentials go, or which, or what is bound there already: a ledger's word for
it is taken."""
HELD = {
    "end": ("notify_command", "notify_url_file", "ping_url_file", "metrics_file"),
    "log": ("log_file",),
}
"""Settings by part that run a program, tell somebody, or write a file of any name."""


class Target(NamedTuple):
    """Where requests go, as a person is told."""

    text: str
    is_sandbox: bool
    """Whether it is on this machine."""


def target_of(settings: Settings) -> Target:
    """Return the target of the settings. Raises: UsageError without an endpoint."""
    parts, _ = split_address(settings.endpoint())
    is_sandbox = is_loopback(parts.hostname or "")
    return Target(f"the sandbox {parts.netloc}" if is_sandbox else parts.netloc, is_sandbox)


class Consent:
    """Whether somebody has agreed to the settings file; given where it was named, or there is none.

    Attributes:
        settings: Those in force; without what is held back as long as nobody has agreed.
    """

    def __init__(self, loaded: Loaded, on_given: Callable[[Settings], None] | None = None) -> None:
        self._whole = loaded.settings
        self._on_given = on_given or (lambda _settings: None)
        self.file = loaded.found
        self.held = (
            [name for names in HELD.values() for name in names if name in loaded.from_file]
            if loaded.found
            else []
        )
        self.is_given = loaded.found is None
        self.is_needed = loaded.found is not None and not LEADING.isdisjoint(loaded.from_file)
        self.settings = self._restrained() if self.held else self._whole

    def _restrained(self) -> Settings:
        parts = {
            part: getattr(self._whole, part).model_copy(
                update={name: None for name in names if name in self.held}
            )
            for part, names in HELD.items()
        }
        return self._whole.model_copy(update=parts)

    def give(self) -> None:
        """Note that somebody has agreed."""
        self.is_given, self.is_needed, self.settings = True, False, self._whole
        if self.held:
            self.held = []
            self._on_given(self._whole)

    def require(self, *, can_ask: bool) -> None:
        """Refuse early what nobody can be asked about. Raises: UsageError."""
        if self.is_needed and not can_ask:
            raise UsageError(
                f"{self.file} was found in this folder, and nobody has named it: nothing is sent "
                "with credentials as it says before somebody has agreed on a terminal",
                hint=f"if it is meant, name it: {again('--config', str(self.file))}",
            )

    def held_text(self) -> str:
        """Return what is left undone of a file that nobody has agreed to; empty if nothing is."""
        if not self.held:
            return ""
        return (
            f"{self.file} was found in this folder, and nobody has named it, so its "
            f"{' and '.join(self.held)} counts for nothing: {again('--config', str(self.file))}"
        )
