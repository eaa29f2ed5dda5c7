"""Which rows are meant, and whose they are, where columns of the operator's say so."""

from __future__ import annotations

import time

import pytest

from bulkbind.errors import BulkbindError, ManifestError, UsageError
from bulkbind.manifest import ManifestFile, choice_of, choose, digest, open_manifest
from bulkbind.manifest.user_table import form_of
from bulkbind.settings import ManifestSettings
from tests.support.formats import FORMATS, opened, written
from tests.support.manifests import error_cell, write_xlsx
from tests.support.workbooks import Book, Page, merged, row, text

HEADER = ("machine_code", "user_id", "Site")
ROWS = [
    ("SN1", "u1", "Berlin"),
    ("SN2", "u2", " Berlin "),
    ("SN3", "u3", "berlin"),
    ("SN4", "u4", None),
    ("SN5", "u5", "Neu\u00a0 Isenburg"),
    ("SN6", "u6", "Mu\u0308nchen"),
    ("SN7", "u7", "Ber\u200blin"),
]


def reads(**given):
    """Return the settings by which manifests are read."""
    return ManifestSettings(**given)


def meant(manifest):
    """Return the machine codes of the rows that are meant, and check that none is a problem."""
    rows = [row for row in manifest.rows() if not row.left_out]
    assert all(not row.problems for row in rows), [row.problems for row in rows]
    return [row.device.machine_code[2:] for row in rows]


def csv_file(folder, content, name="fleet.csv"):
    """Write a file and return its path."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def told(manifest):
    """Return user, or what is wrong, of each row."""
    return [
        row.device.user_id if row.device else [problem.found for problem in row.problems]
        for row in manifest.rows()
    ]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"where": ["Site=Berlin"]}, "1 2 7"),
        ({"where": ["Site = Berlin"]}, "1 2 7"),
        ({"where": ["SITE=Berlin"]}, "1 2 7"),
        ({"where": ["Site="]}, "4"),
        ({"where_not": ["Site="]}, "1 2 3 5 6 7"),
        ({"where_not": ["Site=Berlin"]}, "3 4 5 6"),
        ({"where": ["Site=Neu Isenburg"]}, "5"),
        ({"where": ["Site=M\u00fcnchen"]}, "6"),
        ({"where": ["Site~erl"]}, "1 2 3 7"),
        ({"where": ["Site~^B"]}, "1 2 7"),
        ({"where": ["Site~(?i)^b"], "where_not": ["user_id=u2", "user_id=u7"]}, "1 3"),
        ({"where": ["machineCode~SN[12]$", "Site~n"]}, "1 2"),
        ({"where": "Site=Berlin"}, "1 2 7"),
    ],
    ids=str,
)
def test_a_condition_says_which_rows_are_meant(tmp_path, kind, given, expected):
    """A cell is what a person sees of it; capitals count; all conditions must hold."""
    assert meant(opened(tmp_path, kind, HEADER, ROWS, **given)) == expected.split()


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_left_out_is_counted_by_condition(tmp_path, kind):
    """Each row once, by the first condition that leaves it out; kept rows say by which."""
    given = {"where": ["Site~Ber"], "where_not": ["user_id=u1"], "keep_left_out": True}
    manifest = opened(tmp_path, kind, HEADER, ROWS, **given)

    rows = list(manifest.rows())

    assert [row.left_out for row in rows] == [
        "--where-not user_id=u1", "", *["--where 'Site~Ber'"] * 4, "",
    ]  # fmt: skip
    assert manifest.chosen == {
        "rows": 5, "by": {"--where 'Site~Ber'": 4, "--where-not user_id=u1": 1},
    }  # fmt: skip
    assert not any(row.problems for row in rows)
    assert f"fleet.{kind}: 4 rows left out by --where 'Site~Ber'" in manifest.notices


@pytest.mark.parametrize("kind", FORMATS)
def test_a_row_that_is_left_out_breaks_no_rule(tmp_path, kind):
    """What is wrong with it concerns nobody; what is wrong with the others does."""
    rows = [("SN-1", "u1", "Munich"), ("SN-2", "u1", "Berlin"), ("SN3", "u1", "Berlin")]
    manifest = opened(tmp_path, kind, HEADER, rows, where=["Site=Berlin"])

    assert [len(row.problems) for row in manifest.rows()] == [1, 0]


def test_a_row_that_is_left_out_shows_no_broken_value(tmp_path):
    """Results show it as it stands, and a spreadsheet would run it."""
    rows = [("=1+1", "u1", "Munich"), ("SN2", "u1", "Berlin")]
    given = {"where": ["Site=Berlin"], "keep_left_out": True}

    left, _ = opened(tmp_path, "csv", HEADER, rows, **given).rows()

    assert left.values == ("u1", None, None, None)
    assert left.problems == ()


@pytest.mark.parametrize("kind", FORMATS)
def test_an_unknown_column_is_an_error(tmp_path, kind):
    """It names the columns that there are, and the one that was probably meant."""
    with pytest.raises(ManifestError, match="there is no column `Sight`") as caught:
        list(opened(tmp_path, kind, HEADER, ROWS, where_not=["Sight=Berlin"]).rows())

    assert "did you mean `Site`?" in caught.value.hint


def test_a_column_that_one_of_several_files_lacks_is_an_error(tmp_path):
    """Neither all nor none of its rows are taken in silence."""
    one = csv_file(tmp_path, "machine_code,user_id,Site\nA,u,Berlin\n", "one.csv")
    two = csv_file(tmp_path, "machine_code,user_id\nB,u\n", "two.csv")
    settings = reads(where=("Site=Berlin",))

    assert meant(open_manifest(one, settings)) == [""]
    with pytest.raises(ManifestError, match=r"two.csv:1: there is no column `Site`"):
        open_manifest(two, settings)


def test_a_key_that_some_devices_lack_is_blank_there(tmp_path):
    """In YAML and JSON; by a path and in any spelling, too; defaults count."""
    content = """
defaults: {Site: Berlin}
devices:
- {machine_code: SN1, user_id: u, at: {floor: 3}}
- {machine_code: SN2, user_id: u, SITE: Munich}
- {machine_code: SN3, user_id: u, Site: yes, at: {floor: 03}}
"""
    path = csv_file(tmp_path, content, "fleet.yaml")

    def found(*where):
        return meant(open_manifest(path, reads(where=where)))

    assert found("at.floor=3") == ["1"]
    assert found("at.floor=") == ["2"]
    rows = list(open_manifest(path, reads(where=("Site=Berlin",))).rows())
    assert [row.device is not None for row in rows] == [True, False]
    assert rows[1].problems[0].found == "several keys, or one and a default, are called so"


def test_a_cell_that_is_not_sure_is_a_problem_of_its_row(tmp_path):
    """An error, a half of a merged cell, a list, a byte that is no text: it leaves no row out."""
    sheet = write_xlsx(tmp_path / "f.xlsx", ("One", [[*HEADER], ["SN1", "u", error_cell("#N/A")]]))
    damaged = csv_file(tmp_path, b"machine_code,user_id,Site\nSN1,u,M\xfcnchen\n")
    listed = csv_file(
        tmp_path, '[{"machine_code": "SN1", "user_id": "u", "Site": ["a"]}]', "f.json"
    )
    ragged = csv_file(tmp_path, "machine_code,user_id,Site\nSN1,u,a,b,c\nSN2,u,x\n", "ragged.csv")
    for path in (sheet, damaged, listed, ragged):
        for given in ({"where": ("Site=x",)}, {"where_not": ("Site=Berlin",)}):
            first, *_ = open_manifest(path, reads(**given)).rows()

            assert [problem.field for problem in first.problems] == ["row"], (path, given)
            assert not first.left_out


def test_a_merged_cell_holds_for_all_of_its_rows(tmp_path):
    """As a person sees it, where it is merged down."""
    data = "".join(
        row(*map(text, cells))
        for cells in (HEADER, ("SN1", "u", "Berlin"), ("SN2", "u", ""), ("SN3", "u", "Munich"))
    )
    path = Book([Page(data, after=merged("C2:C3"))]).write(tmp_path / "f.xlsx")

    assert meant(open_manifest(path, reads(where=("Site=Berlin",)))) == ["1", "2"]


def test_two_columns_of_one_name_are_told_apart_by_position(tmp_path):
    """Which one is meant, nobody guesses."""
    path = csv_file(tmp_path, "machine_code,user_id,Site,Site\nSN1,u,a,b\nSN2,u,b,a\n")

    assert meant(open_manifest(path, reads(where=("#4=b",)))) == ["1"]
    with pytest.raises(ManifestError, match=r"2 columns are called `Site`: #3 and #4"):
        open_manifest(path, reads(where=("Site=b",)))


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbfBerlin\r\n\r\n  "Bad, ""Homburg"""  \r\nNowhere\r\n',
        'Berlin\n"Bad, ""Homburg"""\nNowhere'.encode("utf-16"),
        b'Bad, "Homburg"\nBerlin\nBerlin\nNowhere\n',
    ],
    ids=["bom, CRLF, blanks, quotes", "UTF-16", "plain, twice"],
)
def test_a_list_has_one_value_a_line(tmp_path, content):
    """However an editor or a spreadsheet has saved it; what no row has is told."""
    listed = csv_file(tmp_path, content, "sites.txt")
    rows = [("SN1", "u", "Berlin"), ("SN2", "u", 'Bad, "Homburg"'), ("SN3", "u", "Bad")]
    manifest = opened(tmp_path, "csv", HEADER, rows, where=[f"Site in {listed}"])

    assert meant(manifest) == ["1", "2"]
    assert any(notice.endswith("`Nowhere`") for notice in manifest.notices)


def test_the_content_of_a_list_is_part_of_what_a_run_is(tmp_path):
    """And so is the condition; files that were read before keep their digest."""
    path = csv_file(tmp_path, "machine_code,user_id,Site\nSN1,u,Berlin\n")
    listed = csv_file(tmp_path, "Berlin\n", "sites.txt")

    def known(**given):
        return digest([path], reads(**given))

    before = known(where=(f"Site in {listed}",))
    digests = [before, known(), known(where=("Site=Berlin",)), known(where_not=("Site=Berlin",))]
    listed.write_text("Berlin\r\n\nBerlin", encoding="utf-8")
    same = known(where=(f"Site in {listed}",))
    listed.write_text("Berlin\nMunich\n", encoding="utf-8")

    assert same == before
    assert known(where=(f"Site in {listed}",)) not in digests
    assert len(set(digests)) == 4
    assert known(where=("Site=a", "Site=b")) == known(where=("Site=b", "Site=a"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Site", "is no condition"),
        ("=Berlin", "is no condition"),
        ("Site~", "nothing follows"),
        ("Site in ", "nothing follows"),
        ("Site==Berlin", "another sign follows '='"),
        ("Site =~ Ber", "another sign follows '='"),
        ("Site~=Ber", "another sign follows '~'"),
        ("Site~(a", "unclosed group"),
        (r"Site~(a)\1", "backreferences are not supported"),
        ("Site~(?=a)", "look-around"),
        ("Site in /nowhere/list.txt", "No such file"),
    ],
)
def test_a_condition_that_cannot_be_read_is_an_error(tmp_path, text, message):
    """It says what was typed and what is wrong."""
    with pytest.raises(BulkbindError, match=message):
        opened(tmp_path, "csv", HEADER, ROWS, where=[text])


def test_no_pattern_takes_for_ever(tmp_path):
    """One that takes exponential time elsewhere takes none worth speaking of."""
    rows = [("SN1", "u", "a" * 5_000 + "!")]
    manifest = opened(tmp_path, "csv", HEADER, rows, where=["Site~^(a|a)*(a+)+$"])
    began = time.process_time()

    assert meant(manifest) == []
    assert time.process_time() - began < 5.0


# --- users by a second table -------------------------------------------------------------------

TABLE = (
    "user_id,email,phone\n"
    "u1,Max@Example.org,+49 170 1234567\n"
    "u2,eva@example.org,0049(171)765-4321\n"
)
BY_MAIL = {"user_key": "Owner=email"}


def joined(folder, owners, table=TABLE, **given):
    """Return user, or what is wrong, of a row for each owner."""
    users = csv_file(folder, table, "users.csv")
    rows = [(f"SN{number}", owner) for number, owner in enumerate(owners)]
    fleet = written(folder, "csv", ("machine_code", "Owner"), rows)
    settings = reads(user_table=users, **(BY_MAIL | given))
    return told(open_manifest(fleet, settings))


def test_an_address_names_the_one_user_who_has_it(tmp_path):
    """In any case of letters, without blanks; phones with any marks, and 00 for +."""
    assert joined(tmp_path, ["max@example.org", " EVA@example.ORG\u00a0", "MAX@EXAMPLE.ORG"]) == [
        "u1", "u2", "u1",
    ]  # fmt: skip
    phones = ["+491701234567", "0049 170/1234567", "+49 (171) 765-43-21"]
    assert joined(tmp_path, phones, user_key="Owner=phone") == ["u1", "u1", "u2"]


@pytest.mark.parametrize(
    ("owner", "found"),
    [
        ("otto@example.org", "no user has it"),
        ("max@example.org.", "no user has it"),
        ("m\u0430x@example.org", "no user has it"),
        ("max@example.org; eva@example.org", "no user has it"),
        ("", "it is missing"),
        ("n/a", "a placeholder, not a value"),
        ("#N/A", "an error of a formula (#N/A)"),
        ("u1", "no user has it"),
    ],
)
def test_another_address_names_nobody(tmp_path, owner, found):
    """Not a similar one, not a Cyrillic letter, not the user id; the row says what was found."""
    table = TABLE + "u3,,\nu4,n/a,\n"

    assert joined(tmp_path, [owner, "max@example.org"], table) == [[found], "u1"]


def test_an_address_of_two_users_names_neither(tmp_path):
    """Also where capitals, blanks or the form of a letter differ; twice the same user is one."""
    table = (
        "user_id,email\nu1,max@x.org\nu2,MAX@x.org\nu3,eva@x.org\nu3,Eva@x.org\n"
        "u4,m\u00fc@x.org\nu5,mu\u0308@x.org\n"
    )

    assert joined(tmp_path, ["max@x.org", "eva@x.org", "m\u00fc@x.org"], table) == [
        ["2 users have it: u1 (line 2), u2 (line 3)"],
        "u3",
        ["2 users have it: u4 (line 6), u5 (line 7)"],
    ]


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("user_id,email\nu1,a@x.org\nu 2,b@x.org\n", r"line 3: user_id 'u 2'"),
        ("user_id,email\nu1,a@x.org\n,b@x.org\n", r"line 3: user_id: it is missing"),
        ("user_id,email\nu1,a@x.org\nu2,b@x.org,c\n", "line 3: row"),
        ("user_id,email\nu1,a@x.org\nu2,#REF!\n", "line 3: email '#REF!'"),
        ("user_id,email\nu1,4.917E+11\n", "a spreadsheet wrote a long number in short"),
        ("user_id,email\nu1,\n", "names nobody in `email`"),
        ("user_id,mail\nu1,a@x.org\n", "there is no column `email`"),
        ("name,email\nu1,a@x.org\n", "user_id"),
        ("", "is empty"),
    ],
)
def test_a_table_with_a_broken_row_names_nobody(tmp_path, table, found):
    """It is judged as a whole before anybody is looked up."""
    with pytest.raises(ManifestError, match=found):
        joined(tmp_path, ["a@x.org"], table)


@pytest.mark.parametrize("kind", FORMATS)
def test_tables_and_manifests_of_every_format(tmp_path, kind):
    """And the table's column of user ids may be called anything."""
    (tmp_path / "users").mkdir()
    users = [("u1", "Max M\u00fcller"), ("u2", "Eva  Ott")]
    table = written(tmp_path / "users", kind, ("Account", "Owner"), users)
    rows = [("SN1", "Max Mu\u0308ller"), ("SN2", "Eva Ott"), ("SN3", "eva ott")]
    fleet = written(tmp_path, kind, ("machine_code", "Owner"), rows)
    settings = reads(
        user_table=table, user_key="Owner", columns={"user_id": "Account"}, where_not=("Owner=x",)
    )

    assert told(open_manifest(fleet, settings)) == ["u1", "u2", ["no user has it"]]


def test_a_table_in_which_a_quote_is_closed_too_late_is_refused(tmp_path):
    """Else an address would be that of the user of the line before."""
    table = 'user_id,note,email\nu1,x,a@x.org\nu2,"x,b@x.org\nu3,x",c@x.org\nu4,x,d@x.org\n'

    with pytest.raises(ManifestError, match="reads as a row: u3"):
        joined(tmp_path, ["c@x.org"], table)


def test_hidden_rows_of_a_table_are_told_or_left_out(tmp_path):
    """Whoever hides the accounts that are closed may mean that they are gone."""
    data = "".join(
        row(*map(text, cells), more=more)
        for cells, more in (
            (("user_id", "mail"), ""), (("u1", "a@x.org"), ""), (("u2", "b@x.org"), ' hidden="1"')
        )
    )  # fmt: skip
    table = Book([Page(data)]).write(tmp_path / "users.xlsx")
    fleet = csv_file(tmp_path, "machine_code,mail\nSN1,a@x.org\nSN2,b@x.org\n")
    found = []
    for only in (False, True):
        settings = reads(user_table=table, user_key="mail", visible_rows=only)
        files = [ManifestFile.of(fleet)]
        choose(files, settings)
        choice = choice_of(files[0])
        assert choice is not None
        assert choice.users is not None
        found.append((told(open_manifest(files[0], settings)), "".join(choice.users.notices)))

    assert [users for users, _ in found] == [["u1", "u2"], ["u1", ["no user has it"]]]
    assert all("1 hidden or filtered row" in notices for _, notices in found)
    assert all("not sent" not in notices for _, notices in found)


def test_a_row_that_names_its_user_itself_is_a_problem(tmp_path):
    """One of both would win in silence; the operator says which."""
    users = csv_file(tmp_path, TABLE, "users.csv")
    fleet = csv_file(tmp_path, "machine_code,user_id,Owner\nSN1,u9,max@example.org\n")
    given = {"user_table": users, "user_key": "Owner=email"}

    assert told(open_manifest(fleet, reads(**given))) == [["the row names a user itself"]]
    ignoring = reads(**given, ignore_columns=("user_id",))
    assert told(open_manifest(fleet, ignoring)) == ["u1"]


@pytest.mark.parametrize("kind", ["csv", "yaml"])
def test_no_other_column_stops_a_look_up(tmp_path, kind):
    """The operator has named the one that says who it is."""
    users = csv_file(tmp_path, TABLE, "users.csv")
    header, row = ("machine_code", "Owner", "user", "E-Mail"), ("SN1", "max@example.org", "x", "y")
    fleet = written(tmp_path, kind, header, [row])

    assert told(open_manifest(fleet, reads(user_table=users, **BY_MAIL))) == ["u1"]


@pytest.mark.parametrize("header", ["user_id,email", "user_id,email,name", "user_id,name,email"])
def test_nothing_is_said_of_devices_where_a_table_has_none(tmp_path, header):
    """Users share no machine code there."""
    width = len(header.split(","))
    rows = [",".join([f"u{n}", *[f"a{n}"] * (width - 1)]) for n in range(9)]
    users = csv_file(tmp_path, "\n".join([header, *rows]) + "\n", "users.csv")
    file = ManifestFile.of(csv_file(tmp_path, "machine_code,Owner\nSN1,a1\n"))
    choose([file], reads(user_table=users, user_key="Owner=email"))

    choice = choice_of(file)
    assert choice is not None
    assert choice.users is not None
    [notice] = choice.users.notices
    assert notice.endswith("users are looked up by `email`; rows: 9")


def test_a_device_may_be_the_key(tmp_path):
    """Some tables say whose a serial number is."""
    users = csv_file(tmp_path, "user_id,serial\nu1,SN1\nu2,SN2\n", "users.csv")
    fleet = csv_file(tmp_path, "machine_code,device_name\nSN2,a\nSN3,b\n")
    settings = reads(user_table=users, user_key="machine_code=serial")

    assert told(open_manifest(fleet, settings)) == ["u2", ["no user has it"]]


def test_a_column_of_addresses_may_be_called_user_id(tmp_path):
    """It is the key, so it is no user id."""
    users = csv_file(tmp_path, TABLE, "users.csv")
    fleet = csv_file(tmp_path, "machine_code,user_id\nSN1,max@example.org\n")
    settings = reads(user_table=users, user_key="user_id=email")

    assert told(open_manifest(fleet, settings)) == ["u1"]


@pytest.mark.parametrize(
    "given",
    [
        {"user_table": "users.csv"},
        {"user_key": "Owner"},
        {"user_table": "users.csv", "user_key": "Owner=email", "user_id": "u"},
        {"user_table": "users.csv", "user_key": "Owner=email", "constants": {"user_id": "u"}},
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_refused(tmp_path, monkeypatch, given):
    """A fallback would take the place of an address that nobody has."""
    monkeypatch.chdir(tmp_path)
    csv_file(tmp_path, TABLE, "users.csv")
    fleet = csv_file(tmp_path, "machine_code,Owner\nSN1,max@example.org\n")

    with pytest.raises(UsageError):
        open_manifest(fleet, reads(**given))


def test_a_table_is_read_once(tmp_path):
    """Whoever writes another one meanwhile changes neither the rows nor what the run is."""
    users = csv_file(tmp_path, TABLE, "users.csv")
    fleet = csv_file(tmp_path, "machine_code,Owner\nSN1,max@example.org\n")
    settings = reads(user_table=users, **BY_MAIL)
    files = [ManifestFile.of(fleet)]
    choose(files, settings)
    before = digest(files, settings)
    users.write_text(TABLE.replace("u1", "u7"), encoding="utf-8")

    assert told(open_manifest(files[0], settings)) == ["u1"]
    assert digest(files, settings) == before
    assert digest([fleet], settings) != before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("+49 170 1234567", "0049(170)123-4567"),
        ("0170 1234567", "0170/123 45 67"),
        ("(555) 123-4567", "5551234567"),
        ("1-555-123-4567", "1 (555) 123.4567"),
        ("Max@X.org", "max@x.ORG"),
    ],
)
def test_what_is_written_in_another_way_is_the_same(one, other):
    """Phone numbers with any marks, addresses in any case."""
    assert form_of(one) == form_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("+491701234567", "491701234567"),
        ("0049170123", "49170123"),
        ("+49 (0)170 123", "+49170123"),
        ("123456", "12 3456"),
        ("12-34567", "1-234567"),
        ("192.168.10.11", "192.168.101.1"),
        ("12-1-101-203445", "12-11-01-203445"),
        ("1200-345678", "12003-45678"),
        ("01-101-22", "01-10-122"),
        ("00-1234-567", "00-123-4567"),
        ("4917012345678", "+4917012345678"),
        ("Stra\u00dfe@x.org", "strasse@x.org"),
        ("user\u00b2@x.org", "user2@x.org"),
        ("Max", "max"),
    ],
)
def test_what_only_looks_alike_is_not_the_same(one, other):
    """A guess would bind a wrong user."""
    assert form_of(one) != form_of(other)
