"""The setting and what `manage.py check` says about it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core import checks
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import override_settings
from integrations.django.databases import point_at
from shop import agg as shop

import aggstream
from aggstream.integrations.django import _settings

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c3JfMSJ9.c2lnbmF0dXJl"
GOOD: dict[str, Any] = {"APP_ID": "app", "ORIGIN": "https://a.example", "TOKEN": shop.token}


def found(setting: object, *, deploy: bool = False) -> dict[str, str]:
    """Return what the checks say, by id."""
    with override_settings(AGGSTREAM=setting):
        messages = checks.run_checks(tags=["aggstream"], include_deployment_checks=deploy)
    assert all(message.hint for message in messages)
    assert not any(JWT in f"{message}{message.hint}" for message in messages)
    return {str(message.id): message.msg for message in messages}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APP_ID", "ORIGIN", "TOKEN", "URL", "REST_URL"):
        monkeypatch.delenv(f"AGGSTREAM_{name}", raising=False)


@pytest.mark.parametrize(
    "setting",
    [
        GOOD,
        GOOD | {"TOKEN": "shop.agg.token", "USER_ID": "shop.agg.user_id", "LOCK": "lease", "LEASE": 5},
        {"ACCOUNTS": {"one": GOOD, "two": GOOD | {"MAX_ATTEMPTS": 3}}, "KEEP_FOR": 60.0},
        GOOD | {"URL": "ws://127.0.0.1:1/ws", "REST_URL": "http://127.0.0.1:1"},
        GOOD | {"URL": "ws://127.0.0.1:1/ws", "OPTIONS": {"rest": None}},
    ],
)
def test_what_can_work_is_not_complained_about(setting: dict[str, Any]) -> None:
    assert found(setting) == {}


@pytest.mark.parametrize(
    ("setting", "id_", "words"),
    [
        ([], "E001", "must be a dict"),
        ({"APPID": "app"}, "E001", "no key 'APPID'; did you mean 'APP_ID'?"),
        ({"ACCOUNTS": ["main"]}, "E001", "dict of dicts"),
        ({"ACCOUNTS": {"main": {"USER_ID": "x.y"}}}, "E001", "'main'] has no key 'USER_ID'"),
        ({"USER_ID": "usr_1"}, "E001", "['USER_ID'] is a text that names no function"),
        ({"USER_ID": 5}, "E001", "['USER_ID'] must be a function"),
        ({"EVENTS_FOR": 0}, "E001", "EVENTS_FOR"),
        (GOOD | {"TOKEN": JWT}, "E002", "['TOKEN'] is a text that names no function"),
        (GOOD | {"TOKEN": "shop.agg.os"}, "E002", "['TOKEN'] must be a function"),
        (GOOD | {"DATABASE": "other"}, "E002", "one of DATABASES, got 'other'"),
        (GOOD | {"LOCK": "file"}, "E002", '"advisory", "lease" or None'),
        (GOOD | {"LEASE": "long"}, "E002", "LEASE"),
        (GOOD | {"MAX_ATTEMPTS": 0}, "E002", "max_attempts"),
        (GOOD | {"OUTAGE_ERRORS": OSError}, "E002", "outage_errors must be a tuple"),
        (GOOD | {"OUTAGE_ERRORS": ["shop.agg.token"]}, "E002", "outage_errors must be a tuple"),
        (
            GOOD | {"OUTAGE_ERRORS": ["shop.Nothing"]},
            "E002",
            "['OUTAGE_ERRORS'] is a text that names no exception",
        ),
        (GOOD | {"URL": "ws://127.0.0.1:1/ws"}, "W003", "REST_URL is not"),
        (GOOD | {"OPTIONS": {"worker": 2}}, "E002", "did you mean 'workers'?"),
        (GOOD | {"OPTIONS": {"token": "x"}}, "E002", "'token' cannot be set there"),
        (GOOD | {"OPTIONS": 5}, "E002", "OPTIONS"),
        (GOOD | {"OPTIONS": {"workers": 0}}, "E003", "workers"),
        (GOOD | {"ORIGIN": "a.example"}, "E003", "origin"),
        ({"ORIGIN": "https://a.example", "TOKEN": shop.token}, "W001", "APP_ID is not set"),
    ],
)
def test_a_mistake_is_explained(setting: object, id_: str, words: str) -> None:
    messages = found(setting)
    assert list(messages) == [f"aggstream.{id_}"]
    assert words in messages[f"aggstream.{id_}"]


def test_what_the_environment_sets_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found({}) == {"aggstream.W001": "TOKEN is not set, so `manage.py aggstream` cannot run"}
    for name, value in {"APP_ID": "app", "ORIGIN": "https://a.example", "TOKEN": "t"}.items():
        monkeypatch.setenv(f"AGGSTREAM_{name}", value)
    assert found({}) == {}


@pytest.mark.parametrize(
    "setting",
    [
        {"OPTIONS": {"headers": {"x-app-api-key": "0123456789"}}},
        {"OPTIONS": {"headers": {"Cookie": f"session={JWT}"}}},
        {"OPTIONS": {"proxy": "http://user:pass@proxy.example:8080"}},
        {"TOKEN": JWT},
        {"ACCOUNTS": {"main": {"TOKEN": JWT}}},
    ],
)
def test_a_secret_in_the_settings_is_warned_of_before_deployment(
    setting: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "aggstream.W002" in found(setting, deploy=True)
    assert "aggstream.W002" not in found(setting)
    for number, value in enumerate(["0123456789", f"session={JWT}", "http://user:pass@proxy.example:8080", JWT]):
        monkeypatch.setenv(f"SECRET_{number}", value)
    assert "aggstream.W002" not in found(setting, deploy=True)


def test_functions_are_no_secrets() -> None:
    assert found(GOOD | {"TOKEN": "shop.agg.token"}, deploy=True) == {}


def test_an_account_has_what_is_set_for_all_and_for_itself() -> None:
    setting = {
        "ORIGIN": "https://a.example",
        "MAX_ATTEMPTS": 3,
        "ACCOUNTS": {"one": {"APP_ID": "1"}, "two": {"APP_ID": "2", "MAX_ATTEMPTS": 7}},
    }
    with override_settings(AGGSTREAM=setting):
        one, two = _settings.account("one"), _settings.account("two")
        with pytest.raises(aggstream.ConfigurationError, match="no account 'three', but 'one', 'two'"):
            _settings.account("three")
    assert (one.options, one.store.max_attempts) == ({"origin": "https://a.example", "app_id": "1"}, 3)
    assert (two.options["app_id"], two.store.max_attempts) == ("2", 7)


def test_exceptions_of_an_outage_are_set_by_class_or_path() -> None:
    with override_settings(AGGSTREAM=GOOD | {"OUTAGE_ERRORS": ["django.db.OperationalError", OSError]}):
        assert _settings.account("default").store.outage_errors == (OperationalError, OSError)


def test_a_provider_of_tokens_is_used_as_it_is() -> None:
    class Provider:
        def get_token(self, *, stale: str | None = None) -> str:
            return f"instead of {stale}"

    with override_settings(AGGSTREAM=GOOD | {"TOKEN": Provider()}):
        token = _settings.account("default").token
    assert isinstance(token, aggstream.TokenProvider)
    assert token.get_token(stale="old") == "instead of old"


@pytest.mark.parametrize(
    ("setting", "arguments", "words"),
    [
        ({"ACCOUNTS": {"one": {}, "two": {}}}, [], "say which: --account one | two"),
        ({"ACCOUNTS": {"one": {}}}, ["--account", "two"], "no account 'two'"),
        ({"APPID": "app"}, [], "did you mean 'APP_ID'"),
    ],
)
def test_the_command_refuses_what_cannot_work(setting: object, arguments: list[str], words: str) -> None:
    with override_settings(AGGSTREAM=setting), pytest.raises(CommandError, match=None) as refused:
        call_command("aggstream", *arguments, skip_checks=True)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("engine", "more", "key"),
    [
        ("mysql", {"OPTIONS": {"charset": "utf8"}}, "charset"),
        ("sqlite3", {"AUTOCOMMIT": False}, "AUTOCOMMIT"),
    ],
)
def test_a_database_that_could_not_keep_every_event_is_refused(engine: str, more: Any, key: str) -> None:
    if engine == "mysql":
        pytest.importorskip("MySQLdb")
    point_at({"ENGINE": f"django.db.backends.{engine}", "NAME": ":memory:", **more})
    try:
        assert re.match(rf"DATABASES\['default'\].*\['{key}'\] must be", found(GOOD)["aggstream.E002"])
    finally:
        point_at({"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"})
