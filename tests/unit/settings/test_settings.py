"""Settings: merged in one order, checked as a whole, and never showing a secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from bulkbind.errors import UsageError
from bulkbind.settings import (
    Settings,
    is_loopback,
    load,
    load_settings,
    normal_endpoint,
    parse_duration,
    read_config,
)
from bulkbind.settings.model import LONGEST_S, duration_text, duration_words

SECRET = "hush-3b91"


@pytest.fixture
def config(tmp_path):
    """Return a function that writes a settings file and returns its path."""

    def written(text):
        path = tmp_path / "settings.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return written


# --- Durations -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("50m", 3000.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("250ms", 0.25),
        ("90", 90.0),
        ("0", 0.0),
        ("1.5h", 5400.0),
        ("0.5", 0.5),
        (" 2 h ", 7200.0),
        (30, 30.0),
        (2.5, 2.5),
    ],
)
def test_duration_is_read(text, seconds):
    """A duration is a number with a unit, or seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "per_s"),
    [("5", 5.0), ("0.5", 0.5), ("5/s", 5.0), ("40/min", 2 / 3), ("90 / hour", 0.025), (7, 7.0)],
)
def test_a_rate_is_written_as_it_is_shown(text, per_s):
    """`status` prints 40/min: that is what people type."""
    settings = load_settings(None, {"rate": text, "reserve": text})

    assert (settings.send.rate, settings.send.reserve) == pytest.approx((per_s, per_s))


@pytest.mark.parametrize("text", ["fast", "5/week", "5/", "-5", "0", "1e3", "5 per s"])
def test_what_is_no_rate_is_refused(text):
    """With what is allowed; a rate of nothing would never end."""
    with pytest.raises(UsageError, match=r"a rate is written|greater than 0"):
        load_settings(None, {"rate": text})


@pytest.mark.parametrize(
    "seconds", [0.00025, 0.1 + 0.2, 1.0, 123456.7, 1_000_001.0, 1_728_000.0, LONGEST_S]
)
def test_a_duration_is_written_so_that_it_is_read_as_the_same(seconds):
    """However long, also in words: no exponent, which nobody types, and no digit less."""
    assert parse_duration(duration_text(seconds)) == pytest.approx(seconds, rel=1e-15)
    assert parse_duration(duration_words(seconds)) == pytest.approx(seconds, rel=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "-1",
        "-1s",
        "1w",
        "1H",
        "1e3",
        "1_000",
        "1,5h",
        ".5",
        "5.",
        "1h30m",
        "90s\nx",
        "\u0661s",
        "inf",
        "nan",
        None,
        True,
    ],
    ids=repr,
)
def test_what_is_no_duration_is_refused(text):
    """Anything else is refused with how a duration is written."""
    with pytest.raises(ValueError, match="a duration is written like 90s, 50m, 2h or 250ms"):
        parse_duration(text)


# --- Endpoints -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("https://intl.myhuaweicloud-koodrive.com", "https://intl.myhuaweicloud-koodrive.com"),
        ("https://Intl.MyHuaweiCloud-KooDrive.com/", "https://intl.myhuaweicloud-koodrive.com"),
        ("HTTPS://HOST:8443", "https://host:8443"),
        ("  https://host  ", "https://host"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.8.9.1", "http://127.8.9.1"),
        ("http://LOCALHOST:80/", "http://localhost:80"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://[2001:DB8::1]", "https://[2001:db8::1]"),
    ],
)
def test_endpoint_is_written_one_way(text, endpoint):
    """An endpoint is compared in lower case and without a final slash."""
    assert normal_endpoint(text) == endpoint
    assert normal_endpoint(endpoint) == endpoint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "https://host", id="nothing"),
        pytest.param("host", "https://host", id="host alone"),
        pytest.param("host:443", "https://host", id="host and port"),
        pytest.param("ftp://host", "https://host", id="other scheme"),
        pytest.param("https://", "https://host", id="no host"),
        pytest.param("https://:443", "https://host", id="port alone"),
        pytest.param("https://host/koodrive/ose", "the path is a setting", id="path"),
        pytest.param("https://host?x=1", "alone", id="query"),
        pytest.param("https://host#x", "alone", id="fragment"),
        pytest.param("https://user:pass@host", "alone", id="user"),
        pytest.param("http://host", "loopback only", id="http to a host"),
        pytest.param("http://10.0.0.1", "loopback only", id="http to the net"),
        pytest.param("http://127.0.0.1.evil.example", "loopback only", id="http to a likeness"),
        pytest.param("http://localhost.example", "loopback only", id="http to another likeness"),
        pytest.param("http://0.0.0.0", "loopback only", id="http to everywhere"),
    ],
)
def test_what_is_no_endpoint_is_refused(text, message):
    """An endpoint is scheme and host alone, and http:// goes to this machine only."""
    with pytest.raises(ValueError, match=message):
        normal_endpoint(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://host:99999",
        "https://host:port",
        "https://host:-1",
        "https://ho st",
        "https://a\nb",
        "https://a\tb",
        "https://a\rb.example:443",
        "https://a..b",
        "https://.host",
        f"https://{'a' * 64}",
        "https://b\u00fccher.example",
        "https://\u202ehost",
        "https://host\0",
        "https://[::1%25lo]",
        "https://1.2.3",
        "https://ho\udcffst",
    ],
    ids=ascii,
)
def test_endpoint_that_nobody_could_reach_is_refused(text):
    """A port is a number up to 65535 and a host has no blanks: told at once, not when sending."""
    with pytest.raises(ValueError, match=r"."):
        normal_endpoint(text)


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost", True),
        ("LocalHost", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("128.0.0.1", False),
        ("::2", False),
        ("0.0.0.0", False),  # noqa: S104  # refused, not bound
        ("example.com", False),
        ("127.1", False),
        ("", False),
    ],
)
def test_loopback(host, is_ours):
    """Only names that cannot be anything but this machine count as it."""
    assert is_loopback(host) is is_ours


def test_no_endpoint_is_told_with_what_to_do():
    """A command that needs an endpoint says where it can be given."""
    with pytest.raises(UsageError, match="no endpoint is set") as caught:
        Settings().endpoint()

    assert "--endpoint" in caught.value.hint


# --- Merging -------------------------------------------------------------------------------------


def test_defaults_stand_alone():
    """Without a file and flags everything has its default."""
    assert load_settings(None, {}) == Settings()
    assert Settings().send.concurrency == 32
    assert Settings().send.max_attempts == 6
    assert Settings().manifest.on_invalid == "abort"


def test_workers_are_a_number_or_auto(config):
    """One process sends unless told otherwise; `auto` stays, since rows and pace decide."""
    assert Settings().send.workers is None
    assert load_settings(config("workers: 64"), {}).send.workers == 64
    assert load_settings(config("workers: 2"), {"workers": " 3 "}).send.workers == 3
    assert load_settings(config("workers: auto"), {}).send.workers == "auto"


@pytest.mark.parametrize(
    ("text", "given", "concurrency"),
    [
        pytest.param("", {}, 32, id="default"),
        pytest.param("concurrency: 64", {}, 64, id="file"),
        pytest.param("concurrency: 64", {"concurrency": 128}, 128, id="flag over file"),
        pytest.param("", {"concurrency": 128}, 128, id="flag over default"),
        pytest.param("concurrency: 64", {"concurrency": None}, 64, id="flag not given"),
        pytest.param("rate: 5", {"concurrency": 128}, 128, id="flag beside file"),
    ],
)
def test_flag_comes_before_file_before_default(config, text, given, concurrency):
    """What is given on the command line wins over the file, and the file over the default."""
    assert load_settings(config(text), given).send.concurrency == concurrency


def test_flag_leaves_the_files_other_keys(config):
    """A flag replaces its own key and no other of its part."""
    loaded = load_settings(config("concurrency: 64\nrate: 5\nout: there\n"), {"concurrency": 8})

    assert (loaded.send.concurrency, loaded.send.rate, loaded.out) == (8, 5.0, Path("there"))


def test_mappings_of_columns_are_merged(config):
    """A mapping on the command line adds to the file's, and wins where both name a field."""
    path = config("columns: {machine_code: Device, user_id: Owner}")
    loaded = load_settings(path, {"columns": {"machine_code": "Serial"}})

    assert loaded.manifest.columns == {"machine_code": "Serial", "user_id": "Owner"}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"], ids=repr)
def test_empty_file_sets_nothing(config, text):
    """A settings file of comments is a settings file."""
    assert load_settings(config(text), {}) == Settings()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("concurrency:\n", id="key"),
        pytest.param("auth:\n  # token_file: x\n", id="part"),
        pytest.param("ledger:\n", id="top"),
        pytest.param("columns:\n", id="mapping"),
    ],
)
def test_empty_value_is_not_set(config, text):
    """A key with nothing behind it, as in a file with all lines commented out, sets nothing."""
    assert load_settings(config(text), {}) == Settings()


def test_flag_fills_an_empty_part_of_the_file(config):
    """A part with all lines commented out takes a flag like any other."""
    loaded = load_settings(config("auth:\n  # none\n"), {"auth.token": SECRET})

    assert loaded.auth.token == SecretStr(SECRET)


def test_empty_prefix_means_a_bare_token(config):
    """Where a deployment wants the token alone, an empty prefix in quotes says so."""
    loaded = load_settings(config('auth: {token_prefix: ""}'), {})

    assert loaded.auth.token_prefix == ""


def test_scalars_stay_the_text_that_was_written(config):
    """No value of a file is a number or a truth value before its key says so."""
    path = config(
        "user_id: 0123\ncolumns: {machine_code: no, user_id: 12:34}\n"
        "already_bound_codes: [013, 1e5]\nretryable_codes: [yes]\n"
    )

    assert read_config(path).values["user_id"] == "0123"
    loaded = load_settings(path, {})
    assert loaded.manifest.user_id == "0123"
    assert loaded.manifest.columns == {"machine_code": "no", "user_id": "12:34"}
    assert loaded.api.already_bound_codes == ("013", "1e5")
    assert loaded.api.retryable_codes == ("yes",)


def test_every_part_is_read_from_a_file(config):
    """Values of a file are turned into what their key needs."""
    path = config(
        "endpoint: HTTPS://Host/\npath: /koodrive/x/v1/backup/device\ntimeout: 1m\n"
        "auth: {token_file: /run/token, token_prefix: 'AT '}\n"
        "rate: 2.5\nmax_attempts: 3\ndeadline: 50m\ngrace: 0\nbackoff_base: 100ms\n"
        "readback: off\nreadback_settle: 0\n"
        "on_invalid: skip\nrebind: yes\n"
        "ledger: l.db\n"
    )
    loaded = load_settings(path, {})

    assert loaded.endpoint() == "https://host"
    assert (loaded.api.path, loaded.api.timeout) == ("/koodrive/x/v1/backup/device", 60.0)
    assert (loaded.auth.token_file, loaded.auth.token_prefix) == (Path("/run/token"), "AT ")
    assert (loaded.send.rate, loaded.send.max_attempts) == (2.5, 3)
    assert (loaded.send.deadline, loaded.send.grace, loaded.send.backoff_base) == (3000.0, 0.0, 0.1)
    assert (loaded.doubt.readback, loaded.doubt.readback_settle) == (False, 0.0)
    assert (loaded.manifest.on_invalid, loaded.manifest.rebind) == ("skip", True)
    assert loaded.ledger == Path("l.db")


def test_settings_do_not_change():
    """Settings are frozen, part by part."""
    loaded = Settings()

    with pytest.raises(ValidationError, match="frozen"):
        loaded.send.concurrency = 5


def test_an_unknown_key_that_nearly_means_something_is_guessed(config):
    """A slip of the finger is told with the key that was probably meant."""
    with pytest.raises(UsageError, match="did you mean `concurrency`"):
        load_settings(config("concurency: 5"), {})


def test_an_error_names_the_line_of_its_value(config):
    """Whatever is wrong in a file is told with its line, also inside a part, a list, a mapping."""
    path = config(
        "# one\nrate: 5\nconcurrency: 0\nauth:\n  token_file: [x]\n  tokn_prefix: y\n"
        "columns:\n  machine_code: [x]\nalready_bound_codes:\n  - a\n  - {b: c}\n"
    )
    with pytest.raises(UsageError) as caught:
        load_settings(path, {})

    places = {
        line.split("`")[1]: line.split("line ")[1].split(")")[0]
        for line in str(caught.value).splitlines()
    }
    assert places == {
        "concurrency": "3",
        "auth.token_file": "5",
        "auth.tokn_prefix": "6",
        "columns.machine_code": "8",
        "already_bound_codes.1": "11",
    }
    assert "did you mean `auth.token_prefix`?" in str(caught.value)


def test_where_each_value_came_from(config):
    """Every setting in force is told with its flag, its variable, its line, or as a default."""
    path = config("rate: 5\nauth:\n  token_prefix: x\n\ndeadline: 50m\n")
    given = {"rate": "7", "auth.token": SECRET, "columns": {"machine_code": "Serial"}}
    origins = {"rate": "--rate", "auth.token": "BULKBIND_TOKEN", "columns": "--map"}
    values = {value.key: value for value in load(path, given, origins).values()}

    assert (values["rate"].value, values["rate"].origin) == (7.0, "--rate")
    assert (values["auth.token_prefix"].value, values["auth.token_prefix"].origin) == (
        "x",
        f"{path}, line 3",
    )
    assert (values["deadline"].value, values["deadline"].origin) == ("3000s", f"{path}, line 5")
    assert (values["concurrency"].value, values["concurrency"].origin) == (32, "default")
    assert (values["backoff_base"].value, values["backoff_base"].origin) == ("500ms", "default")
    assert values["columns"].origin == "--map"
    token = values["auth.token"]
    assert (token.value, token.origin, token.is_secret) == ("***", "BULKBIND_TOKEN", True)
    assert SECRET not in repr(values)


@pytest.mark.parametrize("part", ["api", "send", "doubt", "manifest"])
def test_the_parts_are_no_keys(config, part):
    """A settings file is flat: how the model is divided is nobody's business."""
    with pytest.raises(UsageError, match=f"unknown setting `{part}`"):
        load_settings(config(f"{part}: {{concurrency: 5}}"), {})


# --- What is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("colour: red", "colour"),
        ("concurency: 5", "concurency"),
        ("auth: {passphrase: x}", "auth.passphrase"),
    ],
)
def test_unknown_key_is_refused(config, text, key):
    """A key that means nothing is a typing error, and is named with its file."""
    path = config(text)
    with pytest.raises(UsageError) as caught:
        load_settings(path, {})

    assert str(caught.value).startswith(f"unknown setting `{key}` (from {path}, line 1)")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("concurrency", "0", "greater than or equal to 1"),
        ("concurrency", "1001", "less than or equal to 1000"),
        ("concurrency", "many", "valid integer"),
        *(
            ("workers", value, "workers are a number from 1 to 64, or auto")
            for value in ("0", "65", "-1", "1.5", "many", "AUTO", "²", "")
        ),
        ("rate", "0", "greater than 0"),
        ("rate", "nan", "a rate is written"),
        ("rate", "1000000000", "less than or equal to 1000000"),
        ("deadline", "36501d", "a duration is 36500d at most"),
        ("max_attempts", "0", "greater than or equal to 1"),
        ("deadline", "soon", "a duration is written like 90s"),
        ("deadline", "0s", "greater than 0"),
        ("timeout", "-5", "a duration is written like 90s"),
        ("endpoint", "http://example.com", "http:// is for loopback only"),
        ("path", "koodrive/ose", "a path begins with /"),
        ("path", "/koodrive/ose/", "ends with something else"),
        ("path", "/koo drive", "without blanks"),
        ("readback", "perhaps", "valid boolean"),
        ("on_invalid", "ignore", "'abort' or 'skip'"),
    ],
)
def test_wrong_value_is_named_with_key_value_and_origin(config, key, value, words):
    """A wrong value is told with its key, itself, where it came from, and what is allowed."""
    path = config(f"{key}: '{value}'")
    with pytest.raises(UsageError) as from_file:
        load_settings(path, {})
    with pytest.raises(UsageError) as from_flag:
        load_settings(path, {key: value}, {key: "--the-flag"})

    assert str(from_file.value).startswith(f"setting `{key}`: {value!r} (from {path}, line 1): ")
    assert str(from_flag.value).startswith(f"setting `{key}`: {value!r} (from --the-flag): ")
    assert words in str(from_file.value)


def test_every_wrong_key_is_named_at_once(config):
    """Nobody has to try five times: one message has a line for each wrong key."""
    path = config("concurrency: 0\nrate: x\nfoo: 1\n")
    with pytest.raises(UsageError) as caught:
        load_settings(path, {"timeout": "x"}, {"timeout": "BULKBIND_TIMEOUT"})

    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert any("`timeout`" in line and "BULKBIND_TIMEOUT" in line for line in lines)


@pytest.mark.parametrize("text", ["auth: 5", "auth: [token_file]", "columns: x"])
def test_part_that_is_no_mapping_is_refused(config, text):
    """A part in the wrong shape is told like any wrong value."""
    with pytest.raises(UsageError, match=r"setting `(auth|columns)`"):
        load_settings(config(text), {})


def test_part_that_is_no_mapping_is_refused_with_a_flag_in_it(config):
    """A flag for a key of a part that the file spoils is told the same way."""
    with pytest.raises(UsageError, match="auth"):
        load_settings(config("auth: 5"), {"auth.token": SECRET})


@pytest.mark.parametrize("value", [SECRET, f"[{SECRET}]", f"'AT {SECRET}'"])
def test_a_secret_in_the_place_of_auth_is_not_shown(config, value):
    """A token written without its key, as `auth: TOKEN`."""
    with pytest.raises(UsageError, match=r"`auth` .* a mapping of keys") as caught:
        load_settings(config(f"auth: {value}"), {})

    assert SECRET not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("- a\n", "must be a mapping of keys", id="list"),
        pytest.param("text\n", "must be a mapping of keys", id="text"),
        pytest.param("send: {\n", "is not YAML", id="syntax"),
        pytest.param("{[a]: b}\n", "line 1: a key must be a word", id="list as a key"),
        pytest.param(
            "rate: 1\nrate: 2\n", "sets `rate` twice: in line 1 and in line 2", id="key twice"
        ),
        pytest.param(
            "auth:\n  a: 1\n  a: 1\n", "sets `auth.a` twice: in line 2", id="inner key twice"
        ),
        pytest.param("columns: &x {a: *x}\n", "nested too deeply", id="alias inside itself"),
        pytest.param("a: 1\n---\nb: 2\n", "is not YAML", id="two documents"),
        pytest.param(b"a: \xff\n", "cannot be read", id="bytes"),
    ],
)
def test_file_that_is_no_settings_file_is_refused(config, text, message):
    """A file that cannot be read as settings is refused with its path."""
    path = config(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_settings(path, {})

    assert str(path) in str(caught.value)


def test_file_that_is_not_there_is_refused(tmp_path):
    """A settings file that was asked for must be there."""
    with pytest.raises(UsageError, match="cannot be read"):
        load_settings(tmp_path / "none.yaml", {})


# --- Secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [f"auth: {{token: {SECRET}}}", f"auth:\n  token_prefix: x\n  token: '{SECRET}'\n"]
)
def test_token_in_a_file_is_refused(config, text):
    """A secret has no place in a settings file, and is not repeated in the message."""
    with pytest.raises(UsageError, match=r"holds `auth\.token`") as caught:
        load_settings(config(text), {})

    assert SECRET not in str(caught.value) + caught.value.hint
    assert "BULKBIND_TOKEN" in caught.value.hint


def test_token_is_taken_from_outside_the_file():
    """The token comes from the environment and is kept as a secret."""
    loaded = load_settings(None, {"auth.token": SECRET})

    assert loaded.auth.token == SecretStr(SECRET)
    assert SECRET not in repr(loaded)
    assert SECRET not in str(loaded.model_dump())


def test_public_settings_show_no_secret():
    """What a report shows of the settings says that there is a token, and not which."""
    public = load_settings(None, {"auth.token": SECRET, "rate": "5"}).public()

    assert SECRET not in json.dumps(public)
    assert public["auth"]["token"] == "set"
    assert public["rate"] == 5.0
    assert Settings().public()["auth"]["token"] is None


@pytest.mark.parametrize(
    "value", [["a", SECRET], {"secret": SECRET}, 3], ids=["list", "mapping", "number"]
)
def test_wrong_token_is_not_shown(value):
    """Even a token of the wrong shape does not come back in a message."""
    with pytest.raises(UsageError, match=r"setting `auth\.token`") as caught:
        load_settings(None, {"auth.token": value})

    assert SECRET not in str(caught.value)


def test_password_in_an_endpoint_is_not_shown(config):
    """An endpoint that holds a password is refused without repeating it."""
    with pytest.raises(UsageError, match="endpoint") as caught:
        load_settings(config(f"endpoint: 'https://me:{SECRET}@host'"), {})

    assert SECRET not in str(caught.value)


# --- The ledger's place --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("https://Intl.Example.com/", "https-intl.example.com-443.db"),
        ("http://127.0.0.1:8080", "http-127.0.0.1-8080.db"),
        ("http://[::1]:8080", "http-__1-8080.db"),
    ],
)
def test_ledger_is_one_file_per_endpoint(endpoint, name):
    """Every endpoint has a ledger of its own in the user's state folder."""
    loaded = load_settings(None, {"endpoint": endpoint})

    assert loaded.ledger_path({"XDG_STATE_HOME": "/state"}) == Path("/state/bulkbind") / name
    assert loaded.ledger_path({}) == Path.home() / ".local" / "state" / "bulkbind" / name
    assert loaded.ledger_path({"XDG_STATE_HOME": ""}).name == name


def test_ledger_can_be_set():
    """A ledger that is set is used whatever the endpoint, or without any."""
    assert load_settings(None, {"ledger": "my.db"}).ledger_path({}) == Path("my.db")
