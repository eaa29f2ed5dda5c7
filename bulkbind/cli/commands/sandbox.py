"""`bulkbind sandbox`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from bulkbind.cli import options
from bulkbind.cli.behaviour import behaviour_from, behaviour_options
from bulkbind.cli.console import say
from bulkbind.cli.running import explained, run_until_done
from bulkbind.errors import ExitCode, UsageError
from bulkbind.model.wording import counted
from bulkbind.sandbox import (
    Sandbox,
    parse_time,
    read_credentials,
)
from bulkbind.sandbox.auth_checks import CREDENTIALS_HELP
from bulkbind.sandbox.faults import KINDS
from bulkbind.sandbox.limit_announcements import FORMS
from bulkbind.sandbox.specs import LIMIT_HELP

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bulkbind.engine import StopSignal

PAGES = (
    "Prints `ready http://…` on standard output once it serves; any token is accepted. What it has "
    "seen: GET /sandbox/stats; what is bound: GET /sandbox/bindings (JSON Lines)."
)
ORDER = (
    "Every delay-before that strikes is waited; of the other faults, the first that strikes, in "
    "the order given, decides."
)
NAME_WIDTH = max(map(len, (*KINDS, *FORMS)))


def _block(title: str, lines: Iterable[str]) -> str:
    # \b makes click leave a block unwrapped.
    return "\b\n" + "\n".join([title, *(f"  {line}" for line in lines)])


def _table(title: str, rows: dict[str, str]) -> str:
    return _block(title, (f"{name:{NAME_WIDTH}}  {text}" for name, text in rows.items()))


HELP = "\n\n".join(
    (
        "Serve a local KooDrive on 127.0.0.1, with limits and faults to order.",
        PAGES,
        _block(
            "Examples:",
            (
                "bulkbind sandbox --limit 60/s --fault reset-after=0.03 &",
                "BULKBIND_TOKEN=any bulkbind run samples/fleet.csv --endpoint http://127.0.0.1:8765",
                "bulkbind sandbox --limit 100/s,until=20s --limit 30/s,from=20s,tell=retry-after",
                "bulkbind sandbox --fault silence-after=1,count=3 --fault delay-before=0.1,for=5s",
                "bulkbind sandbox --credentials accepted.yaml --session-calls 1000 --tls",
            ),
        ),
        "A TIME is written 250ms, 90s, 5m, 2h or as seconds; `from` and `until` are since start.",
        _block("Kinds of --limit; UNIT is s, min, hour or day:", LIMIT_HELP.values()),
        _table(
            "Keys of --limit:",
            {
                "tell=FORM+...": "how it is told  [default: text]",
                "from=, until=": "it is in force only in that time",
                "on=CALL": "what it limits: bind, list, unbind or all  [default: all]",
                "per=user": "every X-User-Id has a count of its own  [default: one for all]",
                "burst=N": "size of a bucket",
            },
        ),
        _table("Forms of telling:", {name: form.help for name, form in FORMS.items()}),
        _table(
            "Keys of --fault:",
            {
                "count=N": "it strikes at most N times",
                "from=, until=": "it strikes only in that time",
                "on=CALL": "what it strikes: bind, list, unbind or all  [default: bind]",
                "for=TIME": "see below",
                "code=CODE": "see below",
            },
        ),
        _block("What a --credentials file holds (YAML):", CREDENTIALS_HELP),
        _table("Faults:", {name: kind.help for name, kind in KINDS.items()}),
        ORDER,
    )
)


@options.command("sandbox", help=HELP)
@options.option(
    "--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any free one"
)
@behaviour_options
@options.option(
    "--clock-offset",
    default="0s",
    show_default=True,
    metavar="TIME",
    help="how far the sandbox's clock is ahead; -90s: behind",
)
@options.option(
    "--second-bind",
    type=options.Choice(["same", "error"]),
    default="same",
    show_default=True,
    help="answer to a second bind: the same record, or code 13000901",
)
@options.option(
    "--second-bind-status",
    type=options.Choice(["200", "400", "409"]),
    default="200",
    show_default=True,
    help="HTTP status of that code",
)
@options.option(
    "--backup-lock",
    default="0s",
    show_default=True,
    metavar="TIME",
    help="a device is under a backup lock for so long after its bind: an unbind is answered with "
    "409 and code 13000902",
)
@options.option("--accept-token", metavar="TOKEN", help="the only token accepted  [default: any]")
@options.path("--credentials", help="what else is accepted, see below  [default: any token]")
@options.option(
    "--session-calls",
    type=click.IntRange(min=1),
    metavar="N",
    help="a session's token dies after N calls  [default: never for that]",
)
@options.option(
    "--session-idle",
    default="20m",
    show_default=True,
    metavar="TIME",
    help="a session's token dies when no call came with it for so long",
)
@options.option(
    "--tls",
    is_flag=True,
    help="serve https with a certificate of a throwaway authority (needs openssl); prints "
    "`ca FILE` after the ready line",
)
@options.path("--state", help="keep bindings in a file  [default: memory]")
@options.path("--journal", help="one JSON line per request")
@options.option("--verbose", is_flag=True, help="say what was seen when it stops")
def command(
    *,
    port: int,
    limits: tuple[str, ...],
    faults: tuple[str, ...],
    seed: int | None,
    clock_offset: str,
    second_bind: str,
    second_bind_status: str,
    backup_lock: str,
    accept_token: str | None,
    credentials: Path | None,
    session_calls: int | None,
    session_idle: str,
    tls: bool,
    state: Path | None,
    journal: Path | None,
    verbose: bool,
) -> None:
    """Serve until a signal comes."""
    with explained():
        chosen = replace(
            behaviour_from(limits, faults, seed),
            second_bind="error" if second_bind == "error" else "same",
            second_bind_status=int(second_bind_status),
            backup_lock_s=_time("--backup-lock", backup_lock),
            token=accept_token,
            state=state,
            journal=journal,
            clock_offset_s=_time("--clock-offset", clock_offset),
            credentials=read_credentials(
                credentials,
                session_calls=session_calls,
                session_idle_s=_time("--session-idle", session_idle),
            ),
            tls=tls,
        )

        async def work(stop: StopSignal) -> ExitCode:
            async with Sandbox(chosen, port=port) as sandbox:
                click.echo(f"ready {sandbox.url}")
                if tls:
                    click.echo(f"ca {sandbox.ca_file}")
                await stop.wait()
                if verbose:
                    say(f"{counted(len(sandbox.bindings), 'bindings')}; {dict(sandbox.counts)}")
            return ExitCode.DONE

        sys.exit(run_until_done(work))


def _time(flag: str, text: str) -> float:
    try:
        return parse_time(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None
