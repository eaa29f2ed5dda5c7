from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from bulkbind.errors import UsageError
from bulkbind.koodrive import authorizer
from bulkbind.koodrive.auth.credential import Outgoing
from bulkbind.settings import AuthSettings, Settings, load_settings
from tests.support.fake_clock import FakeClock

SECRET = "3b91c0ffee"


def settings(token=None, **more) -> AuthSettings:
    """Return settings with a token."""
    return AuthSettings(token=None if token is None else SecretStr(token), **more)


def made(given: AuthSettings):
    """Return what the settings come to."""
    return authorizer(given, Path("ledger.db"), FakeClock(), {})


async def no_call(_call):
    """Stand in for the session calls, which nothing here needs."""
    raise AssertionError


def header_of(auth) -> str:
    """Return the Authorization header of a request."""
    if auth.current("user_1") is None:
        assert asyncio.run(auth.renew("user_1", no_call)) is None
    request = Outgoing("POST", "/path", "host", {}, None)
    auth.current("user_1").authorize(request)
    return request.headers["Authorization"]


def token_file(folder, text=f"{SECRET}\n", mode=0o600):
    """Write a token file and return its path."""
    path = folder / "token"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("token", "prefix", "expected"),
    [
        pytest.param(SECRET, "Bearer ", f"Bearer {SECRET}", id="bare -> behind the default prefix"),
        pytest.param(f"AT {SECRET}", "Bearer ", f"AT {SECRET}", id="AT token as it is"),
        pytest.param(f"Bearer {SECRET}", "Bearer ", f"Bearer {SECRET}", id="Bearer not doubled"),
        pytest.param(f" {SECRET}\r\n", "Bearer ", f"Bearer {SECRET}", id="trimmed"),
        pytest.param(SECRET, "", SECRET, id="no prefix"),
        pytest.param(SECRET, "Bearer", f"Bearer{SECRET}", id="the reference's own letters"),
        pytest.param(SECRET, "AT ", f"AT {SECRET}", id="another prefix"),
    ],
)
def test_the_header_of_a_token(token, prefix, expected):
    """A bare token stands behind the prefix; one with a scheme word goes out as it is."""
    found = made(settings(token, token_prefix=prefix))

    assert header_of(found) == expected


def test_the_default_prefix_is_bearer_and_one_space():
    """Nothing set but a token: `Bearer`, a space, the token."""
    assert header_of(made(settings(SECRET))) == f"Bearer {SECRET}"


@pytest.mark.parametrize("mode", [0o600, 0o400], ids=oct)
def test_a_private_file_is_read(tmp_path, mode):
    """A file that only its owner can read gives the token, without its line end."""
    path = token_file(tmp_path, mode=mode)

    found = made(settings(token_file=path))

    assert header_of(found) == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("before", "encoding"),
    [("\ufeff", "utf-8"), ("\ufeff\ufeff", "utf-8"), ("", "utf-16"), ("\ufeff", "utf-16-be")],
    ids=ascii,
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n", " \r\n\r\n"], ids=ascii)
def test_a_file_as_windows_writes_it_is_read(tmp_path, before, encoding, end):
    """A byte order mark is no part of the token, and neither is what ends its line."""
    path = token_file(tmp_path, f"{before}{SECRET}{end}".encode(encoding))

    assert header_of(made(settings(token_file=path))) == f"Bearer {SECRET}"
    assert header_of(made(settings(f"{before}{SECRET}{end}"))) == f"Bearer {SECRET}"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666, 0o620, 0o602, 0o622], ids=oct)
def test_a_file_that_others_can_read_is_refused(tmp_path, mode):
    """The error names the file, the mode and the cure, and not the secret."""
    path = token_file(tmp_path, mode=mode)

    with pytest.raises(UsageError, match=f"{mode:04o}") as error:
        made(settings(token_file=path))

    assert str(path) in str(error.value)
    assert error.value.hint == f"chmod 600 {path}"
    assert SECRET not in str(error.value)


def test_the_environments_token_wins_over_a_file(tmp_path):
    """Where both are set, the file is not even looked at."""
    missing = tmp_path / "missing"

    found = made(settings(SECRET, token_file=missing))

    assert header_of(found) == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    "text", ["", "\n", "  \t\n"], ids=["empty", "only a line end", "only blanks"]
)
def test_an_empty_token_is_refused(tmp_path, text):
    """The error says where the empty token came from, from file and environment alike."""
    path = token_file(tmp_path, text)

    with pytest.raises(UsageError, match="is empty") as from_file:
        made(settings(token_file=path))
    with pytest.raises(UsageError, match="BULKBIND_TOKEN is empty"):
        made(settings(text))

    assert str(path) in str(from_file.value)


def test_no_token_at_all_is_refused_with_a_hint():
    """The error says what to set."""
    with pytest.raises(UsageError, match="no token is set") as error:
        made(settings())

    assert "BULKBIND_TOKEN" in error.value.hint


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(f"{SECRET}\nX-Evil: 1", id="line feed"),
        pytest.param(f"{SECRET}\r\nX-Evil: 1", id="CR LF"),
        pytest.param(f"{SECRET}\x00", id="NUL"),
        pytest.param(f"{SECRET}\tx", id="tab"),
        pytest.param(f"{SECRET}\x7f", id="DEL"),
        pytest.param(f"{SECRET}é", id="not ASCII"),
        pytest.param(f"AT \ufeff{SECRET}", id="byte order mark inside"),
    ],
)
def test_characters_that_no_header_can_carry_are_refused(tmp_path, token):
    """The error says so, from file and environment alike, without the secret."""
    path = token_file(tmp_path, token)

    for given in (settings(token), settings(token_file=path)):
        with pytest.raises(UsageError, match="characters") as error:
            made(given)

        assert SECRET not in str(error.value)


@pytest.mark.parametrize("prefix", ["Bearer\n", "Bear\x00er ", "Bëarer "], ids=ascii)
def test_a_prefix_that_no_header_can_carry_is_refused(prefix):
    """A wrong setting is a usage error, not a failure of the first request."""
    given = {"auth.token": SECRET, "auth.token_prefix": prefix}

    with pytest.raises(UsageError) as error:
        made(load_settings(None, given).auth)

    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "text", [b"\xff\xfe\x00", f"{SECRET}\xff".encode("latin-1")], ids=["no text", "latin-1"]
)
def test_a_file_that_is_no_text_is_refused(tmp_path, text):
    """Bytes that are not UTF-8 end in a usage error that names the file."""
    path = token_file(tmp_path, text)

    with pytest.raises(UsageError, match="cannot be read") as error:
        made(settings(token_file=path))

    assert str(path) in str(error.value)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, kind):
    """A missing file and a folder end in a usage error that names the path."""
    path = tmp_path if kind == "folder" else tmp_path / "missing"

    with pytest.raises(UsageError, match="cannot be read") as error:
        made(settings(token_file=path))

    assert str(path) in str(error.value)


def test_no_representation_shows_the_secret():
    """The repr and str of the token and of the settings that hold it are safe to log."""
    auth = settings(SECRET)
    whole = Settings(auth=auth)

    shown = [
        repr(made(auth)),
        repr(made(auth).current("user_1")),
        str(made(auth).current("user_1")),
        repr(auth),
        str(auth),
        repr(whole),
        str(whole.public()),
        auth.model_dump_json(),
    ]

    assert not [text for text in shown if SECRET in text]
    assert whole.public()["auth"]["token"] == "set"


def test_a_settings_file_cannot_hold_a_token(tmp_path):
    """A secret in a settings file is refused, with the place where it belongs."""
    path = tmp_path / "settings.yaml"
    path.write_text(f"auth:\n  token: {SECRET}\n", encoding="utf-8")

    with pytest.raises(UsageError, match=r"auth\.token") as error:
        load_settings(path, {})

    assert SECRET not in str(error.value)
    assert "token_file" in error.value.hint
