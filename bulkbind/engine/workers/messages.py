"""What a driver and its workers tell each other, as bytes in frames. Pure.

| to the worker | |
| --- | --- |
| `Start` | how to reach the server; its `Ready` follows |
| `Lease` | the answer to a `Beat` |
| `Key` | a credential, before the first order that needs it |
| `Order` | binds to send now: their rows are claimed, and there is a permit for each |
| `Revoke` | what has not left yet is not to leave |
| `Named` | from now on every success must name its device |
| `After` | what follows was gathered, and is to be done so much later than it came |

| to the driver | |
| --- | --- |
| `Hello` | the worker's version, first of all |
| `Ready` | it can send |
| `Beat` | it is alive, and asks for a lease |
| `Passed` | binds that were accepted |
| `Said` | what came of any other |
| `Kept` | a bind that was not sent, as the lease had ended, or it was taken back |
| `Unasked` | a connection said more, or broke |
| `Failed` | why it ends |
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, get_args

import msgspec

from bulkbind.model import Accepted, Attempt, Device, ServerLimit, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LENGTH_BYTES = 4
MOST_BYTES = 1 << 26
"""A longer frame is none of ours."""
OK = 200
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Verdict)}
_FIELDS: dict[type, tuple[str, ...]] = {
    kind: tuple(getattr(kind, "__struct_fields__", None) or [field.name for field in fields(kind)])
    for kind in _KINDS.values()
}


class UnreadableError(ValueError):
    """What came is none of ours."""


class Start(msgspec.Struct, frozen=True, array_like=True, tag="start"):
    """*setup*: of the application, which knows what it means."""

    setup: bytes
    gather_s: float = 0.0
    """Accepted binds wait for others for so long, also where a limit is known."""

    def __repr__(self) -> str:
        return "Start()"


class Lease(msgspec.Struct, frozen=True, array_like=True, tag="lease"):
    """*beat*: the number of the `Beat` that asked; *is_free*: whether no limit is known."""

    beat: int
    is_free: bool = False


class Key(msgspec.Struct, frozen=True, array_like=True, tag="key"):
    """*parts*: the credential's own form."""

    number: int
    parts: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Key({self.number})"


class Order(msgspec.Struct, frozen=True, array_like=True, tag="order", gc=False):
    """*number*: of the first bind, the others follow; *key*: that of the credential."""

    number: int
    key: int
    timeout_s: float
    """How long each answer may take."""
    devices: list[Device]
    over_s: float = 0.0
    """They leave evenly over so long."""


class Revoke(msgspec.Struct, frozen=True, array_like=True, tag="revoke"):
    """It has no values."""


class Named(msgspec.Struct, frozen=True, array_like=True, tag="named"):
    """It has no values."""


class After(msgspec.Struct, frozen=True, array_like=True, tag="after", gc=False):
    """*seconds*: after what a group began with was put; 0: a group begins."""

    seconds: float


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """*version*: of bulkbind."""

    version: str


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """It has no values."""


class Beat(msgspec.Struct, frozen=True, array_like=True, tag="beat"):
    """*number*: rises."""

    number: int


class Said(msgspec.Struct, frozen=True, array_like=True, tag="said", gc=False):
    """An attempt, in the order of its fields; the verdict as its name and its values."""

    number: int
    kind: str
    values: tuple[Any, ...]
    code: str
    message: str
    trace_id: str
    sent_at: float
    took_s: float
    date: float | None
    connection: int
    is_named: bool
    http_status: int | None
    request_id: str
    limits: tuple[ServerLimit, ...]

    @classmethod
    def of(cls, number: int, attempt: Attempt) -> Said:
        """Return what is said of an attempt."""
        verdict = attempt.verdict
        kind = type(verdict)
        return cls(
            number,
            kind.__name__,
            tuple([getattr(verdict, name) for name in _FIELDS[kind]]),
            attempt.code,
            attempt.message,
            attempt.trace_id,
            attempt.sent_at,
            attempt.took_s,
            attempt.date,
            attempt.connection,
            attempt.is_named,
            attempt.http_status,
            attempt.request_id,
            attempt.limits,
        )

    def attempt(self) -> Attempt:
        """Return the attempt. Raises: UnreadableError."""
        try:
            verdict = _KINDS[self.kind](*self.values)
        except (KeyError, TypeError) as error:
            raise UnreadableError(self.kind) from error
        return Attempt(
            verdict,
            self.code,
            self.message,
            self.trace_id,
            self.sent_at,
            self.took_s,
            self.date,
            self.connection,
            self.is_named,
            self.http_status,
            self.request_id,
            self.limits,
        )


class Passed(msgspec.Struct, frozen=True, array_like=True, tag="passed"):
    """Binds that were accepted and settle their rows if they are the first ones, in columns.

    What is in all of these answers is said once, and nothing else is in any: see `takes`.
    """

    is_ours: bool
    """Whether all of these bindings were made by these requests, or none was."""
    is_named: bool
    """Whether these answers name their devices, or none does."""
    code: str
    message: str
    date: float | None
    """Of the last answer."""
    numbers: list[int] = []
    device_ids: list[str] = []
    create_times: list[str] = []
    trace_ids: list[str] = []
    sent_at: list[float] = []
    took_s: list[float] = []
    connections: list[int] = []

    def __post_init__(self) -> None:
        if len({len(getattr(self, column)) for column in self.__struct_fields__[5:]}) > 1:
            raise ValueError("columns of different lengths")

    @classmethod
    def of(cls, came: Sequence[tuple[int, Attempt]], *, is_ours: bool) -> Passed:
        """Return what is said of attempts that it `takes`, by their numbers."""
        rows = [
            (
                number, verdict.device_id, verdict.create_time, attempt.trace_id, attempt.sent_at,
                attempt.took_s, attempt.connection,
            )
            for number, attempt in came
            if isinstance(verdict := attempt.verdict, Accepted)
        ]  # fmt: skip
        last = came[-1][1]
        columns = [list(column) for column in zip(*rows, strict=True)]
        return cls(is_ours, last.is_named, last.code, last.message, last.date, *columns)

    @staticmethod
    def takes(attempt: Attempt) -> bool:
        """Return whether an attempt tells no more than this."""
        return attempt.http_status == OK and not attempt.limits

    def attempts(self, mark: int) -> list[Attempt]:
        """Return the attempts. *mark*: the bits of a connection's number that are not here."""
        code, message, date, is_named = self.code, self.message, self.date, self.is_named
        return [
            Attempt(
                Accepted(device_id, create_time), code, message, trace_id, sent_at, took_s, date,
                connection and mark | connection, is_named=is_named, http_status=OK,
            )
            for device_id, create_time, trace_id, sent_at, took_s, connection in zip(
                self.device_ids, self.create_times, self.trace_ids, self.sent_at, self.took_s,
                self.connections, strict=True,
            )
        ]  # fmt: skip


class Kept(msgspec.Struct, frozen=True, array_like=True, tag="kept", gc=False):
    """*number*: the order's."""

    number: int


class Unasked(msgspec.Struct, frozen=True, array_like=True, tag="unasked"):
    """*connection*: its number in the worker."""

    connection: int


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """*why*: for a person."""

    why: str


ToWorker: TypeAlias = Start | Lease | Key | Order | Revoke | Named | After
ToDriver: TypeAlias = Hello | Ready | Beat | Passed | Said | Kept | Unasked | Failed
TO_WORKER = msgspec.msgpack.Decoder(list[ToWorker])
TO_DRIVER = msgspec.msgpack.Decoder(list[ToDriver])
_ENCODER = msgspec.msgpack.Encoder()

M = TypeVar("M")


def frame(messages: Sequence[ToWorker] | Sequence[ToDriver]) -> bytes:
    """Return messages as a frame: their length in four bytes, most significant first, and they."""
    body = _ENCODER.encode(messages)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class Frames(Generic[M]):
    """Takes a stream of bytes apart into messages."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[list[M]]) -> None:
        self._decoder = decoder
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[M]:
        """Yield the messages that are whole. Raises: UnreadableError."""
        data = self._rest + data if self._rest else data
        at = 0
        while len(data) - at >= LENGTH_BYTES:
            length = int.from_bytes(data[at : at + LENGTH_BYTES], "big")
            if length > MOST_BYTES:
                raise UnreadableError(f"a frame of {length:,} bytes")
            end = at + LENGTH_BYTES + length
            if len(data) < end:
                break
            self._rest = data[end:]  # whoever stops in between has the rest
            try:
                messages = self._decoder.decode(memoryview(data)[at + LENGTH_BYTES : end])
            except msgspec.MsgspecError as error:
                raise UnreadableError(str(error)) from error
            yield from messages
            at = end
        self._rest = data[at:]
