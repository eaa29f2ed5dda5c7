"""What the sessions of a run learned and spent: each fact once, how it merges, and its words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import (
    Any,
    ClassVar,
    Generic,
    NamedTuple,
    NotRequired,
    Self,
    TypedDict,
    TypeVar,
    overload,
)

from bulkbind.model.fields import DETAILS
from bulkbind.model.time_spent import TimeSpent, TimeUse, Waits

SHORTEST_S = 0.001
"""Shorter times are not told."""
MOST_PARTS = 20
"""Parts of a run, each from a start to a stop, whose details are kept."""
MOST_WORKERS = 128
"""Workers of a run, over all its parts, whose ends are kept."""

T = TypeVar("T")
Rule = Callable[[Any, Any], Any]
"""Returns one fact of two, the earlier and the later one as stored; None where one is missing."""


def newest(_earlier: object, later: object) -> object:
    """Return the later one, also if it says that nothing is known."""
    return later


def adds(earlier: object, later: object) -> float:
    """Return the sum; what is missing or no number counts nothing."""
    return sum(item for item in (earlier, later) if isinstance(item, int | float))


def joins(
    earlier: Sequence[object] | None, later: Sequence[object] | None, most: int = MOST_PARTS
) -> list[object]:
    """Return the last *most* items of both."""
    return [*(earlier or ()), *(later or ())][-most:]


def overlays(
    earlier: Mapping[str, object] | None, later: Mapping[str, object] | None
) -> dict[str, object]:
    """Return the names of both; of those in both, the later ones."""
    return {**(earlier or {}), **(later or {})}


@dataclass(frozen=True, slots=True)
class Wait:
    """What time went to, in words for people."""

    said: str
    """After the seconds, in the summary."""
    metric: str
    """The help text of its metric, `bulkbind_run_NAME_seconds`."""
    uses: tuple[TimeUse, ...] = ()
    """The causes whose time it is: a share of the run's. Empty: devices waited side by side."""


class Fact(Generic[T]):
    """An attribute of `Facts`.

    Attributes:
        name: As the attribute, in the ledger and in `summary.json`.
        merged: How two sessions' or runs' become one.
        wait: What they went to, if these are seconds.
        words: For people, after a number.
        is_shown: Whether `summary.json` and the log have it.
        is_carried: Whether the next run starts with it.
    """

    name: str

    def __init__(
        self,
        missing: T,
        merged: Rule = newest,
        *,
        read: Callable[[Any], T] | None = None,
        wait: Wait | None = None,
        words: str = "",
        is_shown: bool = True,
        is_carried: bool = False,
    ) -> None:
        """*missing*: stands for a fact not stored; *read*: makes the value of its JSON or None."""
        self._missing = missing
        self._read = read
        self.merged = merged
        self.wait = wait
        self.words = words
        self.is_shown = is_shown
        self.is_carried = is_carried

    def __set_name__(self, owner: type[Facts], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, facts: None, owner: type[Facts]) -> Self: ...
    @overload
    def __get__(self, facts: Facts, owner: type[Facts]) -> T: ...
    def __get__(self, facts: Facts | None, owner: type[Facts]) -> Self | T:
        if facts is None:
            return self
        stored = facts.get(self)
        if self._read is not None:
            return self._read(stored)
        return self._missing if stored is None else stored

    def __set__(self, facts: Facts, value: T) -> None:
        facts._stored[self.name] = value.as_json() if isinstance(value, Facts) else value  # noqa: SLF001  # one idea in two classes


class Facts:
    """Typed attributes of a JSON object.

    Names that are not declared, of another version, are kept as they are, and so is the order.
    """

    __slots__ = ("_stored",)
    declared: ClassVar[dict[str, Fact[Any]]] = {}

    def __init_subclass__(cls) -> None:
        cls.declared = {name: fact for name, fact in vars(cls).items() if isinstance(fact, Fact)}

    def __init__(self, stored: Mapping[str, Any] | None = None) -> None:
        """*stored*: as `as_json` returns it."""
        self._stored = dict(stored or {})

    def __bool__(self) -> bool:
        return bool(self._stored)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._stored!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._stored == self._stored

    __hash__ = None  # type: ignore[assignment]  # they change

    def get(self, fact: Fact[T]) -> T | None:
        """Return a fact as stored; None if it is missing."""
        return self._stored.get(fact.name)

    def as_json(self) -> dict[str, Any]:
        """Return all facts, as stored in the ledger."""
        return dict(self._stored)

    def shown(self) -> dict[str, Any]:
        """Return the facts that `summary.json` has."""
        hidden = {name for name, fact in self.declared.items() if not fact.is_shown}
        return {name: value for name, value in self._stored.items() if name not in hidden}

    def carried(self) -> dict[str, Any]:
        """Return those that the next run starts with."""
        return {
            name: self._stored[name]
            for name, fact in self.declared.items()
            if fact.is_carried and name in self._stored
        }

    def merge(self, later: Self) -> Self:
        """Return these facts and *later* ones as one; of undeclared names, the later ones."""
        total = dict(self._stored)
        for name, value in later._stored.items():
            rule = self.declared[name].merged if name in self.declared else newest
            total[name] = rule(total.get(name), value)
        return type(self)(total)

    @classmethod
    def total(cls, many: Iterable[Self]) -> Self:
        """Return the facts of *many*, the earliest first, as one."""
        merged = cls()
        for facts in many:
            merged = merged.merge(facts)
        return merged


class Example(TypedDict):
    """A row that needs a person."""

    place: str
    """File and line."""
    status: str
    why: str


class Chosen(TypedDict):
    """How many rows the operator's conditions left out."""

    rows: int
    by: dict[str, int]
    """Rows by the first condition that left them out, as one types it."""


class Synced(TypedDict):
    """What a run with `sync` found of its scope."""

    scope: str
    """The manifest's path, or the name that the operator gives."""
    bound: int
    """Devices of the scope that were known as bound."""
    leave: int
    """Those of them that nobody names any more."""


class Changes(Facts):
    """Differences between a run and the previous one of manifests with the same names.

    The first four are known once the run is confirmed, the others once it has finished, if an
    earlier one has.
    """

    __slots__ = ()

    since = Fact("")
    """Id of the previous run."""
    added = Fact(0, words="added")
    """Devices that the previous run did not name."""
    removed = Fact(0, words="no longer named")
    """Devices that this run does not name."""
    renamed = Fact(0, words=f"bound under another {DETAILS} (--rebind sends the new ones)")
    """Devices bound under other optional values than the manifest has now."""
    newly_failed = Fact[int | None](None, words="newly failed")
    """Devices that need a person now and did not then; None: not compared."""
    newly_failed_rows = Fact[Sequence[Example]](())
    """Some of their rows."""
    mended = Fact(0, words="fixed")
    """Devices that needed a person then and are bound now."""

    def counted(self) -> list[tuple[int, str]]:
        """Return the number of devices and the words of each kind of difference, but zeros."""
        found = [(getattr(self, name), fact.words) for name, fact in self.declared.items()]
        return [(count, words) for count, words in found if words and count]


class Refreshed(TypedDict):
    """What the server's lists said before the run about devices known as bound."""

    users: int
    """Users whose lists were read."""
    vanished: int
    """Known bindings that the lists lack."""
    bound_again: bool
    """Whether these are sent again; else their rows are failed."""
    not_proven: NotRequired[int]
    """Known bindings that lists lack which prove nothing; left as they are, for a person."""


class Told(NamedTuple):
    """A limit as the gateway tells it."""

    limit: float
    over_s: float
    """The window in which so many requests are let through, seconds."""


class LimitFound(TypedDict):
    """A limit as the gateway stated or showed it."""

    per_s: float
    """Requests per second."""
    is_spaced: bool
    """Whether the gateway refuses requests that come close together."""


class Adjustment(TypedDict):
    """How an operator steered a run while it was sending."""

    number: int
    """From 1, per ledger."""
    at: str
    """When it was asked for; ISO 8601."""
    who: str
    """Operator and host."""
    why: str
    """In the operator's words; may be empty."""
    what: dict[str, Any]
    """Each thing that changes, and what it is from now on; None: nothing, or no limit."""


def adjustment_words(adjustment: Adjustment) -> str:
    """Return an adjustment as one line: who, what and why."""
    changes = ", ".join(
        name if value is True else f"{name} {_written(value)}"
        for name, value in adjustment["what"].items()
    )
    why = f": {adjustment['why']}" if adjustment["why"] else ""
    return f"{adjustment['at']} {adjustment['who']}: {changes}{why}"


def _written(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


class WorkerState(TypedDict):
    """How a worker, a process that sends for a run, is doing; or how it was at its end."""

    number: int
    """From 1, in each part of the run."""
    pid: int
    host: NotRequired[str]
    """The name of its machine; empty, or absent from older runs: the run's own."""
    is_alive: bool
    settled: int
    """Rows that ended through it."""
    in_hand: int
    """Rows that it was given and that have not ended."""
    per_s: float
    """Rows that ended per second of late; at its end, over all the time that it was sending."""
    lost: str
    """Why the run gave it up, in words; empty if it did not."""
    waits: NotRequired[str]
    """Why the run's own process sends alone meanwhile, in words; empty if it does not."""


class TimelinePart(TypedDict):
    """The timeline of one part of a run, from a start to a stop, in steps of equal length."""

    began_at: str
    """ISO 8601."""
    step_s: float
    """Seconds per step."""
    settled: list[int]
    """Rows settled in each step."""
    pace_per_s: list[float | None]
    """Requests per second allowed at its end; None: no limit known."""
    throttled: list[int]
    """429s in each step."""
    latency_edges_ms: list[int]
    """Upper edges of the histogram's classes, in milliseconds; one more class is above."""
    latency: list[int]
    """Answers in each class."""


class RunFacts(Facts):
    """What the sessions of a run, or of an undo, learned and spent."""

    __slots__ = ()

    refreshed = Fact[Refreshed | None](None)
    """None: the server's lists were not read beforehand."""
    changes = Fact(Changes(), overlays, read=Changes)
    """Empty if no earlier run had manifests of these names."""
    requests = Fact(0, adds)
    """Requests sent, of every kind; without the lists that `refreshed` is of."""
    requests_unsure = Fact(0, adds)
    """Requests besides that lost workers were to send, and may have sent."""
    cut_offs = Fact(0, adds)
    """How often its process was killed while it sent: what it had sent last is not counted."""
    requests_lists = Fact(0, adds)
    """List calls among them."""
    requests_throttled = Fact(0, adds)
    """Those answered with 429."""
    sending_s = Fact(0.0, adds)
    """Seconds from the start of sending to its end, all waits included."""
    requests_again = Fact(0, adds)
    """Binds sent again as no answer had come in time, and no list showed the device."""
    in_flight_s = Fact(
        0.0,
        adds,
        wait=Wait(
            said="sending",
            metric="How long requests of the last run were under way and nothing held others up.",
            uses=(TimeUse.SENDING,),
        ),
    )
    """Seconds in which requests were under way and nothing held others up. These and all that
    follow, down to `working_s`, add up to `sending_s`."""
    paced_s = Fact(
        0.0,
        adds,
        wait=Wait(
            said="keeping to the pace",
            metric="How long the last run waited to keep to the pace.",
            uses=(TimeUse.PACED, TimeUse.USERS_PACED),
        ),
    )
    """Seconds in which nobody was allowed to send, for the pace's sake."""
    paused_s = Fact(
        0.0,
        adds,
        wait=Wait(
            said="paused by an operator",
            metric="How long an operator paused the last run.",
            uses=(TimeUse.PAUSED,),
        ),
    )
    """Seconds in which nobody was allowed to send, as an operator had paused the run."""
    cooled_s = Fact(
        0.0,
        adds,
        wait=Wait(
            said="refused by the gateway",
            metric="How long the gateway refused the last run.",
            uses=(TimeUse.CLOSED, TimeUse.USERS_CLOSED),
        ),
    )
    """Seconds in which nobody was allowed to send, as the gateway refused everybody."""
    away_s = Fact(
        0.0,
        adds,
        wait=Wait(
            said="waiting for the endpoint, which was away",
            metric="How long the endpoint was away in the last run.",
            uses=(TimeUse.AWAY,),
        ),
    )
    """Seconds in which the endpoint could not be reached, or answered nothing."""
    silent_s = Fact(
        0.0,
        adds,
        wait=Wait(
            said="waiting for answers that were long overdue",
            metric="How long the last run only waited for answers that were long overdue.",
            uses=(TimeUse.SILENT,),
        ),
    )
    """Seconds in which only requests were under way that had been for much longer than answers
    take."""
    backing_off_s = Fact(
        0.0,
        adds,
        wait=Wait(
            said="pausing before retries",
            metric="How long the last run only waited for devices' next attempts.",
            uses=(TimeUse.BACKING_OFF,),
        ),
    )
    """Seconds in which all that was left waited for another attempt."""
    settling_s = Fact(
        0.0,
        adds,
        wait=Wait(
            said="waiting until lists can settle doubt",
            metric="How long the last run only waited for lists that settle doubt.",
            uses=(TimeUse.SETTLING,),
        ),
    )
    """Seconds in which all that was left waited for lists that settle doubt."""
    locked_s = Fact(
        0.0,
        adds,
        wait=Wait(
            said="waiting for devices under a backup lock",
            metric="How long the last run only waited for devices under a backup lock.",
            uses=(TimeUse.LOCKED,),
        ),
    )
    """Seconds in which all that was left was under a backup lock."""
    listening_s = Fact(
        0.0,
        adds,
        wait=Wait(
            said="listening for answers too many",
            metric="How long the last run listened at its end for answers too many.",
            uses=(TimeUse.LISTENING,),
        ),
    )
    """Seconds at the end in which connections were listened to, as an answer too many would show
    that one before was another's."""
    credentials_s = Fact(
        0.0,
        adds,
        wait=Wait(
            said="getting credentials",
            metric="How long the last run waited for credentials.",
            uses=(TimeUse.CREDENTIALS,),
        ),
    )
    """Seconds in which a token was renewed, and nothing else done."""
    ledger_s = Fact(
        0.0,
        adds,
        wait=Wait(
            said="waiting for the ledger",
            metric="How long the last run waited for its ledger.",
            uses=(TimeUse.LEDGER,),
        ),
    )
    """Seconds in which the ledger was waited for, and nothing else done."""
    working_s = Fact(
        0.0,
        adds,
        wait=Wait(
            said="this machine busy or asleep",
            metric="How long the machine of the last run was busy or asleep.",
            uses=(TimeUse.AT_WORK,),
        ),
    )
    """Seconds in which nothing was waited for: the machine was busy, or asleep."""
    retrying_s = Fact(
        0.0,
        adds,
        wait=Wait(
            said="in all",
            metric="How long devices of the last run waited after trouble of their own, added up.",
        ),
    )
    """Seconds that devices waited for another attempt, over all devices."""
    rate_scope = Fact("")
    """What the gateway counts together: as the setting."""
    pace_per_s = Fact[float | None](None)
    """Requests per second allowed at the end, of those that are counted together; None: no limit
    met."""
    pace_from = Fact("")
    """Where the pace comes from, in words."""
    pace_told = Fact[Told | None](None, read=lambda stored: Told(*stored) if stored else None)
    """The limit that the gateway told, which the pace stays below; None: it told none."""
    limit = Fact[LimitFound | None](None, is_carried=True)
    """The limit of the credential; None: none was shown."""
    limit_per_user = Fact[LimitFound | None](None, is_carried=True)
    """The limit of each user; None: none was shown."""
    limit_in_flight = Fact[int | None](None)
    """Most requests in flight at once that the gateway takes; None: no limit was shown."""
    clock_skew_s = Fact[float | None](None, is_carried=True)
    """Seconds by which the server's clock is ahead of ours, rounded down; None: not measured."""
    left_out = Fact[Chosen | None](None)
    """Rows of the manifests that were not meant; None: all were."""
    synced = Fact[Synced | None](None)
    """None: what the manifests lack was not looked for."""
    takes_any = Fact(False)  # noqa: FBT003  # a default
    """Whether an unbind run unbinds what the users' lists show, also if it is not ours."""
    agreed_unbinds = Fact[int | None](None, is_shown=False)
    """Devices of an unbind run when all of them were agreed to; None: at most a pilot was."""
    note = Fact("")
    """What the operator says of the run, such as the number of a change."""
    adopted = Fact[dict[str, int] | None](None)
    """Of `adopt`: users whose lists were compared, and devices by what was found; None: no such."""
    adjusted = Fact[Sequence[Adjustment]]((), joins)
    """How operators steered the run while it was sending, in order."""
    workers = Fact[Sequence[WorkerState]]((), partial(joins, most=MOST_WORKERS))
    """How each worker is doing, or was at its end, in order; empty where the run's own process
    sends."""
    own_settled = Fact(0, adds)
    """Rows that ended through what the run's own process sent; absent where it has no workers."""
    cpu_s = Fact(0.0, adds)
    """Seconds of processor time that the run's own process took from the start of sending to its
    end, without its workers'."""
    parts = Fact[Sequence[TimelinePart]]((), joins, is_shown=False)
    """The timeline of each session."""
    pruned_at = Fact[str | None](None)
    """ISO 8601; None: the run has its rows."""
    pruned_rows = Fact[int | None](None)
    """1 while its rows are being deleted."""
    pruned_counts = Fact[dict[str, int] | None](None, is_shown=False)
    """Rows by status before they were pruned."""
    pruned_manifests = Fact[Sequence[str]]((), is_shown=False)
    """The names of its manifests."""

    @property
    def limit_per_s(self) -> float | None:
        """Requests per second of the credential's limit; None: none was shown."""
        return None if self.limit is None else self.limit.get("per_s")

    @property
    def is_least(self) -> bool:
        """Whether more requests may have been sent than are counted."""
        return bool(self.requests_unsure or self.cut_offs)

    @property
    def not_found(self) -> int:
        """Known devices that the lists read beforehand lack, without a proof that they are gone."""
        return 0 if self.refreshed is None else self.refreshed.get("not_proven", 0)

    def waits(self) -> list[tuple[Fact[float], Wait, float | None]]:
        """Return all that time went to, its words, and its seconds; None: not measured."""
        return [(fact, fact.wait, self.get(fact)) for fact in self.declared.values() if fact.wait]

    def account(self) -> list[tuple[str, float]]:
        """Return what the time of sending went to, in words, and the seconds, most first.

        Of runs of older versions, which measured less, the rest is called sending.
        """
        sending = RunFacts.in_flight_s.wait
        assert sending is not None
        spent = {wait.said: seconds or 0.0 for _, wait, seconds in self.waits() if wait.uses}
        spent[sending.said] += max(0.0, self.sending_s - sum(spent.values()))
        return sorted(
            ((said, seconds) for said, seconds in spent.items() if seconds >= SHORTEST_S),
            key=lambda item: -item[1],
        )

    def left_alone(self) -> Self:
        """Return these facts after the run's own process was killed, and so its workers."""
        left = self.merge(type(self)())
        if self:
            left.cut_offs = 1
        if self.workers:
            left.workers = [{**worker, "is_alive": False, "waits": ""} for worker in self.workers]
        return left

    def spend(self, time: TimeSpent) -> None:
        """Record what the time went to."""
        for fact, wait, _ in self.waits():
            if wait.uses:
                setattr(self, fact.name, round(time.seconds(*wait.uses), 3))
        self.sending_s = round(sum(item or 0.0 for _, w, item in self.waits() if w.uses), 3)


class LiveFacts(Facts):
    """What the process that sends a run says of it each second; empty while none does."""

    __slots__ = ()
    key: ClassVar = "live"
    """Where the ledger keeps it; one run at a time sends."""
    undo_key: ClassVar = "undo_live"
    """Where it keeps what the process of an undo says."""

    run = Fact(0)
    """The run's number."""
    began_at = Fact("")
    """When this process began to send; ISO 8601, like all times."""
    at = Fact("")
    """When this was said."""
    allowed_per_s = Fact[float | None](None)
    """Requests per second allowed; None: no limit met."""
    source = Fact("")
    """Where that comes from, in words."""
    known_at = Fact("")
    """When a limit was known first; empty: none is. Before, the pace says nothing of later."""
    is_blocked = Fact(False)  # noqa: FBT003  # a default
    """Whether nobody may send, and nobody knows for how long."""
    trouble = Fact("")
    """What does not go smoothly, in words."""
    waits = Fact("")
    """Why nothing is sent now, in words; empty if something is."""
    stopping = Fact("")
    """Why the run is ending, and what it waits for, in words; empty while it is not."""
    waiting = Fact(Waits(), read=lambda stored: Waits(*stored or ()))
    """Rows that wait for a known time."""
    to_do = Fact[int | None](None)
    """Rows that it has still to settle; None: a version that does not say so."""
    spent = Fact(RunFacts(), read=RunFacts)
    """What this process has learned and spent so far."""
