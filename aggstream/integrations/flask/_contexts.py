"""Gives functions the application's context on threads on which Flask handles no request."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from flask import Flask

P = ParamSpec("P")
R = TypeVar("R")


def in_context(app: Flask) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that runs each call in a new context of the application. Flask cleans up afterwards."""

    def around(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **options: P.kwargs) -> R:
            with app.app_context():
                return function(*args, **options)

        return call

    return around
