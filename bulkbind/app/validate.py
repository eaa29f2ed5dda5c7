"""`validate`: check the rules only, without network and ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bulkbind import report
from bulkbind.app.inputs import choice_notices, left_out_of, no_rows, open_all, too_few
from bulkbind.app.session.listener import Listener
from bulkbind.errors import ExitCode, ManifestError
from bulkbind.manifest import batches_of, choose, open_manifest
from bulkbind.manifest.duplicates import Policy, Seen
from bulkbind.model import CheckedRow, GoodRows, Problem, ProblemGroups
from bulkbind.model.fields import FIELDS
from bulkbind.model.wording import counted, verb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bulkbind.manifest import Manifest, ManifestFile
    from bulkbind.model import Chosen
    from bulkbind.settings import Settings

PROBLEMS_FILE = "problems.csv"


@dataclass(slots=True)
class Validation:
    """What `validate` found."""

    rows: int = 0
    invalid: int = 0
    """Rows that break a rule, including conflicts and unwanted duplicates."""
    duplicates: int = 0
    """Rows whose device another row has, which is the one that counts."""
    cleaned: int = 0
    """Rows that cleaning changed."""
    rules: ProblemGroups = field(default_factory=ProblemGroups)
    left_out: Chosen | None = None
    """Rows that conditions left out, which are not among `rows`; None: no condition was given."""
    file: Path | None = None
    """The file with all problems."""

    @property
    def exit_code(self) -> ExitCode:
        """`NEEDS_PERSON` if some rows could not be bound."""
        return ExitCode.NEEDS_PERSON if self.invalid else ExitCode.DONE

    def as_json(self) -> dict[str, Any]:
        """Return the counts, and the rules with their first examples, largest first."""
        return {
            "rows": self.rows,
            "invalid": self.invalid,
            "duplicates": self.duplicates,
            "cleaned": self.cleaned,
            "rows_left_out": self.left_out,
            "rules": self.rules.as_json(),
        }


class BrokenOffError(ManifestError):
    """A manifest could not be read to its end."""

    def __init__(self, fault: ManifestError, found: Validation) -> None:
        """*found*: until then."""
        super().__init__(str(fault), hint=fault.hint)
        self.found = found


def validate(
    manifests: Sequence[str | Path],
    settings: Settings,
    listener: Listener | None = None,
    *,
    problems: Path | None = None,
    repeats: bool = True,
) -> Validation:
    """Check every row of every manifest, and report each that breaks a rule to the listener.

    Args:
        manifests: Paths, folders, patterns; `-` is standard input.
        settings: How they are read.
        listener: Receives problems, changes and notices.
        problems: Where all problems are written: a `.csv` file, or `problems.csv` in a folder.
        repeats: Also find repeated devices; takes a third more time, and some 50 bytes of temporary
            disk space per row.

    Raises: BrokenOffError if one cannot be read to its end: what was found until then has been
        reported and written; ManifestError if nothing was, or there are too few rows; LedgerError
        if a disk is full.
    """
    work = _Work(open_all(manifests), settings, listener or Listener())
    found = work.problems(repeats=repeats)
    if problems is None:
        for _ in found:
            pass
    else:
        is_file = problems.suffix.lower() == ".csv"
        work.found.file = problems if is_file else problems / PROBLEMS_FILE
        report.write_problems(work.found.file, found)
    if work.fault is not None:
        work.report_partial()
        raise BrokenOffError(work.fault, work.found) from work.fault
    return work.found


class _Work:
    """One validation."""

    def __init__(
        self, files: Sequence[ManifestFile], settings: Settings, listener: Listener
    ) -> None:
        self._files = files
        self._reads = settings.manifest.model_copy(update={"keep_left_out": False})
        self._listener = listener
        self.found = Validation()
        self.fault: ManifestError | None = None
        """Why the manifests could not be read to the end."""

    def problems(self, *, repeats: bool) -> Iterator[tuple[str, int, Problem]]:
        """Yield source, line and problem of every broken rule, in order; repeats at the end.

        If a manifest becomes unreadable, no more is read, but what was found is yielded.
        """
        manifests = self._opened()
        seen = Seen()
        for number, manifest in enumerate(manifests):
            before = self.found.rows
            for rows in self._batches(manifest):
                first = self.found.rows
                self.found.rows += len(rows)
                self._listener.staged(self.found.rows)
                if repeats:
                    seen.add(number, first, rows)
                if not isinstance(rows, GoodRows):
                    for row in rows:
                        if row.problems or row.changes:
                            yield from self._report(number, manifest.source.name, row)
            self._tell(manifest, self.found.rows - before)
            self.found.left_out = left_out_of(manifests)
            if self.fault is not None:
                break
        self.fault = self.fault or too_few(self._rows_read(), self._reads)
        if self.fault is not None and not self.found.rows:
            raise self.fault  # there is nothing to write
        if repeats:
            yield from self._repeats(seen)

    def _opened(self) -> list[Manifest]:
        choose(self._files, self._reads)
        manifests = [open_manifest(file, self._reads) for file in self._files]
        for notice in choice_notices(self._files):
            self._listener.notice(notice)
        return manifests

    def _rows_read(self) -> int:
        left_out = self.found.left_out
        return self.found.rows + (left_out["rows"] if left_out else 0)

    def _tell(self, manifest: Manifest, rows: int) -> None:
        for notice in manifest.notices:
            self._listener.notice(notice)
        if self.fault is None and (warning := no_rows(manifest, rows)):
            self._listener.warning(warning)

    def report_partial(self) -> None:
        """Report what was found before a manifest became unreadable."""
        found = self.found
        file = f"; problems: {found.file}" if found.file else ""
        breaks = verb(found.invalid, "breaks", "break")
        self._listener.notice(
            f"{counted(found.rows, 'rows')} could be read, {found.invalid:,} of them {breaks} a "
            f"rule{file}"
        )

    def _batches(self, manifest: Manifest) -> Iterator[GoodRows | list[CheckedRow]]:
        """Yield the rows in parts, up to where they cannot be read."""
        try:
            yield from batches_of(manifest)
        except ManifestError as error:
            self.fault = error

    def _report(
        self, number: int, source: str, row: CheckedRow
    ) -> Iterator[tuple[str, int, Problem]]:
        self.found.invalid += bool(row.problems)
        self.found.cleaned += bool(row.changes)
        self._listener.problem(source, row)
        for problem in row.problems:
            self.found.rules.add(number, source, row.line, problem)
            yield source, row.line, problem

    def _repeats(self, seen: Seen) -> Iterator[tuple[str, int, Problem]]:
        policy = Policy(self._reads.on_duplicate, self._reads.on_conflict)
        names = [each.name for each in self._files]
        example = ""
        for repeat in seen.repeats(names, policy):
            name = names[repeat.source]
            problem = repeat.problem
            if not repeat.is_invalid:
                self.found.duplicates += 1
                example = example or f"{name}:{repeat.line}: {problem.found}"
                continue
            values = (None, problem.value, *([None] * (len(FIELDS) - 2)))
            row = CheckedRow(repeat.line, [], values, (problem,))
            yield from self._report(repeat.source, name, row)
        if self.found.duplicates:
            name = verb(self.found.duplicates, "names", "name")
            self._listener.notice(
                f"{counted(self.found.duplicates, 'rows')} {name} a device of another row again, "
                f"which is the one that counts, e.g. {example}"
            )
