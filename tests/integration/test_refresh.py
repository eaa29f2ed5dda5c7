"""`run --refresh`: bindings that vanished on the server are found, and bound again if wanted."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

import bulkbind
from bulkbind.app.notices.run_end import of_run
from bulkbind.app.session.listener import Listener
from bulkbind.errors import UnreadableListError
from bulkbind.ledger import went_well_at
from bulkbind.report.plan_text import plan_text
from bulkbind.report.summary import as_text as summary_text
from bulkbind.sandbox import Sandbox
from bulkbind.settings import ApiSettings, AuthSettings, ManifestSettings, ReadbackSettings
from tests.support.manifests import fleet, write_csv

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = fleet(20, users=4)


def settings_for(tmp_path, url, **manifest):
    """Return settings against a sandbox."""
    return bulkbind.Settings(
        api=ApiSettings(endpoint=url),
        auth=AuthSettings(token=SecretStr("any")),
        manifest=ManifestSettings(on_invalid="skip", **manifest),
        doubt=ReadbackSettings(readback_settle=0.05),
        ledger=tmp_path / "ledger.db",
        out=tmp_path / "report",
    )


class Night:
    """A manifest that is bound, and a server that has lost some of it."""

    def __init__(self, tmp_path, sandbox):
        self._tmp_path = tmp_path
        self.sandbox = sandbox
        self.manifest = write_csv(tmp_path / "fleet.csv", ROWS)

    async def run(self, *, listener=None, first=None, **reading):
        """Run the manifest, and return the result and the requests that it made by call."""
        before = dict(self.sandbox.counts)
        settings = settings_for(self._tmp_path, self.sandbox.url, **reading)
        result = await bulkbind.run([self.manifest], settings, listener=listener, first=first)
        return result, {k: n - before.get(k, 0) for k, n in self.sandbox.counts.items()}

    def settings(self):
        """Return settings against the sandbox."""
        return settings_for(self._tmp_path, self.sandbox.url)

    def lose(self, user, count):
        """Unbind the first *count* devices of a user on the server, behind the ledger's back."""
        lost = self.sandbox.bindings.of(user)[:count]
        for record in lost:
            self.sandbox.bindings.unbind(user, record["deviceId"])
        return [record["machineCode"] for record in lost]

    def codes(self, user):
        """Return what the server has for a user."""
        return {record["machineCode"] for record in self.sandbox.bindings.of(user)}


@pytest.fixture
async def night(tmp_path):
    """Bind the manifest once."""
    async with Sandbox() as sandbox:
        bound = Night(tmp_path, sandbox)
        await bound.run()
        yield bound


@pytest.mark.slow
async def test_what_has_vanished_fails_and_is_not_sent(night, tmp_path):
    """Without --rebind-missing nothing is sent: the rows fail, each with what to do about it."""
    lost = night.lose("user_1", 1) + night.lose("user_2", 1)

    result, calls = await night.run(refresh=True)
    report = result.report

    assert report is not None
    assert (result.exit_code, calls["binds"], calls["lists"]) == (1, 0, 6)  # two once more
    assert report.summary.counts == {"skipped": 18, "failed": 2}
    assert report.summary.facts.refreshed == {"users": 4, "vanished": 2, "bound_again": False}
    assert report.summary.facts.changes.newly_failed == 2
    assert "lack 2 known bindings: failed" in summary_text(report.summary)
    with (tmp_path / "report" / "failed.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["machine_code"] for row in rows] == lost
    assert all("--rebind-missing" in row["bulkbind_reason"] for row in rows)


async def test_what_has_vanished_is_bound_again_if_wanted(night):
    """With --rebind-missing these alone are sent; the night after finds nothing to do."""
    lost = night.lose("user_1", 1) + night.lose("user_2", 1)

    result, calls = await night.run(rebind_missing=True)
    again, calls_again = await night.run(refresh=True)

    assert result.report is not None
    assert again.report is not None
    assert (result.exit_code, calls["binds"]) == (0, 2)
    assert result.report.summary.counts == {"bound": 2, "skipped": 18}
    assert result.report.summary.facts.refreshed["bound_again"] is True
    assert set(lost) <= night.codes("user_1") | night.codes("user_2")
    assert (again.exit_code, calls_again["binds"], calls_again["lists"]) == (0, 0, 4)
    assert "show all that the ledger knows" in summary_text(again.report.summary)


@pytest.mark.parametrize("count", [2, 5], ids=["others", "all"])
async def test_where_others_or_all_are_missing_nothing_has_vanished(night, tmp_path, count):
    """Such a list may be old, or a part: the rows stay skipped, but are not called bound."""
    night.lose("user_1", count)

    plan = await bulkbind.plan([night.manifest], night.settings(), refresh=True)
    result, calls = await night.run(rebind_missing=True)

    assert (plan.counts["missing"], plan.counts["already_bound"], plan.not_proven) == (0, 20, count)
    assert f"{count} known ones are on no list" in plan_text(plan)
    assert result.report is not None
    assert (result.exit_code, calls["binds"], calls["lists"]) == (1, 0, 5)
    assert result.report.summary.counts == {"skipped": 20}
    assert result.report.summary.facts.refreshed["not_proven"] == count
    text = summary_text(result.report.summary)
    assert f"lack {count} that nothing proves gone" in text
    assert text.startswith(
        f"{20 - count} of 20 devices are bound: {20 - count} known. {count} need"
    )
    assert f"{count} known devices not found on the server" in of_run(result).text
    assert "--rebind" in of_run(result).text
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert f"{count} known devices not found on the server" in page
    assert "Every row is bound" not in page
    assert "the lists of 4 users were read" in page
    well_at = went_well_at(tmp_path / "ledger.db", night.sandbox.url, [str(night.manifest)])
    assert well_at is not None
    assert well_at < (result.report.summary.confirmed_at or "")


async def test_one_wrong_list_takes_nothing_for_gone(night, monkeypatch):
    """A list that lacks devices is read once more before they are missed."""
    real = night.sandbox.bindings.of
    answers: Iterator[list[object]] = iter([[]])
    monkeypatch.setattr(night.sandbox.bindings, "of", lambda user: next(answers, real(user)))

    result, calls = await night.run(rebind_missing=True)

    assert (result.exit_code, calls["binds"], calls["lists"]) == (0, 0, 5)


async def test_a_run_that_is_not_wanted_forgets_nothing(night):
    """Whoever says no keeps the ledger as it was; the plan that was shown named the missing."""
    lost = night.lose("user_1", 1) + night.lose("user_2", 1)
    shown = []

    class Unwilling(Listener):
        """Says no."""

        def confirm(self, plan):
            """Remember what was asked."""
            shown.append(plan)
            return False

    for flag in ({"refresh": True}, {"rebind_missing": True}):
        await night.run(listener=Unwilling(), **flag)
    plain, calls = await night.run()

    assert [(plan.counts["missing"], plan.counts["bind"]) for plan in shown] == [(2, 0), (0, 2)]
    assert "not on the server's list" in plan_text(shown[0])
    assert plain.report is not None
    assert (plain.report.summary.counts, calls["binds"]) == ({"skipped": 20}, 0)
    assert not set(lost) & (night.codes("user_1") | night.codes("user_2"))


async def test_a_pilot_of_it_is_gone_on_with(night):
    """What was staged to be bound again is still so when the run goes on without the flag."""
    for user in ("user_1", "user_2", "user_3"):
        night.lose(user, 1)

    pilot, calls = await night.run(rebind_missing=True, first=1)
    rest, more = await night.run()

    assert (pilot.exit_code, calls["binds"]) == (3, 1)
    assert rest.report is not None
    assert (rest.report.summary.counts, more["binds"]) == ({"bound": 3, "skipped": 17}, 2)
    assert [len(night.codes(f"user_{n}")) for n in range(4)] == [5] * 4


@pytest.mark.slow
async def test_a_list_that_cannot_be_read_sends_nothing(night, monkeypatch):
    """The run ends with 3 and leaves no trace in the ledger."""
    monkeypatch.setattr(night.sandbox.bindings, "of", lambda _user: 1 / 0)
    before = len(bulkbind.runs(settings_for(night.manifest.parent, night.sandbox.url)))

    with pytest.raises(UnreadableListError, match="the list of user"):
        await night.run(rebind_missing=True)

    assert len(bulkbind.runs(settings_for(night.manifest.parent, night.sandbox.url))) == before
