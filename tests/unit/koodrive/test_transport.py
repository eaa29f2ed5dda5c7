from __future__ import annotations

import ssl
from base64 import b64encode

import pytest

from bulkbind.errors import UsageError
from bulkbind.koodrive.transport import proxy_for, proxy_secrets, tls_context
from bulkbind.settings import ApiSettings, load_settings

ENDPOINT = "https://intl.example.invalid"
PROXY = "http://proxy.example:3128"


def test_tls_is_verified_and_new_enough():
    """Certificate and host name are checked, and nothing below TLS 1.2 is spoken."""
    context = tls_context(None)

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("text", [None, "", "no certificate"], ids=["missing", "empty", "text"])
def test_a_ca_file_that_cannot_be_used_is_refused(tmp_path, text):
    """The error names the setting and the file."""
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text, encoding="utf-8")

    with pytest.raises(UsageError, match="ca_file") as error:
        tls_context(path)

    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("endpoint", "setting", "environ", "expected"),
    [
        (ENDPOINT, None, {}, None),
        (ENDPOINT, PROXY, {}, PROXY),
        (ENDPOINT, PROXY, {"HTTPS_PROXY": "http://other:1", "NO_PROXY": "*"}, PROXY),
        (ENDPOINT, None, {"HTTPS_PROXY": PROXY}, PROXY),
        (ENDPOINT, None, {"https_proxy": PROXY}, PROXY),
        (ENDPOINT, None, {"ALL_PROXY": PROXY}, PROXY),
        (ENDPOINT, None, {"HTTP_PROXY": PROXY}, None),
        (ENDPOINT, None, {"HTTPS_PROXY": ""}, None),
        (ENDPOINT, None, {"HTTPS_PROXY": PROXY, "NO_PROXY": "example.invalid"}, None),
        (ENDPOINT, None, {"HTTPS_PROXY": PROXY, "no_proxy": "*"}, None),
        (ENDPOINT, None, {"HTTPS_PROXY": PROXY, "NO_PROXY": "elsewhere"}, PROXY),
        (ENDPOINT, None, {"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1"}, PROXY),
        (ENDPOINT, None, {"https_proxy": "", "HTTPS_PROXY": PROXY}, None),
        (ENDPOINT, None, {"HTTPS_PROXY": "no proxy", "NO_PROXY": "example.invalid"}, None),
        (ENDPOINT, None, {"HTTPS_PROXY": PROXY, "ALL_PROXY": "no proxy"}, PROXY),
        (ENDPOINT, None, {"ALL_PROXY": "https://Proxy.example"}, "https://Proxy.example"),
        (ENDPOINT, None, {"ALL_PROXY": " http://[::1]:03128/ "}, "http://[::1]:3128"),
        ("http://127.0.0.1:8765", PROXY, {"HTTP_PROXY": PROXY, "ALL_PROXY": PROXY}, None),
    ],
)
def test_which_proxy_is_asked(endpoint, setting, environ, expected):
    """The setting, else the environment's, but for hosts of NO_PROXY; none for plain http."""
    found = proxy_for(endpoint, ApiSettings(proxy=setting), environ)

    assert (found.url if found else None) == expected
    assert found is None or found.headers is None


@pytest.mark.parametrize(
    "value",
    [
        "http://me:hush@proxy:1",
        "proxy:3128",
        "socks5://proxy:1",
        "http://proxy:1/path",
        "http://proxy:1?hush",
        "http://proxy:1#hush",
        "http://proxy:70000",
        "http://me:hush",
        "http://[::1:3128",
        "",
    ],
)
def test_a_wrong_proxy_is_refused(value):
    """The setting takes http://host:port; a password has no place there and is not repeated."""
    with pytest.raises(UsageError, match="setting `proxy`") as error:
        load_settings(None, {"proxy": value})

    assert "hush" not in str(error.value)


@pytest.mark.parametrize(
    ("login", "sent"),
    [
        ("me:hush", b"me:hush"),
        ("me:p%2Fw%23d%3F%40", b"me:p/w#d?@"),
        ("me:hu@sh", b"me:hu@sh"),
        ("me:hu:sh", b"me:hu:sh"),
        ("me:100%", b"me:100%"),
        ("me:[hush]\\", b"me:[hush]\\"),
        ("me:h\u00fcsh%E2%82%AC\U0001f511", "me:h\u00fcsh\u20ac\U0001f511".encode()),
        ("me:h%FCsh", b"me:h\xfcsh"),
        ("me:h\udcfcsh", b"me:h\xfcsh"),
        ("me", b"me:"),
        ("me:", b"me:"),
        (":hush", b":hush"),
    ],
)
def test_a_proxy_is_sent_its_password_apart_from_its_address(login, sent):
    """It stands in a header alone, as the bytes that were meant, and shows in no text of ours."""
    found = proxy_for(
        ENDPOINT, ApiSettings(), {"HTTPS_PROXY": f"http://{login}@proxy.example:3128"}
    )

    assert found is not None
    assert found.url == PROXY
    assert found.headers == {"Proxy-Authorization": f"Basic {b64encode(sent).decode()}"}
    assert "hush" not in repr(found)
    assert "Basic" not in repr(found)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    "value",
    [
        "http://me:hu/sh@proxy:1",
        "http://me:12/hush@proxy:1",
        "http://me:hu#sh@proxy:1",
        "http://me:hu?sh@proxy:1",
        "me:hush@proxy:1",
        "//me:hush@proxy:1",
        "http:me:hush@proxy:1",
        "proxy:3128",
        "http://me:hush@proxy:port",
        "http://me:hush@proxy:70000",
        "http://me:hush@proxy:0",
        "http://me:hush@proxy:",
        "http://me:hush@:3128",
        "http://me:hush@",
        "http://me:hush@[::1:3128",
        "http://me:hush@::1:3128",
        "http://me:hush@[::hush]:3128",
        "http://me:hush@two words:1",
        "http://me:hush@proxy..example:1",
        "http://me:hush@127.1:3128",
        "http://me:hush@prox\udcfc:1",
        "http://m%3Ae:hush@proxy:1",
        "socks5://me:hush@proxy:1",
    ],
)
def test_an_unreadable_proxy_is_named_by_its_variable_alone(name, value):
    """Nothing of its value is repeated, neither in the text nor in what led to it."""
    with pytest.raises(UsageError, match=rf"\b{name}\b") as error:
        proxy_for(ENDPOINT, ApiSettings(), {name: value})

    shown = str(error.value) + error.value.hint
    for part in ("hush", "hu/sh", "hu#sh", "hu?sh", "me:", value):
        assert part not in shown
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_the_secrets_of_proxies_are_known_in_every_form():
    """As written, as meant and as sent; of proxies that cannot be read as well."""
    environ = {
        "https_proxy": "http://me:hu%2Fsh@proxy:1",
        "ALL_PROXY": "other:sesa/me@proxy:port",
        "NO_PROXY": "example.invalid",
        "HTTP_PROXY": "http://proxy:1",
        "http_proxy": "http://x:y@proxy:1",
    }

    assert proxy_secrets(environ) == {
        "me:hu%2Fsh", "me:hu/sh", "hu%2Fsh", "hu/sh", b64encode(b"me:hu/sh").decode(),
        "other:sesa/me", "sesa/me", b64encode(b"other:sesa/me").decode(),
        b64encode(b"x:y").decode(),
    }  # fmt: skip
