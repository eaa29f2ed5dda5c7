"""Files as operators sent them, each with what a person reads in it."""

from __future__ import annotations

import pytest

from tests.support.manifests import opener
from tests.support.rows import device

PLACEHOLDER = "a placeholder, not a value"
IN_SHORT = "a spreadsheet wrote a long number in short, and its digits are gone"
FRACTION = "a program took a whole number for a fraction"


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a file with a user for rows that name none.

    It returns for each row the device or what was found, and the notices.
    """

    def found(name, text, **given):
        manifest = opener(tmp_path / name)(text, **{"user_id": "fallback", **given})
        rows = [row.device or [p.found for p in row.problems] for row in manifest.rows()]
        return rows, manifest.notices

    return found


def test_users_in_short(read):
    """A spreadsheet's short form binds nobody's device to a user of that name."""
    rows, _ = read(
        "q01.csv",
        "machine_code,user_id\nSNQ101,1.84281E+18\nSNQ102,1.84281E+18\nSNQ103,1842812272691451649\n",
    )

    assert rows == [[IN_SHORT], [IN_SHORT], device("1842812272691451649", "SNQ103")]


def test_users_as_fractions_and_placeholders(read):
    """What a data frame makes of a column with gaps."""
    users = ["1001.0", "1002.0", "nan", "#N/A", "NULL", "None", "N/A", "-", "#REF!", "undefined"]
    text = "".join(f"SNQ{n},{user},Van\n" for n, user in enumerate(users, 201))
    rows, _ = read("q02.csv", f"machine_code,user_id,device_name\n{text}")

    assert rows == [
        [FRACTION], [FRACTION], [PLACEHOLDER], ["an error of a formula (#N/A)"], [PLACEHOLDER],
        [PLACEHOLDER], [PLACEHOLDER], [PLACEHOLDER], ["an error of a formula (#REF!)"],
        [PLACEHOLDER],
    ]  # fmt: skip


def test_codes_of_boards_without_a_serial_number(read):
    """None of them is a device."""
    codes = ["NA", "NA", "None", "NA", "Unknown", "TBD", "Default_string", "To be filled by O.E.M.",
             "0", "00000000", "N/A", "No tag", "null", "undefined"]  # fmt: skip
    text = "".join(f"{code},u1,Desk {n}\n" for n, code in enumerate(codes, 1))
    columns = {"machine_code": "Serial Number", "user_id": "User", "device_name": "Name"}
    rows, notices = read("q03.csv", f"Serial Number,User,Name\n{text}", columns=columns)

    assert rows == [[PLACEHOLDER]] * len(codes)
    assert notices == []


@pytest.mark.parametrize("clean", ["none", "names"])
def test_a_dump_of_mysql(read, clean):
    """Its NULL and its backslash N are no names."""
    rows, notices = read(
        "c07.tsv",
        "machine_code\tdevice_name\tdevice_os\tuser_id\nSN7001\tNULL\tAndroid 14\tu7\n"
        "SN7002\tTab two\tNULL\tu7\nSN7003\t\\N\t\\N\tu7\n",
        clean=clean,
    )

    assert rows == [
        device("u7", "SN7001", None, "Android 14"), device("u7", "SN7002", "Tab two"),
        device("u7", "SN7003"),
    ]  # fmt: skip
    way_out = "are left out; --placeholders none takes them as they stand"
    assert notices == [
        f"c07.tsv: 2 placeholders like `NULL` (line 2) in device_name {way_out}",
        f"c07.tsv: 2 placeholders like `NULL` (line 3) in device_os {way_out}",
    ]


def test_keeping_text_as_excel_does(read):
    """The cause is told."""
    rows, _ = read("c18.csv", 'machine_code,user_id\n="00018001",u18\n"=""00018002""",u18\n')
    quoted, _ = read("c19.csv", "machine_code,user_id\n'00019001,u19\n\t00019002,u19\n")

    assert [len(row) for row in rows] == [1, 1]
    assert quoted[1] == device("u19", "00019002")


def test_two_byte_order_marks(read):
    """They are no part of the first name."""
    rows, _ = read("c21.csv", "\ufeff\ufeffmachine_code,user_id\nSN21001,u21\n")

    assert rows == [device("u21", "SN21001")]


def test_invisible_characters_in_the_header(read):
    """The columns are those that a person reads."""
    rows, notices = read(
        "c23.csv", "machine_code\u00a0,\u200buser_id,device\u00a0name\nSN23001,u23,Van\n"
    )

    assert rows == [device("u23", "SN23001", "Van")]
    assert notices == [
        "c23.csv: column `<U+200B>user_id` is read as user_id; --ignore-column says that it is none"
    ]


def test_marks_of_a_template_in_the_header(read):
    """What must be filled in is known by its name without the marks, and that is told."""
    rows, notices = read(
        "star.csv", "machine_code*,user_id (required),Device name [max 32]\nSN1,u,x\n"
    )

    assert rows == [device("u", "SN1", "x")]
    assert [notice.split("`")[1] for notice in notices] == [
        "user_id (required)", "machine_code*", "Device name [max 32]",
    ]  # fmt: skip
