"""A fallback fills what is empty in the source, and never covers damage."""

from __future__ import annotations

from shlex import quote

import pytest

from bulkbind.errors import ManifestError, UsageError
from bulkbind.settings import ManifestSettings
from tests.support.formats import FORMATS, opened
from tests.support.generated.made import returned
from tests.support.manifests import error_cell, opener
from tests.support.rows import device

HEADER = ("machine_code", "user_id")
LIKE_USER_ID = [
    *("\u200buser_id", "user_id\u00a0", "\ufeffuser_id", "user\u00adid", "\u200euser_id\u200f"),
    *("user\u2007id", "user\u3000id", "\u2060User\u202fID", "user_id\ufe0f", "user_\u2066id\u2069"),
    *("user_id*", "* user_id", "user_id **", "User ID (required)", "user_id [required]"),
    *("user_id (Required)*", "USER_ID {mandatory}", "user_id <optional>", "user_id required"),
    *("user_id: required", "user_id:", "User ID :", "user_id\uff1a", "'user_id'", '"user_id"'),
    *("\u201cuser_id\u201d", "\u00abUser-Id\u00bb", "\uff55\uff53\uff45\uff52_\uff49\uff44"),
    *("user\u2011id", "userId*", "X-User-Id (required)", "user_id (Pflichtfeld)"),
    *(
        "user_id (obligatoire)",
        "user_id\uff08必填\uff09",
        "user_id [max 128]",
        "user_id (max. 128 chars)",
    ),
    *("required: user_id", "Required User ID", "user_id\u200b (required)\u00a0*"),
]
MAY_MEAN_USER_ID = [
    *("user_id (old)", "user_id [from CRM]", "us\u0435r_id", "\u00fcser_id", "user.id", "user/id"),
    *("user_id #", "user_id?", "us\u00e9r_id", "owner", "user", "user_id2", "last user id"),
    *("user_name", "user_id_required", "user_ids", "Users", "Assigned To", "E-Mail", "Benutzer"),
]
OTHERS = ["id", "site", "users seen", "device owner's site", "s"]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", LIKE_USER_ID, ids=ascii)
def test_a_column_is_known_as_a_person_reads_it(tmp_path, kind, name):
    """Its values are the users, and a fallback fills only its empty cells."""
    rows = [["A", "u23"], ["B", ""], ["C", "N/A"]]
    manifest = opened(tmp_path, kind, ("machine_code", name), rows, user_id="fallback")

    assert [row.device for row in manifest.rows()] == [
        device("u23", "A"), device("fallback", "B"), None,
    ]  # fmt: skip
    assert any("is read as user_id" in notice for notice in manifest.notices) == (
        name not in ("user\u2007id", "user\u3000id")  # blanks like any other
        and name != "user_id\u00a0"
        and not (name == "'user_id'" and kind in ("csv", "tsv"))  # quotes of the file
    )


@pytest.mark.parametrize("name", MAY_MEAN_USER_ID, ids=ascii)
@pytest.mark.parametrize("kind", FORMATS)
def test_a_column_that_may_be_meant_is_not_passed_over(tmp_path, kind, name):
    """A table is refused, a device is a problem; an option says what is right."""
    header, rows = ("machine_code", name), [["A", "u1"]]
    if kind in ("csv", "tsv", "xlsx"):
        with pytest.raises(ManifestError, match="may be meant for user_id") as caught:
            opened(tmp_path, kind, header, rows, user_id="fallback")
        hint = caught.value.hint
    else:
        [row] = opened(tmp_path, kind, header, rows, user_id="fallback").rows()
        [problem] = row.problems
        assert (row.device, problem.field, problem.column) == (None, "user_id", name)
        hint = problem.hint
    given = {"user_id": "fallback"}
    [ignored] = opened(tmp_path, kind, header, rows, **given, ignore_columns=(name,)).rows()
    taken = opened(tmp_path, kind, header, rows, **given, columns={"user_id": name})

    assert f"--map user_id={quote(name)} takes it, --ignore-column {quote(name)}" in hint
    assert ignored.device == device("fallback", "A")
    if "." not in name or kind in ("csv", "tsv", "xlsx"):
        assert [row.device for row in taken.rows()] == [device("u1", "A")]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kind", FORMATS)
def test_other_columns_do_not_count(tmp_path, kind, name):
    """A word of a name is no name."""
    manifest = opened(tmp_path, kind, ("machine_code", name), [["A", "x"]], user_id="fallback")

    assert [row.device for row in manifest.rows()] == [device("fallback", "A")]


def test_two_columns_that_may_be_meant_are_both_told(tmp_path):
    """The operator takes one, or says that they are none."""
    header, rows = ("machine_code", "owner", "E-Mail"), [["A", "u1", "u2"]]
    with pytest.raises(ManifestError, match="`owner`, `E-Mail` may be meant for user_id") as caught:
        opened(tmp_path, "csv", header, rows, user_id="fallback")
    given = {"user_id": "fallback"}
    [one] = opened(tmp_path, "csv", header, rows, **given, columns={"user_id": "owner"}).rows()
    [none] = opened(tmp_path, "csv", header, rows, **given, ignore_columns=header[1:]).rows()

    assert caught.value.hint == (
        "--map user_id=owner or --map user_id=E-Mail takes one, "
        "--ignore-column owner --ignore-column E-Mail says that they are none"
    )
    assert [one.device, none.device] == [device("u1", "A"), device("fallback", "A")]


def test_the_key_of_a_device_that_may_be_meant_is_known_with_its_blanks(tmp_path):
    """It is told as it stands, beside devices that name their users."""
    text = '- {machine_code: A, " user ": u1}\n- {machine_code: B, user_id: u2, user: u3}\n'
    found = list(opener(tmp_path / "fleet.yaml")(text, user_id="fallback").rows())

    assert [row.device for row in found] == [None, device("u2", "B")]
    assert (found[0].problems[0].column, found[0].problems[0].value) == (" user ", "u1")


@pytest.mark.parametrize("given", [{"user_id": "fallback"}, {}])
def test_a_default_that_may_be_meant_is_not_passed_over(tmp_path, given):
    """Also where the key stands among the defaults alone."""
    common = "" if given else "user_id: common, "
    devices = "devices:\n- machine_code: A\n- {machine_code: B, user: u}\n"
    text = f"defaults: {{{common}owner: own}}\n{devices}"
    found = list(opener(tmp_path / "fleet.yaml")(text, **given).rows())

    assert [row.device for row in found] == [None if given else device("common", "A"), None]


@pytest.mark.parametrize("kind", ["csv", "yaml"])
def test_a_value_for_all_rows_takes_every_place(tmp_path, kind):
    """It counts whatever a column of the field says, and so whatever another one says."""
    [row] = opened(
        tmp_path, kind, ("machine_code", "owner"), [["A", "x"]], constants={"user_id": "all"}
    ).rows()

    assert row.device == device("all", "A")


@pytest.mark.parametrize("kind", FORMATS)
def test_ignored_column_is_none(tmp_path, kind):
    """Also under a spelling of the field; one that is there exactly is the only one."""
    header = ("machine_code", "user_id", "User ID*")
    given = {"user_id": "fallback"}
    [one] = opened(
        tmp_path, kind, header, [["A", "x", "y"]], **given, ignore_columns=("user_id",)
    ).rows()
    [other] = opened(
        tmp_path, kind, header, [["A", "x", "y"]], **given, ignore_columns=("User ID*",)
    ).rows()
    [both] = opened(
        tmp_path, kind, header[:2], [["A", "x"]], **given, ignore_columns=("USER-ID",)
    ).rows()

    assert [one.device, other.device, both.device] == [
        device("y", "A"), device("x", "A"), device("fallback", "A"),
    ]  # fmt: skip


def test_two_columns_for_one_field_are_refused(tmp_path):
    """One of them is named by an option."""
    with pytest.raises(ManifestError, match="both claim user_id") as caught:
        opened(tmp_path, "csv", ("machine_code", "user_id", "user_id*"), [["A", "x", "y"]])

    assert "--ignore-column" in caught.value.hint


def test_a_column_cannot_be_mapped_and_ignored(tmp_path):
    """That is a contradiction."""
    with pytest.raises(UsageError, match="ignored as well"):
        opened(
            tmp_path, "csv", ("machine_code", "Owner"), [["A", "x"]],
            columns={"user_id": "Owner"}, ignore_columns=("owner",),
        )  # fmt: skip


def test_a_mapped_name_is_known_as_a_person_reads_it(tmp_path):
    """`Serial*` is the column `Serial`, but for one of exactly that name."""
    given = {"columns": {"machine_code": "Serial"}}
    [one] = opened(tmp_path, "csv", ("Serial*", "user_id"), [["A", "u"]], **given).rows()
    [two] = opened(
        tmp_path, "csv", ("Serial*", "Serial", "user_id"), [["A", "B", "u"]], **given
    ).rows()

    assert [one.device, two.device] == [device("u", "A"), device("u", "B")]


DAMAGE = ["#N/A", "#REF!", "#SPILL!", "####", "N/A", "NULL", "TBD", "-", "0000", "\u200b", "\ufeff",
          "1.84281E+18", "1001.0", "'u1"]  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("damage", DAMAGE, ids=ascii)
def test_a_user_for_rows_without_one_covers_no_damage(tmp_path, kind, damage):
    """Only nothing and blanks are filled."""
    rows = [["A", damage], ["B", " \t"], ["C", "\u00a0"], ["D", None]]
    found = list(opened(tmp_path, kind, HEADER, rows, user_id="fallback").rows())

    assert [row.device for row in found] == [None, *(device("fallback", code) for code in "BCD")]
    assert [problem.field for problem in found[0].problems] == ["user_id"]
    assert found[0].values[0] == damage


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("damage", ["#N/A", "#REF!", "N/A", "NULL", "-", "000", "n/a"])
def test_a_value_for_all_rows_covers_no_damage(tmp_path, kind, damage):
    """Other values give way, damage is a problem, and the column can be left out."""
    rows = [["A", damage], ["B", "own"], ["C", ""]]
    given = {"constants": {"user_id": "all"}}
    found = list(opened(tmp_path, kind, HEADER, rows, **given).rows())
    without = opened(tmp_path, kind, HEADER, rows, **given, ignore_columns=("user_id",))

    assert [row.device for row in found] == [None, device("all", "B"), device("all", "C")]
    [problem] = found[0].problems
    assert (problem.field, problem.column, problem.value) == ("user_id", "user_id", damage)
    assert "--ignore-column user_id leaves the column out" in problem.hint
    assert [row.device for row in without.rows()] == [device("all", code) for code in "ABC"]


def test_an_error_cell_is_not_covered_by_a_value_for_all_rows(tmp_path):
    """A workbook's own error cells are damage, too, also under a name with marks."""
    rows = [["A", error_cell("#N/A")], ["B", "x"]]
    given = {"constants": {"user_id": "all"}}
    found = list(opened(tmp_path, "xlsx", ("machine_code", "user_id*"), rows, **given).rows())

    assert [row.device for row in found] == [None, device("all", "B")]
    assert "in B2" in found[0].problems[0].found


def test_a_placeholder_in_an_optional_field_is_no_damage(tmp_path):
    """It is left out, so that a value for all rows takes its place."""
    rows = [["A", "u", "N/A"], ["B", "u", "#REF!"]]
    given = {"constants": {"device_os": "linux"}}
    found = list(opened(tmp_path, "csv", (*HEADER, "device_os"), rows, **given).rows())

    assert [row.device for row in found] == [device("u", "A", None, "linux"), None]


@pytest.mark.parametrize("value", ["[a, b]", "{a: b}"])
def test_what_is_no_text_is_not_filled(tmp_path, value):
    """The row is a problem, and shows no user that it does not have."""
    text = f"- machine_code: A\n  user_id: {value}\n"
    [row] = opener(tmp_path / "fleet.yaml")(text, user_id="fallback").rows()

    assert row.values[0] is None
    assert [problem.field for problem in row.problems] == ["user_id"]


def test_a_default_covers_no_damage_and_no_key_that_may_be_meant(tmp_path):
    """Defaults are for what a device does not say."""
    text = (
        "defaults: {user_id: common}\n"
        "devices:\n"
        "- machine_code: A\n"
        "- {machine_code: B, user_id: N/A}\n"
        '- {machine_code: C, "user_id\\u00a0": own}\n'
        "- {machine_code: D, user_id (old): own}\n"
        "- {machine_code: E, \"user_id (required)\": '#N/A'}\n"
    )
    found = list(opener(tmp_path / "fleet.yaml")(text).rows())
    ignored = opener(tmp_path / "fleet.yaml")(text, ignore_columns=("user_id (old)",))

    assert [row.device for row in found] == [
        device("common", "A"), None, device("own", "C"), None, None,
    ]  # fmt: skip
    assert [row.problems[0].column for row in found if row.problems] == [
        "user_id", "user_id (old)", "user_id (required)",
    ]  # fmt: skip
    assert list(ignored.rows())[3].device == device("common", "D")


@pytest.mark.parametrize("given", [{"constants": {"user_id": "all"}}, {"user_id": "all"}])
def test_no_value_for_all_rows_covers_a_tag_or_what_stands_elsewhere(tmp_path, given):
    """An unknown tag, and a path that leads through a text, are problems of their rows."""
    text = (
        "- {machine_code: A, at: {user: !secret x}}\n"
        "- {machine_code: B, at: x}\n"
        "- {machine_code: C, at: {user: N/A}}\n"
        "- {machine_code: D, at: {user: ~}}\n"
        "- {machine_code: E, at: {}}\n"
        "- {machine_code: F}\n"
    )
    open_it = opener(tmp_path / "fleet.yaml")
    found = list(open_it(text, columns={"user_id": "at.user"}, **given).rows())

    assert [row.device for row in found] == [
        None, None, None, *(device("all", code) for code in "DEF"),
    ]  # fmt: skip
    assert [problem.field for row in found for problem in row.problems] == ["user_id"] * 3
    assert not any(row.device for row in open_it("- machine_code: !x A\n", **given).rows())


def test_no_value_for_all_rows_covers_a_tag_of_a_plain_key(tmp_path):
    """The column can be left out, as with other damage."""
    text = "- {machine_code: A, user_id: !secret x}\n- {machine_code: B, user_id: own}\n"
    open_it = opener(tmp_path / "fleet.yaml")
    given = {"constants": {"user_id": "all"}}
    found = list(open_it(text, **given).rows())
    without = open_it(text, **given, ignore_columns=("user_id",))

    assert [row.device for row in found] == [None, device("all", "B")]
    assert found[0].problems[0].value == "!secret x"
    assert "--ignore-column user_id leaves the column out" in found[0].problems[0].hint
    assert [row.device for row in without.rows()] == [device("all", "A"), device("all", "B")]


@pytest.mark.parametrize("key", ["user_id (old)", "us\u00e9r_id"])
@pytest.mark.parametrize(
    "text",
    [
        'defaults: {user_id: common}\ndevices:\n- {machine_code: D, "%s": own}\n',
        '{"defaults": {"user_id": "common"}, "devices": [{"machine_code": "D", "%s": "own"}]}',
    ],
    ids=["yaml", "json"],
)
def test_a_default_beside_a_key_that_may_be_meant_does_not_come_back(tmp_path, key, text):
    """Else the failed file would name the default's user, and bind the device to it."""
    name = "fleet.json" if text.startswith("{") else "fleet.yaml"
    manifest = opener(tmp_path / name)(text % key)
    rows = list(manifest.rows())
    again, written = returned(manifest, rows, ManifestSettings(), tmp_path)

    assert [row.device for row in (*rows, *again)] == [None, None]
    assert "common" not in written


def test_a_placeholder_as_a_default_is_a_problem(tmp_path):
    """Of every device that takes it."""
    text = (
        "defaults: {user_id: TBD}\ndevices:\n- machine_code: A\n- {machine_code: B, user_id: u}\n"
    )
    found = opener(tmp_path / "fleet.yaml")(text, user_id="fallback").rows()

    assert [row.device for row in found] == [None, device("u", "B")]


def test_a_byte_order_mark_within_a_file_is_no_other_header(tmp_path):
    """Two marks at the beginning, and files glued together, are read."""
    text = "\ufeff\ufeffmachine_code,user_id\nA,u\n\ufeffmachine_code,user_id\nB,u\n"
    manifest = opener(tmp_path / "fleet.csv")(text, user_id="fallback")

    assert [row.device for row in manifest.rows()] == [device("u", "A"), device("u", "B")]
    assert "fleet.csv: 1 repeated header passed over" in manifest.notices
