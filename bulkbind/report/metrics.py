"""Metrics of the last run as a textfile for Prometheus' node exporter.

Source of the names: https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bulkbind.errors import ExitCode, LedgerError, UsageError
from bulkbind.files import PUBLIC_FILE, replacing_bytes
from bulkbind.model import MEANINGS, RunFacts
from bulkbind.redaction import line
from bulkbind.report.extras import install

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LAST_SUCCESS = "bulkbind_run_last_success_timestamp_seconds"
_LABELS = ("endpoint", "manifest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The measurements of a command that has ended."""

    endpoint: str
    manifest: str
    """The manifests or the inbox; distinguishes jobs that write separate files."""
    exit_code: ExitCode
    took_s: float
    ended_at: float
    """Seconds since 1970."""
    counts: Mapping[str, int]
    facts: RunFacts
    ledger_bytes: int | None = None
    bindings: int | None = None


def why_no_metrics() -> str:
    """Return why no metrics can be written; empty if they can."""
    if find_spec("prometheus_client") is not None:
        return ""
    return f"metrics need a library that is not installed: `{install('metrics')}`"


def write_metrics(path: Path, measured: Measured) -> None:
    """Write the textfile atomically; it is world-readable and holds no personal data.

    Raises: LedgerError if it cannot be written, UsageError where the library is not installed.
    """
    if why := why_no_metrics():
        raise UsageError(why)
    from prometheus_client import CollectorRegistry, Gauge, generate_latest  # noqa: PLC0415  # an extra

    registry = CollectorRegistry()
    labels = (measured.endpoint, line(measured.manifest))
    for name, help_text, value in _gauges(path, measured):
        if value is not None:
            Gauge(name, help_text, _LABELS, registry=registry).labels(*labels).set(value)
    rows = Gauge(
        "bulkbind_run_rows", "Rows of the last run by status.", (*_LABELS, "status"),
        registry=registry,
    )  # fmt: skip
    for status in MEANINGS:
        rows.labels(*labels, status).set(measured.counts.get(status, 0))
    settled = Gauge(
        "bulkbind_run_worker_rows", "Rows that ended through each worker of the last run.",
        (*_LABELS, "worker", "host"), registry=registry,
    )  # fmt: skip
    for worker in measured.facts.workers:
        settled.labels(*labels, worker["number"], worker.get("host", "")).inc(worker["settled"])
    try:
        with replacing_bytes(path, PUBLIC_FILE) as file:
            file.write(generate_latest(registry))
    except OSError as error:
        raise LedgerError(f"metrics {path} cannot be written: {error.strerror or error}") from error


def _gauges(path: Path, measured: Measured) -> list[tuple[str, str, float | None]]:
    facts = measured.facts
    is_well = measured.exit_code == ExitCode.DONE
    last = measured.ended_at if is_well else _last_success(path, measured)
    return [
        ("bulkbind_run_exit_code", "Exit code of the last run.", measured.exit_code),
        ("bulkbind_run_duration_seconds", "How long the last run took.", measured.took_s),
        ("bulkbind_run_end_timestamp_seconds", "When the last run ended.", measured.ended_at),
        (LAST_SUCCESS, "When a run last ended with exit code 0.", last),
        ("bulkbind_run_requests", "Requests that the last run sent.", facts.get(RunFacts.requests)),
        (
            "bulkbind_run_throttled_requests",
            "Requests of the last run that the gateway answered with 429.",
            facts.get(RunFacts.requests_throttled),
        ),
        (
            "bulkbind_run_pace_requests_per_second",
            "Pace at the end of the last run; missing where no limit was met.",
            facts.pace_per_s,
        ),
        (
            "bulkbind_run_limit_requests_per_second",
            "Limit that the gateway told or showed in the last run; missing where it did not.",
            facts.limit_per_s,
        ),
        (
            "bulkbind_run_limit_requests_in_flight",
            "Limit of the gateway on requests in flight; missing where it showed none.",
            facts.limit_in_flight,
        ),
        *(
            (f"bulkbind_run_{fact.name.removesuffix('_s')}_seconds", wait.metric, seconds)
            for fact, wait, seconds in facts.waits()
        ),
        (
            "bulkbind_run_workers",
            "Workers that sent for the last run; 0 where its own process did.",
            len(facts.workers),
        ),
        (
            "bulkbind_run_lost_workers",
            "Workers that the last run gave up.",
            sum(bool(worker["lost"]) for worker in facts.workers),
        ),
        (
            "bulkbind_run_processor_seconds",
            "Processor time of the last run's own process while it was sending.",
            facts.get(RunFacts.cpu_s),
        ),
        ("bulkbind_ledger_size_bytes", "Size of the ledger's files.", measured.ledger_bytes),
        ("bulkbind_ledger_bindings", "Devices known as bound.", measured.bindings),
    ]


def _last_success(path: Path, measured: Measured) -> float | None:
    """Return the value in the existing file, which a failed run does not change."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415  # an extra

    wanted = {"endpoint": measured.endpoint, "manifest": line(measured.manifest)}
    try:
        families = list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    for family in families:
        for sample in family.samples:
            if sample.name == LAST_SUCCESS and sample.labels == wanted:
                return float(sample.value)
    return None
