"""`bulkbind init`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast, get_args

import click

from bulkbind.app.init import (
    MOST_ROWS,
    Proposal,
    choices_of,
    propose,
    settings_text,
    shipped_endpoints,
    shown_rows,
    write_settings,
)
from bulkbind.app.inputs import STDIN, open_all
from bulkbind.cli import options
from bulkbind.cli.console import ask, is_interactive
from bulkbind.cli.here import again, typed
from bulkbind.cli.options import settings_from
from bulkbind.cli.running import explained, print_lines
from bulkbind.errors import DeclinedError, ManifestError, UsageError
from bulkbind.model import in_one_line
from bulkbind.model.fields import CODE, FIELDS, USER
from bulkbind.model.wording import counted, verb
from bulkbind.redaction import lines
from bulkbind.settings import FOUND, AuthMode, Group, normal_endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.manifest import ManifestFile
    from bulkbind.settings import ManifestSettings

KINDS: dict[AuthMode, tuple[str, str]] = {
    "token": ("a token that somebody else renews", "BULKBIND_TOKEN or `token_file:`"),
    "session": (
        "a login that renews itself",
        "BULKBIND_REFRESH_TOKEN, or `account:` with BULKBIND_PASSWORD",
    ),
    "app": ("an app id and its secret sign", "BULKBIND_APP_ID with BULKBIND_APP_SECRET"),
    "users": ("a token of each user", "`users_file:`"),
}
"""The kinds of credentials: what each is, and where it comes from."""
ORDER = (CODE.name, *(name for name in FIELDS if name != CODE.name))
"""In which fields are asked for: first what a device cannot do without."""
UNWRITTEN = "nothing was written"


@options.command("init", finds_settings=False)
@click.argument("manifest", metavar="MANIFEST")
@options.config
@options.setting("endpoint")
@options.option(
    "--auth",
    "mode",
    type=options.Choice(get_args(AuthMode)),
    help="kind of credentials  [default: asked; with --yes, whatever there is]",
)
@options.settings(Group.MANIFEST)
@options.option("--yes", is_flag=True, help="do not ask")
def command(manifest: str, *, mode: AuthMode | None, yes: bool, **given: Any) -> None:
    """Make bulkbind.yaml in this folder, from the header of a manifest.

    Which column holds which field is found by what other programs call them, and shown with three
    rows as they would be sent. Endpoint and kind of credentials are asked; --yes takes what is
    proposed. The file holds no secret. Where there is one already, you are asked whether to replace
    it; --config names one to begin with.

    \b
    Examples:
      bulkbind init devices.csv
      bulkbind init devices.xlsx --config koodrive-intl --yes
      bulkbind init export.csv --map machine_code=Tag --user-id u42
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        asks = is_interactive() and not yes and manifest != STDIN
        if not asks and not yes:
            raise UsageError(
                "init asks, and there is nobody to ask",
                hint=f"take the proposals: {again('--yes')}",
            )
        replaces = _may_replace(asks=asks)
        settings = settings_from(given)
        file = open_all([manifest])[0]
        found = _chosen(file, settings.manifest, asks=asks)
        endpoint = settings.api.endpoint or (_endpoint() if asks else None)
        mode = mode or settings.auth.mode or (_kind() if asks else None)
        text = settings_text(file.name, found, settings, endpoint, mode)
        try:
            write_settings(FOUND, text, replaces=replaces)
        except FileExistsError as error:
            raise _exists() from error
        print_lines(_next_steps(manifest, found, endpoint, mode))


def _exists() -> UsageError:
    return UsageError(
        f"there is a {FOUND} in this folder already; {UNWRITTEN}",
        hint=f"move it away: mv {FOUND} {FOUND}.old",
    )


def _may_replace(*, asks: bool) -> bool:
    """Return whether an existing file may be replaced. Raises: UsageError, DeclinedError."""
    if not os.path.lexists(FOUND):
        return False
    if not asks:
        raise _exists()
    if not _yes(f"There is a {FOUND} in this folder already. Replace it? [y/N]"):
        raise DeclinedError(f"declined: {UNWRITTEN}")
    return True


def _yes(question: str, default: str = "n") -> bool:
    while (answer := ask("", question, UNWRITTEN).lower() or default) not in (
        "y",
        "yes",
        "n",
        "no",
    ):
        pass
    return answer.startswith("y")


# --- columns -------------------------------------------------------------------------------------


def _chosen(file: ManifestFile, reads: ManifestSettings, *, asks: bool) -> Proposal:
    """Return how the manifest is read, after a person has said what its names do not say.

    Raises: ManifestError, UsageError where nobody can say it.
    """
    asked: set[str] = set()
    while True:
        found = propose(file, reads)
        doubtful = [f for f in ORDER if f in {*found.choices, *found.missing} - asked]
        if not asks or not doubtful:
            break
        asked.update(doubtful[:1])
        reads = _with_choice(found, doubtful[0])
    for field in (CODE.name, USER.name):
        if field in found.missing and field in found.choices:
            texts = found.choices[field]
            raise UsageError(
                f"several columns may hold {field}: {', '.join(texts)}",
                hint=f"say which: {again('--map', f'{field}={texts[0]}')}",
            )
    if found.fault is not None:
        maps = [word for f in found.missing for word in ("--map", f"{f}=COLUMN")]
        raise ManifestError(found.fault.message, hint=f"say which column: {again(*maps)}")
    print_lines(_about(file.name, found))
    if asks and not _yes("Are these the columns? [Y/n]", default="y"):
        for field in ORDER:
            reads = _with_choice(found, field)
            found = propose(file, reads)
        print_lines(_about(file.name, found))
    return found


def _with_choice(found: Proposal, field: str) -> ManifestSettings:
    """Ask for a field's column, or for the user of all rows; what is not answered stays."""
    texts = choices_of(found, field)
    is_user = field == USER.name and field in found.missing
    present = found.columns.get(field, "none, one user has them all" if is_user else "none")
    what = [f"Which column holds {field}?", *(f"  {n}  {t}" for n, t in enumerate(texts, start=1))]
    while answer := ask(lines(what), f"Number or name [{present}]:", UNWRITTEN):
        if (column := _picked(answer, texts)) is not None:
            mapped = {**found.reads.columns, field: column}
            return found.reads.model_copy(update={"columns": mapped})
    user = ask("", "Id of that user [later]:", UNWRITTEN) if is_user else ""
    return found.reads.model_copy(update={USER.name: user}) if user else found.reads


def _picked(answer: str, texts: Sequence[str]) -> str | None:
    """Return what is meant by a number or the text itself; None if nothing is."""
    is_number = answer.isascii() and answer.isdecimal() and 0 < int(answer[:6]) <= len(texts)
    return (
        texts[int(answer) - 1]
        if is_number and answer not in texts
        else (answer if answer in texts else None)
    )


def _about(name: str, found: Proposal) -> list[str]:
    """Return what the manifest holds, and its first rows as they would be sent."""
    width = max(map(len, FIELDS))
    told = [f"{name}: {'these columns are taken' if found.columns else 'no column is known'}"]
    told += [f"  {field:<{width}}  {in_one_line(at)}" for field, at in found.columns.items()]
    for field, texts in found.choices.items():
        told.append(f"{field} may be in {' or '.join(f'`{text}`' for text in texts)}: left out")
    if found.reads.clean == "names":
        told.append("names and systems are made to fit their rules (clean: names)")
    if USER.name in found.missing:
        told.append("no column names the user: `user_id:` stays a comment, to be filled in")
    if found.rows:
        told += ["The first rows, as they would be sent:", *(f"  {r}" for r in shown_rows(found))]
    if found.invalid:
        of_all = f"{found.invalid:,} of {'the first ' * (found.count == MOST_ROWS)}"
        breaks = verb(found.invalid, "breaks", "break", of=found.count)
        told.append(f"{of_all}{counted(found.count, 'rows')} {breaks} a rule")
    return told


# --- endpoint and credentials --------------------------------------------------------------------


def _endpoint() -> str | None:
    known = shipped_endpoints()
    urls = list(known.values())
    what = ["Where to?", *(f"  {n}  {u:<42} {s}" for n, (s, u) in enumerate(known.items(), 1))]
    while answer := ask(lines(what), "Number or https://host [later]:", UNWRITTEN):
        try:
            return _picked(answer, urls) or normal_endpoint(answer)
        except ValueError as error:
            what = [f"{answer}: {error}"]
    return None


def _kind() -> AuthMode:
    kinds = list(KINDS)
    what = ["How are requests authorised?"]
    what += [f"  {n}  {kind:<8} {KINDS[kind][0]}" for n, kind in enumerate(kinds, start=1)]
    while (picked := _picked(ask(lines(what), "Number [1]:", UNWRITTEN) or "1", kinds)) is None:
        pass
    return cast("AuthMode", picked)


def _next_steps(
    manifest: str, found: Proposal, endpoint: str | None, mode: AuthMode | None
) -> list[str]:
    """Return what to do next: three commands for this place."""
    user = ["--user-id", "ID"] if USER.name in found.missing else []
    named = ["--config", str(FOUND)]
    if endpoint is None:
        told = [
            f"{FOUND} is written; `endpoint:` in it is a comment, to be filled in.",
            "What can be done before:",
        ]
        calls = (
            ["validate", manifest, *user], ["plan", manifest, *user],
            ["run", manifest, *user, "--rehearse"],
        )  # fmt: skip
    else:
        where = KINDS[mode][1] if mode else "BULKBIND_TOKEN, or what `auth:` in it names"
        told = [f"{FOUND} is written. Its credentials:", f"  {where}", "Next:"]
        first = ["validate", manifest, *user] if found.invalid else ["doctor"]
        calls = (first, ["plan", manifest, *user], ["run", manifest, *user])
    return [*told, *(f"  {typed(*call, *named)}" for call in calls)]
