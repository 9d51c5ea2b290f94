"""The registrar of the project's handlers, before there is a client."""

from __future__ import annotations

from aggstream._delivery.registrar import Registrar

handlers = Registrar()
on = handlers.on
"""Registers a handler, as `Client.on` does. It runs in the process of `manage.py aggstream` alone."""
