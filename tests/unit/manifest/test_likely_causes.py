"""Likely causes of broken values, and what is odd though it keeps the rules."""

from __future__ import annotations

import pytest

from bulkbind.manifest.likely_causes import cause_of_value, fault_of
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
    assert "mend the formula" in fault.hint


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
        opened = opener(tmp_path / "fleet.csv")("machine_code\n" + "\n".join(codes), user_id="u")
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
