"""Reads the configuration `AGGSTREAM_…`, with one account, or with several accounts by name.

```python
app.config.update(AGGSTREAM_APP_ID="app", AGGSTREAM_ORIGIN="https://app.example", AGGSTREAM_TOKEN=get_token)
app.config["AGGSTREAM_ACCOUNTS"] = {"main": {"APP_ID": …, "TOKEN": …}, "hedge": {…}}  # other keys: all accounts
```
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from flask import Flask

from aggstream._base.checks import check_seconds
from aggstream.errors import ConfigurationError
from aggstream.integrations import _accounts
from aggstream.integrations._accounts import (
    COMMON_KEYS,
    DEFAULT_ACCOUNT,
    account_of,
    accounts_of,
    function_of,
    refuse_unknown,
)
from aggstream.integrations._sse import EVENTS_FOR
from aggstream.integrations.flask._contexts import in_context
from aggstream.journal import JournalOptions
from aggstream.typing import TokenSource

PREFIX = "AGGSTREAM_"

ACCOUNT_KEYS = COMMON_KEYS | {"JOURNAL"}
"""The keys that are allowed for one account, or for all accounts."""
KEYS = ACCOUNT_KEYS | {"ACCOUNTS", "USER_ID", "EVENTS_FOR"}
"""All allowed keys, without the prefix."""
ACCOUNTS = f"{PREFIX}ACCOUNTS"
_JOURNAL = "aggstream{}.db"


@attrs.frozen(kw_only=True)
class FlaskAccount(_accounts.Account):
    """The checked settings of one account."""

    journal: JournalOptions


def check(app: Flask) -> None:
    """Check the configuration of an application, without importing the application's code.

    Raises:
        ConfigurationError: a value cannot work.
    """
    events_for(app)
    journals(app)
    if not isinstance(app.config.get(_full_key("USER_ID")), str):
        user_id_function(app)
    for value in account_configs(app).values():
        _options(value)
        if not isinstance(value.get("TOKEN"), str):
            _token(app, value)


def account_configs(app: Flask) -> dict[str, Mapping[str, Any]]:
    """Return the settings of each account, by the account's name.

    Raises:
        ConfigurationError: a key is not known, or a value has the wrong form.
    """
    refuse_unknown(
        [key for key in app.config if key.startswith(PREFIX)], {f"{PREFIX}{key}" for key in KEYS}, "aggstream"
    )
    shared = {key: app.config[PREFIX + key] for key in ACCOUNT_KEYS if PREFIX + key in app.config}
    accounts = app.config.get(ACCOUNTS, {DEFAULT_ACCOUNT: {}})
    return accounts_of(accounts, shared, ACCOUNT_KEYS, ACCOUNTS)


def account(app: Flask, name: str) -> FlaskAccount:
    """Return the checked settings of one account.

    Raises:
        ConfigurationError: there is no account with this name, or one of its settings cannot work.
    """
    value = account_of(account_configs(app), name, ACCOUNTS)
    journal = journals(app)[name]
    if "OUTAGE_ERRORS" in value:
        errors = _accounts.outage_errors_of(value["OUTAGE_ERRORS"], _full_key("OUTAGE_ERRORS"))
        journal = attrs.evolve(journal, outage_errors=errors)
    return FlaskAccount(
        name=name,
        options=_options(value),
        token=_token(app, value),
        journal=journal,
    )


def journals(app: Flask) -> dict[str, JournalOptions]:
    """Return the journal options of each account, by the account's name.

    Raises:
        ConfigurationError: the value of `JOURNAL` is not a journal, or two accounts have the same journal.
    """
    found = {name: _journal(app, name, value) for name, value in account_configs(app).items()}
    paths = [os.path.realpath(journal.path) for journal in found.values()]
    if len(set(paths)) < len(paths):
        raise ConfigurationError(f"each account needs a journal of its own: set JOURNAL in {ACCOUNTS}")
    return found


def user_id_function(app: Flask) -> Callable[[], object] | None:
    """Return the function in `AGGSTREAM_USER_ID`, which returns the visitor's AGG user id; None if it is not set.

    Raises:
        ConfigurationError: the value is not a function.
    """
    value = app.config.get(_full_key("USER_ID"))
    return None if value is None else function_of(value, _full_key("USER_ID"))


def events_for(app: Flask) -> float:
    """Return the length of one answer of the view of live events, in seconds.

    Raises:
        ConfigurationError: the value is not a number of seconds.
    """
    return check_seconds(app.config.get(_full_key("EVENTS_FOR"), EVENTS_FOR), _full_key("EVENTS_FOR"))


def _options(value: Mapping[str, Any]) -> dict[str, Any]:
    options = _accounts.options_of(value, _full_key("OPTIONS"))
    # Flask's `from_prefixed_env` turns an environment variable with only digits into a number.
    if type(app_id := options.get("app_id")) is int:
        options["app_id"] = str(app_id)
    for key in _accounts.CLIENT_KEYS:
        text = options.get(key.lower())
        if text is not None and not isinstance(text, str):
            raise ConfigurationError(f"{_full_key(key)} must be a text, got {type(text).__name__}")
    return options


def _token(app: Flask, value: Mapping[str, Any]) -> TokenSource | None:
    return _accounts.token_of(value.get("TOKEN"), _full_key("TOKEN"), in_context(app))


def _journal(app: Flask, name: str, value: Mapping[str, Any]) -> JournalOptions:
    """Return an account's journal options. A relative path begins at the instance folder, in every process."""
    journal = value.get("JOURNAL", _JOURNAL.format("" if name == DEFAULT_ACCOUNT else f"-{name}"))
    if not isinstance(journal, (str, os.PathLike, JournalOptions)):
        raise ConfigurationError(
            f"{_full_key('JOURNAL')} must be a path or aggstream.JournalOptions, got {type(journal).__name__}"
        )
    options = journal if isinstance(journal, JournalOptions) else JournalOptions(path=journal)
    return attrs.evolve(options, path=Path(app.instance_path, options.path))


def _full_key(key: str) -> str:
    return f"{PREFIX}{key}"
