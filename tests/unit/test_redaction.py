"""Secrets are masked however they stand in a text, and nothing else is."""

from __future__ import annotations

import html
import json
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest

from bulkbind.redaction import Redactor, json_text, learn, line, lines, redacted

ODD = [
    "sesame-open-up", "pw/71#f0?a3@x%", "p\u1e8571\u20acf0\U0001f511a3", "has  two blanks",
    'quo"te\\and<tag>&more', "AT 3b91-c0ffee-and-more", "tab\tand\x01bell-71f0", "%2F%23-71f0a3",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3MWYwYTMifQ.c2ln", "ab-" * 70,
]  # fmt: skip


def b64(data):
    """Return bytes as Base64."""
    return b64encode(data).decode().rstrip("=")


def b64_of_urls(data):
    """Return bytes as the Base64 of URLs."""
    return urlsafe_b64encode(data).decode().rstrip("=")


def after(text, *secrets, **options):
    """Return a text with some secrets masked."""
    redactor = Redactor()
    for secret in secrets:
        redactor.learn(secret)
    return redactor.redacted(text, **options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the token sesame-open-up is bad", "the token *** is bad"),
        ("sesame-open-up sesame-open-up", "*** ***"),
        ("xsesame-open-upx", "x***x"),
        ("SESAME-OPEN-UP", "***"),
        ("cut off: sesame-op", "cut off: ***"),
        ("cut off: 'sesame-open-', it was", "cut off: '***', it was"),
        ("the end of it: same-open-up!", "the end of it: ***!"),
        ("sesam", "sesam"),
        ("nothing of it", "nothing of it"),
        ("", ""),
    ],
)
def test_a_secret_is_masked_whole_and_cut(text, expected):
    """In any case, twice, within a word, and cut off; a few letters are no secret."""
    assert after(text, "sesame-open-up", "x") == expected


@pytest.mark.parametrize("secret", ODD, ids=ascii)
def test_a_secret_is_masked_however_it_is_written(secret):
    """As it is, and as URLs, JSON, HTML and a text on one line hold it."""
    forms = {
        secret, " ".join(secret.split()), quote(secret, safe=""), html.escape(secret),
        json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], secret.upper(),
    }  # fmt: skip
    redactor = Redactor()
    redactor.learn(secret)

    for form in forms:
        assert redactor.redacted(f"before {form} behind") == "before *** behind", form


@pytest.mark.parametrize("written", [bytes.hex, b64, b64_of_urls], ids=["hex", "Base64", "URLs"])
def test_a_secret_is_masked_where_it_is_encoded(written):
    """In Base64 and hexadecimal digits, with other things before and behind it, in either case."""
    secret = "sesame-open-up?>~?>~-71f0a3"
    for before in ("", "u", "us", "me:"):
        form = written(f"{before}{secret}:x".encode())

        assert after(f"Basic {form}, not taken", secret) == "Basic ***, not taken"
    assert after(f"id {written(b'another text')}", secret) == f"id {written(b'another text')}"
    assert after(secret.encode().hex().upper(), secret) == "***"


def test_the_longest_of_secrets_that_overlap_is_masked():
    """No part of the longer one is left, whichever was learned first."""
    for secrets in (("sesame", "sesame-open-up"), ("sesame-open-up", "sesame")):
        assert after("x sesame-open-up y", *secrets) == "x *** y"


def test_a_short_secret_is_a_word_of_its_own():
    """Five characters may be part of any word; three are never searched for."""
    assert after("open opening reopen. open!", "open", "the") == "*** opening reopen. ***!"
    assert (
        after("in ids, 1842open2812 stays", "opens1", shortest=12) == "in ids, 1842open2812 stays"
    )


def test_ten_thousand_secrets_cost_no_more_than_one():
    """The tokens of a fleet's users are all looked for, one by one learned."""
    redactor = Redactor()
    for number in range(10_000):
        redactor.learn(f"{number:05}-token-{number * 7919:032x}")

    shown = redactor.redacted(f"refused: 07777-token-{7777 * 7919:032x}; 07777 is no secret")

    assert shown == "refused: ***; 07777 is no secret"


HOSTILE = "a\nb\x1b[2J\x9b\u202eC\u2066\u200b\u2028\ufeff\x7f\udcff\U000e0041"


def test_a_secret_is_masked_in_what_was_seen_before_it_was_known():
    """Each text is looked through once for all secrets there are, and anew for one more."""
    words = "the token is sesame-open-up"
    learn("another-secret")
    before = redacted(words), redacted(words)
    learn("sesame-open-up")

    assert before == (words, words)
    assert redacted(words) == "the token is ***"
    assert redacted("open-up", shortest=12) == "open-up"


def test_what_is_fit_to_be_shown_does_not_make_other_text_so():
    """Text from outside that reads the same as lines of ours is remembered apart."""
    learn("sesame-open-up")
    shown = redacted(lines(["one", "other"]))
    same = redacted("one\nother")

    assert isinstance(shown, str)
    assert type(same) is str
    assert line(same) == "one\\nother"


def test_a_line_is_one_line_and_steers_nothing():
    """Control, bidi and zero-width characters are escaped; what a person reads stands as it is."""
    learn("sesame-open-up")

    shown = line(f"{HOSTILE} sesame-open-up fl\u00fcr \u5f20\u4e09")

    assert shown.isprintable()
    assert shown.startswith("a\\nb\\x1b[2J\\x9b\\u202eC")
    assert shown.endswith(" *** fl\u00fcr \u5f20\u4e09")
    assert lines(["one\ntwo", "three"]) == "one\\ntwo\nthree"


def test_json_is_the_same_value_and_steers_nothing():
    """Whoever reads the JSON gets the text as it was."""
    value = {"name": HOSTILE, "plain": "fl\u00fcr", "list": [HOSTILE]}

    shown = json_text(value)

    assert shown.replace("\n", "").isprintable()
    assert '"plain": "fl\u00fcr"' in shown
    assert json.loads(shown) == value
