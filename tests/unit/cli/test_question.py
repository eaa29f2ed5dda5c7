"""The question before anything is sent: how many, where, as whom; and how it looks."""

from __future__ import annotations

import io
import sys

import pytest

from bulkbind.cli import console
from bulkbind.cli.consent import Consent
from bulkbind.cli.console import Console
from bulkbind.errors import DeclinedError, ExitCode, UsageError
from bulkbind.model import Forecast, Plan, PlanWord, UndoPlan
from bulkbind.settings import FOUND, Loaded, Settings, load

HOST = "intl.myhuaweicloud-koodrive.com"
UNBOUND = "1 of them unbound from other users first"
REFRESH = "the refresh token from BULKBIND_REFRESH_TOKEN"
INTL = f"https://{HOST}"


def plan(binds=3, users=2, unbinds=0):
    """Return a plan of so many devices."""
    counts = dict.fromkeys(map(str, PlanWord), 0) | {"bind": binds}
    forecast = Forecast(
        binds=binds, lists=0, per_s=None, source="", unbinds=unbinds, moves=unbinds, users=users
    )
    return Plan(
        manifests=("fleet.csv",), counts=counts, users={}, user_count=users, moved=(), problems=(),
        forecast=forecast, digest="", mark="",
    )  # fmt: skip


def settings(endpoint=INTL, **given):
    """Return loaded settings with a token, unless others are given."""
    values = {"endpoint": endpoint} | (given or {"auth.token": "any"})
    return load(None, values)


@pytest.fixture
def asked(monkeypatch):
    """Return what is asked; every answer is a yes."""
    seen = []

    def ask(what, question, _unanswered, *, is_grave=False):
        seen.append((what, question, is_grave))
        return "y"

    monkeypatch.setattr(console, "ask", ask)
    return seen


@pytest.mark.parametrize(
    ("given", "made", "question"),
    [
        (
            {"auth.account": "a@b.c", "auth.password": "pw-of-a"},
            plan(3000, 12),
            f"Bind 3,000 devices of 12 users at {HOST} as session of a@b.c? [y/N]",
        ),
        (
            {},
            plan(1, 1),
            f"Bind 1 device of 1 user at {HOST} with the token from BULKBIND_TOKEN? [y/N]",
        ),
        (
            {"auth.app_id": "app-7", "auth.app_secret": "s-e-c-r"},
            plan(2, 1, unbinds=1),
            f"Bind 2 devices of 1 user, {UNBOUND}, at {HOST} as app app-7? [y/N]",
        ),
        (
            {"auth.refresh_token": "r-e-f-r"},
            plan(1, 1),
            f"Bind 1 device of 1 user at {HOST} as session of {REFRESH}? [y/N]",
        ),
        (
            {"auth.token_command": ["vault", "read", "s3cret"]},
            plan(1, 1),
            f"Bind 1 device of 1 user at {HOST} with the token from `vault`? [y/N]",
        ),
    ],
)
def test_it_names_how_many_where_and_as_whom(asked, given, made, question):
    """No secret stands in it, nor what may hold one."""
    agreed = Console(asks=True, consent=Consent(settings(**given))).confirm(made)

    assert agreed
    assert asked[0][1:] == (question, True)


def test_a_sandbox_looks_different(asked):
    """It is called one, and does not stand out."""
    loaded = settings("http://127.0.0.1:8765")
    Console(asks=True, consent=Consent(loaded)).confirm(plan())

    [(_, question, is_grave)] = asked
    assert "at the sandbox 127.0.0.1:8765 with the token" in question
    assert not is_grave


def test_quiet_has_one_line_of_the_plan(asked):
    """So that a question is never about nothing."""
    Console(is_quiet=True, asks=True, consent=Consent(settings())).confirm(plan())

    [(what, *_)] = asked
    assert what.startswith("fleet.csv: ")
    assert "\n" not in what


def test_nothing_to_send_is_not_asked(asked):
    """There is nothing to agree to."""
    assert Console(asks=True, consent=Consent(settings())).confirm(plan(0, 0))
    assert asked == []


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("is_grave", "environ", "shown"),
    [
        (True, {"TERM": "xterm"}, "\x1b[1;33mSure?\x1b[0m "),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, "Sure? "),
        (True, {"TERM": "dumb"}, "Sure? "),
        (False, {"TERM": "xterm"}, "Sure? "),
    ],
)
def test_production_stands_out_where_colours_may(monkeypatch, is_grave, environ, shown):
    """Whoever wants none gets none."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))

    assert console.ask("", "Sure?", "nothing was sent", is_grave=is_grave) == "y"
    assert terminal.getvalue() == shown


def test_a_long_question_is_broken_at_words(monkeypatch):
    """As all else is; the answer is typed behind it."""
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    words = ["word"] * 30

    console.ask("", " ".join(words), "nothing was sent")
    shown = terminal.getvalue()
    assert shown.split() == words
    assert max(map(len, shown.split("\n"))) <= 80


# --- settings that nobody named ------------------------------------------------------------------


def found(**values):
    """Return settings of a file that was found by itself."""
    loaded = load(None, {"endpoint": INTL, "auth.token": "any"} | values)
    return Loaded(loaded.settings, {}, FOUND, frozenset({"endpoint", *values}))


def test_a_yes_to_the_run_is_consent(asked):
    """Then nothing more is asked, and all of the file counts."""
    given: list[Settings] = []
    consent = Consent(found(notify_command="tell", log_file="l.log"), given.append)
    before = consent.settings
    assert (before.end.notify_command, before.log.log_file) == (None, None)
    teller = Console(asks=True, consent=consent)

    assert teller.confirm(plan())
    teller.before_credentials()

    assert len(asked) == 1
    assert consent.settings.end.notify_command == "tell"
    assert given == [consent.settings]
    assert consent.held_text() == ""


@pytest.mark.parametrize(("typed", "is_agreed"), [("1,100", True), ("1100", True), ("11", False)])
def test_the_number_of_an_undo_is_consent(monkeypatch, typed, is_agreed):
    """The question says where and as whom, so nothing more is asked; another number is a no."""
    asked = []

    def ask(_what, question, _unanswered, *, is_grave=False):
        asked.append((question, is_grave))
        return typed

    monkeypatch.setattr(console, "ask", ask)
    consent = Consent(found())
    teller = Console(asks=True, consent=consent)

    assert teller.confirm_undo(UndoPlan("r1", 1100, 0, 0, 0)) == is_agreed
    assert consent.is_given == is_agreed
    question = f"Type 1100 to unbind them at {HOST} with the token from BULKBIND_TOKEN:"
    assert asked == [(question, True)]


def test_what_is_declined_is_no_error(capsys):
    """Whoever says no reads the same of every command, without `error`."""
    told = ("declined: nothing was sent", "")
    console.fail(*told, ExitCode.DECLINED)
    console.fail(*told)

    assert capsys.readouterr().err == f"{told[0]}\nerror: {told[0]}\n"


def test_without_a_yes_the_credentials_stay(monkeypatch):
    """No keeps them back; nobody to ask does, too."""
    monkeypatch.setattr(console, "ask", lambda *_args, **_more: "n")
    with pytest.raises(DeclinedError, match="declined: nothing was sent"):
        Console(asks=True, consent=Consent(found())).before_credentials()
    with pytest.raises(UsageError, match="nobody has named it"):
        Console(asks=False, consent=Consent(found())).before_credentials()


def test_a_ledger_needs_consent():
    """It says what is bound already, so a planted one would keep rows from being sent."""
    loaded = load(None, {"endpoint": INTL, "ledger": "theirs.db"})
    consent = Consent(Loaded(loaded.settings, {}, FOUND, frozenset({"ledger"})))

    with pytest.raises(UsageError, match="nothing is sent with credentials"):
        consent.require(can_ask=False)


def test_a_file_that_leads_nowhere_needs_no_consent():
    """The rest of it is about rows and pace."""
    loaded = load(None, {"endpoint": INTL, "rate": "5"})
    consent = Consent(Loaded(loaded.settings, {}, FOUND, frozenset({"rate"})))

    assert not consent.is_needed
