"""Where the devices stand in YAML and JSON: found where it is clear, refused where it is not."""

from __future__ import annotations

import json

import pytest

from bulkbind.errors import ManifestError
from bulkbind.manifest import shapes
from bulkbind.model import Device
from tests.support.manifests import opener, outline

KEYED = {"machine_code": "@key"}
A = '{"machine_code": "A", "user_id": "u"}'
B = '{"machine_code": "B", "user_id": "u"}'
ANSIBLE = """\
all:
  vars:
    ansible_user: admin
  hosts:
    jump01:
      ansible_host: 192.0.2.10
  children:
    leafs:
      hosts:
        leaf01:
          ansible_host: 192.0.2.100
        leaf02:
          ansible_host: 192.0.2.110
    spines:
      hosts:
        spine01:
"""
ZIGBEE = """\
homeassistant:
  enabled: true
permit_join: false
mqtt:
  server: mqtt://localhost
devices:
  '0x01':
    friendly_name: Desk switch
  '0x02':
    friendly_name: Door
advanced:
  channel: 11
"""


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a text under a name, and returns outline and notices."""

    def rows_of(name, content, **given):
        manifest = opener(tmp_path / name)(content, user_id="given", **given)
        return outline(manifest.rows()), manifest.notices

    return rows_of


# --- devices under keys of their own ----------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(ANSIBLE, id="Ansible"),
        pytest.param(ANSIBLE.replace("    jump01", "    priority: 1\n    jump01"), id="mixed"),
        pytest.param("a:\n  hosts: {x: {ip: 1}}\n  priority: 5\nb:\n  hosts: {y: }\n", id="groups"),
        pytest.param("site1: {sw1: {ip: 1}, sw2: {ip: 2}}\nsite2: {sw3: {ip: 3}}\n", id="sites"),
    ],
)
@pytest.mark.parametrize("form", ["yaml", "json"])
def test_groups_are_no_devices(read, content, form):
    """A mapping of groups is refused with what was seen, and nothing of it becomes a device."""
    if form == "json":
        yaml = pytest.importorskip("yaml")
        content = json.dumps(yaml.safe_load(content), indent=1)
    with pytest.raises(ManifestError, match=r"groups, not devices|may be read from") as caught:
        read(f"fleet.{form}", content, columns=KEYED)

    assert "--items" in caught.value.hint


def test_the_refusal_of_groups_names_what_was_seen(read):
    """The operator sees the group, what it holds, and where devices may stand."""
    with pytest.raises(ManifestError) as caught:
        read("fleet.yaml", ANSIBLE, columns=KEYED)

    assert str(caught.value) == (
        "fleet.yaml: the items hold groups, not devices: `all` holds `vars`, `hosts`, `children`; "
        "devices may be read from `all.hosts`, `all.children.leafs.hosts`, "
        "`all.children.spines.hosts`"
    )


def test_items_name_one_of_several_mappings(read):
    """`--items` says which mapping holds the devices."""
    rows, _ = read("f.yaml", ANSIBLE, columns=KEYED, items="all.children.leafs.hosts")

    assert [code for _, code in rows] == ["leaf01", "leaf02"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(ZIGBEE, id="as it is"),
        pytest.param(ZIGBEE.replace("permit_join: false\n", ""), id="of mappings alone"),
        pytest.param(ZIGBEE.replace("devices:", "vans:"), id="under another key"),
    ],
)
@pytest.mark.parametrize("form", ["yaml", "json"])
def test_the_one_mapping_of_devices_is_found(read, content, form):
    """Among the parts of a settings file, the mapping of devices is read, and nothing else."""
    if form == "json":
        yaml = pytest.importorskip("yaml")
        content = json.dumps(yaml.safe_load(content), indent=1)
    rows, notices = read(f"fleet.{form}", content, columns=KEYED)

    assert [code for _, code in rows] == ["0x01", "0x02"]
    assert any("keys that are not used: homeassistant" in notice for notice in notices)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("mqtt: {server: x}\nserial: {port: y}\n", id="parts of settings"),
        pytest.param("mqtt: {server: x}\npermit_join: false\n", id="a value among them"),
        pytest.param("devices: devices.yaml\nmqtt: {server: x}\n", id="devices elsewhere"),
        pytest.param("sw1: {ip: 1}\nsw2: {ip: 2}\nsw3: {z: {q: 1}}\n", id="a group among devices"),
        pytest.param("sw1: {ip: 1}\nsw2: {ip: 2}\ndefaults: {ip: 3}\n", id="defaults among them"),
    ],
)
def test_what_is_no_mapping_of_devices_is_refused(read, content):
    """Parts of settings share no keys, and are no devices."""
    with pytest.raises(ManifestError):
        read("fleet.yaml", content, columns=KEYED)


def test_the_document_itself_can_be_named(read):
    """`--items .` insists on the document itself."""
    rows, _ = read("f.yaml", "a: {x: 1}\nb: {y: 1}\n", columns=KEYED, items=".")

    assert [code for _, code in rows] == ["a", "b"]


@pytest.mark.parametrize("form", ["yaml", "json"])
@pytest.mark.parametrize("odd", ["oops", {"in": {"a": 1}}, ["x"]], ids=str)
def test_a_late_item_that_is_no_device_ends_the_reading(read, form, odd):
    """Behind as many devices as were looked at, what is none is refused where it stands."""
    items = {f"SW{n}": {"ip": "x" * 300} for n in range(900)} | {"odd": odd}
    text = json.dumps(items, indent=1)
    with pytest.raises(ManifestError, match=r"fleet\.\w+:2702: `.*` is no device"):
        read(f"fleet.{form}", text, columns=KEYED)


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_many_devices_under_their_keys(read, form):
    """A large mapping of devices is read to its end, with its lines."""
    items = {f"SW{n}": {"ip": "x" * 100, "n": {"a": n}} for n in range(3000)}
    rows, _ = read(f"fleet.{form}", json.dumps(items, indent=1), columns=KEYED)

    assert rows == [(2 + 6 * n, f"SW{n}") for n in range(3000)]


# --- lists under any key ------------------------------------------------------------------------

RESULTS = f'{{"count": 2, "next": null, "previous": null, "results": [{A}, {B}]}}'


@pytest.mark.parametrize(
    ("content", "path"),
    [
        pytest.param(RESULTS, "results", id="results"),
        pytest.param(
            f'{{"data": {{"page": {{"n": 1}}, "rows": [{A}, {B}]}}}}', "data.rows", id="in"
        ),
        pytest.param(f'{{"links": [{{"rel": "next"}}], "vans": [{A}, {B}]}}', "vans", id="links"),
        pytest.param(f'{{"a": {{"b": {{"c": {{"d": [{A}, {B}]}}}}}}}}', "a.b.c.d", id="deep"),
        pytest.param(f'{{"pad": "{"x" * 90_000}", "vans": [{A}, {B}]}}', "vans", id="large"),
    ],
)
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_the_one_list_of_devices_is_found(read, content, path, form):
    """Under whatever key, the only list with machine codes is read, and a notice says so."""
    rows, notices = read(f"fleet.{form}", content)
    named, quiet = read(f"fleet.{form}", content, items=path)

    assert [code for _, code in rows] == ["A", "B"]
    assert f"fleet.{form}: the devices are read from `{path}`, the only list of devices in it" in (
        notices
    )
    assert named == rows
    assert not any("only list" in notice for notice in quiet)


@pytest.mark.parametrize("form", ["json", "yaml"])
@pytest.mark.parametrize(
    ("content", "places"),
    [
        (f'{{"a": [{A}], "b": {{"c": [{B}]}}}}', ["a", "b.c"]),
        (f'{{"machine_code": "X", "ports": [{A}]}}', [".", "ports"]),
        (f'{{"machine_code": "X", "x": 1, "devices": [{A}]}}', [".", "devices"]),
        ('{"a": [{"x": 1}], "b": [{"y": 1}]}', ["a", "b"]),
    ],
)
def test_two_candidates_are_refused(read, form, content, places):
    """Where devices may be read from two places, nothing is guessed."""
    with pytest.raises(ManifestError) as caught:
        read(f"fleet.{form}", content)

    assert all(f"`{place}`" in str(caught.value) for place in places)
    assert "--items" in caught.value.hint


@pytest.mark.parametrize("form", ["json", "yaml"])
@pytest.mark.parametrize(
    ("items", "words"),
    [
        ("x", "no `x` in it; keys found: `count`"),
        ("count", "is no list"),
        ("results.x", "is no list"),
    ],
)
def test_items_that_are_not_there(read, form, items, words):
    """A path that leads nowhere is refused with what is there."""
    with pytest.raises(ManifestError, match=words):
        read(f"fleet.{form}", RESULTS, items=items)


def test_items_may_name_one_device(read):
    """A mapping at the path is one device; a list at the top, as of failed files, is read."""
    assert read("f.json", f'{{"data": {A}}}', items="data")[0] == [(1, "A")]
    assert read("f.json", f"[{A}]", items="data")[0] == [(1, "A")]


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_keys_that_are_not_used_are_one_notice(read, form):
    """However many keys stand beside the list, one notice names a few of them."""
    beside = {f"k{n}": n for n in range(1000)}
    content = json.dumps(beside | {"vans": [json.loads(A)]})
    _, notices = read(f"fleet.{form}", content)

    [notice] = [notice for notice in notices if "not used" in notice]
    assert notice.startswith(f"fleet.{form}: keys that are not used: k0, k1, k2")
    assert notice.endswith("k19 and 980 more")


@pytest.mark.parametrize(
    ("beside", "key"),
    [
        ('"next": "https://x.example/?cursor=s3cret"', "next"),
        ('"@odata.nextLink": "https://x.example/"', "@odata.nextLink"),
        ('"nextPageToken": "s3cret"', "nextPageToken"),
        ('"has_more": true', "has_more"),
        ('"paging": {"cursors": {"next": "s3cret"}}', "paging.cursors.next"),
        ('"_links": {"next": {"href": "/2"}}', "_links.next"),
    ],
)
def test_one_page_of_several_is_a_notice(read, beside, key):
    """A link to a next page says that devices are missing; its value may be secret."""
    _, notices = read("fleet.json", f'{{{beside}, "results": [{A}]}}')
    [notice] = [notice for notice in notices if "page" in notice]

    assert notice == (
        f"fleet.json: `{key}` says that more pages follow: this is one page of several"
    )
    assert not any("s3cret" in notice for notice in notices)


@pytest.mark.parametrize("value", ["null", '""', "false", "0", "[]", "{}"])
def test_no_next_page_is_no_notice(read, value):
    """The last page says nothing."""
    _, notices = read("fleet.json", f'{{"next": {value}, "has_more": false, "results": [{A}]}}')

    assert not any("page" in notice for notice in notices)


def test_many_keys_are_one_error(read):
    """Devices under their keys without `@key`: one error with a few names."""
    content = json.dumps({f"SN{n:05d}": {"name": "x"} for n in range(1000)}, indent=1)
    with pytest.raises(ManifestError, match=r"no `devices` in it.*`SN00000`.* 995 more") as caught:
        read("fleet.json", content)

    assert "@key" in caught.value.hint


def test_list_named_twice_is_refused(read):
    """Two lists of one name are never read one after the other."""
    for content in (
        f'{{"devices": [{A}], "devices": [{B}]}}',
        f'{{"r": [{A}], "r": [{B}], "n": 1}}',
    ):
        with pytest.raises(ManifestError, match="stands twice"):
            read("fleet.json", content)


# --- single devices and streams ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("fleet.json", '{\n  "machine_code": "A",\n  "user_id": "u"\n}\n', [1]),
        ("fleet.json", '{"machine_code": "A", "user_id": "u"}', [1]),
        ("fleet.json", '{"machine_code": "A",\n"x": {"y": [1]}, "user_id": "u"}', [1]),
        ("fleet.yaml", "machine_code: A\nuser_id: u\n", [1]),
        ("fleet.yaml", "# van\n---\nuser_id: u\nx: {y: [1]}\nmachine_code: A\n", [3]),
        ("-", "machine_code: A\nuser_id: u\n", [1]),
        ("fleet.json", '{\n"machine_code": "A"\n}\n{\n"machine_code": "A"\n}', [1, 4]),
        ("fleet.jsonl", '{\n"machine_code": "A"\n}\n{\n"machine_code": "A"\n}', [1, 4]),
        ("fleet.json", f"{A} {A}{A}\n\n{A}", [1, 1, 1, 3]),
        ("fleet.json", f"{A}\n{{\n{A[1:]}", [1, 2]),
        ("fleet.json", f"[{A}]\n[{A}, {A}]\n{A}", [1, 2, 2, 3]),
        (
            "fleet.yaml",
            "machine_code: A\n---\nmachine_code: A\n...\n---\n{machine_code: A}\n",
            [1, 3, 6],
        ),
    ],
)
def test_single_devices_and_streams(read, name, content, lines):
    """A document may be one device; several stand one after the other."""
    assert read(name, content)[0] == [(line, "A") for line in lines]


def test_pages_one_after_the_other(read):
    """Pages of an API, as tools join them, are read each by its list."""
    page = json.dumps({"next": None, "results": [json.loads(A)] * 3}, indent=1)
    rows, notices = read("fleet.json", page * 5)

    assert [code for _, code in rows] == ["A"] * 15
    assert sum("only list" in notice for notice in notices) == 1


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_documents_larger_than_what_is_held_in_memory(read, form):
    """Each of several large documents is looked at before it is read."""
    page = {"x": [1] * 900, "vans": [{"machine_code": f"A{n}", "n": "x" * 90} for n in range(900)]}
    separator = "\n---\n" if form == "yaml" else "\n"
    rows, _ = read(f"fleet.{form}", separator.join([json.dumps(page, indent=1)] * 3))

    assert [code for _, code in rows] == [f"A{n}" for n in range(900)] * 3


def test_repeated_key_of_a_single_device_is_its_problem(read):
    """A device that is a document is a row like any other."""
    assert read("f.json", '{\n"machine_code": "A",\n"machine_code": "B"\n}')[0] == [(1, None)]
    assert read("f.yaml", "machine_code: A\nuser_id: u\nuser_id: v\n")[0] == [(1, None)]


# --- tags --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ["!secret x", "!include a.txt", "!vault |\n    a", "!<tag:x.org,2000:y> z", "!!binary QQ==",
     "!env {a: b}", "!ref [a]", "!x"],
)  # fmt: skip
@pytest.mark.parametrize("field", ["machine_code", "user_id", "device_name"])
def test_value_with_an_unknown_tag_is_a_problem(tmp_path, value, field):
    """A value that another program would fill in is never bound, and never filled by a default."""
    device = {"machine_code": "A", "user_id": "u"} | {field: value}
    text = "- " + "\n  ".join(f"{key}: {raw}" for key, raw in device.items()) + "\n"
    opened = opener(tmp_path / "f.yaml")
    rows = list(opened(text, user_id="given").rows())
    defaults = f"defaults: {{{field}: d}}\ndevices:\n{text}"

    assert [row.device for row in rows] == [None]
    assert [problem.field for problem in rows[0].problems] == [field]
    assert "is a tag that is not known here" in rows[0].problems[0].found
    assert next(opened(defaults, user_id="given").rows()).device is None


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("- !device\n  machine_code: A\n", "row"),
        ("- data: !x {sn: A}\n", "machine_code"),
        ("- data: {sn: !x A}\n", "machine_code"),
        ("- data: A\n", "machine_code"),
    ],
)
def test_tag_or_text_on_the_way_to_a_value(tmp_path, text, field):
    """Where a path leads through what cannot be looked into, the device is a problem."""
    mapping = {"machine_code": "data.sn"} if field != "row" else {}
    [row] = opener(tmp_path / "f.yaml")(text, columns=mapping, user_id="given").rows()

    assert [problem.field for problem in row.problems] == [field]


@pytest.mark.parametrize(
    "value", ["!!str A", "!!int A", "! A", '!!str "A"', "!<tag:yaml.org,2002:str> A"]
)
def test_standard_tags_are_as_if_they_were_not_there(tmp_path, value):
    """What YAML itself defines keeps the text."""
    [row] = opener(tmp_path / "f.yaml")(f"- {{machine_code: {value}, user_id: u}}\n").rows()

    assert row.device == Device("u", "A")


def test_tag_of_what_is_not_sent_does_not_matter(tmp_path):
    """A password beside the device does no harm."""
    [row] = opener(tmp_path / "f.yaml")("- machine_code: A\n  user_id: u\n  p: !vault x\n").rows()

    assert row.device == Device("u", "A")


# --- places of errors ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 100, 3000])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("damage", ["no comma", "no colon", "comma at the end", "in the device"])
def test_error_names_the_place_that_python_names(read, count, indent, damage):
    """However far into a file, line and column are those of Python's own parser."""
    devices = [{"machine_code": f"A{n}", "n": "x" * 40} for n in range(count)]
    text = json.dumps(devices, indent=indent)
    at = text.rfind('"n"')
    text = {
        "no comma": text[: at - 1].rstrip(" ,\n") + " " + text[at:],
        "no colon": text[: at + 3] + text[at + 4 :],
        "comma at the end": text[:-1].rstrip() + ",\n]",
        "in the device": text[:-2].rstrip("\n }") + ",\n}\n]",
    }[damage]
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    line, column = expected.value.lineno, expected.value.colno
    with pytest.raises(ManifestError) as caught:
        read("fleet.json", text)

    if not str(expected.value).startswith("Illegal"):  # Python 3.13 names the comma instead
        assert str(caught.value).startswith(f"fleet.json:{line}:{column}: ")
    assert ("a comma too many" in str(caught.value)) == (
        damage in ("comma at the end", "in the device")
    )


@pytest.mark.parametrize(
    "text", ["devices:\n\t- machine_code: A\n", "-\tmachine_code: A\n\tb: c\n", "a:\n\tb: c\n"]
)
def test_tab_is_called_a_tab(read, text):
    """The message says what the eye does not see."""
    with pytest.raises(ManifestError, match="tab"):
        read("fleet.yaml", text)


def test_path_of_the_document():
    """The words of `--items` and those of messages are the same."""
    for path in ("results", "data.items", shapes.TOP):
        assert shapes.shown(shapes.parsed(path)) == path


def test_single_mapping_may_hold_the_devices(tmp_path):
    """One entry without a field, with mappings in it, can be read in two ways: it is refused."""
    content = '{"fleet": {"type": ["map"], "value": {"A1": {"os": "x"}, "A2": {"os": "y"}}}}'
    read = opener(tmp_path / "fleet.json")
    keyed = {"columns": {"machine_code": "@key"}, "user_id": "u"}
    with pytest.raises(ManifestError, match=r"devices may be read from `\.`, `fleet.value`"):
        list(read(content, **keyed).rows())

    assert len(list(read(content, items="fleet.value", **keyed).rows())) == 2
    alone = '{"A1": {"device_os": "x", "parts": {"p": {"n": "1"}, "q": {"n": "2"}}}}'
    assert [row.values[1] for row in read(alone, **keyed).rows()] == ["A1"]
