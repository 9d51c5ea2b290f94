"""The app's key: it goes to REST alone, is never shown, and its refusal says nothing of the user's session."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from clients import MakeClient
from other_server import Peer, ServeFunction
from waiting import DEADLINE, Until

import aggstream
from aggstream.simulator import Simulator

KEY = "agg_app_demo123_" + "ab" * 32
USER = "usr_1"


@pytest.fixture
def agg() -> Iterator[Simulator]:
    with Simulator(api_key=KEY) as simulator:
        yield simulator


def rest_of(agg: Simulator, **options: Any) -> aggstream.RestClient:
    token = agg.sign_in(USER).access_token
    return aggstream.RestClient(app_id=agg.app_id, token=token, rest_url=agg.rest_url, **options)


def refreshing(agg: Simulator, **options: Any) -> aggstream.RefreshingToken:
    return aggstream.RefreshingToken(
        agg.sign_in(USER).refresh_token, app_id=agg.app_id, rest_url=agg.rest_url, **options
    )


@pytest.mark.parametrize("how", ["argument", "variable", "headers"])
def test_with_the_key_every_call_is_answered(
    agg: Simulator, client_of: MakeClient, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"api_key": KEY} if how == "argument" else {}
    header = {"X-App-Api-Key": KEY} if how == "headers" else {}
    if how == "variable":
        monkeypatch.setenv("AGGSTREAM_API_KEY", KEY)
    options = aggstream.RestOptions(attempts=1, headers=header)
    with rest_of(agg, options=options, **given) as rest:
        assert rest.balances().cash is not None
    provider = refreshing(agg, headers=header, **given)
    client = client_of(agg.url, token=provider, rest_url=agg.rest_url, rest=options, **given)
    with client:
        client.wait_until_caught_up(DEADLINE)


@pytest.mark.parametrize(("key", "status"), [(None, 401), ("agg_another_key", 403)])
def test_a_refused_key_is_no_word_about_the_users_session(
    agg: Simulator, client_of: MakeClient, until: Until, key: str | None, status: int
) -> None:
    asked: list[str | None] = []

    class Provider:
        def get_token(self, *, stale: str | None = None) -> str:
            asked.append(stale)
            return agg.sign_in(USER).access_token

    rest = aggstream.RestClient(app_id=agg.app_id, token=Provider(), rest_url=agg.rest_url, api_key=key)
    with rest, pytest.raises(aggstream.RestError, match="api_key") as caught:
        rest.balances()
    assert caught.value.status == status
    assert not isinstance(caught.value, aggstream.AuthenticationError)
    assert "sign in" not in str(caught.value)
    assert asked == [None]  # no other token was asked for
    with pytest.raises(aggstream.AuthenticationRejected) as refused:
        refreshing(agg, api_key=key).get_token()
    if status == 401:
        assert "look at api_key" in str(refused.value)
        assert "session is over" not in str(refused.value)
    client = client_of(agg.url, token=Provider(), rest_url=agg.rest_url, api_key=key)
    with client:
        until(lambda: any("api_key" in problem for problem in client.health().problems))
        assert client.health().phase == "live"


def test_a_401_about_the_token_is_still_that() -> None:
    with (
        Simulator() as agg,
        aggstream.RestClient(app_id=agg.app_id, token="no-such-token", rest_url=agg.rest_url, api_key=KEY) as rest,
        pytest.raises(aggstream.AuthenticationRejected, match="there is no other token"),
    ):
        rest.balances()


def test_it_is_never_sent_on_the_websocket(other_server: ServeFunction, client_of: MakeClient) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.wait_closed()

    server = other_server(script)
    with client_of(server.url, api_key=KEY, rest_url="http://localhost:9") as client:
        client.wait_until_live(DEADLINE)
    [(path, headers)] = server.requests
    assert KEY not in path + repr(headers)


@pytest.mark.parametrize("name", ["x-app-api-key", "X-App-API-Key"])
def test_given_twice_it_is_a_mistake(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"app_id": "a", "rest_url": "http://localhost:9"}
    headers = {name: KEY}
    makers: list[Any] = [
        lambda **key: aggstream.RestClient(
            token="t", options=aggstream.RestOptions(headers=headers), **settings, **key
        ),
        lambda **key: aggstream.RefreshingToken("refresh-token", headers=headers, **settings, **key),
        lambda **key: aggstream.Client(
            token="t",
            origin="http://localhost",
            url="ws://localhost:9/ws",
            rest=aggstream.RestOptions(headers=headers),
            **settings,
            **key,
        ),
    ]
    for make in makers:
        make()
        with pytest.raises(aggstream.ConfigurationError, match="given twice") as caught:
            make(api_key=KEY)
        assert KEY not in str(caught.value)
    monkeypatch.setenv("AGGSTREAM_API_KEY", KEY)
    for make in makers:
        with pytest.raises(aggstream.ConfigurationError, match="AGGSTREAM_API_KEY"):
            make()


def test_in_the_headers_of_the_websocket_it_is_refused() -> None:
    with pytest.raises(aggstream.ConfigurationError, match="api_key=") as caught:
        aggstream.Client(
            app_id="a",
            origin="http://localhost",
            token="t",
            url="ws://localhost:9/ws",
            headers={"x-app-api-key": KEY},
        )
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ключ", 7, b"bytes"])
def test_what_cannot_stand_in_a_header_is_refused_and_not_shown(key: Any) -> None:
    with pytest.raises(aggstream.ConfigurationError, match="api_key must be") as caught:
        aggstream.RestClient(app_id="a", token="t", rest_url="http://localhost:9", api_key=key)
    assert not key or str(key) not in str(caught.value)


def test_it_shows_nowhere(agg: Simulator, client_of: MakeClient) -> None:
    client = client_of(agg.url, api_key=KEY, rest_url=agg.rest_url)
    with rest_of(agg, api_key=KEY) as rest:
        for shown in (client, rest, refreshing(agg, api_key=KEY), client._options):
            assert KEY not in repr(shown)
            with pytest.raises(Exception) as caught:  # noqa: PT011  (each says it in its own words)
                pickle.dumps(shown)
            assert KEY not in str(caught.value)
