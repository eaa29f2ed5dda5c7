"""Plans of runs: as lines for a person, and as JSON for machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bulkbind.model import EXTRA, Forecast, Leavers, Plan, PlanWord, RunKind
from bulkbind.model.wording import counted, span_text, verb
from bulkbind.redaction import Lines, lines
from bulkbind.report.markdown import code, plain, table
from bulkbind.report.measures import rate_text
from bulkbind.report.problem_text import problem_lines
from bulkbind.report.undo_report import MAY_COST

if TYPE_CHECKING:
    from collections.abc import Iterator


MOST_USERS = 20
MOST_MOVED = 10
MOST_PROBLEM_LINES = 12


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as `plan --json` prints it and `--save` stores it."""
    forecast = plan.forecast
    shown: dict[str, Any] = {
        "version": 1,
        "kind": plan.kind,
        "manifests": list(plan.manifests),
        "rows": plan.rows,
        "counts": plan.counts | ({} if plan.extra is None else {"extra": plan.extra}),
        "users": plan.users,
        "user_count": plan.user_count,
        "moved": list(plan.moved),
        "extra": list(plan.extras),
        "problems": list(plan.problems),
        "rules": {broken.rule: broken.as_json() for broken in plan.broken},
        "forecast": {
            "calls": forecast.calls,
            "binds": forecast.binds,
            "lists": forecast.lists,
            "unbinds": forecast.unbinds,
            "moves": forecast.moves,
            "per_s": forecast.per_s,
            "source": forecast.source,
            "seconds": None if forecast.seconds is None else round(forecast.seconds, 1),
        },
        "going_on": plan.going_on or None,
        "refused": plan.is_refused,
        "first": plan.first,
        "left_out": plan.left_out,
        "leavers": None if plan.leavers is None else asdict(plan.leavers),
        "replaces": dict(zip(("run_id", "rows"), plan.replaces, strict=True))
        if plan.replaces
        else None,
        "refreshed": plan.is_refreshed,
        "digest": plan.digest,
        "mark": plan.mark,
    }
    return shown


def plan_sentence(plan: Plan) -> str:
    """Return what becomes of the rows.

    `110 of 130 devices of 6 users are to be bound. 11 are bound already. 8 break a rule.`
    """
    devices = f"{counted(plan.rows, 'devices')} of {counted(plan.user_count, 'users')}"
    does = PlanWord.BIND if plan.kind is RunKind.BIND else PlanWord.UNBIND
    count = plan.counts.get(does, 0)
    told = [f"{count:,} of {devices} {verb(count, *does.about.said, of=plan.rows)}"]
    others = [word for word in PlanWord if word is not does]
    told += [
        f"{n:,} {verb(n, *word.about.said)}" for word in others if (n := plan.counts.get(word))
    ]
    if (leavers := plan.leavers) and leavers.devices:
        are = verb(leavers.devices, "is", "are")
        told.append(f"{leavers.devices:,} that left the manifest {are} to be unbound")
    return f"{'. '.join(told)}."


def plan_text(plan: Plan, *, is_brief: bool = False) -> Lines:
    """Return a plan as lines; *is_brief*: without users, for the confirmation."""
    return lines(_lines(plan, is_brief=is_brief))


def plan_markdown(plan: Plan) -> Lines:
    """Return a plan in Markdown, for a comment on a merge request."""
    return lines(_markdown(plan))


def _markdown(plan: Plan) -> Iterator[str]:
    names = ", ".join(f"`{code(name)}`" for name in plan.manifests)
    yield f"**{names}: {counted(plan.rows, 'rows')}, {counted(plan.user_count, 'users')}**"
    yield ""
    counted_words = [
        (word.about.sign, plan.counts[word], _meaning(plan, word)) for word in PlanWord
    ]
    if plan.extra is not None:
        counted_words.append((EXTRA[0], plan.extra, EXTRA[1]))
    if plan.leavers is not None and plan.leavers.devices:
        sign = PlanWord.UNBIND.about.sign
        counted_words.append((sign, plan.leavers.devices, plain(_leaves(plan.leavers))))
    yield from table(("", "rows", "what"), (item for item in counted_words if item[1]))
    yield ""
    yield f"Forecast: {plain(_forecast(plan))}"
    if plan.forecast.unbinds:
        yield from ("", plain(MAY_COST))
    if plan.broken:
        yield from ("", "Rules that rows break:", "")
        shown = ((rule.count, rule.rule, rule.examples[0]) for rule in plan.broken)
        yield from table(("times", "rule", "first"), shown)
    if plan.users:
        yield from ("", "<details><summary>By user</summary>", "")
        users = list(plan.users.items())[:MOST_USERS]
        yield from table(
            ("user", "rows"), ((user or "(none)", _marks(each, ", ")) for user, each in users)
        )
        if plan.user_count > len(users):
            yield from ("", f"… and {plan.user_count - len(users):,} more")
        yield from ("", "</details>")


def _lines(plan: Plan, *, is_brief: bool) -> Iterator[str]:
    yield f"{', '.join(plan.manifests)}: {plan_sentence(plan)}"
    yield from _unfinished(plan)
    for word in PlanWord:
        if count := plan.counts.get(word, 0):
            yield f"  {word.about.sign} {count:>9,}  {_meaning(plan, word)}"
    for condition, count in (plan.left_out["by"] if plan.left_out else {}).items():
        yield f"    {PlanWord.LEFT_OUT.about.sign} {count:>7,}  {condition}"
    if plan.extra is not None:
        yield f"  {EXTRA[0]} {plan.extra:>9,}  {EXTRA[1]}"
    yield from _leavers(plan.leavers)
    if n := plan.not_proven:
        ones = f"{counted(n, 'known ones')} {verb(n, 'is', 'are')}"
        yield f"  ({ones} on no list, but nothing proves {verb(n, 'it', 'each')} gone: see adopt)"
    yield from _examples(plan)
    if not is_brief:
        yield from _users(plan)
    yield f"forecast: {_forecast(plan)}"
    if plan.forecast.unbinds:
        yield MAY_COST
    if plan.is_refreshed and plan.forecast.binds > plan.counts[PlanWord.BIND]:
        yield (
            "  (the ledger does not know all that the server has: these are sent, and found bound)"
        )


def _leavers(leavers: Leavers | None) -> Iterator[str]:
    if leavers is None:
        return
    if not leavers.devices:
        bound = counted(leavers.bound, "devices")
        yield f"  of the {bound} bound in the scope {leavers.scope}, none has left the manifest"
        return
    sign = PlanWord.UNBIND.about.sign
    yield f"  {sign} {leavers.devices:>9,}  {_leaves(leavers)}"
    for item in leavers.first[:MOST_MOVED]:
        yield f"    {sign} {item['machine_code']} of user {item['user_id']}"
    if (more := leavers.devices - MOST_MOVED) > 0:
        yield f"    … and {more:,} more (plan --json has them)"
    if leavers.is_beyond:
        yield (
            f"  that is more than {leavers.most} (--max-unbinds): run stops with 3 unless a person "
            "types the number"
        )


def _leaves(leavers: Leavers) -> str:
    return f"to unbind: of {leavers.bound:,} bound in the scope {leavers.scope}, left the manifest"


def _unfinished(plan: Plan) -> Iterator[str]:
    does = "run" if plan.kind is RunKind.BIND else "unbind"
    if plan.going_on:
        yield f"run {plan.going_on} of these manifests is not finished: {does} resumes it"
    if plan.replaces:
        run_id, left = plan.replaces
        yield (
            f"run {run_id} is not finished: {does} would take its place, and withdraw its "
            f"{counted(left, 'rows')} (`bulkbind resume` sends them first)"
        )


def _forecast(plan: Plan) -> str:
    text = forecast_text(plan.forecast)
    if plan.is_refused:
        return f"nothing is sent while rows break a rule; with --on-invalid skip: {text}"
    if plan.first is not None and plan.counts[PlanWord.BIND] + plan.counts[PlanWord.UNBIND] > (
        plan.first
    ):
        return f"{text}; then it stops with 3 (--first {plan.first:,})"
    return text


def _examples(plan: Plan) -> Iterator[str]:
    for item in plan.moved[:MOST_MOVED]:
        move = f"{item['machine_code']}: {item['from']} -> {item['to']}"
        yield f"    {PlanWord.MOVED.about.sign} {move}"
    if (moved := plan.counts.get(PlanWord.MOVED, 0)) > MOST_MOVED:
        yield f"    … and {moved - MOST_MOVED:,} more"
    if plan.broken:
        yield from problem_lines(plan.broken, MOST_PROBLEM_LINES)
        yield "    `bulkbind validate MANIFEST --all` lists every one"


def _meaning(plan: Plan, word: PlanWord) -> str:
    meaning = word.about.meaning
    if word is PlanWord.MOVED and plan.forecast.moves:
        return "taken from the user who has them, then bound"
    if plan.is_refreshed and word.about.is_bound:
        return f"{meaning.split(':', maxsplit=1)[0]}, by the server's lists"
    return meaning


def _users(plan: Plan) -> Iterator[str]:
    if not plan.users:
        return
    yield "by user:"
    width = min(40, max(len(user) for user in list(plan.users)[:MOST_USERS]))
    for user, counts in list(plan.users.items())[:MOST_USERS]:
        yield f"  {user or '(none)':<{width}}  {_marks(counts)}"
    if len(plan.users) > MOST_USERS:
        yield f"  … and {len(plan.users) - MOST_USERS:,} more (--json has them)"


def _marks(counts: dict[str, int], between: str = "  ") -> str:
    marks = {str(word): word.about.sign for word in PlanWord} | {"extra": EXTRA[0]}
    return between.join(f"{sign} {counts[w]:,}" for w, sign in marks.items() if counts.get(w))


def forecast_text(forecast: Forecast) -> str:
    """Return what a run would cost, as one line."""
    parts = [counted(forecast.binds, "binds")] if forecast.binds or not forecast.unbinds else []
    parts += [counted(forecast.unbinds, "unbinds")] if forecast.unbinds else []
    parts += [counted(forecast.lists, "lists")] if forecast.lists else []
    calls = f"{counted(forecast.calls, 'calls')} ({', '.join(parts)})"
    if not forecast.calls:
        return "nothing to send"
    if forecast.seconds is None:
        return f"{calls}; how long that takes is not known: {forecast.source}"
    rate = f"{rate_text(forecast.per_s or 0.0)} ({forecast.source})"
    return f"{calls}, about {span_text(forecast.seconds)} at {rate}"
