"""Problems by rule: on one screen, or every one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from bulkbind.manifest.checking import Checker
from bulkbind.model import Problem, ProblemGroups, cause_of
from bulkbind.model.fields import FIELDS
from bulkbind.report.problem_text import every_line, full_text, problem_lines
from bulkbind.settings import ManifestSettings

HYPHEN = "'-' (U+002D HYPHEN-MINUS)"
RULE = "machine_code: only letters, digits and `_`, 1 to 64 characters"


def groups_of(*rows, source="fleet.csv"):
    """Return the groups of the problems of rows, as (user, code, name, os)."""
    checker = Checker(ManifestSettings())
    groups = ProblemGroups()
    for line, row in enumerate(rows, start=2):
        values = (*row, *[None] * (len(FIELDS) - len(row)))
        for problem in checker.row(line, [], values, FIELDS).problems:
            groups.add(0, source, line, problem)
    return groups


def lines_of(*rows, most=20):
    """Return the lines of the problems of rows."""
    return problem_lines(tuple(groups_of(*rows)), most)


def test_one_problem_takes_three_lines():
    """The rule, the problem, and what fixes it as the last word."""
    assert lines_of(("u", "A-1")) == [
        f"      1  {RULE}",
        "         fleet.csv:2: machine_code 'A-1': '-' (U+002D) at position 2",
        "         no option fixes these: fix them where they stand",
    ]


def test_a_thousand_equal_problems_take_no_more_than_five():
    """The cure tells how many of the group it fixes."""
    told = lines_of(*(("u", f"A{n}", f"Büro {n}") for n in range(1000)))

    assert told == [
        "  1,000  device_name: only letters, digits, `-`, `_` and blanks, 1 to 32",
        "         fleet.csv:2: device_name 'Büro 0': 'ü' (U+00FC) at position 2",
        "         fleet.csv:3: device_name 'Büro 1': 'ü' (U+00FC) at position 2",
        "         fleet.csv:4: device_name 'Büro 2': 'ü' (U+00FC) at position 2",
        "         --clean names fixes 1,000 of 1,000",
    ]


def test_causes_within_a_rule_are_counted():
    """Hyphens and what is too long are told apart; the rule is said once."""
    told = lines_of(*[("u", f"A-{n}") for n in range(990)], *[("u", "A" * 70)] * 10)

    assert told[:3] == [
        f"  1,000  {RULE}",
        f"         990 times: {HYPHEN}",
        "           fleet.csv:2: machine_code 'A-0'",
    ]
    assert told[5] == "         10 times: too long"
    assert re.fullmatch(r" +fleet\.csv:992: machine_code 'A{30,}…'", told[6])


def test_what_mends_only_some_says_how_many():
    """A user for all rows fixes those that name none; a name without a letter stays."""
    told = "\n".join(lines_of((None, "A1"), ("u 1", "A2"), ("u", "A3", "é"), ("u", "A4", "小米")))

    assert "--user-id ID fixes 1 of 2" in told
    assert "--clean names fixes 1 of 2" in told


def test_the_likely_cause_is_the_last_word_where_no_option_mends():
    """What a spreadsheet did to a code is said once, with what to do."""
    told = " ".join(" ".join(lines_of(("u", "1.84E+18"), ("u", "1.85E+18"))).split())

    assert told.endswith("set the column to text, enter the value again and export once more")
    assert told.count("a spreadsheet wrote a long number in short") == 1


@pytest.mark.parametrize("value", ["a\\b", "O'Brien", 'say "x"', "Grün", "小米", "x\ty", "a\x1bb"])
def test_values_stand_as_in_the_file(value):
    """No quote or backslash is doubled; what would steer a terminal is escaped."""
    shown = value.replace("\t", "\\t").replace("\x1b", "\\x1b")

    assert f": device_name '{shown}/'" in lines_of(("u", "A", f"{value}/"))[1]


def test_other_rows_are_named_in_each_problem():
    """Which row has the device as well is no cause that problems share."""
    groups = ProblemGroups()
    for line in (2, 3):
        found = f"two.csv:{line} gives it to u{line}"
        groups.add(0, "one.csv", line, Problem("machine_code", "machine_code", "A1", "r", found))
    told = problem_lines(tuple(groups))

    assert [cause.count for cause in groups["r"].causes] == [2]
    assert told[1].strip() == "one.csv:2: machine_code 'A1': two.csv:2 gives it to u2"
    assert told[2].strip() == "one.csv:3: machine_code 'A1': two.csv:3 gives it to u3"


def test_examples_are_the_first_of_the_manifests():
    """Repeated devices are found at the end, and yet shown in the order of the files."""
    groups = ProblemGroups()
    for number, line in ((1, 2), (0, 9), (0, 3), (1, 1), (0, 4)):
        groups.add(number, f"{number}.csv", line, Problem("f", "f", "x", "r", "it is wrong"))

    assert groups["r"].examples == [f"0.csv:{n}: f 'x': it is wrong" for n in (3, 4, 9)]


def broken(count, rules):
    """Return groups of so many problems of so many rules."""
    groups = ProblemGroups()
    for n in range(count):
        rule = n % rules
        problem = Problem(
            f"field_{rule}", f"Column {rule}", f"value {n}" * (1 + rule),
            f"field_{rule}: {'x' * 60}",
            f"{'-#.'[n % 3]!r} (U+{n % 3:04X} {'NAME ' * 5}) at {n}", "because of it" * rule,
            "--clean names" if rule % 2 else "",
        )  # fmt: skip
        groups.add(0, "a_manifest_with_a_name.csv", n + 2, problem)
    return groups


@pytest.mark.parametrize("rules", [1, 3, 8, 30])
@pytest.mark.parametrize("count", [1, 10, 1000])
@pytest.mark.parametrize("most", [8, 12, 16, 18])
def test_no_more_lines_than_wanted(count, rules, most):
    """Whatever is broken, it fits; each rule that is shown is said once, with its count."""
    groups = broken(count, rules)
    told = problem_lines(tuple(groups), most)

    assert len(told) <= most
    assert max(map(len, told)) <= 80
    heads = [line for line in told if re.match(r" *[\d,]+  field_", line)]
    shown = sum(int(line.split()[0].replace(",", "")) for line in heads)
    left = re.fullmatch(r"… and ([\d,]+) problems of [\d,]+ more rules", told[-1])
    assert shown + (int(left[1].replace(",", "")) if left else 0) == count == groups.count
    if min(count, rules) * 2 <= most:
        assert len(heads) == min(count, rules)
        assert not left


@given(
    st.lists(
        st.tuples(st.sampled_from("rst"), st.text(max_size=200), st.text(max_size=90)),
        max_size=40,
    ),
    st.integers(4, 20),
)  # fmt: skip
def test_lines_fit_whatever_the_values(found, most):
    """Wide, combining and unprintable characters break no line."""
    groups = ProblemGroups()
    for line, (rule, value, wrong) in enumerate(found):
        groups.add(0, "f.csv", line, Problem("f", "f", value, rule, ascii(wrong)[1:30]))
    told = problem_lines(tuple(groups), most)

    assert len(told) <= most
    assert all(line.isprintable() for line in told)


def test_every_problem_is_listed_below_its_cause():
    """Each on a line of its own in full, with what cleaning would make of it."""
    rows = [("u", f"A-{n}", "Grün") for n in range(50)]
    groups = groups_of(*rows)
    kept: dict[object, list[str]] = {}
    for line, row in enumerate(rows, start=2):
        for problem in Checker(ManifestSettings()).row(line, [], (*row, None), FIELDS).problems:
            kept.setdefault((problem.rule, cause_of(problem)), []).append(
                full_text("fleet.csv", line, problem)
            )
    told = list(every_line(groups, lambda rule, cause: kept[rule.rule, cause.key]))

    assert len(told) == 2 * (1 + 50 + 1)
    assert f"         fleet.csv:51: machine_code 'A-49': {HYPHEN} at position 2" in told
    assert "would make it 'Grun'" in "".join(told)
    assert sum(RULE in line for line in told) == 1


def test_causes_are_bounded():
    """A rule that is broken in a thousand ways keeps memory and screen small."""
    groups = ProblemGroups()
    for n in range(1000):
        groups.add(0, "f", n, Problem("f", "f", "x", "r", f"way {n}"))

    assert groups["r"].count == 1000
    assert len(groups["r"].causes) <= 51
