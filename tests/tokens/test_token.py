"""Tokens: what their end hints at, and that they show themselves nowhere."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import json
import pickle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggstream._base.secret import MASK, Secret
from aggstream._protocol.commands import Authenticate
from aggstream.tokens._token import Token, expiry

TOKEN = "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def jwt(payload: str | bytes) -> str:
    data = payload if isinstance(payload, bytes) else payload.encode()
    return f"{encoded(b'{}')}.{encoded(data)}.{encoded(b'signature')}"


# --- exp ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "seconds"),
    [
        ("1710000000", 1710000000.0),
        ("1710000000.5", 1710000000.5),
        ("1.71e9", 1710000000.0),
        ("0", 0.0),
        ("253402300799", 253402300799.0),
    ],
)
def test_exp_is_read(claim: str, seconds: float) -> None:
    assert expiry(jwt(f'{{"exp": {claim}}}')) == seconds


@pytest.mark.parametrize("padding", range(4))
def test_exp_is_read_whatever_padding_the_payload_would_have(padding: int) -> None:
    assert expiry(jwt(json.dumps({"exp": 5, "x": "x" * padding}))) == 5.0


def test_exp_is_read_with_letters_that_only_the_url_alphabet_has() -> None:
    payload = json.dumps({"exp": 5, "x": "\u00ff\u00fe?>"}, ensure_ascii=False)
    assert expiry(jwt(payload)) == 5.0


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "no-dots",
        "a.b",
        "a.!!!.c",
        "a.\u00e4.c",
        "a.\ud800.c",
        "a.A.c",
        jwt("not json"),
        jwt(b"\xff\xfe"),
        jwt("[]"),
        jwt('"exp"'),
        jwt("null"),
        jwt("5"),
        jwt("{}"),
        jwt("[" * 100_000),
        *(
            jwt(f'{{"exp": {claim}}}')
            for claim in (
                "null",
                "true",
                "false",
                '"1710000000"',
                "[]",
                "{}",
                "NaN",
                "Infinity",
                "-Infinity",
                "1e400",
                "1e300",
                "-1",
                "253402300800",
                "9" * 400,
                "9" * 5000,
            )
        ),
    ],
    ids=lambda token: ascii(token)[:30],
)
def test_an_end_that_makes_no_sense_is_unknown(token: str) -> None:
    assert expiry(token) is None
    assert Token.of(token).expires_at is None


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text() | st.binary().map(jwt) | st.text('{}[]"exp:,0123456789.eE-+ntrufalsNI').map(jwt))
def test_any_text_has_an_end_that_is_a_date_or_none(text: str) -> None:
    token = Token.of(text)
    assert (token.expires is None) == (token.expires_at is None)


def test_the_end_is_an_aware_datetime() -> None:
    assert Token.of(jwt('{"exp": 1710000000}')).expires_at == dt.datetime(
        2024, 3, 9, 16, 0, tzinfo=dt.timezone.utc
    )
    assert Token.of(jwt('{"exp": 253402300799}')).expires_at == dt.datetime(
        9999, 12, 31, 23, 59, 59, tzinfo=dt.timezone.utc
    )


# --- the time of the refresh ----------------------------------------------------------------------------


def test_without_an_end_there_is_no_refresh() -> None:
    assert Token.of("opaque").refresh_in(1e9, 0.5) is None


@pytest.mark.parametrize("left", [0.4, 0.0, -1.0, -1e9])
def test_when_it_is_too_late_there_is_no_early_refresh(left: float) -> None:
    assert Token(Secret(TOKEN), 1e9 + left).refresh_in(1e9, 0.5) is None


@pytest.mark.parametrize(
    ("left", "jitter", "expected"),
    [(3600.0, 1.0, 3540.0), (3600.0, 0.0, 3570.0), (100.0, 1.0, 70.0), (100.0, 0.0, 85.0), (1.0, 1.0, 0.7)],
)
def test_the_refresh_comes_at_most_a_minute_or_a_third_of_the_rest_early(
    left: float, jitter: float, expected: float
) -> None:
    assert Token(Secret(TOKEN), 1e9 + left).refresh_in(1e9, jitter) == pytest.approx(expected, abs=1e-3)


@given(st.floats(0.5, 1e8), st.floats(0, 1))
def test_the_refresh_always_comes_before_the_end_and_never_in_the_past(left: float, jitter: float) -> None:
    pause = Token(Secret(TOKEN), left).refresh_in(0.0, jitter)
    assert pause is not None
    assert 0 < pause < left


# --- nothing shows the token ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shown",
    [
        repr(Secret(TOKEN)),
        str(Secret(TOKEN)),
        f"{Secret(TOKEN)}",
        f"{Secret(TOKEN):>60}",
        f"{Secret(TOKEN)!r:>60}",
        "%s" % Secret(TOKEN),  # noqa: UP031
        "{:.5}".format(Secret(TOKEN)),  # noqa: UP032
        repr([Secret(TOKEN)]),
        repr(Token.of(TOKEN)),
        str(Token.of(TOKEN)),
        repr(Authenticate(Secret(TOKEN))),
    ],
)
def test_no_way_of_showing_a_secret_shows_it(shown: str) -> None:
    assert TOKEN[:10] not in shown
    assert MASK in shown


@pytest.mark.parametrize("thing", [Secret(TOKEN), Token.of(TOKEN), Authenticate(Secret(TOKEN))], ids=repr)
@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_a_secret_and_what_holds_one_refuse_to_be_pickled(thing: Any, protocol: int) -> None:
    with pytest.raises(TypeError, match="not pickled") as caught:
        pickle.dumps(thing, protocol)
    assert TOKEN not in str(caught.value)


def test_a_secret_is_not_copied_by_way_of_pickling() -> None:
    with pytest.raises(TypeError):
        copy.deepcopy(Secret(TOKEN))


def test_a_secret_reveals_itself_when_asked() -> None:
    assert Secret(TOKEN).reveal() == TOKEN


def test_secrets_are_equal_by_their_text_and_to_nothing_else() -> None:
    assert Secret(TOKEN) == Secret(TOKEN)
    assert hash(Secret(TOKEN)) == hash(Secret(TOKEN))
    assert Secret(TOKEN) != Secret("other")
    assert Secret(TOKEN) != TOKEN


def test_a_foreign_text_is_masked_wherever_it_holds_the_secret() -> None:
    assert Secret(TOKEN).redact(f"{TOKEN} and {TOKEN}!") == "*** and ***!"
    assert Secret(TOKEN).redact("nothing") == "nothing"
    assert Secret("").redact("nothing") == "nothing"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("bad 'abcdefghijkl...'", "bad '***...'"),
        ("abcdefghijk", "abcdefghijk"),
        ("abcdefghijklmn/op", "***"),
        ("abcdefghijklmn\\/op", "***"),
        ("abcdefghijklmn\\/opq\\/rstuvw", "***"),
        ("abcdefghijklmn/opq/rstuvwxyz, abcdefghijklX", "***xyz, ***X"),
        ("abcdefghijklabcdefghijklmn/opq/rstuvw", "******"),
    ],
)
def test_a_secret_that_is_cut_short_is_masked_as_well(text: str, masked: str) -> None:
    assert Secret("abcdefghijklmn/opq/rstuvw").redact(text) == masked


def test_a_very_short_secret_is_not_searched_for() -> None:
    assert Secret("abc").redact("abcdef") == "abcdef"
