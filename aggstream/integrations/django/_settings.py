"""Reads the setting `AGGSTREAM`, with one account, or with several accounts by name.

```python
AGGSTREAM = {"APP_ID": "app_demo123", "ORIGIN": "https://app.example", "TOKEN": "shop.agg.token"}
AGGSTREAM = {"ORIGIN": …, "ACCOUNTS": {"main": {"APP_ID": …, "TOKEN": …}, "hedge": {…}}}  # others: all accounts
```
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from django.conf import settings
from django.db import connections

from aggstream._base.checks import check_seconds
from aggstream.errors import ConfigurationError
from aggstream.integrations import _accounts
from aggstream.integrations._accounts import DEFAULT_ACCOUNT, account_of, accounts_of, function_of, refuse_unknown
from aggstream.integrations._sse import EVENTS_FOR
from aggstream.integrations.django._connections import closing_connections
from aggstream.journal import StoreOptions

SETTING = "AGGSTREAM"

_STORE_KEYS = ("MAX_ATTEMPTS", "RETRY_DELAY", "RETRY_DELAY_MAXIMUM", "KEEP_FOR")
ACCOUNT_KEYS = _accounts.COMMON_KEYS | {*_STORE_KEYS, "DATABASE", "LEASE", "LOCK"}
"""The keys that are allowed for one account, or for all accounts."""
KEYS = ACCOUNT_KEYS | {"ACCOUNTS", "USER_ID", "EVENTS_FOR"}
"""All allowed keys."""
_LOCKS = (None, "advisory", "lease")


@attrs.frozen(kw_only=True)
class DjangoAccount(_accounts.Account):
    """The checked settings of one account."""

    store: StoreOptions
    database: str
    """The alias of the database that holds the events."""
    lease: float
    """Seconds without a renewal by the owner after which another process may become the owner."""
    lock: str | None
    """The kind of lock for the ownership: "advisory" or "lease"; None: the kind that fits the database."""


def configured() -> Mapping[str, Any]:
    """Return the setting `AGGSTREAM`.

    Raises:
        ConfigurationError: the setting is not a dict.
    """
    value = getattr(settings, SETTING, {})
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{SETTING} must be a dict")
    return value


def account_settings() -> dict[str, Mapping[str, Any]]:
    """Return the settings of each account, by the account's name.

    Raises:
        ConfigurationError: a key is not known, or a value has the wrong form.
    """
    value = configured()
    refuse_unknown(value, KEYS, SETTING)
    shared = {key: item for key, item in value.items() if key in ACCOUNT_KEYS}
    return accounts_of(value.get("ACCOUNTS", {DEFAULT_ACCOUNT: {}}), shared, ACCOUNT_KEYS, _full_key("ACCOUNTS"))


def account(name: str) -> DjangoAccount:
    """Return the checked settings of one account.

    Raises:
        ConfigurationError: there is no account with this name, or one of its settings cannot work.
    """
    value = account_of(account_settings(), name, SETTING)
    database = value.get("DATABASE", "default")
    if database not in settings.DATABASES:
        raise ConfigurationError(
            f"{_full_key('DATABASE')} must be the alias of one of DATABASES, got {database!a}"
        )
    connection = connections[database]
    if connection.vendor == "mysql" and connection.get_connection_params().get("charset") != "utf8mb4":
        raise ConfigurationError(
            f"DATABASES[{database!a}]['OPTIONS']['charset'] must be \"utf8mb4\", because an event may hold any "
            f"character; before Django 5.2 the default is another charset"
        )
    if not connection.settings_dict["AUTOCOMMIT"]:
        raise ConfigurationError(
            f"DATABASES[{database!a}]['AUTOCOMMIT'] must be left as it is, because without it nothing is committed"
        )
    lock = value.get("LOCK")
    if lock not in _LOCKS:
        raise ConfigurationError(f'{_full_key("LOCK")} must be "advisory", "lease" or None, got {lock!a}')
    if lock == "advisory" and connection.vendor != "postgresql":
        raise ConfigurationError(f'{_full_key("LOCK")} can be "advisory" with PostgreSQL only; leave it out')
    return DjangoAccount(
        name=name,
        options=_accounts.options_of(value, _full_key("OPTIONS")),
        token=_accounts.token_of(value.get("TOKEN"), _full_key("TOKEN"), closing_connections),
        store=StoreOptions(
            **_accounts.taken(value, _STORE_KEYS),
            outage_errors=_accounts.outage_errors_of(value.get("OUTAGE_ERRORS", ()), _full_key("OUTAGE_ERRORS")),
        ),
        database=database,
        lease=check_seconds(value.get("LEASE", 30.0), _full_key("LEASE")),
        lock=lock,
    )


def user_id_function() -> Callable[[Any], str | None] | None:
    """Return the function that returns the AGG user id for a `request.user`; None if it is not set.

    Raises:
        ConfigurationError: the value is not a function.
    """
    value = configured().get("USER_ID")
    return None if value is None else function_of(value, _full_key("USER_ID"))


def events_for() -> float:
    """Return the length of one answer of the view of live events, in seconds.

    Raises:
        ConfigurationError: the value is not a number of seconds.
    """
    return check_seconds(configured().get("EVENTS_FOR", EVENTS_FOR), _full_key("EVENTS_FOR"))


def _full_key(key: str) -> str:
    return f"{SETTING}['{key}']"
