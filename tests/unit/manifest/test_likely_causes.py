"""Likely causes of broken values, and what is odd though it keeps the rules."""

from __future__ import annotations

import pytest

from bulkbind.manifest.likely_causes import Repeats, cause_of_value, damage_of, fault_of
from bulkbind.model import Device
from bulkbind.model.wording import counted, verb
from tests.support.formats import FORMATS, opened
from tests.support.manifests import opener


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("3.56E+14", "a spreadsheet wrote a long number in short"),
        ("3,56E+14", "a spreadsheet wrote a long number in short"),
        ("12345.0", "took a whole number for a fraction"),
        ("2026-11-24", "reads like a date"),
        ("24.11.2026", "reads like a date"),
        ("1-Mar", "reads like a date"),
        ("SN\u00a01", "a blank from a web page"),
        ("SN\u200b1", "invisible, copied from a web page"),
        ("\ufeffSN1", "invisible"),
        ("\u201cSN1\u201d", "a quote that a word processor made"),
        ("SN\u20131", "a dash that a word processor made"),
        ("\u0410B1", "looks like the Latin A"),
        ("SN\u041e1", "looks like the Latin O"),
        ("SN\x071", "a control character"),
        ("SN\uff11", "a wide or styled form"),
        ("SN\ufffd1", "read in a wrong encoding"),
        ("SN\udce9", "--encoding names another one"),
        ("SN\u202e1", "direction of writing"),
        ('="00018001"', "quotes by which a spreadsheet keeps text"),
        ("'00019001", "quotes by which a spreadsheet keeps text"),
        ("SN-1", ""),
        ("小米", ""),
    ],
    ids=ascii,
)
def test_cause_of_a_broken_value(value, words):
    """What probably happened to a value is told, and nothing where it is not known."""
    cause = cause_of_value(value)

    assert words in cause
    assert bool(words) == bool(cause)


ERRORS = [
    *("#N/A", "#n/a", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NULL!", "#NUM!", "#GETTING_DATA"),
    *("#SPILL!", "#CALC!", "#FIELD!", "#ERROR!", "#ref!", "#REF", "#DIV/0", "Err:502"),
    *("Loading...", "#N/A Requesting Data...", "#NV", "#BEZUG!", "#WERT!", "#ÜBERLAUF!", "#N/D!"),
    *("#I/T", "#¡REF!", "#¿NOMBRE?", "#¡DIV/0!", "#\u041d/\u0414", "#ССЫЛКА!", "#ДЕЛ/0!"),
    *("#DĚLENÍ_NULOU!", "#SAYI/0!", "#YOK", "#Connect!", "#spill!", "#SPILL", "#CALC", "#BEZUG"),
    *("#N/DISP", "#NA", "#nv", "#REF!A1", "#GETTING_DATA...", "ERR:508", "LOADING...", "=NA()"),
    *("'#N/A", '"#N/A"'),
]


@pytest.mark.parametrize("value", ERRORS)
def test_error_of_a_formula_is_no_value(value):
    """Whatever a spreadsheet of whatever language writes in place of a value is known as such."""
    fault = fault_of(value)

    assert fault is not None
    assert fault.found == f"an error of a formula ({value})"
    assert "fix the formula" in fault.hint


def test_column_too_narrow_is_no_value():
    """Spreadsheets export the `#` that they show for what does not fit."""
    fault = fault_of("########")

    assert fault is not None
    assert "too narrow" in fault.found


@pytest.mark.parametrize(
    "value",
    ["", "u", "#", "##", "#1234", "#team", "#alice!", "#A", "#A1", "#user/1", "#TEAM", "#42!",
     "Error", "Err:5", "Loading", "# note", "N/A", "REF!"],
)  # fmt: skip
def test_what_only_resembles_an_error_is_a_value(value):
    """A user may begin with a `#`."""
    assert fault_of(value) is None


@pytest.fixture
def notices(tmp_path):
    """Return a function that reads machine codes and returns the notices."""

    def read(*codes):
        opened = opener(tmp_path / "fleet.csv")(
            "\n".join(["machine_code", *codes, ""]), user_id="u"
        )
        rows = list(opened.rows())
        assert all(row.device for row in rows)
        return opened.notices

    return read


@pytest.mark.parametrize("code", ["5E4", "12e10"])
def test_code_that_reads_like_a_number_in_short_is_told(notices, code):
    """A machine code such as 5E4 keeps the rule, so it is sent, and told."""
    [notice] = notices("SN1", code, "SN2", code)

    assert notice.startswith(f"fleet.csv: 2 machine codes like `{code}` (line 3)")


def test_code_that_reads_like_a_truth_value_is_told(notices):
    """TRUE keeps the rule, too."""
    assert "yes or no" in notices("SN1", "TRUE")[0]


def test_lost_leading_zeros_are_told(notices):
    """Where some codes have leading zeros, shorter ones may have lost theirs."""
    [notice] = notices("00123", "456", "78901", "12")

    assert notice == (
        "fleet.csv: 2 machine codes like `456` (line 3) may have lost leading zeros: others have 5 "
        "digits with them, like `00123` (line 2)"
    )


@pytest.mark.parametrize(
    "codes",
    [["SN1", "SN2"], ["123", "45"], ["00123", "45678"], ["0A12", "12"], ["E5", "F00"]],
    ids=str,
)
def test_ordinary_codes_are_no_cause_for_notices(notices, codes):
    """Codes as vendors make them are not suspected."""
    assert notices(*codes) == []


DAMAGED = [
    *("1.84281E+18", "1,8E+18", "1.8e18", "1E+18", "-1.5E-05", "+2E+3", "1.84281E18", "2e-7"),
    *("1001.0", "1001,0", "1001.000", "0.0", "1,842,812", "12,345.50", "-1001.0"),
    *("50%", "+3,5%", "1'234'567", "1.234.567,8", 'u2"', '00123"'),
    *("'00123", '="00123"', "'u1'", "'u1", '"u1', "='u'"),
]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("at", [0, 1])
def test_damaged_id_is_a_problem_in_every_format(tmp_path, kind, at):
    """A user gets the look that a machine code gets, and every problem tells its cause."""
    ids = [
        *DAMAGED,
        "u\u200b1",
        "u\u00ad1",
        "\u202eu1",
        "\u0410lice",
        "u\u20131",
        "#N/A",
        "Err:502",
    ]
    rows = [[*["A", "u"][:at], each, *["A", "u"][at + 1 :]] for each in ids]
    header = ("machine_code", "user_id")
    found = list(opened(tmp_path, kind, header, rows, user_id="fallback").rows())

    assert [row.device for row in found] == [None] * len(ids)
    assert [(p.field, p.value) for row in found for p in row.problems] == [
        (header[at], each) for each in ids
    ]
    assert [row.problems[0].value for row in found if not row.problems[0].hint] == []


@pytest.mark.parametrize(
    "user",
    ["10", "1001", "1.5", "a%", "%41", "5%a", 'a"b',
     "1.0.0", "192.168.100.200", "a@1.0", "u1.0", "1.0u", "o'brien", "1,2",
     "a='b'", "=cmd|x", "1001.5", "e+5", "12E+", "550e8400-e29b-41d4-a716-446655440000", "1-2",
     "1e5a", "+49123", "-1"],
)  # fmt: skip
def test_user_that_only_resembles_damage_is_a_user(tmp_path, user):
    """Whole values count, alone and among many."""
    rows = [[f"SN{n}", user if n == 50 else f"a.b+{n}@x"] for n in range(100)]
    found = list(opened(tmp_path, "csv", ("machine_code", "user_id"), rows).rows())

    assert damage_of(user) is None
    assert found[50].device == Device(user, "SN50")


def test_numbers_of_json_and_yaml_that_lost_their_form_are_problems(tmp_path):
    """Written as numbers, too."""
    lines = '{"machine_code": "A", "user_id": 1.84281e+18}\n{"machine_code": "B", "user_id": 7.0}\n'
    as_yaml = "- {machine_code: A, user_id: 1.84281E+18}\n- {machine_code: B, user_id: 7.0}\n"
    for name, text in (("a.jsonl", lines), ("a.yaml", as_yaml)):
        rows = list(opener(tmp_path / name)(text).rows())
        assert [row.device for row in rows] == [None, None]


@pytest.fixture
def users(tmp_path):
    """Return a function that reads user ids and returns the notices."""

    def read(*ids, **given):
        rows = [[f"SN{n}", user] for n, user in enumerate(ids)]
        manifest = opened(tmp_path, "csv", ("machine_code", "user_id"), rows, **given)
        assert all(row.device for row in manifest.rows())
        return manifest.notices

    return read


def test_user_that_lost_leading_zeros_is_told(users):
    """Where its neighbours have them, and not where it is the user given for empty cells."""
    [notice] = users("00123", "456", "00078", "90123")

    assert notice.startswith(
        "fleet.csv: 1 user id like `456` (line 3) may have lost leading zeros: others have 5"
    )
    assert users("00123", "", user_id="456") == []


def test_lost_leading_zeros_are_told_in_large_files(users):
    """The count holds where most ids are looked at together."""
    ids = [str(10**9 + n) for n in range(1_000)] + ["0012345678901"] + ["77"] * 300
    [notice] = users(*ids)

    assert "1,300 user ids like `1000000000` (line 2) may have lost leading zeros" in notice


@pytest.mark.parametrize(
    ("user", "why"),
    [("TRUE", "yes or no"), ("false", "yes or no"), ("12E3", "in short"),
     ("WAHR", "yes or no"), ("FAUX", "yes or no"), ("12:30", "a time"),
     ("192.168.100.200", "at the thousands"), ("2026-01-05", "a date"), ("24.11.2026", "a date"),
     ("1/2/2026", "a date"), ("05-Mai", "a date"), ("5.janv.2026", "a date")],
)  # fmt: skip
def test_odd_user_is_told(users, user, why):
    """It may be an id, so it is sent, and told."""
    [notice] = users("alice", user, "bob", user)

    assert notice.startswith(f"fleet.csv: 2 user ids like `{user}` (line 3)")
    assert why in notice


@pytest.mark.parametrize(
    ("ids", "count"),
    [
        (["1842812272691451649", "1842812272691450000", "1842812272691451650"], 1),
        (["1842812272691450000"] * 3, 3),
        (["1234567890123450", "1234567890123460"], 2),
        ([f"123456789012345{n % 10}" for n in range(40)], 0),
        (["1842812272691451649", "1842812272691451650"], 0),
        (["100000000000000", "123456789012340"], 0),
    ],
)
def test_lost_last_digits_are_told(users, ids, count):
    """A spreadsheet keeps 15 digits; by chance few numbers end in zeros after them."""
    notices = users(*ids)

    assert len(notices) == bool(count)
    assert not count or f"{counted(count, 'user ids')} like" in notices[0]
    assert not count or f"lost {verb(count, 'its', 'their')} last digits" in notices[0]


def shared(tmp_path, rows, **given):
    """Return the notices on shared codes in a file of (code, user, name)."""
    manifest = opened(tmp_path, "csv", ("machine_code", "user_id", "device_name"), rows, **given)
    list(manifest.rows())
    return [notice for notice in manifest.notices if "share" in notice]


def test_code_under_many_names_is_told(tmp_path):
    """Once for each code, with the number of its rows."""
    rows = [[f"SN{n}", "u", f"Van {n}"] for n in range(2_000)]
    for n in range(0, 2_000, 100):
        rows[n][0] = "DEFAULT01"
    [notice] = shared(tmp_path, rows)

    assert notice == (
        "fleet.csv: 20 rows with different names, like 'Van 0' and 'Van 100' (line 102), share the "
        "machine code `DEFAULT01`: is it a device's own?"
    )


def test_code_of_many_users_is_told(tmp_path):
    """Where devices have no names, their users count."""
    rows = [["SN1", f"u{n}", ""] for n in range(5)]

    assert "5 rows with different names, like 'u0' and 'u1' (line 3)" in shared(tmp_path, rows)[0]


@pytest.mark.parametrize(
    "rows",
    [
        [["SN1", "u", "Van"]] * 30,
        [["SN1", "u", "Van"], ["SN1", "u", "Car"]] * 10,
        [[f"SN{n}", "u", f"Van {n % 3}"] for n in range(300)],
    ],
    ids=["same name", "two names", "own codes"],
)
def test_ordinary_repeats_are_not_told(tmp_path, rows):
    """The same device again is a duplicate, no more."""
    assert shared(tmp_path, rows) == []


def test_codes_are_forgotten_though_some_repeat_everywhere():
    """A file whose every part names a device twice is not held in memory."""
    repeats = Repeats()
    for part in range(200):
        codes = [f"SN{part}-{n // 2}" for n in range(200)]
        repeats.add(codes, [f"Van {n}" for n in range(200)], ["u"] * 200, range(200))

    assert len(repeats._first) < 7_000
    assert len(repeats._repeated) <= 1_000


def test_shared_codes_are_told_in_bounded_memory(tmp_path):
    """Far apart, among many others, and many of them: a few are told, and how many more."""
    rows = [[f"SN{n}", "u", f"Van {n}"] for n in range(25_000)]
    for n in range(0, 25_000, 2_500):
        rows[n][0] = "DEFAULT01"
    for n in range(1, 50):
        rows[1_000 + n][0] = f"X{n % 7}"
    notices = shared(tmp_path, rows)

    assert "at least 10 rows" in notices[0]
    assert "`DEFAULT01`" in notices[0]
    assert len(notices) == 4
    assert notices[3].endswith("5 more machine codes are shared like that")
