"""Collects the project's handlers before the client exists."""

from __future__ import annotations

from aggstream._delivery.registrar import Registrar

handlers = Registrar()
on = handlers.on
"""Registers a handler, as `Client.on` does. Handlers run only in the process of `manage.py aggstream`."""
