"""Which column of the operator's is which field of ours."""

from __future__ import annotations

import json
import shlex

import pytest

from bulkbind.errors import ManifestError
from bulkbind.manifest import columns, open_manifest
from bulkbind.model.fields import FIELDS
from bulkbind.settings import ManifestSettings

ALL = ("user_id", "machine_code", "device_name", "device_os")


def positions(*known):
    """Return the positions of the first fields; the others have no column."""
    return (*known, *[None] * (len(FIELDS) - len(known)))


def find(header, mapping=None, *, has_user=False):
    """Find the fields in the header of line 3 of `fleet.csv`."""
    given = {"user_id"} if has_user else set()
    return columns.positions(header, mapping or {}, source="fleet.csv", line=3, given=given)


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ("user_id", "user_id"),
        ("userId", "user_id"),
        ("User ID", "user_id"),
        ("X-User-Id", "user_id"),
        ("machine_code", "machine_code"),
        ("machineCode", "machine_code"),
        ("MACHINE CODE", "machine_code"),
        ("machine-code", "machine_code"),
        ("  machine_code\t", "machine_code"),
        ("machine\u00a0code", "machine_code"),
        ("device_name", "device_name"),
        ("deviceName", "device_name"),
        ("device_os", "device_os"),
        ("deviceOS", "device_os"),
        ("Device OS", "device_os"),
        ("machine", None),
        ("user", None),
        ("name", None),
        ("device_id", None),
        ("machine_code2", None),
        ("bulkbind_status", None),
        ("bulkbind_reason", None),
        ("", None),
        ("_", None),
    ],
    ids=ascii,
)
def test_header_names_a_field(header, field):
    """Our spelling and the API's are known, whatever the case, blanks, hyphens, underscores."""
    assert columns.field_of(header, {}) == field


@pytest.mark.parametrize(
    ("header", "mapping", "field"),
    [
        pytest.param("Device", {"machine_code": "Device"}, "machine_code", id="as mapped"),
        pytest.param(" Device ", {"machine_code": "Device"}, "machine_code", id="with blanks"),
        pytest.param("DEVICE", {"machine_code": "Device"}, "machine_code", id="other case"),
        pytest.param(
            "Seri\u00e9n-Nr.", {"machine_code": "Seri\u00e9n-Nr."}, "machine_code", id="é"
        ),
        pytest.param("machine_code", {"machine_code": "Device"}, None, id="no other spelling"),
        pytest.param("machineCode", {"device_name": "machineCode"}, "device_name", id="over ours"),
        pytest.param("user_id", {"machine_code": "Device"}, "user_id", id="others stay"),
        pytest.param("Devices", {"machine_code": "Device"}, None, id="whole name only"),
    ],
)
def test_mapping_comes_first(header, mapping, field):
    """A mapped field is found under the operator's name, and under no other."""
    assert columns.field_of(header, mapping) == field


def test_positions_are_in_the_order_of_the_fields():
    """Every field has its position, wherever its column stands."""
    header = ["deviceOS", "note", "machineCode", "userId", "deviceName"]

    assert find(header) == positions(3, 2, 4, 0)


def test_optional_columns_may_be_absent():
    """Name and system need no column."""
    assert find(["machine_code", "user_id"]) == positions(1, 0)


def test_user_column_may_be_absent_where_a_user_is_given():
    """With a user for all rows, only the machine code needs a column."""
    assert find(["machine_code"], has_user=True) == positions(None, 0)


def test_user_column_is_used_even_where_a_user_is_given():
    """The user given fills rows without one, it does not replace the column."""
    assert find(["machine_code", "user_id"], has_user=True) == positions(1, 0)


def test_own_columns_are_ignored():
    """Columns that a report added are neither fields nor unknown."""
    header = ["machine_code", "user_id", "bulkbind_status", " bulkbind_reason "]
    used = find(header)

    assert used == positions(1, 0)
    assert columns.unknown(header, used) == []


def test_unknown_columns_are_named():
    """Columns that are not sent are named, one without a name by its position."""
    header = ["machine_code", " colour ", "user_id", ""]

    assert columns.unknown(header, find(header)) == ["colour", "column 4"]


@pytest.mark.parametrize(
    ("header", "mapping"),
    [
        pytest.param(["machine_code", "user_id", "machineCode"], {}, id="two spellings"),
        pytest.param(["machine_code", "user_id", "machine_code"], {}, id="the same twice"),
        pytest.param(["Device", "user_id", "Device"], {"machine_code": "Device"}, id="mapped"),
    ],
)
def test_two_columns_for_one_field_are_refused(header, mapping):
    """Nothing is guessed where two columns claim one field."""
    with pytest.raises(ManifestError) as caught:
        find(header, mapping)

    assert str(caught.value) == (
        f"fleet.csv:3: columns `{header[0]}` and `{header[2]}` both claim machine_code"
    )
    assert "--map machine_code=#1 or --map machine_code=#3" in caught.value.hint


def test_mapping_settles_which_of_two_columns_is_meant():
    """What the operator mapped is taken, the other spelling is an unknown column."""
    header = ["machine_code", "user_id", "Device"]
    used = find(header, {"machine_code": "Device"})

    assert used == positions(1, 2)
    assert columns.unknown(header, used) == ["machine_code"]


def test_mapping_to_the_letter_settles_between_alike_columns():
    """Of two columns that differ in case alone, the one written as mapped is meant."""
    assert find(["device", "user_id", "Device"], {"machine_code": "Device"}) == positions(1, 2)


@pytest.mark.parametrize(
    ("header", "mapping", "has_user", "field", "wanted"),
    [
        pytest.param(["user_id"], {}, False, "machine_code", "machine_code", id="no code"),
        pytest.param(["machine_code"], {}, False, "user_id", "user_id", id="no user"),
        pytest.param(["x"], {}, True, "machine_code", "machine_code", id="no code, user given"),
        pytest.param(
            ["machine_code", "user_id"],
            {"device_name": "Model"},
            False,
            "device_name",
            "Model",
            id="mapped optional",
        ),
        pytest.param(
            ["machine_code", "y"], {"user_id": "Owner"}, True, "user_id", "Owner", id="mapped user"
        ),
    ],
)
def test_missing_column_is_refused(header, mapping, has_user, field, wanted):
    """What must have a column and has none is named, with the columns that were found."""
    with pytest.raises(ManifestError) as caught:
        find(header, mapping, has_user=has_user)

    shown = ", ".join(f"`{name}`" for name in header)
    assert (
        str(caught.value)
        == f"fleet.csv:3: no column `{wanted}` for {field}; columns found: {shown}"
    )
    assert f"--map {field}=COLUMN names another column" in caught.value.hint
    assert ("--user-id" in caught.value.hint) == (field == "user_id")


@pytest.mark.parametrize(
    ("header", "mapping", "guess"),
    [
        pytest.param(["machinecod", "user_id"], {}, "machine_code=machinecod", id="typing error"),
        pytest.param([" Machine Kode ", "user_id"], {}, "machine_code='Machine Kode'", id="blanks"),
        pytest.param(["machine_code", "userid_no"], {}, "user_id=userid_no", id="user"),
        pytest.param(
            ["machine_code", "user_id", "Devise"],
            {"device_name": "Device"},
            "device_name=Devise",
            id="mapped",
        ),
    ],
)
def test_near_miss_is_offered(header, mapping, guess):
    """A column that is nearly the wanted one is asked about."""
    with pytest.raises(ManifestError) as caught:
        find(header, mapping)

    assert caught.value.hint.startswith(f"did you mean\n  --map {guess}\n")


ALIKE = [
    "Serial",
    "Series",
    "Serials",
    "User",
    "Users",
    "Used",
    "used",
    "user",
    "usr_id",
    "Username",
    "User Name",
    "uuid",
    "guid",
    "UID",
    "Id",
    "userip",
    "user_ip",
    "User IP",
    "superid",
    "used_in",
    "Aerial",
    "Israel",
    "Material",
    "Desired",
    "Residue",
    "user_is",
    "unused",
    "Machine",
    "Machine Mode",
    "machine_node",
    "machine_type",
    "Machine Core",
    "MachineName",
    "machined_core",
    "Mac",
    "Machete Code",
    "Marine Code",
    "machinery",
    "code",
    "Barcode",
    "Zip Code",
    "medicine_code",
    "device_code",
    "Seriel",
    "Serie",
    "Cereal",
    "Ownerx",
    "Owned",
    "Other",
    "Over",
    "Tower",
]


SYNONYMS = {
    "machine_code": ("Serial", "Mac"),
    "user_id": ("User", "user", "Username", "User Name"),
}
"""Those among them that other programs call the field."""


@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize(
    ("field", "mapped"),
    [
        ("user_id", None),
        ("user_id", "Owner"),
        ("machine_code", None),
        ("machine_code", "Serial No"),
    ],
)
def test_what_is_merely_spelled_alike_is_never_offered(field, mapped, name):
    """A user or a machine code taken from a column of another meaning binds wrong devices."""
    other = "machine_code" if field == "user_id" else "user_id"
    with pytest.raises(ManifestError) as caught:
        find([other, name], {field: mapped} if mapped else {})

    is_synonym = mapped is None and name in SYNONYMS[field]
    assert ("did you mean" in caught.value.hint) == is_synonym


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("Customer Id", "Customer"),
        ("Customer Number", "Customer"),
        ("Username Id", "Username"),
        ("Equipment Serial", "Equipment"),
    ],
)
def test_the_first_words_of_a_name_are_another_name(wanted, name):
    """Only a name that was cut inside a word was cut short."""
    with pytest.raises(ManifestError) as caught:
        find(["machine_code", name], {"user_id": wanted})

    assert "did you mean" not in caught.value.hint


@pytest.mark.parametrize(
    ("field", "mapped", "name"),
    [
        ("user_id", None, "Owner's user-id"),
        ("user_id", None, "AssignedUserId"),
        ("user_id", None, "User Identifier"),
        ("user_id", "Owner", "Owner (e-mail)"),
        ("machine_code", None, "Machine Code No. 2"),
        ("machine_code", None, "machine.code"),
        ("machine_code", None, "MACHINE_CO"),
        ("machine_code", "Serial", "Serial Number"),
        ("machine_code", "Serial Number", "Device serial-number"),
    ],
)
def test_the_same_words_are_offered(field, mapped, name):
    """A column that has the whole name among its words, or the name cut short, is asked about."""
    other = "machine_code" if field == "user_id" else "user_id"
    with pytest.raises(ManifestError) as caught:
        find([other, "Serials", name], {field: mapped} if mapped else {})

    assert caught.value.hint.startswith(f"did you mean\n  --map {field}={shlex.quote(name)}\n")


def test_the_name_with_the_fewest_words_is_offered():
    """Of several columns with the name in them, the plainest."""
    with pytest.raises(ManifestError) as caught:
        find(["machine_code", "last user id seen", "user id now"])

    assert "user_id='user id now'" in caught.value.hint


def test_no_column_stands_for_a_position_that_is_not_there():
    """A position has no words that a name could share."""
    with pytest.raises(ManifestError) as caught:
        find(["user_id", "Line 9"], {"machine_code": "#9"})

    assert "did you mean" not in caught.value.hint


def test_nothing_near_means_no_guess():
    """Columns that are like nothing wanted are not offered."""
    with pytest.raises(ManifestError) as caught:
        find(["colour", "user_id"])

    assert "did you mean" not in caught.value.hint


def test_long_header_is_cut_in_the_message():
    """No more than twenty columns are listed."""
    with pytest.raises(ManifestError) as caught:
        find([f"c{number}" for number in range(50)])

    assert "`c19`" in str(caught.value)
    assert "`c20`" not in str(caught.value)


@pytest.mark.parametrize("field", ALL)
def test_every_field_can_be_mapped(field):
    """Each field of ours takes the operator's name."""
    header = [*(name for name in ALL if name != field), "My own"]

    assert find(header, {field: "My own"})[ALL.index(field)] == 3


@pytest.mark.parametrize("name", ["fb.csv", "fb.yaml"])
def test_a_file_with_the_fields_own_name_is_to_be_run_apart(tmp_path, name):
    """A mapping holds for every file: another one for this file would break the others."""
    one = {"machine_code": "A1", "user_id": "u"}
    path = tmp_path / name
    text = "machine_code,user_id\nA1,u\n" if name.endswith("csv") else f"- {json.dumps(one)}\n"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ManifestError) as refused:
        list(open_manifest(path, ManifestSettings(columns={"machine_code": "Serial"})).rows())

    assert "did you mean" not in refused.value.hint
    assert (
        "this file has `machine_code` itself: leave machine_code=Serial away (--map, or "
        "`columns:`), and run files that need it apart"
    ) in refused.value.hint
