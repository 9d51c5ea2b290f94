"""Checks the settings of accounts for both frameworks. Settings may hold secrets; no error shows a secret."""

from __future__ import annotations

import difflib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeAlias, cast

import attrs

from aggstream.client import Client
from aggstream.errors import ConfigurationError
from aggstream.journal import OpensStore
from aggstream.rest._options import RestOptions
from aggstream.typing import TokenProvider, TokenSource

DEFAULT_ACCOUNT = "default"
CLIENT_KEYS = ("APP_ID", "ORIGIN", "URL", "REST_URL")
"""The keys that are, in lower case, options of `Client`."""
COMMON_KEYS = frozenset((*CLIENT_KEYS, "TOKEN", "OPTIONS", "OUTAGE_ERRORS"))
"""The keys that every framework allows, for one account or for all accounts."""
_NOT_OPTIONS = frozenset({"self", "app_id", "origin", "url", "rest_url", "token", "journal", "name"})
_CLIENT_OPTIONS = frozenset(inspect.signature(Client.__init__).parameters) - _NOT_OPTIONS

Around: TypeAlias = "Callable[[Callable[..., str]], Callable[..., str]]"
"""Takes a function that returns a token, and returns the wrapped function."""


@attrs.frozen(kw_only=True)
class Account:
    """The checked settings of one account."""

    name: str
    options: Mapping[str, Any] = attrs.field(repr=False)
    """The options of `Client`, without the token."""
    token: TokenSource | None = attrs.field(repr=False)

    @property
    def status_names(self) -> Mapping[str, str]:
        """The option `status_names` of the account's `RestOptions`, by which its stream names statuses."""
        rest = self.options.get("rest")
        return rest.status_names if isinstance(rest, RestOptions) else {}

    def client(self, store: OpensStore | None) -> Client:
        """Return a new client for the account's stream.

        Raises:
            ConfigurationError: an option cannot work.
        """
        name = "aggstream" if self.name == DEFAULT_ACCOUNT else f"aggstream-{self.name}"
        return Client(token=self.token, journal=store, name=name, **self.options)


def refuse_unknown(keys: Iterable[object], known: Collection[str], where: str) -> None:
    """Check that all keys are known.

    Raises:
        ConfigurationError: a key is not known. The error names the key, and a similar known key.
    """
    for key in keys:
        if key not in known:
            raise ConfigurationError(f"{where} has no key {key!a}{_suggestion(key, known)}")


def accounts_of(
    accounts: object, shared: Mapping[str, Any], known: Collection[str], where: str
) -> dict[str, Mapping[str, Any]]:
    """Return the settings of each account, by the account's name.

    Args:
        accounts: the settings of each account, by the account's name.
        shared: the settings for all accounts.
        known: the keys that an account may have.
        where: the name of the setting with the accounts, for errors.

    Raises:
        ConfigurationError: `accounts` is not a dict of dicts with known keys, or an account's name is not a
            text on one line.
    """
    if not isinstance(accounts, Mapping) or not all(isinstance(own, Mapping) for own in accounts.values()):
        raise ConfigurationError(f"{where} must be a dict of dicts, by the accounts' names")
    for name, own in accounts.items():
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ConfigurationError(f"{where}: an account's name must be a text on one line, got {name!a}")
        refuse_unknown(own, known, f"{where}[{name!a}]")
    return {name: {**shared, **own} for name, own in accounts.items()}


def account_of(accounts: Mapping[str, Mapping[str, Any]], name: str, where: str) -> Mapping[str, Any]:
    """Return the settings of one account.

    Raises:
        ConfigurationError: there is no account with this name.
    """
    if name not in accounts:
        raise ConfigurationError(f"{where} has no account {name!a}, but {', '.join(map(ascii, accounts))}")
    return accounts[name]


def chosen_account(names: Collection[str], name: str | None, where: str) -> str:
    """Return the name of the account that a command's option `--account` chooses.

    Args:
        names: the names of all accounts.
        name: the value of the option; None: the command has no such option, which means the only account.
        where: the name of the setting with the accounts, for errors.

    Raises:
        ConfigurationError: the command has no `--account`, and there is not exactly one account.
    """
    if name is not None:
        return name
    if len(names) != 1:
        raise ConfigurationError(f"{where} has {len(names)} accounts; say which: --account {' | '.join(names)}")
    [only] = names
    return only


def function_of(value: object, where: str, *, hint: str = "") -> Callable[..., Any]:
    """Return the function that a setting holds.

    Args:
        value: the value of the setting: the function itself, or its dotted path.
        where: the name of the setting, for errors.
        hint: a further hint for the error about a path that cannot be imported.

    Raises:
        ConfigurationError: the value is not a function, and not the path of a function.
    """
    if isinstance(value, str):
        value = _imported(value, where, "function", hint)
    if not callable(value):
        raise ConfigurationError(f"{where} must be a function, or the dotted path of a function")
    return cast("Callable[..., Any]", value)


def token_of(value: object, where: str, around: Around) -> TokenSource | None:
    """Return the token source that a setting holds; None if it is not set.

    Args:
        value: the value of the setting: a provider, a function, or a function's dotted path.
        where: the name of the setting, for errors.
        around: wraps the function that returns a token.

    Raises:
        ConfigurationError: the value is not a provider, a function or the path of a function.
    """
    if value is None:
        return None
    if isinstance(value, TokenProvider):
        return _WrappedProvider(around(value.get_token))
    hint = "; a token itself belongs into the environment variable AGGSTREAM_TOKEN"
    return around(function_of(value, where, hint=hint))


def outage_errors_of(value: Any, where: str) -> Any:
    """Return the option `outage_errors` of a store, with imported exceptions instead of their dotted paths.

    Raises:
        ConfigurationError: a path cannot be imported. The store's options check everything else.
    """
    if not isinstance(value, (tuple, list)):
        return value
    return tuple(_imported(item, where, "exception") if isinstance(item, str) else item for item in value)


def options_of(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the options of `Client` from the settings of an account, without the token.

    Raises:
        ConfigurationError: an option is not an option of `Client`, or cannot be set in `OPTIONS`.
    """
    options = value.get("OPTIONS", {})
    if not isinstance(options, Mapping):
        raise ConfigurationError(f"{where} must be a dict of further options of aggstream.Client")
    for name in options:
        if name not in _CLIENT_OPTIONS:
            raise ConfigurationError(f"{where}: {name!a} cannot be set there{_suggestion(name, _CLIENT_OPTIONS)}")
    return {**options, **taken(value, CLIENT_KEYS)}


def taken(value: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return the values of those keys that are set, by their names in lower case."""
    return {key.lower(): value[key] for key in keys if key in value}


class _WrappedProvider:
    """A user's token provider whose `get_token` is wrapped."""

    def __init__(self, get_token: Callable[..., str]) -> None:
        self._get_token = get_token

    def get_token(self, *, stale: str | None = None) -> str:
        return self._get_token(stale=stale)


def _imported(path: str, where: str, what: str, hint: str = "") -> object:
    try:
        return pkgutil.resolve_name(path)
    except Exception as error:
        raise ConfigurationError(
            f"{where} is a text that names no {what}: importing it failed ({type(error).__name__}). "
            f"Set it to the {what} itself, or to its dotted path as 'shop.agg.{what}'{hint}"
        ) from None


def _suggestion(key: object, known: Collection[str]) -> str:
    found = difflib.get_close_matches(str(key), known, n=1)
    return f"; did you mean {found[0]!a}?" if found else ""
