"""Database connections on threads that live long, where Django begins and ends no request."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.db import close_old_connections, connections

P = ParamSpec("P")
R = TypeVar("R")


def in_request(function: Callable[P, R]) -> Callable[P, R]:
    """Treat a call as Django treats a request: no connection that is broken or too old is used, or kept."""

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        close_old_connections()
        try:
            return function(*args, **options)
        finally:
            close_old_connections()

    return call


def in_short(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function that is called now and then, on a thread whose end nobody tells of, leave no connection."""

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        try:
            return function(*args, **options)
        finally:
            connections.close_all()

    return call
