from __future__ import annotations

import ssl

import pytest

from bulkbind.errors import UsageError
from bulkbind.koodrive.transport import proxy_for, tls_context
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
        ("http://127.0.0.1:8765", PROXY, {"HTTP_PROXY": PROXY, "ALL_PROXY": PROXY}, None),
    ],
)
def test_which_proxy_is_asked(endpoint, setting, environ, expected):
    """The setting, else the environment's, but for hosts of NO_PROXY; none for plain http."""
    assert proxy_for(endpoint, ApiSettings(proxy=setting), environ) == expected


@pytest.mark.parametrize(
    "value", ["http://me:hush@proxy:1", "proxy:3128", "socks5://proxy:1", "http://proxy:1/path", ""]
)
def test_a_wrong_proxy_is_refused(value):
    """The setting takes http://host:port; a password has no place there and is not repeated."""
    with pytest.raises(UsageError, match="setting `proxy`") as error:
        load_settings(None, {"proxy": value})

    assert "hush" not in str(error.value)
