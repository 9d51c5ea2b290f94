"""Closes database connections on threads on which Django handles no request."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.db import close_old_connections, connections

P = ParamSpec("P")
R = TypeVar("R")


def in_request(function: Callable[P, R]) -> Callable[P, R]:
    """Close broken and old connections before and after each call, as Django does for each request."""

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        close_old_connections()
        try:
            return function(*args, **options)
        finally:
            close_old_connections()

    return call


def closing_connections(function: Callable[P, R]) -> Callable[P, R]:
    """Close all connections of the thread after each call, because the thread may end without closing them."""

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        try:
            return function(*args, **options)
        finally:
            connections.close_all()

    return call
