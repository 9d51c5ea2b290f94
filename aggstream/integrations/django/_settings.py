"""The setting `AGGSTREAM`: one account, or several by name.

```python
AGGSTREAM = {"APP_ID": "app_demo123", "ORIGIN": "https://app.example", "TOKEN": "shop.agg.token"}
AGGSTREAM = {"ORIGIN": …, "ACCOUNTS": {"main": {"APP_ID": …, "TOKEN": …}, "hedge": {…}}}  # the rest is for all
```
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs
from django.conf import settings
from django.db import connections
from django.utils.module_loading import import_string

from aggstream._checks import check_seconds
from aggstream.client import Client
from aggstream.errors import ConfigurationError
from aggstream.integrations.django._connections import in_short
from aggstream.journal import OpensStore, StoreOptions
from aggstream.typing import TokenProvider, TokenSource

SETTING = "AGGSTREAM"
DEFAULT_ACCOUNT = "default"

_CLIENT_KEYS = ("APP_ID", "ORIGIN", "URL", "REST_URL")
_STORE_KEYS = ("MAX_ATTEMPTS", "RETRY_DELAY", "RETRY_DELAY_MAXIMUM", "KEEP_FOR")
_OWN_KEYS = ("TOKEN", "OPTIONS", "DATABASE", "LEASE", "LOCK")
ACCOUNT_KEYS = frozenset((*_CLIENT_KEYS, *_STORE_KEYS, *_OWN_KEYS))
"""What may be set for one account, or for all."""
KEYS = ACCOUNT_KEYS | {"ACCOUNTS", "USER_ID", "EVENTS_FOR"}
"""What may be set."""
_LOCKS = (None, "advisory", "lease")
_NOT_OPTIONS = frozenset({"self", "app_id", "origin", "url", "rest_url", "token", "journal", "name"})
_CLIENT_OPTIONS = frozenset(inspect.signature(Client.__init__).parameters) - _NOT_OPTIONS


@attrs.frozen(kw_only=True)
class Account:
    """One account's settings, checked."""

    name: str
    options: Mapping[str, Any] = attrs.field(repr=False)
    """Of `Client`, but for the token."""
    token: TokenSource | None = attrs.field(repr=False)
    store: StoreOptions
    database: str
    """The alias of the database that the events are in."""
    lease: float
    """Seconds without a sign of life after which another process takes over."""
    lock: str | None
    """How it is seen to that one process runs the stream: "advisory", "lease", or None for what fits."""

    def client(self, store: OpensStore | None) -> Client:
        """Make the client of the stream.

        Raises:
            ConfigurationError: an option cannot work.
        """
        name = "aggstream" if self.name == DEFAULT_ACCOUNT else f"aggstream-{self.name}"
        return Client(token=self.token, journal=store, name=name, **self.options)


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
    known = difflib.get_close_matches
    for key in value:
        if key not in KEYS:
            raise ConfigurationError(f"{SETTING} has no key {key!a}{_like(known(str(key), KEYS, n=1))}")
    shared = {key: set_to for key, set_to in value.items() if key in ACCOUNT_KEYS}
    accounts = value.get("ACCOUNTS", {DEFAULT_ACCOUNT: {}})
    if not isinstance(accounts, Mapping) or not all(isinstance(one, Mapping) for one in accounts.values()):
        raise ConfigurationError(f"{SETTING}['ACCOUNTS'] must be a dict of dicts, by the accounts' names")
    for name, own in accounts.items():
        for key in own:
            if key not in ACCOUNT_KEYS:
                like = _like(known(str(key), ACCOUNT_KEYS, n=1))
                raise ConfigurationError(f"{SETTING}['ACCOUNTS'][{name!a}] has no key {key!a}{like}")
    return {name: {**shared, **own} for name, own in accounts.items()}


def account(name: str) -> Account:
    """Return an account.

    Raises:
        ConfigurationError: there is none of that name, or something that is set for it cannot work.
    """
    accounts = account_settings()
    if name not in accounts:
        known = ", ".join(map(ascii, accounts))
        raise ConfigurationError(f"{SETTING} has no account {name!a}, but {known}")
    value = accounts[name]
    database = value.get("DATABASE", "default")
    if database not in settings.DATABASES:
        raise ConfigurationError(f"{SETTING}['DATABASE'] must be the alias of one of DATABASES, got {database!a}")
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
        raise ConfigurationError(f'{SETTING}[\'LOCK\'] must be "advisory", "lease" or None, got {lock!a}')
    if lock == "advisory" and connection.vendor != "postgresql":
        raise ConfigurationError(f"{SETTING}['LOCK'] can be \"advisory\" with PostgreSQL only; leave it out")
    return Account(
        name=name,
        options={**_options(value), **_taken(value, _CLIENT_KEYS)},
        token=_token(value.get("TOKEN")),
        store=StoreOptions(**_taken(value, _STORE_KEYS)),
        database=database,
        lease=check_seconds(value.get("LEASE", 30.0), f"{SETTING}['LEASE']"),
        lock=lock,
    )


def user_id_function() -> Callable[[Any], str | None] | None:
    """Return the function that tells the AGG user id of `request.user`; None: nobody has one.

    Raises:
        ConfigurationError: it is no function.
    """
    value = configured().get("USER_ID")
    return None if value is None else function_of(value, "USER_ID")


def events_for() -> float:
    """Return for how many seconds one answer of the events' view goes on.

    Raises:
        ConfigurationError: it is no time.
    """
    return check_seconds(configured().get("EVENTS_FOR", 25.0), f"{SETTING}['EVENTS_FOR']")


def function_of(value: object, key: str) -> Callable[..., Any]:
    """Return a function that is set, itself or by its dotted path.

    Raises:
        ConfigurationError: it is none. What was set is not shown, because it may be a secret.
    """
    if isinstance(value, str):
        try:
            value = import_string(value)
        except Exception as error:
            raise ConfigurationError(
                f"{SETTING}['{key}'] is a text that names no function: importing it failed "
                f"({type(error).__name__}). Set it to a function, or to its dotted path as 'shop.agg.function'"
            ) from None
    if not callable(value):
        raise ConfigurationError(f"{SETTING}['{key}'] must be a function, or the dotted path of one")
    return cast("Callable[..., Any]", value)


def _token(value: object) -> TokenSource | None:
    if value is None or isinstance(value, TokenProvider):
        return None if value is None else _Provider(value)
    return in_short(function_of(value, "TOKEN"))


class _Provider:
    """Somebody's provider, which may use the database."""

    def __init__(self, provider: TokenProvider) -> None:
        self._get_token = in_short(provider.get_token)

    def get_token(self, *, stale: str | None = None) -> str:
        return self._get_token(stale=stale)


def _options(value: Mapping[str, Any]) -> dict[str, Any]:
    options = value.get("OPTIONS", {})
    if not isinstance(options, Mapping):
        raise ConfigurationError(f"{SETTING}['OPTIONS'] must be a dict of further options of aggstream.Client")
    for name in options:
        if name not in _CLIENT_OPTIONS:
            like = _like(difflib.get_close_matches(str(name), _CLIENT_OPTIONS, n=1))
            raise ConfigurationError(f"{SETTING}['OPTIONS']: {name!a} cannot be set there{like}")
    return dict(options)


def _taken(value: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key.lower(): value[key] for key in keys if key in value}


def _like(found: list[str]) -> str:
    return f"; did you mean {found[0]!a}?" if found else ""
