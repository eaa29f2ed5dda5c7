"""CSV of many dialects and shapes with known right values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.generated.made import FALLBACK, Made, Right

if TYPE_CHECKING:
    from random import Random

FIELDS = ("user_id", "machine_code", "device_name", "device_os")
_SPELLED = {
    "user_id": ["user_id", "userId", "User ID", "USER_ID"],
    "machine_code": ["machine_code", "machineCode", "Machine Code", "MACHINE_CODE"],
    "device_name": ["device_name", "deviceName", "Device Name"],
    "device_os": ["device_os", "deviceOS", "Device OS"],
}
_EXTRA = ["site", "note", "Bemerkung", "price"]
_NOTES = [
    "", "", "x", "Berlin", "two words", '24" screen', "O'Neil", "it's 'fine'", 'say "hi"', "a\nb",
    "a, b", "a; b", "a|b", "a\tb", "C:\\export\\", "\\", 'x\\"', "50%", "# 7", "3.50", "3,50",
    "caf\u00e9", "--", "'", '"', "1", "(2 rows)", "x=1", "'quoted'", '"quoted"', "a, 'b', c",
]  # fmt: skip
_TITLES = [
    [], [], [], ["Fleet of 2026"], ["Fleet of 2026", ""], ["# exported by x", "#"], ["", ""],
    ["Fleet of Bob's garage", "made on 2026-11-26"],
]  # fmt: skip
_FOOTERS = [
    [],
    [],
    [],
    ["({rows} rows)"],
    ["{rows} rows selected."],
    ["", "({rows} rows affected)"],
]
_OTHER_WORDS = {
    "user_id": ["Owner", "Benutzer", "assigned_to"],
    "machine_code": ["Serial", "Seriennummer", "IMEI"],
    "device_name": ["Hostname", "Modell"],
    "device_os": ["OS", "Betriebssystem"],
}
_TOTALS = ["Total", "SUMME", "Grand_Total", "eof", "serial_number"]
_MANY = 0.25
DAMAGES = ("long", "short", "bad code", "broken quote")


@dataclass(frozen=True)
class Style:
    """How a file is written."""

    delimiter: str
    quote: str
    quoting: str
    """all, text (all but numbers), minimal or escapes (backslashes before quotes)."""
    encoding: str
    line_end: str
    blank: str
    """Before quotes, but in the first cell."""

    def cell(self, value: str) -> str:
        """Return a cell as written."""
        is_special = any(
            special in value for special in (self.delimiter, self.quote, "\n", "\r", '\\"')
        ) or value.startswith((" ", "#"))
        if self.quoting == "escapes":
            is_special = is_special or "\\" in value or '"' in value
        is_text = bool(value) and not value.isdigit()
        if not (self.quoting == "all" or (self.quoting == "text" and is_text) or is_special):
            return value
        if self.quoting == "escapes":
            inner = value.replace("\\", "\\\\").replace('"', '\\"')
        else:
            inner = value.replace(self.quote, self.quote * 2)
        return f"{self.quote}{inner}{self.quote}"

    def row(self, cells: list[str]) -> str:
        """Return a row as written, without its line end."""
        first, *others = map(self.cell, cells)
        quoted = (f"{self.blank}{cell}" if cell[:1] == self.quote else cell for cell in others)
        return self.delimiter.join([first, *quoted])


def _style(random: Random) -> Style:
    quote = random.choice('"""\'')
    quotings = ["all", "text", "minimal", "minimal"] + ["escapes"] * (quote == '"')
    return Style(
        random.choice(",;\t|^"),
        quote,
        random.choice(quotings),
        random.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]),
        random.choice(["\n", "\r\n", "\r"]),
        random.choice(["", "", "", " "]),
    )


def _device(random: Random, columns: list[str], given: str | None) -> tuple[list[str], Right]:
    """Return the cells of a good row, and what must come of it."""
    good = {
        "user_id": random.choice(["u1", "user@x", "+49:1", "17", *([""] if given else [])]),
        "machine_code": f"SN{random.randrange(10**6):06d}",
        "device_name": random.choice(["Van 1", "a-b_c", "", "42"]),
        "device_os": random.choice(["Android 15", "iOS_17", "", "7"]),
    }
    cells = [good[name] if name in good else random.choice(_NOTES) for name in columns]
    values: list[str | None] = [good[name] if name in columns else None for name in FIELDS]
    values = [value or None for value in values]
    values[0] = values[0] or given
    return cells, Right(tuple(values))


def _damaged(random: Random, style: Style, cells: list[str], columns: list[str]) -> tuple[str, str]:
    """Return the text of a row that is no device, and the kind of its damage."""
    kind = random.choice(DAMAGES)
    code = columns.index("machine_code")
    # Where other rows speak against the quotes, what follows a line break is a row of its own.
    cells = [cell.replace("\n", " ") for cell in cells]
    if kind == "bad code":
        return style.row([*cells[:code], "SN-1", *cells[code + 1 :]]), kind
    if kind == "long":
        at = random.randrange(len(cells) + 1)
        return style.row([*cells[:at], "Mitte", *cells[at:]]), kind
    if kind == "short":
        at = random.randrange(len(cells) - 1)
        joined = f"{cells[at]} {cells[at + 1]}".strip() or "x"
        return style.row([*cells[:at], joined, *cells[at + 2 :]]), kind
    quote = style.quote
    text = style.row([*cells[:code], "SN1", *cells[code + 1 :]])
    return text.replace("SN1", f"{quote}SN{quote}1", 1).replace(quote * 2, quote), kind


def _rows(
    random: Random, style: Style, columns: list[str], given: str | None, ragged: str
) -> list[Right]:
    """Return what must come of some rows, each with its text."""
    rows: list[Right] = []
    short: list[int] = []
    for number in range(random.choice([1, 3, 8, 20, 60])):
        cells, right = _device(random, columns, given)
        # A damaged row can be told from whole ones alone.
        if ragged == "damage" and number % 5 == 4:
            text, _ = _damaged(random, style, cells, columns)
            right = Right(None)
        else:
            while ragged == "cut" and len(cells) > 1 and not cells[-1]:
                cells.pop()
            text = style.row(cells)
        if text.strip(style.delimiter + " "):
            short += [len(rows)] * (len(cells) < len(columns))
            rows.append(right._replace(written=(text,)))
    if ragged == "cut" and len(short) < max(2, _MANY * len(rows)):
        for at in short:  # too few to tell them from damaged ones
            rows[at] = rows[at]._replace(is_open=True)
    return rows


def csv_file(random: Random) -> Made:
    """Return a file of a random dialect and shape."""
    style = _style(random)
    given = random.choice([None, FALLBACK])
    columns = ["machine_code", *random.sample(["user_id", "device_name", "device_os"], 3)]
    columns = columns[: random.randrange(2, 5)]
    if given is None and "user_id" not in columns:
        columns[-1] = "user_id"
    columns += random.sample(_EXTRA, random.randrange(4))
    random.shuffle(columns)
    header = [random.choice(_SPELLED[name]) if name in _SPELLED else name for name in columns]
    ending = random.choice(["", "", "", "", style.delimiter])
    ragged = random.choice(["none", "none", "damage", "cut"])
    head = style.delimiter.join(header) if random.random() < 0.5 else style.row(header)
    written = random.choice(_TITLES)[:]
    if style.delimiter == "^":
        written.insert(0, "sep=^")
    written.append(head)
    rows = _rows(random, style, columns, given, "none" if ending and ragged == "cut" else ragged)
    if random.random() < 0.1:  # a header in other words says nothing new
        words = [random.choice(_OTHER_WORDS.get(name, [name])) for name in columns]
        written.append(style.row(words) + ending)
    if random.random() < 0.1:  # a total is no device
        cells = [random.choice(_TOTALS) if name == "machine_code" else "" for name in columns]
        rows.append(Right(None, (style.row(cells),)))
    written += [f"{right.written[0]}{ending}" for right in rows]
    footer = random.choice(_FOOTERS)
    written += [line.format(rows=len(rows)) for line in footer]
    end = style.line_end if random.random() < 0.8 else ""
    text = style.line_end.join(written) + end
    settings: dict[str, Any] = {"user_id": given} if given else {}
    if style.encoding == "cp1252":
        settings["encoding"] = "cp1252"
    shape = f"{'single' if style.quote != chr(34) else 'double'} quotes, {style.quoting}, {ragged}"
    if ending:
        shape += ", delimiter at the end"
    return Made("fleet.csv", text.encode(style.encoding), settings, rows, shape)
