"""Sessions that end and requests that are signed, over a whole run.

`python -m tests.benchmarks.renewals [ROWS]`: 20,000 rows for 2,000 users, 64 in flight, against a
sandbox whose session tokens die every 1,000 calls; then the same rows signed by an app. What was
sent is read from the sandbox's journal. Prints the cost of a signature beside that of a token.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bulkbind.koodrive.auth.credential import App, Credential, Outgoing, Token
from tests.benchmarks.bench import Ran, ran, say, write_json
from tests.support.manifests import fleet, write_csv
from tests.support.processes import BULKBIND, ask, sandbox

ROWS, USERS, CALLS, CONCURRENCY = 20_000, 2_000, 1_000, 64
REFRESH, APP, SECRET = "refresh-token-of-the-benchmark", "app1", "secret-of-the-benchmark"
CREDENTIALS = f"refresh_tokens: {{{REFRESH}: any}}\napps: {{{APP}: {SECRET}}}\n"
BODY = b'{"machineCode":"SN000001","deviceName":"Van 1","deviceOS":"Android 15"}'


def renewed(folder: Path) -> dict[str, Any]:
    """Run under sessions that die, and return what the journal tells."""
    ordered = ("--session-calls", str(CALLS))
    with served(folder, "session", *ordered) as url:
        done = _run(folder, url, BULKBIND_REFRESH_TOKEN=REFRESH)
        counts = ask(f"{url}/sandbox/stats")
    journal = _journal(folder / "session.jsonl")
    # Trace ids count up in the order of sending.
    renewals = [line["trace_id"] for line in journal if line["result"] == "refreshToken"]
    refused = [line for line in journal if line["status"] == 401]
    late = sum(
        line["credential"] == f"session {number}" and line["trace_id"] > renewed_at
        for number, renewed_at in enumerate(renewals[1:], 1)
        for line in journal
    )
    return {
        "rows": _statuses(folder),
        "deaths": len({line["credential"] for line in refused}),
        "renewals": len(renewals) - 1,
        "sent_again": len(refused),
        "sent_after_renewal": late,
        "requests": counts["requests"],
        "wall_s": done.wall_s,
        "cpu_s": done.cpu_s,
    }


def signed(folder: Path) -> dict[str, Any]:
    """Run signed, and return what the sandbox counted."""
    with served(folder, "app") as url:
        done = _run(folder, url, BULKBIND_APP_ID=APP, BULKBIND_APP_SECRET=SECRET)
        counts = ask(f"{url}/sandbox/stats")
    return {
        "rows": _statuses(folder),
        "refused": counts.get("refused", 0),
        "requests": counts["requests"],
        "wall_s": done.wall_s,
        "cpu_s": done.cpu_s,
    }


def served(folder: Path, name: str, *more: str):
    """Serve a sandbox that knows the credentials."""
    path = folder / "accepted.yaml"
    path.write_text(CREDENTIALS, encoding="utf-8")
    journal = str(folder / f"{name}.jsonl")
    return sandbox("--credentials", str(path), "--journal", journal, *more, home=folder)


def cost_us(credential: Credential, times: int = 20_000) -> float:
    """Return the microseconds that authorising one bind takes."""
    began = time.process_time()
    for number in range(times):
        headers = {"X-Date": "20251103T070140Z", "X-User-Id": f"user_{number}"}
        path = "/koodrive/ose/v1/backup/device"
        credential.authorize(Outgoing("POST", path, "127.0.0.1:8765", headers, BODY))
    return (time.process_time() - began) / times * 1e6


def _run(folder: Path, url: str, **environ: str) -> Ran:
    command: list[str | Path] = [
        *BULKBIND,
        "run",
        folder / "fleet.csv",
        "--endpoint",
        url,
        "--yes",
        "--quiet",
    ]
    command += ["--concurrency", str(CONCURRENCY), "--out", folder / "report"]
    done = ran(command, cwd=folder, BULKBIND_TOKEN="", **environ)
    if done.code:
        sys.exit(f"bulkbind ended with {done.code}:\n{done.stderr[-2000:]}")
    return done


def _statuses(folder: Path) -> dict[str, int]:
    summary = json.loads((folder / "report/summary.json").read_text(encoding="utf-8"))
    counts: dict[str, int] = summary["counts"]
    return counts


def _journal(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Run 20,000 rows of each kind, unless told otherwise."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_csv(folder / "fleet.csv", fleet(rows, users=USERS))
        session = renewed(folder)
        app = signed(folder)
    costs = {"app": cost_us(App(APP, SECRET)), "token": cost_us(Token("AT token"))}
    say(
        f"{rows:,} rows, {USERS:,} users, {CONCURRENCY} in flight; tokens die after {CALLS:,} calls"
    )
    say(f"  rows                        {Counter(session['rows'])}")
    say(f"  deaths, renewals            {session['deaths']}, {session['renewals']}")
    say(f"  in flight at a death        {session['sent_again']:,} requests, sent again")
    say(f"  sent with a token after its renewal was asked for: {session['sent_after_renewal']}")
    say(f"  whole                       {session['wall_s']:.1f} s")
    say(f"the same, signed: {Counter(app['rows'])}, refused {app['refused']}, "
        f"whole {app['wall_s']:.1f} s")  # fmt: skip
    say(f"a signature costs {costs['app']:.1f} us, a token {costs['token']:.1f} us")
    write_json("renewals", {"session": session, "app": app, "authorise_us": costs})


if __name__ == "__main__":
    main()
