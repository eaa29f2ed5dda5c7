"""`report.html`: a self-contained page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from datetime import datetime
from functools import cache
from importlib import resources
from itertools import islice
from typing import TYPE_CHECKING, Any

from bulkbind.files import replacing
from bulkbind.model import (
    IS_BOUND,
    IS_GONE,
    MEANINGS,
    TO_SEE_TO,
    VERDICTS,
    NoAnswer,
    RunKind,
    RunState,
    Status,
    adjustment_words,
)
from bulkbind.model.wording import counted, meaning, span_text
from bulkbind.redaction import json_text, line
from bulkbind.report import charts
from bulkbind.report.measures import limit_text, moment, rate_text, sent_by
from bulkbind.report.summary import (
    asked_text,
    exactness,
    not_found,
    reasons_shown,
    sentence,
    tone,
)
from bulkbind.report.tables import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from jinja2 import Template
    from markupsafe import Markup

    from bulkbind.model import LeaverRow, ResultRow, RunFacts, RunSummary, Source, TimelinePart
    from bulkbind.report import RunRows, Users
    from bulkbind.report.tables import RowFilter

MOST_ROWS = 2_000
"""Rows in the page's table: as many as a browser sorts and searches without delay."""
MOST_USERS = 200
MOST_LEFT = 50
"""Devices that left the manifest: those that need a person stand among the reasons."""

_BETWEEN = re.compile("`([^`]+)`")
"""How our texts mark what is typed; none of these characters is changed by escaping."""

TONES = {status.shown: status.about.tone for status in Status}
"""The colour of each status: a class of the page's style sheet."""


def write_html(
    path: Path,
    run: RunRows,
    summary: RunSummary,
    only: RowFilter | None = None,
    *,
    users: Users | None = None,
) -> None:
    """Write the page. *only*: the rows of its table (None: those left). Raises: LedgerError.

    *users*: those of the run, if they are known.
    """
    sources = run.sources()
    table = _Table(run, summary, sources, only)
    reasons = list(reasons_shown(summary))
    script = _file("report.js")
    shown_users, user_count = users or run.users(MOST_USERS)
    values = {
        "summary": summary,
        "facts": summary.facts,
        "verdict": verdict(summary),
        "statuses": _statuses(summary),
        "reasons": [each | {"means": meaning(each["code"])} for each in reasons],
        "left": [_left(row) for row in islice(run.leavers(), MOST_LEFT)],
        "left_count": sum(summary.leavers.values()),
        "most_reason": max((each["count"] for each in reasons), default=1),
        "tones": TONES,
        "users": shown_users,
        "user_count": user_count,
        "attempts": _attempts(run),
        "spent": _time_spent(summary),
        "waits": _waits(summary.facts),
        "table": table,
        "not_found": not_found(summary) if summary.facts.not_found else (),
        "exactness": exactness(summary),
        "settings": json_text(summary.settings),
        "style": _file("report.css"),
        "script": script,
        "script_digest": _digest(script),
        "asked": asked_text(summary.facts),
        "adjusted": [adjustment_words(each) for each in summary.facts.adjusted],
        **_series(summary.facts.parts),
    }
    with replacing(path) as file:
        file.writelines(_template().generate(values))


def load_page() -> None:
    """Do now what takes the first page longer than any other."""
    _template()


@cache
def _template() -> Template:
    """Return the page's template, whose compilation takes longer than all else of a report."""
    # Imported here: it takes as long as everything else, and few commands write a page.
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  # as above

    environment = Environment(
        loader=PackageLoader("bulkbind.report", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_fit,
    )
    environment.filters["n"] = "{:,}".format
    environment.filters["counted"] = counted
    environment.filters["moment"] = moment
    environment.filters["rate"] = rate_text
    environment.filters["limit"] = limit_text
    environment.filters["sent_by"] = sent_by
    environment.filters["seconds"] = _seconds
    environment.filters["place"] = _place
    environment.filters["typed"] = _typed
    return environment.get_template("report.html")


def _place(text: str) -> Markup:
    """Return a path, or a path with a line, that may be broken behind each of its folders."""
    from markupsafe import Markup as Safe, escape  # noqa: PLC0415  # comes with jinja2

    return Safe("/<wbr>").join(escape(line(part)) for part in text.split("/"))


def _typed(text: str) -> Markup:
    """Return a text in which what a person types, between backticks, is set apart."""
    from markupsafe import Markup as Safe, escape  # noqa: PLC0415  # comes with jinja2

    return Safe(_BETWEEN.sub(r'<span class="mono">\1</span>', str(escape(line(text)))))  # noqa: S704  # escaped


def _fit(value: object) -> object:
    """Return whatever the page shows, text from elsewhere as a line."""
    return line(value) if type(value) is str else value


def _file(name: str) -> Markup:
    from markupsafe import Markup as Safe  # noqa: PLC0415  # comes with jinja2

    return Safe(resources.files("bulkbind.report").joinpath("page", name).read_text("utf-8"))  # noqa: S704  # our own file


def _digest(script: str) -> str:
    """Return the digest for the page's content security policy."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def verdict(summary: RunSummary) -> dict[str, str]:
    """Return the sentence at the top of the page, and its tone."""
    text = sentence(summary)
    if summary.state is RunState.STOPPED:
        text = f"Stopped, can be resumed ({summary.stop_reason or 'it was stopped'}): {text}"
    return {"tone": tone(summary), "text": text}


def _statuses(summary: RunSummary) -> list[dict[str, Any]]:
    return [
        {
            "name": status,
            "count": count,
            "meaning": MEANINGS[status],
            "tone": TONES[status],
            "share": 100 * count / max(summary.total, 1),
        }
        for status, count in summary.counts.items()
    ]


class _Table:
    def __init__(
        self,
        run: RunRows,
        summary: RunSummary,
        sources: Sequence[Source],
        only: RowFilter | None,
    ) -> None:
        self._run = run
        self._sources = sources
        self._only = only
        counts = summary.counts
        is_bind = summary.kind is RunKind.BIND
        self.wanted = "bound" if is_bind else "unbound"
        """What the run was to make of its devices."""
        reached = IS_BOUND if is_bind else IS_GONE
        left = {status: n for status, n in counts.items() if status not in reached}
        self.is_filtered = only is not None
        self.is_narrowed = only is None and sum(left.values()) > MOST_ROWS
        """Whether rows that need no person are left out, as there are too many."""
        shown = {s: n for s, n in left.items() if not self.is_narrowed or s in TO_SEE_TO}
        self._statuses = tuple(shown) or ("none",)
        self.total = None if self.is_filtered else sum(shown.values())
        """Rows that belong in the table; None if not counted."""
        self.most = MOST_ROWS
        self.statuses = sorted(shown)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the first `MOST_ROWS` rows in manifest order."""
        found = self._run.rows(self._statuses) if self._only is None else self._only.rows(self._run)
        for row in islice(found, MOST_ROWS):
            yield _shown(row, self._sources)


def _shown(row: ResultRow, sources: Sequence[Source]) -> dict[str, Any]:
    return {
        "place": f"{sources[row.source].name}:{row.line}",
        "user": row.user_id,
        "code": row.machine_code,
        "name": row.name,
        "status": row.status,
        "tone": TONES[row.status],
        "reason": reason_of(row),
        "attempts": row.attempts,
        "trace": row.trace_id,
    }


def _left(row: LeaverRow) -> dict[str, str]:
    return {
        "user": row.user_id,
        "code": row.machine_code,
        "status": row.status,
        "why": reason_of(row),
    }


# --- charts --------------------------------------------------------------------------------------


def _series(parts: Sequence[TimelinePart]) -> dict[str, Any]:
    """Return the throughput and latency charts, empty if the run recorded no data."""
    times: list[float] = []
    settled: list[float | None] = []
    pace: list[float | None] = []
    breaks: list[int] = []
    marks: list[int] = []
    began = 0.0
    for part in parts:
        step = float(part["step_s"])
        if times:
            breaks.append(len(times))
        points = zip(part["settled"], part["pace_per_s"], part["throttled"], strict=False)
        for position, (count, allowed, throttled) in enumerate(points):
            times.append(began + position * step)
            settled.append(count / step)
            pace.append(allowed)
            if throttled:
                marks.append(len(times) - 1)
        began += len(part["settled"]) * step
    if not any(settled):
        return {"throughput": "", "latency": "", "latency_text": "", "has_limit": False}
    peak = max(value for value in settled if value is not None)
    title = f"Devices settled per second over {charts.clock_text(began)}; the most were {peak:,.1f}"
    return {
        "throughput": charts.over_time(
            [
                charts.Series("settled", settled, "s1", is_area=True),
                charts.Series("allowed", pace, "s2", is_stepped=True),
            ],
            times,
            title=title,
            unit="devices per second",
            breaks=breaks,
            marks=marks,
        ),
        "has_limit": any(value is not None for value in pace),
        **_latency(parts),
    }


def _latency(parts: Sequence[TimelinePart]) -> dict[str, Any]:
    edges = parts[-1]["latency_edges_ms"]
    counts = [0] * (len(edges) + 1)
    for part in parts:
        if part["latency_edges_ms"] == edges:
            counts = [a + b for a, b in zip(counts, part["latency"], strict=True)]
    total = sum(counts)
    if not total:
        return {"latency": "", "latency_text": ""}
    first = next(at for at, n in enumerate(counts) if n)
    last = len(counts) - next(at for at, n in enumerate(reversed(counts)) if n)
    labels = [f"≤ {_ms(edge)}" for edge in edges] + [f"> {_ms(edges[-1])}"]
    text = ", ".join(
        f"{share} % {labels[_percentile(counts, total, share)]}" for share in (50, 90, 99)
    )
    chart = charts.histogram(
        labels[first:last], counts[first:last], title=f"Latency: {text}", unit="answers"
    )
    return {"latency": chart, "latency_text": text}


def _percentile(counts: Sequence[int], total: int, share: int) -> int:
    """Return the index of the histogram class that contains the percentile *share*."""
    seen = 0
    for position, count in enumerate(counts):
        seen += count
        if seen * 100 >= share * total:
            return position
    return len(counts) - 1


def _ms(edge: int) -> str:
    return f"{edge} ms" if edge < 1000 else f"{edge / 1000:.2g} s"  # noqa: PLR2004  # a second


def _attempts(run: RunRows) -> list[tuple[str, str, int]]:
    """Return the words, code and number of attempts that were not accepted at once, most first."""
    found: Counter[tuple[str, str]] = Counter()
    for item in run.verdicts():
        verdict = item["verdict"]
        is_hidden = verdict == NoAnswer.__name__ and not item["code"].isalpha()
        code = "" if is_hidden else item["code"]  # the server's code is no answer here
        found[VERDICTS.get(verdict, verdict), code] += item["count"]
    return [(*kind, count) for kind, count in found.most_common()]


def _time_spent(summary: RunSummary) -> list[dict[str, Any]]:
    facts = summary.facts
    spent: dict[str, float] = {}
    staging_s = _between(summary.created_at, summary.confirmed_at)
    if staging_s is not None:
        spent["checking the manifest, and the question"] = staging_s
    if facts.sending_s:
        spent |= dict(facts.account())
    total = sum(spent.values()) or 1.0
    return [
        {
            "what": what,
            "seconds": _seconds(s),
            "share": 100 * s / total,
        }
        for what, s in spent.items()
    ]


def _waits(facts: RunFacts) -> list[tuple[str, str]]:
    """Return how much was waited for devices and for answers that were silent, in words."""
    told = [
        ("binds sent again after no answer came in time", f"{facts.requests_again:,}"),
        ("waited for answers that were long overdue", _seconds(facts.silent_s)),
        ("devices waited before retries, in all", _seconds(facts.retrying_s)),
    ]
    return [(what, much) for what, much in told if much not in ("0", "0.00 s")]


def _seconds(seconds: float) -> str:
    return span_text(seconds) if seconds >= 1 else f"{seconds:.2f} s"


def _between(first: str, last: str | None) -> float | None:
    if not first or not last:
        return None
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
