"""The configuration: what may be set, and what is said of what may not."""

from __future__ import annotations

import os
import pathlib
from pathlib import Path
from typing import Any

import pytest
from desk import stream
from flask import Flask
from sqlalchemy.exc import OperationalError

import aggstream
from aggstream import ConfigurationError, JournalOptions
from aggstream.integrations.flask import AggStream, _config

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c3JfMSJ9.c2lnbmF0dXJl"


def app_with(**config: Any) -> Flask:
    app = Flask("shop", instance_path="/somewhere/instance")
    app.config.update({f"AGGSTREAM_{key}": value for key, value in config.items()})
    return app


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("AGGSTREAM_", "FLASK_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"APPID": "app"}, "no key 'AGGSTREAM_APPID'; did you mean 'AGGSTREAM_APP_ID'?"),
        ({"ACCOUNTS": ["main"]}, "AGGSTREAM_ACCOUNTS must be a dict of dicts"),
        ({"ACCOUNTS": {1: {}, 2: {}}}, "AGGSTREAM_ACCOUNTS: an account's name must be a text on one line, got 1"),
        ({"ACCOUNTS": {"": {}}}, "an account's name must be a text on one line, got ''"),
        ({"ACCOUNTS": {"\ud800": {}}}, "an account's name must be a text on one line, got '\\ud800'"),
        ({"ACCOUNTS": {"main": {"USER_ID": "x.y"}}}, "AGGSTREAM_ACCOUNTS['main'] has no key 'USER_ID'"),
        ({"ACCOUNTS": {"a": {}, "b": {}}, "JOURNAL": "one.db"}, "each account needs a journal of its own"),
        ({"ACCOUNTS": {"a": {"JOURNAL": "x.db"}, "b": {"JOURNAL": "y/../x.db"}}}, "a journal of its own"),
        ({"USER_ID": 5}, "AGGSTREAM_USER_ID must be a function"),
        ({"EVENTS_FOR": 0}, "AGGSTREAM_EVENTS_FOR must be a number of seconds"),
        ({"EVENTS_FOR": "25 s"}, "AGGSTREAM_EVENTS_FOR must be a number of seconds"),
        ({"TOKEN": 5}, "AGGSTREAM_TOKEN must be a function"),
        ({"ORIGIN": 5}, "AGGSTREAM_ORIGIN must be a text, got int"),
        ({"URL": True}, "AGGSTREAM_URL must be a text, got bool"),
        ({"APP_ID": 5.0}, "AGGSTREAM_APP_ID must be a text, got float"),
        ({"JOURNAL": 5}, "AGGSTREAM_JOURNAL must be a path or aggstream.JournalOptions, got int"),
        ({"JOURNAL": ""}, "path must be"),
        ({"OPTIONS": {"worker": 2}}, "AGGSTREAM_OPTIONS: 'worker' cannot be set there; did you mean 'workers'?"),
        ({"OPTIONS": {"token": JWT}}, "'token' cannot be set there"),
        ({"OPTIONS": 5}, "AGGSTREAM_OPTIONS must be a dict"),
    ],
)
def test_a_mistake_is_explained_when_the_application_is_made(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        AggStream(app_with(**config))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"TOKEN": JWT}, "a token itself belongs into the environment variable AGGSTREAM_TOKEN"),
        ({"TOKEN": "desk.stream.os"}, "AGGSTREAM_TOKEN must be a function"),
        ({"TOKEN": "desk.stream.nothing"}, "AGGSTREAM_TOKEN is a text that names no function"),
        ({"OUTAGE_ERRORS": OperationalError}, "outage_errors must be a tuple of exception classes"),
        ({"OUTAGE_ERRORS": ["desk.stream.token"]}, "outage_errors must be a tuple of exception classes"),
        ({"OUTAGE_ERRORS": ["desk.Nothing"]}, "AGGSTREAM_OUTAGE_ERRORS is a text that names no exception"),
        ({"JOURNAL": JournalOptions(path="x"), "ACCOUNTS": {"a": {}}}, "no account 'default', but 'a'"),
    ],
)
def test_what_is_named_is_imported_only_where_the_stream_runs(config: dict[str, Any], words: str) -> None:
    app = app_with(**config)
    AggStream(app)
    with pytest.raises(ConfigurationError) as refused:
        _config.account(app, "default")
    assert words in str(refused.value)
    assert JWT not in str(refused.value)


def test_a_function_for_user_ids_that_is_none_is_explained_when_somebody_asks() -> None:
    app = app_with(USER_ID="desk.stream.nothing")
    agg = AggStream(app)
    app.testing = True
    app.add_url_rule("/events", view_func=agg.events)
    with pytest.raises(ConfigurationError, match="AGGSTREAM_USER_ID is a text that names no function"):
        app.test_client().get("/events")


def test_an_account_has_what_is_set_for_all_and_for_itself() -> None:
    app = app_with(
        ORIGIN="https://a.example",
        OUTAGE_ERRORS=["sqlalchemy.exc.OperationalError", OSError],
        ACCOUNTS={
            "one": {"APP_ID": "1"},
            "two": {"APP_ID": "2", "JOURNAL": JournalOptions(path="/var/two.db", max_attempts=7)},
        },
    )
    one, two = _config.account(app, "one"), _config.account(app, "two")
    assert one.options == {"origin": "https://a.example", "app_id": "1"}
    assert one.journal.path == "/somewhere/instance/aggstream-one.db"
    assert (two.options["app_id"], two.journal.path, two.journal.max_attempts) == ("2", "/var/two.db", 7)
    assert one.journal.outage_errors == two.journal.outage_errors == (OperationalError, OSError)


@pytest.mark.parametrize(
    ("journal", "path"),
    [
        ({}, "/somewhere/instance/aggstream.db"),
        ({"JOURNAL": "other.db"}, "/somewhere/instance/other.db"),
        ({"JOURNAL": pathlib.PurePosixPath("/var/agg.db")}, "/var/agg.db"),
        ({"JOURNAL": JournalOptions(path="other.db")}, "/somewhere/instance/other.db"),
    ],
)
def test_a_journal_is_in_the_instance_folder_unless_it_is_said_where(journal: dict[str, Any], path: str) -> None:
    assert _config.account(app_with(**journal), "default").journal.path == path


def test_errors_of_an_outage_that_the_journals_options_have_are_kept() -> None:
    app = app_with(JOURNAL=JournalOptions(path="x", outage_errors=(OSError,)))
    assert _config.account(app, "default").journal.outage_errors == (OSError,)


def test_a_provider_of_tokens_is_asked_in_the_applications_context() -> None:
    class Provider:
        def get_token(self, *, stale: str | None = None) -> str:
            from flask import current_app

            return f"{current_app.name} instead of {stale}"

    token = _config.account(app_with(TOKEN=Provider()), "default").token
    assert isinstance(token, aggstream.TokenProvider)
    assert token.get_token(stale="old") == "shop instead of old"


def test_everything_that_is_a_text_or_a_number_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variables = {
        "APP_ID": "12345",
        "ORIGIN": "https://a.example",
        "URL": "ws://127.0.0.1:1/ws",
        "TOKEN": "desk.stream.another_token",
        "USER_ID": "desk.stream.user_id",
        "EVENTS_FOR": "5",
        "JOURNAL": str(tmp_path / "agg.db"),
        "OUTAGE_ERRORS": '["sqlalchemy.exc.OperationalError"]',
        "OPTIONS__workers": "2",
        "ACCOUNTS__main__REST_URL": "http://127.0.0.1:1",
    }
    for key, value in variables.items():
        monkeypatch.setenv(f"FLASK_AGGSTREAM_{key}", value)
    monkeypatch.setenv("DESK_ANOTHER", "a-token")
    app = app_with()
    app.config.from_prefixed_env()
    AggStream(app)
    account = _config.account(app, "main")
    assert account.options == {
        "app_id": "12345",
        "origin": "https://a.example",
        "url": "ws://127.0.0.1:1/ws",
        "rest_url": "http://127.0.0.1:1",
        "workers": 2,
    }
    assert callable(account.token)
    assert account.token() == "a-token"
    assert (account.journal.path, account.journal.outage_errors) == (
        str(tmp_path / "agg.db"),
        (OperationalError,),
    )
    assert (_config.user_id_function(app), _config.events_for(app)) == (stream.user_id, 5)
    assert "aggstream-main" in repr(account.client(None))


def test_what_is_set_later_counts_as_well() -> None:
    app = app_with()
    AggStream(app)
    app.config["AGGSTREAM_APP_ID"] = "later"
    assert _config.account(app, "default").options == {"app_id": "later"}
    app.config["AGGSTREAM_APPID"] = "app"
    with pytest.raises(ConfigurationError, match="did you mean 'AGGSTREAM_APP_ID'"):
        _config.account(app, "default")
