"""The vectors were worked by hand, with `printf … | openssl dgst -sha256 [-hmac SECRET] -hex`."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import given, strategies as st

from bulkbind.koodrive.auth.credential import (
    authorization,
    canonical_query,
    canonical_request,
    canonical_uri,
    sign,
    string_to_sign,
)
from bulkbind.sandbox.auth_checks import check_signature

PATH = "/koodrive/ose/v1/backup/device"
HEADERS = {
    "host": "intl.myhuaweicloud-koodrive.com",
    "X-Date": "20251103T070140Z",
    "X-User-Id": "user_1",
}

BIND = (
    ("POST", PATH, "", HEADERS, b'{"machineCode":"SN_1","deviceName":"Van 1"}'),
    "app-secret-0001",
    (
        "POST\n"
        "/koodrive/ose/v1/backup/device/\n"
        "\n"
        "host:intl.myhuaweicloud-koodrive.com\n"
        "x-date:20251103T070140Z\n"
        "x-user-id:user_1\n"
        "\n"
        "host;x-date;x-user-id\n"
        "ce12c81ae6bf1c35b2e76b2ec9c67882eabd81b4010348493b2b1ef121376c07"
    ),
    "HMAC-SHA256\n628b2bbdd7febee66b07632f771b10e1f672cd40ab32a31787ed63d69689572f",
    "503d3063505774d82811aac68399b420f87d1198c6b631d7658088809b9744a8",
)
LIST = (
    (
        "GET",
        "/koodrive/./x/../my%20service/%c3%a9/device",
        "name%20x=%2f~&b=2&a=&b=1",
        {
            "X-User-Id": "  !user~ ",
            "X-Date": "20260229T235959Z",
            "Host": "127.0.0.1:8765",
        },
        b"",
    ),
    "šecret with blanks",
    (
        "GET\n"
        "/koodrive/my%20service/%C3%A9/device/\n"
        "a=&b=1&b=2&name%20x=%2F~\n"
        "host:127.0.0.1:8765\n"
        "x-date:20260229T235959Z\n"
        "x-user-id:!user~\n"
        "\n"
        "host;x-date;x-user-id\n"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    ),
    "HMAC-SHA256\n0517b146935bbf2852e953ab2d25a46db7b5040cfdc6c82e0307d82dbd2054cc",
    "c237daf9676f0d7079734fe3bd8779b9cbe15e61b5f78ca30ad820a4f15404e4",
)
UNBIND = (
    ("DELETE", f"{PATH}/1842812272691451648/", "", HEADERS, b""),
    "app-secret-0001",
    (
        "DELETE\n"
        "/koodrive/ose/v1/backup/device/1842812272691451648/\n"
        "\n"
        "host:intl.myhuaweicloud-koodrive.com\n"
        "x-date:20251103T070140Z\n"
        "x-user-id:user_1\n"
        "\n"
        "host;x-date;x-user-id\n"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    ),
    "HMAC-SHA256\n27ca7f3efe884183bb6448f180148b686e23a1bceeec2a85e1e3116c2efb0703",
    "ca6d1f8c1e471e8006c3a51c5c7b08c10e98029d4a762ba2f57056e412ef9ac3",
)


@pytest.mark.parametrize(
    ("request_", "secret", "canonical", "to_sign", "signature"),
    [BIND, LIST, UNBIND],
    ids=["bind", "list", "unbind"],
)
def test_the_vectors(request_, secret, canonical, to_sign, signature):
    """Canonical request, string to sign, signature and header are those worked by hand."""
    found, names = canonical_request(*request_)

    assert found == canonical
    assert names == "host;x-date;x-user-id"
    assert string_to_sign(canonical) == to_sign
    assert sign(secret, to_sign) == signature
    assert authorization("app1", secret, canonical, names) == (
        f"HMAC-SHA256 AppId=app1,SignedHeaders=host;x-date;x-user-id,Signature={signature}"
    )


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/", "/"),
        ("/a", "/a/"),
        ("/a/", "/a/"),
        ("/a//b", "/a//b/"),
        ("/a/../b", "/b/"),
        ("/../a", "/a/"),
        ("/%7Ea%2fb", "/~a%2Fb/"),
        ("/a+b", "/a%2Bb/"),
    ],
)
def test_a_path_is_normalised(path, canonical):
    """Dot segments go, what is unreserved is plain, the rest is encoded; it ends with a slash."""
    assert canonical_uri(path) == canonical


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        ("", ""),
        ("a", "a="),
        ("b=1&a=2", "a=2&b=1"),
        ("a-=1&a=2", "a=2&a-=1"),
        ("B=1&a=1", "B=1&a=1"),
    ],
)
def test_a_query_is_sorted_by_name(query, canonical):
    """Pairs stand in code order of their names, and an empty value keeps its sign."""
    assert canonical_query(query) == canonical


SEGMENTS = st.lists(st.text(max_size=8), max_size=5).map(
    lambda parts: "/" + "/".join(quote(part, safe="") for part in parts if part not in (".", ".."))
)
QUERIES = st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6)), max_size=5).map(
    lambda pairs: "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs
    )
)
VALUES = st.from_regex(r"[ \t]*[!-~]{1,20}[ \t]*", fullmatch=True)


@pytest.mark.slow
@given(
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    path=SEGMENTS,
    query=QUERIES,
    user=VALUES,
    host=VALUES,
    body=st.binary(max_size=64),
)
def test_any_request_is_taken_by_the_sandboxs_own_code(*, method, path, query, user, host, body):
    """Whatever path, query, spacing and body: the signature is what the other side works out."""
    headers = {"Host": host, "X-User-Id": user, "X-Date": "20251103T070140Z"}
    canonical, names = canonical_request(method, path, query, headers, body)
    came = {name.lower(): value for name, value in headers.items()}
    came["Authorization"] = authorization("app1", "s3cret", canonical, names)
    target = f"{path}?{query}" if query else path

    assert check_signature(method, target, came, body, {"app1": "s3cret"}) is None
    assert check_signature(method, target, came, body + b"x", {"app1": "s3cret"})
    assert check_signature(method, target, came, body, {"app1": "another"})


@given(path=SEGMENTS, query=QUERIES)
def test_the_canonical_form_is_its_own(path, query):
    """Normalising twice is normalising once, and nothing but the allowed characters is left."""
    once = canonical_uri(path), canonical_query(query)

    assert (canonical_uri(once[0]), canonical_query(once[1])) == once
    assert re.fullmatch(r"[A-Za-z0-9\-_.~%/]+", once[0])
    assert re.fullmatch(r"[A-Za-z0-9\-_.~%&=]*", once[1])
