"""Where the ledger is: a file per scheme, host and port; that of an earlier version is found."""

from __future__ import annotations

import sys
from contextlib import closing

import pytest
from pydantic import SecretStr

import bulkbind
from bulkbind.app.rehearse import rehearse
from bulkbind.app.session.listener import Listener
from bulkbind.errors import LedgerError
from bulkbind.ledger import ledger_of
from bulkbind.ledger.opening import connect
from bulkbind.sandbox import Sandbox
from bulkbind.settings import ApiSettings, AuthSettings, Settings, ledger_name
from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv
from tests.support.processes import sandbox, sandbox_bindings


class Noted(Listener):
    """Keeps what is said."""

    def __init__(self):
        self.notices = []

    def notice(self, text):
        self.notices.append(text)


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Return the folder of the ledgers."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "bulkbind"


def settings_for(endpoint):
    """Return settings against an endpoint."""
    return Settings(api=ApiSettings(endpoint=endpoint), auth=AuthSettings(token=SecretStr("any")))


def earlier(state, name, endpoint, *, is_used=True):
    """Leave the ledger that an earlier version has made."""
    with closing(connect(state / name, endpoint)) as db:
        if is_used:
            db.execute("PRAGMA foreign_keys = OFF")
            db.execute("INSERT INTO users VALUES (1, 'u')")
            db.execute("INSERT INTO devices VALUES (1, 1, 'A', NULL, NULL)")
            db.execute("INSERT INTO stored_bindings VALUES (1, '1', '', '', 1, 0, 0)")
    return state / name


async def test_the_night_after_an_upgrade_sends_nothing(tmp_path, state):
    """The ledger of the earlier version is used, and that is said once."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(3))
    async with Sandbox() as served:
        settings = settings_for(served.url)
        old = state / f"{served.url.removeprefix('http://').replace(':', '_')}.db"
        await bulkbind.run([manifest], settings.model_copy(update={"ledger": old}))
        before = served.counts["requests"]
        listener = Noted()

        ended = await bulkbind.run([manifest], settings, listener=listener)

        assert ended.report is not None
        assert ended.report.summary.counts == {"skipped": 3}
        assert served.counts["requests"] == before
        assert [path.name for path in state.glob("*.db")] == [old.name]
        said = f"the ledger is {old}, as an earlier version called it"
        assert listener.notices.count(said) == 1
        assert len(bulkbind.runs(settings)) == 2


def test_today_s_name_comes_first(state):
    """Once it is there, the earlier one is no more looked at."""
    earlier(state, "a.example.db", "https://a.example")
    settings = settings_for("https://a.example")
    assert ledger_of(settings).name == "a.example.db"

    connect(settings.ledger_path(), "https://a.example").close()
    assert ledger_of(settings).name == "https-a.example-443.db"


def test_another_endpoint_s_file_is_left_alone(state):
    """Earlier versions had one name for http and https: it belongs to one of them."""
    earlier(state, "127.0.0.1_8443.db", "http://127.0.0.1:8443")

    assert ledger_of(settings_for("https://127.0.0.1:8443")).name == "https-127.0.0.1-8443.db"
    assert ledger_of(settings_for("http://127.0.0.1:8443")).name == "127.0.0.1_8443.db"


def test_a_damaged_earlier_ledger_is_no_reason_to_begin_anew(state):
    """It may know what is bound, so the command ends; an empty file knows nothing."""
    state.mkdir()
    (state / "a.example.db").write_bytes(b"")
    assert ledger_of(settings_for("https://a.example")).name == "https-a.example-443.db"

    (state / "a.example.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(LedgerError, match=r"a\.example\.db is not a ledger"):
        ledger_of(settings_for("https://a.example"))


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("https://a.example", "https-a.example-443"),
        ("https://a.example:443", "https-a.example-443"),
        ("https://a.example:8443", "https-a.example-8443"),
        ("http://localhost", "http-localhost-80"),
        ("http://[::1]:80", "http-__1-80"),
    ],
)
def test_the_name_tells_endpoints_apart(endpoint, name):
    """The port that is not written is the usual one."""
    assert ledger_name(endpoint) == name


def test_a_port_that_goes_without_saying_is_the_same_endpoint(tmp_path):
    """A ledger made with it takes the endpoint without it."""
    earlier(tmp_path, "l.db", "https://a.example:443")

    connect(tmp_path / "l.db", "https://a.example").close()
    with pytest.raises(LedgerError, match="belongs to"):
        connect(tmp_path / "l.db", "http://a.example")


# --- without an endpoint -------------------------------------------------------------------------


async def test_a_rehearsal_needs_no_endpoint(tmp_path):
    """It has one of its own."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(3))

    ended = await rehearse([manifest], Settings())

    assert ended.report is not None
    assert ended.report.summary.counts == {"bound": 3}


async def test_a_plan_needs_no_endpoint(tmp_path, state):
    """What is bound is then not known, which is said; a ledger that is named is looked at."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(3))
    listener = Noted()

    found = await bulkbind.plan([manifest], Settings(), listener=listener)

    assert found.counts["bind"] == 3
    assert listener.notices == ["no endpoint is set, so nothing is known of what is bound there"]
    assert not state.exists()

    unmade = Settings(ledger=tmp_path / "none.db")
    assert (await bulkbind.plan([manifest], unmade)).counts["bind"] == 3


def test_both_are_so_on_the_command_line(tmp_path):
    """Whatever else a command wants of an endpoint."""
    write_csv(tmp_path / "fleet.csv", fleet(3))

    assert called("plan", "fleet.csv", home=tmp_path).returncode == 0
    assert called("run", "fleet.csv", "--rehearse", home=tmp_path).returncode == 0
    assert called("plan", "fleet.csv", "--refresh", home=tmp_path).returncode == 2


# --- without an extra ----------------------------------------------------------------------------


@pytest.fixture
def _without_extras(monkeypatch):
    for name in ("prometheus_client", "xlsxwriter"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.slow
@pytest.mark.usefixtures("_without_extras")
def test_a_night_is_not_lost_for_its_metrics(tmp_path):
    """The devices are bound; what to install is told, by what this installation declares."""
    write_csv(tmp_path / "fleet.csv", fleet(3))
    with sandbox(home=tmp_path) as url:
        line = ("run", "fleet.csv", "--endpoint", url, "--metrics-file", "m.prom", "--quiet")
        done = called(*line, home=tmp_path)
        bound = len(sandbox_bindings(url))

    assert (done.returncode, bound) == (0, 3), done.stderr
    assert f"`{sys.executable} -m pip install 'prometheus-client>=" in done.stderr
    assert "bulkbind[" not in done.stderr
