"""Options: refused where they are given, with a text that says what would work."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from aggstream import Client, ConfigurationError, ReconnectPolicy
from aggstream._base.checks import check_count, check_seconds, is_loopback
from aggstream._base.secret import Secret
from aggstream._base.service_checks import (
    DEFAULT_URL,
    check_app_id,
    check_auth,
    check_headers,
    check_origin,
    check_url,
    setting,
)
from aggstream._protocol.options import SessionOptions
from aggstream._stream.options import Options

TOKEN = "eyJ.a+b/c=&d.sig"


def options(*, token_in_query: bool = False, **changes: Any) -> Options:
    given: dict[str, Any] = {
        "app_id": "app_demo123",
        "origin": "https://app.example",
        "url": None,
        "allow_insecure": False,
        "headers": None,
        "ssl_context": None,
        "reconnect": ReconnectPolicy(),
        "session": SessionOptions(token_in_query=token_in_query),
        "name": "aggstream",
    }
    return Options(**{**given, **changes})


def checked_url(url: Any, *, allow_insecure: bool = False) -> str:
    return check_url(url, "url", plain="ws", secure="wss", allow_insecure=allow_insecure)


# --- the environment ------------------------------------------------------------------------------------


def test_what_the_program_gives_counts_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGGSTREAM_APP_ID", "from-environment")
    assert setting("given", "app_id") == "given"
    assert setting(None, "app_id") == "from-environment"
    assert setting(None, "app_id", default="default") == "from-environment"


def test_an_empty_variable_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGGSTREAM_URL", "")
    assert setting(None, "url", default="wss://default") == "wss://default"


@pytest.mark.parametrize("name", ["app_id", "origin", "token"])
def test_a_missing_option_says_both_ways_to_give_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"AGGSTREAM_{name.upper()}"
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigurationError, match=f"pass {name}=.* or set {variable}"):
        setting(None, name)


# --- the app id and the origin --------------------------------------------------------------------------


@pytest.mark.parametrize("app_id", ["", "  ", "\n", None, 5, b"app"])
def test_an_app_id_is_a_text_that_is_not_empty(app_id: Any) -> None:
    with pytest.raises(ConfigurationError, match="app_id"):
        check_app_id(app_id)


@pytest.mark.parametrize("app_id", ["app\r\nX-Evil: 1", "app\n", "app\x00"])
def test_an_app_id_that_cannot_stand_in_a_header_is_refused(app_id: str) -> None:
    """It goes into the header `x-app-id` of the REST calls."""
    with pytest.raises(ConfigurationError, match="app_id"):
        check_app_id(app_id)


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example",
        "http://localhost:3000",
        "https://app.example:8443",
        "https://127.0.0.1",
        "https://[::1]:8080",
        "https://my-app_1.example",
    ],
)
def test_origins_that_are_taken(origin: str) -> None:
    assert check_origin(origin) == origin


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "app.example",
        "https://",
        "https://app.example/",
        "https://app.example/path",
        "https://app.example?query",
        "https://user@app.example",
        "ftp://app.example",
        "wss://app.example",
        "https://app.example\r\nX-Evil: 1",
        "https://app.example\n",
        "https://app.example:port",
        "https://app .example",
        "https://\u00e4pp.example",
        "*",
        "null",
        None,
        5,
        b"https://app.example",
    ],
    ids=ascii,
)
def test_an_origin_is_a_scheme_and_a_host_and_nothing_else(origin: Any) -> None:
    with pytest.raises(ConfigurationError, match="https://host") as caught:
        check_origin(origin)
    assert str(caught.value).isprintable()


# --- the URL --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        DEFAULT_URL,
        "wss://host",
        "wss://host:8443/ws?region=eu",
        "ws://localhost:8080/ws",
        "ws://app.localhost/ws",
        "ws://127.0.0.1",
        "ws://127.1.2.3:1",
        "ws://[::1]:8080",
    ],
)
def test_urls_that_are_taken(url: str) -> None:
    assert checked_url(url) == url


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "wss://"),
        ("host", "wss://"),
        ("https://host", "wss://"),
        ("wss://", "host"),
        ("wss:///path", "host"),
        ("wss://host:port/", "not a URL"),
        ("wss://host:99999/", "not a URL"),
        ("wss://[::1/", "not a URL"),
        ("wss://h\u00f6st/", "ASCII"),
        ("wss://host/a b", "spaces"),
        ("wss://host/\r\nX-Evil: 1", "spaces"),
        ("wss://host/\n", "spaces"),
        (None, "ASCII"),
        (b"wss://host", "ASCII"),
        ("wss://user@host/", "token="),
        ("wss://user:secret@host/", "token="),
        ("wss://:secret@host/", "token="),
        ("wss://host/?token=secret", "token="),
        ("wss://host/?a=1&appId=app", "app_id="),
        ("ws://host/", "allow_insecure"),
        ("ws://localhost.example/", "allow_insecure"),
        ("ws://127.0.0.1.example/", "allow_insecure"),
        ("ws://192.168.0.1/", "allow_insecure"),
        ("ws://0.0.0.0/", "allow_insecure"),
    ],
)
def test_a_url_that_is_refused_says_what_would_work(url: Any, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        checked_url(url)
    assert "url" in str(caught.value)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["wss://host/?token=", "wss://host/?appId", "wss://host/?a=1&token"])
def test_a_url_with_an_empty_token_or_app_id_is_refused_as_well(url: str) -> None:
    """The service would see two of them."""
    with pytest.raises(ConfigurationError):
        checked_url(url)


@pytest.mark.parametrize(
    "url", ["\x00wss://host/", "wss://host/\x00", "wss://ho\x01st/", "wss://host/\x7f"], ids=ascii
)
def test_a_url_with_control_characters_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        checked_url(url)


def test_another_machine_without_tls_is_taken_only_if_it_is_allowed() -> None:
    assert checked_url("ws://host/", allow_insecure=True) == "ws://host/"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("notlocalhost", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("10.0.0.1", False),
        ("::", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


# --- the URL that is connected to -----------------------------------------------------------------------


def test_the_app_id_is_in_the_query_and_the_token_is_not() -> None:
    url = options(url=DEFAULT_URL).connect_url(Secret(TOKEN)).reveal()
    assert url == f"{DEFAULT_URL}?appId=app_demo123"


def test_the_token_is_in_the_query_if_that_was_asked_for() -> None:
    url = options(url=DEFAULT_URL, token_in_query=True).connect_url(Secret(TOKEN)).reveal()
    assert parse_qsl(urlsplit(url).query) == [("appId", "app_demo123"), ("token", TOKEN)]


@pytest.mark.parametrize("app_id", ["a&token=x", "a b", "a#b", "a%26", "\u00e4", "a=b?c"], ids=ascii)
def test_the_app_id_is_encoded(app_id: str) -> None:
    url = options(app_id=app_id).connect_url(Secret(TOKEN)).reveal()
    assert url.isascii()
    assert url.isprintable()
    assert " " not in url
    assert parse_qsl(urlsplit(url).query) == [("appId", app_id)]


def test_what_the_url_says_already_is_kept_and_a_fragment_is_not() -> None:
    url = options(url="wss://host:8443/ws?region=eu&empty=&x=a%20b#fragment").connect_url(Secret(TOKEN)).reveal()
    parts = urlsplit(url)
    assert (parts.netloc, parts.path, parts.fragment) == ("host:8443", "/ws", "")
    assert parse_qsl(parts.query, keep_blank_values=True) == [
        ("region", "eu"),
        ("empty", ""),
        ("x", "a b"),
        ("appId", "app_demo123"),
    ]


# --- headers --------------------------------------------------------------------------------------------


def test_headers_that_are_taken() -> None:
    headers = {"User-Agent": "mine/1", "x-trace": "a\tb", "x-empty": ""}
    assert {name: value.reveal() for name, value in check_headers(headers).items()} == headers
    assert check_headers(None) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "a"),
        ("a b", "a"),
        ("a:", "a"),
        ("a\r\n", "a"),
        ("\u00e4", "a"),
        (5, "a"),
        ("x-a", "a\r\nX-Evil: 1"),
        ("x-a", "a\n"),
        ("x-a", "\x00"),
        ("x-a", "\u00e4"),
        ("x-a", 5),
        ("x-a", None),
        ("Origin", "https://app.example"),
        ("HOST", "host"),
        ("cookie", "a=b"),
        ("Authorization", "Bearer secret"),
        ("Upgrade", "websocket"),
        ("Connection", "close"),
        ("Sec-WebSocket-Key", "a"),
        ("sec-websocket-protocol", "a"),
    ],
    ids=ascii,
)
def test_headers_that_break_the_handshake_or_have_an_option_are_refused(name: Any, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="headers: ") as caught:
        check_headers({name: value})
    assert "secret" not in str(caught.value)
    assert str(caught.value).isprintable()


# --- all together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"app_id": ""}, "app_id"),
        ({"origin": "app.example"}, "origin"),
        ({"url": "ws://host/"}, "url"),
        ({"headers": {"Origin": "x"}}, "origin="),
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"token_timeout": None}, "token_timeout"),
        ({"queue_size": 1.5}, "queue_size"),
        ({"workers": 0}, "workers"),
    ],
    ids=repr,
)
def test_an_option_that_cannot_work_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        options(**changes)


@pytest.mark.parametrize(
    "name", ["greeting_timeout", "auth_timeout", "ping_interval", "pong_timeout", "idle_timeout", "close_timeout"]
)
@pytest.mark.parametrize("value", [0, -1.0, "5", math.nan])
def test_a_time_of_the_session_that_cannot_work_is_named(name: str, value: Any) -> None:
    changes: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=f"{name} must be a number of seconds above 0"):
        SessionOptions(**changes)


def test_only_the_proof_of_life_can_be_turned_off() -> None:
    assert SessionOptions(idle_timeout=None).idle_timeout is None


def test_what_is_not_given_comes_from_the_environment_and_is_checked_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGGSTREAM_APP_ID", "app_env")
    monkeypatch.setenv("AGGSTREAM_ORIGIN", "https://env.example")
    monkeypatch.setenv("AGGSTREAM_URL", "ws://127.0.0.1:1/ws")
    found = options(app_id=None, origin=None, url=None)
    assert (found.app_id, found.origin, found.url) == ("app_env", "https://env.example", "ws://127.0.0.1:1/ws")
    monkeypatch.setenv("AGGSTREAM_URL", "ws://host/")
    with pytest.raises(ConfigurationError, match="allow_insecure"):
        options(url=None)


def test_the_public_service_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGGSTREAM_URL", raising=False)
    assert options().url == DEFAULT_URL == "wss://ws.agg.market/ws"


# --- numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 0.5, 1e-9, 86400])
def test_seconds_that_are_taken(value: float) -> None:
    assert check_seconds(value, "auth_timeout") == value


@pytest.mark.parametrize(
    "value", [0, -1, -0.5, math.nan, math.inf, True, "1", None, 1j, 10**400], ids=lambda v: repr(v)[:9]
)
def test_seconds_are_finite_and_above_zero(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="auth_timeout must be a number of seconds above 0"):
        check_seconds(value, "auth_timeout")


@pytest.mark.parametrize("value", [0, -1, 1.0, 1.5, True, "1", None])
def test_a_count_is_a_whole_number_that_is_large_enough(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="workers must be a whole number, 1 or more"):
        check_count(value, "workers")


def test_counts_that_are_taken() -> None:
    assert check_count(1, "workers") == 1
    assert check_count(5, "workers", at_least=5) == 5


def test_auth_is_one_of_two_words() -> None:
    assert check_auth("message") == "message"
    assert check_auth("query") == "query"
    for wrong in ("", "Message", None, True, "header"):
        with pytest.raises(ConfigurationError, match='"message" or "query"'):
            check_auth(wrong)


def test_an_empty_variable_for_the_rest_api_is_like_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGGSTREAM_REST_URL", "")
    for url in (None, "ws://127.0.0.1:1/ws"):
        Client(app_id="a", origin="https://app.example", token="t", url=url)
