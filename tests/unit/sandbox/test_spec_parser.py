"""How limits and faults of the sandbox are written, and how mistakes are explained."""

from __future__ import annotations

import math
import re

import pytest

from bulkbind.sandbox import parse_fault, parse_limit, parse_time
from bulkbind.sandbox.faults import KINDS
from bulkbind.sandbox.specs import LIMIT_HELP, Call, LimitKind, Period

ALWAYS = Period(0, math.inf)


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "count", "unit", "window_s"),
    [
        ("60/s", "window", 60, "second", 1),
        ("60/second", "window", 60, "second", 1),
        ("window:60/s", "window", 60, "second", 1),
        ("600/min", "window", 600, "minute", 60),
        ("600/m", "window", 600, "minute", 60),
        ("600/minute", "window", 600, "minute", 60),
        ("1000/h", "window", 1000, "hour", 3600),
        ("1000/hour", "window", 1000, "hour", 3600),
        ("5000/d", "window", 5000, "day", 86_400),
        (" 5000/day ", "window", 5000, "day", 86_400),
        ("sliding:600/min", "sliding", 600, "minute", 60),
        ("bucket:100/s", "bucket", 100, "second", 1),
        ("inflight:16", "inflight", 16, "", 0),
    ],
)
def test_limits_are_written_as_a_fraction(text, kind, count, unit, window_s):
    """A kind, or none, a count and a unit, short or long; the rest is as it is by default."""
    limit = parse_limit(text)

    assert (limit.kind, limit.count, limit.unit, limit.window_s) == (kind, count, unit, window_s)
    assert (limit.burst, limit.tell, limit.period) == (count, ("text",), ALWAYS)
    assert (limit.on, limit.is_per_user) == (Call.ALL, False)


def test_limits_take_keys():
    """Every key is read, in any order, with blanks around it."""
    limit = parse_limit(
        "bucket:9/s, burst=3 ,on=list,per=user,until=1m,from=1500ms,tell=apig+draft-11+retry-after"
    )

    assert (limit.burst, limit.on, limit.is_per_user) == (3, Call.LIST, True)
    assert limit.period == Period(1.5, 60)
    assert limit.tell == ("apig", "draft-11", "retry-after")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *[(text, "write 60/s, 600/min") for text in ("", "60", "60/", "/s", "0/s", "-1/s")],
        *[(text, "write 60/s, 600/min") for text in ("1.5/s", "6/week", "٣/s", "1234567890/s")],
        ("slding:6/s", "`slding` is no kind of limit (did you mean `sliding`?); there are window,"),
        (":6/s", "`` is no kind of limit"),
        ("bucket:", "write 60/s"),
        ("inflight:16/s", "`inflight` must be a whole number from 1"),
        ("inflight:0", "`inflight` must be a whole number from 1"),
        ("6/s,brust=2", "`brust` is no key of window limits"),
        (
            "bucket:6/s,brust=2",
            "`brust` is no key of bucket limits (did you mean `burst`?); it has",
        ),
        ("6/s,burst=2", "`burst` is no key of window limits; it has tell, from, until, on, per"),
        ("bucket:6/s,burst=0", "`burst` must be a whole number"),
        ("bucket:6/s,burst=1.5", "`burst` must be a whole number"),
        ("6/s,tell", "`tell` must be KEY=VALUE"),
        ("6/s,tell=", "`tell=` must be KEY=VALUE"),
        ("6/s,", "`` must be KEY=VALUE"),
        ("6/s,on=bind,on=list", "`on` is given twice"),
        (
            "6/s,on=lists",
            "`lists` is no call for `on` (did you mean `list`?); there are bind, list",
        ),
        ("6/s,per=device", "`device` is no way to count; there are user"),
        (
            "6/s,tell=retry_after",
            "`retry_after` is no form of telling (did you mean `retry-after`?)",
        ),
        ("6/s,tell=text+nothing", "`nothing` stands alone"),
        ("6/s,tell=draft-07+draft-11", "only one form in `tell` can write RateLimit"),
        ("6/s,tell=retry-after+retry-after-date", "can write Retry-After"),
        ("6/s,from=soon", "'soon' is no time: write 90s"),
        ("6/s,from=-1s", "`from` must not be negative"),
        ("6/s,from=20s,until=20s", "`until` (20s) must be later than `from` (20s)"),
    ],
)
def test_what_is_no_limit_is_refused(text, why):
    """The error shows what was given, what is wrong with it, and what is allowed."""
    with pytest.raises(ValueError, match=re.escape(why)) as error:
        parse_limit(text)

    assert str(error.value).startswith(f"{text!r} is no limit: ")


def test_every_kind_of_limit_has_its_line_of_help():
    """The example of each line is a limit of that kind."""
    kinds = {
        kind: parse_limit(text.split()[0].rstrip(",")).kind for kind, text in LIMIT_HELP.items()
    }

    assert kinds == {kind: kind for kind in LimitKind}


# --- faults --------------------------------------------------------------------------------------


def test_faults_are_written_with_their_probability():
    """Without keys it strikes binds, always, without a limit on how often."""
    fault = parse_fault("reset-after=0.03")

    assert (fault.name, fault.probability) == ("reset-after", 0.03)
    assert (fault.count, fault.period, fault.on) == (None, ALWAYS, Call.BIND)
    assert (fault.for_s, fault.code) == (0, None)


def test_faults_take_keys():
    """Every key is read, in any order, with blanks around it."""
    delay = parse_fault(" delay-after = 1 , for=250ms,on=all,count=3,until=2h,from=90")
    business = parse_fault("business=.5,code=OSE.7")

    assert (delay.name, delay.probability, delay.for_s, delay.on) == ("delay-after", 1, 0.25, "all")
    assert (delay.count, delay.period) == (3, Period(90, 7200))
    assert (business.probability, business.code) == (0.5, "OSE.7")


@pytest.mark.parametrize("share", ["0", "1", "0.5", ".5", "1e-3"])
def test_a_probability_lies_between_0_and_1(share):
    """Both ends are allowed."""
    assert parse_fault(f"500={share}").probability == float(share)


DURATIONS = {
    "delay-before": 1, "delay-after": 1, "drip": 0.2, "503": 2, "wrong-date": 3600,
    "local-time": 28800, "unasked": 0, "stale": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_keys_belong_to_their_faults(name):
    """`for` and `code` are taken, with their defaults, by those faults that have one."""
    kind = KINDS[name]

    assert parse_fault(f"{name}=1").for_s == DURATIONS.get(name, 0)
    for key, text, has_it in (
        ("for", "7s", name in DURATIONS),
        ("code", "7", name == "business"),
        ("for", "-7s", name in ("wrong-date", "local-time")),
    ):
        if has_it:
            parse_fault(f"{name}=1,{key}={text}")
            continue
        with pytest.raises(ValueError, match=f"{name}.*`{key}`"):
            parse_fault(f"{name}=1,{key}={text}")
    assert kind.help


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("404=0.1", "`404` is no name of a fault"),
        ("", "`` is no name of a fault; there are reset-before,"),
        ("rest-after=0.1", "did you mean `reset-after`?"),
        ("500", "write it with its probability, from 0 to 1: 500=0.05"),
        ("500=", "from 0 to 1, but is ''"),
        ("500=often", "from 0 to 1, but is 'often'"),
        ("500=1.5", "from 0 to 1"),
        ("500=-0.1", "from 0 to 1"),
        ("500=nan", "from 0 to 1"),
        ("500=inf", "from 0 to 1"),
        ("500=1,cuont=2", "`cuont` is no key of 500 (did you mean `count`?); it has count"),
        ("500=1,for=2s", "`for` is no key of 500; it has count, from, until, on"),
        ("drip=1,code=2", "`code` is no key of drip; it has count, from, until, on, for"),
        ("500=1,count=0", "`count` must be a whole number"),
        ("500=1,count=two", "`count` must be a whole number"),
        ("500=1,count=2,count=3", "`count` is given twice"),
        ("500=1,on=post", "`post` is no call for `on`"),
        ("500=1,until=0", "`until` (0s) must be later than `from` (0s)"),
        ("delay-after=1,for=-1s", "`for` must not be negative"),
        ("delay-after=1,for=long", "'long' is no time"),
        ("other-code=1,on=list", "other-code strikes binds only, so `on` cannot be list"),
        ("other-code=1,on=all", "other-code strikes binds only, so `on` cannot be all"),
    ],
)
def test_what_is_no_fault_is_refused(text, why):
    """The error shows what was given, what is wrong with it, and what is allowed."""
    with pytest.raises(ValueError, match=re.escape(why)) as error:
        parse_fault(text)

    assert str(error.value).startswith(f"{text!r} is no fault: ")


# --- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("1d", 86_400), ("250ms", 0.25),
     (" -1.5h ", -5400), ("-0", 0)],
)  # fmt: skip
def test_times(text, seconds):
    """As durations everywhere, and the same with a minus sign."""
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "-", "--1s", "1w", "s", "1e3", "nan", "inf", "٣s", "9" * 400, "36501d"]
)
def test_what_is_no_time_is_refused(text):
    """Neither words nor more than a hundred years."""
    with pytest.raises(ValueError, match="is no time: write 90s"):
        parse_time(text)
