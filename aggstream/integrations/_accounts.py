"""The settings of one account or several, checked for both frameworks. They may hold secrets: none is shown."""

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
from aggstream.typing import TokenProvider, TokenSource

DEFAULT_ACCOUNT = "default"
CLIENT_KEYS = ("APP_ID", "ORIGIN", "URL", "REST_URL")
"""The keys that are options of `Client` in small letters."""
COMMON_KEYS = frozenset((*CLIENT_KEYS, "TOKEN", "OPTIONS", "OUTAGE_ERRORS"))
"""The keys that may be set for one account, or for all, in every framework."""
_NOT_OPTIONS = frozenset({"self", "app_id", "origin", "url", "rest_url", "token", "journal", "name"})
_CLIENT_OPTIONS = frozenset(inspect.signature(Client.__init__).parameters) - _NOT_OPTIONS

Around: TypeAlias = "Callable[[Callable[..., str]], Callable[..., str]]"
"""Makes of a function that returns a token the one to call."""


@attrs.frozen(kw_only=True)
class Account:
    """One account's settings, checked."""

    name: str
    options: Mapping[str, Any] = attrs.field(repr=False)
    """Of `Client`, but for the token."""
    token: TokenSource | None = attrs.field(repr=False)

    def client(self, store: OpensStore | None) -> Client:
        """Make the client of the stream.

        Raises:
            ConfigurationError: an option cannot work.
        """
        name = "aggstream" if self.name == DEFAULT_ACCOUNT else f"aggstream-{self.name}"
        return Client(token=self.token, journal=store, name=name, **self.options)


def refuse_unknown(keys: Iterable[object], known: Collection[str], where: str) -> None:
    """See that all keys are known.

    Raises:
        ConfigurationError: one is not; says which, and what may have been meant.
    """
    for key in keys:
        if key not in known:
            raise ConfigurationError(f"{where} has no key {key!a}{_like(key, known)}")


def accounts_of(
    accounts: object, shared: Mapping[str, Any], known: Collection[str], where: str
) -> dict[str, Mapping[str, Any]]:
    """Return what is set for each account, by its name.

    Args:
        accounts: what is set for single accounts.
        shared: what is set for all.
        known: the keys of an account.
        where: where the accounts are set, in words.

    Raises:
        ConfigurationError: it is no dict of dicts with these keys, by names that a command can be given.
    """
    if not isinstance(accounts, Mapping) or not all(isinstance(one, Mapping) for one in accounts.values()):
        raise ConfigurationError(f"{where} must be a dict of dicts, by the accounts' names")
    for name, own in accounts.items():
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ConfigurationError(f"{where}: an account's name must be a text on one line, got {name!a}")
        refuse_unknown(own, known, f"{where}[{name!a}]")
    return {name: {**shared, **own} for name, own in accounts.items()}


def account_of(accounts: Mapping[str, Mapping[str, Any]], name: str, where: str) -> Mapping[str, Any]:
    """Return what is set for an account.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if name not in accounts:
        raise ConfigurationError(f"{where} has no account {name!a}, but {', '.join(map(ascii, accounts))}")
    return accounts[name]


def the_account(names: Collection[str], name: str | None, where: str) -> str:
    """Return the account that is meant by a command's `--account`.

    Raises:
        ConfigurationError: none is given, and there are several.
    """
    if name is not None:
        return name
    if len(names) != 1:
        raise ConfigurationError(f"{where} has {len(names)} accounts; say which: --account {' | '.join(names)}")
    [only] = names
    return only


def function_of(value: object, where: str, *, hint: str = "") -> Callable[..., Any]:
    """Return a function that is set, itself or by its dotted path.

    Args:
        value: what is set.
        where: where, in words.
        hint: what else to do if a path names nothing.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(value, str):
        value = _imported(value, where, "function", hint)
    if not callable(value):
        raise ConfigurationError(f"{where} must be a function, or the dotted path of one")
    return cast("Callable[..., Any]", value)


def token_of(value: object, where: str, around: Around) -> TokenSource | None:
    """Return where tokens come from: a function, by itself or by its dotted path, or a provider.

    Raises:
        ConfigurationError: it is neither.
    """
    if value is None:
        return None
    if isinstance(value, TokenProvider):
        return _Provider(around(value.get_token))
    hint = "; a token itself belongs into the environment variable AGGSTREAM_TOKEN"
    return around(function_of(value, where, hint=hint))


def outage_errors_of(value: Any, where: str) -> Any:
    """Return the option `outage_errors` of a store, in which exceptions may stand by their dotted paths.

    Raises:
        ConfigurationError: a path names nothing. What else cannot work, the store's options refuse.
    """
    if not isinstance(value, (tuple, list)):
        return value
    return tuple(_imported(one, where, "exception") if isinstance(one, str) else one for one in value)


def options_of(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the options of `Client` that are set for an account, but for the token.

    Raises:
        ConfigurationError: one cannot be set there.
    """
    options = value.get("OPTIONS", {})
    if not isinstance(options, Mapping):
        raise ConfigurationError(f"{where} must be a dict of further options of aggstream.Client")
    for name in options:
        if name not in _CLIENT_OPTIONS:
            raise ConfigurationError(f"{where}: {name!a} cannot be set there{_like(name, _CLIENT_OPTIONS)}")
    return {**options, **taken(value, CLIENT_KEYS)}


def taken(value: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return what is set for some keys, by their names in small letters."""
    return {key.lower(): value[key] for key in keys if key in value}


class _Provider:
    """Somebody's provider, with what belongs around it."""

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


def _like(key: object, known: Collection[str]) -> str:
    found = difflib.get_close_matches(str(key), known, n=1)
    return f"; did you mean {found[0]!a}?" if found else ""
