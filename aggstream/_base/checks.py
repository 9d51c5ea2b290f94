"""Options: numbers and switches are checked where they are given."""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

import attrs

from aggstream.errors import ConfigurationError


def check_seconds(value: Any, name: str) -> float:
    """Return a time that is finite and above 0.

    Raises:
        ConfigurationError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= sys.float_info.max:
        raise ConfigurationError(f"{name} must be a number of seconds above 0, got {value!a}")
    return float(value)


def check_count(value: Any, name: str, *, at_least: int = 1) -> int:
    """Return a whole number that is large enough.

    Raises:
        ConfigurationError: it is not.
    """
    if type(value) is not int or value < at_least:
        raise ConfigurationError(f"{name} must be a whole number, {at_least} or more, got {value!a}")
    return value


def check_flag(value: Any, name: str) -> bool:
    """Return a switch.

    Raises:
        ConfigurationError: it is neither True nor False.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, got {value!a}")
    return value


def is_loopback(host: str) -> bool:
    """Return True if a host name can only mean this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def seconds(default: float) -> Any:
    """Make a field for a time that must be finite and above 0."""
    return attrs.field(default=default, validator=lambda _, field, value: check_seconds(value, field.name))


def optional_seconds(default: float | None) -> Any:
    """Make a field for a time above 0, or None."""

    def check(_: object, field: attrs.Attribute[Any], value: Any) -> None:
        if value is not None:
            check_seconds(value, field.name)

    return attrs.field(default=default, validator=check)


def count(default: int) -> Any:
    """Make a field for a whole number above 0."""
    return attrs.field(default=default, validator=lambda _, field, value: check_count(value, field.name))


def flag(*, default: bool) -> Any:
    """Make a field for a switch."""
    return attrs.field(default=default, validator=lambda _, field, value: check_flag(value, field.name))
