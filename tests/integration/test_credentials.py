"""Whole runs with every kind of credentials, against the sandbox's own idea of them."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from bulkbind import run
from bulkbind.clock import SystemClock
from bulkbind.engine import StopReason, StopSignal
from bulkbind.errors import UsageError
from bulkbind.model import Status
from bulkbind.sandbox import Credentials, Sandbox, SandboxOptions, parse_fault
from bulkbind.settings import (
    ApiSettings,
    AuthSettings,
    ReadbackSettings,
    SendSettings,
    Settings,
)
from tests.support.manifests import fleet, write_csv
from tests.support.processes import read_results

if TYPE_CHECKING:
    from pathlib import Path

    from bulkbind.app.session.sending import RunResult

ROOT_TOKEN = "refresh-root-7c1e55"
SECRET = "app-secret-91d0aa"
PASSWORD = "pass-word-4b22c9"


class SkewedClock(SystemClock):
    """A machine whose wall clock is wrong."""

    def __init__(self, off_s: float) -> None:
        self._off = timedelta(seconds=off_s)

    def utc_now(self) -> datetime:
        return super().utc_now() + self._off


@dataclass
class Place:
    """A sandbox, and a folder to run in."""

    folder: Path
    sandbox: Sandbox

    @property
    def session_file(self) -> Path:
        return self.folder / "ledger.db.session"

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.sandbox.counts)

    def journal(self) -> list[dict[str, Any]]:
        text = (self.folder / "journal.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    async def run(self, rows, *, clock=None, stop=None, concurrency=16, **auth) -> RunResult:
        """Run a manifest of these rows, every one sent again."""
        manifest = write_csv(self.folder / "fleet.csv", rows)
        settings = Settings(
            api=ApiSettings(endpoint=self.sandbox.url),
            auth=AuthSettings(**auth),
            send=SendSettings(concurrency=concurrency, backoff_base=0.01),
            doubt=ReadbackSettings(readback_settle=0.05),
            ledger=self.folder / "ledger.db",
            out=self.folder / "report",
        )
        result: RunResult = await run([manifest], settings, clock=clock, stop=stop)
        return result


@asynccontextmanager
async def place(folder: Path, credentials: Credentials, **options):
    """Serve a sandbox that takes these credentials and no others."""
    ordered = SandboxOptions(
        credentials=credentials, journal=folder / "journal.jsonl", seed=1, **options
    )
    async with Sandbox(ordered) as sandbox:
        yield Place(folder, sandbox)


def counts_of(result: RunResult) -> dict[str, int]:
    """Return the rows by status."""
    assert result.report is not None
    return result.report.summary.counts


def reasons_of(folder: Path) -> dict[str, set[str]]:
    """Return, for each user with failed rows, what is said of them."""
    found: dict[str, set[str]] = {}
    for row in read_results(folder):
        if row["status"] == "failed":
            found.setdefault(row["user_id"], set()).add(row["message"] + row["detail"])
    return found


def sent_after_renewal(journal) -> list[str]:
    """Return the trace ids of requests that were sent with a token after its renewal was asked for.

    Trace ids count up in the order of sending.
    """
    renewals = [line["trace_id"] for line in journal if line["result"] == "refreshToken"]
    late = []
    for number, renewed_at in enumerate(renewals[1:], 1):
        name = f"session {number}"
        late += [
            line["trace_id"]
            for line in journal
            if line["credential"] == name and line["trace_id"] > renewed_at
        ]
    return late


# --- session --------------------------------------------------------------------------------------


async def test_a_session_that_dies_again_and_again_is_renewed_once_each_time(tmp_path):
    """No row fails, one renewal for each death, and nothing is sent with a token known dead."""
    known = Credentials(refresh_tokens={ROOT_TOKEN: "any"}, session_calls=40)

    async with place(tmp_path, known) as at:
        result = await at.run(fleet(400, users=40), refresh_token=SecretStr(ROOT_TOKEN))
        counts = at.counts

    journal = at.journal()
    deaths = {line["credential"] for line in journal if line["status"] == 401}
    assert counts_of(result) == {"bound": 400}
    assert counts["refreshes"] == len(deaths) + 1
    assert counts["refreshes"] >= 10
    assert sent_after_renewal(journal) == []
    assert all(row["attempts"] == "1" for row in read_results(tmp_path / "report"))


@pytest.mark.parametrize("calls", [1, 3])
async def test_a_session_shorter_than_the_concurrency_still_gets_through(tmp_path, calls):
    """A token that dies under most of what is in flight fails no row."""
    known = Credentials(refresh_tokens={ROOT_TOKEN: "any"}, session_calls=calls)

    async with place(tmp_path, known) as at:
        result = await at.run(
            fleet(24, users=24), concurrency=6, refresh_token=SecretStr(ROOT_TOKEN)
        )

    assert counts_of(result) == {"bound": 24}


async def test_the_kept_session_wins_over_the_stale_variable(tmp_path):
    """The second night works, although the variable holds a refresh token that was used."""
    known = Credentials(refresh_tokens={ROOT_TOKEN: "any"}, session_calls=10)

    async with place(tmp_path, known) as at:
        await at.run(fleet(15), refresh_token=SecretStr(ROOT_TOKEN))
        first = at.counts["refreshes"]
        result = await at.run(fleet(30), refresh_token=SecretStr(ROOT_TOKEN))
        counts = at.counts

    assert counts_of(result)["bound"] == 15
    assert result.exit_code == 0
    assert counts["refreshes"] > first
    assert at.session_file.stat().st_mode & 0o777 == 0o600
    assert ROOT_TOKEN not in at.session_file.read_text(encoding="utf-8")


async def test_a_new_refresh_token_of_the_operator_wins_over_a_kept_session(tmp_path):
    """A session of other credentials is left alone."""
    known = Credentials(refresh_tokens={ROOT_TOKEN: "any", "another-root-01": "any"})

    async with place(tmp_path, known) as at:
        await at.run(fleet(3), refresh_token=SecretStr(ROOT_TOKEN))
        at.session_file.write_text(
            at.session_file.read_text(encoding="utf-8").replace("AT ", "AT stale"), encoding="utf-8"
        )
        result = await at.run(fleet(6), refresh_token=SecretStr("another-root-01"))
        counts = at.counts

    assert counts_of(result)["bound"] == 3
    assert counts["refreshes"] == 2
    assert "refused" not in counts


async def cut_off_before_keeping(at: Place, **auth) -> None:
    """Leave what a crash between the server's rotation and our writing leaves."""
    await at.run(fleet(2), refresh_token=SecretStr(ROOT_TOKEN), **auth)
    before = at.session_file.read_text(encoding="utf-8")
    # A token that holds no longer makes the next run renew.
    await at.run(fleet(30), refresh_token=SecretStr(ROOT_TOKEN), **auth)
    assert at.session_file.read_text(encoding="utf-8") != before
    at.session_file.write_text(before, encoding="utf-8")


async def test_a_lost_rotation_stops_the_run_and_says_so(tmp_path):
    """Without an account: 3, nothing failed, and the text says what probably happened."""
    known = Credentials(refresh_tokens={ROOT_TOKEN: "any"}, session_calls=10)

    async with place(tmp_path, known) as at:
        await cut_off_before_keeping(at)
        result = await at.run(fleet(60), refresh_token=SecretStr(ROOT_TOKEN))

    assert result.exit_code == 3
    assert counts_of(result).get("failed") is None
    assert result.report is not None
    reason = result.report.summary.stop_reason
    assert "perhaps used up by a run that was cut off" in reason
    assert "BULKBIND_REFRESH_TOKEN" in result.hint


@pytest.mark.slow
async def test_a_lost_rotation_is_made_good_by_a_login(tmp_path):
    """With account and password the run logs in, and the next one finds that session."""
    known = Credentials(
        refresh_tokens={ROOT_TOKEN: "any"}, accounts={"ops": PASSWORD}, session_calls=10
    )
    account = {"account": "ops", "password": SecretStr(PASSWORD)}

    async with place(tmp_path, known) as at:
        await cut_off_before_keeping(at, **account)
        result = await at.run(fleet(60), refresh_token=SecretStr(ROOT_TOKEN), **account)
        logins = at.counts["logins"]
        again = await at.run(fleet(90), refresh_token=SecretStr(ROOT_TOKEN), **account)
        counts = at.counts

    assert result.exit_code == again.exit_code == 0
    assert logins == counts["logins"] == 1


@pytest.mark.parametrize(("token", "renewals"), [("token-of-today", 0), ("token-of-old", 1)])
async def test_a_token_beside_a_refresh_token_is_begun_with(tmp_path, token, renewals):
    """As long as it holds nothing is renewed; once it is refused the refresh token takes over."""
    known = Credentials(tokens={"token-of-today": "any"}, refresh_tokens={ROOT_TOKEN: "any"})

    async with place(tmp_path, known) as at:
        result = await at.run(fleet(9), token=SecretStr(token), refresh_token=SecretStr(ROOT_TOKEN))
        counts = at.counts

    assert counts_of(result) == {"bound": 9}
    assert counts.get("refreshes", 0) == renewals


async def test_a_session_begins_with_a_login(tmp_path):
    """Account and password are enough; renewals go by the refresh token that the login brought."""
    known = Credentials(accounts={"ops": PASSWORD}, session_calls=10)

    async with place(tmp_path, known) as at:
        result = await at.run(fleet(35), account="ops", password=SecretStr(PASSWORD))
        counts = at.counts

    assert counts_of(result) == {"bound": 35}
    assert counts["logins"] == 1
    assert counts["refreshes"] >= 3


async def test_a_wrong_password_stops_at_once(tmp_path):
    """One login, no bind, exit code 3, and the words of the server."""
    async with place(tmp_path, Credentials(accounts={"ops": PASSWORD})) as at:
        result = await at.run(fleet(9), account="ops", password=SecretStr("wrong-password"))

    assert result.exit_code == 3
    assert [line["result"] for line in at.journal()] == ["refused"]
    assert result.report is not None
    assert "the password is wrong" in result.report.summary.stop_reason
    assert "wrong-password" not in (tmp_path / "report/summary.json").read_text(encoding="utf-8")


async def test_a_session_is_renewed_ahead_of_its_end(tmp_path):
    """A kept session near its end is renewed before anything is sent: nothing is refused."""
    known = Credentials(refresh_tokens={ROOT_TOKEN: "any"})

    async with place(tmp_path, known) as at:
        await at.run(fleet(2), refresh_token=SecretStr(ROOT_TOKEN))
        # 29 minutes later the token, good for 30, is not begun with.
        late = SkewedClock(29.6 * 60)
        result = await at.run(fleet(6), clock=late, refresh_token=SecretStr(ROOT_TOKEN))
        counts = at.counts

    assert counts_of(result)["bound"] == 4
    assert counts["refreshes"] == 2
    assert "ended_token" not in counts


async def test_a_session_of_one_user_fails_the_others_alone(tmp_path):
    """Rows of users whom a session does not serve fail with that reason; its own are bound."""
    known = Credentials(refresh_tokens={ROOT_TOKEN: "user_0"})
    rows = [
        (f"SN{n}", "user_0" if n < 30 or n % 3 else "user_9", "Van", "iOS 18") for n in range(60)
    ]

    async with place(tmp_path, known) as at:
        result = await at.run(rows, concurrency=4, refresh_token=SecretStr(ROOT_TOKEN))

    reasons = reasons_of(tmp_path / "report")
    assert counts_of(result) == {"bound": 50, "failed": 10}
    assert set(reasons) == {"user_9"}
    assert all("another user's" in reason for reason in reasons["user_9"])


async def test_a_session_file_that_others_can_read_is_refused(tmp_path):
    """The error names the file and the cure; nothing is sent."""
    known = Credentials(refresh_tokens={ROOT_TOKEN: "any"})

    async with place(tmp_path, known) as at:
        await at.run(fleet(2), refresh_token=SecretStr(ROOT_TOKEN))
        at.session_file.chmod(0o640)
        before = at.counts["requests"]
        with pytest.raises(UsageError, match="can be read by others") as error:
            await at.run(fleet(6), refresh_token=SecretStr(ROOT_TOKEN))

        assert at.counts["requests"] == before
    assert error.value.hint == f"chmod 600 {at.session_file}"


# --- app ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("off_s", "most_refused"),
    [(-1200, 1), (-1, 0), (0, 0), (1, 0), (1200, 1), (3 * 86_400, 1), (-3 * 86_400, 1)],
    ids=["-20 min", "-1 s", "right", "+1 s", "+20 min", "+3 days", "-3 days"],
)
async def test_signed_binds_with_a_wrong_local_clock(tmp_path, off_s, most_refused):
    """The first exchange measures the clock: every request after it is signed within the window."""
    async with place(tmp_path, Credentials(apps={"app1": SECRET})) as at:
        result = await at.run(
            fleet(60, users=20),
            clock=SkewedClock(off_s),
            app_id="app1",
            app_secret=SecretStr(SECRET),
        )
        counts = at.counts

    assert counts_of(result) == {"bound": 60}
    assert counts.get("refused", 0) <= most_refused
    assert counts["requests"] == 60 + counts.get("refused", 0)
    assert {line["credential"] for line in at.journal()} == {"app app1"}


async def test_a_wrong_app_secret_stops_the_run(tmp_path):
    """One request, exit code 3, nothing failed, and the hint speaks of the app."""
    async with place(tmp_path, Credentials(apps={"app1": SECRET})) as at:
        result = await at.run(fleet(50), app_id="app1", app_secret=SecretStr("not-the-secret"))
        counts = at.counts

    assert result.exit_code == 3
    assert counts_of(result) == {"pending": 50}
    assert counts["requests"] == 1
    assert "app id and secret" in result.hint


# --- per user -------------------------------------------------------------------------------------


def users_file(folder: Path, text: str, name: str = "users.csv") -> Path:
    """Write a private file of users and return its path."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


async def test_each_user_has_a_token_of_its_own(tmp_path):
    """Tokens and sessions side by side; a user's missing or dead token fails its rows alone."""
    known = Credentials(
        tokens={"token-of-user-0": "user_0", "token-of-user-2": "user_2"},
        refresh_tokens={"refresh-of-user-1": "user_1"},
        session_calls=5,
    )
    path = users_file(
        tmp_path,
        "user_id,token,refresh_token\n"
        "user_0,token-of-user-0,\n"
        "user_1,,refresh-of-user-1\n"
        "user_2,token-of-user-2,\n"
        "user_3,a-dead-token,\n",
    )

    async with place(tmp_path, known) as at:
        result = await at.run(fleet(100, users=5), users_file=path)

    reasons = reasons_of(tmp_path / "report")
    assert counts_of(result) == {"bound": 60, "failed": 40}
    assert set(reasons) == {"user_3", "user_4"}
    assert any("decrypt token fail" in reason for reason in reasons["user_3"])
    assert all("holds no token for this user" in reason for reason in reasons["user_4"])
    dead = [line for line in at.journal() if line["user_id"] == "user_3"]
    assert len(dead) <= 16  # what was in flight when the first answer came
    assert not [line for line in at.journal() if line["user_id"] == "user_4"]
    assert result.exit_code == 1


async def test_the_canary_walks_over_users_with_dead_tokens(tmp_path):
    """Rows of users whose tokens are dead come first: they fail, the others are bound."""
    path = users_file(
        tmp_path,
        "dead_1: dead-token-1\ndead_2: {token: dead-token-2}\nuser_0: token-of-user-0\n",
        "users.yaml",
    )
    rows = [(f"A{n}", f"dead_{n % 3 + 1}", "Van", "iOS 18") for n in range(21)]

    async with place(tmp_path, Credentials(tokens={"token-of-user-0": "user_0"})) as at:
        result = await at.run(rows + fleet(5, users=1), users_file=path)

    assert counts_of(result) == {"failed": 21, "bound": 5}
    assert sum(line["status"] == 401 for line in at.journal()) == 2


async def test_when_no_users_token_is_taken_it_is_the_set_up(tmp_path):
    """Five users refused one after the other: the run stops with 3, and nobody has failed."""
    text = "".join(f"user_{n},dead-token-{n}\n" for n in range(20))
    path = users_file(tmp_path, f"user_id,token\n{text}")

    async with place(tmp_path, Credentials(tokens={"another-token": "any"})) as at:
        result = await at.run(fleet(40, users=20), users_file=path)
        counts = at.counts

    assert result.exit_code == 3
    assert counts_of(result) == {"pending": 40}
    assert counts["requests"] == 5


# --- tokens that others renew ---------------------------------------------------------------------


async def test_a_token_file_is_read_again_when_its_token_has_ended(tmp_path):
    """Whoever replaces the file renews the token; the run goes on without a failure."""
    path = tmp_path / "token"
    path.write_text("token-of-monday", encoding="utf-8")
    path.chmod(0o600)
    known = Credentials(tokens={"token-of-tuesday": "any"})

    class Replacing(SystemClock):
        """Replaces the file after the start, as another program would."""

        def utc_now(self) -> datetime:
            if (tmp_path / "ledger.db").exists():
                path.write_text("token-of-tuesday\n", encoding="utf-8")
            return super().utc_now()

    async with place(tmp_path, known) as at:
        first = await at.run(fleet(9), token_file=path)
        second = await at.run(fleet(9), token_file=path, clock=Replacing())

    assert first.exit_code == 3
    assert "gives no other" in str(first.report and first.report.summary.stop_reason)
    assert counts_of(second) == {"bound": 9}


async def test_a_token_command_is_run_again_when_its_token_has_ended(tmp_path):
    """A program prints the token, a new one each time; blanks and quotes in arguments are safe."""
    counter = tmp_path / "a file with 'blanks'"
    counter.write_text("0", encoding="utf-8")
    code = (
        "import sys, pathlib; p = pathlib.Path(sys.argv[1]); n = int(p.read_text()) + 1; "
        "p.write_text(str(n)); print(f'token-number-{n}')"
    )
    known = Credentials(tokens={"token-number-2": "any"})

    async with place(tmp_path, known) as at:
        result = await at.run(fleet(9), token_command=(sys.executable, "-c", code, str(counter)))

    assert counts_of(result) == {"bound": 9}
    assert counter.read_text(encoding="utf-8") == "2"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit(7)", "ended with 7"),
        ("print()", "is empty"),
        ("import sys; sys.stdout.buffer.write(b'\\xff')", "not UTF-8"),
        ("while True: print('x' * 9999)", "more than 64 KiB"),
        ("import subprocess; subprocess.run(['cat', '/dev/zero'])", "more than 64 KiB"),
    ],
)
async def test_a_token_command_that_fails_stops_the_run(tmp_path, code, words):
    """Exit code 3 before anything is sent, with what went wrong."""
    async with place(tmp_path, Credentials(tokens={"x-token": "any"})) as at:
        result = await at.run(fleet(3), token_command=(sys.executable, "-c", code))
        counts = at.counts

    assert result.exit_code == 3
    assert words in str(result.report and result.report.summary.stop_reason)
    assert "requests" not in counts


# --- trouble --------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_an_endpoint_that_is_away_at_the_start_is_said(tmp_path):
    """A session that cannot be begun since nobody listens: 3 after a few tries, nothing failed."""
    async with place(tmp_path, Credentials(refresh_tokens={ROOT_TOKEN: "any"})) as at:
        pass
    result = await at.run(fleet(3), refresh_token=SecretStr(ROOT_TOKEN))

    assert result.exit_code == 3
    assert counts_of(result) == {"pending": 3}
    assert "cannot be reached" in str(result.report and result.report.summary.stop_reason)


async def test_rows_in_doubt_are_settled_under_a_renewed_session(tmp_path):
    """Lists are read under a session that dies between them; every row ends."""
    known = Credentials(refresh_tokens={ROOT_TOKEN: "any"}, session_calls=7)
    faults = (parse_fault("reset-after=0.3"), parse_fault("reset-before=0.1"))
    async with place(tmp_path, known, faults=faults) as at:
        result = await asyncio.wait_for(
            at.run(fleet(60), refresh_token=SecretStr(ROOT_TOKEN)), timeout=60
        )

    assert set(counts_of(result)) <= {Status.BOUND}


@pytest.mark.slow
async def test_a_stop_while_a_renewal_hangs_ends_the_run(tmp_path, monkeypatch):
    """Nobody answers the renewal: the run ends all the same, 3, and no row is in doubt."""
    monkeypatch.setattr("bulkbind.koodrive.auth.renewing.LANDING_S", 0.2)
    silent = asyncio.Event()

    async def say_nothing(_reader, writer) -> None:
        await silent.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    settings = Settings(
        api=ApiSettings(endpoint=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"),
        auth=AuthSettings(refresh_token=SecretStr(ROOT_TOKEN)),
        send=SendSettings(concurrency=4, grace=0.2),
        ledger=tmp_path / "ledger.db",
        out=tmp_path / "report",
    )
    stop = StopSignal()
    running = asyncio.create_task(
        run([write_csv(tmp_path / "fleet.csv", fleet(9))], settings, stop=stop)
    )
    while not (tmp_path / "ledger.db.session.lock").exists():
        await SystemClock().sleep(0.02)
    stop.set(StopReason("the operator has other plans"))
    result = await asyncio.wait_for(running, timeout=30)
    silent.set()
    server.close()

    assert result.exit_code == 3
    assert counts_of(result) == {"pending": 9}


async def test_a_stop_ends_a_token_command_at_once(tmp_path):
    """Also one whose child goes on: no row waits for it, since none has left."""
    stop = StopSignal()
    command = ("sh", "-c", f"echo > {tmp_path}/began; sleep 60; echo token")
    async with place(tmp_path, Credentials(tokens={"x-token": "any"})) as at:
        running = asyncio.create_task(at.run(fleet(3), stop=stop, token_command=command))
        while not (tmp_path / "began").exists():
            await SystemClock().sleep(0.02)
        stop.set(StopReason("the operator has other plans"))
        result = await asyncio.wait_for(running, timeout=10)

    assert result.exit_code == 3
    assert counts_of(result) == {"pending": 3}
