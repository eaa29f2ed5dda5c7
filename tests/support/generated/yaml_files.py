"""YAML with known right values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.generated.made import FALLBACK, Made, Right

if TYPE_CHECKING:
    from random import Random

FIELDS = ("user_id", "machine_code", "device_name", "device_os")
_GOOD: dict[str, list[tuple[str, str | None]]] = {
    "user_id": [
        ("u1", "u1"), ("'u1'", "u1"), ('"\\u0075_7"', "u_7"), ("17", "17"), ("+49:1", "+49:1"),
        ("!!str nul", "nul"), ("no", "no"), ("'~x'", "~x"), ("!!int 12", "12"),
        ("12:34", "12:34"),
    ],
    "machine_code": [
        ("SN1", "SN1"), ("0012", "0012"), ("'0123'", "0123"), ('"\\x41_9"', "A_9"),
        ("0x1F", "0x1F"), ("1_000", "1_000"), ("!!str 0o17", "0o17"), ("|-\n      SN7", "SN7"),
        (">\n      SN8\n", "SN8"), ("! 77", "77"), ("'  SN9 '", "SN9"),
    ],
    "device_name": [
        ("Van 1", "Van 1"), ("a-b_c", "a-b_c"), ("~", None), ("", None), ("''", None),
        ("off", "off"), ("null", None), ("!!null x", None), ("Van\n      2", "Van 2"),
        ('"Van\\\n      3"', "Van3"), ("'null'", None), ("N/A", None),
    ],
    "device_os": [
        ("Android 15", "Android 15"), ("iOS_17", "iOS_17"), ("Null", None), ("7", "7"),
    ],
}  # fmt: skip
_NULLS: list[tuple[str, str | None]] = [("null", None), ("", None), ("~", None)]
_OPEN = ["1e5", "2E9", "true", "123456789012345678901234567890"]
_BAD = [
    "!secret x", "!vault |\n      aa", "[A]", "{a: b}", "!<tag:e.org,2000:x> y",
    "caf\u00e9 \u00fc", "!!binary QQ==", "a:b/c d",
]  # fmt: skip
_BAD_CODES = ["a-b", "1.10", "-0", "2026-01-02", "'null-'", "'null'", "!!str null", "TBD", "000"]
_BAD_USERS = ["1.84281E+18", "184.0", "'null'", "!!str null", "N/A", "(none)"]
_EXTRAS = [
    "site: gr\u00f6\u00dfe", "tags: [1, 2.50, {a: ~}]", "note: 'it''s # no comment'",
    "x: !secret y", "deep:\n      a:\n        - b\n        - c: 1e5", "text: |+\n      # kept\n\n",
    "'- q': \"a: b\\tc\"", "n: !!float 1.10", "z: [&in_z {q: 1}]", "w: \U0001f600",
]  # fmt: skip


def _device(
    random: Random, given: str | None, lacks: str = "", *, flow: bool = False
) -> tuple[list[str], Right]:
    """Return the members of a device, in any order, and what must come of it."""
    raws: dict[str, str] = {}
    values: dict[str, str | None] = {}
    for field in FIELDS:
        if field != lacks and (field == "machine_code" or random.random() < 0.8):
            choices = [pair for pair in _GOOD[field] if not (flow and "\n" in pair[0])]
            raws[field], values[field] = random.choice(choices)
    is_good, is_open = True, False
    kind = random.random()
    if kind < 0.15:
        bad = [raw for raw in _BAD if not (flow and "\n" in raw)]
        raws[random.choice(sorted(raws) or ["user_id"])] = random.choice(bad)
        is_good = False
    elif kind < 0.22 and "machine_code" in raws:
        raws["machine_code"] = random.choice(_BAD_CODES)
        is_good = False
    elif kind < 0.28 and "machine_code" in raws:
        raws["machine_code"] = values["machine_code"] = random.choice(_OPEN)
        is_open = True
    elif kind < 0.31 and "user_id" in raws:
        raws["user_id"] = random.choice(_BAD_USERS)
        is_good = False
    elif kind < 0.36:
        raws["user_id"], values["user_id"] = random.choice(
            [("null", None), ("", None), ("~", None)]
        )
    members = [f"{name}: {raw}" for name, raw in raws.items()]
    extras = [extra for extra in _EXTRAS if not (flow and "\n" in extra)]
    members += random.sample(extras, random.randrange(3))
    if lacks and members:
        members.append("model: M")  # without anything in common they are no devices
    random.shuffle(members)
    if members and random.random() < 0.06:
        members.insert(random.randrange(len(members) + 1), random.choice(members))
        is_good = False
    found = [values.get(field) for field in FIELDS]
    found[0] = found[0] or given
    is_good &= found[0] is not None and (found[1] is not None or lacks == "machine_code")
    return members, Right(tuple(found) if is_good else None, tuple(members), is_open)


def _block(members: list[str], column: int, random: Random) -> str:
    """Return a mapping whose keys stand at a column; the first line has no blanks before it."""
    lines = []
    for member in members:
        first, *rest = member.split("\n")
        lines += [first, *(line and " " * (column - 2) + line for line in rest)]
        # Members are written for keys at column 2.
        lines[-len(rest) - 1] = (" " * column if len(lines) > len(rest) + 1 else "") + first
        if random.random() < 0.1:
            lines.append(" " * column + "# a comment")
    return "\n".join(lines)


def _item(random: Random, made: tuple[list[str], Right], column: int, *, flow: bool) -> str:
    members = made[0]
    if flow:
        return f"{{{random.choice([', ', ' , ']).join(members)}}}"
    return _block(members, column, random) or "{}"


def yaml_file(random: Random) -> Made:  # noqa: C901  # a branch for each shape
    """Return a document, or several, of a random shape."""
    given = random.choice([None, FALLBACK])
    settings: dict[str, object] = {"user_id": given} if given else {}
    shape = random.choice(_SHAPES)
    keyed = shape.startswith("keyed")
    if keyed:
        settings["columns"] = {"machine_code": "@key"}
    many = 1 if shape == "single" else random.choice([1, 2, 5, 25])
    flows = [random.random() < 0.3 for _ in range(many)]
    made = [_device(random, given, "machine_code" if keyed else "", flow=flow) for flow in flows]
    rows: list[Right] | None = [right for _, right in made]
    head = random.choice(["", "# fleet\n", "---\n", "%YAML 1.1\n---\n"])
    if shape == "list":
        text = _list(random, made, flows, random.choice([0, 0, 2]))
    elif shape == "anchors":
        text, rows = _anchored(random, made, flows)
    elif shape == "defaults":
        text, rows = _defaults(random, made, flows)
    elif shape == "devices":
        text = (
            f"version: 1\ndevices:\n{_list(random, made, flows, random.choice([0, 2]))}notes: x\n"
        )
    elif shape == "nested":
        text = f"meta: {{page: 1}}\ndata:\n  vans:\n{_list(random, made, flows, 4)}"
    elif shape == "two lists":
        listed = _list(random, made, flows, 0)
        text, rows = f"a:\n{listed}b:\n{listed}", None
    elif shape == "single":
        text = _item(random, made[0], 0, flow=flows[0]) + "\n"
    elif shape == "documents":
        texts = [_item(random, each, 0, flow=flow) for each, flow in zip(made, flows, strict=True)]
        text = "\n---\n".join(texts) + "\n"
    elif shape == "keyed":
        text, rows = _keyed(random, made, flows)
    else:
        inner, _ = _keyed(random, made, flows)
        inner = "".join(f"    {line}\n" if line else "\n" for line in inner.splitlines())
        text, rows = f"all:\n  hosts:\n{inner}  children:\n    x:\n      hosts:\n        y:\n", None
    return Made("fleet.yaml", (head + text).encode(), settings, rows, shape)


_SHAPES = [
    "list", "list", "anchors", "defaults", "devices", "nested", "two lists", "single", "documents",
    "keyed", "keyed groups",
]  # fmt: skip


def _list(
    random: Random, made: list[tuple[list[str], Right]], flows: list[bool], column: int
) -> str:
    gap = random.choice([" ", " ", "   "])
    entries = []
    for each, flow in zip(made, flows, strict=True):
        inner = _item(random, each, column + 1 + len(gap), flow=flow)
        comment = random.choice(["", "", "\n# next", "\n"])
        entries.append(f"{' ' * column}-{gap}{inner}{comment}\n")
    return "".join(entries)


def _defaults(
    random: Random, made: list[tuple[list[str], Right]], flows: list[bool]
) -> tuple[str, list[Right]]:
    raw, value = random.choice([pair for pair in _GOOD["user_id"] if "\n" not in pair[0]])
    rows = []
    for members, right in made:
        if any(member.startswith("user_id:") for member in members):
            rows.append(right)
            continue
        others = _others(members)
        values = None if others is None else (value, *others)
        rows.append(right._replace(values=values))
    listed = _list(random, made, flows, 2)
    return f"defaults:\n  user_id: {raw}\ndevices:\n{listed}", rows


def _others(members: list[str]) -> tuple[str | None, ...] | None:
    """Return the values of a device without a user, but for the user; None if one is wrong."""
    found: list[str | None] = []
    for field in FIELDS[1:]:
        raws = [member.partition(": ")[2] for member in members if member.startswith(f"{field}:")]
        known = dict(_GOOD[field]) | {raw: raw for raw in _OPEN if field == "machine_code"}
        if len(raws) > 1 or any(raw not in known for raw in raws):
            return None
        found.append(known[raws[0]] if raws else None)
    return None if found[0] is None or len(set(members)) < len(members) else tuple(found)


def _anchored(
    random: Random, made: list[tuple[list[str], Right]], flows: list[bool]
) -> tuple[str, list[Right]]:
    """Return a list whose devices take users and more from the first."""
    first = (
        '- &first {machine_code: FIRST, user_id: &user "anchored", '
        "more: &more [1.10, {a: '007'}]}\n"
    )
    rows = [Right(("anchored", "FIRST", None, None), ("anchored", "1.10", "'007'"))]
    entries = [first]
    for each, flow in zip(made, flows, strict=True):
        kind = random.randrange(4)
        if kind == 0:
            entries.append(_list(random, [each], [flow], 0))
            rows.append(each[1])
        elif kind == 1:
            entries.append("- *first\n")
            rows.append(Right(("anchored", "FIRST", None, None), ("anchored", "1.10", "007")))
        elif kind == 2:
            entries.append("- <<: *first\n  machine_code: OWN\n  device_name: no\n")
            rows.append(Right(("anchored", "OWN", "no", None), ("device_name: no",)))
        else:
            entries.append("- machine_code: A-1\n  user_id: *user\n  x: *more # more\n")
            rows.append(Right(None, ("machine_code: A-1", "user_id: anchored", "1.10")))
    return "".join(entries), rows


def _keyed(
    random: Random, made: list[tuple[list[str], Right]], flows: list[bool]
) -> tuple[str, list[Right]]:
    pairs, rows = [], []
    for number, (each, flow) in enumerate(zip(made, flows, strict=True)):
        members, right = each
        name = f"SW{number}"
        written = f"'{name}'" if number % 2 else name
        inner = _item(random, each, 2, flow=flow)
        pairs.append(f"{written}:{' ' if flow or not members else chr(10) + '  '}{inner}\n")
        values = right.values and (right.values[0], name, *right.values[2:])
        rows.append(right._replace(values=values, written=(name, *right.written)))
    return "".join(pairs), rows
