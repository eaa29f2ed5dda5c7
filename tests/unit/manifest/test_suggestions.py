"""Suggestions: all columns at once, to be pasted, and none that is merely spelled alike."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given, settings, strategies as st

from bulkbind.errors import ManifestError, UsageError
from bulkbind.manifest import columns, open_manifest
from bulkbind.manifest.synonyms import _FIELD_OF, SYNONYMS, letters_of, meant
from bulkbind.model.fields import FIELDS
from bulkbind.settings import ManifestSettings
from tests.support.manifests import opener, write_csv, write_xlsx

FLAGS = "--map machine_code='Serial Number' --map user_id=Owner --map device_name=Model"


def hint_of(header, **given):
    """Return the hint of the error that a CSV file's header ends in."""
    with pytest.raises(ManifestError) as caught:
        columns.positions(header, given, source="fleet.csv", line=1, given=())
    return caught.value.hint


@pytest.mark.parametrize(
    ("header", "machine_code", "user_id", "more"),
    [
        ("Serial Number,Owner,Model", "'Serial Number'", "Owner", "device_name=Model"),
        ("Model,note,Owner,Serial Number", "'Serial Number'", "Owner", "device_name=Model"),
        ("S/N,Assigned To", "S/N", "'Assigned To'", ""),
        ("Serial No. (required),E-Mail*", "'Serial No. (required)'", "'E-Mail*'", ""),
        ("MAC Address,Checked Out To,Host", "'MAC Address'", "'Checked Out To'",
         "device_name=Host"),
        ("Asset Tag,login,Operating System", "'Asset Tag'", "login",
         "device_os='Operating System'"),
        ("devEUI,account,name,Platform", "devEUI", "account",
         "device_name=name device_os=Platform"),
        ("Seriennummer,Benutzer,Gerätename", "Seriennummer", "Benutzer",
         "device_name='Gerätename'"),
        ("Numéro de série,Utilisateur", "'Numéro de série'", "Utilisateur", ""),
        ("Nº de serie,Usuario", "'Nº de serie'", "Usuario", ""),
        ("序列号,用户名,型号", "'序列号'", "'用户名'", "device_name='型号'"),
        ("IMEI,user id (old)", "IMEI", "'user id (old)'", ""),
        ("Owner's Serial; $(rm),IMEI,Owner", "IMEI", "Owner", ""),
    ],
)  # fmt: skip
def test_all_columns_are_suggested_in_one_line(header, machine_code, user_id, more):
    """Whatever other programs call the fields: one line, quoted for a shell."""
    flags = [f"--map machine_code={machine_code} --map user_id={user_id}"]
    flags += [f"--map device_{rest}" for rest in more.split("device_")[1:]]

    line = " ".join(map(str.strip, flags))
    assert hint_of(header.split(",")).startswith(f"did you mean\n  {line}\n")


def test_a_field_that_has_its_column_is_not_suggested_again():
    """Only what is missing, and what else could be mapped, is in the line."""
    assert hint_of(["machine_code", "Serial Number", "Owner", "os"]).startswith(
        "did you mean\n  --map user_id=Owner --map device_os=os\n"
    )


def test_what_may_be_either_is_named_and_not_pasted():
    """Of two candidates a person takes one; the other fields are suggested all the same."""
    hint = hint_of(["Serial Number", "IMEI", "Owner"])

    assert hint.startswith(
        "did you mean\n  --map user_id=Owner\n"
        "say which with --map: machine_code='Serial Number' or machine_code=IMEI\n"
    )


def test_two_columns_of_one_name_are_told_apart_by_position():
    """A name that two columns have takes neither of them."""
    assert "machine_code='#1' or machine_code='#3'" in hint_of(["Serial", "user_id", "Serial"])


@pytest.mark.parametrize("wanted", ["Serial", "serial", "IMEI", "MAC", "Asset"])
def test_a_machine_code_is_never_suggested_for_a_user(wanted):
    """`--map user_id=Serial` gets no column of serial numbers offered as the user."""
    header = ["Serial Number", "IMEI number", "MAC address", "Asset tag", "machine_code"]

    assert "did you mean" not in hint_of(header, user_id=wanted)


def test_one_column_is_never_suggested_for_two_fields():
    """A name with the words of two fields is neither's."""
    assert "did you mean" not in hint_of(["machine code user id", "x"])


def test_nothing_is_suggested_for_the_optional_fields_alone():
    """A name is no help where nobody knows which column holds the user."""
    assert "did you mean" not in hint_of(["machine_code", "Model", "x"])


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("Serial\nNumber", "'Serial Number'"),
        ("Serial\tNumber ", "'Serial Number'"),
        ("Serial\x1b", "'#1'"),
        ("Serial\u202e", "'#1'"),
        ("Serial's (x)", None),
    ],
)  # fmt: skip
def test_what_cannot_be_typed_is_named_by_its_position(name, spelled):
    """No control character reaches the terminal, and line breaks become blanks."""
    with pytest.raises(ManifestError) as caught:
        columns.positions([name, "user_id"], {}, source="f", line=1, given=())
    told = str(caught.value) + caught.value.hint

    assert all(character.isprintable() or character == "\n" for character in told)
    if spelled:
        assert f"--map machine_code={spelled}\n" in caught.value.hint


names = st.sampled_from([n.strip() for text in SYNONYMS.values() for n in text.split(",")])
odd = st.text("Serial'\"$`\\;&|\n\t\x1b\u00a0#@=é (1)", min_size=1, max_size=12)


@pytest.mark.slow
@settings(max_examples=300)
@given(header=st.lists(st.one_of(names, names.map(str.upper), odd), min_size=1, max_size=6))
def test_a_pasted_line_takes_the_columns_that_it_names(header):
    """A shell makes words of it; with these the fields have the columns that were meant."""
    hint = columns.suggestion(header, FIELDS, {})
    line = hint.partition("did you mean\n  ")[2].partition("\n")[0]
    words = shlex.split(line)
    mapping = dict(word.split("=", 1) for word in words[1::2])

    assert words[::2] == ["--map"] * len(mapping)
    found = columns.positions(header, mapping, source="f", line=1, given=set(FIELDS) - set(mapping))
    for field in mapping:
        at = found[FIELDS.index(field)]
        assert at is not None
        assert meant(header[at]) == field or columns.closest(field, field, [header[at]])


def test_no_name_means_two_fields():
    """Every synonym stands once, for one field, and is no field's own name."""
    all_of = [letters_of(n) for text in SYNONYMS.values() for n in text.split(",")]

    assert set(SYNONYMS) == set(FIELDS)
    assert "" not in all_of
    assert len(_FIELD_OF) == len(set(all_of))
    assert [columns.field_of(key, {}) for key in all_of if columns.field_of(key, {})] == []
    for field, text in SYNONYMS.items():
        assert {meant(name) for name in text.split(",")} == {field}


@pytest.mark.parametrize("form", ["csv", "xlsx", "json", "yaml"])
def test_every_format_suggests(tmp_path, form):
    """Below a title, too, the header with names that are known is the one in question."""
    path = tmp_path / f"fleet.{form}"
    header: list[object] = ["Serial Number", "Owner", "Model"]
    row: list[object] = ["A1", "u", "x"]
    if form == "csv":
        write_csv(path, [header, row], header=["Fleet of 2024", "", ""])
    elif form == "xlsx":
        write_xlsx(path, ("One", [["Fleet of 2024"], header, row]))
    else:
        path.write_text(json.dumps([dict(zip(header, row, strict=True))]))
    with pytest.raises(ManifestError) as caught:
        list(open_manifest(path, ManifestSettings()).rows())

    assert f"\n  {FLAGS}\n" in caught.value.hint
    assert "`Serial Number`" in str(caught.value)


def test_a_settings_file_that_maps_the_other_way_round_is_told_so(tmp_path):
    """`columns: {Serial: machine_code}` names the operator's column first."""
    path = write_csv(tmp_path / "fleet.csv", [])
    with pytest.raises(UsageError) as caught:
        open_manifest(path, ManifestSettings(columns={"Serial": "machine_code"}))

    assert caught.value.hint == "it is the other way round: machine_code: Serial"


@pytest.mark.parametrize(
    ("header", "given", "column"),
    [
        ("machine_code,user_id (it's $old)", {"user_id": "f"}, "user_id (it's $old)"),
        ("machine_code,machineCode", {"user_id": "f"}, "machineCode"),
        ("machine_code,user_id", {"constants": {"user_id": "f"}}, "user_id"),
        (
            "machine_code,Mapped",
            {"constants": {"device_os": "f"}, "columns": {"device_os": "Mapped"}, "user_id": "u"},
            "",
        ),
    ],
    ids=["a quote", "two claim", "covered", "mapped and covered"],
)
def test_column_named_in_a_hint_can_be_pasted(tmp_path, header, given, column):
    """A shell takes it as it stands, and then the row is a device."""
    opened = opener(tmp_path / "fleet.csv")
    content = f"{header}\nA1,#N/A\n"
    hint = ""
    try:
        [row] = opened(content, **given).rows()
        hint = "".join(problem.hint for problem in row.problems)
    except ManifestError as error:
        hint = error.hint
    assert f"--ignore-column {shlex.quote(column)}" in hint if column else not hint

    [row] = opened(content, **given, ignore_columns=(column or "Mapped",)).rows()
    assert row.device


def test_sheet_named_in_a_hint_can_be_pasted(tmp_path):
    """Whatever stands in its name."""
    path = write_xlsx(
        tmp_path / "fleet.xlsx", ("Notes", [["x"]]), ("It's a $sheet", [["machine_code"], ["A1"]])
    )
    opened = opener(path)
    with pytest.raises(ManifestError) as caught:
        opened(path.read_bytes(), user_id="u")

    words = shlex.split(caught.value.hint.partition("--sheet")[2])
    assert words == ["It's a $sheet"]
