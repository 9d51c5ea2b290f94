"""The checks of the setting for `manage.py check`. The checks never show a value that may be a secret."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from django.core import checks

from aggstream.errors import ConfigurationError
from aggstream.integrations.django import _settings
from aggstream.integrations.django._settings import SETTING
from aggstream.integrations.django._store.masking import LIKE_A_TOKEN

_TAG = "aggstream"
_PASSWORD_IN_URL = re.compile(r"://[^/@\s:]+:[^/@\s]+@")
_SECRET_NAME = re.compile(r"token|secret|password|authorization|api.?key", re.IGNORECASE)
_HINT = "See the section on Django in aggstream's README for what can be set."


@checks.register(_TAG)
def check_setting(app_configs: object, **_: object) -> list[checks.CheckMessage]:
    """Return errors for settings that cannot work, and warnings for missing settings."""
    try:
        names = list(_settings.account_settings())
        _settings.user_id_function()
        _settings.events_for()
    except ConfigurationError as error:
        return [checks.Error(str(error), hint=_HINT, obj=SETTING, id="aggstream.E001")]
    return [message for name in names for message in _check_account(name)]


def _check_account(name: str) -> Iterator[checks.CheckMessage]:
    where = f"{SETTING}, account {name!a}"
    try:
        account = _settings.account(name)
    except ConfigurationError as error:
        yield checks.Error(str(error), hint=_HINT, obj=where, id="aggstream.E002")
        return
    needed = {"APP_ID": account.options.get("app_id"), "ORIGIN": account.options.get("origin")}
    # A web worker does not need these settings, so a missing setting is only a warning.
    missing = [
        key
        for key, value in {**needed, "TOKEN": account.token}.items()
        if value is None and not os.environ.get(f"AGGSTREAM_{key}")
    ]
    for key in missing:
        yield checks.Warning(
            f"{key} is not set, so `manage.py aggstream` cannot run",
            hint=f"Set {SETTING}['{key}'], or the environment variable AGGSTREAM_{key}.",
            obj=where,
            id="aggstream.W001",
        )
    if "rest" not in account.options and _is_set(account, "url") and not _is_set(account, "rest_url"):
        yield checks.Warning(
            "URL is set and REST_URL is not, so what is missed in an outage is not found out",
            hint=f"Set {SETTING}['REST_URL'], or the environment variable AGGSTREAM_REST_URL.",
            obj=where,
            id="aggstream.W003",
        )
    if not missing:
        try:
            account.client(None)
        except ConfigurationError as error:
            yield checks.Error(str(error), hint=_HINT, obj=where, id="aggstream.E003")


def _is_set(account: _settings.DjangoAccount, option: str) -> bool:
    return bool(account.options.get(option) or os.environ.get(f"AGGSTREAM_{option.upper()}"))


@checks.register(_TAG, deploy=True)
def check_secrets(app_configs: object, **_: object) -> list[checks.CheckMessage]:
    """Return warnings for secrets in a settings file, because the file is in the project's version history."""
    try:
        value = _settings.configured()
    except ConfigurationError:  # the other check reports the error
        return []
    return [
        checks.Warning(
            f"{path} looks like a secret that is written into the settings",
            hint="Read it from the environment, or give a function that fetches it from where secrets are kept.",
            obj=SETTING,
            id="aggstream.W002",
        )
        for path in _secrets(value, SETTING, named=False)
    ]


def _secrets(value: object, path: str, *, named: bool) -> Iterator[str]:
    """Yield the paths of texts that look like secrets. `named` is True if the name of the path means a secret."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            is_function = key in ("TOKEN", "USER_ID") and not LIKE_A_TOKEN.search(str(item))
            yield from _secrets(
                item, f"{path}[{key!r}]", named=bool(_SECRET_NAME.search(str(key))) and not is_function
            )
    elif isinstance(value, str) and value not in os.environ.values() and (named or _looks_secret(value)):
        yield path


def _looks_secret(text: str) -> bool:
    return bool(LIKE_A_TOKEN.search(text) or _PASSWORD_IN_URL.search(text))
