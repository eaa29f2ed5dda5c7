"""Which files are manifests, and how many rows they must hold together."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr

import bulkbind
from bulkbind.app.inbox import complete_files
from bulkbind.app.inputs import named
from bulkbind.app.session.listener import Listener
from bulkbind.app.validate import validate
from bulkbind.cli.console import Console
from bulkbind.errors import ManifestError
from bulkbind.settings import ApiSettings, AuthSettings, ManifestSettings, Settings
from tests.support.manifests import write_xlsx

OWNERS = ("~$fleet.xlsx", ".~lock.fleet.ods#", ".~lock.fleet.csv#", "~$fleet.csv")
EMPTY = {
    "fleet.csv": "machine_code,user_id\n",
    "fleet.tsv": "machine_code\tuser_id\r\n\r\n",
    "fleet.yaml": "[]\n",
    "fleet.json": "[]\n",
}


class Heard(Listener):
    """Keeps what a person must see."""

    def __init__(self):
        self.warnings: list[str] = []

    def warning(self, text):
        self.warnings.append(text)


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a manifest, and the files of programs that have one open."""
    for name in OWNERS:
        (tmp_path / name).write_bytes(b"\x07Someone" + b" " * 150 + b"\0" * 7)
    (tmp_path / "a.csv").write_text("machine_code,user_id\nA,u\n", encoding="utf-8")
    return tmp_path


def test_owner_files_are_passed_over(folder):
    """In a folder, in patterns of ours and of a shell, and in the inbox."""
    ways = ([folder], [str(folder / "*")], [str(folder / "*.*")], sorted(folder.iterdir()))
    for way in ways:
        assert [each.path.name for each in named(way)] == ["a.csv"]
    complete, _ = complete_files(folder, 2**40, 0)
    assert [path.name for path in complete] == ["a.csv"]


@pytest.mark.parametrize("name", OWNERS)
def test_owner_file_alone_is_named_as_such(folder, name):
    """Rather than read as a table."""
    with pytest.raises(ManifestError, match="only says who has another file open"):
        named([folder / name])


@pytest.mark.parametrize("name", [*EMPTY, "fleet.xlsx"])
def test_manifest_without_rows_is_told_by_every_command(tmp_path, name):
    """Of any format; once per file."""
    path = tmp_path / name
    if name == "fleet.xlsx":
        pytest.importorskip("python_calamine", reason="the extra xlsx is not installed")
        write_xlsx(path, ("One", [["machine_code", "user_id"]]))
    else:
        path.write_text(EMPTY[name], encoding="utf-8")
    heard = [Heard(), Heard()]
    settings = _settings(tmp_path)
    validate([path], settings, heard[0])
    asyncio.run(bulkbind.plan([path], settings, listener=heard[1]))

    assert [each.warnings for each in heard] == [[f"{path} holds no rows"]] * 2


def test_warning_is_printed_also_when_notices_are_not(capsys):
    """`--quiet` leaves out what needs nobody: an empty export does."""
    console = Console(is_quiet=True)
    console.notice("a")
    console.warning("b")

    assert capsys.readouterr().err == "warning: b\n"


@pytest.mark.parametrize(("least", "is_enough"), [(None, True), (3, True), (4, False)])
def test_too_few_rows_are_an_error(tmp_path, least, is_enough):
    """Counted over all manifests, valid or not, before anything is sent."""
    one, two = tmp_path / "one.csv", tmp_path / "two.json"
    one.write_text("machine_code,user_id\nA,u\nB-1,u\n", encoding="utf-8")
    two.write_text('[{"machine_code": "C", "user_id": "u"}]', encoding="utf-8")
    settings = _settings(tmp_path, min_rows=least, on_invalid="skip")
    for work in (
        lambda: validate([one, two], settings),
        lambda: asyncio.run(bulkbind.plan([one, two], settings)),
    ):
        if is_enough:
            work()
            continue
        with pytest.raises(ManifestError, match=r"3 rows were read, and there must be 4") as caught:
            work()
        assert caught.value.exit_code == 2


def test_run_with_too_few_rows_leaves_nothing_behind(tmp_path):
    """No request, and no run in the ledger."""
    path = tmp_path / "fleet.csv"
    path.write_text("machine_code,user_id\n", encoding="utf-8")
    settings = _settings(tmp_path, min_rows=1)
    with pytest.raises(ManifestError, match="0 rows were read, and there must be 1 at least"):
        asyncio.run(bulkbind.run([path], settings))

    assert not (tmp_path / "report").exists()


def _settings(folder, **given):
    return Settings(
        api=ApiSettings(endpoint="http://127.0.0.1:9"),
        auth=AuthSettings(token=SecretStr("any")),
        manifest=ManifestSettings(**given),
        ledger=folder / "ledger.db",
        out=folder / "report",
    )
