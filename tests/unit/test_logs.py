"""Log lines: where they go, in which form, and what they never hold."""

from __future__ import annotations

import io
import json
import re
import stat
from contextlib import closing
from pathlib import Path

import pytest
import structlog

from bulkbind import logs
from bulkbind.cli.running import configure_logs
from bulkbind.errors import UsageError
from bulkbind.logs import Sink, bound, configure, log_file, logger
from bulkbind.settings import LogSettings
from tests.support.manifests import write_csv
from tests.support.processes import bulkbind


@pytest.fixture(autouse=True)
def _as_it_was():
    """Leave structlog as a library would find it."""
    yield
    structlog.reset_defaults()


class Gone(io.StringIO):
    """A stream whose reader has gone away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(text)


def lines(stream):
    """Return the JSON lines of a stream."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_event_level_time_and_values():
    """Each line is one JSON object with the event's name, its level, UTC time and its values."""
    stream = io.StringIO()
    configure(Sink(stream, "json", "info"))

    logger().info("pace.changed", per_s=60.5, why="Throttled")

    [line] = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line.pop("timestamp"))
    assert line == {"event": "pace.changed", "level": "info", "per_s": 60.5, "why": "Throttled"}


def test_each_sink_has_its_form_and_level():
    """What is too little for one place still goes to the other, and each has its own form."""
    shown, kept = io.StringIO(), io.StringIO()
    configure(Sink(shown, "console", "warning"), Sink(kept, "json", "debug"))

    logger().debug("a.one", n=1)
    logger().info("b.two", n=2)
    logger().warning("c.three", n=3)

    assert [line["event"] for line in lines(kept)] == ["a.one", "b.two", "c.three"]
    [text] = shown.getvalue().splitlines()
    assert "c.three" in text
    assert "n=3" in text
    assert "\x1b" not in text  # it is no terminal
    assert not text.startswith("{")


def test_a_block_binds_values_to_its_lines():
    """Lines written in the block carry its values, those after it do not."""
    stream = io.StringIO()
    configure(Sink(stream, "json", "info"))

    with bound(run_id="r1"):
        logger().info("run.started")
    logger().info("other.line")

    first, second = lines(stream)
    assert first["run_id"] == "r1"
    assert "run_id" not in second


@pytest.mark.parametrize("key", sorted(logs.SECRET_KEYS | {"Authorization", "TOKEN"}))
def test_secrets_are_masked_in_every_sink(key):
    """The value of a key that holds a secret is never written."""
    shown, kept = io.StringIO(), io.StringIO()
    configure(Sink(shown, "console", "info"), Sink(kept, "json", "info"))

    logger().info("auth.used", **{key: "hush-3b91"})

    assert "***" in shown.getvalue()
    assert lines(kept)[0][key] == "***"
    assert "hush-3b91" not in shown.getvalue() + kept.getvalue()


def test_an_exception_stays_on_its_json_line():
    """A traceback is a value of the line, not lines of its own."""
    stream = io.StringIO()
    configure(Sink(stream, "json", "info"))

    try:
        int("broken")
    except ValueError:
        logger().exception("work.failed")

    [line] = lines(stream)
    assert "ValueError: invalid literal" in line["exception"]


def test_a_reader_that_goes_away_is_nobodys_trouble():
    """A closed pipe loses its lines, and the other sink still gets them."""
    kept = io.StringIO()
    configure(Sink(Gone(), "json", "info"), Sink(None, "json", "info"), Sink(kept, "json", "info"))

    logger().info("run.started")

    assert [line["event"] for line in lines(kept)] == ["run.started"]


def test_a_log_file_is_appended_to_and_its_owners(tmp_path):
    """A second opening goes on behind the first, and the file has mode 0600."""
    path = tmp_path / "run.log"

    for number in (1, 2):
        with closing(log_file(path)) as file:
            configure(Sink(file, "json", "info"))
            logger().info("line.written", number=number)

    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [1, 2]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_log_file_without_room_is_told_at_the_end(tmp_path):
    """The command ends as it would, and says why the file lacks lines."""
    log = tmp_path / "full.log"
    log.symlink_to("/dev/full")

    manifest = write_csv(tmp_path / "f.csv", [("A1", "u", "", "")])
    done = bulkbind("run", manifest, "--rehearse", "--log-file", log, home=tmp_path, check=0)

    assert done.stderr.count(f"note: log file {log} lacks lines: No space left on device") == 1


def test_a_log_file_that_cannot_be_opened_is_refused(tmp_path):
    """The error names the file and the reason."""
    path = tmp_path / "none" / "run.log"

    with pytest.raises(UsageError, match=r"none/run\.log cannot be opened: No such file"):
        log_file(path)


def test_the_loss_of_a_worker_is_a_sentence_where_nobody_asked_for_a_log(monkeypatch):
    """On a terminal only: whoever asks for the form gets the event, without an empty host."""
    lost = {"worker": 2, "pid": 7, "host": "", "why": "killed\x1b[2J", "rows": 1}
    for form, host in ((None, ""), (None, "m7"), ("console", "")):
        shown = io.StringIO()
        monkeypatch.setattr(shown, "isatty", lambda: True)
        monkeypatch.setattr("sys.stderr", shown)
        configure_logs(LogSettings.model_validate({"log_format": form}), is_quiet=False)
        logger().warning("worker.lost", **lost | {"host": host})
        [text] = shown.getvalue().splitlines()
        structlog.reset_defaults()

        assert "\x1b[2J" not in text
        assert "host=" not in text
        assert ("worker.lost" in text) is (form == "console")
        if form is None:
            assert text.startswith(f"note: worker 2{' on m7' if host else ''} is lost (killed")
            assert text.endswith("1 row in its hands is looked for in the lists")
