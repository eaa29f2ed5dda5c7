"""`bundle`: everything that a ticket needs, nothing that is secret."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import stat
import tarfile
from urllib.parse import quote

import pytest

from bulkbind.app.bundle import Mask
from bulkbind.model.fields import NAME, OPTIONAL_FIELDS
from tests.support.manifests import fleet, write_csv
from tests.support.processes import bulkbind, ledger_of, sandbox

TOKEN = "very-secret-token"
HOOK = "https://hooks.example.test/services/T0/B0/very-secret-path"
ROWS = [
    ("PX000001", "alice_of_sales", "Alice private phone", "iOS 18"),
    ("PX000002", "bob_of_sales", "Bob car", "iOS 18"),
    ("PX000003", "carol", "Carol van", "iOS 18"),
    ("SN-bad-4", "dave_at_home", "Dave's own", "iOS 18"),
]
PERSONAL = ("alice_of_sales", "bob_of_sales", "carol", "dave_at_home", "Alice private", "Bob car",
            "Carol van", "Dave's own")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Make a run with a failed, an invalid, a moved and some good rows, and a log of it."""
    home = tmp_path_factory.mktemp("run")
    (home / "hook").write_text(HOOK)
    (home / "hook").chmod(0o600)
    (home / "bulkbind.yaml").write_text(
        f"notify_url_file: {home / 'hook'}\nlog_file: {home / 'run.log'}\nlog_devices: true\n"
        "user_id: zoe_default\nnotify_on: change\nnotify_timeout: 1s\n"
    )
    (home / "bulkbind.yaml").chmod(0o600)
    shared = [(f"SN0001{number:02}", "erin_elsewhere", "", "") for number in range(10)]
    first = write_csv(home / "first.csv", shared)
    moved = [(code, "carol", "Ninth", "") for code, *_ in shared]
    second = write_csv(home / "fleet.csv", [*ROWS, *moved, *fleet(20)])
    given = {"home": home, "BULKBIND_TOKEN": TOKEN, "BULKBIND_CONCURRENCY": "1"}
    with sandbox("--fault", "business=0.4", "--seed", "5", home=home) as url:
        bulkbind("run", first, "--endpoint", url, **given, check=1)
        common = ("--endpoint", url, "--config", home / "bulkbind.yaml", "--on-invalid", "skip")
        bulkbind("run", second, *common, **given, check=1)
        ledger = ledger_of(home, url)
    log = (home / "run.log").read_text()
    (home / "run.log").write_text(
        f"{log}"
        f'{{"event": "x", "token": "{TOKEN}", "text": "carol, {TOKEN} and {HOOK}"}}\n'
        "no JSON: (erin_elsewhere) alice_of_sales.\n"
    )
    return home, ledger, url


def packed(run, *more):
    """Return the texts of a bundle by name, and the archive."""
    home, ledger, url = run
    to = home / "bundles" / f"b{len(more)}.tar.gz"
    bulkbind(
        "bundle", "--to", to, "--endpoint", url, "--ledger", ledger,
        "--config", home / "bulkbind.yaml", *more, home=home, check=0, BULKBIND_TOKEN=TOKEN,
    )  # fmt: skip
    with tarfile.open(to) as archive:
        members = archive.getmembers()
        texts = {}
        for member in members:
            file = archive.extractfile(member)
            assert file is not None
            texts[member.name.split("/")[1]] = file.read().decode()
    return texts, to


def table(text):
    """Return the rows of a CSV text."""
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.slow
def test_a_bundle_tells_of_the_run_and_names_nobody(run):
    """Versions, settings, summary, failed rows, trace ids, log; ids and names are masked alike."""
    texts, path = packed(run)

    everything = "\n".join(texts.values())
    assert set(texts) == {
        "README.txt", "versions.json", "settings.json", "summary.json", "rows.csv",
        "attempts.csv", "log.jsonl",
    }  # fmt: skip
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for name in (*PERSONAL, "erin_elsewhere", "zoe_default"):
        assert name not in everything, name
    assert everything.count("trace_id") > 1
    rows = table(texts["rows.csv"])
    assert {row["status"] for row in rows} == {"failed", "invalid", "moved"}
    assert "(breaks its rule)" in {row["machine_code"] for row in rows}
    moved = next(row for row in rows if row["status"] == "moved")
    assert moved["detail"].startswith("bound to user user#")
    assert moved["device_name"].startswith("device#")
    assert json.loads(texts["versions.json"])["bulkbind"]
    assert json.loads(texts["settings.json"])["auth"]["token"] == "set"
    events = [line for line in texts["log.jsonl"].splitlines() if line.startswith("{")]
    assert any(json.loads(line)["event"] == "device.settled" for line in events)
    assert texts["log.jsonl"].splitlines()[-1].startswith("no JSON: (user#")


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--with-ids",)], ids=["masked", "with ids"])
def test_no_bundle_holds_a_secret(run, more):
    """Token and webhook's address are nowhere in it, though the log had them."""
    texts, _ = packed(run, *more)

    everything = "\n".join(texts.values())
    assert TOKEN not in everything
    assert "very-secret-path" not in everything
    assert '"token": "***"' in texts["log.jsonl"]


@pytest.mark.slow
def test_with_ids_it_names_them(run):
    """--with-ids leaves user ids and device names as they are."""
    texts, _ = packed(run, "--with-ids")

    rows = table(texts["rows.csv"])
    moved = next(row for row in rows if row["status"] == "moved")
    assert (moved["user_id"], moved["detail"]) == ("carol", "bound to user erin_elsewhere")
    [invalid] = [row for row in rows if row["status"] == "invalid"]
    assert invalid["machine_code"] == "SN-bad-4"
    assert invalid["device_name"] == "Dave's own"


@pytest.mark.slow
def test_neither_cleaned_names_nor_tokens_of_users_are_in_it(tmp_path):
    """A name as it was before cleaning, a user's token and a kept session's stay at home."""
    (tmp_path / "users.csv").write_text(f"user_id,token\nzoe,{TOKEN}\n")
    (tmp_path / "users.csv").chmod(0o600)
    (tmp_path / "settings.yaml").write_text(
        f"auth:\n  users_file: {tmp_path / 'users.csv'}\nclean: names\nlog_file: run.log\n"
    )
    manifest = write_csv(tmp_path / "one.csv", [("SN1", "zoe", "Zo\u00eb's private phone!", "")])
    with sandbox("--fault", "business=1", home=tmp_path) as url:
        common = ("--config", "settings.yaml", "--endpoint", url, "--ledger", "l.db")
        bulkbind("run", manifest, *common, home=tmp_path, check=1, BULKBIND_TOKEN="")
    (tmp_path / "l.db.session").write_text('{"refresh_token": "kept-for-later"}')
    (tmp_path / "l.db.session").chmod(0o600)
    with (tmp_path / "run.log").open("a") as log:
        log.write(f"a line with {TOKEN} and kept-for-later\n")

    bulkbind("bundle", "--to", "b.tar.gz", *common, home=tmp_path, check=0, BULKBIND_TOKEN="")

    with tarfile.open(tmp_path / "b.tar.gz") as archive:
        files = [archive.extractfile(member) for member in archive.getmembers()]
        everything = "\n".join(file.read().decode() for file in files if file is not None)
    assert re.search(r"SN1,device#1,+failed", everything)
    assert "a line with *** and ***" in everything
    for secret in ("private phone", TOKEN, "kept-for-later"):
        assert secret not in everything


@pytest.mark.slow
def test_a_bundle_of_no_run_is_refused(run):
    """The error says which run there is none of."""
    home, ledger, url = run

    done = bulkbind("bundle", "20990101", "--endpoint", url, "--ledger", ledger, home=home, check=2)

    assert "there is no run 20990101" in done.stderr


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("user u.1 has it", "user user#1 has it"),
        ("(u.1), 'u.1': u.1. u.1!", "(user#1), 'user#1': user#1. user#1!"),
        ("id=u.1;x", "id=user#1;x"),
        ("u.12 and xu.1 are others", "u.12 and xu.1 are others"),
        ("Van 1 and Van 12", "device#1 and Van 12"),
        ("U.1 has VAN 1", "user#1 has device#1"),
        ("/users/u.1/devices?u=u.1", "/users/user#1/devices?u=user#1"),
    ],
)
def test_a_mask_finds_whole_words(text, masked):
    """An id within another word is not one; marks around it do not hide it."""
    mask = Mask(["u.1"])
    mask.value(OPTIONAL_FIELDS[NAME], "Van 1")

    assert mask.text(text) == masked


@pytest.mark.parametrize(
    "user",
    ["a,b", "(x)", "=u;1", "it's", '"q"', "a:b", "<t>", "a/b", "a|b", "[u]", "{u}", "u@h.test", "7",
     "Z\u00fcrich", "a\\b", "-", "`u`", "u!"],
)  # fmt: skip
def test_a_mask_finds_ids_of_any_characters(user):
    """In a text, in any case, as a whole value, and as URLs, JSON and HTML write them."""
    mask = Mask([user, "other"])
    written = [user, user.upper(), user.lower(), quote(user, safe=""), html.escape(user)]

    for each in written:
        assert mask.text(f"user {each} refused") == "user user#1 refused"
    assert mask.values({"event": user, "why": json.dumps(user)[1:-1]}) == {
        "event": "user#1", "why": "user#1",
    }  # fmt: skip


def test_a_mask_costs_the_same_for_any_number_of_users():
    """A text is looked at once, however many ids may stand in it."""
    mask = Mask(f"user_{number}" for number in range(20_000))

    assert mask.text("User_7, user_19999 and user_20000") == "user#1, user#2 and user_20000"


def test_a_mask_looks_into_everything():
    """Lists, mappings and texts in them; the same id gets the same number."""
    mask = Mask(["amy"])

    got = mask.values({"user_id": "amy", "inner": [{"device_name": "Car", "why": "amy said no"}]})

    assert got == {
        "user_id": "user#1",
        "inner": [{"device_name": "device#1", "why": "user#1 said no"}],
    }


@pytest.mark.slow
def test_the_password_of_a_proxy_is_taken_out_of_what_earlier_versions_wrote(run):
    """As it is written and as it is meant, whether the proxy can be read or not."""
    home, ledger, url = run
    said = "hush%2F1 hush/1 me:hush/1 other:sesa#me"
    with (home / "run.log").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"event": "x", "why": f"kept {said}"}) + "\n")
    target = home / "proxied.tar.gz"
    common = ("--endpoint", url, "--ledger", ledger, "--config", home / "bulkbind.yaml")

    bulkbind(
        "bundle", *common, "--to", target, "--with-ids", home=home, check=0,
        HTTPS_PROXY="http://me:hush%2F1@proxy:1", ALL_PROXY="other:sesa#me@proxy:1",
    )  # fmt: skip

    with tarfile.open(target) as archive:
        log = archive.extractfile(next(n for n in archive.getnames() if n.endswith("log.jsonl")))
        assert log is not None
        text = log.read().decode()
    assert '"kept *** *** *** ***"' in text
    assert not {"hush", "sesa"} & set(re.findall(r"\w+", text))
