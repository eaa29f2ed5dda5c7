"""JSON and JSON Lines with known right values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.generated.made import FALLBACK, Made, Right

if TYPE_CHECKING:
    from random import Random

FIELDS = ("user_id", "machine_code", "device_name", "device_os")
_GOOD = {
    "user_id": ['"u1"', '"user@x"', '"\\u0075_7"', '"a\\/b"', '"+49:1"', "17"],
    "machine_code": ['"SN1"', '"0012"', '"\\u0041_9"', "1234567", '" SN7 "'],
    "device_name": ['"Van 1"', '"a-b_c"', "null", '""', "42", '"N/A"', '"null"'],
    "device_os": ['"Android 15"', '"iOS_17"', "null", "7"],
}
_OPEN = ["1e5", "2E9", "123456789012345678901234567890"]
"""Valid machine codes that look like a spreadsheet's."""
_BAD = ["true", "false", "[1]", '{"a": 1}', '"\\ud800"', '"caf\\u00e9"', '"a:b c"', "[]"]
_BAD_CODES = ["1.10", "-0", '"a-b"', "-5", "1E-7", '"TBD"', "0", '"null"']
_BAD_USERS = ["1.84281E+18", '"1.84281E+18"', "184.0", '"N/A"', '"null"', '"(none)"', "0"]
_EXTRAS = [
    '"x": 1e400', '"y": 1.10', '"mac": "aa:bb:\\"cc\\": d"', '"tags": [1, {"a": [null]}]',
    '"n\\u0061me": "\\ud83d\\ude00"', '"": ""', '"z" : -0.0', '"site":\t"\u00e9\u4e2d"',
    '"when": "2026-01-02T03:04:05Z"', '"deep": {"a": {"b": {"c": []}}}', '"k": "}, {"',
]  # fmt: skip


def _value(raw: str) -> str | None:
    if raw == "null":
        return None
    if raw.startswith('"'):
        text = raw[1:-1].replace("\\/", "/").replace("\\u0041", "A").replace("\\u0075", "u")
        return None if text in ("N/A", "null") else text.strip() or None
    return raw


def _device(random: Random, given: str | None, lacks: str = "") -> tuple[list[str], Right]:
    """Return the members of a device, in any order, and what must come of it."""
    raws: dict[str, str] = {}
    for field in FIELDS:
        if field != lacks and (field == "machine_code" or random.random() < 0.8):
            raws[field] = random.choice(_GOOD[field])
    is_good = True
    is_open = False
    kind = random.random()
    if kind < 0.12:
        raws[random.choice(sorted(raws) or ["user_id"])] = random.choice(_BAD)
        is_good = False
    elif kind < 0.2 and "machine_code" in raws:
        raws["machine_code"] = random.choice(_BAD_CODES)
        is_good = False
    elif kind < 0.28 and "machine_code" in raws:
        raws["machine_code"] = random.choice(_OPEN)
        is_open = True
    elif kind < 0.32 and "user_id" in raws:
        raws["user_id"] = random.choice(_BAD_USERS)
        is_good = False
    elif kind < 0.36:
        raws["user_id"] = "null"
    values = [_value(raws[field]) if field in raws else None for field in FIELDS]
    values[0] = values[0] or given
    members = [f'"{name}"{random.choice([": ", ":", " : "])}{raw}' for name, raw in raws.items()]
    members += random.sample(_EXTRAS, random.randrange(3))
    if lacks and members:
        members.append('"model": "M"')  # without anything in common they are no devices
    random.shuffle(members)
    if members and random.random() < 0.06:
        members.insert(random.randrange(len(members) + 1), random.choice(members))
        is_good = False
    is_good &= values[0] is not None and (values[1] is not None or lacks == "machine_code")
    return members, Right(tuple(values) if is_good else None, tuple(members), is_open)


def _object(random: Random, members: list[str]) -> str:
    layout = random.randrange(3)
    if layout == 0:
        return f"{{{', '.join(members)}}}"
    if layout == 1:
        return f"{{{','.join(members)}}}"
    inner = ",\n    ".join(members)
    return f"{{\n    {inner}\n  }}"


def _array(random: Random, objects: list[str]) -> str:
    between = random.choice([",", ", ", ",\n", "\n,\n  ", ",\r\n\t"])
    begin, end = random.choice(["", " ", "\n"]), random.choice(["", "\n"])
    return f"[{begin}{between.join(objects)}{end}]"


def json_file(random: Random) -> Made:  # noqa: C901, PLR0912  # a branch for each shape
    """Return a document of a random shape."""
    given = random.choice([None, FALLBACK])
    settings: dict[str, object] = {"user_id": given} if given else {}
    shape = random.choice(_SHAPES)
    keyed = shape.startswith("keyed")
    if keyed:
        settings["columns"] = {"machine_code": "@key"}
    many = 1 if shape == "single" else random.choice([1, 2, 5, 30])
    made = [_device(random, given, "machine_code" if keyed else "") for _ in range(many)]
    rows: list[Right] | None = [right for _, right in made]
    objects = [_object(random, members) for members, _ in made]
    text = ""
    if shape == "array":
        text = _array(random, objects)
    elif shape == "single":
        text = f"\n{objects[0]}\n"
    elif shape == "stream":
        text = random.choice(["\n", " ", "\n\n"]).join(objects)
    elif shape == "arrays":
        text = f"{_array(random, objects)}\n[]"
    elif shape == "devices":
        text = f'{{"version": 1, "devices": {_array(random, objects)}, "notes": "x"}}'
    elif shape == "envelope":
        text = f'{{"count": 2, "next": null, "results": {_array(random, objects)}}}'
    elif shape == "items":
        settings["items"] = "data.items"
        items = _array(random, objects)
        text = f'{{"other": [{{"machine_code": "X"}}], "data": {{"items": {items}}}}}'
    elif shape == "nested":
        text = f'{{"data": {{"page": {{"n": 1}}, "vans": {_array(random, objects)}}}, "links": []}}'
    elif shape == "two lists":
        text, rows = f'{{"a": {_array(random, objects)}, "b": {_array(random, objects)}}}', None
    elif shape == "devices twice":
        text, rows = f'{{"devices": {_array(random, objects)}, "devices": []}}', None
    elif shape == "comma too many":
        text, rows = f"[{', '.join(objects)}, ]", None
    elif shape == "comma missing":
        text, rows = f"[{' '.join([*objects, '{}'])}]", None
    elif shape == "keyed":
        text, rows = _keyed(objects, made)
    else:
        inner, _ = _keyed(objects, made)
        text, rows = f'{{"group1": {{"hosts": {inner}}}, "group2": {{"hosts": {inner}}}}}', None
    return Made("fleet.json", text.encode(), settings, rows, shape)


_SHAPES = [
    "array", "array", "single", "stream", "arrays", "devices", "envelope", "items", "nested",
    "two lists", "devices twice", "comma too many", "comma missing", "keyed", "keyed groups",
]  # fmt: skip


def _keyed(objects: list[str], made: list[tuple[list[str], Right]]) -> tuple[str, list[Right]]:
    pairs, rows = [], []
    for number, (text, (members, right)) in enumerate(zip(objects, made, strict=True)):
        name = f"SW{number}"
        body = text if members else "{}"
        pairs.append(f'"{name}": {body}')
        values = right.values
        if values is not None:
            values = (values[0], name, *values[2:])
        rows.append(
            right._replace(values=values, written=(f'"{name}"', *right.written), is_open=False)
        )
    return f"{{{', '.join(pairs)}}}", rows


def json_lines_file(random: Random) -> Made:
    """Return JSON Lines, some of whose lines are broken."""
    given = random.choice([None, FALLBACK])
    lines: list[str] = []
    rows: list[Right] = []
    for _ in range(random.choice([2, 5, 40])):
        kind = random.random()
        if kind < 0.1 and lines:
            broken = random.choice(_BROKEN_LINES)
            # Two broken lines may be one whole object, which is then read as such.
            is_whole = broken == "}" and "".join(lines).rstrip(" ").endswith(_UNCLOSED)
            lines.append("{}" if is_whole else broken)
            rows.append(Right(None, (lines[-1],)))
        elif kind < 0.15 and lines:
            lines.append(random.choice(["", "  "]))
        else:
            members, right = _device(random, given)
            lines.append(f"{{{random.choice([', ', ',']).join(members)}}}")
            rows.append(right)
    end = random.choice(["\n", "\r\n"])
    settings = {"user_id": given} if given else {}
    return Made("fleet.jsonl", end.join([*lines, ""]).encode(), settings, rows, "lines")


_UNCLOSED = ("{", '{"machine_code": "A", "user_id": "u"')
_BROKEN_LINES = [
    "not json", '{"machine_code": "A", "user_id": "u"', '{"machine_code": "A",}', "[1, 1.10]",
    '"SN1"', "1e5", "null", "{} {}", '{"machine_code": NaN, "user_id": "u"}', "{}", "{'a': 1}",
    '{"machine_code": "A\t"}', "}", "// comment", "{", '{"a"',
]  # fmt: skip
