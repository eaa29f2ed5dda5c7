"""Workbooks of many forms with known right values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.sax.saxutils import escape

from tests.support.generated.made import FALLBACK, Made, Right
from tests.support.workbooks import Book, Page, merged

if TYPE_CHECKING:
    from random import Random

    from tests.support.generated.made import Values

FIELDS = ("user_id", "machine_code", "device_name", "device_os")
UNSURE = object()
"""A cell of which nobody can say what it means."""
_FORMATS = ("00000000", "#,##0", "0%", "yyyy-mm-dd", "000-000", '"SN"0000', "0.00", ";;;", "@", 14)
_ZEROS, _THOUSANDS, _PERCENT, _DATE, _DASHED, _SN, _DECIMALS, _HIDING, _TEXT, _BUILT_IN = range(
    1, 11
)


class Cell(NamedTuple):
    """A cell, and what it means."""

    xml: str
    means: object
    """A text, None if it is empty, or `UNSURE`."""
    is_formula: bool = False
    """Whether it is empty, though not in the source: then no default fills it."""


@dataclass
class _Texts:
    """The shared strings of a workbook that is being made."""

    inner: list[str] = field(default_factory=list)

    def add(self, inner: str) -> str:
        self.inner.append(inner)
        return f'<c t="s"><v>{len(self.inner) - 1}</v></c>'


def _word(draw: Random) -> str:
    return draw.choice("ABCXYZ") + "".join(draw.choices("abc0123456789_", k=draw.randint(1, 9)))


def _text(draw: Random, texts: _Texts) -> Cell:
    """Return a text in one of the forms that programs write."""
    value = _word(draw)
    half = draw.randint(0, len(value))
    runs = f"<r><rPr><b/></rPr><t>{value[:half]}</t></r><r><t>{value[half:]}</t></r>"
    reading = '<rPh sb="0" eb="1"><t>yomi</t></rPh><phoneticPr fontId="1"/>'
    coded = f"&#{ord(value[0])};{value[1:]}"
    return draw.choice(
        [
            lambda: Cell(texts.add(f"<t>{value}</t>"), value),
            lambda: Cell(texts.add(f'<t xml:space="preserve"> {value} </t>'), value),
            lambda: Cell(texts.add(f"{runs}{reading}"), value),
            lambda: Cell(texts.add(f"<t>_x{ord(value[0]):04X}_{value[1:]}</t>"), value),
            lambda: Cell(f'<c t="inlineStr"><is><t>{value}</t></is></c>', value),
            lambda: Cell(f'<c t="inlineStr"><is>{runs}{reading}</is></c>', value),
            lambda: Cell(f'<c t="str"><f>A1&amp;"{value}"</f><v>{value}</v></c>', value),
            lambda: Cell(f'<c t="str"><v>{coded}</v></c>', value),
        ]
    )()


def _number(draw: Random, _: _Texts) -> Cell:
    """Return a number that is what it shows."""
    value = draw.randint(1, 10 ** draw.randint(1, 15) - 1)
    short = value % 10_000
    return draw.choice(
        [
            Cell(f"<c><v>{value}</v></c>", str(value)),
            Cell(f"<c><f>1+1</f><v>{value}</v></c>", str(value)),
            Cell(f"<c><v>{value}.0</v></c>", str(value)),
            Cell(f'<c s="{_ZEROS}"><v>{short}</v></c>', f"{short:08d}"),
            Cell(f'<c s="{_SN}"><v>{short}</v></c>', f"SN{short:04d}"),
            Cell(f'<c s="{_TEXT}"><v>{value}</v></c>', str(value)),
            Cell('<c t="b"><v>1</v></c>', "TRUE"),
        ]
    )


def _unsure(draw: Random, _: _Texts) -> Cell:
    """Return a cell of which nobody can say what it means."""
    error = draw.choice(["#N/A", "#REF!", "#DIV/0!", "#NAME?", "#SPILL!", "#WEIRD"])
    style = draw.choice([_THOUSANDS, _PERCENT, _DATE, _DECIMALS, _HIDING, _BUILT_IN])
    xml = draw.choice(
        [
            f'<c t="e"><v>{error}</v></c>', f'<c t="e"><f>1/0</f><v>{error}</v></c>', '<c t="e"/>',
            "<c><f>A1</f></c>", "<c><f>A1</f><v/></c>", '<c><f t="shared" si="0"/><v></v></c>',
            f"<c><v>{draw.randint(10**15, 10**19)}</v></c>", "<c><v>1.84281E+18</v></c>",
            f'<c s="{style}"><v>{draw.randint(1001, 60_000)}</v></c>',
            '<c t="d"><v>2024-03-09</v></c>',
        ]
    )  # fmt: skip
    return Cell(xml, UNSURE)


def _empty(draw: Random, _: _Texts) -> Cell:
    if draw.random() < 0.2:
        return Cell('<c t="str"><f>IF(1,"","")</f><v></v></c>', None, is_formula=True)
    return Cell(
        draw.choice(["", "<c/>", f'<c s="{_ZEROS}"/>', '<c t="inlineStr"><is><t/></is></c>']), None
    )


def _cell(draw: Random, texts: _Texts) -> Cell:
    [kind] = draw.choices([_text, _number, _unsure, _empty], [10, 4, 1, 1])
    return kind(draw, texts)


def xlsx_file(draw: Random) -> Made:
    """Make a workbook: errors, merges, formulas, formats, hidden parts, offsets and dialects."""
    texts = _Texts()
    options: dict[str, Any] = {}
    if draw.random() < 0.6:
        options["user_id"] = FALLBACK
    if draw.random() < 0.3:
        options["visible_rows"] = True
    columns = [*FIELDS, *draw.sample(["note", "site", "x"], draw.randint(0, 3))]
    draw.shuffle(columns)
    has_places = draw.random() < 0.8
    left = draw.choice([0, 0, 1, 3]) if has_places else 0
    first = draw.choice([1, 1, 2, 5]) if has_places else 1
    table = [[_cell(draw, texts) for _ in columns] for _ in range(draw.randint(1, 8))]
    numbers = [first + 1 + n + (n > 3 and has_places) for n in range(len(table))]
    areas = _merge(draw, table, numbers, columns, left) if has_places else []
    hidden = {number for number in numbers if draw.random() < 0.15}
    header = [texts.add(f"<t>{escape(name)}</t>") for name in columns]
    rows = [(first, header, False)]
    rows += [
        (number, [cell.xml for cell in cells], number in hidden)
        for number, cells in zip(numbers, table, strict=True)
    ]
    data = "".join(_row(draw, number, cells, left, is_hidden=h, has_places=has_places)
                   for number, cells, h in rows)  # fmt: skip
    page = Page(
        data, before=draw.choice(["", '<dimension ref="A1"/>', '<dimension ref="A1:XFD1048576"/>'])
    )
    page.after = merged(*areas) if areas else ""
    others = [
        Page(data, "lists", state="hidden"), Page("", "Chart", kind="chartsheet"),
        Page(data, "old", state="veryHidden"),
    ]  # fmt: skip
    book = Book(
        [*draw.sample(others, draw.randint(0, 2)), page], texts.inner, _FORMATS,
        from_1904=draw.random() < 0.2, prefix=draw.choice(["", "", "x"]),
        is_strict=draw.random() < 0.2,
    )  # fmt: skip
    made = [
        Right(_meant(cells, columns, options.get("user_id")))
        for number, cells in zip(numbers, table, strict=True)
        if not (number in hidden and options.get("visible_rows")) and not _is_blank(cells)
    ]
    shape = f"{'' if has_places else 'no '}places, {'' if areas else 'no '}merged cells"
    return Made("fleet.xlsx", book.content(), options, made, shape)


def _row(
    draw: Random, number: int, cells: list[str], left: int, *, is_hidden: bool, has_places: bool
) -> str:
    placed = []
    for at, cell in enumerate(cells, start=left):
        place = f' r="{chr(ord("A") + at)}{number}"' if has_places else ""
        xml = cell or ("" if has_places else "<c/>")
        placed.append(xml.replace("<c", f"<c{place}", 1))
    given = f' r="{number}"' if has_places else ""
    blank = draw.choice(["", "", "\n "])
    given += ' hidden="1"' if is_hidden else ""
    return f"<row{given}>{blank}{blank.join(placed)}</row>{blank}"


def _merge(
    draw: Random, table: list[list[Cell]], numbers: list[int], columns: list[str], left: int
) -> list[str]:
    """Merge some cells, and change what they mean."""
    if len(table) < 2 or draw.random() < 0.6:
        return []
    top = draw.randrange(len(table) - 1)
    bottom = draw.randint(top + 1, len(table) - 1)
    begin = draw.randrange(len(columns))
    end = min(len(columns) - 1, begin + draw.choice([0, 0, 1]))
    area = f"{chr(65 + left + begin)}{numbers[top]}:{chr(65 + left + end)}{numbers[bottom]}"
    first = table[top][begin]
    for line in range(top, bottom + 1):
        for at in range(begin, end + 1):
            cell = table[line][at]
            if line > top or at > begin:
                cell = cell._replace(xml=draw.choice(["", "<c/>", cell.xml]))
            means = first.means if begin == end else UNSURE
            is_empty = first.means is None
            table[line][at] = cell._replace(means=means, is_formula=is_empty)
    return [area]


def _is_blank(cells: list[Cell]) -> bool:
    return all(cell.means is None for cell in cells)


def _meant(cells: list[Cell], columns: list[str], fallback: str | None) -> Values | None:
    found = dict(zip(columns, cells, strict=True))
    values: list[str | None] = []
    for name in FIELDS:
        cell = found[name]
        if cell.means is UNSURE or (name == "machine_code" and cell.means is None):
            return None
        value = str(cell.means) if cell.means is not None else None
        if name == "user_id" and value is None:
            if cell.is_formula or fallback is None:
                return None
            value = fallback
        values.append(value)
    return tuple(values)
