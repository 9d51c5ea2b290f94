"""The setting `AGGSTREAM`: one account, or several by name.

```python
AGGSTREAM = {"APP_ID": "app_demo123", "ORIGIN": "https://app.example", "TOKEN": "shop.agg.token"}
AGGSTREAM = {"ORIGIN": …, "ACCOUNTS": {"main": {"APP_ID": …, "TOKEN": …}, "hedge": {…}}}  # the rest is for all
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
from aggstream.integrations.django._connections import in_short
from aggstream.journal import StoreOptions

SETTING = "AGGSTREAM"

_STORE_KEYS = ("MAX_ATTEMPTS", "RETRY_DELAY", "RETRY_DELAY_MAXIMUM", "KEEP_FOR")
ACCOUNT_KEYS = _accounts.COMMON_KEYS | {*_STORE_KEYS, "DATABASE", "LEASE", "LOCK"}
"""The keys that may be set for one account, or for all."""
KEYS = ACCOUNT_KEYS | {"ACCOUNTS", "USER_ID", "EVENTS_FOR"}
"""The keys that may be set."""
_LOCKS = (None, "advisory", "lease")


@attrs.frozen(kw_only=True)
class DjangoAccount(_accounts.Account):
    """One account's settings, checked."""

    store: StoreOptions
    database: str
    """The alias of the database that the events are in."""
    lease: float
    """Seconds without a sign of life after which another process takes over."""
    lock: str | None
    """How it is seen to that one process runs the stream: "advisory", "lease", or None for what fits."""


def configured() -> Mapping[str, Any]:
    """Return the setting.

    Raises:
        ConfigurationError: it is no dict.
    """
    value = getattr(settings, SETTING, {})
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{SETTING} must be a dict")
    return value


def account_settings() -> dict[str, Mapping[str, Any]]:
    """Return what is set for each account, by its name.

    Raises:
        ConfigurationError: it has not the form of the setting.
    """
    value = configured()
    refuse_unknown(value, KEYS, SETTING)
    shared = {key: set_to for key, set_to in value.items() if key in ACCOUNT_KEYS}
    return accounts_of(value.get("ACCOUNTS", {DEFAULT_ACCOUNT: {}}), shared, ACCOUNT_KEYS, _spelled("ACCOUNTS"))


def account(name: str) -> DjangoAccount:
    """Return an account.

    Raises:
        ConfigurationError: there is none of that name, or something that is set for it cannot work.
    """
    value = account_of(account_settings(), name, SETTING)
    database = value.get("DATABASE", "default")
    if database not in settings.DATABASES:
        raise ConfigurationError(f"{_spelled('DATABASE')} must be the alias of one of DATABASES, got {database!a}")
    connection = connections[database]
    if connection.vendor == "mysql" and connection.get_connection_params().get("charset") != "utf8mb4":
        raise ConfigurationError(
            f"DATABASES[{database!a}]['OPTIONS']['charset'] must be \"utf8mb4\", because an event may hold any "
            f"character; before Django 5.2 it is another one if it is left out"
        )
    if not connection.settings_dict["AUTOCOMMIT"]:
        raise ConfigurationError(
            f"DATABASES[{database!a}]['AUTOCOMMIT'] must be left as it is, because without it nothing is committed"
        )
    lock = value.get("LOCK")
    if lock not in _LOCKS:
        raise ConfigurationError(f'{_spelled("LOCK")} must be "advisory", "lease" or None, got {lock!a}')
    if lock == "advisory" and connection.vendor != "postgresql":
        raise ConfigurationError(f'{_spelled("LOCK")} can be "advisory" with PostgreSQL only; leave it out')
    return DjangoAccount(
        name=name,
        options=_accounts.options_of(value, _spelled("OPTIONS")),
        token=_accounts.token_of(value.get("TOKEN"), _spelled("TOKEN"), in_short),
        store=StoreOptions(
            **_accounts.taken(value, _STORE_KEYS),
            outage_errors=_accounts.outage_errors_of(value.get("OUTAGE_ERRORS", ()), _spelled("OUTAGE_ERRORS")),
        ),
        database=database,
        lease=check_seconds(value.get("LEASE", 30.0), _spelled("LEASE")),
        lock=lock,
    )


def user_id_function() -> Callable[[Any], str | None] | None:
    """Return the function that tells the AGG user id of `request.user`; None: nobody has one.

    Raises:
        ConfigurationError: it is no function.
    """
    value = configured().get("USER_ID")
    return None if value is None else function_of(value, _spelled("USER_ID"))


def events_for() -> float:
    """Return for how many seconds one answer of the events' view goes on.

    Raises:
        ConfigurationError: it is no time.
    """
    return check_seconds(configured().get("EVENTS_FOR", EVENTS_FOR), _spelled("EVENTS_FOR"))


def _spelled(key: str) -> str:
    return f"{SETTING}['{key}']"
