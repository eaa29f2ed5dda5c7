"""The client: one request, one `Attempt`. It never waits, and never sends anything twice."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from urllib.parse import quote

import aiohttp
import msgspec
from multidict import istr

from bulkbind.koodrive.auth.credential import Outgoing
from bulkbind.koodrive.connections import FastPath
from bulkbind.koodrive.http import NO_CONNECTION, HttpSession, silence
from bulkbind.koodrive.patience import Patience
from bulkbind.koodrive.server_clock import SAFETY_S, STEP_S, ServerClock
from bulkbind.koodrive.verdicts import (
    Codes,
    classify,
    classify_list,
    classify_unbind,
)
from bulkbind.koodrive.wire import Answer, TraceIds, XDates, bind_body, http_date, request_id_of
from bulkbind.model import TIMED_OUT, Accepted, Attempt, Listing, NoAnswer, Unreachable
from bulkbind.model.fields import USER
from bulkbind.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from ssl import SSLContext

    from bulkbind.clock import Clock
    from bulkbind.koodrive.auth.credential import Credential
    from bulkbind.koodrive.auth.renewing import SessionCall
    from bulkbind.model import Device, Unbinding
    from bulkbind.settings import ApiSettings

ANSWER_CAP_BYTES = 1 << 20
LIST_CAP_BYTES = 64 << 20
"""Enough for 100,000 devices of some 250 bytes."""
READ_IN_THREAD_BYTES = 1 << 18
"""A larger answer is judged in a thread."""
BEYOND_SUCCESS = 300
_X_USER_ID, _X_DATE, _X_TRACE_ID = istr(USER.header), istr("X-Date"), istr("X-Traceid")

Judge: TypeAlias = "Callable[[Answer], Attempt]"
"""Returns the verdict on an answer, with its code and message."""
Landed: TypeAlias = "Callable[[Attempt | Callable[[], Awaitable[Attempt]]], None]"
"""Takes an attempt, or what is to be called and awaited for it."""


class _Asked(msgspec.Struct, frozen=True, gc=False):
    """A request that is out."""

    judge: Judge
    trace_id: str
    sent_s: float
    """When it was made, monotonic seconds."""
    timeout_s: float
    is_usual: bool
    """Whether the patience learns from how long its answer takes."""


class KooDrive:
    """The API, an async context manager. Each call is one request, whatever its result."""

    def __init__(
        self,
        settings: ApiSettings,
        endpoint: str,
        clock: Clock,
        *,
        skew_s: float | None = None,
        names_codes: bool = False,
        tls: SSLContext | None = None,
    ) -> None:
        """*skew_s*, *names_codes*: what an earlier run learned, as the attribute.

        *skew_s*: seconds that the server's clock was ahead. *tls*: of `tls_of`, for https.
        """
        self._settings = settings
        self._clock = clock
        self._trace_ids = TraceIds()
        self._x_dates = XDates()
        self._codes = Codes(
            already_bound=frozenset(settings.already_bound_codes),
            not_bound=frozenset(settings.not_bound_codes),
            retryable=frozenset(settings.retryable_codes),
            locked=frozenset(settings.locked_codes),
            user=frozenset(settings.user_codes),
        )
        self.names_codes = names_codes
        """Whether any success so far has named its machine code: then each of them must."""
        self._date: tuple[str | None, float | None] = (None, None)
        """The last `Date`, as text and in seconds since 1970."""
        self._learned_date: float | None = None
        """The last one that another process was told."""
        self._patience = Patience(settings.timeout)
        self.has_answered = False
        """Whether any answer has come."""
        self.trouble = ""
        """Why there was no connection the last time; empty if there was one."""
        self.server_clock = ServerClock(clock, skew_s)
        self._http = HttpSession(settings, endpoint, tls)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.__aexit__()

    @property
    def requests(self) -> int:
        """Requests that left this machine."""
        return self._http.requests

    def patience_s(self) -> float:
        """Return how long the answer to a bind is waited for now."""
        return self._patience.seconds()

    def now(self) -> float:
        """Return the best estimate of the server's time, seconds since 1970."""
        return self.server_clock.now()

    def server_time(self) -> float | None:
        """Return the server's time, seconds since 1970; None while it is not known."""
        return self.server_clock.now() if self.server_clock.known else None

    def bind(
        self, device: Device, credential: Credential, timeout_s: float | None = None
    ) -> Coroutine[Any, Any, Attempt]:
        """Bind a device to its user.

        *timeout_s*: how long the answer may take; None: as those before it have shown.
        """
        request, judge = self._bind(device, credential)
        return self._send(request, judge, timeout_s=timeout_s)

    def post(
        self,
        device: Device,
        credential: Credential,
        landed: Landed,
        timeout_s: float | None = None,
    ) -> None:
        """Bind a device to its user, and have *landed* told what `bind` would return."""
        self._post(*self._bind(device, credential), landed, timeout_s)

    def _post(
        self, request: Outgoing, judge: Judge, landed: Landed, timeout_s: float | None = None
    ) -> None:
        asked = self._asked(request, judge, timeout_s)

        def came(answer: Answer | Callable[[], Awaitable[Answer]]) -> None:
            if isinstance(answer, Answer):  # in one piece, and so not large
                now = self._clock.monotonic()
                landed(self._answered(asked, answer, judge(answer), now))
            else:
                landed(partial(self._awaited, asked, answer))

        self._http.post(request, cap=ANSWER_CAP_BYTES, timeout_s=asked.timeout_s, came=came)

    def hand_over(self) -> None:
        """Have the answers to all that is posted and out awaited by who is told of them."""
        self._http.hand_over()

    def _bind(self, device: Device, credential: Credential) -> tuple[Outgoing, Judge]:
        def judge(answer: Answer) -> Attempt:
            attempt = classify(answer, self._codes, device.machine_code, is_named=self.names_codes)
            self.names_codes = self.names_codes or attempt.is_named
            return attempt

        request = self._request("POST", device.user_id, credential, body=bind_body(device))
        return request, judge

    @staticmethod
    def pool() -> None:
        """Return None: nobody else sends."""

    async def list_devices(self, user_id: str, credential: Credential) -> Listing:
        """Read a user's list."""
        listing: Listing | None = None

        def judge(answer: Answer) -> Attempt:
            nonlocal listing
            listing = classify_list(answer, self._codes)
            return listing.attempt

        attempt = await self._send(
            self._request("GET", user_id, credential),
            judge,
            cap=LIST_CAP_BYTES,
            timeout_s=self._settings.list_timeout,
        )
        return listing or Listing(attempt, None)

    def unbind(self, item: Unbinding, credential: Credential) -> Coroutine[Any, Any, Attempt]:
        """Unbind a device from its user; an answer that names another device is none."""
        return self._send(*self._unbind(item, credential))

    def post_unbind(self, item: Unbinding, credential: Credential, landed: Landed) -> None:
        """Unbind a device from its user, and have *landed* told what `unbind` would return."""
        self._post(*self._unbind(item, credential), landed)

    def _unbind(self, item: Unbinding, credential: Credential) -> tuple[Outgoing, Judge]:
        device_id = item.device_id

        def judge(answer: Answer) -> Attempt:
            return classify_unbind(answer, self._codes, device_id, item.machine_code)

        is_plain = device_id.isascii() and device_id.isalnum()
        part = f"/{device_id if is_plain else quote(device_id, safe='')}"
        return self._request("DELETE", item.user_id, credential, part=part), judge

    async def knock(self) -> Attempt:
        """Send a request without credentials: any answer shows the server's clock."""
        headers: dict[str, str] = {_X_TRACE_ID: self._trace_ids.next()}
        request = Outgoing("GET", self._settings.path, self._http.host, headers, None)
        return await self._send(
            request, lambda answer: Attempt(Accepted("", ""), "", f"HTTP {answer.status}")
        )

    async def call(self, call: SessionCall) -> Attempt:
        """Send a session call. No answer counts as `Unreachable`, since no row was sent."""
        headers = call.headers | {_X_TRACE_ID: self._trace_ids.next()}
        request = Outgoing("POST", call.path, self._http.host, headers, call.body)
        attempt = await self._send(request, call.judge)
        if isinstance(attempt.verdict, NoAnswer):
            attempt.verdict = Unreachable()
            attempt.code = "session"
            attempt.message = f"the session cannot be renewed: {attempt.message}"
        return attempt

    def _request(
        self,
        method: str,
        user_id: str,
        credential: Credential,
        *,
        part: str = "",
        body: bytes | None = None,
    ) -> Outgoing:
        """Return a request dated now, and authorised. *part*: is appended to the path."""
        signed_s = self.server_clock.now() - SAFETY_S
        headers: dict[str, str] = {
            _X_USER_ID: user_id,
            _X_DATE: self._x_dates.at(signed_s),
            _X_TRACE_ID: self._trace_ids.next(),
        }
        path = self._settings.path + part
        request = Outgoing(method, path, self._http.host, headers, body, signed_s)
        credential.authorize(request)
        return request

    async def _send(
        self,
        request: Outgoing,
        judge: Judge,
        *,
        cap: int = ANSWER_CAP_BYTES,
        timeout_s: float | None = None,
    ) -> Attempt:
        """Send a request. *timeout_s*: None: as for a bind.

        All text from outside comes through here: an answer may repeat what was sent.
        """
        asked = self._asked(request, judge, timeout_s)
        send = partial(self._http.send, request, cap=cap, timeout_s=asked.timeout_s)
        return await self._awaited(asked, send)

    def _asked(self, request: Outgoing, judge: Judge, timeout_s: float | None) -> _Asked:
        is_usual = timeout_s is None
        timeout_s = self.patience_s() if timeout_s is None else timeout_s
        trace_id = request.headers[_X_TRACE_ID]
        return _Asked(judge, trace_id, self._clock.monotonic(), timeout_s, is_usual)

    async def _awaited(self, asked: _Asked, send: Callable[[], Awaitable[Answer]]) -> Attempt:
        try:
            answer = await send()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            attempt = silence(error, asked.timeout_s)
            attempt.connection = self._http.connection()
            attempt.took_s = self._clock.monotonic() - asked.sent_s
            if asked.is_usual and attempt.code == TIMED_OUT:
                self._patience.timed_out(asked.sent_s)
            return self._told(asked, attempt)
        except asyncio.CancelledError as error:
            # An answer that would have shown that one before was another's is not heard any more.
            self._http.distrust(self._http.connection())
            raise asyncio.CancelledError(asked.trace_id) from error
        now = self._clock.monotonic()
        # A large answer must not hold up other requests.
        is_large = len(answer.body) > READ_IN_THREAD_BYTES
        judge = asked.judge
        attempt = await asyncio.to_thread(judge, answer) if is_large else judge(answer)
        return self._answered(asked, answer, attempt, now)

    def _answered(self, asked: _Asked, answer: Answer, attempt: Attempt, now: float) -> Attempt:
        """Complete the verdict on an answer by what else it says, and learn from it."""
        believed = self.server_clock.at(asked.sent_s)
        self.server_clock.observe(answer.date, asked.sent_s, now)
        attempt.http_status, attempt.limits = answer.status, answer.limits
        self.has_answered, self.trouble = True, ""
        attempt.connection = answer.connection
        if answer.date != self._date[0]:
            self._date = answer.date, http_date(answer.date)
        attempt.date = self._date[1]
        if not isinstance(attempt.verdict, Accepted):
            attempt.request_id = request_id_of(answer)
        attempt.took_s = now - asked.sent_s
        if asked.is_usual:
            self._patience.answered(now, attempt.took_s)
        self._told(asked, attempt)
        if isinstance(attempt.verdict, Accepted) and abs(attempt.sent_at - believed) > STEP_S:
            # Its own Date must not be the only witness of when it was.
            attempt.date = believed + attempt.took_s
        return attempt

    def _told(self, asked: _Asked, attempt: Attempt) -> Attempt:
        """Complete an attempt by what was asked, and let no secret in it be told."""
        attempt.message = redacted(attempt.message)
        attempt.trace_id = asked.trace_id
        attempt.sent_at = self.server_clock.at(asked.sent_s)
        if isinstance(attempt.verdict, Accepted):
            return attempt
        if isinstance(attempt.verdict, NoAnswer) and (attempt.http_status or 0) < BEYOND_SUCCESS:
            # Perhaps it came as the answer to another request, or another's came as this one's.
            self._http.distrust(attempt.connection)
        attempt.code = redacted(attempt.code)
        attempt.request_id = redacted(attempt.request_id)
        if isinstance(attempt.verdict, Unreachable):
            self._http.requests -= attempt.connection != 0  # TLS failed before it left
            self.trouble = attempt.message.removeprefix(NO_CONNECTION)
        return attempt

    def learn(self, attempt: Attempt) -> None:
        """Learn from a bind that another process sent for this one, and that has just ended."""
        now = self._clock.monotonic()
        if attempt.http_status is not None:
            if attempt.date != self._learned_date or self.server_clock.is_doubted:
                self._learned_date = attempt.date
                self.server_clock.observe_moment(attempt.date, now - attempt.took_s, now)
            self.has_answered, self.trouble = True, ""
            self.names_codes = self.names_codes or attempt.is_named
            self._patience.answered(now, attempt.took_s)
        elif attempt.code == TIMED_OUT:
            self._patience.timed_out(now - attempt.took_s)
        if isinstance(attempt.verdict, Unreachable):
            self.trouble = attempt.message.removeprefix(NO_CONNECTION)
        else:
            self._http.requests += attempt.connection != 0

    def learn_passed(self, attempts: Sequence[Attempt]) -> None:
        """Learn from binds that another process sent and that were accepted, the last one last."""
        self._http.requests += len(attempts) - 1
        self.learn(attempts[-1])

    def on_unasked(self, report: Callable[[int], None]) -> None:
        """Have *report* called with the number of a connection that says more, or breaks."""
        self._http.on_unasked = report

    def before_sending(self, check: Callable[[], None]) -> None:
        """Have *check* called just before a request leaves; if it raises, nothing does.

        Only where `can_check` says so.
        """
        self._http.may_send = check

    @staticmethod
    def can_check() -> bool:
        """Return whether `before_sending` works here: aiohttp may be too new for the fast path."""
        return FastPath.serves()
